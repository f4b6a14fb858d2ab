"""Exec: a further program in a running container."""

from __future__ import annotations

from backend.spec import api
from helper import web
from helper.call import Call, Route, answer, empty
from helper.hijack import hijack
from helper.params import detach_keys
from helper.routers.containers import size_of


async def create(call: Call) -> web.StreamResponse:
    body = await call.json(api.ExecCreate, optional=True)
    detach_keys(body.detach_keys)
    return answer(api.IdResponse(id=await call.engine.execs.create(call.path["id"], body)), 201)


async def start(call: Call) -> web.StreamResponse:
    body = await call.json(api.ExecStart, optional=True)
    rows, columns = body.console_size if body.console_size and len(body.console_size) == 2 else (0, 0)
    made = call.engine.execs.get(call.path["id"])
    session = await call.engine.execs.start(made.id, detach=body.detach, tty=body.tty, rows=rows, columns=columns)
    if session is None:
        return empty(200)
    keys = detach_keys(made.body.detach_keys) if made.tty else b""
    return await hijack(call, session, stdin=made.body.attach_stdin, keys=keys,
                        detached=lambda: call.engine.execs.detached(made.id))


async def resize(call: Call) -> web.StreamResponse:
    await call.engine.execs.resize(call.path["id"], *size_of(call))
    return empty(200)


async def inspect(call: Call) -> web.StreamResponse:
    return answer(call.engine.execs.inspect(call.path["id"]))


ROUTES = [
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start, abortable=True),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
]
