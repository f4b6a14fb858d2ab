"""kill -9 of the keeper under a living engine: containers run on, the engine brings a new one up by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from backend.engine import engine as engine_module
from backend.engine.core import Core
from backend.engine.engine import Engine
from backend.engine.restore import restore
from backend.engine.streams import AttachWish
from backend.errors import EngineError
from backend.runtime.client import Keeper
from backend.spec import api
from tests.engine.support_engine import Place, create, exec_in, log_of, read_all, run, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and real namespaces")]
NONE = {"network_mode": "none"}


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.destroy()


def kill_keeper(engine: Engine) -> None:
    os.kill(engine._core.keeper.pid, signal.SIGKILL)


async def replaced(engine: Engine, before: int) -> None:
    keeper = engine._core.keeper
    await until(lambda: keeper.pid != before and keeper._up.is_set(), "a new keeper is up")


async def test_containers_run_on_and_everything_works_with_the_new_keeper(place: Place) -> None:
    async with place.engine() as engine:
        count = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 9"
        await create(engine, "sh", "-c", count, name="long")
        waiter = engine.containers.wait("long", "next-exit")
        session = await engine.containers.attach("long", AttachWish())
        await engine.containers.start("long")
        before, old = await engine.containers.inspect("long"), engine._core.keeper.pid
        kill_keeper(engine)
        assert await exec_in(engine, "long", "echo", "hi") == (0, "hi\n"), "an exec waits for the new keeper"
        assert engine._core.keeper.pid != old
        after = await engine.containers.inspect("long")
        assert (after.state.pid, after.state.running) == (before.state.pid, True)
        assert (await run(engine, "sh", "-c", "exit 4"))[0] == 4
        output = (await read_all(session)).splitlines()
        wanted = [b"line %d" % i for i in range(100)]
        assert output == sorted(set(output), key=wanted.index) and len(output) >= 98, "who was attached stays attached"
        code = (await waiter.result()).status_code
        state = (await engine.containers.inspect("long")).state
        assert (code, state.error) == (9, "") or (code, "not known" in state.error) == (255, True)
        assert (await log_of(engine, "long")).splitlines() == output
    assert place.leftovers() == []


async def test_an_end_in_that_moment_is_known_or_said_to_be_unknown_and_policies_go_on(place: Place) -> None:
    async with place.engine() as engine:
        always = api.HostConfig(**NONE, restart_policy=api.RestartPolicy(name="always"))
        await create(engine, "sleep", "1000", name="again", host=always)
        await create(engine, "sh", "-c", "trap 'exit 13' TERM; echo ready; while :; do sleep 0.05; done", name="once")
        pids = {}
        for name in ("again", "once"):
            await engine.containers.start(name)
            pids[name] = (await engine.containers.inspect(name)).state.pid
        while await log_of(engine, "once") != b"ready\n":
            await asyncio.sleep(0.02)
        os.kill(engine._core.keeper.pid, signal.SIGSTOP)             # so that it certainly does not see the ends
        os.kill(pids["again"], signal.SIGKILL)
        os.kill(pids["once"], signal.SIGTERM)
        await until(lambda: not Path(f"/proc/{pids['once']}/root/bin").exists(), "it has ended")
        kill_keeper(engine)
        await until(lambda: engine._core.table.get("once").status.state == "exited", "the end is known")
        state = (await engine.containers.inspect("once")).state
        assert (state.exit_code, state.error) == (13, "") or (state.exit_code, "not known" in state.error) == (255, True)
        await until(lambda: engine._core.table.get("again").status.pid not in (0, pids["again"])
                    and engine._core.table.get("again").status.state == "running", "its policy started it again")
    assert place.leftovers() == []


async def test_starts_and_execs_that_were_under_way_succeed_once_or_say_why(place: Place) -> None:
    """Whatever is told, it is true: a start that succeeded ran exactly once, one that failed left nothing."""
    async with place.engine() as engine:
        mark = f"{place.at}/marks"
        os.mkdir(mark)
        await create(engine, "sleep", "1000", name="host")
        await engine.containers.start("host")
        for turn in range(6):
            names = [f"c{turn}{n}" for n in range(3)]
            for name in names:
                host = api.HostConfig(**NONE, binds=[f"{mark}:/mark"])
                await create(engine, "sh", "-c", f"echo x >> /mark/{name}; exit 3", name=name, host=host)
            waiters = [engine.containers.wait(name, "next-exit") for name in names]
            starts = [asyncio.ensure_future(engine.containers.start(name)) for name in names]
            execs = [asyncio.ensure_future(exec_in(engine, "host", "sh", "-c", "echo in; exit 5")) for _ in range(2)]
            await asyncio.sleep(0.002 * turn)
            old = engine._core.keeper.pid
            kill_keeper(engine)
            results = await asyncio.wait_for(asyncio.gather(*starts, return_exceptions=True), 20)
            told = await asyncio.wait_for(asyncio.gather(*execs, return_exceptions=True), 20)
            await replaced(engine, old)
            for name, waiter, result in zip(names, waiters, results, strict=True):
                code = (await asyncio.wait_for(waiter.result(), 10)).status_code if result is None else None
                ran = Path(mark, name).read_text().count("x") if Path(mark, name).exists() else 0
                if result is None:
                    assert (code, ran) in ((3, 1), (125, 0), (255, 0), (255, 1)), (turn, name)
                else:
                    assert ran == 0 and "keeper" in str(result), (turn, name, result)
                await engine.containers.remove(name, force=True)
            assert all(one in ((5, "in\n"), (5, ""), (125, ""), (255, ""), (255, "in\n")) for one in told), (turn, told)
        assert (await run(engine, "true"))[0] == 0
        assert (await engine.containers.inspect("host")).state.running
    assert place.leftovers() == []


async def test_a_terminal_session_and_a_followed_log_go_on(place: Place) -> None:
    async with place.engine() as engine:
        script = "stty -echo; echo ready; while read x; do echo got $x; done"
        await create(engine, "sh", "-c", script, name="tty", tty=True, open_stdin=True)
        session = await engine.containers.attach("tty", AttachWish(stdin=True))
        await engine.containers.start("tty")
        assert session.socket is not None
        loop, seen = asyncio.get_running_loop(), b""

        async def wait_for(text: bytes) -> None:
            nonlocal seen
            async with asyncio.timeout(10):
                while text not in seen:
                    seen += await loop.sock_recv(session.socket, 4096)

        await wait_for(b"ready")
        kill_keeper(engine)
        session.socket.send(b"one\n")
        await wait_for(b"got one")
        await engine.containers.resize("tty", 30, 100)
        assert (await exec_in(engine, "tty", "true"))[0] == 0
        session.close()
    assert place.leftovers() == []


async def test_a_keeper_that_is_lost_while_the_engine_opens_costs_no_container(place: Place) -> None:
    """What the engine has not restored yet is not taken for somebody's leftover."""
    async with place.engine(stop=False) as engine:
        for name in ("one", "two", "three"):
            await create(engine, "sleep", "1000", name=name)
            await engine.containers.start(name)
        pids = [(await engine.containers.inspect(name)).state.pid for name in ("one", "two", "three")]

    async def late(core: Core, *rest: Any) -> None:
        os.kill(core.keeper.pid, signal.SIGKILL)
        await until(lambda: not core.keeper._up.is_set(), "the loss is noticed")
        await until(core.keeper._up.is_set, "a new keeper is up before anything is restored")
        await asyncio.sleep(0.3)
        await restore(core, *rest)

    with mock.patch.object(engine_module, "restore", late):
        async with place.engine() as engine:
            states = [(await engine.containers.inspect(name)).state for name in ("one", "two", "three")]
            assert [(one.pid, one.running) for one in states] == [(pid, True) for pid in pids]
            assert (await exec_in(engine, "two", "true"))[0] == 0
    assert place.leftovers() == []


