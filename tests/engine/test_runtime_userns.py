"""User namespaces in the runtime: root in a container is nobody outside, and nothing that worked stops working."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.runtime.client import KeeperError, LogTarget, Overlay, Stdio
from tests.support.keeper import MASKED, PLAIN, Lab, frames, read_all

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")]
BASE, SIZE = 1879048192 + 65536 * 7, 65536
RANGES = [{"containerID": 0, "hostID": BASE, "size": SIZE}]
TTY = Stdio(tty=True, open_stdin=True, stdin_once=False)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    made = await Lab.open()
    yield made
    await made.close()


def remapped(config: dict[str, Any]) -> dict[str, Any]:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = RANGES
    return config


async def create(lab: Lab, config: dict[str, Any], stdio: Stdio = PLAIN) -> str:
    id = f"u{len(os.listdir(lab.at))}"
    bundle = f"{lab.at}/{id}"
    for name in ("rootfs", "layer/upper", "layer/work", "log"):
        os.makedirs(f"{bundle}/{name}")
    config["linux"]["cgroupsPath"] = f"{lab.cgroups}/{id}"
    import json
    Path(bundle, "config.json").write_text(json.dumps(remapped(config)))
    user, net = await lab.keeper.userns(RANGES, RANGES)
    try:
        await lab.keeper.create(id, bundle, overlay=Overlay((lab.lower,), f"{bundle}/layer/upper", f"{bundle}/layer/work"),
                                stdio=stdio, log=LogTarget(f"{bundle}/log", "slipway", 0, 1), netns=net, userns=user)
    finally:
        os.close(user)
        os.close(net)
    return id


async def output(lab: Lab, config: dict[str, Any], stdio: Stdio = PLAIN) -> tuple[str, str]:
    """What it wrote, and its ID."""
    id = await create(lab, config, stdio)
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    data = await read_all(sock)
    await lab.exit(id)
    await lab.keeper.delete(id)
    out = frames(data) if not stdio.tty else {1: data, 2: b""}
    return (out[1] + out[2]).decode(), id


async def sh(lab: Lab, script: str, **more: Any) -> str:
    return (await output(lab, lab.config("sh", "-c", script, **more)))[0]


async def test_root_inside_is_nobody_outside(lab: Lab) -> None:
    id = await create(lab, lab.config("sleep", "1000"))
    await lab.keeper.start(id)
    pid = next(c.pid for c in await lab.keeper.list() if c.id == id)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(BASE)] * 4 and status["Gid"].split() == [str(BASE)] * 4
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(BASE), str(SIZE)]
    for kind in ("user", "net", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert os.listdir(f"/proc/{pid}/fd") == ["0", "1", "2"]


async def test_it_looks_like_any_container_from_inside(lab: Lab) -> None:
    text = await sh(lab, "id; stat -c '%u:%g %a %n' / /etc/passwd /dev /dev/null /dev/pts /dev/shm /tmp /dev/mqueue; "
                         "touch /made /dev/shm/x /dev/y; stat -c '%u:%g %n' /made /dev/y; chown 1000:1001 /made; stat -c %u:%g /made; "
                         "head -c 2 /dev/zero | wc -c; echo x > /dev/null; ls /proc/self/fd | wc -l; cat /proc/sys/kernel/hostname")
    lines = text.splitlines()
    assert lines[0] == "uid=0(root) gid=0(root) groups=0(root)"
    assert [line.split()[0] for line in lines[1:9]] == ["0:0"] * 8, text
    assert lines[9:12] == ["0:0 /made", "0:0 /dev/y", "1000:1001"], text
    assert lines[12] == "2" and lines[-1] == "lab", text


async def test_what_is_on_disk_are_the_containers_own_ids(lab: Lab) -> None:
    """So a range may change between two runs, and a commit or copy sees what the container saw."""
    text, id = await output(lab, lab.config("sh", "-c", "touch /a; touch /b; chown alice:alice /b; rm /etc/group; mknod /p p; ln -s x /l"))
    assert text == ""
    upper = Path(lab.at, id, "layer/upper")
    assert [(os.lstat(upper / name).st_uid, os.lstat(upper / name).st_gid) for name in ("a", "b", "p", "l", "etc/group")] == [
        (0, 0), (1000, 1001), (0, 0), (0, 0), (0, 0)]
    assert os.lstat(f"{lab.lower}/etc/passwd").st_uid == 0


async def test_users_and_their_streams(lab: Lab) -> None:
    assert (await sh(lab, "id -u; id -G; echo x > /dev/stdout; echo y > /dev/stderr", user={"username": "alice"})).split() == ["1000", "1001", "77", "x", "y"]
    with pytest.raises(KeeperError) as caught:
        await sh(lab, "true", user={"username": "70000"})
    assert caught.value.reason == "no_user" and "70000" in caught.value.message and "--userns=host" in caught.value.message


async def test_a_terminal_belongs_to_its_user(lab: Lab) -> None:
    config = lab.config("sh", "-c", "tty; stat -c '%u %g %a' $(tty); test -w /dev/console && echo console; echo hi > $(tty)", user={"username": "alice"})
    text, _ = await output(lab, config, TTY)
    assert text.split() == ["/dev/pts/0", "1000", "5", "620", "console", "hi"]


async def test_the_hosts_files_and_devices_are_a_strangers(lab: Lab) -> None:
    os.mkdir(f"{lab.at}/theirs")
    Path(f"{lab.at}/theirs/file").write_text("secret\n")
    os.chmod(f"{lab.at}/theirs/file", 0o600)
    config = lab.config("sh", "-c", "stat -c %u /theirs; cat /theirs/file; touch /theirs/new; chown 0 /theirs/file; mknod /n c 1 3; echo end")
    config["mounts"].append({"destination": "/theirs", "type": "bind", "source": f"{lab.at}/theirs", "options": ["rbind", "rprivate"]})
    text, _ = await output(lab, config)
    lines = text.splitlines()
    assert lines[0] == "65534" and lines[1] == "end" and "secret" not in text, text
    assert text.count("ermission denied") + text.count("not permitted") == 4, text
    assert os.listdir(f"{lab.at}/theirs") == ["file"] and os.stat(f"{lab.at}/theirs/file").st_uid == 0


async def test_even_with_sys_admin_and_no_filter_masks_stay_and_the_machine_is_out_of_reach(lab: Lab) -> None:
    """What hides parts of /proc came from outside its mount namespace, so that the kernel keeps it in place."""
    hidden = next(path for path in MASKED if os.path.isfile(path))
    commands = {"mask": f"umount {hidden}", "writable": "mount -o remount,rw,bind /proc/sys", "proc": "mkdir /p; mount -t proc p /p",
                "name": "hostname changed", "sysctl": "echo 1 > /proc/sys/kernel/panic", "log": "dmesg",
                "own": "mount -t tmpfs x /tmp"}
    script = "; ".join(f"( {command} ) > /dev/null 2>&1 && echo {name}" for name, command in commands.items())
    config = lab.config("sh", "-c", f"{script}; cat {hidden}; echo end")
    config["linux"].pop("seccomp")
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] += ["CAP_SYS_ADMIN", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH"]
    text, _ = await output(lab, config)
    assert text.split() == ["own", "end"], "only in its own mount namespace may it do anything"


async def test_a_bind_can_be_seen_with_shifted_ids(lab: Lab) -> None:
    os.mkdir(f"{lab.at}/volume")
    os.chown(f"{lab.at}/volume", 1000, 1001)
    config = lab.config("sh", "-c", "stat -c %u:%g /volume; echo new > /volume/new; stat -c %u:%g /volume/new")
    config["mounts"].append({"destination": "/volume", "type": "bind", "source": f"{lab.at}/volume", "options": ["rbind", "rprivate", "idmap"]})
    text, _ = await output(lab, config)
    assert text.split() == ["1000:1001", "0:0"]
    assert os.stat(f"{lab.at}/volume/new").st_uid == 0


async def test_a_file_system_that_cannot_be_shifted_is_refused_with_words(lab: Lab) -> None:
    config = lab.config("true")
    config["mounts"].append({"destination": "/x", "type": "bind", "source": "/proc/sys", "options": ["bind", "idmap"]})
    with pytest.raises(KeeperError) as caught:
        await create(lab, config)
    assert "shifted IDs" in caught.value.message and "--userns=host" in caught.value.message


async def test_execs_are_in_the_namespace_too(lab: Lab) -> None:
    id = await create(lab, lab.config("sleep", "1000"))
    await lab.keeper.start(id)

    async def run(process: dict[str, Any], stdio: Stdio = PLAIN) -> bytes:
        await lab.keeper.exec_prepare(id, "e", process, stdio)
        sock = await lab.keeper.attach(id, "e", stdin=False, stdout=True, stderr=True)
        await lab.keeper.exec_start(id, "e")
        data = await read_all(sock)
        await lab.exit(id, "e")
        return data if stdio.tty else frames(data)[1] + frames(data)[2]

    text = (await run(lab.process("sh", "-c", "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status; touch /by-exec; stat -c %u /by-exec"))).decode()
    assert text.split()[:4] == ["0", "0", str(BASE), str(SIZE)] and text.split()[-1] == "0"
    assert text.split()[5] == "00000000a80425fb", "exactly the container's capabilities, in its own namespace"
    text = (await run(lab.process("sh", "-c", "id -u; stat -c %u $(tty)", user={"username": "alice"}), TTY)).decode()
    assert text.split() == ["1000", "1000"]
    await lab.both_lost()
    await lab.connect()
    assert (await run(lab.process("id", "-u"))) == b"0\n", "and with the next keeper"


async def test_the_network_is_the_containers_own(lab: Lab) -> None:
    """Its root may open raw sockets there (ping, tcpdump): the network namespace belongs to the user namespace."""
    config = lab.config("sh", "-c", "ping -c 1 127.0.0.1 > /dev/null && echo pong; cat /sys/class/net/lo/operstate > /dev/null && echo sys")
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    assert (await output(lab, config))[0].split() == ["pong", "sys"]


async def test_nothing_is_left_of_containers_with_a_namespace(lab: Lab) -> None:
    await sh(lab, "true")
    before = lab.census()
    for _ in range(3):
        await sh(lab, "true")
    with pytest.raises(KeeperError):
        await sh(lab, "true", cwd="/etc/passwd")
    with pytest.raises(KeeperError):
        await lab.keeper.userns([{"containerID": 0, "hostID": 1 << 33, "size": 5}], RANGES)
    assert lab.census() == before
    await asyncio.sleep(0)


async def test_a_container_that_may_trace_cannot_look_into_an_exec_that_is_about_to_run(lab: Lab) -> None:
    """Its memory and program belong to the host's user namespace, in which SYS_PTRACE of the container's counts nothing."""
    config = lab.config("sleep", "1000")
    config["linux"].pop("seccomp")
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] += ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]
    id = await create(lab, config)
    await lab.keeper.start(id)
    await lab.keeper.exec_prepare(id, "victim", lab.process("true"), PLAIN)
    script = ("for p in /proc/[0-9]*; do grep -q slipway: $p/comm && echo seen && readlink $p/exe $p/cwd && echo NAMED; "
              "grep -q slipway: $p/comm && cat $p/maps $p/environ && echo READ; done; echo end")
    process = {**lab.process("sh", "-c", script), "capabilities": config["process"]["capabilities"]}
    await lab.keeper.exec_prepare(id, "look", process, PLAIN)
    sock = await lab.keeper.attach(id, "look", stdin=False, stdout=True, stderr=False)
    await lab.keeper.exec_start(id, "look")
    assert frames(await read_all(sock))[1].split() == [b"seen", b"end"]
    await lab.exit(id, "look")
