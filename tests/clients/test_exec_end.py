"""`docker exec` asks for the exit code once, when the output ends: a code that comes later is lost to its user."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.bench.wire import Wire, drain, hijack
from tests.support.private import PrivateHelper
from tests.support.roots import busybox_tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own")


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        Wire(made.socket).upload("/images/create?fromSrc=-&repo=busybox&tag=latest", busybox_tar())
        yield made


def test_whoever_sees_the_end_of_an_execs_output_can_read_its_exit_code(helper: PrivateHelper) -> None:
    wire = Wire(helper.socket)
    made = wire.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"]})["Id"]
    wire.call("POST", f"/containers/{made}/start")
    try:
        for n in range(60):
            body = {"Cmd": ["sh", "-c", f"exit {n}"], "AttachStdout": True, "AttachStderr": True}
            one = wire.call("POST", f"/containers/{made}/exec", body)["Id"]
            drain(hijack(helper.socket, f"/exec/{one}/start", {"Detach": False, "Tty": False}))
            found = wire.call("GET", f"/exec/{one}/json")
            assert (found["Running"], found["ExitCode"]) == (False, n)
    finally:
        wire.call("DELETE", f"/containers/{made}?force=1")
