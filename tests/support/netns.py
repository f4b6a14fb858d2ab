"""Network namespaces for tests of the network room, without the keeper: a thread steps in and out by setns.

`Namespaces` is what the engine otherwise lends the room (``NetnsOps``). `Host` is a network namespace that plays the
whole machine, so that tests neither see nor disturb the real one.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import socket
import struct
from collections.abc import Callable
from fcntl import ioctl
from typing import Any, TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def here() -> int:
    """A descriptor of this thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(netns: int) -> None:
    _check(_libc.setns(netns, CLONE_NEWNET), "setns")


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        ioctl(control, 0x8914, struct.pack("16sH", b"lo", 0x1 | 0x40))     # SIOCSIFFLAGS: up, running


class Namespaces:
    """Makes namespaces and works inside them; counts what it gave out."""

    def __init__(self) -> None:
        self.given: list[int] = []

    async def fresh(self, count: int) -> list[int]:
        made = [self.make() for _ in range(count)]
        self.given += made
        return made

    def make(self) -> int:
        home = here()
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            loopback_up()
            return here()
        finally:
            enter(home)
            os.close(home)

    def inside(self, netns: int, work: Callable[[], T]) -> T:
        home = here()
        try:
            enter(netns)
            return work()
        finally:
            enter(home)
            os.close(home)


class Host:
    """A machine of its own: the calling thread lives in a fresh network namespace until `close`."""

    def __init__(self, tmp: str) -> None:
        self._home = here()
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        loopback_up()
        self.tmp = tmp

    def close(self) -> None:
        enter(self._home)
        os.close(self._home)


class Container:
    """A namespace with sockets opened inside it, and small servers on the test's loop."""

    def __init__(self, ops: Namespaces, netns: int) -> None:
        self.ops, self.netns = ops, netns
        self.id = secrets.token_hex(32)
        self._open: list[Any] = []

    def open(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        made = self.ops.inside(self.netns, lambda: socket.socket(family, kind | socket.SOCK_NONBLOCK))
        self._open.append(made)
        return made

    async def serve_tcp(self, port: int, *, family: int = socket.AF_INET) -> None:
        """Answers each connection with the client's address as the container sees it, then echoes."""
        listening = self.open(family=family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()
        self._open.append(await asyncio.start_server(answer, sock=listening))

    async def serve_udp(self, port: int) -> None:
        """Answers each datagram with the client's address and the datagram."""
        bound = self.open(socket.SOCK_DGRAM)
        bound.bind(("0.0.0.0", port))
        loop = asyncio.get_running_loop()

        def answer() -> None:
            data, client = bound.recvfrom(65536)
            bound.sendto(f"{client[0]} ".encode() + data, client)
        loop.add_reader(bound, answer)

    def connect(self, host: str, port: int, timeout: float = 3.0) -> Any:
        return dial(self.open(), host, port, timeout)

    def close(self) -> None:
        """What the end of a container does: its processes' sockets close, its namespace is let go."""
        loop = asyncio.get_running_loop()
        for thing in reversed(self._open):     # servers before the sockets that they listen on
            if isinstance(thing, socket.socket) and thing.fileno() >= 0:
                loop.remove_reader(thing)
            thing.close()
        self._open.clear()
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1


async def dial(made: socket.socket, host: str, port: int, timeout: float = 3.0) -> str:
    """Connect, and return the line that the server greets with. OSError or TimeoutError where nothing answers."""
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    with made:
        await asyncio.wait_for(loop.sock_connect(made, (host, port)), timeout)
        greeting = await asyncio.wait_for(loop.sock_recv(made, 100), timeout)
        await loop.sock_sendall(made, b"echo")
        if await asyncio.wait_for(loop.sock_recv(made, 100), timeout) != b"echo":
            raise OSError("the echo came back wrong")
        return greeting.decode().strip()


async def ask_udp(made: socket.socket, host: str, port: int, timeout: float = 3.0) -> str:
    loop = asyncio.get_running_loop()
    made.setblocking(False)
    with made:
        await loop.sock_connect(made, (host, port))
        await loop.sock_sendall(made, b"ping")
        return (await asyncio.wait_for(loop.sock_recv(made, 1000), timeout)).decode()


def tcp(family: int = socket.AF_INET) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)


def udp(family: int = socket.AF_INET) -> socket.socket:
    return socket.socket(family, socket.SOCK_DGRAM)
