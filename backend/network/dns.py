"""The resolver that containers on user-defined networks ask: 127.0.0.11, port 53, UDP and TCP.

The sockets are bound to other ports, to which a firewall rule inside the container leads: a container may well run a
DNS server of its own on port 53 of all its addresses, which would fail if that port were taken on one of them. They are
opened inside the container's network namespace and served on the helper's loop: one server for all containers, nothing
running in any of them. Names of the container's networks are answered at once; the rest is passed on: to the servers
that the user named for the container from the container's own namespace (they may be reachable only there, another
container for one), else to the host's servers from the host's, so that a resolver on its loopback works.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.network import dnswire, resolvconf
from backend.network.dnswire import Malformed, Question
from backend.network.names import Names
from backend.network.resolvconf import EMBEDDED, ResolvConf

log = logging.getLogger(__name__)
Client = tuple[Any, ...]
Sockets = tuple[socket.socket, socket.socket]      # UDP, listening TCP
Inside = Callable[[int, Callable[[], Any]], Any]   # runs work in a network namespace and gives its result

_PORT = 53
_RCVBUFFORCE = 33          # SO_RCVBUFFORCE
_BURST = 4 << 20           # bytes; the kernel counts some 800 for a question, and takes no memory before there are any
_UPSTREAM = 2.0            # seconds for one server's answer; libc gives up after 5
_FORWARDED = 256           # questions of one container that may be under way upstream
_TCP_IDLE = 10.0           # seconds
_TCP_CLIENTS = 64          # connections of one container
_SYSTEMD = "/run/systemd/resolve/resolv.conf"     # the real servers behind systemd-resolved's stub


class HostResolver:
    """The host's resolv.conf, read again when it changes."""

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._known = ResolvConf()
        self._behind: HostResolver | None = None

    def current(self) -> ResolvConf:
        """What it says now; empty where there is none."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as source:
                    self._known = resolvconf.parse(source.read())
                self._stamp = stamp
        except OSError:
            self._known, self._stamp = ResolvConf(), None
        return self._known

    def for_containers(self) -> ResolvConf:
        """The same, with the real servers where only systemd-resolved's stub is named."""
        own = self.current()
        if own.servers and all(server == "127.0.0.53" for server in own.servers):
            self._behind = self._behind or HostResolver(_SYSTEMD)
            return self._behind.current() if os.path.exists(_SYSTEMD) else own
        return own


@dataclass(slots=True)
class _Served:
    """One container's sockets and work under way."""

    container_id: str
    udp: socket.socket
    tcp: asyncio.Server
    servers: tuple[str, ...] = ()       # the user's; () for the host's
    netns: int = -1                     # where the user's servers are asked; ours to close
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    clients: int = 0


