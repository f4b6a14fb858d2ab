"""An engine of a test's own, in this process, on a keeper of its own: real kernel, no HTTP and no image store.

The image is a directory of the machine's busybox, given by a store of one: these tests are about lives, not layers.
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import shutil
import signal
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest import mock

from backend.engine import engine as engine_module
from backend.engine.engine import Engine
from backend.engine.settings import Settings
from backend.engine.streams import AttachWish, LogWish, Session
from backend.errors import NotFound
from backend.images.types import Image
from backend.network.records import AddressPool
from backend.runtime.client import Keeper
from backend.spec import api
from backend.spec.image import ImageConfig
from tests.support.roots import busybox_tar
from tests.support.subnets import free_octet


class OneImage:
    """An image store with one image, which is a directory."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.on_event = None
        self.early = None
        self.held: set[str] = set()
        config = ImageConfig(architecture="amd64")
        config.config.cmd = ["sh"]
        config.config.env = ["PATH=/bin:/usr/bin"]
        config.config.volumes = {}
        self.image = Image("sha256:" + "a" * 64, config, ("busybox:latest",), (), 1, 1, None)

    def get(self, name: str) -> Image:
        if name not in ("busybox", "busybox:latest", self.image.id):
            raise NotFound(f"No such image: {name if ':' in name else name + ':latest'}")
        return self.image

    def list(self) -> list[Image]:
        return [self.image]

    async def lowers(self, image: str, holder: str) -> tuple[str, ...]:
        self.held.add(holder)
        return (self._root,)

    def release(self, holder: str) -> None:
        self.held.discard(holder)

    async def close(self) -> None:
        return None


class Place:
    """Directories and addresses of a private engine; open it, leave it, open it again."""

    def __init__(self) -> None:
        self.at = tempfile.mkdtemp(prefix="slipway-engine-")
        self.root = f"{self.at}/root"
        self.data, self.exec = f"{self.at}/data", f"{self.at}/exec"
        self.instance = f"slipway-{secrets.token_hex(4)}"
        octet = free_octet(200, 50)
        self.settings = Settings(self.data, self.exec, self.instance, address_pools=(AddressPool(f"10.{octet}.128.0/17", 24),),
                                 bip=f"10.{octet}.0.1/24", version="0")
        os.mkdir(self.root)
        with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
            tar.extractall(self.root)
        self.store = OneImage(self.root)

    @asynccontextmanager
    async def engine(self, *, stop: bool = True) -> AsyncIterator[Engine]:
        """An open engine; with *stop* its containers end with it."""
        async def make(*_: object) -> OneImage:
            return self.store

        sock = await asyncio.to_thread(Keeper.find_or_start, self.exec)
        with mock.patch.object(engine_module, "make_store", make):
            engine = await Engine.open(self.settings, sock)
        try:
            yield engine
        finally:
            if stop:
                for row in engine.containers.list(all=True):
                    with suppress(NotFound):
                        await engine.containers.remove(row.id, force=True, volumes=True)
                await engine.shutdown()
            else:
                await engine.close()

    def keepers(self) -> list[int]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    if self.exec.encode() in Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0"):
                        found.append(int(entry))
        return found

    def destroy(self) -> None:
        for pid in self.keepers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.at, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """What would show on the host of a container that is gone."""
        left = [f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if self.at in line]
        for top, names, _ in os.walk("/sys/fs/cgroup"):
            if os.path.basename(top) == self.instance:
                left += [f"cgroup {top}/{name}" for name in names]
                names.clear()
            elif top.count("/") > 5:
                names.clear()
        left += [f"bundle {name}" for name in os.listdir(f"{self.exec}/bundles")]
        left += [f"files {name}" for name in os.listdir(f"{self.data}/containers")]
        left += [f"layers held for {holder}" for holder in self.store.held]
        return left


async def create(engine: Engine, *cmd: str, name: str = "", host: api.HostConfig | None = None, **config: object) -> str:
    body = api.ContainerCreate(image="busybox", cmd=list(cmd), host_config=host or api.HostConfig(network_mode="none"), **config)
    return (await engine.containers.create(body, name=name)).id


async def run(engine: Engine, *cmd: str, **more: object) -> tuple[int, str]:
    """Run to the end: exit code and output (both streams, frames taken off)."""
    ref = await create(engine, *cmd, **more)
    waiter = engine.containers.wait(ref, "next-exit")
    session = await engine.containers.attach(ref, AttachWish())
    await engine.containers.start(ref)
    output = await read_all(session)
    code = (await waiter.result()).status_code
    await engine.containers.remove(ref, volumes=True)
    return code, output.decode()


async def read_all(session: Session, stdin: bytes | None = None) -> bytes:
    assert session.socket is not None
    reader, writer = await asyncio.open_unix_connection(sock=session.socket)
    if stdin is not None:
        writer.write(stdin)
        writer.write_eof()
    data = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return data if session.tty else frames(data)


def frames(data: bytes) -> bytes:
    out = b""
    while data:
        size = int.from_bytes(data[4:8], "big")
        out, data = out + data[8:8 + size], data[8 + size:]
    return out


async def log_of(engine: Engine, ref: str, **wish: object) -> bytes:
    stream = engine.containers.logs(ref, LogWish(**wish))
    data = b"".join([chunk async for chunk in stream])
    return data if stream.tty else frames(data)


async def exec_in(engine: Engine, ref: str, *cmd: str, **body: object) -> tuple[int | None, str]:
    exec_id = await engine.execs.create(ref, api.ExecCreate(cmd=list(cmd), attach_stdout=True, attach_stderr=True, **body))
    session = await engine.execs.start(exec_id, detach=False, tty=False)
    assert session is not None
    output = await read_all(session)
    for _ in range(100):
        found = engine.execs.inspect(exec_id)
        if not found.running:
            break
        await asyncio.sleep(0.02)
    return found.exit_code, output.decode()


async def until(condition: object, what: str, seconds: float = 10) -> None:
    """Wait for something that happens in the background."""
    assert callable(condition)
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not come to pass: {what}")
