"""Work on untrusted archives in a child that can reach nothing but the two descriptors it was given.

The child gets its own mount, network and IPC namespaces, the target directory (or an empty tmpfs) as its root, a few
capabilities, limits and no_new_privs, and answers through one socket. What it does there is written by the owner of
the images (:mod:`backend.runtime.untar`, :mod:`backend.runtime.erofs`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from backend.runtime import caps, rootfs
from backend.runtime import syscalls as sc
from backend.runtime.loop import IN, Loop
from backend.runtime.protocol import KeeperError
from backend.runtime.spawn import Machine

Answer = Callable[..., None]
# What setting owners, modes, nodes and file capabilities takes. MKNOD: whiteouts and device nodes of layers.
# SYS_ADMIN: overlay's own marks ("trusted.overlay.opaque") are in the trusted.* names, which the kernel reserves to it;
# what else it would allow is cut by the namespaces, the root and the missing descriptors.
_UNPACK = caps.mask(
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP", "CAP_SYS_ADMIN"]
)
_MEMORY = 1 << 30


class Confined:
    """Starts such children for the keeper and passes on what they answer."""

    def __init__(self, loop: Loop, machine: Machine) -> None:
        self._loop = loop
        self._machine = machine

    def unpack(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """Tar (descriptor 0) into a directory (descriptor 1)."""
        untar = importlib.import_module("backend.runtime.untar").untar  # before the fork; not kept in idle memory
        tar, target = _two(fds)
        self._run("unpack", (tar, target), answer, _UNPACK, lambda: untar(tar, target))

    def index(self, message: dict[str, Any], fds: list[int], answer: Answer) -> None:
        """EROFS index of a tar (descriptor 0) into a file (descriptor 1)."""
        build_index = importlib.import_module("backend.runtime.erofs").build_index
        tar, out = _two(fds)
        self._run("index", (tar, out), answer, 0, lambda: build_index(tar, out))

    def _run(
        self, stage: str, fds: tuple[int, int], answer: Answer, capabilities: int, work: Callable[[], Any]
    ) -> None:
        host = self._machine.capabilities
        task = _Task(fds[0], fds[1], stage == "unpack", capabilities & host, host, work)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = sc.clone3(sc.CLONE_NEWNET | sc.CLONE_NEWIPC)
            if pid == 0:
                _child(theirs, task)
        except OSError as error:
            ours.close()
            raise KeeperError(stage, "other", f"fork: {error.strerror}", error.errno) from error
        finally:
            theirs.close()
        self._loop.watch(pidfd, IN, lambda _: self._done(stage, pidfd, ours, answer))

    def _done(self, stage: str, pidfd: int, sync: socket.socket, answer: Answer) -> None:
        self._loop.forget(pidfd)
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        sync.setblocking(False)
        try:
            data = sync.recv(1 << 16)
        except BlockingIOError:
            data = b""
        finally:
            sync.close()
        if not data:
            how = f"ended by signal {result.si_status}" if result and result.si_code != os.CLD_EXITED else "ended early"
            answer(KeeperError(stage, "other", f"the confined process {how}"))
            return
        report = json.loads(data)
        answer(KeeperError.from_wire({"stage": stage, **report["error"]}) if "error" in report else report)


def _two(fds: list[int]) -> tuple[int, int]:
    if len(fds) != 2:
        raise KeeperError("confined", "bad_config", "two descriptors are needed")
    return fds[0], fds[1]


@dataclass(frozen=True, slots=True)
class _Task:
    """What one child does, with what."""

    source: int
    target: int
    into_target: bool  # the target is a directory and becomes the root
    capabilities: int
    host: int
    work: Callable[[], Any]


def _child(sync: socket.socket, task: _Task) -> NoReturn:
    try:
        gc.disable()
        _enter(sync, task)
        result = task.work()
        sync.send(json.dumps({"entries": int(result.entries), "size": int(result.size)}).encode())
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) else None
        text = (
            f"{error.filename or ''}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
        )
        report = {"reason": "other", "errno": number, "message": text or type(error).__name__}
        try:
            sync.send(json.dumps({"error": report}).encode()[: 1 << 15])
        except OSError:
            pass
    os._exit(0)


def _enter(sync: socket.socket, task: _Task) -> None:
    source, target = task.source, task.target
    strip({sync.fileno(), source, target})
    # Only a mount can become the root: a clone of the directory, made before the namespace changes, since afterwards
    # the descriptor belongs to a foreign one. It lies on /proc only until the pivot.
    tree = sc.open_tree(target, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH) if task.into_target else -1
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount(None, "/", None, sc.MS_REC | sc.MS_PRIVATE)
    if task.into_target:
        point = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        sc.move_mount(tree, point)
        os.close(point)
        os.fchdir(tree)
        os.dup2(tree, target, inheritable=False)
        os.close(tree)
    else:
        sc.mount(
            "tmpfs", "/proc", "tmpfs", sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "size=0k,nr_inodes=1"
        )
        os.chdir("/proc")
    sc.pivot_root(".", ".")
    sc.umount2(".", sc.MNT_DETACH)
    os.chdir("/")
    shed(task.capabilities, task.host)


def strip(keep: set[int]) -> None:
    """Leaves the keeper behind: no descriptor but *keep*, no module that is not loaded yet, a name of its own."""
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)  # without the keeper nobody could take the result over
    null = rootfs.null_device()
    for number in (0, 1, 2):
        os.dup2(null, number)
    sc.close_all_but({0, 1, 2, *keep})
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sc.set_name("slipway-confined")
    os.umask(0)  # modes are the archive's


def shed(capabilities: int, host: int) -> None:
    """The last step: limits, *capabilities* and no others of the *host*'s, and no way to more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    caps.CapabilitySets(capabilities, capabilities, capabilities, 0, 0).drop_bounding(host)
    sc.capset(capabilities, capabilities, 0)
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
