"""What the helper holds so that nothing breaks when the keeper dies: copies of its descriptors, by process.

Of each process the ends of its pipes or its terminal, and its pidfd (kernels from 6.15 on tell an exit status by it,
whoever was the parent). Of each attached client the keeper's end of its socket: the client sees no end of output, and
a new keeper goes on where the old one stopped.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from backend.runtime.protocol import ClientWish, Stdio

Key = tuple[str, str]  # container, exec ("" for the container itself)


@dataclass(slots=True, eq=False)
class Peer:
    """The keeper's end of an attached client's socket."""

    sock: socket.socket
    wish: ClientWish

    def close(self) -> None:
        """Lets the copy go; the client is not concerned."""
        self.sock.close()

    def end(self) -> None:
        """Ends the client's stream, because no keeper will serve it any more."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def left(self) -> bool:
        """Whether the client has gone."""
        poll = select.poll()
        poll.register(self.sock.fileno(), 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    def torn(self) -> bool:
        """Whether its last frame may be incomplete: the dead keeper had more for it than the socket took."""
        waiting = struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]
        return bool(waiting > self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2)


@dataclass(slots=True, eq=False)
class Copy:
    """One process's descriptors. *started*: its program was told to run (an exec that only waited ends by itself)."""

    pid: int
    stdio: Stdio
    fds: dict[str, int]
    started: bool = True
    peers: list[Peer] = field(default_factory=list)

    def close(self) -> None:
        """The process has ended, or another keeper's news of it are awaited no more."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        for peer in self.peers:
            peer.close()
        self.peers.clear()

    def sweep(self) -> None:
        """Lets go of clients that have left."""
        for peer in [one for one in self.peers if one.left()]:
            self.peers.remove(peer)
            peer.close()


class Copies:
    """All of them, by container and exec."""

    def __init__(self) -> None:
        self._all: dict[Key, Copy] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._all

    def get(self, id: str, exec_id: str = "") -> Copy | None:
        """The copy of a process's descriptors."""
        return self._all.get((id, exec_id))

    def put(self, id: str, exec_id: str, copy: Copy) -> None:
        """Holds *copy*; an older one of the same name is let go."""
        self.drop(id, exec_id)
        self._all[id, exec_id] = copy

    def drop(self, id: str, exec_id: str = "") -> None:
        """Lets go of a process's."""
        found = self._all.pop((id, exec_id), None)
        if found is not None:
            found.close()

    def renew(self, id: str, exec_id: str, pid: int, pidfd: int) -> None:
        """Another process carries an exec on than was forked for it."""
        found = self._all.get((id, exec_id))
        if found is None:
            os.close(pidfd)  # it has ended already
            return
        os.close(found.fds.pop("pidfd"))
        found.pid, found.fds["pidfd"] = pid, pidfd

    def close_stdin(self, id: str, exec_id: str) -> None:
        """The keeper has ended a process's input: our copy would keep it open."""
        found = self._all.get((id, exec_id))
        if found is not None and "stdin" in found.fds:
            os.close(found.fds.pop("stdin"))

    def items(self) -> Iterator[tuple[Key, Copy]]:
        """All, containers before their execs."""
        yield from sorted(self._all.items())

    def clear(self) -> None:
        """Lets go of everything."""
        for copy in self._all.values():
            copy.close()
        self._all.clear()
