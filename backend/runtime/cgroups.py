"""Control groups of a container, v1 (or hybrid) and v2, found by what is mounted.

Used by the keeper (make, join, kill, remove) and by the engine (stats, pids, freeze, update). On v1 a process joins by
``tasks``: ``cgroup.procs`` waits for an RCU grace period, 5 to 12 ms. Stat files are kept open, which is five times as
fast as opening them for each sample.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

from backend.runtime import syscalls as sc
from backend.runtime.devices import allow_all, default_rules, device_program, rules_of, v1_lines
from backend.runtime.limits import v1_writes, v2_writes
from backend.runtime.stats import CgroupStats, sample_v1, sample_v2

ROOT = "/sys/fs/cgroup"
_PIECE = 16 << 10
_V2_CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")


@dataclass(frozen=True, slots=True)
class Layout:
    """How this machine mounts its cgroups."""

    v2: bool
    root: str  # of the v2 tree; "" on v1
    controllers: dict[str, str]  # v1: controller ("name=systemd" too) -> directory
    mounts: tuple[tuple[str, str], ...]  # v1: (directory name, options) of each hierarchy; v2: (("", "cgroup2"),)


@cache
def layout() -> Layout:
    """Reads ``/proc/self/mountinfo`` once."""
    controllers: dict[str, str] = {}
    mounts: list[tuple[str, str]] = []
    unified = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            if len(fields) < 5 or len(tail) < 3:
                continue
            if tail[0] == "cgroup2" and not unified:
                unified = fields[4]
            elif tail[0] == "cgroup" and fields[3] == "/":
                _add_v1(fields[4], tail[2], controllers, mounts)
    if "memory" in controllers or "pids" in controllers:
        return Layout(False, "", controllers, tuple(mounts))
    return Layout(True, unified or ROOT, {}, (("", "cgroup2"),))


def _add_v1(directory: str, options: str, controllers: dict[str, str], mounts: list[tuple[str, str]]) -> None:
    names = [
        o for o in options.split(",") if o not in ("rw", "ro", "none", "xattr", "clone_children") and "release" not in o
    ]
    fresh = [n for n in names if n not in controllers]
    for name in fresh:
        controllers[name] = directory
    if fresh:
        shown = ",".join(names)
        mounts.append((os.path.basename(directory), f"none,{shown}" if shown.startswith("name=") else shown))


_hands_down: set[str] = set()  # v1: cpuset directories whose children get a copy of their cpus and mems


def _hands_down_cpus(directory: str) -> bool:
    """Whether a new cpuset in *directory* has cpus and mems at once; asked of the kernel until it says yes."""
    if directory not in _hands_down and _read(f"{directory}/cgroup.clone_children").strip() == "1":
        _hands_down.add(directory)
    return directory in _hands_down


class CgroupError(Exception):
    """A cgroup could not be made or set; the message names the file."""

    def __init__(self, message: str, number: int | None) -> None:
        super().__init__(message)
        self.errno = number


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = [os.read(fd, _PIECE)]  # a small buffer: a large one is mapped and unmapped for each read
        while len(pieces[-1]) == _PIECE:
            pieces.append(os.read(fd, _PIECE))
        return b"".join(pieces).decode()
    finally:
        os.close(fd)


class Cgroup:
    """The cgroup *path* (``slipway/<id>``), the same name in each hierarchy."""

    def __init__(self, path: str) -> None:
        path = path.strip("/")
        if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
            raise CgroupError(f"cgroup path {path!r} is not valid", errno.EINVAL)
        self.path = path
        self._layout = layout()
        self._open: dict[str, int] = {}

    @property
    def v2(self) -> bool:
        """Whether this machine has the unified hierarchy."""
        return self._layout.v2

    # --- places -----------------------------------------------------------------------------------------------------
    def directory(self, controller: str) -> str:
        """Where *controller* (v1) has this cgroup; v2 has one place."""
        if self._layout.v2:
            return f"{self._layout.root}/{self.path}"
        return f"{self._layout.controllers[controller]}/{self.path}"

    def directories(self) -> list[str]:
        """All of its directories."""
        if self._layout.v2:
            return [f"{self._layout.root}/{self.path}"]
        return [f"{d}/{self.path}" for d in dict.fromkeys(self._layout.controllers.values())]

    def by_mount(self) -> dict[str, str]:
        """Directory name of a hierarchy below /sys/fs/cgroup -> this cgroup's directory in it (for host-like views)."""
        if self._layout.v2:
            return {"": self.directory("")}
        return {os.path.basename(d): f"{d}/{self.path}" for d in dict.fromkeys(self._layout.controllers.values())}

    def join_files(self) -> tuple[str, ...]:
        """Files that a process writes "0" into to join; on v2 ``clone3`` may be given :meth:`directory` instead."""
        name = "cgroup.procs" if self._layout.v2 else "tasks"
        return tuple(f"{d}/{name}" for d in self.directories())

    # --- life -------------------------------------------------------------------------------------------------------
    def create(self, resources: dict[str, Any]) -> None:
        """Makes it with its limits and device rules. Raises :class:`CgroupError`; nothing is left then."""
        umask = os.umask(0o022)  # programs that are not root read their limits: Java, Go, databases
        try:
            for directory in self.directories():
                self._make(directory)
            self.update(resources, fresh=True)
            self._devices(resources)
        except OSError as error:
            self.remove()
            raise CgroupError(f"cgroup {self.path}: {error.filename or ''}: {error.strerror}", error.errno) from error
        except CgroupError:
            self.remove()
            raise
        finally:
            os.umask(umask)

    def _make(self, directory: str) -> None:
        try:
            os.mkdir(directory, 0o755)
        except FileNotFoundError:
            base = directory[: -len(self.path) - 1]
            for part in self.path.split("/")[:-1]:
                self._enable(base)
                base = f"{base}/{part}"
                try:
                    os.mkdir(base, 0o755)
                except FileExistsError:
                    pass
                self._inherit_cpuset(base, hand_down=True)
            self._enable(base)
            os.mkdir(directory, 0o755)
        except FileExistsError:
            # A dead instance's, or of a start whose keeper died: two containers must not share one.
            self._clear(directory)
            os.mkdir(directory, 0o755)
        self._inherit_cpuset(directory)

    def _clear(self, directory: str) -> None:
        """Removes one directory with whoever is still on the way out of it."""
        for attempt in range(50):
            try:
                os.rmdir(directory)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or attempt == 49:
                    raise
            self.kill()
            time.sleep(0.002)

    def _enable(self, base: str) -> None:
        """v2: hands the controllers down. One that is not there or busy is left out; its limits then say so."""
        if not self._layout.v2:
            return
        for name in _V2_CONTROLLERS:
            try:
                _write(f"{base}/cgroup.subtree_control", f"+{name}")
            except OSError:
                continue

    def _inherit_cpuset(self, directory: str, *, hand_down: bool = False) -> None:
        """v1: an empty cpuset takes no process, so each level has its parent's: by copy, and from the level that
        holds containers by the kernel's own clone_children (cgroups(7)), which a start pays nothing for."""
        if self._layout.v2 or not directory.startswith(self._layout.controllers.get("cpuset", "\0") + "/"):
            return
        if not hand_down and _hands_down_cpus(directory.rpartition("/")[0]):
            return
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not _read(f"{directory}/{name}").strip():
                _write(f"{directory}/{name}", _read(f"{os.path.dirname(directory)}/{name}").strip())
        if hand_down:
            _write(f"{directory}/cgroup.clone_children", "1")
            _hands_down.add(directory)

    def exists(self) -> bool:
        """Whether any of its directories is there."""
        return any(os.path.isdir(d) for d in self.directories())

    def remove(self) -> bool:
        """Removes it with what the container made below. False: something is still in it (try again in a moment)."""
        self.close()
        gone = True
        for directory in self.directories():
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                gone = self._remove_tree(directory) and gone
        return gone

    def _remove_tree(self, directory: str) -> bool:
        for top, names, _ in os.walk(directory, topdown=False):
            for name in names:
                try:
                    os.rmdir(f"{top}/{name}")
                except OSError:
                    return False
        try:
            os.rmdir(directory)
        except OSError as error:
            return error.errno == errno.ENOENT
        return True

    # --- limits -----------------------------------------------------------------------------------------------------
    def update(self, resources: dict[str, Any], *, fresh: bool = False) -> None:
        """Sets the limits named in OCI *resources*; others stay. Raises :class:`CgroupError` naming the file."""
        writes = v2_writes(resources) if self._layout.v2 else v1_writes(resources, self._layout.controllers.keys())
        failed: list[tuple[str, str]] = []
        for controller, name, value, optional in writes:
            path = f"{self.directory(controller)}/{name}"
            try:
                _write(path, value)
            except FileNotFoundError:
                if not optional:
                    raise CgroupError(f"this kernel has no {name}", errno.ENOENT) from None
            except OSError as error:
                if fresh or error.errno not in (errno.EBUSY, errno.EINVAL):
                    raise CgroupError(f"set {name} to {value}: {error.strerror}", error.errno) from error
                failed.append((path, value))
        # memory and memory+swap must never cross: which goes first depends on whether the limit rises or falls.
        for path, value in reversed(failed):
            try:
                _write(path, value)
            except OSError as error:
                raise CgroupError(f"set {os.path.basename(path)} to {value}: {error.strerror}", error.errno) from error

    def _devices(self, resources: dict[str, Any]) -> None:
        rules = rules_of(resources)
        if rules is None or allow_all(rules):
            return
        rules = [*rules, *default_rules()]
        if self._layout.v2:
            directory = os.open(self.directory(""), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            program = sc.bpf_load_device(device_program(rules))
            try:
                sc.bpf_attach_device(directory, program)
            finally:
                os.close(program)
                os.close(directory)
        elif "devices" in self._layout.controllers:
            base = self.directory("devices")
            for name, line in v1_lines(rules):
                _write(f"{base}/{name}", line)

    # --- processes --------------------------------------------------------------------------------------------------
    def pids(self) -> list[int]:
        """All processes in it and below, as the host numbers them."""
        top = self.directory("pids" if "pids" in self._layout.controllers else "memory")
        result: list[int] = []
        for directory, _, files in os.walk(top):
            if "cgroup.procs" in files:
                try:
                    result += [int(p) for p in _read(f"{directory}/cgroup.procs").split()]
                except FileNotFoundError:
                    continue
        return result

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to every process in it."""
        if self._layout.v2 and number == signal.SIGKILL:
            try:
                _write(f"{self.directory('')}/cgroup.kill", "1")
                return
            except OSError as error:
                if error.errno == errno.ENOENT and not self.exists():
                    return
        for pid in self.pids():
            if pid > 1:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    def freeze(self) -> None:
        """Stops all of its processes (docker pause); returns when they stand still. OSError(ETIMEDOUT) after 2 s."""
        self._freeze(True)

    def thaw(self) -> None:
        """Lets them go on."""
        self._freeze(False)

    def _freeze(self, on: bool) -> None:
        if self._layout.v2:
            base = self.directory("")
            _write(f"{base}/cgroup.freeze", "1" if on else "0")
            self._until(lambda: f"frozen {int(on)}" in _read(f"{base}/cgroup.events"))
            return
        path = f"{self.directory('freezer')}/freezer.state"
        wanted = "FROZEN" if on else "THAWED"
        _write(path, wanted)
        # Reading FREEZING makes the kernel look again at tasks that were between two states.
        self._until(lambda: _read(path).strip() == wanted)

    @staticmethod
    def _until(done: Any) -> None:
        end = time.monotonic() + 2
        while not done():
            if time.monotonic() > end:
                raise OSError(errno.ETIMEDOUT, "the cgroup's processes did not change their state in time")
            time.sleep(0.0005)

    def frozen(self) -> bool:
        """Whether it is paused."""
        if self._layout.v2:
            return "frozen 1" in _read(f"{self.directory('')}/cgroup.events")
        return _read(f"{self.directory('freezer')}/freezer.state").strip() != "THAWED"

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        try:
            text = _read(f"{self.directory('')}/memory.events" if self._layout.v2
                         else f"{self.directory('memory')}/memory.oom_control")  # fmt: skip
        except (OSError, KeyError):
            return 0
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    # --- stats ------------------------------------------------------------------------------------------------------
    def stats(self) -> CgroupStats:
        """One sample; a file that this kernel lacks counts as nothing. FileNotFoundError if the cgroup is gone."""
        return sample_v2(self) if self._layout.v2 else sample_v1(self)

    def text(self, controller: str, name: str) -> str:
        """The content of one file, whose descriptor is kept for the next time; empty if there is no such file."""
        key = f"{controller}/{name}"
        fd = self._open.get(key)
        if fd is None:
            if not self._layout.v2 and controller not in self._layout.controllers:
                return ""
            try:
                fd = os.open(f"{self.directory(controller)}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return ""
            self._open[key] = fd
        try:
            return os.pread(fd, 1 << 16, 0).decode()
        except OSError as error:
            if error.errno == errno.ENODEV:  # the cgroup has been removed meanwhile
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path) from error
            raise

    def close(self) -> None:
        """Closes the kept descriptors."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


def below(path: str) -> list[str]:
    """The names of the cgroups directly below *path*, in any hierarchy."""
    found: set[str] = set()
    for directory in Cgroup(path).directories():
        try:
            found.update(entry.name for entry in os.scandir(directory) if entry.is_dir())
        except FileNotFoundError:
            continue
    return sorted(found)
