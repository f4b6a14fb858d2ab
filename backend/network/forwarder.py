"""Carries connections by hand where the kernel cannot redirect them: IPv6 to a container that has only IPv4, and ::1.

A relay is no match for the kernel's path (which all IPv4 takes); it is here so that ``[::]:port`` and
"localhost", which many clients resolve to ::1 first, simply work. Both relays are bounded: a slow side holds the other
back (TCP), and old sessions give way (UDP).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Any

_CHUNK = 1 << 16
_UDP_SESSIONS = 1024
_UDP_IDLE = 90.0            # seconds; as long as the kernel keeps an answered UDP flow
_CONNECT = 10.0
_PIPE = 1 << 20             # bytes
_TURNS = 8                  # splices of one direction before others have the loop
_NONBLOCK = 0x02            # SPLICE_F_NONBLOCK
_F_SETPIPE_SZ = 1031


class _Direction:
    """What one side sends goes to the other through a pipe of the kernel's: no byte is copied into this process. A side
    that does not take any more holds the other back. *done* is called once: with True at the end of the data,
    with False at a fault."""

    def __init__(self, source: socket.socket, sink: socket.socket, done: Callable[[bool], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._source, self._sink, self._done = source, sink, done
        self._out, self._in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):      # a smaller pipe works too
            fcntl.fcntl(self._in, _F_SETPIPE_SZ, _PIPE)
        self._held = 0            # bytes in the pipe
        self._loop.add_reader(source.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            for _ in range(_TURNS):
                got = os.splice(self._source.fileno(), self._in, _PIPE, flags=_NONBLOCK)
                self._held += got
                if not self._flush():
                    return
                if not got:
                    self._sink.shutdown(socket.SHUT_WR)
                    self.close(whole=True)
                    return
        except BlockingIOError:
            return
        except OSError:           # either side went away: that ends both directions
            self.close()

    def _flush(self) -> bool:
        """Empty the pipe; False if the sink takes no more now."""
        try:
            while self._held:
                self._held -= os.splice(self._out, self._sink.fileno(), self._held, flags=_NONBLOCK)
        except BlockingIOError:
            self._loop.remove_reader(self._source.fileno())
            self._loop.add_writer(self._sink.fileno(), self._writable)
            return False
        return True

    def _writable(self) -> None:
        self._loop.remove_writer(self._sink.fileno())
        try:
            if self._flush():
                self._loop.add_reader(self._source.fileno(), self._readable)
        except OSError:
            self.close()

    def close(self, *, whole: bool = False) -> None:
        """End it; again: nothing."""
        if self._in < 0:
            return
        self._loop.remove_reader(self._source.fileno())
        self._loop.remove_writer(self._sink.fileno())
        os.close(self._in)
        os.close(self._out)
        self._in = self._out = -1
        self._done(whole)


class _Connection:
    """A connection of a client's with its other half. It ends when both directions have, or one at a fault."""

    def __init__(self, accepted: socket.socket, onward: socket.socket, gone: Callable[[_Connection], None]) -> None:
        self._sockets = (accepted, onward)
        self._gone, self._open = gone, 2
        self._directions: list[_Direction] = []
        try:
            for source, sink in ((accepted, onward), (onward, accepted)):
                self._directions.append(_Direction(source, sink, self._ended))
        except BaseException:      # no descriptors for a pipe
            self.close()
            raise

    def _ended(self, whole: bool) -> None:
        self._open -= 1
        if not whole:
            self.close()
        if self._open == 0:
            for one in self._sockets:
                one.close()
            self._gone(self)

    def close(self) -> None:
        """End it at once."""
        for direction in self._directions:
            direction.close()


class TcpForwarder:
    """Accepts on a listening socket and relays each connection to one address."""

    def __init__(self, listening: socket.socket, host: str, port: int) -> None:
        self._listening, self._host, self._port = listening, host, port
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._loop.add_reader(listening.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:      # out of descriptors: leave the rest in the backlog and come back
            self._loop.remove_reader(self._listening.fileno())
            self._loop.call_later(0.1, self._resume)
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._serve(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resume(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    async def _serve(self, accepted: socket.socket) -> None:
        onward = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET,
                               socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            await asyncio.wait_for(self._loop.sock_connect(onward, (self._host, self._port)), _CONNECT)
            self._connections.add(_Connection(accepted, onward, self._connections.discard))
        except (OSError, TimeoutError):      # the client sees its connection end
            accepted.close()
            onward.close()
        except BaseException:
            accepted.close()
            onward.close()
            raise

    def close(self) -> None:
        """Stop accepting and end all connections. The listening socket stays its owner's to close."""
        self._loop.remove_reader(self._listening.fileno())
        for task in self._tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.close()


class UdpForwarder:
    """Relays datagrams that arrive on a bound socket; a client's answers come back from the port it wrote to."""

    def __init__(self, bound: socket.socket, host: str, port: int) -> None:
        self._bound, self._target = bound, (host, port)
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[Any, tuple[socket.socket, asyncio.TimerHandle]] = {}
        self._loop.add_reader(bound.fileno(), self._from_client)

    def _from_client(self) -> None:
        for _ in range(64):      # then let others have the loop
            try:
                data, client = self._bound.recvfrom(_CHUNK)
            except OSError:      # nothing more to read, or an ICMP error of an earlier answer
                return
            onward = self._session(client)
            try:
                onward.send(data)
            except OSError:      # the container's port is closed or its queue full: datagrams may be lost
                continue

    def _session(self, client: Any) -> socket.socket:
        known = self._sessions.pop(client, None)
        if known is not None:
            onward = known[0]
            known[1].cancel()
        else:
            if len(self._sessions) >= _UDP_SESSIONS:
                self._drop(next(iter(self._sessions)))      # the one that has been silent longest
            onward = socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET,
                                   socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            onward.connect(self._target)
            self._loop.add_reader(onward.fileno(), self._from_container, onward, client)
        self._sessions[client] = (onward, self._loop.call_later(_UDP_IDLE, self._drop, client))
        return onward

    def _from_container(self, onward: socket.socket, client: Any) -> None:
        try:
            self._bound.sendto(onward.recv(_CHUNK), client)
        except OSError:          # refused by the container, or the client is gone: the session ages out
            return

    def _drop(self, client: Any) -> None:
        onward, timer = self._sessions.pop(client)
        timer.cancel()
        self._loop.remove_reader(onward.fileno())
        onward.close()

    def close(self) -> None:
        """Stop relaying. The bound socket stays its owner's to close."""
        self._loop.remove_reader(self._bound.fileno())
        for client in list(self._sessions):
            self._drop(client)


Forwarder = TcpForwarder | UdpForwarder


def forward(protocol: str, held: socket.socket, host: str, port: int) -> Forwarder:
    """The relay for *protocol* ("tcp" or "udp") on the socket that holds the port."""
    return UdpForwarder(held, host, port) if protocol == "udp" else TcpForwarder(held, host, port)
