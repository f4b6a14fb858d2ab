"""Containers: https://docs.docker.com/reference/api/engine/, section Container."""

from __future__ import annotations

import asyncio
import time

from backend.engine.streams import AttachWish, LogWish
from backend.errors import InvalidArgument, NotFound
from backend.spec import api
from helper import web
from helper.call import MULTIPLEXED, RAW_STREAM, Call, Route, answer, empty, stream
from helper.hijack import hijack
from helper.params import boolean, detach_keys, integer, moment
from helper.websocket import serve


async def create(call: Call) -> web.StreamResponse:
    body = await call.json(api.ContainerCreate)
    made = await call.engine.containers.create(body, name=call.query.get("name", ""),
                                               platform=call.query.get("platform", ""))
    return answer(made, 201)


async def list_(call: Call) -> web.StreamResponse:
    size = boolean(call.query, "size")
    limit = integer(call.query, "limit") or 0
    rows = call.engine.containers.list(all=boolean(call.query, "all"), limit=max(0, limit), filters=call.filters())
    if size:
        await call.engine.containers.add_sizes(rows)
    return answer(rows)


async def inspect(call: Call) -> web.StreamResponse:
    return answer(await call.engine.containers.inspect(call.path["id"], size=boolean(call.query, "size")))


async def start(call: Call) -> web.StreamResponse:
    await call.engine.containers.start(call.path["id"])
    return empty()


async def stop(call: Call) -> web.StreamResponse:
    await call.engine.containers.stop(call.path["id"], signal=call.query.get("signal"),
                                         timeout=integer(call.query, "t"))
    return empty()


async def restart(call: Call) -> web.StreamResponse:
    await call.engine.containers.restart(call.path["id"], signal=call.query.get("signal"),
                                            timeout=integer(call.query, "t"))
    return empty()


async def kill(call: Call) -> web.StreamResponse:
    await call.engine.containers.kill(call.path["id"], call.query.get("signal") or "SIGKILL")
    return empty()


async def pause(call: Call) -> web.StreamResponse:
    await call.engine.containers.pause(call.path["id"])
    return empty()


async def unpause(call: Call) -> web.StreamResponse:
    await call.engine.containers.unpause(call.path["id"])
    return empty()


async def rename(call: Call) -> web.StreamResponse:
    await call.engine.containers.rename(call.path["id"], call.query.get("name", ""))
    return empty()


async def update(call: Call) -> web.StreamResponse:
    body = await call.json(api.ContainerUpdate, optional=True)
    return answer(await call.engine.containers.update(call.path["id"], body))


async def remove(call: Call) -> web.StreamResponse:
    if boolean(call.query, "link"):
        raise InvalidArgument("a link is named CONTAINER/ALIAS")
    await call.engine.containers.remove(call.path["id"], force=boolean(call.query, "force"),
                                        volumes=boolean(call.query, "v"))
    return empty()


async def remove_link(call: Call) -> web.StreamResponse:
    name = f"{call.path['id']}/{call.path['alias']}"
    if not boolean(call.query, "link"):
        raise NotFound(f"No such container: {name}")
    await call.engine.containers.remove_link(call.path["id"], call.path["alias"])
    return empty()


async def wait(call: Call) -> web.StreamResponse:
    """The head of the answer goes out before the wait: the client starts the container only then."""
    waiter = call.engine.containers.wait(call.path["id"], call.query.get("condition", ""))
    out = web.StreamResponse(headers={"Content-Type": "application/json"})
    await out.prepare(call.http)
    await out.write(b"")
    result = await waiter.result()
    await out.write(api.encode(result) + b"\n")
    await out.write_eof()
    return out


async def top(call: Call) -> web.StreamResponse:
    return answer(await call.engine.containers.top(call.path["id"], call.query.get("ps_args", "")))


async def prune(call: Call) -> web.StreamResponse:
    return answer(await call.engine.containers.prune(call.filters()))


async def resize(call: Call) -> web.StreamResponse:
    await call.engine.containers.resize(call.path["id"], *size_of(call))
    return empty(200)


def size_of(call: Call) -> tuple[int, int]:
    """Rows and columns of a resize. Raises :class:`InvalidArgument`."""
    rows, columns = integer(call.query, "h"), integer(call.query, "w")
    if rows is None or columns is None or not (0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise InvalidArgument("invalid size: h and w (rows and columns) are needed, 0 to 65535")
    return rows, columns


def attach_wish(call: Call) -> AttachWish:
    """What the query of an attach asks for."""
    query = call.query
    return AttachWish(stdin=boolean(query, "stdin"), stdout=boolean(query, "stdout"), stderr=boolean(query, "stderr"),
                      stream=boolean(query, "stream"), logs=boolean(query, "logs"))


async def attach_websocket(call: Call) -> web.StreamResponse:
    wish = attach_wish(call)
    return await serve(call, await call.engine.containers.attach(call.path["id"], wish), stdin=wish.stdin)


async def attach(call: Call) -> web.StreamResponse:
    keys = detach_keys(call.query.get("detachKeys"))
    wish = attach_wish(call)
    session = await call.engine.containers.attach(call.path["id"], wish)
    return await hijack(call, session, stdin=wish.stdin, keys=keys if session.tty else b"",
                        detached=lambda: call.engine.containers.detached(call.path["id"]))


async def logs(call: Call) -> web.StreamResponse:
    query, now = call.query, time.time_ns()
    wish = LogWish(
        stdout=boolean(query, "stdout"), stderr=boolean(query, "stderr"), follow=boolean(query, "follow"),
        tail=_tail(query.get("tail", "all")), since=moment(query, "since", now), until=moment(query, "until", now),
        timestamps=boolean(query, "timestamps"), details=boolean(query, "details"))
    if not (wish.stdout or wish.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    found = call.engine.containers.logs(call.path["id"], wish)
    try:
        kind = MULTIPLEXED if not found.tty and call.version >= (1, 42) else RAW_STREAM
        return await stream(call, kind, aiter(found))
    finally:
        found.close()


def _tail(text: str) -> int | None:
    """How many lines; what is no number means all, as for Docker."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


async def stats(call: Call) -> web.StreamResponse:
    sample = call.engine.containers.stats(call.path["id"])
    if not boolean(call.query, "stream", True):
        return answer(sample)
    out = web.StreamResponse(headers={"Content-Type": "application/json"})
    await out.prepare(call.http)
    while True:
        await out.write(api.encode(sample) + b"\n")
        await asyncio.sleep(1)
        try:
            sample = call.engine.containers.stats(call.path["id"], sample)
        except NotFound:
            break                          # it has been removed: so ends its stream
    await out.write_eof()
    return out


ROUTES = [
    Route("POST", "/containers/create", create),
    Route("GET", "/containers/json", list_),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/{id}/json", inspect),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/update", update),
    Route("POST", "/containers/{id}/wait", wait, abortable=True),
    Route("POST", "/containers/{id}/resize", resize),
    Route("POST", "/containers/{id}/attach", attach, abortable=True),
    Route("GET", "/containers/{id}/attach/ws", attach_websocket, abortable=True),
    Route("GET", "/containers/{id}/logs", logs, abortable=True),
    Route("GET", "/containers/{id}/top", top),
    Route("GET", "/containers/{id}/stats", stats, abortable=True),
    Route("DELETE", "/containers/{id}", remove),
    Route("DELETE", "/containers/{id}/{alias}", remove_link),
]
