"""The contents of volumes: ``/slipway/volumes/{name}/…`` (docs/api.md)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import cast
from urllib.parse import quote

from backend.engine.threads import to_the_end
from backend.engine.volumefiles import Compression
from backend.errors import EngineError, InvalidArgument
from backend.spec import api
from backend.volumes.browse import Reader
from helper import web
from helper.call import Call, Route, answer, empty
from helper.params import boolean, integer

log = logging.getLogger("slipway.api")
_LARGEST_PAGE = 10_000
_TYPES = {"none": ("application/x-tar", ".tar"), "gzip": ("application/gzip", ".tar.gz"),
          "zstd": ("application/zstd", ".tar.zst")}


def _path(call: Call, name: str = "path", default: str = "") -> str:
    path = call.query.get(name, default)
    if not path:
        raise InvalidArgument(f"{name} is needed: which file of the volume")
    return path


async def list_(call: Call) -> web.StreamResponse:
    limit = integer(call.query, "limit") or 1000
    if not 0 < limit <= _LARGEST_PAGE:
        raise InvalidArgument(f"limit must be between 1 and {_LARGEST_PAGE}")
    return answer(await call.engine.volume_files.list(
        call.path["name"], _path(call, default="/"), after=call.query.get("after", ""), limit=limit))


async def stat(call: Call) -> web.StreamResponse:
    return answer(await call.engine.volume_files.describe(call.path["name"], _path(call)))


async def read(call: Call) -> web.StreamResponse:
    offset, length = _large(call, "offset"), call.query.get("length", "")
    async with call.engine.volume_files.read(call.path["name"], _path(call), offset) as reader:
        if length:
            reader.limit(_large(call, "length"))
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(reader.left),
                   "ETag": f'"{reader.version}"', "X-Slipway-Size": str(reader.size)}
        out = web.StreamResponse(headers=headers)
        await out.prepare(call.http)
        async for piece in _pieces(reader):
            await out.write(piece)
        await out.write_eof()
    return out


async def _pieces(reader: Reader) -> AsyncIterator[bytes]:
    while piece := await to_the_end(reader.read):
        yield piece


def _large(call: Call, name: str) -> int:
    """A number of bytes, which may be more than other numbers may."""
    text = call.query.get(name, "") or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidArgument(f"invalid value {text[:40]!r} for {name}: a number of bytes is expected")
    return int(text)


async def write(call: Call) -> web.StreamResponse:
    mode = call.query.get("mode", "")
    if mode and (len(mode) > 5 or set(mode) - set("01234567")):
        raise InvalidArgument(f"invalid value {mode[:20]!r} for mode: write it in octal, as 644")
    version = await call.engine.volume_files.write(
        call.path["name"], _path(call), call.upload(), mode=int(mode, 8) if mode else None,
        expected=call.http.headers.get("If-Match", "").strip('"'))
    return web.Response(status=204, headers={"ETag": f'"{version}"'})


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.volume_files.remove(call.path["name"], _path(call))
    return empty()


async def make_directory(call: Call) -> web.StreamResponse:
    await call.engine.volume_files.make_directory(call.path["name"], _path(call))
    return empty(201)


async def rename(call: Call) -> web.StreamResponse:
    await call.engine.volume_files.rename(call.path["name"], _path(call, "from"), _path(call, "to"))
    return empty()


async def backup(call: Call) -> web.StreamResponse:
    """One that breaks off breaks the connection: nobody takes a part for the whole."""
    kind, name = call.query.get("compression", "none"), call.path["name"]
    if kind not in _TYPES:
        raise InvalidArgument(f"invalid value {kind[:20]!r} for compression: none, gzip or zstd")
    made = await call.engine.volume_files.backup(name, path=call.query.get("path", "") or "/",
                                                 pause=boolean(call.query, "pause", True),
                                                 compression=cast(Compression, kind))
    content, ending = _TYPES[kind]
    disposition = f"attachment; filename*=UTF-8''{quote(name + ending)}"
    out = web.StreamResponse(headers={"Content-Type": content, "Content-Disposition": disposition})
    try:
        await out.prepare(call.http)
        async for piece in made.pieces():
            await out.write(piece)
        await out.write_eof()
    except EngineError as error:
        log.warning("%s", error.message)
        if call.http.transport is not None:
            call.http.transport.abort()
        raise ConnectionAbortedError(error.message) from error
    finally:
        await made.close()
    return out


async def restore(call: Call) -> web.StreamResponse:
    return answer(await call.engine.volume_files.restore(call.path["name"], call.upload(),
                                                         replace=boolean(call.query, "replace")))


async def clone(call: Call) -> web.StreamResponse:
    return answer(await call.engine.volume_files.clone(call.path["name"], await call.json(api.VolumeClone)), 201)


_AT = "/slipway/volumes/{name}"
ROUTES = [
    Route("GET", f"{_AT}/files", list_),
    Route("DELETE", f"{_AT}/files", remove),
    Route("GET", f"{_AT}/stat", stat),
    Route("GET", f"{_AT}/file", read),
    Route("PUT", f"{_AT}/file", write, abortable=True, streams=True),
    Route("POST", f"{_AT}/directory", make_directory),
    Route("POST", f"{_AT}/rename", rename),
    Route("GET", f"{_AT}/backup", backup),
    Route("POST", f"{_AT}/restore", restore, abortable=True, streams=True),
    Route("POST", f"{_AT}/clone", clone),
]
