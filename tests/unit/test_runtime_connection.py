"""The keeper's end of a helper's connection: what a helper that does not read costs."""

from __future__ import annotations

import json
import socket
from unittest.mock import Mock

from backend.runtime.keeper import Connection
from backend.runtime.loop import OUT, Loop


def test_a_stopped_helper_is_told_once_that_a_log_has_grown_however_long_it_sleeps() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop = Loop(lambda call, *given: bool(call(*given)))
    connection = Connection(loop, ours, Mock())
    for _ in range(20_000):
        connection.log_grown("a")
        connection.log_grown("b")
    assert len(connection._queue) <= 1
    theirs.setblocking(False)
    seen = []
    for _ in range(3):
        try:
            while True:
                seen.append(json.loads(theirs.recv(4096))["id"])
        except BlockingIOError:
            connection._ready(OUT)                  # it reads again
    assert set(seen[-2:]) == {"a", "b"}, "and that it has, last of all"
    connection.close()
    theirs.close()
