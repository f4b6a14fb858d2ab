"""Published ports as elements of the firewall's maps, packed by hand.

libnftables reads all tables of the machine with all that is in them before it changes anything, which a start should
not wait for. What the kernel sees is the same: one transaction.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import Iterable, Iterator

from backend.network.netlink import F_CREATE, NESTED, Netlink, attr, message
from backend.network.ruleset import Forwarding

MOST = 1000                                # ports in one transaction: what a socket takes at once
_NETFILTER = 12
_NEW, _DELETE = 10 << 8 | 12, 10 << 8 | 14     # NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM
_HEAD = struct.pack("!BBH", 1, 0, 0)           # family inet
_BEGIN = struct.pack("!BBH", 0, 0, 10)         # for subsystem nftables
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _DATA, _VALUE = 1, 1, 2, 1
_PROTOCOLS = {name: bytes([number, 0, 0, 0]) for name, number in (("tcp", 6), ("udp", 17), ("sctp", 132))}
_PORT = struct.Struct("!Hxx")
_GROUP = 500                               # elements of one message; a list of them has 64 KiB at most


class Elements:
    """The port maps of the table *table*. Changes are all or nothing: OSError, and nothing has changed."""

    def __init__(self, table: str) -> None:
        self._netlink = Netlink(_NETFILTER)
        self._table = attr(_TABLE, table.encode() + b"\0")

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def change(self, gone: Iterable[Forwarding], new: Iterable[Forwarding]) -> None:
        """Take *gone* out and put *new* in, at most :data:`MOST` together."""
        self._netlink.batch(_BEGIN, [*self._messages(_DELETE, 0, gone), *self._messages(_NEW, F_CREATE, new)])

    def _messages(self, kind: int, flags: int, ports: Iterable[Forwarding]) -> Iterator[bytes]:
        maps: dict[str, list[bytes]] = {}
        for port in ports:
            name, element = _packed(port)
            maps.setdefault(name, []).append(element)
        for name, elements in maps.items():
            for at in range(0, len(elements), _GROUP):
                yield message(kind, flags, _HEAD + self._table + attr(_SET, name.encode() + b"\0")
                              + attr(_ELEMENTS | NESTED, b"".join(elements[at:at + _GROUP])))


def _packed(port: Forwarding) -> tuple[str, bytes]:
    """Which map, and the element: the parts of a key or value each take a multiple of four bytes."""
    target, version = _address(port.target)
    protocol, inner = _PROTOCOLS[port.protocol], _PORT.pack(port.container_port)
    if not port.host_port:
        key = target + protocol + inner
        return f"open{version}", _frame(len(key), 0)[0] + key
    host = _address(port.host_ip)[0] if port.host_ip else b""
    key, value = host + protocol + _PORT.pack(port.host_port), target + inner
    before, between = _frame(len(key), len(value))
    return f"{'at' if host else 'any'}{version}", before + key + between + value


@functools.lru_cache(maxsize=1024)
def _address(text: str) -> tuple[bytes, int]:
    parsed = ipaddress.ip_address(text)
    return parsed.packed, parsed.version


@functools.cache
def _frame(key: int, value: int) -> tuple[bytes, bytes]:
    """What stands before a key and between it and its value, by their sizes."""
    data = attr(_DATA | NESTED, attr(_VALUE, bytes(value))) if value else b""
    whole = attr(_ELEMENT | NESTED, attr(_KEY | NESTED, attr(_VALUE, bytes(key))) + data)
    return whole[:12], data[:8]
