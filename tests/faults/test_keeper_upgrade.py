"""A new version of keeper and helper under running containers: nothing stops, nothing is cut off, every exit is known."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.logs import LogReader, records
from backend.runtime.client import KeeperError, Stdio
from backend.runtime.protocol import Op
from tests.support.keeper import Lab, frames, read_all
from tests.support.private import ROOT, PrivateHelper, command_line, docker_client
from tests.support.roots import busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")]
PLAIN = Stdio(tty=False, open_stdin=False, stdin_once=False)
OPEN = Stdio(tty=False, open_stdin=True, stdin_once=True)
TTY = Stdio(tty=True, open_stdin=True, stdin_once=False)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    made = await Lab.open()
    yield made
    await made.close()


async def until(sock: socket.socket, text: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(10):
        while text not in seen:
            seen += await asyncio.get_running_loop().sock_recv(sock, 4096)
    return seen


async def test_everything_goes_on_while_the_keeper_becomes_another(lab: Lab) -> None:
    count = await lab.create(lab.config("sh", "-c", "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; exit 3"))
    watching = await lab.keeper.attach(count, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(count)
    shell = await lab.create(lab.config("sh", "-c", "stty -echo; echo ready; while read x; do echo got $x; done"), TTY)
    terminal = await lab.keeper.attach(shell, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(shell)
    await until(terminal, b"ready")
    await lab.keeper.exec_prepare(shell, "e", lab.process("sh", "-c", "read x; echo exec $x; exit 6"), OPEN)
    in_exec = await lab.keeper.attach(shell, "e", stdin=True, stdout=True, stderr=True)
    await lab.keeper.exec_start(shell, "e")
    pid = lab.keeper.pid
    for _ in range(3):
        await lab.keeper.upgrade()
    assert lab.keeper.pid == pid and not lab.lost.is_set()
    assert b"--inherit" in command_line(pid), "it has been executed anew"
    terminal.send(b"one\n")
    await until(terminal, b"got one")
    await lab.keeper.resize(shell, 20, 90)
    in_exec.send(b"two\n")
    assert frames(await read_all(in_exec))[1] == b"exec two\n"
    end = await lab.exit(shell, "e")
    assert (end.code, end.known) == (6, True)
    lines = [b"line %d\n" % n for n in range(100)]
    assert frames(await read_all(watching))[1].splitlines(keepends=True) == lines
    end = await lab.exit(count)
    assert (end.code, end.known) == (3, True)
    assert [r.data for r in records(LogReader(f"{lab.at}/{count}/log").read(None, 0, 0, True, True))] == lines
    terminal.close()


async def test_a_client_that_is_behind_gets_everything(lab: Lab) -> None:
    """What the old keeper had read for it and could not send yet goes over to the new one."""
    id = await lab.create(lab.config("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"))
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    await asyncio.sleep(0.3)
    await lab.keeper.upgrade()
    assert frames(await read_all(sock))[1] == b"x" * 3000000 + b"\nend\n"
    assert (await lab.exit(id)).code == 0


async def test_upgrades_leave_no_descriptor_and_no_process(lab: Lab) -> None:
    id = await lab.sleeper()
    await lab.keeper.upgrade()
    before = lab.census()
    for _ in range(3):
        await lab.keeper.upgrade()
    assert lab.census() == before
    await lab.keeper.kill(id, 9)
    assert (await lab.exit(id)).code == 137


async def test_a_program_that_cannot_be_executed_leaves_the_keeper_as_it_is(lab: Lab) -> None:
    id = await lab.sleeper()
    with open(f"{lab.at}/not-a-program", "w+") as file:
        with pytest.raises(KeeperError) as caught:
            await lab.keeper._send(Op.UPGRADE, [file.fileno()], argv0="x", program="x", build="x", force=False)
    assert caught.value.stage == "upgrade"
    await lab.keeper.exec(id, "e", lab.process("true"), PLAIN)
    assert (await lab.exit(id, "e")).code == 0


@pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine")
def test_a_new_version_of_the_helper_brings_its_keeper_along_under_running_containers(tmp_path: Path) -> None:
    for room in ("backend", "helper", "resources"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "backend/runtime/loop.py", "a") as file:
        file.write("\n# the next version\n")
    with PrivateHelper() as helper:
        helper.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        helper.docker("run", "-d", "--name", "stays", "busybox", "sh", "-c", "trap 'exit 11' TERM; echo up; while :; do sleep 0.05; done")
        before = json.loads(helper.docker("inspect", "stays").stdout)[0]["State"]
        helper.leave()
        helper.root = tmp_path
        helper.start()
        keepers = [command_line(pid) for pid in helper.processes()]
        assert any(str(tmp_path).encode() in line and b"--inherit" in line for line in keepers), "the keeper is the new version's"
        after = json.loads(helper.docker("inspect", "stays").stdout)[0]["State"]
        assert (after["Running"], after["Pid"]) == (True, before["Pid"])
        assert helper.docker("exec", "stays", "echo", "in").stdout == b"in\n"
        helper.docker("stop", "stays")
        assert json.loads(helper.docker("inspect", "stays").stdout)[0]["State"]["ExitCode"] == 11, "its parent is still there"
