"""rtnetlink, packed by hand: a veth on its bridge costs 0.6 ms this way and 5 ms through a general library, whose
import would also cost the helper 13 MB. Only the messages that this room needs, each as a function that returns bytes.

Numbers are those of linux/rtnetlink.h, if_link.h and if_addr.h.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
NLMSG_ERROR, NLMSG_DONE = 2, 3
NFNL_BATCH_BEGIN, NFNL_BATCH_END = 16, 17
F_REQUEST, F_ACK, F_DUMP = 0x1, 0x4, 0x300
F_REPLACE, F_EXCL, F_CREATE = 0x100, 0x200, 0x400
F_ACK_TLVS = 0x200          # an error message carries the kernel's own words
NESTED = 0x8000
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD, IFLA_PROTINFO = 20, 26, 28, 12
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BRPORT_HAIRPIN, IFLA_BRPORT_ISOLATED, IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE = 4, 33, 8, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_F_NODAD = 1, 2, 4, 8, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
IFLA_EXT_MASK, SKIP_STATISTICS = 29, 1 << 3
IFF_UP = 1
AF_BRIDGE = 7


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel lists it; ``master`` is the index of its bridge (0: none)."""

    index: int
    name: str
    kind: str
    master: int
    alias: str
    mac: str
    mtu: int
    up: bool


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table, with the index of its device (0: none)."""

    subnet: ipaddress.IPv4Network | ipaddress.IPv6Network
    device: int


def attr(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = 4 + len(value)
    return struct.pack("HH", size, kind) + value + b"\0" * (-size % 4)


def _name(kind: int, text: str) -> bytes:
    return attr(kind, text.encode() + b"\0")


def _u32(kind: int, number: int) -> bytes:
    return attr(kind, struct.pack("I", number))


def _mac(text: str) -> bytes:
    return attr(IFLA_ADDRESS, bytes.fromhex(text.replace(":", "")))


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A request without its sequence number, which :class:`Netlink` fills in."""
    return struct.pack("IHHII", 16 + len(body), kind, flags | F_REQUEST | F_ACK, 0, 0) + body


def _mark(kind: int, body: bytes) -> bytes:
    """A message that nobody acknowledges."""
    return struct.pack("IHHII", 16 + len(body), kind, F_REQUEST, 0, 0) + body


def _link(index: int = 0, *, up: bool | None = None, family: int = 0) -> bytes:
    flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    return struct.pack("BxHiII", family, 0, index, flags, change)


def _family(address: str) -> tuple[int, bytes]:
    parsed = ipaddress.ip_address(address)
    return (socket.AF_INET if parsed.version == 4 else socket.AF_INET6), parsed.packed


def add_bridge(name: str, mac: str, mtu: int = 0) -> bytes:
    """Make a bridge. Its MAC is fixed: otherwise it is the lowest of its ports' and changes under open connections."""
    body = _link() + _name(IFLA_IFNAME, name) + _mac(mac) + (_u32(IFLA_MTU, mtu) if mtu else b"")
    info = attr(IFLA_LINKINFO | NESTED, _name(IFLA_INFO_KIND, "bridge"))
    return message(RTM_NEWLINK, F_CREATE | F_EXCL, body + info)


def add_veth(host: str, inner: str, netns: int, master: int, *, mac: str = "", mtu: int = 0) -> bytes:
    """A veth pair: *host* on the bridge *master* (still down), *inner* directly in the namespace *netns*."""
    size = _u32(IFLA_MTU, mtu) if mtu else b""
    peer = _link() + _name(IFLA_IFNAME, inner) + _u32(IFLA_NET_NS_FD, netns) + (_mac(mac) if mac else b"") + size
    info = _name(IFLA_INFO_KIND, "veth") + attr(IFLA_INFO_DATA | NESTED, attr(VETH_INFO_PEER | NESTED, peer))
    body = _link() + _name(IFLA_IFNAME, host) + _u32(IFLA_MASTER, master) + size + attr(IFLA_LINKINFO | NESTED, info)
    return message(RTM_NEWLINK, F_CREATE | F_EXCL, body)


