"""Confined children at work on file trees: copies into and out of containers, exports, layers, backups of volumes.

A child enters the tree first and gives up what it can do second; then its root is the tree, and it holds nothing but a
socket for its report, the pipe that a tar goes through, and the capabilities that its task takes. It speaks with the
helper directly (:mod:`backend.runtime.filejob`), so that the keeper only starts and buries it.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from backend.runtime import caps, rootfs
from backend.runtime import syscalls as sc
from backend.runtime.confined import shed, strip
from backend.runtime.loop import IN, Loop
from backend.runtime.plan import BadConfig, BindMount, Overlay, bind_mounts
from backend.runtime.protocol import KeeperError
from backend.runtime.protocol import field as get
from backend.runtime.spawn import Machine

if TYPE_CHECKING:
    from backend.runtime.filetasks import Ends

Answer = Callable[..., None]
_READ = ["CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
# A layer's marks are in overlayfs' trusted.* names, which the kernel shows to SYS_ADMIN only.
_CAPABILITIES = {
    "stat": caps.mask(_READ),
    "pack": caps.mask(_READ),
    "user": caps.mask(_READ),
    "export": caps.mask([*_READ, "CAP_SYS_ADMIN"]),
    "extract": caps.mask([*_READ, "CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP"]),
}
_OWN_NAMESPACES = sc.CLONE_NEWNET | sc.CLONE_NEWIPC


@dataclass(frozen=True, slots=True)
class ContainerView:
    """A running container's files as it sees them; with *own*, its root file system without what is mounted on it."""

    pidfd: int
    namespaces: int
    own: bool

    def enter(self) -> None:
        """Joins its mount namespace (and user namespace, where it has one), and nothing else of it."""
        try:
            sc.setns(self.pidfd, self.namespaces)
        except ProcessLookupError as error:
            raise KeeperError("files", "not_running", "the container has just ended", error.errno) from error
        if self.namespaces & sc.CLONE_NEWUSER:
            os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if self.own:
            _root_on(sc.open_tree(sc.AT_FDCWD, "/", sc.OPEN_TREE_CLONE))
        os.close(self.pidfd)


@dataclass(frozen=True, slots=True)
class LayersView:
    """A stopped container's files: its layers, mounted on *point* in a namespace of the child's, with *mounts* in them.

    Without an upper directory in *overlay* the child only looks: what the mounts need is made in memory.
    """

    overlay: Overlay
    mounts: tuple[BindMount, ...]
    read_only: bool
    point: str

    def enter(self) -> None:
        """Mounts, and leaves the host's tree."""
        sc.unshare(sc.CLONE_NEWNS)
        sc.mount(None, "/", None, sc.MS_REC | sc.MS_PRIVATE)
        overlay = self.overlay if self.overlay.upper else self._in_memory()
        plan = rootfs.overlay_plan(self.point, overlay)
        root = rootfs.mount_root(plan)
        for one in self.mounts:
            rootfs.bind_mount(root, self.point, one)
        rootfs.pivot(root)
        os.close(root)
        if self.read_only:
            rootfs.read_only_root()

    def _in_memory(self) -> Overlay:
        sc.mount("tmpfs", self.point, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "size=1m,mode=700")
        for name in ("upper", "work", "root"):
            os.mkdir(f"{self.point}/{name}", 0o755)
        seen = os.stat(self.overlay.lower[0])
        os.chown(f"{self.point}/upper", seen.st_uid, seen.st_gid)
        os.chmod(f"{self.point}/upper", stat.S_IMODE(seen.st_mode))
        os.utime(f"{self.point}/upper", ns=(seen.st_atime_ns, seen.st_mtime_ns))
        return Overlay(self.overlay.lower, f"{self.point}/upper", f"{self.point}/work")


@dataclass(frozen=True, slots=True)
class DirectoryView:
    """A directory that the helper has opened: a volume, an upper directory."""

    fd: int

    def enter(self) -> None:
        """Makes a clone of it the root, so that nothing that is moved out of it leads out."""
        _root_on(sc.open_tree(self.fd, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH))
        os.close(self.fd)


View = ContainerView | LayersView | DirectoryView


def _root_on(tree: int) -> None:
    """*tree*, which stays open (it is mounted nowhere else), as root and working directory."""
    os.fchdir(tree)
    os.chroot(".")


