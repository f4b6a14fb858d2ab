"""Attach as a page in a browser does it: over a WebSocket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

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
        yield made


@pytest.fixture
async def session(helper: PrivateHelper) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(helper.socket)) as made:
        yield made


async def read(wire: aiohttp.ClientWebSocketResponse) -> bytes:
    out = b""
    async for message in wire:
        assert message.type is aiohttp.WSMsgType.BINARY
        out += message.data
    return out


@pytest.mark.parametrize("tty", [True, False])
async def test_a_page_types_and_reads_and_hears_the_end(helper: PrivateHelper, session: aiohttp.ClientSession, tty: bool) -> None:
    made = helper.docker("create", "-i", *(["-t"] if tty else []), "--network", "none", "busybox", "sh", "-c", "read a; echo got $a; echo done >&2")
    ref = made.stdout.decode().strip()
    async with session.ws_connect(f"/v1.51/containers/{ref}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1") as wire:
        helper.docker("start", ref)
        await wire.send_bytes(b"hello\n")
        said = (await read(wire)).replace(b"\r", b"")
    assert said.endswith(b"got hello\ndone\n")
    async with session.ws_connect(f"/v1.51/containers/{ref}/attach/ws?logs=1&stdout=1&stderr=1") as wire:
        assert b"got hello" in await read(wire)
    helper.docker("rm", ref)


async def test_a_page_that_leaves_does_not_end_the_program(helper: PrivateHelper, session: aiohttp.ClientSession) -> None:
    ref = helper.docker("run", "-di", "--network", "none", "busybox", "cat").stdout.decode().strip()
    async with session.ws_connect(f"/containers/{ref}/attach/ws?stream=1&stdin=1&stdout=1") as wire:
        await wire.send_bytes(b"one\n")
        assert (await wire.receive_bytes()) == b"one\n"
    async with session.ws_connect(f"/containers/{ref}/attach/ws?stream=1&stdin=1&stdout=1") as wire:
        await wire.send_bytes(b"two\n")
        assert (await wire.receive_bytes()) == b"two\n"
    helper.docker("rm", "-f", ref)


async def test_what_cannot_be_attached_to_is_an_ordinary_refusal(session: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await session.ws_connect("/containers/nosuch/attach/ws?stream=1")
    assert caught.value.status == 404
    async with session.get("/containers/nosuch/attach/ws") as reply:
        assert (reply.status, (await reply.json())["message"]) == (404, "No such container: nosuch")
