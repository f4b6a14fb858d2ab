"""Images: a large one of many small files loaded, saved, pushed, pulled and removed; lists of many."""

from __future__ import annotations

import atexit
import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.engines import EngineUnderTest
from tests.bench.wire import Failed, Wire
from tests.support.registry import free_port

LAYERS, FILES, SIZE = 10, 2000, 15_000  # files a layer; bytes of a file on average
_NAME = "bench/large"
_CONFIG = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {at}/data}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
_registries: dict[int, tuple[subprocess.Popen[bytes], str, str]] = {}
_folder: list[str] = []


def folder() -> str:
    """Where what the scenarios need lies; gone at the end."""
    if not _folder:
        _folder.append(tempfile.mkdtemp(prefix="slipway-bench-images-"))
        atexit.register(shutil.rmtree, _folder[0], ignore_errors=True)
    return _folder[0]


def layer(number: int) -> bytes:
    """A tar of FILES files, half of their bytes such that they compress."""
    dice = random.Random(number)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n in range(FILES):
            size = dice.randrange(SIZE * 2)
            info = tarfile.TarInfo(f"srv/l{number}/d{n % 40}/f{n}")
            info.size = size
            tar.addfile(info, io.BytesIO(dice.randbytes(size // 2) + b"the same again and again \n" * (size // 52 + 1)))
    return out.getvalue()


def archive() -> str:
    """The image as docker save writes it (uncompressed layers, docker's manifest.json); made once."""
    path = f"{folder()}/large.tar"
    if os.path.exists(path):
        return path
    diff_ids, names = [], []
    with tarfile.open(path, "w") as tar:
        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for number in range(LAYERS):
            data = layer(number)
            digest = hashlib.sha256(data).hexdigest()
            diff_ids.append(f"sha256:{digest}")
            names.append(f"{digest}/layer.tar")
            add(names[-1], data)
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
                             "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
        name = hashlib.sha256(config).hexdigest() + ".json"
        add(name, config)
        add("manifest.json", json.dumps([{"Config": name, "RepoTags": [f"{_NAME}:1"], "Layers": names}]).encode())
    return path


def host_of(engine: EngineUnderTest) -> str:
    """The engine's registry, in the network namespace that the engine lives in; started when first asked for."""
    if engine.pid not in _registries:
        at, port = tempfile.mkdtemp(dir=folder()), free_port()
        Path(at, "config.yml").write_text(_CONFIG.format(at=at, port=port))
        program = shutil.which("docker-registry")
        if program is None:
            raise LookupError("docker-registry is not installed")
        process = subprocess.Popen(["nsenter", "-t", str(engine.pid), "-n", program, "serve", f"{at}/config.yml"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(process.kill)
        _registries[engine.pid] = (process, f"127.0.0.1:{port}", at)
        for _ in range(100):
            if Path(f"/proc/{process.pid}/net/tcp").read_text().count(f":{port:04X} "):
                break
            time.sleep(0.05)
    return _registries[engine.pid][1]


def stream(engine: EngineUnderTest, method: str, target: str, body: str = "", headers: dict[str, str] | None = None) -> float:
    """Seconds for a request whose body (a file) and answer may be large."""
    wire = Wire(engine.socket)
    wire.connect()
    wire.sock.settimeout(600)

    def pieces() -> Iterator[bytes]:
        with open(body, "rb") as file:
            while piece := file.read(1 << 20):
                yield piece

    sent = dict(headers or {})
    if body:
        sent.update({"Content-Type": "application/x-tar", "Content-Length": str(os.path.getsize(body))})
    begin = time.perf_counter()
    wire.request(method, target, pieces() if body else None, sent)
    answer = wire.getresponse()
    tail = b""
    while piece := answer.read(1 << 20):
        tail = (tail + piece)[-4000:]
    took = time.perf_counter() - begin
    wire.close()
    if answer.status >= 400 or b'"errorDetail"' in tail:
        raise Failed(f"{method} {target}: {answer.status} {tail[-500:]!r}")
    return took


def remove(engine: EngineUnderTest, name: str) -> float:
    begin = time.perf_counter()
    engine.wire().call("DELETE", f"/images/{urllib.parse.quote(name, safe='')}?force=1")
    return time.perf_counter() - begin


def _without(engine: EngineUnderTest) -> None:
    """No large image is here, under any name."""
    for one in engine.wire().call("GET", "/images/json"):
        if any("/large" in tag for tag in one["RepoTags"] or []):
            for tag in one["RepoTags"]:
                remove(engine, tag)


def _with(engine: EngineUnderTest) -> str:
    """The large image is here and in the engine's registry's name; that name."""
    name = f"{host_of(engine)}/large"
    if not any(f"{_NAME}:1" in (one["RepoTags"] or []) for one in engine.wire().call("GET", "/images/json")):
        stream(engine, "POST", "/images/load", archive())
    engine.wire().call("POST", f"/images/{_NAME}:1/tag?repo={name}&tag=1")
    return name


def load(engine: EngineUnderTest) -> float:
    _without(engine)
    return stream(engine, "POST", "/images/load", archive())


def save(engine: EngineUnderTest) -> float:
    _with(engine)
    return stream(engine, "GET", f"/images/{_NAME}:1/get")


_AUTH = {"X-Registry-Auth": "e30="}


def push(engine: EngineUnderTest) -> float:
    """To an empty repository each time; nothing of an earlier push is there (of another round's name)."""
    name = _with(engine)
    fresh = f"{name}{time.time_ns()}"
    # A registry of its own would be needed to be sure that nothing is taken over: other repositories are emptied.
    at = _registries[engine.pid][2]
    for kept in Path(at, "data").glob("docker/registry/v2/*"):
        shutil.rmtree(kept)
    wire = engine.wire()
    wire.call("POST", f"/images/{_NAME}:1/tag?repo={fresh}&tag=1")
    try:
        return stream(engine, "POST", f"/images/{fresh}/push?tag=1", headers=_AUTH)
    finally:
        remove(engine, f"{fresh}:1")


def _pushed(engine: EngineUnderTest) -> str:
    name = _with(engine)
    stream(engine, "POST", f"/images/{name}/push?tag=1", headers=_AUTH)
    return name


def pull(engine: EngineUnderTest) -> float:
    name = _pushed(engine)
    _without(engine)
    return stream(engine, "POST", f"/images/create?fromImage={name}&tag=1", headers=_AUTH)


def pull_again(engine: EngineUnderTest) -> float:
    name = _pushed(engine)
    stream(engine, "POST", f"/images/create?fromImage={name}&tag=1", headers=_AUTH)
    return 1e3 * min(stream(engine, "POST", f"/images/create?fromImage={name}&tag=1", headers=_AUTH) for _ in range(5))


def rmi(engine: EngineUnderTest) -> float:
    _without(engine)
    stream(engine, "POST", "/images/load", archive())
    return remove(engine, f"{_NAME}:1")


@contextlib.contextmanager
def many(engine: EngineUnderTest, count: int) -> Iterator[None]:
    """*count* images of one small layer each."""
    _without(engine)
    out, rows = io.BytesIO(), []
    with tarfile.open(fileobj=out, mode="w") as tar:
        data = gzip.decompress(gzip.compress(bytes(1024)))
        digest = hashlib.sha256(data).hexdigest()
        files = [(f"{digest}/layer.tar", data)]
        for n in range(count):
            config = json.dumps({"architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
                                 "config": {"Cmd": ["true"], "Labels": {"n": str(n)}},
                                 "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
            name = hashlib.sha256(config).hexdigest() + ".json"
            files.append((name, config))
            rows.append({"Config": name, "RepoTags": [f"bench/many{n}:1"], "Layers": [f"{digest}/layer.tar"]})
        for name, data in [*files, ("manifest.json", json.dumps(rows).encode())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path = f"{folder()}/many{count}.tar"
    Path(path).write_bytes(out.getvalue())
    stream(engine, "POST", "/images/load", path)
    try:
        yield
    finally:
        for n in range(count):
            remove(engine, f"bench/many{n}:1")


def list_many(count: int) -> Callable[[EngineUnderTest], float]:
    def run(engine: EngineUnderTest) -> float:
        with many(engine, count):
            wire = engine.wire()
            assert len(wire.call("GET", "/images/json")) >= count
            times = []
            for _ in range(20):
                wire.request("GET", "/images/json")
                begin = time.perf_counter()
                answer = wire.getresponse()
                answer.read()
                times.append(time.perf_counter() - begin)
            return 1e3 * sorted(times)[10]

    return run


#: Title, unit, scenario, rounds. The order matters little: each makes what it needs.
ROWS: list[tuple[str, str, Callable[[EngineUnderTest], float], int]] = [
    ("load a 300 MB image of 10 layers, 20,000 files", "s", load, 3),
    ("save it", "s", save, 3),
    ("push it to an empty registry", "s", push, 3),
    ("pull it", "s", pull, 3),
    ("pull it when it is there", "ms", pull_again, 3),
    ("remove it", "s", rmi, 2),
    ("list 200 images", "ms", list_many(200), 1),
    ("list 1,000 images", "ms", list_many(1000), 1),
]
