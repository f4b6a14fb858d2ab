"""The kinds of networks: what each makes on the host, and how a container gets its device on it.

The manager decides (addresses, names, who is the way out), a driver carries out. Plug-ins bring further kinds
(remote.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from backend.errors import EngineError, Forbidden, InvalidArgument, NotImplemented_, ServerError
from backend.network import netlink
from backend.network.bridge import Addressing, Bridges, random_mac
from backend.network.endpoints import free_interface, mac_for, parse_mac, ways_out
from backend.network.firewall import Firewall
from backend.network.options import BridgeOptions, bridge_options, endpoint_options, lan_options
from backend.network.records import LANS, Endpoint, Network
from backend.network.ruleset import BridgeRules

_SUBINTERFACE = re.compile(r"(.+)\.([1-9]\d{0,3})")
_UNSUPPORTED = {95, 93}      # EOPNOTSUPP, EPROTONOSUPPORT: the kernel lacks the module


class Driver(Protocol):
    """One kind of network. Failures leave nothing behind."""

    async def up(self, network: Network) -> None:
        """Make what the network needs on the host."""

    async def again(self, network: Network) -> None:
        """Bring that to what the record says after a restart of the helper."""

    async def down(self, network: Network) -> None:
        """Remove it."""

    async def join(self, network: Network, netns: int, endpoint: Endpoint, others: Sequence[Endpoint]) -> Endpoint:
        """Give a container its device; *endpoint* has its addresses, *others* are its places on other networks."""

    async def leave(self, network: Network, endpoint: Endpoint, netns: int | None) -> None:
        """Take the device away and wait until it is gone; *netns* None: the container does not run."""

    async def ended(self, network: Network, endpoint: Endpoint) -> None:
        """The container has ended, and its devices with it."""


def addressing(endpoint: Endpoint, others: Sequence[Endpoint], mtu: int = 0) -> Addressing:
    """What the device of *endpoint* is given beside its container's *others*."""
    four, six = ways_out([*others, endpoint])
    return Addressing(
        endpoint.ipv4, endpoint.ipv4_prefix, endpoint.gateway if four is endpoint else "",
        endpoint.ipv6, endpoint.ipv6_prefix, endpoint.gateway6 if six is endpoint else "",
        endpoint.direct and not any(other.gateway or other.gateway6 or other.direct for other in others),
        tuple((address, 64 if ":" in address else 16) for address in endpoint.link_local),
        endpoint_options(endpoint.driver_opts).sysctls, mtu)


def own_mac(endpoint: Endpoint) -> str:
    """The MAC that follows from an endpoint's address; a random one where it has none (``--ipam-driver null``)."""
    address = endpoint.ipv4 or endpoint.ipv6
    return mac_for(address) if address else random_mac()


def named(endpoint: Endpoint, prefix: str, others: Sequence[Endpoint]) -> Endpoint:
    """*endpoint* with the name of its device: the user's, or the first free of *prefix*."""
    taken = {other.interface for other in others}
    wanted = endpoint_options(endpoint.driver_opts).interface
    if wanted in taken:
        raise InvalidArgument(f"interface name {wanted} is already in use in this container")
    return replace(endpoint, interface=wanted or free_interface(prefix, taken))


class BridgeDriver:
    """Docker's ``bridge``: a bridge of the host's, veth pairs, and rules in our firewall table."""

    def __init__(self, bridges: Bridges, firewall: Firewall, forward_v6: Callable[[], None]) -> None:
        self._bridges, self._firewall, self._forward_v6 = bridges, firewall, forward_v6

    async def up(self, network: Network) -> None:
        """Bridge and rules."""
        await self.again(network)
        try:
            self._firewall.add_bridge(rules(network))
        except BaseException:
            self._bridges.remove(network.bridge)
            raise

    async def again(self, network: Network) -> None:
        """The bridge alone: all rules are written at once."""
        if network.enable_ipv6:
            self._forward_v6()
        await self._bridges.left(network.bridge)
        self._bridges.ensure(network)

    async def down(self, network: Network) -> None:
        """Rules and bridge go."""
        self._firewall.remove_bridge(network.bridge)
        self._bridges.remove(network.bridge)

    async def join(self, network: Network, netns: int, endpoint: Endpoint, others: Sequence[Endpoint]) -> Endpoint:
        """A veth pair; nothing is waited for."""
        endpoint = named(endpoint, bridge_options(network.options).prefix, others)
        mac = parse_mac(endpoint.mac) or own_mac(endpoint)
        host = self._bridges.plug(network, netns, endpoint.interface, addressing(endpoint, others), mac)
        return replace(endpoint, host_interface=host, mac=mac)

    async def leave(self, network: Network, endpoint: Endpoint, netns: int | None) -> None:
        """The pair goes by its end on the host."""
        await self._bridges.unplug(endpoint.host_interface)

    async def ended(self, network: Network, endpoint: Endpoint) -> None:
        """The pair goes with the namespace."""


def rules(network: Network) -> BridgeRules:
    """What the firewall must know of a bridge network."""
    options = bridge_options(network.options)
    return BridgeRules(
        network.bridge, tuple(config.subnet for config in network.ipam), network.internal, options.icc,
        options.masquerade, modes=(options.mode4, options.mode6), trusted=options.trusted,
        outside=_outside(network, options))


def _outside(network: Network, options: BridgeOptions) -> tuple[tuple[str, str], ...]:
    """(subnet, the address that its containers have outside) where the user chose one."""
    wanted = ((config.subnet, options.host6 if ":" in config.subnet else options.host4) for config in network.ipam)
    return tuple((subnet, address) for subnet, address in wanted if address)


