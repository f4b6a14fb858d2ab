"""What containers used over time: ``/slipway/containers/{id}/usage`` (docs/api.md)."""

from __future__ import annotations

import time

from backend.engine.history import Row
from backend.spec.api.wire import go_name
from helper import web
from helper.call import Call, Route, answer
from helper.params import integer, moment

_KEYS = [(name, go_name("time" if name == "at" else name)) for name in Row._fields]


async def usage(call: Call) -> web.StreamResponse:
    step = integer(call.query, "step") or 1
    since = moment(call.query, "since", time.time_ns()) / 1e9
    rows = await call.engine.containers.history(call.path["id"], step=step, since=since)
    columns = dict(zip(Row._fields, zip(*rows, strict=True), strict=True)) if rows else {}
    return answer({"Step": step, **{key: columns.get(name, ()) for name, key in _KEYS}})


ROUTES = [Route("GET", "/slipway/containers/{id}/usage", usage)]
