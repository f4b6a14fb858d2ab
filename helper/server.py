"""The Engine API on unix sockets: which operation a request is for, and how a failure is told.

aiohttp's low-level server with a table of our own in front: an answer costs a dictionary look-up and one pattern, and
every answer, an error's too, carries the headers that clients negotiate by.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import os
import re
import socket
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import resources
from backend.errors import EngineError, InvalidArgument, NotFound, NotImplemented_
from helper import routers, web
from helper.access import Audit
from helper.call import Call, Handler, Route, answer, refusal
from helper.guard import guarded
from helper.takeover import head_of_upload

if TYPE_CHECKING:
    from backend.engine.engine import Engine

log = logging.getLogger("slipway.api")
API_VERSION = (1, 51)
_VERSIONED = re.compile(r"/v(\d{1,3})\.(\d{1,3})(/.*)?")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Protocol(web.RequestHandler):
    """A connection. A client that asks for an upgrade may end its direction before it is answered.

    `held`: the bytes of an upload that the parser has not been given (helper/takeover.py); `given_away`: somebody else
    reads them, so that the connection ends with the answer.
    """

    __slots__ = ("given_away", "held")

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.held: bytes | None = None
        self.given_away = False

    def eof_received(self) -> Any:
        return True if self._upgraded else None

    def data_received(self, data: bytes) -> None:
        if self.held is not None:
            self.held += data
            return
        # Only between requests: the same bytes in the middle of a body are a part of it.
        begins = head_of_upload(data) if self._current_request is None and not self._messages else -1
        if begins < 0 or self.transport is None:
            super().data_received(data)
            return
        self.held = data[begins:]
        self.transport.pause_reading()
        super().data_received(data[:begins])

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The parser has room again; what is kept from it is not read all the same."""
        if self.held is None:
            super().resume_reading(resume_parser)

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> web.StreamResponse:
        """What the parser does not understand is its sender's fault: told to him, in words without what he sent, which
        may hold a password, and not worth a traceback in the log."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        why = (message or "").partition("\n")[0].partition(": b")[0].rstrip(".: ")
        log.debug("a request that is not HTTP: %s", why)
        reply = answer({"message": f"the request is not understood as HTTP: {why or 'malformed'}"}, status)
        reply.force_close()
        return reply

    def release(self) -> None:
        """The parser reads the body after all."""
        if self.held is None or self.given_away or self.transport is None:
            return
        rest, self.held = self.held, None
        self.transport.resume_reading()
        if rest:
            super().data_received(rest)

    def give_away(self) -> None:
        """Somebody else reads the body: for the parser it has ended."""
        self.given_away = True
        if self._current_request is not None:
            self._current_request.content.feed_eof()


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Table:
    """Operations by method and first part of the path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_first: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            self._by_first.setdefault((route.method, _first(route.pattern)), []).append((route.compiled(), route))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        for pattern, route in self._by_first.get((method, _first(path)), ()):
            found = pattern.fullmatch(path)
            if found:
                return route, found.groupdict()
        return None


def _first(path: str) -> str:
    return path[1:].partition("/")[0]


def _missing(method: str, path: str) -> Handler:
    async def handler(call: Call) -> web.StreamResponse:
        raise NotImplemented_(f"{method} {path} is not supported by Slipway yet")

    return handler


def all_routes() -> list[Route]:
    """What the routers have, and an answer 501 for every other operation that the API documents."""
    have = routers.routes()
    known = {(route.method, _shape(route.pattern)) for route in have}
    for line in resources.text("api-operations.txt").splitlines():
        method, _, path = line.partition(" ")
        if path and (method, _shape(path)) not in known:
            pattern = path.replace("/images/{name}", "/images/{name:path}")
            have.append(Route(method, pattern, _missing(method, path)))
    return have


