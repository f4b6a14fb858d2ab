"""Large uploads, whose socket is handed to the process that needs what comes through it.

A body that goes through the HTTP parser, the helper's memory and a pipe costs more than what is done with it. So the
bytes behind the head of such a request are kept from the parser until it is known who reads them: a confined child, by
the socket itself, or the parser after all (another route, a compressed archive, a refusal before the first byte).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from backend.images.inflate import Inflater
from backend.runtime.filejob import Upload

if TYPE_CHECKING:
    from helper.call import Call
    from helper.server import Protocol

_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*\r\n")
_MAGIC = 6                 # bytes that tell a compression
_PEEK = 1 << 16


def head_of_upload(data: bytes) -> int:
    """Where the body begins in a request's first bytes, if it is the upload of an archive to a container; else -1."""
    if not data.startswith(b"PUT ") or b"/archive?" not in data[:data.find(b"\r\n")]:
        return -1
    end = data.find(b"\r\n\r\n")
    return end + 4 if end >= 0 else -1


@contextmanager
def _descriptor(call: Call) -> Iterator[socket.socket | None]:
    """The client's socket, by a descriptor of our own."""
    transport = call.http.transport
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        yield None
        return
    sock = socket.socket(fileno=os.dup(found.fileno()))
    try:
        yield sock
    finally:
        sock.close()


def _framing(call: Call) -> int:
    """The body's length in bytes; -1 chunked, -2 neither."""
    headers = call.http.headers
    if headers.get("Transfer-Encoding", "").strip().lower() == "chunked":
        return -1
    length = headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 18 else -2


class Taking:
    """An upload for whose body somebody else is wanted. Use as an asynchronous context manager: gives an
    :class:`Upload`, or None where the parser must read it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._protocol = cast("Protocol", call.http.protocol)
        self._sock: socket.socket | None = None

    async def __aenter__(self) -> Upload | None:
        made = await self._take() if self._protocol.held is not None else None
        if made is None:
            self._protocol.release()
        return made

    async def _take(self) -> Upload | None:
        length = _framing(self._call)
        with _descriptor(self._call) as sock:
            if sock is None or length == -2 or not await self._is_plain(sock, length):
                return None
            self._sock = socket.socket(fileno=os.dup(sock.fileno()))     # dup() of the module would make it blocking
        return Upload(self._sock.fileno(), self._protocol.held or b"", length, self._protocol.give_away)

    async def _is_plain(self, sock: socket.socket, length: int) -> bool:
        """Whether the contents begin as no compressed stream does; reads as much of them as that takes."""
        loop = asyncio.get_running_loop()
        while (head := _contents(self._protocol.held or b"", length)) is None:
            more = await loop.sock_recv(sock, _PEEK)
            if not more:
                return False
            self._protocol.held = (self._protocol.held or b"") + more
        inflater = Inflater()
        list(inflater.feed(head))
        return len(head) == _MAGIC and not inflater.compressed

    async def __aexit__(self, *_: object) -> None:
        if self._sock is not None:
            self._sock.close()


def _contents(raw: bytes, length: int) -> bytes | None:
    """The first bytes of a body's contents (fewer than :data:`_MAGIC` where it has no more, or in a first chunk that
    is too small to be of interest), or None: more of it is needed."""
    if length >= 0:
        wanted = min(_MAGIC, length)
        return raw[:wanted] if len(raw) >= wanted else None
    found = _CHUNK.match(raw)
    if found is None:
        return None if len(raw) < 64 else b""
    wanted = min(_MAGIC, int(found[1], 16))
    contents = raw[found.end():found.end() + wanted]
    return contents if len(contents) == wanted else None
