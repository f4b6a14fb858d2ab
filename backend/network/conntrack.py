"""Forgets UDP flows that the kernel tracks along an old way.

A flow keeps the translation with which it began. A program that goes on sending from one port would therefore never
reach a container that published the port meanwhile, or go on being sent to one that has gone. TCP mends itself: such
a connection is reset. Numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections.abc import Collection

from backend.network.netlink import NESTED, Netlink, attr, attributes, message

log = logging.getLogger(__name__)

_NETFILTER = 12
_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_IP, _PROTOCOL = 1, 2
_SOURCE4, _DESTINATION4, _SOURCE6, _DESTINATION6 = 1, 2, 3, 4
_NUMBER, _DESTINATION_PORT = 1, 3
_BY_SOURCE, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5
_UDP = 17


class Conntrack:
    """The tracked flows of the network namespace in which it was made. The kernel filters (from 5.8 on); an older one
    lists all, and what does not fit is passed over here."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def forget_local(self, port: int, local: Collection[str], version: int = 4) -> int:
        """Forget flows to the UDP *port* of one of the addresses *local* of this host; how many."""
        inner = attr(_NUMBER, bytes([_UDP])) + attr(_DESTINATION_PORT, struct.pack("!H", port))
        body = _filter(_ORIGINAL, attr(_PROTOCOL | NESTED, inner), _BY_NUMBER | _BY_DESTINATION_PORT)
        count = 0
        for flow in self._list(version, body):
            original = attributes(flow.get(_ORIGINAL, b""))
            if _port(original) == port and _number(original) == _UDP and _address(original, source=False) in local:
                count += self._delete(version, flow)
        return count

    def forget_container(self, address: str) -> int:
        """Forget the UDP flows that are answered from *address*; how many."""
        parsed = ipaddress.ip_address(address)
        source = attr(_SOURCE4 if parsed.version == 4 else _SOURCE6, parsed.packed)
        wanted = attr(_IP | NESTED, source) + attr(_PROTOCOL | NESTED, attr(_NUMBER, bytes([_UDP])))
        count = 0
        for flow in self._list(parsed.version, _filter(_REPLY, wanted, _BY_SOURCE | _BY_NUMBER)):
            reply = attributes(flow.get(_REPLY, b""))
            if _number(reply) == _UDP and _address(reply, source=True) == str(parsed):
                count += self._delete(parsed.version, flow)
        return count

    def _list(self, version: int, body: bytes) -> list[dict[int, bytes]]:
        head = struct.pack("BBH", socket.AF_INET if version == 4 else socket.AF_INET6, 0, 0)
        return [attributes(found[4:]) for found in self._netlink.dump(_GET, head + body)]

    def _delete(self, version: int, flow: dict[int, bytes]) -> int:
        head = struct.pack("BBH", socket.AF_INET if version == 4 else socket.AF_INET6, 0, 0)
        try:
            self._netlink.talk(message(_DELETE, 0, head + attr(_ORIGINAL | NESTED, flow[_ORIGINAL])))
        except FileNotFoundError:      # ENOENT: it ended by itself meanwhile
            return 0
        return 1


def _filter(direction: int, wanted: bytes, flags: int) -> bytes:
    original, reply = (flags, 0) if direction == _ORIGINAL else (0, flags)
    chosen = attr(1, struct.pack("I", original)) + attr(2, struct.pack("I", reply))
    return attr(direction | NESTED, wanted) + attr(_FILTER | NESTED, chosen)


def _address(flow: dict[int, bytes], *, source: bool) -> str:
    found = attributes(flow.get(_IP, b""))
    packed = found.get(_SOURCE4, found.get(_SOURCE6)) if source else found.get(_DESTINATION4, found.get(_DESTINATION6))
    return str(ipaddress.ip_address(packed)) if packed else ""


def _number(flow: dict[int, bytes]) -> int:
    return attributes(flow.get(_PROTOCOL, b"")).get(_NUMBER, b"\0")[0]


def _port(flow: dict[int, bytes]) -> int:
    return int.from_bytes(attributes(flow.get(_PROTOCOL, b"")).get(_DESTINATION_PORT, b""), "big")