def _shape(pattern: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", pattern)


class Server:
    """The listening server of one engine."""

    def __init__(self, engine: Engine, audit: Audit, version: str) -> None:
        self._engine = engine
        self._audit = audit
        self._table = Table(all_routes())
        self._headers = {"Api-Version": "1.51", "Docker-Experimental": "false", "Ostype": "linux",
                         "Server": f"Slipway/{version} (linux)"}
        self._server: _Server | None = None
        self._listeners: list[asyncio.AbstractServer] = []
        self._kept: set[asyncio.Task[Any]] = set()

    # -- listening -----------------------------------------------------------------------------------------------
    async def listen(self, sockets: Iterable[socket.socket]) -> None:
        """Serve on bound, listening *sockets*."""
        self._server = _Server(self._serve, handler_cancellation=True, access_log=None, keepalive_timeout=3600.0,
                               max_line_size=1 << 16, max_field_size=1 << 16, read_bufsize=1 << 20)
        loop = asyncio.get_running_loop()
        for one in sockets:
            self._listeners.append(await loop.create_unix_server(self._server, sock=one))

    async def close(self) -> None:
        """Take no more, give what runs a moment, end all connections."""
        for listener in self._listeners:
            listener.close()
        if self._kept:
            await asyncio.wait(self._kept, timeout=5)
        if self._server is not None:
            await self._server.shutdown(0.5)

    # -- one request -----------------------------------------------------------------------------------------------
    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path, protocol = request.raw_path.partition("?")[0], cast(Protocol, request.protocol)
        if "%" in path:
            path = unquote(path)
        try:
            version, path = _version(path)
            found = self._table.find(request.method, path)
            if found is None:
                raise NotFound("page not found")
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
                request.transport.write(_CONTINUE)
            route, match = found
            if not route.takes_socket:
                protocol.release()
            call = Call(self._engine, request, match, version)
            if self._engine.authorizer.on:
                reply = await guarded(self._engine.authorizer, route, call, path, lambda: self._run(route, call))
            else:
                reply = await self._run(route, call)
        except EngineError as error:
            reply = refusal(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("%s %s failed", request.method, path)
            reply = answer({"message": "the engine met a fault of its own; its log says more"}, 500)
        finally:
            protocol.release()
        if protocol.given_away:
            reply.force_close()
        if not reply.prepared:
            reply.headers.update(self._headers)
        if request.method not in ("GET", "HEAD"):
            self._audit.note(request, reply.status)
        return reply

    async def _run(self, route: Route, call: Call) -> web.StreamResponse:
        if route.abortable or route.method == "GET":
            return await route.handler(call)
        # A client that goes away does not leave a change half made.
        task: asyncio.Task[web.StreamResponse] = asyncio.ensure_future(route.handler(call))
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)
        try:
            return await asyncio.shield(task)
        finally:
            # Or a failure's traceback and its task hold each other, and with them the body, until the collector comes.
            del task


def _version(path: str) -> tuple[tuple[int, int], str]:
    """The API version that a path asks for, and the path without it. Raises :class:`InvalidArgument`: too new."""
    if not path.startswith("/v"):
        return API_VERSION, path
    found = _VERSIONED.fullmatch(path)
    if found is None:
        return API_VERSION, path
    version = int(found[1]), int(found[2])
    if version > API_VERSION:
        raise InvalidArgument(f"client version {found[1]}.{found[2]} is too new. Maximum supported API version is 1.51")
    return version, found[3] or "/"


def bind(path: str, group: str) -> socket.socket:
    """A listening socket at *path*, 0660 for root and *group*, in a folder that all may enter.

    Raises:
        InvalidArgument: something that is not a dead socket is there, or there is no such group.
    """
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise InvalidArgument(f"{path} is there and is no socket; name another --host or move it away")
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o117)
    try:
        sock.bind(path)
    finally:
        os.umask(old)
    if group:
        try:
            number = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError as error:
            sock.close()
            raise InvalidArgument(f"there is no group {group!r}; make it (groupadd {group}) or name another") from error
        os.chown(path, 0, number)
    sock.listen(1024)
    sock.setblocking(False)
    return sock
