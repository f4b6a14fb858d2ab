"""Streams and execs of a container: what is sent arrives, what is written is kept, nobody holds up another."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.logs import LogReader, records
from backend.runtime.client import KeeperError, Stdio
from tests.support.keeper import PLAIN, Lab, frames, read_all

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
TTY = Stdio(tty=True, open_stdin=True, stdin_once=False, rows=24, columns=80)
OPEN = Stdio(tty=False, open_stdin=True, stdin_once=True)
TERMINAL = Stdio(tty=True, open_stdin=True, stdin_once=False, rows=24, columns=80)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = await Lab.open()
    yield lab
    await lab.close()


def logged(lab: Lab, id: str, **how: object) -> list[bytes]:
    return [r.data for r in records(LogReader(f"{lab.at}/{id}/log").read(**how))]    # type: ignore[arg-type]


async def until(sock: socket.socket, what: bytes, limit: float = 20) -> bytes:
    seen = b""
    async with asyncio.timeout(limit):
        while what not in seen:
            data = await asyncio.get_running_loop().sock_recv(sock, 1 << 16)
            assert data, seen
            seen += data
    return seen


async def test_output_comes_in_frames_and_in_the_log(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "echo one; echo two >&2; printf three"))
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    assert frames(await read_all(sock)) == {1: b"one\nthree", 2: b"two\n"}
    await lab.exit(id)
    assert sorted(logged(lab, id)) == [b"one\n", b"three", b"two\n"]
    assert logged(lab, id, stdout=False) == [b"two\n"]


async def test_a_client_gets_only_the_streams_it_asked_for(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "echo one; echo two >&2"))
    out = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=False)
    err = await lab.keeper.attach(id, stdin=False, stdout=False, stderr=True)
    await lab.keeper.start(id)
    assert frames(await read_all(out)) == {1: b"one\n", 2: b""}
    assert frames(await read_all(err)) == {1: b"", 2: b"two\n"}


async def test_input_sent_and_closed_before_the_start_is_kept(lab: Lab) -> None:
    id = await lab.create(lab.config("cat"), OPEN)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    sock.send(b"early\n")
    sock.shutdown(socket.SHUT_WR)
    await lab.keeper.start(id)
    assert frames(await read_all(sock))[1] == b"early\n"


async def test_a_client_that_sends_everything_and_leaves_has_sent_everything(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "sleep 0.3; wc -c"), OPEN)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await asyncio.get_running_loop().sock_sendall(sock, b"x" * 150_000)
    sock.close()
    await lab.exit(id)
    assert logged(lab, id) == [b"150000\n"]


async def test_without_open_stdin_the_program_reads_nothing(lab: Lab) -> None:
    out, _ = await lab.output(lab.config("sh", "-c", "readlink /proc/self/fd/0; wc -c"))
    assert out[1] == b"/dev/null\n0\n"


async def test_input_stays_open_for_the_next_client_without_stdin_once(lab: Lab) -> None:
    id = await lab.create(lab.config("head", "-n", "2"), Stdio(tty=False, open_stdin=True, stdin_once=False))
    await lab.keeper.start(id)
    for line in (b"first\n", b"second\n"):
        sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
        sock.send(line)
        sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        sock.close()
    assert (await lab.exit(id)).code == 0
    assert logged(lab, id) == [b"first\n", b"second\n"]


async def test_much_input_and_output_at_once_does_not_lock_up(lab: Lab) -> None:
    id = await lab.create(lab.config("cat"), OPEN)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(id)
    loop = asyncio.get_running_loop()
    payload = os.urandom(3_000_000)

    async def send() -> None:
        await loop.sock_sendall(sock, payload)
        sock.shutdown(socket.SHUT_WR)

    _, data = await asyncio.gather(send(), read_all(sock))
    assert frames(data)[1] == payload


async def test_a_client_that_does_not_read_holds_up_the_container_and_not_the_keeper(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "yes | head -c 20000000; echo end >&2"), driver="none")
    lazy = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await asyncio.sleep(0.5)
    resident = int(Path(f"/proc/{lab.keeper.pid}/statm").read_text().split()[1]) * 4096
    assert resident < 40 << 20
    assert (await lab.keeper.list())[0].status == "running"
    assert await lab.sh("echo another") == "another\n"
    data = frames(await read_all(lazy))
    assert (len(data[1]), data[2]) == (20_000_000, b"end\n")
    await lab.exit(id)


async def test_a_client_that_leaves_lets_the_container_go_on(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "yes | head -c 5000000; exit 4"), driver="none")
    lazy = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await asyncio.sleep(0.2)
    lazy.close()
    assert (await lab.exit(id)).code == 4


async def test_a_terminal_carries_input_size_and_signals(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "trap 'echo int; exit 5' INT; trap 'stty size' WINCH; echo ready; while :; do read x && echo got $x; done"),
                          TERMINAL)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await until(sock, b"ready")
    sock.send(b"hello\r")
    await until(sock, b"got hello")
    await lab.keeper.resize(id, 40, 120)
    sock.send(b"\r")
    assert b"40 120" in await until(sock, b"got")
    sock.send(b"\x03")
    assert b"int" in await until(sock, b"int")
    assert (await lab.exit(id)).code == 5
    sock.close()


async def test_json_file_logs_are_readable_by_other_tools(lab: Lab) -> None:
    import json
    id = await lab.create(lab.config("sh", "-c", "echo one; echo two >&2"), driver="json-file")
    await lab.keeper.start(id)
    await lab.exit(id)
    entries = [json.loads(line) for line in Path(f"{lab.at}/{id}/log/json.log").read_text().splitlines()]
    assert sorted((e["stream"], e["log"]) for e in entries) == [("stderr", "two\n"), ("stdout", "one\n")]
    assert sorted(logged(lab, id)) == [b"one\n", b"two\n"]


async def test_growth_of_a_watched_log_is_told(lab: Lab) -> None:
    grown = asyncio.Event()
    id = await lab.create(lab.config("sh", "-c", "sleep 0.1; echo line; sleep 100"))
    await lab.keeper.watch_log(id, grown.set)
    await lab.keeper.start(id)
    async with asyncio.timeout(10):
        await grown.wait()
    assert logged(lab, id) == [b"line\n"]


# --- exec -------------------------------------------------------------------------------------------------------------
async def test_an_exec_is_inside_with_the_containers_restrictions(lab: Lab) -> None:
    id = await lab.sleeper()
    script = "for n in mnt net pid ipc uts cgroup; do readlink /proc/self/ns/$n; done; " \
             "grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status; id -u; pwd; ls /proc/self/fd | wc -l"
    pid = (await lab.keeper.list())[0].pid
    await lab.keeper.exec_prepare(id, "e", lab.process("sh", "-c", script, cwd="/tmp", user={"username": "alice"}), PLAIN)
    sock = await lab.keeper.attach(id, "e", stdin=False, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "e")
    lines = frames(await read_all(sock))[1].decode().split("\n")
    assert lines[:6] == [os.readlink(f"/proc/{pid}/ns/{n}") for n in ("mnt", "net", "pid", "ipc", "uts", "cgroup")]
    assert lines[6].endswith("0" * 16) and lines[7].endswith("a80425fb") and lines[8].endswith("2")
    assert lines[9:12] == ["1000", "/tmp", "4"]
    assert (await lab.exit(id, "e")).code == 0
    members = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"{lab.cgroups}/{id}" in members


@pytest.mark.parametrize(("process", "reason"), [
    ({"args": ["nope"]}, "not_found"), ({"args": ["/etc"]}, "not_permitted"), ({"cwd": "/nope"}, "bad_cwd"),
    ({"user": {"username": "bob"}}, "no_user"), ({"cwd": "/proc/self/fd/8"}, "bad_cwd"),
])  # fmt: skip
async def test_an_exec_that_cannot_be_says_why_and_leaves_nothing(lab: Lab, process: dict[str, object], reason: str) -> None:
    id = await lab.sleeper()
    before = lab.census()
    with pytest.raises(KeeperError) as caught:
        await lab.keeper.exec(id, "e", lab.process("true", **process), PLAIN)
    assert (caught.value.stage, caught.value.reason) == ("exec", reason)
    assert lab.census() == before


async def test_an_exec_has_its_own_terminal_and_input(lab: Lab) -> None:
    id = await lab.sleeper()
    await lab.keeper.exec_prepare(id, "t", lab.process("sh", "-c", "tty; stty size; read x; echo got $x; exit 6"), TERMINAL)
    sock = await lab.keeper.attach(id, "t", stdin=True, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "t")
    await until(sock, b"24 80")
    sock.send(b"word\r")
    assert b"got word" in await read_all(sock)
    assert (await lab.exit(id, "t")).code == 6


async def test_execs_die_with_the_container_and_can_be_killed_alone(lab: Lab) -> None:
    id = await lab.sleeper()
    await lab.keeper.exec(id, "a", lab.process("sleep", "99"), PLAIN)
    await lab.keeper.exec(id, "b", lab.process("sleep", "99"), PLAIN)
    await lab.keeper.kill(id, signal.SIGTERM, "a")
    assert (await lab.exit(id, "a")).code == 143
    await lab.keeper.kill(id, signal.SIGKILL)
    end = await lab.exit(id, "b")
    assert (end.code, end.signal) == (137, 9)
    assert (await lab.exit(id)).code == 137


async def test_a_background_child_of_an_exec_does_not_hold_up_its_end(lab: Lab) -> None:
    id = await lab.sleeper()
    await lab.keeper.exec_prepare(id, "e", lab.process("sh", "-c", "sleep 50 & echo started"), PLAIN)
    sock = await lab.keeper.attach(id, "e", stdin=False, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "e")
    assert (await lab.exit(id, "e", limit=5)).code == 0
    assert frames(await read_all(sock, limit=10))[1] == b"started\n"


async def test_twenty_execs_at_once(lab: Lab) -> None:
    id = await lab.sleeper()
    before = lab.census()

    async def one(n: int) -> bytes:
        await lab.keeper.exec_prepare(id, f"e{n}", lab.process("echo", str(n)), PLAIN)
        sock = await lab.keeper.attach(id, f"e{n}", stdin=False, stdout=True, stderr=True)
        await lab.keeper.exec_start(id, f"e{n}")
        return frames(await read_all(sock))[1]

    assert await asyncio.gather(*(one(n) for n in range(20))) == [b"%d\n" % n for n in range(20)]
    for n in range(20):
        await lab.exit(id, f"e{n}")
    await asyncio.sleep(0.05)
    assert lab.census() == before


# --- life -------------------------------------------------------------------------------------------------------------
async def test_signals_reach_the_program_and_every_process(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "trap 'echo usr; exit 3' USR1; echo ready; while :; do sleep 0.05; done"))
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await until(sock, b"ready")
    await lab.keeper.kill(id, signal.SIGUSR1)
    assert (await lab.exit(id)).code == 3
    sock.close()
    with pytest.raises(KeeperError) as caught:
        await lab.keeper.kill(id, signal.SIGKILL)
    assert caught.value.reason == "not_running"
    other = await lab.sleeper()
    await lab.keeper.exec(other, "e", lab.process("sleep", "99"), PLAIN)
    await lab.keeper.kill(other, signal.SIGKILL, every=True)
    assert (await lab.exit(other, "e")).code == 137
    assert (await lab.exit(other)).code == 137


async def test_requests_for_what_does_not_exist_are_refused(lab: Lab) -> None:
    for call in (lab.keeper.start("x"), lab.keeper.kill("x", 9), lab.keeper.delete("x"), lab.keeper.resize("x", 1, 1),
                 lab.keeper.attach("x", stdin=False, stdout=True, stderr=True), lab.keeper.exec("x", "e", lab.process("true"), PLAIN)):
        with pytest.raises(KeeperError) as caught:
            await call
        assert caught.value.reason == "no_such"
    id = await lab.sleeper()
    for call in (lab.keeper.start(id), lab.keeper.delete(id), lab.create(lab.config("true"), id=id)):
        with pytest.raises(KeeperError) as caught:
            await call
        assert caught.value.reason == "exists"


async def test_a_container_can_be_made_again_under_its_name(lab: Lab) -> None:
    for code in (1, 2):
        id = await lab.create(lab.config("sh", "-c", f"exit {code}"), id="again")
        await lab.keeper.start(id)
        assert (await lab.exit(id)).code == code


async def test_the_keeper_survives_its_client_and_goes_on_with_the_next(lab: Lab) -> None:
    """What a restart of the helper needs: the container runs on, its log is whole, its exit is known afterwards."""
    id = await lab.create(lab.config("sh", "-c", "echo before; read x; echo got $x; read y; exit $y"),
                          Stdio(tty=False, open_stdin=True, stdin_once=False))
    await lab.keeper.start(id)
    gone = await lab.create(lab.config("sh", "-c", "sleep 0.3; exit 11"))
    await lab.keeper.start(gone)
    pid = lab.keeper.pid
    lab.keeper.close()
    await asyncio.sleep(0.6)
    await lab.connect()
    assert lab.keeper.pid == pid
    known = {c.id: c for c in await lab.keeper.list()}
    assert known[id].status == "running" and known[id].exit is None
    assert known[gone].status == "stopped" and known[gone].exit is not None and known[gone].exit.code == 11
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    sock.send(b"word\n")
    await until(sock, b"got word")
    sock.send(b"8\n")
    assert (await lab.exit(id)).code == 8
    sock.close()
    assert logged(lab, id) == [b"before\n", b"got word\n"]


async def test_network_namespaces_are_fresh_and_have_a_loopback(lab: Lab) -> None:
    made = await lab.keeper.netns(3)
    names = {os.readlink(f"/proc/self/fd/{fd}") for fd in made}
    assert len(names | {os.readlink("/proc/self/ns/net")}) == 4
    bundle_config = lab.config("sh", "-c", "readlink /proc/self/ns/net; ip link show lo")
    id = "netns"
    for name in ("rootfs", "upper", "work"):
        os.makedirs(f"{lab.at}/{id}/{name}")
    import json

    from backend.runtime.client import LogTarget, Overlay
    bundle_config["linux"]["cgroupsPath"] = f"{lab.cgroups}/{id}"
    Path(f"{lab.at}/{id}/config.json").write_text(json.dumps(bundle_config))
    await lab.keeper.create(id, f"{lab.at}/{id}", overlay=Overlay((lab.lower,), f"{lab.at}/{id}/upper", f"{lab.at}/{id}/work"),
                            stdio=PLAIN, log=LogTarget(f"{lab.at}/{id}/log", "slipway", 0, 1), netns=made[0])
    await lab.keeper.start(id)
    await lab.exit(id)
    lines = logged(lab, id)
    assert lines[0].strip().decode() == os.readlink(f"/proc/self/fd/{made[0]}") and b"UP" in lines[1]
    for fd in made:
        os.close(fd)


async def test_containers_outlive_the_keeper_and_a_new_one_takes_them_over(lab: Lab) -> None:
    """No pipe breaks, no line is lost, clients stay attached, execs go on, exit codes are known or said to be unknown."""
    script = "echo before; read x; echo got $x; read y; exit $y"
    id = await lab.create(lab.config("sh", "-c", script), Stdio(tty=False, open_stdin=True, stdin_once=False))
    attached = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    ended = await lab.create(lab.config("sh", "-c", "sleep 0.3; exit 21"))
    await lab.keeper.start(ended)
    created = await lab.create(lab.config("true"))
    await lab.keeper.exec_prepare(id, "long", lab.process("sh", "-c", "read x; echo exec $x; exit 6"), OPEN)
    exec_sock = await lab.keeper.attach(id, "long", stdin=True, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "long")
    await lab.keeper.exec_prepare(id, "waits", lab.process("true"), PLAIN)
    old = lab.keeper.pid
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(10):
        await lab.lost.wait()
    exec_sock.send(b"meanwhile\n")
    await asyncio.sleep(0.6)
    known = {c.id: c for c in await lab.replace()}
    assert lab.keeper.pid != old
    assert known[id].status == "running"
    assert known[created].exit is not None and known[created].started_at == 0
    end = known[ended].exit or await lab.exit(ended)
    assert (end.code, end.known) in ((21, True), (255, False))
    assert frames(await read_all(exec_sock))[1] == b"exec meanwhile\n"
    end = await lab.exit(id, "long")
    assert (end.code, end.known) in ((6, True), (255, False))
    with pytest.raises(KeeperError) as caught:
        await lab.keeper.exec_start(id, "waits")
    assert caught.value.reason == "no_such", "an exec that had not run is to be prepared again"
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    sock.send(b"word\n")
    await until(sock, b"got word")
    await lab.keeper.exec_prepare(id, "e", lab.process("echo", "inside"), PLAIN)
    other = await lab.keeper.attach(id, "e", stdin=False, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "e")
    assert frames(await read_all(other))[1] == b"inside\n"
    sock.send(b"8\n")
    end = await lab.exit(id)
    assert (end.code, end.known) in ((8, True), (255, False))
    sock.close()
    assert frames(await read_all(attached))[1] == b"before\ngot word\n", "who was attached stays attached"
    assert logged(lab, id) == [b"before\n", b"got word\n"]


async def test_a_terminal_outlives_the_keeper(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "stty -echo; echo ready; read x; echo got $x; read y"), TTY)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await until(sock, b"ready")
    os.kill(lab.keeper.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await lab.lost.wait()
    sock.send(b"word\n")
    await lab.replace()
    await until(sock, b"got word")
    await lab.keeper.resize(id, 11, 22)
    sock.send(b"end\n")
    assert (await lab.exit(id)).code in (0, 255)
    sock.close()


async def test_output_is_found_again_when_helper_and_keeper_end_at_once(lab: Lab) -> None:
    """The copies are gone with the helper: nobody is killed by a broken pipe, and no line that fits the pipe is lost."""
    script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; sleep 1000"
    id = await lab.create(lab.config("sh", "-c", script))
    await lab.keeper.start(id)
    await lab.both_lost()
    await asyncio.sleep(0.4)
    await lab.connect()
    async with asyncio.timeout(10):
        while len(logged(lab, id)) < 60:
            await asyncio.sleep(0.05)
    assert logged(lab, id) == [b"line %d\n" % n for n in range(60)]
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    sock.close()


async def test_a_lost_terminal_is_said_to_be_lost(lab: Lab) -> None:
    id = await lab.create(lab.config("sh", "-c", "trap '' HUP; while :; do sleep 0.1; done"), TTY)
    await lab.keeper.start(id)
    await lab.both_lost()
    await lab.connect()
    with pytest.raises(KeeperError) as caught:
        await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    assert caught.value.reason == "streams_lost" and "terminal was lost" in caught.value.message


async def test_input_that_is_closed_is_closed_although_the_helper_holds_a_copy(lab: Lab) -> None:
    id = await lab.create(lab.config("wc", "-c"), OPEN)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(id)
    copy = lab.keeper.held.get(id)
    assert copy is not None and set(copy.fds) == {"1", "2", "stdin", "pidfd"}
    sock.send(b"12345")
    sock.shutdown(socket.SHUT_WR)
    assert frames(await read_all(sock))[1] == b"5\n"
    await lab.exit(id)
    assert lab.keeper.held.get(id) is None and copy.fds == {}


async def test_a_full_disk_costs_lines_and_neither_the_container_nor_its_log(lab: Lab) -> None:
    config = lab.config("sh", "-c", "echo first; yes | head -c 3000000; read x; echo last; exit 3")
    place = f"{lab.at}/full/log"
    os.makedirs(place)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    try:
        Path(place, "other").write_bytes(bytes(100_000))
        id = await lab.create(config, OPEN, id="full")
        sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
        await lab.keeper.start(id)
        await asyncio.to_thread(drain, sock, 3_000_006)         # a client sees all of it, whatever the disk says
        assert logged(lab, id)[0] == b"first\n" and logged(lab, id)[-1].strip() in (b"y", b"")
        os.unlink(f"{place}/other")                             # somebody makes room
        sock.send(b"\n")
        assert (await lab.exit(id)).code == 3
        sock.close()
        assert logged(lab, id)[-1] == logged(lab, id, tail=1)[-1] == b"last\n"
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def drain(sock: socket.socket, count: int) -> None:
    """Reads frames until *count* bytes of output have come."""
    sock.setblocking(True)
    sock.settimeout(20)
    while count > 0:
        size = int.from_bytes(sock.recv(8, socket.MSG_WAITALL)[4:], "big")
        count -= len(sock.recv(size, socket.MSG_WAITALL))