def set_up(name: str) -> bytes:
    """Bring the device *name* up without a link-local IPv6 address (a bridge's port has no use for one, and each would
    cost duplicate detection and multicast listener reports)."""
    quiet = attr(socket.AF_INET6 | NESTED, attr(IFLA_INET6_ADDR_GEN_MODE, bytes([ADDR_GEN_NONE])))
    return message(RTM_NEWLINK, 0, _link(up=True) + _name(IFLA_IFNAME, name) + attr(IFLA_AF_SPEC | NESTED, quiet))


def set_link(index: int, *, up: bool | None = None, mac: str = "", alias: str = "", mtu: int = 0) -> bytes:
    """Change a device."""
    body = _link(index, up=up) + (_mac(mac) if mac else b"") + (attr(IFLA_IFALIAS, alias.encode()) if alias else b"")
    return message(RTM_NEWLINK, 0, body + (_u32(IFLA_MTU, mtu) if mtu else b""))


def move_link(index: int, name: str, netns: int) -> bytes:
    """Move a device, which is down, into the namespace *netns* and call it *name* there."""
    return message(RTM_NEWLINK, 0, _link(index, up=False) + _u32(IFLA_NET_NS_FD, netns) + _name(IFLA_IFNAME, name))


def add_upper(name: str, kind: str, parent: int, data: bytes, *, netns: int = -1, mac: str = "") -> bytes:
    """A device *kind* (macvlan, ipvlan, vlan) on top of the device *parent*, directly in the namespace *netns*."""
    place = _u32(IFLA_NET_NS_FD, netns) if netns >= 0 else b""
    info = _name(IFLA_INFO_KIND, kind) + attr(IFLA_INFO_DATA | NESTED, data)
    body = _link() + _name(IFLA_IFNAME, name) + _u32(IFLA_LINK, parent) + place + (_mac(mac) if mac else b"")
    return message(RTM_NEWLINK, F_CREATE | F_EXCL, body + attr(IFLA_LINKINFO | NESTED, info))


def macvlan_data(mode: str) -> bytes:
    """What :func:`add_upper` says of a macvlan."""
    return _u32(1, {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}[mode])


def ipvlan_data(mode: str, flag: str) -> bytes:
    """What :func:`add_upper` says of an ipvlan."""
    return (attr(1, struct.pack("H", {"l2": 0, "l3": 1, "l3s": 2}[mode]))
            + attr(2, struct.pack("H", {"bridge": 0, "private": 1, "vepa": 2}[flag])))


def vlan_data(tag: int) -> bytes:
    """What :func:`add_upper` says of a VLAN."""
    return attr(1, struct.pack("H", tag))


def add_dummy(name: str) -> bytes:
    """A device that leads nowhere."""
    info = attr(IFLA_LINKINFO | NESTED, _name(IFLA_INFO_KIND, "dummy"))
    return message(RTM_NEWLINK, F_CREATE | F_EXCL, _link() + _name(IFLA_IFNAME, name) + info)


def set_port(index: int, flag: int) -> bytes:
    """Switch a flag of a bridge's port on: ISOLATED (it speaks to no other isolated port) or HAIRPIN."""
    inner = attr(flag, b"\1")
    return message(RTM_SETLINK, 0, _link(index, family=AF_BRIDGE) + attr(IFLA_PROTINFO | NESTED, inner))


def delete_link(index: int) -> bytes:
    """Delete a device (and a veth's peer). Slow in the kernel: 15 to 28 ms."""
    return message(RTM_DELLINK, 0, _link(index))


def get_link(name: str) -> bytes:
    """Ask for one device by name; the answer is read by :func:`parse_link`."""
    return message(RTM_GETLINK, 0, _link() + _name(IFLA_IFNAME, name))


def add_address(index: int, address: str, prefix: int) -> bytes:
    """Give a device an address. IPv6 without duplicate detection: the address manager knows that it is free, and a
    program that binds at once would fail on a tentative address."""
    family, packed = _family(address)
    body = struct.pack("BBBBI", family, prefix, 0, 0, index) + attr(IFA_LOCAL, packed) + attr(IFA_ADDRESS, packed)
    if family == socket.AF_INET:
        broadcast = ipaddress.ip_interface(f"{address}/{prefix}").network.broadcast_address.packed
        body += attr(IFA_BROADCAST, broadcast)
    else:
        body += _u32(IFA_FLAGS, IFA_F_NODAD)
    return message(RTM_NEWADDR, F_CREATE | F_REPLACE, body)


