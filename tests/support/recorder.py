"""A socket that plays an engine just far enough for `create`, and keeps the bodies that clients send."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from typing import Any, BinaryIO


class Recorder:
    """Use as a context manager; `bodies` has what came to POST /containers/create, oldest first."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-recorder-")
        self.path = os.path.join(self._folder.name, "s.sock")
        self.bodies: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            while line := incoming.readline():
                connection.sendall(self._answer(line.decode(), incoming))

    def _answer(self, line: str, incoming: BinaryIO) -> bytes:
        length = 0
        while (header := incoming.readline().decode().strip()):
            name, _, value = header.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        body, status = incoming.read(length), "200 OK"
        answer = b"OK"
        if line.startswith("POST") and "/containers/create" in line:
            self.bodies.append(json.loads(body))
            status, answer = "201 Created", json.dumps({"Id": "a" * 64, "Warnings": []}).encode()
        sent = b"" if line.startswith("HEAD") else answer
        head = (f"HTTP/1.1 {status}\r\nApi-Version: 1.51\r\nOstype: linux\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(answer)}\r\n\r\n")
        return head.encode() + sent
