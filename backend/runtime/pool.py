"""Children forked ahead: a start then needs no fork of its own, which is a fifth of it.

Each waits in namespaces of its own that are the same for every container (pid, IPC, UTS) and holds no descriptor but
its end of a socket. Its mount namespace comes only with the launch: one made ahead would not see later mounts, and
would keep a layer's mount alive that the images' owner wants to take down. The keeper's end of file ends it.
"""

from __future__ import annotations

import gc
import os
import pickle
import socket
from dataclasses import dataclass, replace
from typing import NoReturn

from backend.runtime import init
from backend.runtime import syscalls as sc
from backend.runtime.launch import Launch

SIZE = 2
FLAGS = sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
MAX_LAUNCH = 128 << 10  # what a socket takes in one message with its default buffers


@dataclass(slots=True)
class Waiting:
    """A child that waits, as its parent sees it."""

    pid: int
    pidfd: int
    sync: socket.socket


def fits(launch: Launch) -> bool:
    """Whether a waiting child can become this container's first process."""
    return launch.root is not None and launch.pid_namespace < 0 and launch.flags & FLAGS == FLAGS


class Pool:
    """A few waiting children. :meth:`fill` is called when nobody waits for the keeper."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._last = b""  # the last launch, as it went over a socket: what the next children rehearse with

    def fill(self) -> None:
        """Forks up to :data:`SIZE`."""
        while len(self._waiting) < SIZE:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                pid, pidfd = sc.clone3(FLAGS)
                if pid == 0:
                    gc.disable()
                    _wait(theirs, self._last)
            except OSError:
                ours.close()
                return  # no process to be had now: starts fork for themselves, and say why if they cannot
            finally:
                theirs.close()
            self._waiting.append(Waiting(pid, pidfd, ours))

    def hand_over(self, launch: Launch) -> Waiting | None:
        """Gives *launch* to a waiting child; None if there is none that takes it."""
        fds = [*(launch.stdio if not launch.tty else ()), *(fd for fd, _ in launch.enter)]
        data = pickle.dumps(replace(launch, flags=launch.flags & ~FLAGS), pickle.HIGHEST_PROTOCOL)
        if len(data) > MAX_LAUNCH:
            return None
        self._last = data
        while self._waiting:
            child = self._waiting.pop(0)
            try:
                sc.send_fds(child.sync, data, fds)
                return child
            except OSError:
                child.sync.close()
                os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
                os.close(child.pidfd)
        return None


def _wait(sync: socket.socket, last: bytes) -> NoReturn:
    """The child: isolates itself, then blocks until it is told what to become."""
    try:
        init.leave_keeper({0, 1, 2, sync.fileno()})
        sc.set_name("slipway:waits")
        if last:
            # A rehearsal: the pages that it touches are copied from the keeper's now, and not while a start waits.
            pickle.loads(last)  # noqa: S301
            init.rehearse()
        data, fds = sc.recv_fds(sync, MAX_LAUNCH + 1)
        if not data:
            os._exit(0)
        # Pickle, because it comes from our own keeper through a socket that nobody else has ever held.
        launch = pickle.loads(data)  # noqa: S301
    except BaseException:
        os._exit(127)
    if not launch.tty:
        launch.stdio, fds = (fds[0], fds[1], fds[2]), fds[3:]
    launch.enter = tuple((fd, kind) for fd, (_, kind) in zip(fds, launch.enter, strict=True))
    init.run(launch, sync, pooled=True)