def delete_address(index: int, address: str, prefix: int) -> bytes:
    """Take an address from a device."""
    family, packed = _family(address)
    return message(RTM_DELADDR, 0, struct.pack("BBBBI", family, prefix, 0, 0, index) + attr(IFA_LOCAL, packed))


def _default(gateway: str, index: int) -> bytes:
    family, packed = _family(gateway)
    # main table, proto static, scope universe, unicast
    return struct.pack("BBBBBBBBI", family, 0, 0, 0, 254, 4, 0, 1, 0) + attr(RTA_GATEWAY, packed) + _u32(RTA_OIF, index)


def set_default(gateway: str, index: int) -> bytes:
    """Make *gateway* the default route, in place of another one."""
    return message(RTM_NEWROUTE, F_CREATE | F_REPLACE, _default(gateway, index))


def set_direct(version: int, index: int) -> bytes:
    """Make a device itself the default route."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    scope = 253 if version == 4 else 0      # link: no gateway in between
    head = struct.pack("BBBBBBBBI", family, 0, 0, 0, 254, 4, scope, 1, 0)
    return message(RTM_NEWROUTE, F_CREATE | F_REPLACE, head + _u32(RTA_OIF, index))


def add_route(subnet: str, index: int, gateway: str = "") -> bytes:
    """A route to *subnet*, by *gateway* or by the device itself."""
    network = ipaddress.ip_network(subnet)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    scope = 253 if network.version == 4 and not gateway else 0
    head = struct.pack("BBBBBBBBI", family, network.prefixlen, 0, 0, 254, 4, scope, 1, 0)
    way = attr(RTA_GATEWAY, _family(gateway)[1]) if gateway else b""
    return message(RTM_NEWROUTE, F_CREATE | F_REPLACE,
                   head + attr(RTA_DST, network.network_address.packed) + way + _u32(RTA_OIF, index))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in *data* by number, nested bit removed; the last of a kind wins."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4:at + size]
        at += (size + 3) & ~3
    return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], sys.byteorder)


def parse_link(body: bytes) -> Link:
    """A device from the body of an RTM_NEWLINK."""
    _, _, index, flags, _ = struct.unpack_from("BxHiII", body)
    found = attributes(body[16:])
    info = attributes(found.get(IFLA_LINKINFO, b""))
    return Link(index, _text(found.get(IFLA_IFNAME, b"")), _text(info.get(IFLA_INFO_KIND, b"")),
                _number(found.get(IFLA_MASTER, b"")), _text(found.get(IFLA_IFALIAS, b"")),
                found.get(IFLA_ADDRESS, b"").hex(":"), _number(found.get(IFLA_MTU, b"")), bool(flags & IFF_UP))


def _parse_route(body: bytes) -> Route | None:
    family, size, _, _, table = struct.unpack_from("BBBBB", body)
    found = attributes(body[12:])
    if _number(found.get(RTA_TABLE, bytes([table]))) != 254 or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    packed = found.get(RTA_DST, b"\0" * (4 if family == socket.AF_INET else 16))
    return Route(ipaddress.ip_network((packed, size)), _number(found.get(RTA_OIF, b"")))


class Netlink:
    """One netlink socket, rtnetlink's unless *protocol* says otherwise. It speaks for the network namespace in which it
    was made, wherever its user is later."""

    def __init__(self, protocol: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def talk(self, *messages: bytes) -> list[bytes]:
        """Send the requests in one datagram; the bodies of what came back besides acknowledgements.

        All acknowledgements are read before the first failure is raised (OSError with the kernel's words): one left
        in the socket would be taken for the answer to the next request.
        """
        packed = bytearray()
        waiting = {self._numbered(packed, message) for message in messages}
        self._socket.send(packed)
        return self._answers(waiting)

    def batch(self, head: bytes, messages: Sequence[bytes]) -> None:
        """Send netfilter's requests as one transaction: all happen or, with an OSError, none. *head* says whose."""
        packed = bytearray()
        begin = self._numbered(packed, _mark(NFNL_BATCH_BEGIN, head))
        waiting = {self._numbered(packed, each) for each in messages}
        self._numbered(packed, _mark(NFNL_BATCH_END, head))
        self._socket.send(packed)
        self._answers(waiting, begin)

    def _numbered(self, packed: bytearray, message: bytes) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        packed += message[:8] + struct.pack("I", self._sequence) + message[12:]
        return self._sequence

    def _answers(self, waiting: set[int], begin: int = -1) -> list[bytes]:
        """*begin*: the number of a request that is answered only when all of them have failed."""
        answers: list[bytes] = []
        failure: OSError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if sequence == begin and kind == NLMSG_ERROR:
                    raise self._failure(flags, body) or OSError("netlink: an answer without sense")
                if sequence not in waiting:
                    continue
                if kind == NLMSG_ERROR:
                    waiting.discard(sequence)
                    failure = failure or self._failure(flags, body)
                else:
                    answers.append(body)
        if failure is not None:
            raise failure
        return answers

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        at = 0
        while at + 16 <= len(data):
            size, kind, flags, sequence, _ = struct.unpack_from("IHHII", data, at)
            yield kind, flags, sequence, data[at + 16:at + size]
            at += (size + 3) & ~3

    @staticmethod
    def _failure(flags: int, body: bytes) -> OSError | None:
        code = -struct.unpack_from("i", body)[0]
        if not code:
            return None
        words = ""
        if flags & F_ACK_TLVS:
            # after the errno the kernel repeats our request (whole, unless it capped it) and then explains
            length = struct.unpack_from("I", body, 4)[0] if not flags & 0x100 else 16
            words = _text(attributes(body[4 + ((length + 3) & ~3):]).get(1, b""))
        return OSError(code, words or os.strerror(code))

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All that the kernel lists for a request: the bodies."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        head = struct.pack("IHHII", 16 + len(body), kind, F_REQUEST | F_DUMP, self._sequence, 0)
        self._socket.send(head + body)
        answers: list[bytes] = []
        while True:
            for got, _, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if got == NLMSG_DONE:
                    return answers
                if got == NLMSG_ERROR:
                    raise self._failure(0, data) or OSError("netlink: a dump ended without its end")
                answers.append(data)

    def link(self, name: str) -> Link | None:
        """The device *name*, or None."""
        try:
            return parse_link(self.talk(get_link(name))[0])
        except OSError as problem:
            if problem.errno == 19:   # ENODEV
                return None
            raise

    def links(self, master: int = 0) -> list[Link]:
        """All devices of the namespace, or those on the bridge *master*."""
        wish = _u32(IFLA_EXT_MASK, SKIP_STATISTICS)      # they are most of an answer
        if master:
            wish += _u32(IFLA_MASTER, master)
        found = [parse_link(body) for body in self.dump(RTM_GETLINK, _link() + wish)]
        return [link for link in found if master in (0, link.master)]      # an old kernel does not choose

    def routes(self) -> list[Route]:
        """All routes of the main table, both families. The kernel leaves the other tables out where it can choose."""
        found: list[Route] = []
        self._strict(True)
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                for body in self.dump(RTM_GETROUTE, struct.pack("BBBBBBBBI", family, 0, 0, 0, 254, 0, 0, 0, 0)):
                    route = _parse_route(body)
                    if route is not None:
                        found.append(route)
        finally:
            self._strict(False)
        return found

    def _strict(self, on: bool) -> None:
        try:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, int(on))
        except OSError:      # before Linux 4.20: it lists everything
            return

    def addresses(self, index: int = 0) -> list[str]:
        """The addresses of one device (0: of all), with prefix lengths."""
        found = []
        for body in self.dump(RTM_GETADDR, struct.pack("BBBBI", 0, 0, 0, 0, 0)):
            family, prefix, _, _, at = struct.unpack_from("BBBBI", body)
            attrs = attributes(body[8:])
            packed = attrs.get(IFA_LOCAL, attrs.get(IFA_ADDRESS, b""))
            if index in (0, at) and family in (socket.AF_INET, socket.AF_INET6):
                found.append(f"{ipaddress.ip_address(packed)}/{prefix}")
        return found
