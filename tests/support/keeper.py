"""A keeper of one's own with a busybox root file system, for tests of the runtime by itself."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from backend.runtime.cgroups import layout
from backend.runtime.client import Exit, Keeper, KeeperContainer, KeeperError, LogTarget, Overlay, Stdio
from backend.runtime.pool import SIZE as POOL
from backend.spec.seccomp import default_seccomp
from tests.support.roots import busybox_tar

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]
PLAIN = Stdio(tty=False, open_stdin=False, stdin_once=False)
PROFILE = Path(__file__).resolve().parents[2] / "resources/seccomp/default.json"
MASKED = ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi",
          "/sys/firmware"]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def name_of(pid: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def held_by_pidfd(pid: int) -> set[str]:
    """The processes that process *pid* has pidfds of: those that it has been handed, not only those that live."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {line.split()[1] for line in entry.read_text().splitlines() if line.startswith("Pid:")}
    return found


def frames(data: bytes) -> dict[int, bytes]:
    """Docker's frames taken apart: stream -> bytes."""
    out: dict[int, bytes] = {1: b"", 2: b""}
    while data:
        size = int.from_bytes(data[4:8], "big")
        out[data[0]] += data[8 : 8 + size]
        data = data[8 + size :]
    return out


async def read_all(sock: socket.socket, limit: float = 20) -> bytes:
    """All that comes until the end of file."""
    loop, out = asyncio.get_running_loop(), b""
    try:
        async with asyncio.timeout(limit):
            while data := await loop.sock_recv(sock, 1 << 16):
                out += data
    finally:
        sock.close()
    return out


