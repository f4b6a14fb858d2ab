"""Puts each request to the authorisation plug-ins, in the form in which the helper understood it.

What is judged is what is done: the body that the plug-in sees is the very bytes that the handler decodes, whatever its
length, framing or declared type; the path is the decoded one that was matched.
"""

from __future__ import annotations

import asyncio
import functools
import pwd
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from backend.engine.authorization import Question
from helper import web
from helper.access import peer
from helper.call import Call, Route

if TYPE_CHECKING:
    from backend.engine.authorization import Authorizer

#: Their body is a password.
_UNSEEN = frozenset({"/auth"})


async def guarded(authorizer: Authorizer, route: Route, call: Call, path: str,
                  run: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Run an allowed request; its answer goes out if that is allowed too. A stream (logs, attach, pull) is judged by
    its request alone: what has gone out cannot be called back. Raises Forbidden and ServerError."""
    question = await _question(route, call, path)
    await authorizer.request(question)
    reply = await run()
    if not reply.prepared and isinstance(reply, web.Response):
        body = reply.body if isinstance(reply.body, bytes) else b""
        await authorizer.response(question, reply.status, body, dict(reply.headers))
    return reply


async def _question(route: Route, call: Call, path: str) -> Question:
    request = call.http
    body = b"" if route.streams else await call.body()
    query = request.raw_path.partition("?")[2]
    uri = f"/v{call.version[0]}.{call.version[1]}{quote(path)}" + (f"?{query}" if query else "")
    user = await asyncio.to_thread(user_name, peer(request)[1])
    return Question(user, request.method, uri, b"" if path in _UNSEEN else body, dict(request.headers))


@functools.lru_cache(maxsize=256)
def user_name(uid: int) -> str:
    """The login name of *uid*; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name if uid >= 0 else ""
    except KeyError:
        return str(uid)
