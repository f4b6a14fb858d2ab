"""Debian's docker-registry on loopback, with its state in a folder of its own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import bcrypt

_CONFIG = """version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {at}/data
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
"""
_USERS = """auth:
  htpasswd:
    realm: tests
    path: {at}/htpasswd
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def registry(users: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yields ``127.0.0.1:PORT``. *users*: who may come in (htpasswd), with their passwords; None = everybody.

    Raises:
        LookupError: docker-registry is not installed.
    """
    program = shutil.which("docker-registry")
    if program is None:
        raise LookupError("docker-registry is not installed")
    at = tempfile.mkdtemp(prefix="slipway-registry-")
    port = free_port()
    Path(at, "config.yml").write_text(_CONFIG.format(at=at, port=port) + (_USERS.format(at=at) if users else ""))
    if users:
        lines = (f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for user, word in users.items())
        Path(at, "htpasswd").write_text("".join(lines))
    with open(f"{at}/log", "wb") as log:
        process = subprocess.Popen([program, "serve", f"{at}/config.yml"], stdout=log, stderr=log)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"docker-registry did not start: {Path(at, 'log').read_text()}")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(at, ignore_errors=True)
