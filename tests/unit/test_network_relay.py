"""Connections that the kernel cannot redirect are carried whole: all bytes, both ways, each end and each fault."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from backend.network.forwarder import TcpForwarder

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Relay:
    """A relay to a server inside the test."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.port = self.listening.getsockname()[1]
        self.server: Any = None
        self.forwarder: Any = None

    async def to(self, serve: Serve) -> None:
        self.server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.forwarder = TcpForwarder(self.listening, "127.0.0.1", self.server.sockets[0].getsockname()[1])

    async def ended(self) -> None:
        for _ in range(500):
            if not self.forwarder._connections and not self.forwarder._tasks:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a connection was left behind")


@pytest_asyncio.fixture
async def relay() -> AsyncIterator[Relay]:
    before = len(os.listdir("/proc/self/fd"))
    made = Relay()
    yield made
    made.forwarder.close()
    made.listening.close()
    made.server.close()
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "descriptors were left behind"


async def test_every_byte_arrives_and_comes_back_also_when_the_reader_is_slow(relay: Relay) -> None:
    async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = hashlib.sha256()
        data = b""
        while piece := await reader.read(1 << 16):
            seen.update(piece)
            data += piece
            if len(data) % 7 == 0:
                await asyncio.sleep(0.001)
        writer.write(seen.hexdigest().encode() + data)
        await writer.drain()
        writer.close()

    await relay.to(digest)
    sent = os.urandom(5 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(sent)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(-1), 60)
    assert answer[:64].decode() == hashlib.sha256(sent).hexdigest() and answer[64:] == sent
    writer.close()
    await relay.ended()


async def test_a_reset_of_either_side_ends_both(relay: Relay) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = await reader.readexactly(1)
        if order == b"r":
            reset(writer.get_extra_info("socket"))
            writer.transport.abort()
            return
        try:
            await reader.read()
        except ConnectionResetError:
            pass
        ended.set()
        writer.close()

    await relay.to(serve)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"r")
    try:
        assert await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        pass
    await relay.ended()
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"w")
    await writer.drain()
    reset(writer.get_extra_info("socket"))
    writer.transport.abort()
    await asyncio.wait_for(ended.wait(), 10)
    await relay.ended()


def reset(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_a_port_that_nobody_listens_on_ends_the_client(relay: Relay) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    await relay.to(never)
    relay.server.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await relay.ended()


async def test_the_end_of_a_publication_ends_its_connections(relay: Relay) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    await relay.to(hold)
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    while not relay.forwarder._connections:
        await asyncio.sleep(0.01)
    relay.forwarder.close()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
