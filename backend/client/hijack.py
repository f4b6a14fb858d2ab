"""A connection that attach or exec has taken over: bytes both ways, and a half-close.

aiohttp's client cannot end its own direction and go on reading, which is how the end of stdin is told. So the upgrade
is spoken here, on a plain asyncio connection; it is four lines of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from backend.client.connection import API_VERSION, explained, refusal
from backend.spec.api.wire import encode

_HEAD_LIMIT = 1 << 16
_FRAME = 8


class Stream:
    """The streams of a container or exec. ``tty`` says whether the bytes are raw or in Docker's frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, multiplexed: bool) -> None:
        self._reader = reader
        self._writer = writer
        self.tty = not multiplexed

    async def read(self) -> tuple[int, bytes] | None:
        """The next output as (1 for stdout or 2 for stderr, bytes); None at the end. A terminal has only stdout."""
        if self.tty:
            data = await self._reader.read(1 << 16)
            return (1, data) if data else None
        try:
            head = await self._reader.readexactly(_FRAME)
            return head[0], await self._reader.readexactly(int.from_bytes(head[4:8], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while (piece := await self.read()) is not None:
            yield piece

    async def write(self, data: bytes) -> None:
        """Bytes for stdin; waits while the container does not take them."""
        self._writer.write(data)
        await self._writer.drain()

    async def close_write(self) -> None:
        """The end of stdin; output goes on."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    def close(self) -> None:
        """Leaves: the container runs on."""
        self._writer.close()


async def hijack(path: str, target: str, *, body: Any = None, tty: bool | None = None) -> Stream:
    """POST *target* on the socket *path* and take the connection over. *tty* None: the answer's content type tells.

    Raises:
        EngineError: the engine refused.
    """
    data = b"" if body is None else encode(body)
    head = (
        f"POST /v{API_VERSION}{target} HTTP/1.1\r\nHost: slipway\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    with explained(path):
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
        try:
            writer.write(head.encode() + data)
            answer = await reader.readuntil(b"\r\n\r\n")
            status, headers = _parse(answer)
            if status not in (101, 200):
                raise refusal(status, await _body(reader, headers))
        except asyncio.IncompleteReadError as error:
            writer.close()
            raise ConnectionResetError("before it answered") from error
        except BaseException:
            writer.close()
            raise
    multiplexed = (
        headers.get("content-type", "") == "application/vnd.docker.multiplexed-stream" if tty is None else not tty
    )
    return Stream(reader, writer, multiplexed)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        if "content-length" not in headers:
            return await reader.read(_HEAD_LIMIT)
        return await reader.readexactly(min(int(headers["content-length"]), _HEAD_LIMIT))
    out = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        out += (await reader.readexactly(size + 2))[:-2]
    return out


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return int(first.split(" ", 2)[1]), headers
