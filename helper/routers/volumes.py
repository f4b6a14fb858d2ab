"""Volumes."""

from __future__ import annotations

from backend.spec import api
from helper import web
from helper.call import Call, Route, answer, empty
from helper.params import boolean


async def list_(call: Call) -> web.StreamResponse:
    return answer(await call.engine.volumes.list(call.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    return answer(await call.engine.volumes.inspect(call.path["name"]))


async def create(call: Call) -> web.StreamResponse:
    return answer(await call.engine.volumes.create(await call.json(api.VolumeCreate)), 201)


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.volumes.remove(call.path["name"], force=boolean(call.query, "force"))
    return empty()


async def prune(call: Call) -> web.StreamResponse:
    # Before API 1.42 a prune took the named volumes too; old clients do not ask for it.
    return answer(await call.engine.volumes.prune(call.filters(), everything=call.version < (1, 42)))


ROUTES = [
    Route("GET", "/volumes", list_),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("DELETE", "/volumes/{name}", remove),
]
