"""Engines under measurement: a private helper of this checkout, and a dockerd of its own beside it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.wire import Wire
from tests.support.private import PrivateHelper
from tests.support.roots import busybox_tar

IMAGE = "busybox:latest"


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """A running engine: its name in the table, its socket, and how its processes are told."""

    name: str
    socket: str
    pid: int
    markers: tuple[str, ...]

    def wire(self) -> Wire:
        return Wire(self.socket)

    def processes(self) -> list[int]:
        """The engine's own processes (not the containers'): by command line, in the mount namespace of the main one."""
        here = os.readlink(f"/proc/{self.pid}/ns/mnt")
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if any(m in line for m in self.markers) and os.readlink(f"/proc/{entry}/ns/mnt") == here:
                    found.append(int(entry))
            except OSError:
                continue
        return found

    def pss_mb(self) -> float:
        """Proportional set size of all its processes, in MB (proc_pid_smaps(5))."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total / 1024

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")


def import_busybox(wire: Wire) -> None:
    wire.upload("/images/create?fromSrc=-&repo=busybox&tag=latest&changes=CMD%20%5B%22sh%22%5D", busybox_tar())


@contextlib.contextmanager
def slipway() -> Iterator[EngineUnderTest]:
    """A private helper of this checkout, gone with all its state afterwards. Its exec-root is in memory, as /run is."""
    helper = PrivateHelper()
    helper.flags = ("--bip", helper.flags[1].replace("/24", "/20"), *helper.flags[2:])   # room for a fleet of thousands
    os.mkdir(helper.exec)
    subprocess.run(["mount", "-t", "tmpfs", "none", helper.exec], check=True)
    try:
        with helper:
            assert helper.process is not None
            engine = EngineUnderTest("slipway", helper.socket, helper.process.pid, (helper.exec,))
            import_busybox(engine.wire())
            yield engine
            leave(engine)
    finally:
        subprocess.run(["umount", "-l", helper.exec], check=True)
        os.rmdir(helper.exec)
        os.rmdir(helper.at)


def leave(engine: EngineUnderTest) -> None:
    """Remove what a broken scenario may have left."""
    wire = engine.wire()
    for each in wire.call("GET", "/containers/json?all=1"):
        wire.call("DELETE", f"/containers/{each['Id']}?force=1")


_INSIDE = """set -e
ip link set lo up
mount --bind {root} {root}
[ {root} = / ] || {{ mount --rbind /proc {root}/proc; mount --rbind /dev {root}/dev; }}
[ {root} = / ] || {{ mount -t sysfs none {root}/sys; mount --rbind /sys/fs/cgroup {root}/sys/fs/cgroup; }}
mount -t tmpfs none {root}/run
echo 1 > /proc/sys/net/ipv4/ip_forward
exec chroot {root} dockerd --data-root {at}/data --exec-root /run/exec -H unix://{at}/docker.sock --pidfile {at}/pid
"""


@contextlib.contextmanager
def dockerd(root: str) -> Iterator[EngineUnderTest]:
    """dockerd of the root file system *root* ("/": the machine's own) in a network and mount namespace of its own."""
    inner = f"/srv/bench{os.getpid()}"
    outer = (root.rstrip("/") or "") + inner
    os.makedirs(outer)
    log = open(f"{outer}/log", "wb")
    script = _INSIDE.format(root=root, at=inner)
    daemon = subprocess.Popen(["unshare", "-n", "-m", "sh", "-c", script], stdout=log, stderr=log, start_new_session=True)
    try:
        wire = Wire(f"{outer}/docker.sock")
        for _ in range(150):
            try:
                wire.call("GET", "/_ping")
                break
            except OSError:
                wire.close()
                time.sleep(0.2)
        else:
            raise SystemExit(f"bench: dockerd did not start: {Path(outer, 'log').read_text()[-2000:]}")
        engine = EngineUnderTest("dockerd", f"{outer}/docker.sock", daemon.pid, ("dockerd", "containerd", "docker-proxy"))
        import_busybox(engine.wire())
        yield engine
        leave(engine)
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path(outer, "pid").read_text()), signal.SIGTERM)
        daemon.wait(60)
        log.close()
        shutil.rmtree(outer, ignore_errors=True)
