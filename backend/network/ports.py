"""Host ports: each published one is held by a bound socket of ours, so that no other program can take it meanwhile.

TCP holders listen, as a server would: only a listening socket keeps out another program that sets SO_REUSEADDR, and
SO_REUSEADDR is needed here so that connections of a former server in TIME_WAIT do not keep us out. What arrives for an
IPv4 port is redirected by the firewall before it gets to the holder; IPv6 connections that cannot be redirected are
served on the holder itself (see forwarder.py).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from backend.errors import InvalidArgument, NotImplemented_, ServerError
from backend.network.holder import holder
from backend.network.ipam import parse_address
from backend.network.records import PortWish

PROTOCOLS = ("tcp", "udp", "sctp")
_WORDS = {errno.EADDRINUSE: "address already in use", errno.EADDRNOTAVAIL: "cannot assign requested address",
          errno.EACCES: "permission denied"}


@dataclass(slots=True)
class Held:
    """A host port that is ours, with the socket that holds it."""

    protocol: str
    host_ip: str
    host_port: int
    socket: socket.socket
    owner: str = field(default="")

    @property
    def is_v6(self) -> bool:
        """The socket is an IPv6 one."""
        return ":" in self.host_ip


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 <= int(text[:6]) <= 65535):
        raise InvalidArgument(f"invalid port: {text}")
    return int(text)


def parse_wish(container: str, host_ip: str, host_port: str) -> PortWish:
    """One entry of the API's ``PortBindings``: "80/tcp", a host address or "", and "", "8080" or "8000-8010"."""
    number, _, protocol = container.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol}")
    inner = _port(number)
    if not inner:
        raise InvalidArgument(f"invalid port: {number}")
    if host_ip:
        host_ip = str(parse_address(host_ip))
    first, dash, last = host_port.partition("-")
    start = _port(first) if first else 0
    end = _port(last) if dash else 0
    if dash and not 0 < start <= end:
        raise InvalidArgument(f"invalid range format for HostPort: {host_port}")
    return PortWish(inner, protocol, host_ip, start, end if end > start else 0)


def _bind(protocol: str, host_ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    if protocol == "udp":
        kind, number = socket.SOCK_DGRAM, 0
    else:
        kind, number = socket.SOCK_STREAM, 132 if protocol == "sctp" else 0
    holder = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, number)
    try:
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host_ip, port))
        if protocol == "tcp":
            holder.listen(128)
    except BaseException:
        holder.close()
        raise
    return holder


class PortAllocator:
    """Gives host ports out, each once. *ephemeral* is the range for ports that the client left open."""

    def __init__(self, ephemeral: tuple[int, int] = (32768, 60999)) -> None:
        self._held: dict[tuple[str, int], list[Held]] = {}
        self._first, self._last = ephemeral
        self._next = self._first
        self.ipv6 = self._has_ipv6()

    @staticmethod
    def _has_ipv6() -> bool:
        try:
            _bind("udp", "::1", 0).close()
        except OSError:      # no IPv6 in this kernel, or switched off
            return False
        return True

    def hold(self, wish: PortWish, addresses: Sequence[str], target: str, owner: str) -> list[Held]:
        """Bind what *wish* asks for on each of the host's *addresses*, all on one port.

        ServerError in dockerd's words: "Bind for A:P failed: port is already allocated" when it is ours already,
        "failed to bind host port for A:P:T:C/proto: address already in use" when another program has it.
        """
        usable = [address for address in addresses if self.ipv6 or ":" not in address or wish.host_ip]
        problem: ServerError | None = None
        for port in self._candidates(wish):
            try:
                return self._hold(wish, usable, port, target, owner)
            except ServerError as refused:
                problem = problem or refused
                if isinstance(refused.__cause__, OSError) and refused.__cause__.errno != errno.EADDRINUSE:
                    raise
        raise problem if problem is not None and wish.host_port else ServerError(
            f"all ports between {self._first} and {self._last} are allocated")

    def _candidates(self, wish: PortWish) -> Iterator[int]:
        if wish.host_port:
            yield from range(wish.host_port, (wish.host_port_end or wish.host_port) + 1)
            return
        for _ in range(self._last - self._first + 1):
            port = self._next
            self._next = self._first if port >= self._last else port + 1
            yield port

    def _hold(self, wish: PortWish, addresses: Iterable[str], port: int, target: str, owner: str) -> list[Held]:
        done: list[Held] = []
        try:
            for address in addresses:
                self._refuse_taken(wish.protocol, address, port)
                bound = self._bound(wish, address, port, target)
                held = Held(wish.protocol, address, port, bound, owner)
                self._held.setdefault((wish.protocol, port), []).append(held)
                done.append(held)
        except BaseException:
            self.release(done)
            raise
        return done

    def _refuse_taken(self, protocol: str, address: str, port: int) -> None:
        for other in self._held.get((protocol, port), ()):
            same_family = other.is_v6 == (":" in address)
            if same_family and (other.host_ip == address or {other.host_ip, address} & {"0.0.0.0", "::"}):
                where = f"[{address}]" if ":" in address else address
                by = f" (to the container {other.owner})" if other.owner else ""
                raise ServerError(f"Bind for {where}:{port} failed: port is already allocated{by}")

    @staticmethod
    def _bound(wish: PortWish, address: str, port: int, target: str) -> socket.socket:
        try:
            return _bind(wish.protocol, address, port)
        except OSError as problem:
            if problem.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
                raise NotImplemented_(f"this kernel has no {wish.protocol}: port {port}/{wish.protocol} "
                                      "cannot be published") from None
            where = f"[{address}]" if ":" in address else address
            words = _WORDS.get(problem.errno or 0, problem.strerror or str(problem))
            if problem.errno == errno.EADDRINUSE and wish.host_port and not wish.host_port_end:
                who = holder(wish.protocol, port)
                words += f" (held by {who})" if who else ""
            raise ServerError(f"failed to bind host port for {where}:{port}:{target}:{wish.container_port}"
                              f"/{wish.protocol}: {words}") from problem

    def release(self, holders: Iterable[Held]) -> None:
        """Close the sockets and forget the ports."""
        for held in holders:
            held.socket.close()
            same = self._held.get((held.protocol, held.host_port), [])
            if held in same:
                same.remove(held)
            if not same:
                self._held.pop((held.protocol, held.host_port), None)

    def count(self) -> int:
        """How many ports are held."""
        return sum(map(len, self._held.values()))
