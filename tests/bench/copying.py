"""Files into and out of a running container, by the API and by the docker client; commit, diff, export of a small change."""

from __future__ import annotations

import http.client
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.engines import IMAGE, EngineUnderTest
from tests.bench.wire import Failed
from tests.support.private import docker_client

SIZE = 100 << 20
FILES = 2000
_PIECE = 1 << 20


@contextmanager
def container(engine: EngineUnderTest) -> Iterator[str]:
    wire = engine.wire()
    made = str(wire.call("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}})["Id"])
    try:
        wire.call("POST", f"/containers/{made}/start")
        yield made
    finally:
        wire.call("DELETE", f"/containers/{made}?force=1")


def large() -> bytes:
    """A tar of one file of 100 MB."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("large")
        member.size = SIZE
        tar.addfile(member, io.BytesIO(os.urandom(_PIECE) * (SIZE // _PIECE)))
    return out.getvalue()


def many() -> bytes:
    """A tar of 2,000 small files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(FILES):
            member = tarfile.TarInfo(f"many/f{number}")
            member.size = 20
            tar.addfile(member, io.BytesIO(b"x" * 20))
    return out.getvalue()


_archives: dict[str, bytes] = {}


def _archive(kind: str) -> bytes:
    if kind not in _archives:
        _archives[kind] = large() if kind == "large" else many()
    return _archives[kind]


def put(engine: EngineUnderTest, made: str, data: bytes) -> float:
    """Seconds."""
    wire = engine.wire()
    begin = time.perf_counter()
    wire.request("PUT", f"/containers/{made}/archive?path=/tmp", data, {"Content-Type": "application/x-tar"})
    answer = wire.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise Failed(f"{answer.status} {text!r}")
    return time.perf_counter() - begin


def get(engine: EngineUnderTest, target: str) -> tuple[float, int]:
    """Seconds and bytes."""
    wire = engine.wire()
    begin = time.perf_counter()
    wire.request("GET", target)
    size = _drain(wire.getresponse())
    return time.perf_counter() - begin, size


def _drain(answer: http.client.HTTPResponse) -> int:
    if answer.status != 200:
        raise Failed(f"{answer.status} {answer.read()!r}")
    size, buffer = 0, bytearray(_PIECE)
    while got := answer.readinto(buffer):
        size += got
    return size


def large_in(engine: EngineUnderTest) -> float:
    with container(engine) as made:
        return SIZE / 1e6 / put(engine, made, _archive("large"))


def large_out(engine: EngineUnderTest) -> float:
    with container(engine) as made:
        put(engine, made, _archive("large"))
        seconds, size = get(engine, f"/containers/{made}/archive?path=/tmp/large")
        assert size > SIZE
        return SIZE / 1e6 / seconds


def many_in(engine: EngineUnderTest) -> float:
    with container(engine) as made:
        return put(engine, made, _archive("many"))


def many_out(engine: EngineUnderTest) -> float:
    with container(engine) as made:
        put(engine, made, _archive("many"))
        return get(engine, f"/containers/{made}/archive?path=/tmp/many")[0]


def client(kind: str) -> Callable[[EngineUnderTest], float]:
    """Seconds that `docker cp` takes, "large" or "many", into the container."""
    def run(engine: EngineUnderTest) -> float:
        program = docker_client()
        assert program is not None
        folder = tempfile.mkdtemp(prefix="slipway-bench-")
        try:
            with tarfile.open(fileobj=io.BytesIO(_archive(kind))) as tar:
                tar.extractall(folder, filter="fully_trusted")
            with container(engine) as made:
                begin = time.perf_counter()
                subprocess.run([program, "-H", f"unix://{engine.socket}", "cp", f"{folder}/{kind}", f"{made}:/tmp"],
                               check=True, capture_output=True)
                return time.perf_counter() - begin
        finally:
            shutil.rmtree(folder)

    return run


def change(method: str, target: str) -> Callable[[EngineUnderTest], float]:
    """Milliseconds of an operation on a container with a small change. {id} stands for it."""
    def run(engine: EngineUnderTest) -> float:
        with container(engine) as made:
            put(engine, made, _archive("many")[:1024] + bytes(1024))
            wire = engine.wire()
            begin = time.perf_counter()
            result = wire.call(method, target.replace("{id}", made))
            taken = time.perf_counter() - begin
            if isinstance(result, dict) and "Id" in result:
                wire.call("DELETE", f"/images/{result['Id']}")
            return taken * 1e3

    return run
