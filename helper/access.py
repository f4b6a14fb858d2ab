"""Who is at the other end of the socket, and a line for each call that changes something.

Whoever may open the socket may use the engine: it is root's to give (docs/security.md). What is known of the caller
comes from the kernel.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time

from helper import web

_ROTATE = 16 << 20


def peer(request: web.BaseRequest) -> tuple[int, int, int]:
    """pid, uid and gid of the caller as they were when it connected (unix(7), SO_PEERCRED); -1 where not known."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return -1, -1, -1
    pid, uid, gid = struct.unpack("iii", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


class Audit:
    """Appends one JSON line a call to a file that only root reads. The query stands there without its values."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def note(self, request: web.BaseRequest, status: int) -> None:
        """Write down a call and how it was answered."""
        pid, uid, _ = peer(request)
        line = json.dumps({"time": time.time(), "uid": uid, "pid": pid, "method": request.method, "path": request.path,
                           "query": sorted(request.query), "status": status}) + "\n"
        self._size += os.write(self._fd, line.encode())
        if self._size > _ROTATE:
            os.rename(self._path, f"{self._path}.1")
            os.close(self._fd)
            self._open()

    def close(self) -> None:
        os.close(self._fd)
