"""Many containers, long logs, many watchers: what an engine costs when it has been in use for a while.

Rows share a fleet and a log; one that runs without those before it (``--only``) makes what it needs, outside its figure.
"""

from __future__ import annotations

import concurrent.futures
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.bench.engines import IMAGE, EngineUnderTest

FLEET = int(os.environ.get("SLIPWAY_BENCH_FLEET", "200"))
_LINES = ("yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789abc"
          " | head -n 200000")
_fleets: dict[str, list[str]] = {}
_logs: dict[str, str] = {}


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _each(work: Callable[[str], None], ids: list[str]) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, ids))


# --- a fleet, from its start to its removal -----------------------------------------------------------------------------
def fleet_up(engine: EngineUnderTest) -> float:
    """Create and start all, 8 in flight, in seconds."""
    ids = _fleets[engine.name] = []

    def one(_: str) -> None:
        wire = engine.wire()
        made = wire.call("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["sleep", "100000"]})["Id"]
        ids.append(made)
        wire.call("POST", f"/containers/{made}/start")

    return _timed(lambda: _each(one, [""] * FLEET))


def _fleet(engine: EngineUnderTest) -> list[str]:
    if engine.name not in _fleets:
        fleet_up(engine)
    return _fleets[engine.name]


def with_fleet(row: Callable[[EngineUnderTest], float]) -> Callable[[EngineUnderTest], float]:
    """A row that is measured while the fleet runs."""
    def run(engine: EngineUnderTest) -> float:
        _fleet(engine)
        return row(engine)

    return run


def fleet_idle_cpu(engine: EngineUnderTest) -> float:
    """Percent of one processor over 20 quiet seconds."""
    _fleet(engine)
    time.sleep(15)              # until what the starts set off has come to rest
    before = engine.cpu_seconds()
    time.sleep(20)
    return 100 * (engine.cpu_seconds() - before) / 20


def fleet_list(engine: EngineUnderTest) -> float:
    _fleet(engine)
    wire = engine.wire()
    wire.call("GET", "/containers/json")
    return 1e3 * _timed(lambda: [wire.call("GET", "/containers/json") for _ in range(20)]) / 20


def stats_once(engine: EngineUnderTest) -> float:
    wire, one = engine.wire(), _fleet(engine)[0]
    return 1e3 * _timed(lambda: wire.call("GET", f"/containers/{one}/stats?stream=0"))


def stats_streams(engine: EngineUnderTest) -> float:
    """Percent of one processor that 50 streams of statistics cost, over 10 seconds."""
    stop = threading.Event()
    socks = []
    for one in _fleet(engine)[:50]:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(engine.socket)
        sock.sendall(f"GET /containers/{one}/stats HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sock.settimeout(0.2)
        socks.append(sock)

    def read_all() -> None:
        while not stop.is_set():
            for sock in socks:
                try:
                    sock.recv(1 << 16)
                except TimeoutError:
                    continue

    reader = threading.Thread(target=read_all)
    reader.start()
    try:
        time.sleep(3)
        before = engine.cpu_seconds()
        time.sleep(10)
        return 100 * (engine.cpu_seconds() - before) / 10
    finally:
        stop.set()
        reader.join()
        for sock in socks:
            sock.close()


def fleet_down(engine: EngineUnderTest) -> float:
    """Remove all by force, 8 in flight, in seconds."""
    ids = _fleet(engine)
    del _fleets[engine.name]
    return _timed(lambda: _each(lambda one: engine.wire().call("DELETE", f"/containers/{one}?force=1"), ids))


# --- logs ---------------------------------------------------------------------------------------------------------------
def log_write(engine: EngineUnderTest) -> float:
    """20 MB in 200,000 lines through the log, in seconds. The container stays for :func:`log_read`."""
    wire = engine.wire()
    old = _logs.pop(engine.name, "")
    if old:
        wire.call("DELETE", f"/containers/{old}?force=1")
    made = _logs[engine.name] = wire.call("POST", "/containers/create", {
        "Image": IMAGE, "Cmd": ["sh", "-c", _LINES]})["Id"]

    def whole() -> None:
        wire.call("POST", f"/containers/{made}/start")
        assert wire.call("POST", f"/containers/{made}/wait")["StatusCode"] == 0

    return _timed(whole)


def _log(engine: EngineUnderTest) -> str:
    if engine.name not in _logs:
        log_write(engine)
    return _logs[engine.name]


def log_read(engine: EngineUnderTest) -> float:
    """The 20 MB read back, in seconds."""
    wire, one = engine.wire(), _log(engine)
    sizes: list[int] = []

    def whole() -> None:
        wire.request("GET", f"/containers/{one}/logs?stdout=1&stderr=1")
        answer = wire.getresponse()
        while data := answer.read(1 << 20):
            sizes.append(len(data))

    took = _timed(whole)
    assert sum(sizes) >= 20_000_000, sum(sizes)
    return took


def log_tail(engine: EngineUnderTest) -> float:
    """The last 100 lines of it, in ms."""
    wire, one = engine.wire(), _log(engine)
    return 1e3 * _timed(lambda: wire.call("GET", f"/containers/{one}/logs?stdout=1&stderr=1&tail=100"))


def log_gone(engine: EngineUnderTest) -> float:
    """Removal of the container with its log, in ms."""
    one = _log(engine)
    del _logs[engine.name]
    return 1e3 * _timed(lambda: engine.wire().call("DELETE", f"/containers/{one}"))
