"""The engine goes and comes back: containers run on, ends are known, nothing is left of what was cut short."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from backend.spec import api
from tests.engine.support_engine import Place, create, exec_in, log_of, run, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and real namespaces")]
NONE = {"network_mode": "none"}


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.destroy()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_container_runs_on_and_its_exit_meanwhile_is_known(place: Place) -> None:
    port = str(free_port())
    async with place.engine(stop=False) as engine:
        host = api.HostConfig(port_bindings={"80/tcp": [api.PortBinding(host_ip="127.0.0.1", host_port=port)]})
        await create(engine, "sh", "-c", "while :; do echo tick; sleep 0.05; done", name="long", host=host)
        await create(engine, "sh", "-c", "sleep 0.3; exit 7", name="short")
        await create(engine, "sh", "-c", "sleep 0.3; exit 7", name="gone", host=api.HostConfig(**NONE, auto_remove=True))
        for name in ("long", "short", "gone"):
            await engine.containers.start(name)
        before = await engine.containers.inspect("long")
    await asyncio.sleep(0.6)
    async with place.engine() as engine:
        after = await engine.containers.inspect("long")
        assert (after.state.pid, after.state.running) == (before.state.pid, True)
        assert after.network_settings.ports == before.network_settings.ports
        assert after.network_settings.networks["bridge"].ip_address == before.network_settings.networks["bridge"].ip_address
        assert (await engine.containers.inspect("short")).state.exit_code == 7
        await until(lambda: "/gone" not in [n for row in engine.containers.list(all=True) for n in row.names], "auto-remove is made up for")
        assert (await exec_in(engine, "long", "echo", "hi")) == (0, "hi\n")
        lines = await log_of(engine, "long")
        assert lines == b"tick\n" * (len(lines) // 5) and len(lines) > 5 * 8, "no line is lost while the engine is away"
        other = await create(engine, "true")
        await engine.containers.start(other)
        assert engine.networks.list() and len({n.name for n in engine.networks.list()}) == len(engine.networks.list())
    assert place.leftovers() == []


async def test_restart_policies_go_on_after_the_engine_was_away(place: Place) -> None:
    async with place.engine(stop=False) as engine:
        for name, policy in (("always", "always"), ("unless", "unless-stopped"), ("no", "no")):
            await create(engine, "sleep", "0.3", name=name, host=api.HostConfig(**NONE, restart_policy=api.RestartPolicy(name=policy)))
            await engine.containers.start(name)
        await create(engine, "sleep", "100", name="stopped", host=api.HostConfig(**NONE, restart_policy=api.RestartPolicy(name="unless-stopped")))
        await engine.containers.start("stopped")
        await engine.containers.stop("stopped", timeout=0)
    await asyncio.sleep(0.5)
    async with place.engine() as engine:
        for name in ("always", "unless"):
            for _ in range(200):
                if (await engine.containers.inspect(name)).restart_count:
                    break
                await asyncio.sleep(0.02)
            assert (await engine.containers.inspect(name)).restart_count >= 1, name
        assert (await engine.containers.inspect("no")).state.status == "exited"
        assert (await engine.containers.inspect("stopped")).state.status == "exited"


async def test_a_keeper_that_was_killed_is_not_guessed_about(place: Place) -> None:
    async with place.engine(stop=False) as engine:
        await create(engine, "sleep", "100", name="lost")
        await engine.containers.start("lost")
        pid = (await engine.containers.inspect("lost")).state.pid
    for keeper in place.keepers():
        os.kill(keeper, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    async with place.engine() as engine:
        state = (await engine.containers.inspect("lost")).state
        assert (state.status, state.exit_code != 0) == ("exited", True)
        assert (await run(engine, "true"))[0] == 0, "the engine works with its new keeper"


async def test_files_of_containers_that_are_no_more_are_swept(place: Place) -> None:
    async with place.engine():
        pass
    os.makedirs(f"{place.data}/containers/{'e' * 64}/upper/deep")
    os.makedirs(f"{place.exec}/bundles/{'e' * 64}/rootfs")
    async with place.engine() as engine:
        await until(lambda: not os.listdir(f"{place.data}/trash"), "the trash is emptied")
        assert engine.containers.list(all=True) == []
    assert place.leftovers() == []