class Lab:
    """One keeper, its folder, its containers. ``await Lab.open()``, ``await lab.close()``."""

    def __init__(self) -> None:
        self.at = tempfile.mkdtemp(prefix="slipway-keeper-")
        self.exec_root = f"{self.at}/exec"
        self.lower = f"{self.at}/lower"
        self.cgroups = os.path.basename(self.at)
        self.exits: asyncio.Queue[Exit] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.keeper: Keeper
        self._count = 0
        os.mkdir(self.lower)
        with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
            tar.extractall(self.lower, filter="fully_trusted")
        with open(f"{self.lower}/etc/passwd", "a") as file:
            file.write("alice:x:1000:1001::/home/alice:/bin/sh\n")
        with open(f"{self.lower}/etc/group", "a") as file:
            file.write("alice:x:1001:\nextra:x:77:alice\n")

    @classmethod
    async def open(cls) -> Lab:
        lab = cls()
        await lab.connect()
        return lab

    async def connect(self) -> None:
        sock = await asyncio.to_thread(Keeper.find_or_start, self.exec_root)
        self.keeper = await Keeper.connect(sock, on_exit=self.exits.put_nowait, on_lost=self.lost.set)

    async def replace(self) -> list[KeeperContainer]:
        """After a loss: a new keeper, with what the client held of the old one."""
        known = await self.keeper.replace(await asyncio.to_thread(Keeper.find_or_start, self.exec_root))
        self.keeper.resume()
        return known

    async def both_lost(self) -> None:
        """The keeper is killed and the client goes with it: nobody holds a copy of anything."""
        os.kill(self.keeper.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await self.lost.wait()
        self.keeper.close()
        self.lost.clear()

    async def close(self) -> None:
        for container in await self.keeper.list():
            if container.status == "running":
                with contextlib.suppress(KeeperError):        # it may be ending by itself
                    await self.keeper.kill(container.id, signal.SIGKILL)
                await self.exit(container.id)
            await self.keeper.delete(container.id)
        await self.keeper.stop()
        for directory in [layout().root] if layout().v2 else {*layout().controllers.values()}:
            if os.path.isdir(f"{directory}/{self.cgroups}"):
                os.rmdir(f"{directory}/{self.cgroups}")
        shutil.rmtree(self.at)

    # --- containers ---------------------------------------------------------------------------------------------------
    def config(self, *args: str, **more: Any) -> dict[str, Any]:
        """An OCI configuration as an engine would write it for a default container."""
        def caps() -> dict[str, list[str]]:
            return {kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")}

        return {
            "ociVersion": "1.2.0",
            "process": {"user": {"username": ""}, "args": list(args), "env": ["PATH=/bin:/usr/bin"], "cwd": "/", "capabilities": caps(),
                        **more},
            "root": {"path": "rootfs"}, "hostname": "lab",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                 "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            ],
            "linux": {
                "namespaces": [{"type": t} for t in ("mount", "network", "pid", "ipc", "uts", "cgroup")],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
                "seccomp": default_seccomp(PROFILE.read_text(), CAPABILITIES, os.uname().machine),
                "maskedPaths": MASKED, "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }

    def process(self, *args: str, **more: Any) -> dict[str, Any]:
        """An OCI process for an exec."""
        return {**self.config(*args)["process"], **more}

    async def create(self, config: dict[str, Any], stdio: Stdio = PLAIN, *, driver: str = "slipway", id: str = "") -> str:
        """Makes a container; returns its ID."""
        if not id:
            self._count += 1
            id = f"c{self._count}"
        bundle = f"{self.at}/{id}"
        for name in ("rootfs", "upper", "work", "log"):
            os.makedirs(f"{bundle}/{name}", exist_ok=True)
        config["linux"]["cgroupsPath"] = f"{self.cgroups}/{id}"
        Path(bundle, "config.json").write_text(json.dumps(config))
        await self.keeper.create(id, bundle, overlay=Overlay((self.lower,), f"{bundle}/upper", f"{bundle}/work"), stdio=stdio,
                                 log=LogTarget(f"{bundle}/log", driver, 0, 1))
        return id

    async def exit(self, id: str, exec_id: str = "", limit: float = 20) -> Exit:
        """The next exit of this process; others that come before are put back."""
        others = []
        async with asyncio.timeout(limit):
            while True:
                end = await self.exits.get()
                if (end.id, end.exec_id) == (id, exec_id):
                    break
                others.append(end)
        for end_of_other in others:
            self.exits.put_nowait(end_of_other)
        return end

    async def output(self, config: dict[str, Any], stdio: Stdio = PLAIN) -> tuple[dict[int, bytes], Exit]:
        """Runs a container to its end and takes it away: what it wrote, how it ended."""
        id = await self.create(config, stdio)
        sock = await self.keeper.attach(id, stdin=False, stdout=True, stderr=True)
        await self.keeper.start(id)
        data = await read_all(sock)
        end = await self.exit(id)
        await self.keeper.delete(id)
        return (frames(data) if not stdio.tty else {1: data, 2: b""}), end

    async def sh(self, script: str, **more: Any) -> str:
        """What a shell script in a default container writes to both streams."""
        out, _ = await self.output(self.config("sh", "-c", script, **more))
        return (out[1] + out[2]).decode()

    async def sleeper(self, **more: Any) -> str:
        """A running container that does nothing."""
        id = await self.create(self.config("sleep", "1000", **more))
        await self.keeper.start(id)
        return id

    # --- leftovers ----------------------------------------------------------------------------------------------------
    def census(self) -> dict[str, Any]:
        """What the keeper and the machine hold because of this lab."""
        pid = self.keeper.pid
        for _ in range(200):                    # the keeper forks a few ahead, in its own time
            waiting = {child for child in children(pid) if name_of(child) == "slipway:waits"}
            if len(waiting) == POOL and waiting <= held_by_pidfd(pid):
                break
            time.sleep(0.01)
        count = -1                              # and takes them in a moment after they are there
        while count != (count := len(os.listdir(f"/proc/{pid}/fd"))):
            time.sleep(0.03)
        roots = [layout().root] if layout().v2 else sorted({*layout().controllers.values()})
        return {
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "children": len(children(pid)),
            "mounts": [line for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if self.at in line],
            "cgroups": [d.path for root in roots if os.path.isdir(f"{root}/{self.cgroups}")
                        for d in os.scandir(f"{root}/{self.cgroups}") if d.is_dir()],
            "records": sorted(os.listdir(f"{self.exec_root}/containers")),
        }
