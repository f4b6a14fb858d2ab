"""One engine's socket over aiohttp: requests, answers, streams, and errors as kinds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp

from backend import errors
from backend.spec.api.wire import decode, encode

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]
Filters = Mapping[str, Sequence[str]]
#: No limit: logs, events and waits last as long as they last.
_FOREVER = aiohttp.ClientTimeout(total=None, sock_connect=10)
API_VERSION = "1.51"
_HOST = "http://slipway"


def query_string(query: Query | None, filters: Filters | None = None) -> dict[str, str]:
    """Query parameters as the API reads them: booleans as 1 and 0, nothing for None, filters as JSON."""
    out = {
        key: str(int(value)) if isinstance(value, bool) else str(value)
        for key, value in (query or {}).items()
        if value is not None
    }
    if filters:
        out["filters"] = json.dumps({key: list(values) for key, values in filters.items()})
    return out


def socket_path(address: str) -> str:
    """The path in ``unix:///path``; a bare path is taken as it is.

    Raises:
        InvalidArgument: another kind of address.
    """
    if address.startswith("unix://"):
        return address.removeprefix("unix://")
    if "://" in address:
        raise errors.InvalidArgument(
            f"The address {address} cannot be used: only unix:///path sockets are supported yet."
        )
    return address


@contextlib.contextmanager
def explained(path: str) -> Any:
    """Turns what can go wrong on the way to the engine into words."""
    try:
        yield
    except PermissionError as error:
        raise errors.Forbidden(
            f"You may not open the engine's socket {path}. Ask an administrator to add you to its group "
            f"(ls -l {path} shows which: sudo usermod -aG GROUP $USER, then sign in again)."
        ) from error
    except (aiohttp.ClientConnectorError, FileNotFoundError, ConnectionRefusedError) as error:
        cause = getattr(error, "os_error", error)
        if isinstance(cause, PermissionError):
            with explained(path):
                raise cause from error
        raise errors.Unavailable(
            f"No engine answers on {path} ({cause.strerror or cause}). "
            "Start the helper (./dev run, or: sudo systemctl start slipwayd), or name another socket with --host."
        ) from error
    except (
        aiohttp.ServerDisconnectedError,
        aiohttp.ClientOSError,
        aiohttp.ClientPayloadError,
        ConnectionError,
    ) as error:
        raise errors.Unavailable(f"The engine on {path} ended the connection ({error}).") from error


def refusal(status: int, body: bytes) -> errors.EngineError:
    """The error that an answer with *status* of 400 or more means."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace").strip() or f"the engine answered {status}"
    return errors.from_status(status, str(message))


class Connection:
    """Requests on one engine's unix socket."""

    def __init__(self, address: str) -> None:
        self.path = socket_path(address)
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        # Made when first used: aiohttp wants a running loop.
        if self._session is None or self._session.closed:
            connector = aiohttp.UnixConnector(self.path, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=_FOREVER, auto_decompress=False)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        *,
        query: Query | None = None,
        filters: Filters | None = None,
        body: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request; its answer while the block lasts. Raises the kind of error that the engine answers with."""
        sent = dict(headers or {})
        if body is not None:
            data = encode(body)
            sent["Content-Type"] = "application/json"
        with explained(self.path):
            async with self.session().request(
                method, f"{_HOST}/v{API_VERSION}{target}", params=query_string(query, filters), data=data, headers=sent
            ) as answer:
                if answer.status == errors.NotModified.status:
                    raise errors.NotModified("it is in that state already")
                if answer.status >= 400:
                    raise refusal(answer.status, await answer.read())
                yield answer

    async def call(
        self,
        method: str,
        target: str,
        kind: type[T],
        *,
        query: Query | None = None,
        filters: Filters | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """One request; its JSON answer as *kind*."""
        async with self.open(method, target, query=query, filters=filters, body=body, headers=headers) as answer:
            return decode(await answer.read(), kind)

    async def send(
        self, method: str, target: str, *, query: Query | None = None, filters: Filters | None = None, body: Any = None
    ) -> None:
        """One request whose answer has nothing to read."""
        async with self.open(method, target, query=query, filters=filters, body=body) as answer:
            await answer.read()

    async def lines(
        self,
        method: str,
        target: str,
        *,
        query: Query | None = None,
        filters: Filters | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[bytes]:
        """The JSON lines of an answer as they come. Closing the iterator ends the request."""
        async with self.open(method, target, query=query, filters=filters, data=data, headers=headers) as answer:
            rest = b""
            async for piece in answer.content.iter_any():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield line
            if rest.strip():
                yield rest

    async def pieces(self, method: str, target: str, *, query: Query | None = None) -> AsyncIterator[bytes]:
        """The bytes of an answer as they come."""
        async with self.open(method, target, query=query) as answer:
            async for piece in answer.content.iter_any():
                yield piece
