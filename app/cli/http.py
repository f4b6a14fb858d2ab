"""HTTP/1.1 to the engine over its unix socket, from the standard library's `socket` and `json` alone.

`http.client` would do, but importing it (with `email` and all) costs more than everything else that `ps` does.
"""

from __future__ import annotations

import json
import os
import socket
import stat

from app.cli.errors import Refused, Unreachable, Usage

TYPING = False
if TYPING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

API = "/v1.51"
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_PIECE = 1 << 16
_HEAD_LIMIT = 1 << 16


def quote(text: str) -> str:
    """*text* for one part of a path or query."""
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))


def query_string(query: dict[str, Any]) -> str:
    """``?a=1&b=...``: nothing for None, 1 and 0 for booleans, one entry for each member of a list, JSON for a dict."""
    parts = []
    for key, value in query.items():
        if value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            text = json.dumps(one) if isinstance(one, dict) else str(int(one)) if isinstance(one, bool) else str(one)
            parts.append(f"{key}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


class Answer:
    """An answer whose head has been read. Its body is read once, in one of the ways below."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""
        head = self._until(b"\r\n\r\n", _HEAD_LIMIT).decode("latin-1")
        first, *lines = head.split("\r\n")
        self.status = int(first.split(" ", 2)[1])
        pairs = (line.partition(":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _until(self, mark: bytes, limit: int) -> bytes:
        while mark not in self._rest:
            data = self.connection.recv(_PIECE)
            if not data or len(self._rest) > limit:
                raise Unreachable("the engine ended the connection before its answer was complete.")
            self._rest += data
        found, _, self._rest = self._rest.partition(mark)
        return found

    def _up_to(self, size: int) -> Iterator[bytes]:
        while size:
            data = self._rest[:size] or self.connection.recv(min(size, _PIECE))
            if not data:
                raise Unreachable("the engine ended the connection before its answer was complete.")
            self._rest = self._rest[len(data):] if self._rest else b""
            size -= len(data)
            yield data

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes."""
        if self.status in (204, 304):
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._until(b"\r\n", _HEAD_LIMIT).split(b";")[0], 16):
                yield from self._up_to(size)
                self._until(b"\r\n", _HEAD_LIMIT)
        elif "content-length" in self.headers:
            yield from self._up_to(int(self.headers["content-length"]))
        else:
            yield from self.raw()

    def raw(self) -> Iterator[bytes]:
        """Everything up to the end of the connection."""
        if self._rest:
            data, self._rest = self._rest, b""
            yield data
        while data := self.connection.recv(_PIECE):
            yield data

    def take_rest(self) -> bytes:
        """What came with the head of an upgraded connection."""
        rest, self._rest = self._rest, b""
        return rest

    def read(self) -> bytes:
        """The whole body."""
        body = b"".join(self.pieces())
        self.connection.close()
        return body

    def lines(self) -> Iterator[Any]:
        """The body as JSON documents, one a line, as they come."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from (json.loads(line) for line in whole if line.strip())
        if rest.strip():
            yield json.loads(rest)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The body as (1 = stdout, 2 = stderr; bytes), framed as Docker does or raw, as the content type says."""
        if self.headers.get("content-type") != "application/vnd.docker.multiplexed-stream":
            yield from ((1, piece) for piece in self.pieces())
            return
        yield from deframed(self.pieces())


def deframed(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Docker's 8-byte frames: stream, three zeros, big-endian length."""
    rest = b""
    for piece in pieces:
        rest += piece
        start = 0
        while len(rest) - start >= 8:
            end = start + 8 + int.from_bytes(rest[start + 4:start + 8], "big")
            if end > len(rest):
                break
            yield rest[start], rest[start + 8:end]
            start = end
        rest = rest[start:]


class Engine:
    """The engine behind *address* (``unix:///path`` or a path): one connection a request."""

    def __init__(self, address: str) -> None:
        if "://" in address and not address.startswith("unix://"):
            raise Usage(f"the address {address} cannot be used: only sockets (unix:///path) are supported yet.")
        self.path = address.removeprefix("unix://")

    def connect(self) -> socket.socket:
        """A fresh connection."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.path)
        except PermissionError:
            connection.close()
            raise Unreachable(_not_permitted(self.path)) from None
        except OSError as error:
            connection.close()
            raise Unreachable(f"no engine answers at {self.path} ({error.strerror or error}). Start the helper (`sudo "
                              "systemctl start slipwayd`, or `./dev run` in a checkout), or name its socket with "
                              "--host.") from None
        return connection

    def ask(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None, *,
            headers: dict[str, str] | None = None, source: Iterable[bytes] | None = None,
            upgrade: bool = False, allowed: Sequence[int] = ()) -> Answer:
        """One request; its answer with status below 400, or one that is *allowed*.

        Args:
            body: sent as JSON.
            source: sent as it is, chunked.
            upgrade: ask for the connection itself (attach, exec).

        Raises:
            Refused: the engine says no.
            Unreachable: no engine.
        """
        data = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {API}{path}{query_string(query or {})} HTTP/1.1", "Host: slipway"]
        head += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
        if body is not None:
            head.append("Content-Type: application/json")
        head.append("Transfer-Encoding: chunked" if source is not None else f"Content-Length: {len(data)}")
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        connection = self.connect()
        try:
            connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode() + data)
            if source is not None:
                _send_chunks(connection, source)
            answer = Answer(connection)
        except ConnectionError as error:
            connection.close()
            raise Unreachable(f"the engine at {self.path} ended the connection ({error.strerror}).") from None
        if answer.status >= 400 and answer.status not in allowed:
            raise Refused(_message(answer) if method != "HEAD" else f"the engine answered with status {answer.status}",
                          answer.status)
        return answer

    def json(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        """One request; its answer as JSON, None where there is no body."""
        data = self.ask(method, path, query, body).read()
        return json.loads(data) if data.strip() else None


def _send_chunks(connection: socket.socket, source: Iterable[bytes]) -> None:
    try:
        for piece in source:
            if piece:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
    except BrokenPipeError:
        return  # the engine has had enough and says why in its answer


def _message(answer: Answer) -> str:
    body = answer.read()
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace").strip() or f"status {answer.status} without a reason"
    return f"the engine answered: {message}"


def _not_permitted(path: str) -> str:
    group = "its group"
    try:
        import grp

        found = os.stat(path)
        if stat.S_ISSOCK(found.st_mode) and found.st_gid:
            group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        pass
    who = "its group (`ls -l` shows which)" if group == "its group" else f"the group {group}"
    name = "GROUP" if group == "its group" else group
    return (f"you may not open the engine's socket {path}: it is for root and {who}. Ask for membership with `sudo "
            f"usermod -aG {name} $USER` and sign in again, or run this once with sudo.")
