"""Managed plug-ins, which this engine does not have; those that run as programs of their own need none of this."""

from __future__ import annotations

from backend.errors import NotFound, NotImplemented_
from helper import web
from helper.call import Call, Route, answer

_MANAGED = ("Slipway has no managed plug-ins (images of plug-ins that an engine runs). One that runs as a program "
            "of its own works: start it so that its socket is /run/docker/plugins/NAME.sock, then name it as a driver.")


async def list_(call: Call) -> web.StreamResponse:
    call.filters().check(frozenset({"capability", "enabled"}))
    return answer([])


async def unknown(call: Call) -> web.StreamResponse:
    raise NotFound(f'plugin "{call.path["name"]}" not found: {_MANAGED}')


async def unsupported(call: Call) -> web.StreamResponse:
    raise NotImplemented_(_MANAGED)


ROUTES = [
    Route("GET", "/plugins", list_),
    Route("GET", "/plugins/privileges", unsupported),
    Route("POST", "/plugins/pull", unsupported),
    Route("POST", "/plugins/create", unsupported),
    Route("GET", "/plugins/{name:path}/json", unknown),
    Route("POST", "/plugins/{name:path}/enable", unknown),
    Route("POST", "/plugins/{name:path}/disable", unknown),
    Route("POST", "/plugins/{name:path}/upgrade", unknown),
    Route("POST", "/plugins/{name:path}/push", unknown),
    Route("POST", "/plugins/{name:path}/set", unknown),
    Route("DELETE", "/plugins/{name:path}", unknown),
]
