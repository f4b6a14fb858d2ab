"""Children forked ahead: a start then needs no fork of its own, which is a fifth of it.

They are forked by the *nursery*, a copy of the keeper made once, as the keeper's own children (CLONE_PARENT). The
keeper itself does not fork for them: a fork makes every page of the parent read-only, and a keeper that had just
forked would copy some 250 of them, one fault each, while the next start waits.

Each child waits in namespaces of its own that are the same for every container (pid, IPC, UTS) and holds no descriptor
but its end of a socket. Its mount namespace comes only with the launch: one made ahead would not see later mounts, and
would keep a layer's mount alive that the images' owner wants to take down. The keeper's end of file ends both.
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
from backend.runtime.loop import IN, Loop

SIZE = 2
FLAGS = sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
MAX_LAUNCH = 128 << 10  # what a socket takes in one message with its default buffers
_FORK = b"F"


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
        self._loop: Loop | None = None
        self._waiting: list[Waiting] = []
        self._asked = 0  # children that the nursery has yet to hand over
        self._nursery: Waiting | None = None
        self._last = b""  # the last launch, as it went over a socket: what the next children rehearse with

    def open(self, loop: Loop) -> None:
        """From now on children are forked ahead, the first when *loop* runs."""
        self._loop = loop
        loop.later(0, self.fill)

    def fill(self) -> None:
        """Has children forked until :data:`SIZE` wait. They come when the nursery has made them."""
        if self._nursery is None and not self._start_nursery():
            return  # no process to be had now: starts fork for themselves, and say why if they cannot
        assert self._nursery is not None
        while len(self._waiting) + self._asked < SIZE:
            try:
                self._nursery.sync.send(_FORK + self._last)
            except OSError:
                self._bury_nursery()
                return
            self._asked += 1

    def close(self) -> None:
        """Lets the waiting children and the nursery go; :meth:`fill` makes others."""
        self._bury_nursery()
        waiting, self._waiting = self._waiting, []
        for child in waiting:
            _bury(child)

    def hand_over(self, launch: Launch) -> Waiting | None:
        """Gives *launch* to a waiting child; None if there is none that takes it."""
        fds = [*(launch.stdio if not launch.tty else ()), *(fd for fd, _ in launch.enter)]
        data = pickle.dumps(replace(launch, flags=launch.flags & ~FLAGS), pickle.HIGHEST_PROTOCOL)
        if len(data) > MAX_LAUNCH:
            return None
        self._last = data
        self._collect()
        while self._waiting:
            child = self._waiting.pop(0)
            try:
                sc.send_fds(child.sync, data, fds)
                return child
            except OSError:
                _bury(child)
        return None

    # --- the nursery, from outside ----------------------------------------------------------------------------------
    def _start_nursery(self) -> bool:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid, pidfd = sc.clone3(0)
            if pid == 0:
                gc.disable()
                _nurse(theirs)
        except OSError:
            ours.close()
            return False
        finally:
            theirs.close()
        ours.setblocking(False)
        self._nursery, self._asked = Waiting(pid, pidfd, ours), 0
        if self._loop is not None:
            self._loop.watch(ours.fileno(), IN, lambda _: self._collect())
        return True

    def _collect(self) -> None:
        """Takes the children that the nursery has made since."""
        while self._nursery is not None:
            try:
                data, fds = sc.recv_fds(self._nursery.sync, 16)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._bury_nursery()
                return
            self._asked -= 1
            if fds:  # without: it could not fork just now
                self._waiting.append(Waiting(int(data), fds[0], socket.socket(fileno=fds[1])))

    def _bury_nursery(self) -> None:
        """It has died; the next :meth:`fill` makes another."""
        if self._nursery is not None and self._loop is not None:
            self._loop.forget(self._nursery.sync.fileno())
        if self._nursery is not None:
            _bury(self._nursery)
        self._nursery, self._asked = None, 0


def _bury(child: Waiting) -> None:
    child.sync.close()
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
    os.close(child.pidfd)


# --- the nursery, from inside ---------------------------------------------------------------------------------------
def _nurse(sync: socket.socket) -> NoReturn:
    """Forks one waiting child a message until the keeper is gone."""
    try:
        init.leave_keeper({0, 1, 2, sync.fileno()})
        sc.set_name("slipway:forks")
        while True:
            data, _ = sc.recv_fds(sync, MAX_LAUNCH + 2)
            if not data:
                os._exit(0)
            _bear(sync, data[len(_FORK) :])
    except BaseException:
        os._exit(127)


def _bear(sync: socket.socket, last: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid, pidfd = sc.clone3(FLAGS | sc.CLONE_PARENT)
        if pid == 0:
            _wait(theirs, last)
    except OSError:
        ours.close()
        sync.send(b"0")  # no descriptors: there is no process to be had now
        return
    finally:
        theirs.close()
    sc.send_fds(sync, str(pid).encode(), [pidfd, ours.fileno()])
    os.close(pidfd)
    ours.close()


def _wait(sync: socket.socket, last: bytes) -> NoReturn:
    """The child: isolates itself, then blocks until it is told what to become."""
    try:
        init.leave_keeper({0, 1, 2, sync.fileno()})
        sc.set_name("slipway:waits")
        if last:
            # A rehearsal: the pages that it touches are copied now, and not while a start waits.
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
