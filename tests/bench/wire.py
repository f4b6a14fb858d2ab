"""The smallest Engine API client: what is measured should be the engine, not the client."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any


class Failed(Exception):
    """The engine answered with an error status."""


class Wire(http.client.HTTPConnection):
    """One keep-alive connection to an engine's unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)

    def call(self, method: str, target: str, body: Any = None) -> Any:
        """One request; the decoded JSON answer, the text where it is not JSON, or None."""
        data = None if body is None else json.dumps(body).encode()
        self.request(method, target, data, {"Content-Type": "application/json"} if data else {})
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise Failed(f"{method} {target}: {answer.status} {text.decode(errors='replace')}")
        if not text:
            return None
        return json.loads(text) if (answer.getheader("Content-Type") or "").startswith("application/json") else text

    def upload(self, target: str, data: bytes) -> None:
        """POST a tar."""
        self.request("POST", target, data, {"Content-Type": "application/x-tar"})
        answer = self.getresponse()
        text = answer.read()
        if answer.status >= 400 or b'"error"' in text:
            raise Failed(f"POST {target}: {answer.status} {text.decode(errors='replace')}")


def hijack(path: str, target: str, body: Any = None) -> socket.socket:
    """A connection taken over by attach or exec: the socket, its HTTP header already read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(path)
    data = b"" if body is None else json.dumps(body).encode()
    head = (f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n").encode()
    sock.sendall(head + data)
    answer = b""
    while b"\r\n\r\n" not in answer:
        got = sock.recv(1)
        if not got:
            raise Failed(f"POST {target}: the connection ended after {answer!r}")
        answer += got
    if not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
        raise Failed(f"POST {target}: {answer!r} {sock.recv(1000)!r}")
    return sock


def drain(sock: socket.socket) -> bytes:
    """Everything until the engine ends the stream."""
    out = b""
    while got := sock.recv(1 << 16):
        out += got
    sock.close()
    return out
