"""--init: what stays as pid 1 passes signals on, collects orphans, and says why a program could not run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.runtime.client import KeeperError, Stdio
from backend.runtime.tinyinit import program
from tests.support.keeper import PLAIN, Lab, frames, read_all

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")]
TTY = Stdio(tty=True, open_stdin=True, stdin_once=False)


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    made = await Lab.open()
    yield made
    await made.close()


def with_init(lab: Lab, *args: str, **more: Any) -> dict[str, Any]:
    config = lab.config(*args, **more)
    config["annotations"] = {"slipway.init": "1"}
    return config


async def test_the_program_is_its_child_with_everything_as_asked(lab: Lab) -> None:
    out, end = await lab.output(with_init(lab, "sh", "-c", "echo $$ $PPID; id -u; pwd; cat /proc/1/comm; grep -E 'Cap(Eff|Bnd)|Seccomp:|SigBlk|SigIgn' /proc/self/status; exit 7",
                                          user={"username": "alice"}, cwd="/tmp"))
    lines = out[1].decode().split()
    assert lines[:5] == ["2", "1", "1000", "/tmp", "slipway:init"], out
    status = dict(zip(lines[5::2], lines[6::2], strict=True))
    assert status["CapEff:"] == "0" * 16 and status["CapBnd:"] == "00000000a80425fb" and status["Seccomp:"] == "2"
    assert status["SigBlk:"] == "0" * 16
    assert end.code == 7


@pytest.mark.parametrize(("script", "code"), [("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 0", 0), ("exit 255", 255)])
async def test_it_ends_as_the_program_ends(lab: Lab, script: str, code: int) -> None:
    _, end = await lab.output(with_init(lab, "sh", "-c", script))
    assert end.code == code


async def test_orphans_are_collected_and_signals_passed_on(lab: Lab) -> None:
    script = "trap 'echo got; exit 9' USR1; for i in 1 2 3 4 5; do (sleep 0.05 &); done; sleep 0.5; ls -d /proc/[0-9]* | wc -l; grep -l 'State:.Z' /proc/[0-9]*/status; echo ready; while :; do sleep 0.05; done"
    id = await lab.create(with_init(lab, "sh", "-c", script))
    sock = await lab.keeper.attach(id, stdin=False, stdout=True, stderr=True)
    await lab.keeper.start(id)
    seen = b""
    async with asyncio.timeout(10):
        while b"ready" not in seen:
            seen += await asyncio.get_running_loop().sock_recv(sock, 4096)
    assert b"status" not in seen, "there is no dead process left"
    await lab.keeper.kill(id, 10)
    assert (await lab.exit(id)).code == 9
    assert b"got" in await read_all(sock)


async def test_a_terminal_is_controlled_by_the_program(lab: Lab) -> None:
    id = await lab.create(with_init(lab, "sh", "-c", "tty; stty -echo; echo ready; trap 'echo interrupted; exit 5' INT; while :; do sleep 0.05; done"), TTY)
    sock = await lab.keeper.attach(id, stdin=True, stdout=True, stderr=True)
    await lab.keeper.start(id)
    seen = b""
    async with asyncio.timeout(10):
        while b"ready" not in seen:
            seen += await asyncio.get_running_loop().sock_recv(sock, 4096)
        await asyncio.sleep(0.2)
        sock.send(b"\x03")
        assert b"interrupted" in await read_all(sock)
    assert b"/dev/pts/0" in seen and (await lab.exit(id)).code == 5


@pytest.mark.parametrize(("content", "reason", "code"), [(b"\0\1\2\3", "not_permitted", 126), (b"#!/no/such/interpreter\n", "not_found", 127)])
async def test_a_program_that_cannot_run_fails_the_start(lab: Lab, content: bytes, reason: str, code: int) -> None:
    path = Path(lab.lower, "bin/odd")
    path.write_bytes(content)
    path.chmod(0o755)
    id = await lab.create(with_init(lab, "odd"))
    with pytest.raises(KeeperError) as caught:
        await lab.keeper.start(id)
    assert (caught.value.reason, (await lab.exit(id)).code) == (reason, code)


async def test_execs_beside_it_work(lab: Lab) -> None:
    id = await lab.create(with_init(lab, "sleep", "1000"))
    await lab.keeper.start(id)
    await lab.keeper.exec_prepare(id, "e", lab.process("cat", "/proc/1/cmdline"), PLAIN)
    sock = await lab.keeper.attach(id, "e", stdin=False, stdout=True, stderr=True)
    await lab.keeper.exec_start(id, "e")
    words = frames(await read_all(sock))[1].split(b"\0")
    assert words[0] == b"slipway-init" and words[-3:] == [b"sleep", b"1000", b""]


def test_there_is_a_program_for_each_machine_that_slipway_knows() -> None:
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        code = program(machine)
        assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == number and len(code) < 4096
    assert program("pdp11") == b""
