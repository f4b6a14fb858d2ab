"""Layers of images and what registries have: ``/slipway/images`` and ``/slipway/registries`` (docs/api.md)."""

from __future__ import annotations

from backend.errors import InvalidArgument
from helper import web
from helper.call import Call, Route, answer
from helper.params import integer
from helper.routers.images import registry_auth

_MOST = 1000


async def layers(call: Call) -> web.StreamResponse:
    return answer(call.engine.images.layers(call.path["name"]))


async def files(call: Call) -> web.StreamResponse:
    return answer(await call.engine.images.layer_files(call.path["name"], _number(call.path["number"]),
                                                       call.query.get("path", "/")))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise InvalidArgument(f"{text[:40]} is not the number of a layer")
    return int(text)


async def catalog(call: Call) -> web.StreamResponse:
    """Asks the registry; with X-Registry-Auth as for a pull."""
    limit = integer(call.query, "n") or 100
    return answer(await call.engine.images.catalog(
        call.path["host"], registry_auth(call.http.headers.get("X-Registry-Auth", "")),
        last=call.query.get("last", ""), limit=min(max(limit, 1), _MOST)))


async def tags(call: Call) -> web.StreamResponse:
    return answer(await call.engine.images.tags(
        f"{call.path['host']}/{call.path['name']}", registry_auth(call.http.headers.get("X-Registry-Auth", ""))))


ROUTES = [
    Route("GET", "/slipway/images/{name:path}/layers", layers),
    Route("GET", "/slipway/images/{name:path}/layers/{number}/files", files),
    Route("GET", "/slipway/registries/{host}/catalog", catalog, abortable=True),
    Route("GET", "/slipway/registries/{host}/repositories/{name:path}/tags", tags, abortable=True),
]
