"""One request as the routers see it, and the shapes of answers."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from backend.errors import EngineError, InvalidArgument, TooLarge
from backend.spec.api.wire import decode_body
from backend.spec.filters import Filters
from helper import web

if TYPE_CHECKING:
    from backend.engine.engine import Engine

T = TypeVar("T")
log = logging.getLogger("slipway.api")
#: A JSON body beyond this is refused; the largest real ones are some hundred kilobytes.
BODY_LIMIT = 16 << 20
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class Call:
    """A request: the engine it is for, the HTTP request, what the path's pattern matched, the API version it speaks."""

    engine: Engine
    http: web.BaseRequest
    path: Mapping[str, str]
    version: tuple[int, int]
    _read: bytes | None = None

    @property
    def query(self) -> Mapping[str, str]:
        return self.http.query

    def filters(self) -> Filters:
        """Raises :class:`InvalidArgument` for what is no filter."""
        return Filters.parse(self.http.query.get("filters"))

    async def body(self) -> bytes:
        """The whole body, bounded; the same bytes whoever asks again. Raises :class:`TooLarge`."""
        if self._read is None:
            self._read = await self._bounded()
        return self._read

    async def _bounded(self) -> bytes:
        length = self.http.content_length
        if length is not None and length > BODY_LIMIT:
            raise TooLarge(f"the body has {length} bytes; at most {BODY_LIMIT} are taken here")
        pieces, size = [], 0
        async for piece in self.http.content.iter_any():
            size += len(piece)
            if size > BODY_LIMIT:
                raise TooLarge(f"the body is larger than {BODY_LIMIT} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def json(self, kind: type[T], *, optional: bool = False) -> T:
        """The body as *kind*; *optional*: none at all means its defaults. Raises :class:`InvalidArgument`."""
        data = await self.body()
        if optional and not data:
            return kind()
        if data and self.http.content_type not in ("application/json", "application/octet-stream", "text/plain"):
            raise InvalidArgument(f"unsupported Content-Type header ({self.http.content_type}): "
                                  "must be 'application/json'")
        return decode_body(data, kind)

    async def upload(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come."""
        if self._read is not None:
            yield self._read
            return
        async for piece in self.http.content.iter_any():
            yield piece


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """An operation. *abortable*: it ends with its client (streams, waits); others are carried through. *streams*: its
    body is an archive of any size, read as it comes; *takes_socket*: another process may read it (takeover.py)."""

    method: str
    pattern: str
    handler: Handler
    abortable: bool = False
    streams: bool = False
    takes_socket: bool = False

    def compiled(self) -> re.Pattern[str]:
        """``{name}`` matches a part of the path, ``{name:path}`` also with slashes in it."""
        pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", self.pattern)
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern))


def answer(value: Any, status: int = 200) -> web.Response:
    """*value* as JSON."""
    return web.Response(body=_encoder.encode(value), status=status, content_type="application/json")


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)


def refusal(error: EngineError) -> web.Response:
    """An error as clients read it; 304 has no body."""
    if error.status == 304:
        return web.Response(status=304)
    return answer({"message": error.message}, error.status)


async def stream(call: Call, content_type: str, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """An answer that grows, its head sent at once."""
    out = web.StreamResponse(headers={"Content-Type": content_type})
    await out.prepare(call.http)
    try:
        async for piece in pieces:
            await out.write(piece)
    finally:
        if isinstance(pieces, AsyncGenerator):  # what it holds is let go now, not when it is collected
            await pieces.aclose()
    await out.write_eof()
    return out


async def progress_stream(call: Call, work: Callable[[Callable[[Any], None]], Awaitable[Any]], *,
                          always: bool = False) -> web.StreamResponse:
    """JSON lines that *work* tells. A failure before the first line is an ordinary error, later (and *always*, where
    clients look for it there) one of the lines."""
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def tell(line: Any) -> None:
        lines.put_nowait(_encoder.encode(line.wire()) + b"\r\n")

    task = asyncio.ensure_future(work(tell))
    task.add_done_callback(lambda _: lines.put_nowait(None))
    out: web.StreamResponse | None = None
    try:
        while (line := await lines.get()) is not None:
            if out is None:
                out = web.StreamResponse(headers={"Content-Type": "application/json"})
                await out.prepare(call.http)
            batch = [line]
            while not lines.empty() and (more := lines.get_nowait()) is not None:
                batch.append(more)
            await out.write(b"".join(batch))
            if task.done() and lines.empty():
                break
        await task
    except Exception as error:
        if isinstance(error, ConnectionError) or (out is None and not always):
            raise
        if out is None:
            out = web.StreamResponse(headers={"Content-Type": "application/json"})
            await out.prepare(call.http)
        if not isinstance(error, EngineError):
            log.exception("%s %s failed", call.http.method, call.http.path)
        fault = "the engine met a fault of its own; its log says more"
        text = error.message if isinstance(error, EngineError) else fault
        await out.write(_encoder.encode({"errorDetail": {"message": text}, "error": text}) + b"\r\n")
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if out is None:
        return web.Response(status=200, content_type="application/json")
    await out.write_eof()
    return out
