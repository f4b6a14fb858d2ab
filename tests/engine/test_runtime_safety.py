"""What containers have tried elsewhere to get out (the CVE is named): the runtime's own program, links, leaks, /proc."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.runtime.client import KeeperError, Stdio
from tests.support.keeper import MASKED, PLAIN, Lab, children, frames, name_of, read_all

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")]
TTY = Stdio(tty=True, open_stdin=True, stdin_once=False)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    made = await Lab.open()
    yield made
    await made.close()


def powerful(config: dict[str, Any], *more: str) -> dict[str, Any]:
    """With capabilities added and no filter, as somebody who debugs asks for."""
    config["linux"].pop("seccomp", None)
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind] += more
    return config


async def pid_of(lab: Lab, id: str) -> int:
    return next(c.pid for c in await lab.keeper.list() if c.id == id)


async def run_exec(lab: Lab, id: str, script: str, **more: Any) -> str:
    await lab.keeper.exec_prepare(id, "attack", lab.process("sh", "-c", script, **more), PLAIN)
    sock = await lab.keeper.attach(id, "attack", stdin=False, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "attack")
    data = frames(await read_all(sock))
    await lab.exit(id, "attack")
    return (data[1] + data[2]).decode()


# --- the runtime's own program (CVE-2019-5736) ----------------------------------------------------------------------
async def test_the_interpreter_cannot_be_opened_for_writing_through_any_process_at_any_stage(lab: Lab) -> None:
    """Not even by the host's root: /proc/PID/exe is a file on a read-only mount that is attached nowhere."""
    running = await lab.sleeper()
    created = await lab.create(lab.config("true"))
    await lab.keeper.exec_prepare(running, "waits", lab.process("true"), PLAIN)
    listed = {c.id: c for c in await lab.keeper.list()}
    stages = {"keeper": lab.keeper.pid, "created": listed[created].pid, "exec": listed[running].execs[0].pid,
              **{f"ahead {pid}": int(pid) for pid in children(lab.keeper.pid) if name_of(pid).startswith("slipway:")}}
    assert len(stages) >= 5
    for stage, pid in stages.items():
        assert os.path.samestat(os.stat(f"/proc/{pid}/exe"), os.stat(os.path.realpath(sys.executable))), stage
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with pytest.raises(OSError) as caught:
                os.close(os.open(f"/proc/{pid}/exe", flags))
            assert caught.value.errno in (errno.EROFS, errno.ETXTBSY), f"{stage}: {caught.value}"
        assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY, f"{stage}: not only while it runs"
        with pytest.raises(OSError) as caught:
            os.chmod(f"/proc/{pid}/exe", 0o4755)
        assert caught.value.errno == errno.EROFS, stage


async def test_the_tiny_init_is_a_sealed_program_without_the_keepers_memory(lab: Lab) -> None:
    config = lab.config("sleep", "1000")
    config["annotations"] = {"slipway.init": "1"}
    id = await lab.create(config)
    await lab.keeper.start(id)
    pid = await pid_of(lab, id)
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:slipway-init") and name_of(str(pid)) == "slipway:init"
    with pytest.raises(OSError) as caught:
        fd = os.open(f"/proc/{pid}/exe", os.O_WRONLY)
        os.write(fd, b"x")
    assert caught.value.errno in (errno.ETXTBSY, errno.EPERM)
    assert os.listdir(f"/proc/{pid}/fd") == []
    mapped = sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps").read_text().splitlines() if line.startswith("Rss:"))
    assert mapped < 100, f"{mapped} kB"


_LOOK = """
for p in /proc/[0-9]*; do
  read name < $p/comm 2> /dev/null || continue
  case "$name" in slipway*)
    echo "seen $name"
    readlink $p/exe > /dev/null 2>&1 && echo exe-named
    ( : >> $p/exe ) 2> /dev/null && echo EXE-WRITABLE
    ls $p/fd > /dev/null 2>&1 && echo "fds $(ls $p/fd | wc -w)"
    ls -l $p/fd 2> /dev/null | grep -q -e '->' && echo "fds named"
    cat $p/environ 2> /dev/null | grep -q . && echo ENVIRONMENT
    head -c 1 $p/mem > /dev/null 2>&1 && echo MEMORY
    ls $p/cwd/ > /dev/null 2>&1 && echo "cwd $(readlink $p/cwd)"
    ls $p/root/ > /dev/null 2>&1 && [ -e $p/root/boot ] && echo HOST-ROOT
  esac
done; echo end
"""


