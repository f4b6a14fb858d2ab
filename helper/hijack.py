"""A connection taken over by attach or exec: bytes both ways between the client and a session's socket.

The client may end its direction early (docker does at once when it has no stdin): that is the end of stdin, not of
the session. The session ends when the container's output does, when the client is gone, or by the detach keys.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import select
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from helper import web
from helper.call import MULTIPLEXED, RAW_STREAM, Call

if TYPE_CHECKING:
    from backend.engine.streams import Session

log = logging.getLogger("slipway.api")
_PIECE = 1 << 16
_HIGH, _LOW = 1 << 18, 1 << 16        # bytes of stdin that wait before the client is held up, and go on
_HEAD_PATIENCE = 0.25                 # seconds for the client to read the head of its answer
_LOOK = 30.0                          # seconds between looks whether a client that ended its direction is still there


class Hijacked(web.StreamResponse):
    """The answer that has been given already: aiohttp has nothing more to write."""

    async def prepare(self, request: web.BaseRequest) -> Any:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Tail:
    """Takes what aiohttp had read beyond the request's head."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The end is told to the protocol that has taken over."""


class DetachKeys:
    """Finds a key sequence in what is typed, also when it comes in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What may be passed on, and whether the sequence is complete. A part of it that led nowhere is passed on."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[:self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False


class _Protocol(asyncio.Protocol):
    """The client's end after the take-over."""

    def __init__(self, transport: asyncio.Transport, wire: socket.socket, keys: DetachKeys | None,
                 stdin: bool, before: asyncio.Protocol) -> None:
        self._transport = transport
        self._wire = wire
        self._keys = keys
        self._stdin = stdin
        self._before = before
        self._waiting = bytearray()
        self._writing = False
        self._ended = False
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self.writable = asyncio.Event()
        self.writable.set()
        self.gone = asyncio.Event()
        self.detached = False

    # -- from the client -----------------------------------------------------------------------------------------
    def data_received(self, data: bytes) -> None:
        if not self._stdin or self._ended:
            return
        if self._keys is not None:
            data, detach = self._keys.feed(data)
            if detach:
                self.detached = True
                self.gone.set()
        self._waiting += data
        self._flush()

    def eof_received(self) -> bool:
        self._ended = True
        self._flush()
        self._loop.call_later(_LOOK, self._look)
        return True             # the other direction goes on

    def _look(self) -> None:
        """A client that has closed both directions says so only in the socket's state, not in an event of the loop."""
        if self.gone.is_set():
            return
        sock = self._transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            self.gone.set()
        else:
            self._loop.call_later(_LOOK, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self.writable.set()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # -- to the session ------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        if self._wire.fileno() < 0:
            return
        try:
            while self._waiting:
                sent = self._wire.send(self._waiting)
                del self._waiting[:sent]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._wire, self._flush)
            if len(self._waiting) > _HIGH and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            return
        except OSError:
            self._waiting.clear()           # the container takes no more input
            self._stdin = False
        self._stop_writing()
        if self._paused and len(self._waiting) < _LOW:
            self._paused = False
            self._transport.resume_reading()
        if self._ended:
            try:
                self._wire.shutdown(socket.SHUT_WR)
            except OSError:
                return                      # the other side has ended first

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._wire)

    def close(self) -> None:
        """The session is over."""
        self._stop_writing()


def head(call: Call, tty: bool) -> bytes:
    """The answer's head: 101 for a client that asks for an upgrade, 200 for old ones."""
    kind = RAW_STREAM if tty or call.version < (1, 42) else MULTIPLEXED
    if call.http.headers.get("Upgrade"):
        return (f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                "Api-Version: 1.51\r\nDocker-Experimental: false\r\nOstype: linux\r\n\r\n").encode()
    return f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n\r\n".encode()


async def hijack(call: Call, session: Session, *, stdin: bool, keys: bytes = b"",
                 detached: Callable[[], None] | None = None) -> web.StreamResponse:
    """Answer *call* with the streams of *session* until one side has done."""
    transport = call.http.transport
    before = call.http.protocol
    if transport is None:
        session.close()
        raise ConnectionResetError("the client is gone")
    transport.write(head(call, session.tty))
    tail = _Tail()
    before.set_parser(tail)  # type: ignore[arg-type]  # whatever has feed_data and feed_eof
    before.close()                          # no further request on this connection
    try:
        if session.history is not None:
            await _head_taken(transport)
            async for piece in session.history:
                transport.write(piece)
        if session.socket is not None:
            watch = DetachKeys(keys) if keys and stdin else None
            protocol = _Protocol(transport, session.socket, watch, stdin, before)
            transport.set_protocol(protocol)
            if tail.data:
                protocol.data_received(tail.data)
            await _pump(session.socket, transport, protocol)
            protocol.close()
            if protocol.detached and detached is not None:
                detached()
    finally:
        session.close()
        transport.close()
    return Hijacked(status=101)


async def _head_taken(transport: asyncio.Transport) -> None:
    """Wait, for a moment at most, until the client has read the answer's head.

    docker-py reads the head through a buffer and the rest from the socket: what comes along with the head is lost to
    it. A program that starts in milliseconds would lose its first lines that way.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return
    end = time.monotonic() + _HEAD_PATIENCE
    while transport.get_write_buffer_size() or _unread(sock.fileno()):
        if time.monotonic() > end or transport.is_closing():
            return
        await asyncio.sleep(0.001)


def _unread(fd: int) -> int:
    """Bytes that the other end of a UNIX socket has not read yet."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


async def _pump(wire: socket.socket, transport: asyncio.Transport, protocol: _Protocol) -> None:
    """Output to the client until there is no more, or nobody to take it."""
    loop = asyncio.get_running_loop()
    gone = asyncio.ensure_future(protocol.gone.wait())
    first = True
    try:
        while True:
            reading = asyncio.ensure_future(loop.sock_recv(wire, _PIECE))
            await asyncio.wait((reading, gone), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await asyncio.wait((reading,))
                return
            try:
                data = reading.result()
            except OSError as error:
                log.debug("a session ended: %s", error)
                return
            if not data or protocol.gone.is_set():
                return
            if first:
                first = False
                await _head_taken(transport)
            transport.write(data)
            if not protocol.writable.is_set():
                await protocol.writable.wait()
    finally:
        gone.cancel()