class NameServer:
    """Serves all containers. *inside* runs work in a network namespace; *redirect* leads port 53 of 127.0.0.11 to the
    two ports given (UDP, TCP) in the namespace where it is called."""

    def __init__(self, names: Names, inside: Inside,
                 redirect: Callable[[int, int], None], host: HostResolver) -> None:
        self._names, self._inside, self._redirect, self._host = names, inside, redirect, host
        self._served: dict[str, _Served] = {}

    async def serve(self, container_id: str, netns: int, servers: Sequence[str] = ()) -> None:
        """Start to answer a container. *servers* replace the host's (``--dns``). Again: only they are changed."""
        known = self._served.get(container_id)
        if known is not None:
            self._direct(known, netns, servers)
            return
        udp, listening = self._inside(netns, self._open)
        try:
            tcp = await asyncio.start_server(
                lambda reader, writer: self._client(container_id, reader, writer), sock=listening)
        except BaseException:
            udp.close()
            listening.close()
            raise
        served = self._served[container_id] = _Served(container_id, udp, tcp)
        self._direct(served, netns, servers)
        asyncio.get_running_loop().add_reader(udp.fileno(), self._readable, served)

    @staticmethod
    def _direct(served: _Served, netns: int, servers: Sequence[str]) -> None:
        """Whom to ask from now on. The namespace is kept only where it is needed (the sockets keep it alive anyway)."""
        served.servers = tuple(servers)
        if servers and served.netns < 0:
            served.netns = fcntl.fcntl(netns, fcntl.F_DUPFD_CLOEXEC, 3)

    def _open(self) -> Sockets:
        """Inside the container's namespace."""
        udp = _bound(socket.SOCK_DGRAM)
        try:
            listening = _bound(socket.SOCK_STREAM)
            try:
                self._redirect(udp.getsockname()[1], listening.getsockname()[1])
            except BaseException:
                listening.close()
                raise
        except BaseException:
            udp.close()
            raise
        return udp, listening

    def stop(self, container_id: str) -> None:
        """Close a container's sockets: while open they keep its network namespace, and so its veth, alive."""
        served = self._served.pop(container_id, None)
        if served is None:
            return
        asyncio.get_running_loop().remove_reader(served.udp.fileno())
        served.udp.close()
        served.tcp.close()
        for task in served.tasks:
            task.cancel()
        if served.netns >= 0:
            os.close(served.netns)
            served.netns = -1

    def close(self) -> None:
        """Stop for all."""
        for container_id in list(self._served):
            self.stop(container_id)

    # -- questions -----------------------------------------------------------------------------------------------

    def _readable(self, served: _Served) -> None:
        for _ in range(64):      # then the rest of the helper has its turn
            try:
                data, client = served.udp.recvfrom(4096)
            except OSError:      # nothing left
                return
            try:
                question = dnswire.parse(data)
            except Malformed:
                self._reply(served, dnswire.refusal(data), client)
                continue
            answer = self._own(served, question, tcp=False)
            if answer is not None:
                self._reply(served, answer, client)
            elif len(served.tasks) >= _FORWARDED:
                self._reply(served, dnswire.failure(question, dnswire.SERVFAIL), client)
            else:
                self._start(served, self._forward_udp(served, question, data, client))

    def _start(self, served: _Served, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        served.tasks.add(task)
        task.add_done_callback(served.tasks.discard)

    @staticmethod
    def _reply(served: _Served, answer: bytes, client: Client) -> None:
        if answer and served.udp.fileno() >= 0:
            try:
                served.udp.sendto(answer, client)
            except OSError as problem:     # the asker is gone or its queue full: it asks again
                log.debug("an answer to %s was not taken: %s", served.container_id[:12], problem)

    def _own(self, served: _Served, question: Question, *, tcp: bool) -> bytes | None:
        """The answer to what we know; None: others may know."""
        container_id = served.container_id
        if not question.is_plain:
            return dnswire.failure(question, dnswire.NOTIMP)
        if question.kind == dnswire.PTR:
            address = dnswire.reverse_address(question.name)
            name = self._names.reverse(container_id, address) if address else ""
            return dnswire.pointer(question, name, tcp=tcp) if name else self._others(served, question)
        found = self._names.resolve(container_id, question.name)
        if found is None:
            return self._others(served, question)
        if question.kind in (dnswire.A, dnswire.AAAA):
            return dnswire.addresses(question, found, tcp=tcp)
        return dnswire.failure(question, dnswire.NOERROR)      # the name exists and has no such record

    def _others(self, served: _Served, question: Question) -> bytes | None:
        """What is said of names that are not ours: nothing leaves an internal network. The user's own servers may be on
        it: what goes to them from the container's namespace gets no further than the container itself could."""
        if served.servers or self._names.outbound(served.container_id):
            return None
        return dnswire.failure(question, dnswire.SERVFAIL)

    # -- forwarding ----------------------------------------------------------------------------------------------

    def _upstream(self, served: _Served) -> tuple[str, ...]:
        return served.servers or tuple(server for server in self._host.current().servers if server != EMBEDDED)

    async def _forward_udp(self, served: _Served, question: Question, query: bytes, client: Client) -> None:
        for server in self._upstream(served)[:3]:
            try:
                answer = await self._ask_udp(served, server, query)
            except (OSError, TimeoutError):
                continue
            if len(answer) > question.limit:
                answer = dnswire.truncated(question)
            self._reply(served, answer, client)
            return
        self._reply(served, dnswire.failure(question, dnswire.SERVFAIL), client)

    def _dialling(self, served: _Served, server: str, kind: int) -> socket.socket:
        """A socket in the namespace from which *server* is asked; of a port of its own, the kernel's random one."""
        family = socket.AF_INET6 if ":" in server else socket.AF_INET

        def make() -> socket.socket:
            return socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        if not served.servers:
            return make()
        if served.netns < 0:
            raise OSError(errno.ENETDOWN, "the container has ended")
        made: socket.socket = self._inside(served.netns, make)
        return made

    async def _ask_udp(self, served: _Served, server: str, query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with self._dialling(served, server, socket.SOCK_DGRAM) as made:
            made.connect((server, _PORT))
            made.send(query)
            async with asyncio.timeout(_UPSTREAM):
                while not dnswire.is_answer_to(answer := await loop.sock_recv(made, 65535), query):
                    pass
                return answer

    async def _ask_tcp(self, served: _Served, server: str, query: bytes) -> bytes:
        with self._dialling(served, server, socket.SOCK_STREAM) as made:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(_UPSTREAM):
                await loop.sock_connect(made, (server, _PORT))
            async with asyncio.timeout(2 * _UPSTREAM):
                await loop.sock_sendall(made, struct.pack("!H", len(query)) + query)
                size = struct.unpack("!H", await _received(made, 2))[0]
                return await _received(made, size)

    # -- TCP -----------------------------------------------------------------------------------------------------

    async def _client(self, container_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = self._served.get(container_id)
        task = asyncio.current_task()
        if served is None or task is None or served.clients >= _TCP_CLIENTS:
            writer.close()
            return
        served.clients += 1
        served.tasks.add(task)
        try:
            while True:
                query = await asyncio.wait_for(_framed(reader), _TCP_IDLE)
                answer = await self._answer_tcp(served, query)
                if not answer:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                await asyncio.wait_for(writer.drain(), _TCP_IDLE)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return       # the client has what it wanted, or is gone
        finally:
            served.clients -= 1
            served.tasks.discard(task)
            writer.close()

    async def _answer_tcp(self, served: _Served, query: bytes) -> bytes:
        try:
            question = dnswire.parse(query)
        except Malformed:
            return dnswire.refusal(query)
        answer = self._own(served, question, tcp=True)
        if answer is not None:
            return answer
        for server in self._upstream(served)[:3]:
            try:
                return await self._ask_tcp(served, server, query)
            except (OSError, TimeoutError):
                continue
        return dnswire.failure(question, dnswire.SERVFAIL)


async def _framed(reader: asyncio.StreamReader) -> bytes:
    size = struct.unpack("!H", await reader.readexactly(2))[0]
    return await reader.readexactly(size)


async def _received(made: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(made, size - len(data))
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, "the server ended the connection")
        data += piece
    return data


def _bound(kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.bind((EMBEDDED, 0))
        if kind == socket.SOCK_DGRAM:      # a burst of questions waits while the helper does something else
            made.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BURST)
        if kind == socket.SOCK_STREAM:
            made.listen(64)
    except BaseException:
        made.close()
        raise
    return made
