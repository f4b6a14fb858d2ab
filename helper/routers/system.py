"""The engine itself: ping, version, info, events, disk usage, sign-in, and what has no section of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from backend.engine.events import Subscription
from backend.errors import InvalidArgument, NotImplemented_
from backend.spec import api
from helper import web
from helper.call import Call, Route, answer, stream
from helper.params import moment
from helper.routers.images import as_auth

_NO_CACHE = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Builder-Version": "1",
             "Swarm": "inactive"}


async def ping(call: Call) -> web.StreamResponse:
    return web.Response(body=b"OK", content_type="text/plain", charset="utf-8", headers=_NO_CACHE)


async def ping_head(call: Call) -> web.StreamResponse:
    return web.Response(content_type="text/plain", charset="utf-8", headers=_NO_CACHE)


async def version(call: Call) -> web.StreamResponse:
    return answer(call.engine.system.version())


async def info(call: Call) -> web.StreamResponse:
    return answer(call.engine.system.info())


async def disk_usage(call: Call) -> web.StreamResponse:
    return answer(await call.engine.system.df(frozenset(call.http.query.getall("type", []))))


async def events(call: Call) -> web.StreamResponse:
    now = time.time_ns()
    since, until = moment(call.query, "since", now), moment(call.query, "until", now)
    if until and since > until:
        raise InvalidArgument(f"`since` time ({call.query['since']}) cannot be after "
                              f"`until` time ({call.query['until']})")
    found = call.engine.events.subscribe(since, until, call.filters())
    try:
        return await stream(call, "application/json", _lines(found))
    finally:
        found.close()


async def _lines(found: Subscription) -> AsyncIterator[bytes]:
    # An empty first piece sends the head: the client knows that it is listened for.
    yield b""
    async for event in found:
        yield api.encode(event) + b"\n"


async def auth(call: Call) -> web.StreamResponse:
    """Tries the credentials at the registry that they are for."""
    wish = await call.json(api.AuthConfig)
    status = await call.engine.images.check_auth(wish.serveraddress, as_auth(wish))
    return answer(api.AuthResult(status=status, identity_token=""))


async def build(call: Call) -> web.StreamResponse:
    raise NotImplemented_("Slipway cannot build images yet; build with another engine, push to a registry and pull "
                          "here")


ROUTES = [
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping_head),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/events", events, abortable=True),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/auth", auth),
    Route("POST", "/build", build),
    Route("POST", "/build/prune", build),
]
