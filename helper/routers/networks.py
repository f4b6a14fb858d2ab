"""Networks."""

from __future__ import annotations

from backend.spec import api
from helper import web
from helper.call import Call, Route, answer, empty


async def list_(call: Call) -> web.StreamResponse:
    return answer(call.engine.networks.list(call.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    return answer(call.engine.networks.inspect(call.path["id"]))


async def create(call: Call) -> web.StreamResponse:
    return answer(await call.engine.networks.create(await call.json(api.NetworkCreate)), 201)


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.networks.remove(call.path["id"])
    return empty()


async def connect(call: Call) -> web.StreamResponse:
    await call.engine.networks.connect(call.path["id"], await call.json(api.NetworkConnect))
    return empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    await call.engine.networks.disconnect(call.path["id"], await call.json(api.NetworkDisconnect))
    return empty(200)


async def prune(call: Call) -> web.StreamResponse:
    return answer(await call.engine.networks.prune(call.filters()))


ROUTES = [
    Route("GET", "/networks", list_),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{id}", inspect),
    Route("DELETE", "/networks/{id}", remove),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
]
