"""One request to a plug-in: HTTP/1.1, POST of JSON, a connection each.

By hand, on the helper's loop: a general HTTP client would cost every helper 6 MB for programs that few machines have.
What a plug-in sends is bounded in size and time and is believed in nothing else.
"""

from __future__ import annotations

import asyncio
import ssl

from backend.plugins.discovery import Address, Tls

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
LARGEST = 16 << 20           # bytes of an answer
_HEAD = 64 << 10


class PluginFault(Exception):
    """The plug-in answered nonsense, or not at all. ``refused``: nobody listened, so that nothing can have happened."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


async def post(address: Address, method: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """POST *body* to ``/method``; (status, body of the answer). PluginFault where that cannot be had."""
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(address, method, body)
    except TimeoutError:
        raise PluginFault(f"it did not answer {method} within {seconds:g} s") from None


async def _exchange(address: Address, method: str, body: bytes) -> tuple[int, bytes]:
    try:
        reader, writer = await _connect(address)
    except OSError as problem:
        raise PluginFault(f"nobody answers at {address}: {problem.strerror or problem}", refused=True) from problem
    try:
        head = (f"POST /{method} HTTP/1.1\r\nHost: plugin\r\nUser-Agent: Slipway\r\nAccept: {CONTENT_TYPE}\r\n"
                f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n")
        writer.write(head.encode() + body)
        await writer.drain()
        return await _answer(reader)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as problem:
        what = "it closed the connection" if isinstance(problem, EOFError) else str(problem)
        raise PluginFault(f"its answer to {method} cannot be read: {what}") from problem
    finally:
        writer.close()


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.path:
        return await asyncio.open_unix_connection(address.path, limit=_HEAD)
    secure = await asyncio.to_thread(_context, address.tls) if address.tls is not None else None
    return await asyncio.open_connection(address.host, address.port, ssl=secure, limit=_HEAD)


def _context(tls: Tls) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=tls.ca or None)
    if tls.insecure:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if tls.cert:
        made.load_cert_chain(tls.cert, tls.key or None)
    return made


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, _, rest = head[0].partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ValueError(f"no HTTP: {head[0][:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if rest.startswith("1"):
        return await _answer(reader)
    return int(rest[:3]), await _body(reader, headers)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader)
    length = headers.get("content-length", "")
    if length:
        if not (length.isascii() and length.isdigit()) or int(length[:12]) > LARGEST:
            raise ValueError(f"a body of {length[:40]} bytes")
        return await reader.readexactly(int(length))
    found = bytearray()
    while piece := await reader.read(1 << 16):
        found += piece
        if len(found) > LARGEST:
            raise ValueError(f"a body of more than {LARGEST} bytes")
    return bytes(found)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0].strip()[:8] or b"x", 16)
        if size < 0 or len(found) + size > LARGEST:
            raise ValueError(f"a body of more than {LARGEST} bytes")
        if not size:
            return bytes(found)
        found += await reader.readexactly(size)
        await reader.readexactly(2)
