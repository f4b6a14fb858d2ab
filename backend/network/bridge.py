"""The kernel's side of a bridge network: the bridge, its addresses and settings, and veth pairs into containers.

Every device of ours can be told from others': bridges carry the helper's instance as their alias, and veths are ports
of such a bridge. So what a dead helper left behind is found and removed without touching anybody else's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from backend.errors import InvalidArgument, ServerError
from backend.network import netlink
from backend.network.netlink import Netlink
from backend.network.options import ISOLATED, BridgeOptions, bridge_device, bridge_options
from backend.network.records import Network

T = TypeVar("T")
log = logging.getLogger(__name__)
_SYSCTL = "/proc/sys/net"
EEXIST, ENODEV = 17, 19


class NetnsOps(Protocol):
    """What the engine lends us: descriptors of network namespaces, and a way into them."""

    async def fresh(self, count: int) -> list[int]:
        """Descriptors of *count* new network namespaces with lo up."""

    def inside(self, netns: int, work: Callable[[], T]) -> T:
        """Run *work* in this thread inside the namespace, and come back."""


@dataclass(frozen=True, slots=True)
class Addressing:
    """What a container's device is given: addresses with prefix lengths, gateways where it may be the way out, settings
    (paths below /proc/sys/net with IFNAME for the device). ``direct``: the way out is the device itself; ``more``:
    further addresses."""

    ipv4: str = ""
    prefix4: int = 0
    gateway4: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    direct: bool = False
    more: tuple[tuple[str, int], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    mtu: int = 0


def write_sysctl(path: str, value: str) -> None:
    """Write a setting below /proc/sys/net of the calling thread's network namespace."""
    descriptor = os.open(f"{_SYSCTL}/{path}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def read_sysctl(path: str) -> str:
    """Read a setting below /proc/sys/net; "" where the kernel does not have it."""
    try:
        with open(f"{_SYSCTL}/{path}", encoding="ascii") as source:
            return source.read().strip()
    except FileNotFoundError:
        return ""


def device_name(index: int) -> str:
    """The name of a device of the host's, as the kernel has it."""
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return "a gateway"


def default_bridge_name(instance: str) -> str:
    """``slipway0`` for the installed helper, ``sw<6 hex>`` for private ones."""
    if instance == "slipway":
        return "slipway0"
    tail = instance.rpartition("-")[2]
    known = re.fullmatch(r"[0-9a-f]{8}", tail)
    return "sw" + (tail if known else hashlib.sha256(instance.encode()).hexdigest())[:6]


def bridge_name(network_id: str, options: dict[str, str]) -> str:
    """The device of a user-defined network: as asked for, otherwise ``br-`` and the ID's beginning, as Docker's."""
    return bridge_device(options) or f"br-{network_id[:12]}"


def random_mac() -> str:
    """A locally administered unicast MAC address."""
    return bytes([0x02, *secrets.token_bytes(5)]).hex(":")


class Bridges:
    """Makes and removes devices, in the network namespace where it was made. Calls take up to a millisecond, except
    deletions, which take the kernel 15 to 28 ms each and run in a thread of their own."""

    def __init__(self, instance: str, ops: NetnsOps) -> None:
        self._alias = f"slipway:{instance}"
        self._ops = ops
        self._netlink = Netlink()
        self._deleter = ThreadPoolExecutor(1, "network-teardown")
        self._slow = Netlink()      # the deleter's own
        self.ahead = Netlink()      # for the thread that makes namespaces ahead
        self._index: dict[str, int] = {}
        self._named: dict[int, str] = {}
        self._leaving: dict[str, Future[None]] = {}

    def close(self) -> None:
        """Finish the deletions and close the sockets. Devices stay."""
        self._deleter.shutdown(wait=True)
        self._netlink.close()
        self._slow.close()
        self.ahead.close()

    # -- bridges -------------------------------------------------------------------------------------------------

    def routes(self) -> list[netlink.Route]:
        """What the host routes."""
        return self._netlink.routes()

    def name_of(self, index: int) -> str:
        """What the device of a route is called; a route without one leads to a gateway."""
        if index not in self._named:
            self._named = {number: name for name, number in self._index.items()}
        return self._named.get(index) or device_name(index)

    def local(self) -> set[str]:
        """The host's own addresses."""
        return {text.partition("/")[0] for text in self._netlink.addresses()}

    def ensure(self, network: Network) -> None:
        """Make the bridge of *network* as its record says, or bring an existing one to that."""
        name = network.bridge
        link = self._netlink.link(name)
        made = link is None
        try:
            if link is None:
                self._netlink.talk(netlink.add_bridge(name, random_mac(), bridge_options(network.options).mtu))
                link = self._netlink.link(name)
                if link is None:
                    raise ServerError(f"the bridge {name} vanished while it was made")
                self._netlink.talk(netlink.set_link(link.index, alias=self._alias))
            elif link.kind != "bridge":
                raise InvalidArgument(f"{name} is a device of kind {link.kind or 'hardware'} and no bridge")
            self._settle(network, link.index, owned=made or link.alias == self._alias)
        except BaseException:
            if made and link is not None:
                self._netlink.talk(netlink.delete_link(link.index))
            raise
        self._index[name] = link.index

    def _settle(self, network: Network, index: int, *, owned: bool) -> None:
        name = network.bridge
        options = bridge_options(network.options)
        wanted = [f"{config.gateway}/{config.subnet.rpartition('/')[2]}" for config in network.ipam
                  if config.gateway and _carries(options, 6 if ":" in config.subnet else 4)]
        present = [text for text in self._netlink.addresses(index) if not text.startswith("fe80:")]
        changes = [netlink.add_address(index, *_split(text)) for text in wanted if text not in present]
        if owned:
            changes += [netlink.delete_address(index, *_split(text)) for text in present if text not in wanted]
        write_sysctl(f"ipv4/conf/{name}/route_localnet", "1")     # published ports on 127.0.0.1
        if network.enable_ipv6:
            write_sysctl(f"ipv6/conf/{name}/accept_ra", "0")      # a container must not become the host's router
        elif read_sysctl(f"ipv6/conf/{name}/disable_ipv6") == "0":
            write_sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
        self._netlink.talk(*changes, netlink.set_link(index, up=True))

    def remove(self, name: str) -> None:
        """Delete a bridge that is ours, with what is plugged into it. Its addresses go at once, so that the subnet can
        be used again; the device follows in the background (20 to 50 ms of the kernel's)."""
        self._index.pop(name, None)
        bridge = self._netlink.link(name)
        if bridge is None or bridge.kind != "bridge" or bridge.alias != self._alias:
            return
        addresses = [text for text in self._netlink.addresses(bridge.index) if not text.startswith("fe80:")]
        if addresses:
            self._netlink.talk(*(netlink.delete_address(bridge.index, *_split(text)) for text in addresses))
        ports = [link.index for link in self._netlink.links(bridge.index) if link.kind == "veth"]
        work = self._deleter.submit(self._delete_now, [*ports, bridge.index])
        self._leaving[name] = work
        work.add_done_callback(lambda done: self._left(name, done))

    def _left(self, name: str, work: Future[None]) -> None:
        if work.exception() is not None:
            log.error("the bridge %s could not be deleted: %s", name, work.exception())
        if self._leaving.get(name) is work:
            del self._leaving[name]

    async def left(self, name: str) -> None:
        """Wait until a former bridge of this name is gone."""
        work = self._leaving.get(name)
        if work is not None:
            await asyncio.wait([asyncio.wrap_future(work)])

    def own_bridges(self) -> list[str]:
        """The bridges that carry our instance's mark and are not being deleted."""
        return [link.name for link in self._netlink.links()
                if link.kind == "bridge" and link.alias == self._alias and link.name not in self._leaving]

    def remove_parents(self, keep: Collection[str]) -> None:
        """Delete the parents of macvlan and ipvlan networks that we made, but for those called as *keep* says."""
        for link in self._netlink.links():
            if link.alias == self._alias and link.kind in ("vlan", "dummy") and link.name not in keep:
                self._netlink.talk(netlink.delete_link(link.index))

    def ports(self) -> list[str]:
        """The veths on our bridges."""
        links = self._netlink.links()
        own = {link.index for link in links if link.kind == "bridge" and link.alias == self._alias}
        return [link.name for link in links if link.master in own and link.kind == "veth"]

    # -- containers ----------------------------------------------------------------------------------------------

    def plug(self, network: Network, netns: int, interface: str, addressing: Addressing, mac: str, *,
             by: Netlink | None = None) -> str:
        """Put a device *interface* into the namespace, on the network's bridge; the host's end. On failure nothing
        stays. *by*: the socket of the calling thread, where that is not the loop's."""
        speak = by or self._netlink
        host = f"veth{secrets.token_hex(4)[:7]}"
        options = bridge_options(network.options)
        speak.talk(netlink.add_veth(host, interface, netns, self._index[network.bridge], mac=mac, mtu=options.mtu),
                   netlink.set_up(host))
        try:
            if not options.icc:
                speak.talk(netlink.set_port(socket.if_nametoindex(host), netlink.IFLA_BRPORT_ISOLATED))
            self.configure(netns, interface, addressing)
        except BaseException:
            link = speak.link(host)
            if link is not None:
                self._deleter.submit(self._delete_now, [link.index])
            raise
        return host

    def configure(self, netns: int, interface: str, addressing: Addressing) -> None:
        """Settings, addresses, up, and default routes inside."""
        def enter() -> tuple[Netlink, int]:
            without_v6 = not addressing.ipv6 and not any(":" in address for address, _ in addressing.more)
            if without_v6 and os.path.exists(f"{_SYSCTL}/ipv6/conf/{interface}/disable_ipv6"):
                # otherwise a neighbour's router advertisement would give it addresses and routes
                write_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "1")
            for path, value in addressing.sysctls:
                _set(path.replace("IFNAME", interface), value)
            return _enter(interface)
        with _Inside(self._ops.inside(netns, enter)) as (inner, index):
            messages = [netlink.set_link(index, up=True, mtu=addressing.mtu)]
            messages += [netlink.add_address(index, address, prefix) for address, prefix in addressing.more]
            for address, prefix, gateway in ((addressing.ipv4, addressing.prefix4, addressing.gateway4),
                                             (addressing.ipv6, addressing.prefix6, addressing.gateway6)):
                if address:
                    messages.append(netlink.add_address(index, address, prefix))
                if gateway:
                    messages.append(netlink.set_default(gateway, index))
                elif address and addressing.direct:
                    messages.append(netlink.set_direct(4 if address == addressing.ipv4 else 6, index))
            inner.talk(*messages)

    def remove_inside(self, netns: int, interface: str) -> None:
        """Delete a device of a container that has no end on the host."""
        with _Inside(self._ops.inside(netns, lambda: _enter(interface))) as (inner, index):
            inner.talk(netlink.delete_link(index))

    def take(self, source: str, interface: str, netns: int, mac: str = "") -> None:
        """Move a device of the host's into a container. InvalidArgument where it is not a device to give away."""
        link = self._netlink.link(source)
        if link is None:
            raise ServerError(f"the device {source} is not there")
        if link.master or link.alias.startswith("slipway:") or source == "lo":
            raise InvalidArgument(f"the device {source} cannot be given to a container: the host uses it")
        self._netlink.talk(netlink.set_link(link.index, up=False, mac=mac),
                           netlink.move_link(link.index, interface, netns))

    def give_back(self, interface: str, name: str, netns: int) -> None:
        """Move a container's device out again, under its old name."""
        with open("/proc/thread-self/ns/net", "rb") as home, \
                _Inside(self._ops.inside(netns, lambda: _enter(interface))) as (inner, index):
            inner.talk(netlink.set_link(index, up=False), netlink.move_link(index, name, home.fileno()))

    def route(self, netns: int, interface: str, routes: Sequence[tuple[str, str]]) -> None:
        """Add routes inside: (subnet, gateway or "")."""
        with _Inside(self._ops.inside(netns, lambda: _enter(interface))) as (inner, index):
            inner.talk(*(netlink.add_route(subnet, index, gateway) for subnet, gateway in routes))

    def talk(self, *messages: bytes) -> None:
        """Requests in the host's namespace."""
        self._netlink.talk(*messages)

    def link(self, name: str) -> netlink.Link | None:
        """The host's device *name*, or None."""
        return self._netlink.link(name)

    @property
    def mark(self) -> str:
        """The alias of the devices that are ours."""
        return self._alias

    def set_mac(self, netns: int, interface: str, mac: str) -> None:
        """Give a device inside another MAC address."""
        with _Inside(self._ops.inside(netns, lambda: _enter(interface))) as (inner, index):
            inner.talk(netlink.set_link(index, mac=mac))

    def reroute(self, netns: int, interface: str, gateways: Iterable[str]) -> None:
        """Make *interface* the way out of the namespace."""
        with _Inside(self._ops.inside(netns, lambda: _enter(interface))) as (inner, index):
            messages = [netlink.set_default(gateway, index) for gateway in gateways if gateway]
            if messages:
                inner.talk(*messages)

    def hairpin(self, host: str) -> None:
        """Let a container reach itself by a port that it publishes. With br_netfilter switched on (Docker does that)
        the bridge redirects such packets itself, and would not send them back where they came from. Without it they are
        routed and need nothing; the flag is left off, because it reflects a container's multicasts to itself."""
        if read_sysctl("bridge/bridge-nf-call-iptables") != "1":
            return
        self._netlink.talk(netlink.set_port(socket.if_nametoindex(host), netlink.IFLA_BRPORT_HAIRPIN))

    def present(self, names: Iterable[str]) -> set[str]:
        """Which of these devices exist."""
        return {name for name in names if os.path.exists(f"{_SYSCTL}/ipv4/conf/{name}")}

    def discard(self, host: str) -> Future[None]:
        """Delete a veth in the background."""
        link = self._netlink.link(host)
        return self._deleter.submit(self._delete_now, [] if link is None else [link.index])

    async def unplug(self, host: str) -> None:
        """Delete a veth and wait until it is gone from the container."""
        link = self._netlink.link(host)
        if link is not None:
            await self._delete([link.index])

    async def _delete(self, indexes: list[int]) -> None:
        await asyncio.wrap_future(self._deleter.submit(self._delete_now, indexes))

    def _delete_now(self, indexes: list[int]) -> None:
        for index in indexes:
            try:
                self._slow.talk(netlink.delete_link(index))
            except OSError as problem:
                if problem.errno != ENODEV:      # it went with its namespace
                    raise


def _carries(options: BridgeOptions, version: int) -> bool:
    """The bridge itself has an address of this family."""
    return options.mode(version) != ISOLATED and not (version == 4 and options.inhibit4)


def _set(path: str, value: str) -> None:
    try:
        write_sysctl(path, value)
    except OSError as problem:
        raise InvalidArgument(f"the setting net/{path} cannot be set to {value!r}: {problem.strerror}") from None


def _split(text: str) -> tuple[str, int]:
    address, _, prefix = text.rpartition("/")
    return address, int(prefix)


def _enter(interface: str) -> tuple[Netlink, int]:
    """Inside a namespace: a socket that goes on speaking for it, and the index of a device."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        raise ServerError(f"the device {interface} is gone from the container's network namespace") from None
    return Netlink(), index


class _Inside:
    """Close a netlink socket at the end of a block: an open one keeps its network namespace alive."""

    def __init__(self, held: tuple[Netlink, int]) -> None:
        self._held = held

    def __enter__(self) -> tuple[Netlink, int]:
        return self._held

    def __exit__(self, *_: object) -> None:
        self._held[0].close()
