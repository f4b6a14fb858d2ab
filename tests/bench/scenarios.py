"""What is measured. A scenario takes an engine and yields its figure in ms (or MB, %, s) for one round."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench import copying, images, scale
from tests.bench.engines import IMAGE, EngineUnderTest
from tests.bench.wire import drain, hijack

_count = itertools.count()


def name() -> str:
    return f"bench-{os.getpid()}-{next(_count)}"


def ms(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


def body(command: list[str], network: str = "none", port: bool = False, **more: Any) -> dict[str, Any]:
    host: dict[str, Any] = {"NetworkMode": network}
    wish: dict[str, Any] = {"Image": IMAGE, "Cmd": command, "HostConfig": host, **more}
    if port:
        wish["ExposedPorts"] = {"80/tcp": {}}
        host["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    return wish


@dataclass(frozen=True, slots=True)
class Scenario:
    """``run`` gives one figure; ``rounds`` of them are taken, the median is shown."""

    title: str
    unit: str
    run: Callable[[EngineUnderTest], float]
    rounds: int = 20


def request(method: str, target: str, repeat: int = 100) -> Callable[[EngineUnderTest], float]:
    def run(engine: EngineUnderTest) -> float:
        wire = engine.wire()
        wire.call(method, target)
        return ms(lambda: [wire.call(method, target) for _ in range(repeat)]) / repeat

    return run


def inspect_one(engine: EngineUnderTest) -> float:
    wire = engine.wire()
    made = wire.call("POST", f"/containers/create?name={name()}", body(["true"]))["Id"]
    try:
        return ms(lambda: [wire.call("GET", f"/containers/{made}/json") for _ in range(50)]) / 50
    finally:
        wire.call("DELETE", f"/containers/{made}")


def create(engine: EngineUnderTest) -> float:
    wire = engine.wire()
    made: list[str] = []
    try:
        return ms(lambda: made.append(wire.call("POST", f"/containers/create?name={name()}", body(["true"]))["Id"]))
    finally:
        for each in made:
            wire.call("DELETE", f"/containers/{each}")


def first_byte(network: str) -> Callable[[EngineUnderTest], float]:
    def run(engine: EngineUnderTest) -> float:
        wire = engine.wire()
        made = wire.call("POST", f"/containers/create?name={name()}", body(["echo", "x"], network))["Id"]
        stream = hijack(engine.socket, f"/containers/{made}/attach?stream=1&stdout=1&stderr=1")
        begin = time.perf_counter()
        wire.call("POST", f"/containers/{made}/start")
        stream.recv(1)
        took = (time.perf_counter() - begin) * 1e3
        drain(stream)
        wire.call("POST", f"/containers/{made}/wait")
        wire.call("DELETE", f"/containers/{made}")
        return took

    return run


def life(network: str, port: bool = False) -> Callable[[EngineUnderTest], float]:
    """create + attach + start + exit + remove through the API."""

    def run(engine: EngineUnderTest) -> float:
        wire = engine.wire()
        wire.connect()

        def whole() -> None:
            made = wire.call("POST", f"/containers/create?name={name()}", body(["true"], network, port))["Id"]
            stream = hijack(engine.socket, f"/containers/{made}/attach?stream=1&stdout=1&stderr=1")
            wire.call("POST", f"/containers/{made}/start")
            drain(stream)
            wire.call("POST", f"/containers/{made}/wait")
            wire.call("DELETE", f"/containers/{made}")

        return ms(whole)

    return run


def with_sleeper(work: Callable[[EngineUnderTest, str], float]) -> Callable[[EngineUnderTest], float]:
    def run(engine: EngineUnderTest) -> float:
        wire = engine.wire()
        made = wire.call("POST", f"/containers/create?name={name()}", body(["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]))["Id"]
        wire.call("POST", f"/containers/{made}/start")
        time.sleep(0.05)
        try:
            return work(engine, made)
        finally:
            wire.call("DELETE", f"/containers/{made}?force=1")

    return run


@with_sleeper
def exec_true(engine: EngineUnderTest, made: str) -> float:
    wire = engine.wire()
    wire.connect()

    def whole() -> None:
        made_exec = wire.call("POST", f"/containers/{made}/exec", {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True})["Id"]
        drain(hijack(engine.socket, f"/exec/{made_exec}/start", {"Detach": False, "Tty": False}))
        code = wire.call("GET", f"/exec/{made_exec}/json")["ExitCode"]
        assert code == 0, code

    return ms(whole)


@with_sleeper
def stop(engine: EngineUnderTest, made: str) -> float:
    wire = engine.wire()
    return ms(lambda: wire.call("POST", f"/containers/{made}/stop"))


@with_sleeper
def kill_wait(engine: EngineUnderTest, made: str) -> float:
    wire = engine.wire()

    def whole() -> None:
        wire.call("POST", f"/containers/{made}/kill")
        wire.call("POST", f"/containers/{made}/wait")

    return ms(whole)


@with_sleeper
def pause(engine: EngineUnderTest, made: str) -> float:
    wire = engine.wire()
    took = ms(lambda: wire.call("POST", f"/containers/{made}/pause"))
    wire.call("POST", f"/containers/{made}/unpause")
    return took


def burst(engine: EngineUnderTest) -> float:
    """50 starts, 8 in flight, in seconds; removal is not counted."""
    wire = engine.wire()
    made = [wire.call("POST", f"/containers/create?name={name()}", body(["sleep", "1000"]))["Id"] for _ in range(50)]

    def start(each: str) -> None:
        engine.wire().call("POST", f"/containers/{each}/start")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        took = ms(lambda: list(pool.map(start, made))) / 1e3
        list(pool.map(lambda each: engine.wire().call("DELETE", f"/containers/{each}?force=1"), made))
    return took


def docker(*arguments: str) -> Callable[[EngineUnderTest], float]:
    program = shutil.which("docker")

    def run(engine: EngineUnderTest) -> float:
        if program is None:
            raise LookupError("no docker client here")
        command = [program, "-H", f"unix://{engine.socket}", *arguments]
        return ms(lambda: subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL))

    return run


def memory(engine: EngineUnderTest) -> float:
    return engine.pss_mb()


def list_fifty(engine: EngineUnderTest) -> float:
    wire = engine.wire()
    made = [wire.call("POST", f"/containers/create?name={name()}", body(["true"]))["Id"] for _ in range(50)]
    try:
        return ms(lambda: [wire.call("GET", "/containers/json?all=1") for _ in range(10)]) / 10
    finally:
        for each in made:
            wire.call("DELETE", f"/containers/{each}")


SCENARIOS = [
    Scenario("idle memory of all engine processes, fresh (PSS)", "MB", memory, 1),
    Scenario("GET /_ping", "ms", request("GET", "/_ping"), 5),
    Scenario("GET /version", "ms", request("GET", "/version", 20), 5),
    Scenario("inspect a container", "ms", inspect_one, 5),
    Scenario("list 50 containers", "ms", list_fifty, 3),
    Scenario("create", "ms", create),
    Scenario("start to first byte, network none", "ms", first_byte("none")),
    Scenario("start to first byte, default bridge", "ms", first_byte("bridge")),
    Scenario("create+attach+start+exit+remove, none", "ms", life("none")),
    Scenario("create+attach+start+exit+remove, bridge", "ms", life("bridge")),
    Scenario("create+attach+start+exit+remove, published port", "ms", life("bridge", port=True)),
    Scenario("exec of true, whole", "ms", exec_true),
    Scenario("stop", "ms", stop, 10),
    Scenario("kill + wait", "ms", kill_wait, 10),
    Scenario("pause", "ms", pause, 10),
    Scenario("50 starts, 8 in flight", "s", burst, 2),
    Scenario("20 MB in 200,000 lines through the log", "s", scale.log_write, 3),
    Scenario("the 20 MB of log read back", "s", scale.log_read, 3),
    Scenario("the last 100 lines of it", "ms", scale.log_tail, 5),
    Scenario("removal of that container", "ms", scale.log_gone, 1),
    Scenario("copy 100 MB into a container", "MB/s", copying.large_in, 5),
    Scenario("copy 100 MB out of a container", "MB/s", copying.large_out, 5),
    Scenario("copy 2,000 files into a container", "s", copying.many_in, 5),
    Scenario("copy 2,000 files out of a container", "s", copying.many_out, 5),
    Scenario("docker cp of 100 MB into a container", "s", copying.client("large"), 3),
    Scenario("docker cp of 2,000 files into a container", "s", copying.client("many"), 3),
    Scenario("commit of a small change", "ms", copying.change("POST", "/commit?container={id}"), 5),
    Scenario("diff of a small change", "ms", copying.change("GET", "/containers/{id}/changes"), 5),
    Scenario("docker version (the client alone)", "ms", docker("version"), 10),
    Scenario("docker run --rm --network none busybox true", "ms", docker("run", "--rm", "--network", "none", IMAGE, "true"), 10),
    Scenario("docker run --rm busybox true", "ms", docker("run", "--rm", IMAGE, "true"), 10),
    Scenario("idle memory of all engine processes, after the work (PSS)", "MB", memory, 1),
    Scenario(f"{scale.FLEET} containers created and started, 8 in flight", "s", scale.fleet_up, 1),
    Scenario(f"{scale.FLEET} running: memory of all engine processes (PSS)", "MB", scale.with_fleet(memory), 1),
    Scenario(f"{scale.FLEET} running: idle CPU", "%", scale.fleet_idle_cpu, 1),
    Scenario(f"{scale.FLEET} running: list", "ms", scale.fleet_list, 1),
    Scenario("statistics, once", "ms", scale.stats_once, 1),
    Scenario("50 streams of statistics: CPU", "%", scale.stats_streams, 1),
    Scenario(f"{scale.FLEET} containers removed by force, 8 in flight", "s", scale.fleet_down, 1),
    *(Scenario(*row) for row in images.ROWS),
]
