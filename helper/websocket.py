"""Attach over a WebSocket: what a page in a browser can use. Binary messages, the streams without frames."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from backend.errors import InvalidArgument
from backend.streams import Unframer
from helper import web
from helper.call import Call

if TYPE_CHECKING:
    from backend.engine.streams import Session

_PIECE = 1 << 16


async def serve(call: Call, session: Session, *, stdin: bool) -> web.StreamResponse:
    """Answer *call* with the streams of *session* until one side has done."""
    wire = web.websocket(1 << 20)
    try:
        if not wire.can_prepare(call.http):
            raise InvalidArgument("a WebSocket is expected here: the request asks for no upgrade to one")
        await wire.prepare(call.http)
        plain = _Plain(session.tty)
        if session.history is not None:
            async for piece in session.history:
                await plain.send(wire, piece)
        if session.socket is not None:
            await _both_ways(wire, session.socket, plain, stdin)
        await wire.close()
    finally:
        session.close()
    return wire


class _Plain:
    """Output as it goes to a page: a terminal's as it is, other streams out of their frames."""

    def __init__(self, tty: bool) -> None:
        self._frames = None if tty else Unframer()

    async def send(self, wire: web.WebSocketResponse, data: bytes) -> None:
        """Pass *data* on."""
        if self._frames is None:
            await wire.send_bytes(data)
            return
        for _, content in self._frames.feed(data):
            await wire.send_bytes(content)


async def _both_ways(wire: web.WebSocketResponse, sock: socket.socket, plain: _Plain, stdin: bool) -> None:
    output = asyncio.ensure_future(_output(wire, sock, plain))
    typed = asyncio.ensure_future(_typed(wire, sock, stdin))
    try:
        await asyncio.wait((output, typed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in (output, typed):
            one.cancel()
        await asyncio.wait((output, typed))


async def _output(wire: web.WebSocketResponse, sock: socket.socket, plain: _Plain) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(sock, _PIECE):
            await plain.send(wire, data)
    except OSError:
        return                              # the page or the container is gone


async def _typed(wire: web.WebSocketResponse, sock: socket.socket, stdin: bool) -> None:
    """What the page sends, to the program; ends when the page leaves."""
    loop = asyncio.get_running_loop()
    async for message in wire:
        data = message.data.encode() if isinstance(message.data, str) else message.data
        if stdin and isinstance(data, bytes):
            try:
                await loop.sock_sendall(sock, data)
            except OSError:
                stdin = False               # the program takes no more input; its output goes on
