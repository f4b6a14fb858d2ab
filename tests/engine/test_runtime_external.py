"""runc and crun on the bundle that the built-in runtime would run: the container is the same, and so is its life."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from backend.engine.engine import Engine
from backend.errors import InvalidArgument, NotImplemented_
from backend.runtime import external
from backend.runtime.protocol import KeeperError
from backend.spec import api
from tests.engine.support_engine import Place, create, exec_in, log_of, run

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and real namespaces")]
RUNTIMES = [pytest.param(name, marks=pytest.mark.skipif(shutil.which(name, path=external.DEFAULT_PATH) is None,
                                                        reason=f"{name} is not installed (./dev setup installs it)"))
            for name in external.PROGRAMS]
EACH = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.destroy()


@pytest.fixture
async def engine(place: Place) -> AsyncIterator[Engine]:
    async with place.engine() as made:
        yield made
    assert place.leftovers() == []
    assert not os.path.isdir(f"{place.exec}/runtimes") or os.listdir(f"{place.exec}/runtimes") == []


def host(runtime: str, **more: object) -> api.HostConfig:
    return api.HostConfig(**{"network_mode": "none", "runtime": runtime, **more})


@EACH
async def test_output_errors_and_exit_code_arrive(engine: Engine, runtime: str) -> None:
    assert await run(engine, "sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 3", host=host(runtime)) == (3, "out\nerr\n")


PROBE = r"""grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid|Gid)' /proc/self/status; id -u; pwd; env | sort; hostname
ulimit -n; cat /proc/sys/net/ipv4/ip_forward; awk '{print $5}' /proc/self/mountinfo | grep -vE '^/(proc|sys)/' | sort
head -c1 /proc/kcore 2>/dev/null | wc -c; ls /dev | grep -v core | sort; touch /proc/sys/kernel/x /sys/x 2>&1 | sort; umask"""


@EACH
async def test_a_container_of_another_runtime_is_what_ours_would_be(engine: Engine, runtime: str) -> None:
    given = {"cap_add": ["NET_ADMIN"], "cap_drop": ["MKNOD"], "sysctls": {"net.ipv4.ip_forward": "1"}, "tmpfs": {"/t": "size=1m"},
             "ulimits": [api.Ulimit("nofile", 100, 200)], "group_add": ["777"], "security_opt": ["no-new-privileges"]}
    told = [(await run(engine, "sh", "-c", PROBE, user="nobody", working_dir="/made/here", hostname="same",
                       host=host(name, **given)))[1] for name in ("slipway", runtime)]
    assert told[1] == told[0]


@EACH
async def test_limits_pause_exec_and_stop_work_on_it(engine: Engine, runtime: str) -> None:
    ref = await create(engine, "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done", host=host(runtime, memory=64 << 20, pids_limit=30))
    await engine.containers.start(ref)
    assert engine.containers.stats(ref).memory_stats.limit == 64 << 20
    await engine.containers.update(ref, api.ContainerUpdate(memory=80 << 20, memory_swap=80 << 20))
    assert engine.containers.stats(ref).memory_stats.limit == 80 << 20
    assert await exec_in(engine, ref, "sh", "-c", "grep Seccomp: /proc/self/status; exit 4") == (4, "Seccomp:\t2\n")
    await engine.containers.pause(ref)
    await engine.containers.unpause(ref)
    assert await log_of(engine, ref) == b"up\n"
    await engine.containers.stop(ref, timeout=10)
    assert (await engine.containers.inspect(ref)).state.exit_code == 5
    await engine.containers.start(ref)
    await engine.containers.kill(ref)
    assert (await engine.containers.inspect(ref)).state.exit_code == 137
    await engine.containers.remove(ref)


@EACH
async def test_a_terminal_is_a_terminal(engine: Engine, runtime: str) -> None:
    code, output = await run(engine, "sh", "-c", "tty; exit 6", tty=True, host=host(runtime))
    assert (code, output.replace("\r", "")) == (6, "/dev/pts/0\n")


@EACH
async def test_it_is_on_the_networks_that_it_asks_for(engine: Engine, runtime: str) -> None:
    code, output = await run(engine, "ip", "-4", "-o", "addr", host=api.HostConfig(runtime=runtime))
    assert code == 0 and re.search(r"eth0 +inet 10\.", output)


@EACH
@pytest.mark.parametrize(("command", "code", "says"), [
    (["nosuch"], 127, "executable file not found in \\$PATH"), (["/no/such"], 127, "executable file not found in \\$PATH"),
    (["/etc/passwd"], 126, "permission denied"),
])
async def test_a_start_that_fails_says_why_in_the_words_that_clients_know(engine: Engine, runtime: str, command: list[str], code: int, says: str) -> None:
    ref = await create(engine, *command, host=host(runtime))
    with pytest.raises(InvalidArgument, match=says):
        await engine.containers.start(ref)
    assert (await engine.containers.inspect(ref)).state.exit_code == code
    await engine.containers.remove(ref)


@EACH
async def test_two_at_once_do_not_get_in_each_others_way(engine: Engine, runtime: str) -> None:
    results = await asyncio.gather(*(run(engine, "sh", "-c", f"echo {n}; exit {n}", host=host(runtime)) for n in range(4)))
    assert results == [(n, f"{n}\n") for n in range(4)]


async def test_our_own_init_is_not_promised_of_another_runtime(engine: Engine) -> None:
    with pytest.raises(NotImplemented_, match="--init is part of the built-in runtime"):
        await create(engine, "true", host=host("runc", init=True))


async def test_a_runtime_that_nobody_knows_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidArgument, match="unknown or invalid runtime name: kata"):
        await create(engine, "true", host=host("kata"))


def test_a_runtime_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "DEFAULT_PATH", "/no/such/place")
    with pytest.raises(KeeperError, match="install the package crun, or leave --runtime out"):
        external.program("crun")
    with pytest.raises(KeeperError, match="not installed"):
        external.program("/bin/sh")
