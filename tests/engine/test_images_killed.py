"""A helper that is killed in the middle of what it does with images: nothing half-made is seen, the next try succeeds."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import docker_archive, tar_of
from tests.support.liar import Liar, Talk
from tests.support.private import PrivateHelper, docker_client

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
BIG = tar_of([("big", random.Random(7).randbytes(6_000_000))])


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        yield made


def begun(helper: PrivateHelper, head: str, body: bytes = b"") -> socket.socket:
    """A request of which only a part is sent, or whose answer is not waited for."""
    wire = socket.socket(socket.AF_UNIX)
    wire.settimeout(30)
    wire.connect(helper.socket)
    wire.sendall(f"{head}\r\nHost: x\r\n".encode() + (body or b"\r\n"))
    return wire


def killed(helper: PrivateHelper) -> None:
    helper.leave(signal.SIGKILL)
    helper.start()


def names(helper: PrivateHelper) -> list[str]:
    return sorted(helper.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.decode().split())


def left(helper: PrivateHelper) -> list[str]:
    return [name for folder in ("ingest", "trash") for name in os.listdir(f"{helper.data}/images/{folder}")]


def test_killed_in_a_load_the_store_opens_and_the_next_load_succeeds(helper: PrivateHelper) -> None:
    archive = docker_archive([BIG], tag="killed/load:1")
    part = archive[: len(archive) // 2]
    with begun(helper, "POST /images/load HTTP/1.1", f"Content-Length: {len(archive)}\r\nContent-Type: application/x-tar\r\n\r\n".encode() + part):
        ingest = Path(helper.data, "images/ingest")
        while not any(one.stat().st_size > 1_000_000 for one in ingest.iterdir()):
            time.sleep(0.01)
        killed(helper)
    assert names(helper) == [] and left(helper) == []
    helper.docker("load", stdin=archive)
    assert names(helper) == ["killed/load:1"]
    helper.docker("rmi", "killed/load:1")


def test_killed_in_a_save_and_a_push_the_image_is_whole(helper: PrivateHelper) -> None:
    helper.docker("load", stdin=docker_archive([BIG], tag="killed/save:1"))
    with begun(helper, "GET /images/killed%2Fsave:1/get HTTP/1.1") as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 200")
        killed(helper)
    with Liar() as liar:
        begins = threading.Event()

        def wait(talk: Talk) -> bool:
            begins.set()
            liar.released.wait(30)
            return talk.hang_up()

        liar.lie("PATCH", "/uploads/", wait)
        liar.lie("PUT", "/uploads/", wait)
        helper.docker("tag", "killed/save:1", f"{liar.host}/killed/push:1")
        with begun(helper, f"POST /images/{liar.host}/killed/push/push?tag=1 HTTP/1.1", b"X-Registry-Auth: e30=\r\nContent-Length: 0\r\n\r\n"):
            assert begins.wait(30)
            killed(helper)
        liar._lies.clear()
        helper.docker("push", f"{liar.host}/killed/push:1")
        assert "killed/push:1" in liar.manifests
        helper.docker("rmi", f"{liar.host}/killed/push:1")
    data = helper.docker("save", "killed/save:1").stdout
    helper.docker("rmi", "killed/save:1")
    helper.docker("load", stdin=data)
    assert names(helper) == ["killed/save:1"]
    helper.docker("rmi", "killed/save:1")


def test_killed_after_a_removal_was_answered_the_image_is_gone_and_its_place_is_free(helper: PrivateHelper) -> None:
    helper.docker("load", stdin=docker_archive([BIG], tag="killed/gone:1"))
    helper.docker("rmi", "killed/gone:1")
    killed(helper)
    assert names(helper) == [] and left(helper) == []
    assert os.listdir(f"{helper.data}/images/blobs/sha256") == []