class Files:
    """Starts such children for the keeper."""

    def __init__(self, loop: Loop, machine: Machine, exec_root: str) -> None:
        self._loop = loop
        self._machine = machine
        self._point = f"{exec_root}/view"

    def start(self, message: dict[str, Any], fds: list[int], answer: Answer, pidfd: int, namespaces: int) -> None:
        """Request FILES: a report socket, a pipe if ``data``, a directory if ``directory``, the socket of an upload if
        ``socket``. *pidfd* and *namespaces*: of the running container that is meant, -1 for none. Answers with the
        child's pidfd."""
        task = get(message, "task", "dict")
        names = [name for name in ("data", "directory", "socket") if message.get(name)]
        named = dict(zip(names, fds[1:], strict=False))
        if task.get("kind") not in _CAPABILITIES or len(fds) != 1 + len(names):
            raise KeeperError("files", "bad_config", "the task is not known, or descriptors are missing")
        view = self._view(message, named.get("directory", -1), pidfd, namespaces)
        tasks = importlib.import_module("backend.runtime.filetasks")  # before the fork: the child imports nothing
        ends = tasks.Ends(named.get("data", -1), named.get("socket", -1))
        work = _Work(view, tasks.run, task, fds[0], ends, self._machine.capabilities)
        try:
            pid, child = sc.clone3(_OWN_NAMESPACES)
        except OSError as error:
            raise KeeperError("files", "other", f"fork: {error.strerror}", error.errno) from error
        if pid == 0:
            _child(work)
        self._loop.watch(child, IN, lambda _: self._bury(child))
        answer({"pid": pid}, [child])

    def _bury(self, child: int) -> None:
        self._loop.forget(child)
        os.waitid(os.P_PIDFD, child, os.WEXITED)
        os.close(child)

    def _view(self, message: dict[str, Any], directory: int, pidfd: int, namespaces: int) -> View:
        if directory >= 0:
            return DirectoryView(directory)
        if pidfd >= 0:
            wanted = sc.CLONE_NEWNS | (namespaces & sc.CLONE_NEWUSER)
            return ContainerView(pidfd, wanted, bool(message.get("own")))
        given = get(message, "overlay", "dict")
        try:
            mounts = bind_mounts(message.get("mounts") or [])
            overlay = Overlay(tuple(given["lower"]), given["upper"], given["work"])
            os.makedirs(self._point, 0o700, exist_ok=True)
        except BadConfig as error:
            raise KeeperError("files", "bad_config", str(error)) from error
        except OSError as error:
            raise KeeperError("files", "other", f"{self._point}: {error.strerror}", error.errno) from error
        return LayersView(overlay, mounts, bool(message.get("read_only")), self._point)


@dataclass(frozen=True, slots=True)
class _Work:
    """What one child does. *report*: a descriptor; *ends*: of its tar; *host*: the machine's capabilities."""

    view: View
    run: Callable[..., None]
    task: dict[str, Any]
    report: int
    ends: Ends
    host: int

    def kept(self) -> set[int]:
        """The descriptors that it needs."""
        extra = (getattr(self.view, "pidfd", -1), getattr(self.view, "fd", -1))
        return {fd for fd in (self.report, self.ends.pipe, self.ends.socket, *extra) if fd >= 0}


def _child(work: _Work) -> NoReturn:
    def tell(message: dict[str, Any]) -> None:
        os.write(work.report, json.dumps(message).encode()[: 1 << 16])

    try:
        gc.disable()
        strip(work.kept())
        work.view.enter()
        os.chdir("/")
        shed(_CAPABILITIES[work.task["kind"]] & work.host, work.host)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        work.run(work.task, root, work.ends, tell)
    except BrokenPipeError:
        pass  # the helper wants no more of it
    except BaseException as error:
        _confess(error, tell)
    os._exit(0)


def _confess(error: BaseException, tell: Callable[[dict[str, Any]], None]) -> None:
    """Tells of what went wrong; :class:`backend.runtime.filetasks.TaskFailed` brings its reason along."""
    text, name, number = str(error), "", getattr(error, "errno", None)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    reason = getattr(error, "reason", "no_such" if number == errno.ENOENT else "other")
    message = name + (text or type(error).__name__)
    try:
        tell({"error": {"stage": "files", "reason": reason, "errno": number, "message": message}})
    except OSError:
        pass