async def test_an_exec_that_is_about_to_run_shows_nothing_of_itself_inside(lab: Lab) -> None:
    """CVE-2016-9962: it is in the container's process list already, but cannot be looked into or traced."""
    id = await lab.sleeper()
    await lab.keeper.exec_prepare(id, "victim", lab.process("true"), PLAIN)
    text = await run_exec(lab, id, _LOOK)
    assert text.splitlines() == ["seen slipway:init", "fds 4", "end"], f"that it has three streams and a socket, and no more: {text}"


TRACING = ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")


async def tracing(lab: Lab) -> str:
    id = await lab.create(powerful(lab.config("sleep", "1000"), *TRACING))
    await lab.keeper.start(id)
    return id


async def test_where_somebody_may_trace_an_exec_is_not_there_before_its_program(lab: Lab) -> None:
    """Its first stage has all capabilities: whoever traced that would have the machine."""
    id = await tracing(lab)
    await lab.keeper.exec_prepare(id, "victim", lab.process("sleep", "1000"), PLAIN)
    capabilities = powerful(lab.config("x"), *TRACING)["process"]["capabilities"]
    assert await run_exec(lab, id, _LOOK, capabilities=capabilities) == "end\n"
    pid = await lab.keeper.exec_start(id, "victim")
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n" and os.listdir(f"/proc/{pid}/fd") == ["0", "1", "2"]
    assert os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat(f"/proc/{await pid_of(lab, id)}/ns/pid").st_ino
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["CapEff"] == "00000000a80425fb" and status["Seccomp"] == "0" and status["NSsid"].split()[-1] == status["NSpid"].split()[-1]
    await lab.keeper.kill(id, 15, "victim")
    assert (await lab.exit(id, "victim")).code == 143


