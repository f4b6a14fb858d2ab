"""Networks under measurement: making and removing them, many ports, data through a port, look-ups.

Clients run in the network namespace of the engine (which is a machine of its own for dockerd) or of a container.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.bench.engines import IMAGE, EngineUnderTest
from tests.bench.wire import Wire

_count = itertools.count()
_MEGABYTES = 512

_READ = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10); buffer = bytearray(1 << 20); n = 0; begin = time.perf_counter()
while (got := s.recv_into(buffer)): n += got
print(n / (time.perf_counter() - begin) / 1e6 if n > 1e6 else f"only {n} bytes came")
"""
_SEND = """
import socket, sys
s = socket.create_server(("", 80)); print("ready", flush=True); c, _ = s.accept(); block = bytes(1 << 20)
for n in range(int(sys.argv[1])): c.sendall(block)
c.close()
"""
_ASK = """
import socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(("127.0.0.11", 53))
name = bytes([len(sys.argv[1])]) + sys.argv[1].encode() + b"\\0" + struct.pack("!HH", 1, 1); took = []
for n in range(1000):
    begin = time.perf_counter(); s.send(struct.pack("!6H", n, 256, 1, 0, 0, 0) + name); s.recv(512); took.append(time.perf_counter() - begin)
print(sorted(took)[989] * 1e3)
"""


def name(kind: str) -> str:
    return f"bench-{kind}{next(_count)}"


def network_life(engine: EngineUnderTest) -> float:
    """Create and remove a network, in ms."""
    wire, called = engine.wire(), name("net")
    wire.connect()
    begin = time.perf_counter()
    wire.call("POST", "/networks/create", {"Name": called, "Driver": "bridge"})
    wire.call("DELETE", f"/networks/{called}")
    return (time.perf_counter() - begin) * 1e3


@contextlib.contextmanager
def container(wire: Wire, command: list[str], *, ports: int = 0, first: int = 0, network: str = "bridge") -> Iterator[str]:
    keys = [f"{80 + n}/tcp" for n in range(ports)]
    bindings = {key: [{"HostIp": "", "HostPort": str(first + n) if first else ""}] for n, key in enumerate(keys)}
    made = wire.call("POST", f"/containers/create?name={name('c')}", {
        "Image": IMAGE, "Cmd": command, "ExposedPorts": {key: {} for key in keys}, "HostConfig": {"NetworkMode": network, "PortBindings": bindings}})["Id"]
    try:
        yield made
    finally:
        wire.call("DELETE", f"/containers/{made}?force=1")


def started(network: str, ports: int) -> Callable[[EngineUnderTest], float]:
    """The call that starts a container, in ms."""
    def run(engine: EngineUnderTest) -> float:
        wire = engine.wire()
        with container(wire, ["sleep", "100"], ports=ports, network=network) as made:
            begin = time.perf_counter()
            wire.call("POST", f"/containers/{made}/start")
            return (time.perf_counter() - begin) * 1e3
    return run


def inside(pid: int, program: str, *arguments: str) -> float:
    """Run a client in the network namespace of *pid*; the figure that it prints."""
    done = subprocess.run(command(pid, program, *arguments), check=True, capture_output=True, text=True)
    return float(done.stdout)


def inspect(wire: Wire, made: str) -> Any:
    return wire.call("GET", f"/containers/{made}/json")


def command(pid: int, program: str, *arguments: str) -> list[str]:
    return ["nsenter", "-n", "-t", str(pid), sys.executable, "-I", "-S", "-c", program, *arguments]


def throughput(way: str) -> Callable[[EngineUnderTest], float]:
    """MB/s out of a container: *way* "loopback" or "address" (both by a published port) or "container" (from another one)."""
    def run(engine: EngineUnderTest) -> float:
        wire = engine.wire()
        with container(wire, ["sleep", "100"], ports=1) as server, container(wire, ["sleep", "100"]) as client:
            for each in (server, client):
                wire.call("POST", f"/containers/{each}/start")
            seen = inspect(wire, server)
            network = seen["NetworkSettings"]["Networks"]["bridge"]
            port = seen["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
            with subprocess.Popen(command(seen["State"]["Pid"], _SEND, str(_MEGABYTES)), stdout=subprocess.PIPE) as sender:
                try:
                    assert sender.stdout is not None
                    sender.stdout.readline()
                    if way == "container":
                        return inside(inspect(wire, client)["State"]["Pid"], _READ, network["IPAddress"], "80")
                    return inside(engine.pid, _READ, "127.0.0.1" if way == "loopback" else network["Gateway"], port)
                finally:
                    sender.kill()
    return run


def look_up(engine: EngineUnderTest) -> float:
    """1000 look-ups of a neighbour's name, one after the other: the 99th percentile, in ms."""
    wire, called = engine.wire(), name("net")
    wire.call("POST", "/networks/create", {"Name": called, "Driver": "bridge"})
    try:
        with container(wire, ["sleep", "100"], network=called) as server, container(wire, ["sleep", "100"], network=called) as client:
            for each in (server, client):
                wire.call("POST", f"/containers/{each}/start")
            return inside(inspect(wire, client)["State"]["Pid"], _ASK, inspect(wire, server)["Name"][1:])
    finally:
        wire.call("DELETE", f"/networks/{called}")


ROWS = [
    ("create and remove a network", "ms", network_life, 10),
    ("start call, network none", "ms", started("none", 0), 15),
    ("start call, default bridge", "ms", started("bridge", 0), 15),
    ("start call, one published port", "ms", started("bridge", 1), 15),
    ("start call, 200 published ports", "ms", started("bridge", 200), 3),
    ("out of a container by a published port, loopback", "MB/s", throughput("loopback"), 3),
    ("out of a container by a published port, host's address", "MB/s", throughput("address"), 3),
    ("container to container", "MB/s", throughput("container"), 3),
    ("look-up of a name, p99 of 1000", "ms", look_up, 3),
]