class LanDriver:
    """``macvlan`` and ``ipvlan``: containers are neighbours of the host on one of its own networks."""

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = bridges

    async def up(self, network: Network) -> None:
        """Find the parent device, or make it: ``eth0.50`` is VLAN 50 of eth0, none is a device that leads nowhere."""
        options = lan_options(network.driver, network.options)
        name = parent_name(network)
        if self._bridges.link(name) is not None:
            return
        base, tag = _vlan_of(name) if options.parent and not network.internal else ("", 0)
        try:
            if not base:
                self._bridges.talk(netlink.add_dummy(name))
            else:
                parent = self._bridges.link(base)
                if parent is None:
                    raise InvalidArgument(f"the parent interface {base} is not there: `ip link` shows what is")
                self._bridges.talk(netlink.add_upper(name, "vlan", parent.index, netlink.vlan_data(tag)))
        except OSError as problem:
            raise _explained(problem, "vlan" if base else "dummy", name) from problem
        self._claim(name)

    def _claim(self, name: str) -> None:
        made = self._bridges.link(name)
        if made is None:
            raise ServerError(f"the device {name} vanished while it was made")
        try:
            self._bridges.talk(netlink.set_link(made.index, up=True, alias=self._bridges.mark))
        except OSError:
            self._bridges.talk(netlink.delete_link(made.index))
            raise

    async def again(self, network: Network) -> None:
        """As at first."""
        await self.up(network)

    async def down(self, network: Network) -> None:
        """A parent that we made goes."""
        link = self._bridges.link(parent_name(network))
        if link is not None and link.alias == self._bridges.mark and link.kind in ("vlan", "dummy"):
            self._bridges.talk(netlink.delete_link(link.index))

    async def join(self, network: Network, netns: int, endpoint: Endpoint, others: Sequence[Endpoint]) -> Endpoint:
        """A device on the parent, made inside the container's namespace."""
        options = lan_options(network.driver, network.options)
        name = parent_name(network)
        parent = self._bridges.link(name)
        if parent is None:
            raise ServerError(f"the parent interface {name} of network {network.name} is gone: bring it back, or make "
                              "the network anew on another one")
        endpoint = self._described(network, named(endpoint, options.prefix, others), parent.mac)
        data = (netlink.macvlan_data(options.mode) if network.driver == "macvlan"
                else netlink.ipvlan_data(options.mode, options.flag))
        mac = endpoint.mac if network.driver == "macvlan" else ""
        try:
            self._bridges.talk(
                netlink.add_upper(endpoint.interface, network.driver, parent.index, data, netns=netns, mac=mac))
        except OSError as problem:
            raise _explained(problem, network.driver, name) from problem
        try:
            self._bridges.configure(netns, endpoint.interface, addressing(endpoint, others, options.mtu))
        except BaseException:
            self._bridges.remove_inside(netns, endpoint.interface)
            raise
        return endpoint

    @staticmethod
    def _described(network: Network, endpoint: Endpoint, parent_mac: str) -> Endpoint:
        if network.driver == "macvlan":
            return replace(endpoint, mac=parse_mac(endpoint.mac) or own_mac(endpoint))
        if endpoint.mac:
            raise InvalidArgument("ipvlan interfaces do not support custom mac address assignment")
        if lan_options(network.driver, network.options).mode == "l2":
            return replace(endpoint, mac=parent_mac)
        return replace(endpoint, mac=parent_mac, gateway="", gateway6="", direct=not network.internal)

    async def leave(self, network: Network, endpoint: Endpoint, netns: int | None) -> None:
        """The device is deleted from inside."""
        if netns is not None:
            self._bridges.remove_inside(netns, endpoint.interface)

    async def ended(self, network: Network, endpoint: Endpoint) -> None:
        """The device goes with the namespace."""


def parent_name(network: Network) -> str:
    """The host's device under a macvlan or ipvlan network."""
    parent = lan_options(network.driver, network.options).parent
    own = f"{'dm' if network.driver == 'macvlan' else 'di'}-{network.id[:12]}"
    return parent if parent and not network.internal else own


def refuse_shared_parent(network: Network, others: Iterable[Network]) -> None:
    """A macvlan in mode passthru takes its parent for itself alone."""
    if network.driver not in LANS:
        return
    for other in others:
        if other.driver in LANS and parent_name(other) == parent_name(network):
            exclusive = {lan_options(one.driver, one.options).mode for one in (network, other)} & {"passthru"}
            if exclusive or other.driver != network.driver:
                raise Forbidden(f"cannot use {network.driver} on parent interface {parent_name(network)}: network "
                                f"{other.name} ({other.id}) is already using it"
                                + (" and mode passthru is for one network alone" if exclusive else ""))


def _vlan_of(name: str) -> tuple[str, int]:
    found = _SUBINTERFACE.fullmatch(name)
    if found is None or int(found[2]) > 4094:
        raise InvalidArgument(f"invalid subinterface vlan name {name}, example formatting is eth0.10: there is no "
                              f"device {name} on this host")
    return found[1], int(found[2])


def _explained(problem: OSError, kind: str, name: str) -> EngineError:
    if problem.errno in _UNSUPPORTED:
        module = "8021q" if kind == "vlan" else kind
        return NotImplemented_(f"this kernel has no {kind} devices (its module {module} is missing), which network "
                               f"device {name} needs")
    return ServerError(f"a device of kind {kind} on {name} could not be made: {problem.strerror}")