async def test_a_privileged_exec_and_a_container_beside_it_count_as_tracers_too(lab: Lab) -> None:
    id = await lab.sleeper()
    await lab.keeper.exec_prepare(id, "one", lab.process("true"), PLAIN)
    capabilities = powerful(lab.config("x"), *TRACING)["process"]["capabilities"]
    await lab.keeper.exec(id, "tracer", lab.process("sleep", "1000", capabilities=capabilities), PLAIN)
    await lab.keeper.exec_prepare(id, "two", lab.process("true"), PLAIN)
    stages = {e.exec_id: e.pid for c in await lab.keeper.list() if c.id == id for e in c.execs}
    inside = os.stat(f"/proc/{await pid_of(lab, id)}/ns/pid").st_ino
    assert [os.stat(f"/proc/{stages[name]}/ns/pid").st_ino == inside for name in ("one", "tracer", "two")] == [True, True, False]
    other = await lab.sleeper()
    config = powerful(lab.config("sleep", "1000"), *TRACING)
    next(one for one in config["linux"]["namespaces"] if one["type"] == "pid")["path"] = f"/proc/{await pid_of(lab, other)}/ns/pid"
    await lab.keeper.start(await lab.create(config))
    await lab.keeper.exec_prepare(other, "three", lab.process("true"), PLAIN)
    stage = next(e.pid for c in await lab.keeper.list() if c.id == other for e in c.execs)
    assert os.stat(f"/proc/{stage}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino


async def test_execs_beside_a_tracer_work_like_all(lab: Lab) -> None:
    id = await tracing(lab)
    for script, code in (("exit 7", 7), ("kill -9 $$", 137)):
        await lab.keeper.exec(id, "e", lab.process("sh", "-c", script), PLAIN)
        end = await lab.exit(id, "e")
        assert (end.code, end.known) == (code, True)
    await lab.keeper.exec_prepare(id, "t", lab.process("sh", "-c", "tty; read x; echo got $x; exit 6", user={"username": "alice"}), TTY)
    sock = await lab.keeper.attach(id, "t", stdin=True, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "t")
    sock.send(b"word\n")
    assert b"got word" in await read_all(sock) and (await lab.exit(id, "t")).code == 6
    Path(lab.lower, "bin/odd").write_bytes(b"\0\1")
    Path(lab.lower, "bin/odd").chmod(0o755)
    for program, reason in (("nope", "not_found"), ("odd", "not_permitted")):
        with pytest.raises(KeeperError) as caught:
            await lab.keeper.exec(id, "bad", lab.process(program), PLAIN)
        assert caught.value.reason == reason
    before = lab.census()
    for _ in range(5):
        await lab.keeper.exec(id, "e", lab.process("true"), PLAIN)
        assert (await lab.exit(id, "e")).code == 0
    assert lab.census() == before
    await lab.keeper.exec(id, "long", lab.process("sh", "-c", "sleep 1; exit 4"), PLAIN)
    os.kill(lab.keeper.pid, 9)
    async with asyncio.timeout(10):
        await lab.lost.wait()
    await lab.replace()
    end = await lab.exit(id, "long")
    assert (end.code, end.known) in ((4, True), (255, False)), "and a new keeper knows how it ended"


async def test_a_terminal_and_the_streams_are_all_that_a_program_inherits(lab: Lab) -> None:
    for stdio in (PLAIN, TTY):
        id = await lab.create(lab.config("sleep", "1000"), stdio)
        await lab.keeper.start(id)
        await lab.keeper.exec(id, "e", lab.process("sleep", "1000"), stdio)
        listed = {c.id: c for c in await lab.keeper.list()}[id]
        for pid in (listed.pid, listed.execs[0].pid):
            assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
            targets = {os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in (0, 1, 2)}
            assert targets <= {"pipe", "/dev/null", "/dev/pts/0", "/dev/pts/1"}
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")) <= {b"PATH=/bin:/usr/bin", b"HOME=/root", b""}


# --- the working directory (CVE-2024-21626) -------------------------------------------------------------------------
@pytest.mark.parametrize("cwd", [f"/proc/self/fd/{n}" for n in range(0, 16, 3)] + ["/proc/self/cwd", "/proc/1/cwd", "/link", "/proc/self/fd/7/../../..", "/links"])
async def test_no_working_directory_leads_out(lab: Lab, cwd: str) -> None:
    os.symlink("/proc/self/fd/8", f"{lab.lower}/link")
    os.symlink("/proc/self/fd/5/..", f"{lab.lower}/links")
    Path(lab.at, "outside").mkdir()
    try:
        out, _ = await lab.output(lab.config("sh", "-c", "pwd; ls; ls ..", cwd=cwd))
        assert b"lower" not in out[1] and b"outside" not in out[1] and b"boot" not in out[1], out
    except KeeperError as error:
        assert error.reason in ("bad_cwd", "mount", "other"), error
    id = await lab.sleeper()
    try:
        text = await run_exec(lab, id, "ls; ls ..", cwd=cwd)
        assert "lower" not in text and "outside" not in text and "boot" not in text
    except KeeperError as error:
        assert error.reason == "bad_cwd"


# --- /dev and masks given by the container's owner (CVE-2025-31133, CVE-2025-52565) -----------------------------------
async def test_masks_are_the_real_null_device_whatever_lies_in_dev(lab: Lab) -> None:
    os.makedirs(f"{lab.at}/dev/pts")
    os.symlink("/proc/sys/kernel/core_pattern", f"{lab.at}/dev/null")
    hidden = [path for path in MASKED if os.path.isfile(path)]
    assert hidden
    config = lab.config("sh", "-c", f"stat -c '%F %t:%T' {' '.join(hidden)}; cat {' '.join(hidden)}; echo end")
    config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/dev")]
    config["mounts"].insert(1, {"destination": "/dev", "type": "bind", "source": f"{lab.at}/dev", "options": ["rbind", "rprivate"]})
    out, _ = await lab.output(config)
    assert out[1] == b"character special file 1:3\n" * len(hidden) + b"end\n", out


@pytest.mark.parametrize("trick", ["pts", "ptmx", "console"])
async def test_a_terminal_is_not_made_through_links(lab: Lab, trick: str) -> None:
    os.makedirs(f"{lab.at}/dev")
    Path(lab.at, "victim").write_text("kept")
    if trick == "pts":
        os.symlink("/proc/self/fd", f"{lab.at}/dev/pts")
    else:
        os.mkdir(f"{lab.at}/dev/pts")
        os.symlink(f"../../../../..{lab.at}/victim", f"{lab.at}/dev/pts/ptmx" if trick == "ptmx" else f"{lab.at}/dev/console")
    config = lab.config("true")
    config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/dev")]
    config["mounts"].insert(1, {"destination": "/dev", "type": "bind", "source": f"{lab.at}/dev", "options": ["rbind", "rprivate"]})
    with pytest.raises(KeeperError):
        await lab.create(config, TTY)
    assert Path(lab.at, "victim").read_text() == "kept"


async def test_writes_to_proc_cannot_be_led_elsewhere(lab: Lab) -> None:
    """CVE-2025-52881, CVE-2019-19921: settings are written to procfs or not at all."""
    os.makedirs(f"{lab.at}/fake/sys/net/ipv4")
    Path(lab.at, "fake/sys/net/ipv4/ip_unprivileged_port_start").write_text("old")
    for kind in ("bind", "link"):
        config = lab.config("true")
        config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
        if kind == "bind":
            config["mounts"].append({"destination": "/proc", "type": "bind", "source": f"{lab.at}/fake", "options": ["bind"]})
        else:
            os.rmdir(f"{lab.lower}/proc")
            os.symlink("/fake", f"{lab.lower}/proc")
        with pytest.raises(KeeperError):
            await lab.create(config)
        assert Path(lab.at, "fake/sys/net/ipv4/ip_unprivileged_port_start").read_text() == "old"


# --- exchange while something is mounted ------------------------------------------------------------------------------
def exchanging(path: str, target: str, stop: threading.Event) -> Callable[[], None]:
    def work() -> None:
        while not stop.is_set():
            for make in (lambda: os.mkdir(path), lambda: os.symlink(target, path)):
                try:
                    (os.unlink if os.path.islink(path) else os.rmdir)(path)
                except OSError:
                    pass
                try:
                    make()
                except OSError:
                    pass
    return work


async def test_a_mount_point_that_is_exchanged_for_a_link_meanwhile_never_leads_out(lab: Lab) -> None:
    """The layer below is changed under the start's feet, as a second container on a shared volume could do it."""
    os.makedirs(f"{lab.at}/victim")
    os.makedirs(f"{lab.at}/shared/sub")
    stop = threading.Event()
    thread = threading.Thread(target=exchanging(f"{lab.at}/shared/sub", f"../../../../../..{lab.at}/victim", stop))
    thread.start()
    try:
        for _ in range(25):
            config = lab.config("sh", "-c", "echo here > /shared/sub/f")
            config["mounts"] += [
                {"destination": "/shared", "type": "bind", "source": f"{lab.at}/shared", "options": ["rbind", "rprivate"]},
                {"destination": "/shared/sub", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            ]
            try:
                await lab.output(config)
            except KeeperError as error:
                assert error.reason in ("mount", "other"), error
            await asyncio.sleep(0)
    finally:
        stop.set()
        thread.join()
    assert os.listdir(f"{lab.at}/victim") == []
    assert lab.at not in Path("/proc/self/mountinfo").read_text(), "nothing is mounted on the host"


async def test_hostile_lists_of_users_do_no_harm(lab: Lab) -> None:
    """CVE-2024-9676, CVE-2026-47262: a pipe, a device link or an endless file in place of /etc/passwd and /etc/group."""
    os.unlink(f"{lab.lower}/etc/passwd")
    os.mkfifo(f"{lab.lower}/etc/passwd")
    os.unlink(f"{lab.lower}/etc/group")
    os.symlink("/dev/zero", f"{lab.lower}/etc/group")
    async with asyncio.timeout(20):
        assert (await lab.sh("grep Uid /proc/self/status")).split() == ["Uid:", "0", "0", "0", "0"]
        with pytest.raises(KeeperError) as caught:
            await lab.sh("true", user={"username": "alice"})
    assert caught.value.reason == "no_user"
