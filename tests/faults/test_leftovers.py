"""What fails or ends leaves nothing behind: a desktop runs for months, and a leak a day is a restart a week."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.leftovers import Census, census, settled
from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        for _ in range(3):  # pools fill, modules load: the census is of a helper that has worked
            made.docker("run", "--rm", "busybox", "true")
            made.docker("run", "--rm", "--network", "none", "busybox", "true")
        yield made


def nothing_left(helper: PrivateHelper, before: Census) -> None:
    deadline = time.monotonic() + 10
    while left := census(helper).grown_since(before):
        assert time.monotonic() < deadline, "left behind:\n  " + "\n  ".join(left)
        time.sleep(0.2)


@pytest.mark.parametrize(("why", "arguments", "code", "says"), [
    ("the program does not exist", ["busybox", "/no/such/program"], 127, b"no such file or directory"),
    ("the program is not in PATH", ["busybox", "nosuchprogram"], 127, b"executable file not found"),
    ("the program is not executable", ["busybox", "/etc/passwd"], 126, b"permission denied"),
    ("the user does not exist", ["-u", "nobodyknows", "busybox", "true"], 125, b"unable to find user nobodyknows"),
    ("the working directory is a file", ["-w", "/etc/passwd", "busybox", "true"], 125, b"not a directory"),
    ("a mount's source is missing", ["--mount", "type=bind,src=/no/such/place,dst=/x", "busybox", "true"], 125, b"bind source path does not exist"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_a_container_that_fails_to_start_leaves_nothing(helper: PrivateHelper, why: str, arguments: list[str], code: int, says: bytes) -> None:
    before = settled(helper)
    done = helper.docker("run", "--rm", *arguments, check=False)
    assert (done.returncode, says.lower() in done.stderr.lower()) == (code, True), (why, done.returncode, done.stderr)
    nothing_left(helper, before)
    assert helper.docker("ps", "-aq").stdout == b""


def test_a_port_in_use_is_refused_by_name_and_leaves_nothing(helper: PrivateHelper) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = settled(helper)
        done = helper.docker("run", "--name", "wants", "-p", f"{port}:80", "busybox", "true", check=False)
        assert done.returncode == 125
        assert str(port).encode() in done.stderr
        assert b"in use" in done.stderr or b"already allocated" in done.stderr
        helper.docker("rm", "wants")
        nothing_left(helper, before)


def test_many_lives_leave_nothing(helper: PrivateHelper) -> None:
    before = settled(helper)
    for n in range(20):
        network = "none" if n % 2 else "bridge"
        helper.docker("run", "--rm", "--network", network, "-p" if n % 4 == 0 else "--label", "127.0.0.1::80" if n % 4 == 0 else "x=y", "busybox", "true")
    nothing_left(helper, before)
