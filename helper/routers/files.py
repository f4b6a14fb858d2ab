"""The files of containers: copy in and out, changes, export, commit."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping

from backend.engine.clock import rfc3339_nano
from backend.engine.files import Archive
from backend.errors import EngineError, InvalidArgument
from backend.spec import api
from backend.spec.api.wire import decode_body
from helper import web
from helper.call import Call, Route, answer, empty
from helper.params import boolean
from helper.takeover import Taking

log = logging.getLogger("slipway.api")
_STAT = "X-Docker-Container-Path-Stat"


def _path(call: Call) -> str:
    path = call.query.get("path", "")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path cannot have a NUL in it")
    return path


def _stat_header(stat: api.PathStat) -> dict[str, str]:
    said = {"name": stat.name, "size": stat.size, "mode": stat.mode, "mtime": rfc3339_nano(stat.mtime),
            "linkTarget": stat.link_target}
    return {_STAT: base64.b64encode(json.dumps(said).encode()).decode()}


async def send_tar(call: Call, archive: Archive, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
    """An archive as the answer. One that breaks off breaks the connection: no client takes a part for the whole."""
    out = web.StreamResponse(headers={"Content-Type": "application/x-tar", **(headers or {})})
    try:
        await out.prepare(call.http)
        async for piece in archive.pieces():
            await out.write(piece)
        await out.write_eof()
    except EngineError as error:
        log.warning("%s %s: %s", call.http.method, call.http.path, error.message)
        if call.http.transport is not None:
            call.http.transport.abort()
        raise ConnectionAbortedError(error.message) from error
    finally:
        await archive.close()
    return out


async def stat(call: Call) -> web.StreamResponse:
    return web.Response(headers=_stat_header(await call.engine.files.stat(call.path["id"], _path(call))))


async def get(call: Call) -> web.StreamResponse:
    archive = await call.engine.files.archive(call.path["id"], _path(call))
    assert archive.stat is not None
    return await send_tar(call, archive, _stat_header(archive.stat))


async def put(call: Call) -> web.StreamResponse:
    path = _path(call)
    async with Taking(call) as upload:
        await call.engine.files.extract(
            call.path["id"], path, upload or call.upload(), keep_kinds=boolean(call.query, "noOverwriteDirNonDir"),
            copy_owner=boolean(call.query, "copyUIDGID"))
    return empty(200)


async def changes(call: Call) -> web.StreamResponse:
    return answer(await call.engine.files.changes(call.path["id"]))


async def export(call: Call) -> web.StreamResponse:
    return await send_tar(call, await call.engine.files.export(call.path["id"]))


async def commit(call: Call) -> web.StreamResponse:
    query = call.http.query
    if not query.get("container"):
        raise InvalidArgument('invalid name or ID supplied: ""')
    body = (await call.body()).strip()
    config = decode_body(body, api.CommitConfig) if body not in (b"", b"null") else None
    made = await call.engine.files.commit(
        query.get("container", ""), config=config, changes=query.getall("changes", []),
        repository=query.get("repo", ""), tag=query.get("tag", ""), author=query.get("author", ""),
        comment=query.get("comment", ""), pause=boolean(query, "pause", True))
    return answer(api.IdResponse(id=made), 201)


ROUTES = [
    Route("HEAD", "/containers/{id}/archive", stat),
    Route("GET", "/containers/{id}/archive", get),
    Route("PUT", "/containers/{id}/archive", put, abortable=True, streams=True, takes_socket=True),
    Route("GET", "/containers/{id}/changes", changes),
    Route("GET", "/containers/{id}/export", export),
    Route("POST", "/commit", commit),
]