async def test_an_engine_opens_although_its_keeper_is_lost_before_a_word(place: Place) -> None:
    async with place.engine(stop=False) as engine:
        await create(engine, "sleep", "1000", name="stays")
        await engine.containers.start("stays")
        pid = engine._core.keeper.pid
    real = Keeper.find_or_start

    def and_killed(exec_root: str) -> socket.socket:
        made = real(exec_root)
        with suppress(ProcessLookupError):          # the second time it is another
            os.kill(pid, signal.SIGKILL)
        return made

    with mock.patch.object(Keeper, "find_or_start", and_killed):
        stack = place.engine()
        engine = await stack.__aenter__()
    assert (await engine.containers.inspect("stays")).state.running
    assert (await exec_in(engine, "stays", "true"))[0] == 0
    await stack.__aexit__(None, None, None)
    assert place.leftovers() == []


async def test_a_terminal_that_died_with_both_is_said_to_be_lost(place: Place) -> None:
    async with place.engine(stop=False) as engine:
        await create(engine, "sh", "-c", "trap '' HUP; while :; do sleep 0.1; done", name="tty", tty=True, open_stdin=True)
        await engine.containers.start("tty")
        engine._core.closing = True                              # nobody brings another one up
        os.kill(engine._core.keeper.pid, signal.SIGKILL)
        await until(lambda: not engine._core.keeper._up.is_set(), "the loss is noticed")
    async with place.engine() as engine:
        state = (await engine.containers.inspect("tty")).state
        assert state.running and "terminal was lost" in state.error
        with pytest.raises(EngineError, match="terminal was lost"):
            await engine.containers.attach("tty", AttachWish(stdin=True))
        await engine.containers.restart("tty", timeout=0)
        assert (await engine.containers.inspect("tty")).state.error == ""
    assert place.leftovers() == []
