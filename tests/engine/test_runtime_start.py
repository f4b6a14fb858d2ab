"""A container as it starts: what it may see and do, how it ends, what it leaves. Real kernel, real namespaces."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.runtime import caps
from backend.runtime.client import KeeperError, Stdio
from tests.support.keeper import CAPABILITIES, MASKED, PLAIN, Lab, children, name_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
TTY = Stdio(tty=True, open_stdin=False, stdin_once=False, rows=33, columns=99)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = await Lab.open()
    yield lab
    await lab.close()


async def test_every_namespace_is_the_containers_own(lab: Lab) -> None:
    text = await lab.sh("for n in mnt net pid ipc uts cgroup; do readlink /proc/self/ns/$n; done; hostname; echo pid=$$")
    inside = text.split()
    host = [os.readlink(f"/proc/self/ns/{n}") for n in ("mnt", "net", "pid", "ipc", "uts", "cgroup")]
    assert len(set(inside[:6]) | set(host)) == 12
    assert inside[6:] == ["lab", "pid=1"]


async def test_nothing_of_the_host_is_visible_in_files_mounts_processes_and_environment(lab: Lab) -> None:
    text = await lab.sh("ls /; echo --; cat /proc/self/mountinfo; echo --; ls /proc | grep -c '^[0-9]'; echo --; env; echo --; ls /proc/self/fd")
    root, mounts, processes, environment, descriptors = text.split("--\n")
    assert set(root.split()) == {"bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var"}
    assert all(line.split()[4].startswith(("/proc", "/dev", "/sys")) or line.split()[4] == "/" for line in mounts.splitlines())
    assert int(processes) <= 3
    assert set(environment.split()) <= {"PATH=/bin:/usr/bin", "HOME=/root", "PWD=/", "SHLVL=1", "OLDPWD=/"}
    assert len(descriptors.split()) == 4                # 0, 1, 2 and the one that ls reads with


async def test_capabilities_are_exactly_those_named(lab: Lab) -> None:
    text = await lab.sh("grep -E '^(Cap|Seccomp:|NoNew)' /proc/self/status")
    status = dict(line.split(":\t") for line in text.splitlines())
    expected = f"{caps.mask(CAPABILITIES):016x}"
    assert (status["CapPrm"], status["CapEff"], status["CapBnd"]) == (expected, expected, expected)
    assert (status["CapInh"], status["CapAmb"], status["Seccomp"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "2", "0")


async def test_a_user_has_no_capabilities_but_his_groups_home_and_streams(lab: Lab) -> None:
    script = "id; echo $HOME; grep CapEff /proc/self/status; echo ok > /dev/stdout; echo no > /etc/passwd"
    text = await lab.sh(script, user={"username": "alice"})
    assert "uid=1000(alice) gid=1001(alice) groups=77(extra)" in text
    assert "/home/alice\n" in text and "CapEff:\t0000000000000000" in text and "\nok\n" in text
    assert "can't create /etc/passwd" in text


@pytest.mark.parametrize(("user", "expected"), [
    ("1000", "uid=1000(alice) gid=1001(alice) groups=77(extra)"), ("4242", "uid=4242 gid=0(root)"),
    ("alice:extra", "uid=1000(alice) gid=77(extra)"), ("4242:4343", "uid=4242 gid=4343"), ("", "uid=0(root) gid=0(root)"),
])  # fmt: skip
async def test_users_are_resolved_as_docker_does(lab: Lab, user: str, expected: str) -> None:
    assert (await lab.sh("id", user={"username": user})).startswith(expected)


async def test_supplementary_groups_by_name_and_number(lab: Lab) -> None:
    text = await lab.sh("id -G", user={"username": "alice", "additionalGids": [5], "additionalGroups": ["nobody", "999"]})
    assert sorted(text.split(), key=int) == ["5", "77", "999", "1001", "65534"]


async def test_no_new_privileges_and_umask_are_applied(lab: Lab) -> None:
    text = await lab.sh("grep NoNewPrivs /proc/self/status; umask", noNewPrivileges=True, user={"username": "", "umask": 0o077})
    assert text.split() == ["NoNewPrivs:", "1", "0077"]


async def test_seccomp_refuses_what_the_default_profile_refuses(lab: Lab) -> None:
    config = lab.config("sh", "-c", "unshare -m true; mount -t tmpfs x /tmp; echo done")
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")          # so that only the filter can refuse
    out, _ = await lab.output(config)
    assert out[2].count(b"Operation not permitted") + out[2].count(b"ermission denied") == 2, out
    assert out[1] == b"done\n"


async def test_masked_paths_show_nothing_and_read_only_ones_cannot_be_written(lab: Lab) -> None:
    script = "for p in " + " ".join(MASKED) + "; do if [ -d $p ]; then ls -A $p; elif [ -e $p ]; then cat $p; fi; done; echo end; " \
             "echo 1 > /proc/sys/kernel/panic; mkdir /sys/x"
    text = await lab.sh(script)
    assert text.startswith("end\n")
    assert text.count("Read-only file system") == 2


async def test_devices_are_the_default_ones_and_others_cannot_be_opened(lab: Lab) -> None:
    text = await lab.sh("ls /dev; echo x > /dev/null; head -c 3 /dev/zero | wc -c; mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg")
    names = {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
    assert names <= set(text.split()) and "console" not in text.split()
    assert "\n3\n" in text and "Operation not permitted" in text


async def test_the_lowest_layer_stays_as_it_is(lab: Lab) -> None:
    assert await lab.sh("echo changed > /etc/passwd; rm /bin/vi; cat /etc/passwd") == "changed\n"
    assert "root:x:0:0" in Path(lab.lower, "etc/passwd").read_text() and os.path.lexists(f"{lab.lower}/bin/vi")


async def test_a_read_only_root_keeps_its_writable_mounts(lab: Lab) -> None:
    config = lab.config("sh", "-c", "echo a > /x; echo b > /dev/shm/y && cat /dev/shm/y")
    config["root"]["readonly"] = True
    out, _ = await lab.output(config)
    assert b"Read-only file system" in out[2] and out[1] == b"b\n"


async def test_bind_mounts_keep_and_refuse_writing(lab: Lab) -> None:
    Path(lab.at, "shared").mkdir()
    Path(lab.at, "shared/file").write_text("host\n")
    config = lab.config("sh", "-c", "cat /a/b/file; echo new > /a/b/made; echo x > /ro/file; cat /one; grep ' /ro ' /proc/mounts")
    config["mounts"] += [
        {"destination": "/a/b", "type": "bind", "source": f"{lab.at}/shared", "options": ["rbind", "rprivate"]},
        {"destination": "/ro", "type": "bind", "source": f"{lab.at}/shared", "options": ["rbind", "ro", "rprivate"]},
        {"destination": "/one", "type": "bind", "source": f"{lab.at}/shared/file", "options": ["bind", "ro", "nosuid"]},
    ]
    out, _ = await lab.output(config)
    assert out[1].startswith(b"host\nhost\n") and b" ro," in out[1] and b"Read-only file system" in out[2]
    assert Path(lab.at, "shared/made").read_text() == "new\n"


async def test_a_tmpfs_begins_with_what_the_image_has_there(lab: Lab) -> None:
    os.makedirs(f"{lab.lower}/var/data/sub")
    Path(lab.lower, "var/data/sub/file").write_text("kept\n")
    Path(lab.lower, "var/data/sub/file").chmod(0o640)
    os.chown(f"{lab.lower}/var/data/sub/file", 5, 6)
    os.symlink("/etc/passwd", f"{lab.lower}/var/data/link")
    config = lab.config("sh", "-c", "cat /var/data/sub/file; stat -c '%a %u %g' /var/data/sub/file; readlink /var/data/link; "
                                    "echo x > /var/data/sub/file; stat -c %a /empty")
    config["mounts"] += [
        {"destination": "/var/data", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "tmpcopyup"]},
        {"destination": "/empty", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "tmpcopyup"]},
    ]
    out, _ = await lab.output(config)
    assert out[1] == b"kept\n640 5 6\n/etc/passwd\n1777\n", out
    assert Path(lab.lower, "var/data/sub/file").read_text() == "kept\n"


async def test_a_link_of_the_image_cannot_carry_a_mount_out_of_the_root(lab: Lab) -> None:
    os.mkdir(f"{lab.at}/victim")
    os.symlink(f"../../../../../../../..{lab.at}/victim", f"{lab.lower}/data")
    config = lab.config("sh", "-c", "echo here > /data/f; ls -d /data/f")
    config["mounts"].append({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]})
    out, _ = await lab.output(config)
    assert b"/data/f" in out[1]
    assert os.listdir(f"{lab.at}/victim") == []


@pytest.mark.parametrize("target", ["/proc", "/dev"])
async def test_proc_that_is_a_link_is_refused_or_stays_inside(lab: Lab, target: str) -> None:
    os.rmdir(f"{lab.lower}{target}")
    os.symlink("/tmp", f"{lab.lower}{target}")
    if target == "/proc":
        with pytest.raises(KeeperError) as caught:
            await lab.sh("true")
        assert caught.value.reason == "mount"
    else:
        assert "null" in await lab.sh("ls /tmp")
    assert os.readlink(f"{lab.lower}{target}") == "/tmp"


async def test_mounting_inside_proc_is_refused(lab: Lab) -> None:
    config = lab.config("true")
    config["mounts"].append({"destination": "/proc/self", "type": "tmpfs", "source": "tmpfs", "options": []})
    with pytest.raises(KeeperError) as caught:
        await lab.create(config)
    assert caught.value.reason == "mount" and "/proc" in caught.value.message


async def test_sysctls_are_written_and_bad_names_refused(lab: Lab) -> None:
    config = lab.config("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax")
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "12345"}
    out, _ = await lab.output(config)
    assert out[1] == b"0\n12345\n"
    config["linux"]["sysctl"] = {"../../etc/passwd": "1"}
    with pytest.raises(KeeperError) as caught:
        await lab.create(config)
    assert caught.value.reason == "bad_config"


async def test_limits_are_set_and_capped_to_what_may_be_had(lab: Lab) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 1 << 40}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    assert (await lab.sh("ulimit -n; ulimit -c", rlimits=limits)).split() == ["99", "0"]


async def test_signals_have_their_defaults(lab: Lab) -> None:
    out, _ = await lab.output(lab.config("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"))      # a shell changes some
    assert {line.split()[1] for line in out[1].splitlines()} == {b"0" * 16}


@pytest.mark.parametrize(("args", "reason"), [
    (["nope"], "not_found"), (["/nope"], "not_found"), (["/etc/passwd"], "not_permitted"), (["/etc"], "not_permitted"),
])  # fmt: skip
async def test_a_program_that_cannot_run_says_why(lab: Lab, args: list[str], reason: str) -> None:
    with pytest.raises(KeeperError) as caught:
        await lab.output(lab.config(*args))
    assert caught.value.reason == reason and args[0] in caught.value.message


async def test_a_program_in_no_known_format_is_told_apart(lab: Lab) -> None:
    path = Path(lab.lower, "bin/odd")
    path.write_bytes(b"\x00\x01\x02\x03")
    path.chmod(0o755)
    with pytest.raises(KeeperError) as caught:
        await lab.output(lab.config("odd"))
    assert caught.value.reason == "not_permitted" and "exec format error" in caught.value.message
    end = await lab.exit("c1")
    assert (end.code, end.signal) == (126, 0)


@pytest.mark.parametrize(("script", "code", "number"), [("exit 7", 7, 0), ("true", 0, 0)])
async def test_exit_codes(lab: Lab, script: str, code: int, number: int) -> None:
    _, end = await lab.output(lab.config("sh", "-c", script))
    assert (end.code, end.signal, end.known, end.oom) == (code, number, True, False)


async def test_a_missing_working_directory_is_made_and_a_file_refused(lab: Lab) -> None:
    assert await lab.sh("pwd", cwd="/new/dir") == "/new/dir\n"
    with pytest.raises(KeeperError) as caught:
        await lab.sh("pwd", cwd="/etc/passwd")
    assert caught.value.reason == "bad_cwd"


async def test_unknown_users_and_capabilities_are_refused(lab: Lab) -> None:
    with pytest.raises(KeeperError) as caught:
        await lab.sh("id", user={"username": "bob"})
    assert (caught.value.reason, caught.value.message) == ("no_user", "unable to find user bob: no matching entries in passwd file")
    with pytest.raises(KeeperError) as caught:
        await lab.sh("id", capabilities={"bounding": ["CAP_FLY"]})
    assert caught.value.reason == "bad_config"


async def test_a_terminal_is_the_containers_own(lab: Lab) -> None:
    out, _ = await lab.output(lab.config("sh", "-c", "tty; stty size; ls /dev/console; test -t 0 && echo yes; ls /dev/pts", user={"username": "alice"}), TTY)
    assert out[1].split() == [b"/dev/pts/0", b"33", b"99", b"/dev/console", b"yes", b"0", b"ptmx"]


async def test_a_container_beyond_its_memory_is_killed_and_says_so(lab: Lab) -> None:
    config = lab.config("sh", "-c", "x=$(yes | head -c 80000000); echo survived")
    config["linux"]["resources"]["memory"] = {"limit": 24 << 20, "swap": 24 << 20}
    out, end = await lab.output(config)
    assert end.oom and b"survived" not in out[1]


async def test_the_process_limit_holds(lab: Lab) -> None:
    config = lab.config("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all")
    config["linux"]["resources"]["pids"] = {"limit": 4}
    out, _ = await lab.output(config)
    assert b"fork" in out[2] and b"all" not in out[1]


async def test_a_tiny_init_reaps_and_forwards(lab: Lab) -> None:
    config = lab.config("sh", "-c", "trap 'echo got; exit 9' TERM; (sleep 0.1 & ) ; echo ready; while :; do sleep 0.05; done")
    config["annotations"] = {"slipway.init": "1"}
    id = await lab.create(config)
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    seen = b""
    while b"ready" not in seen:
        import asyncio
        seen += await asyncio.get_running_loop().sock_recv(sock, 100)
    await lab.keeper.kill(id, 15)
    end = await lab.exit(id)
    sock.close()
    assert end.code == 9


async def test_nothing_is_left_behind_by_containers_that_ran_or_could_not(lab: Lab) -> None:
    await lab.sh("true")
    before = lab.census()
    bad_mount = lab.config("true")
    bad_mount["mounts"].append({"destination": "/x", "type": "bind", "source": "/does/not/exist", "options": ["bind"]})
    bad_limit = lab.config("true")
    bad_limit["linux"]["resources"]["cpu"] = {"quota": 1}
    for config in (lab.config("nope"), bad_mount, bad_limit, lab.config("true", user={"username": "bob"})):
        with pytest.raises(KeeperError):
            await lab.create(config)
    os.makedirs(f"{lab.at}/nolog/log/chunks-00000001.log")
    for stdio in (PLAIN, TTY):
        await lab.output(lab.config("true"), stdio)
        with pytest.raises(KeeperError):                   # a log that cannot be opened
            await lab.create(lab.config("true"), stdio, id="nolog")
    created = await lab.create(lab.config("true"))
    await lab.keeper.delete(created)
    assert lab.census() == before


async def test_starts_go_on_when_the_nursery_of_children_forked_ahead_is_killed(lab: Lab) -> None:
    lab.census()                                      # it waits until they are there
    keeper = lab.keeper.pid
    nursery = next(pid for pid in children(keeper) if name_of(pid) == "slipway:forks")
    os.kill(int(nursery), signal.SIGKILL)
    for _ in range(4):
        assert await lab.sh("echo still here") == "still here\n"
    assert lab.census()["children"] == 3              # a new nursery and two that wait
    assert nursery not in children(keeper)
