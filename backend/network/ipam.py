"""Address arithmetic and leases: pure, no kernel, no clock.

Subnets are chosen from pools so that they overlap neither with what the host routes nor with other networks. Within a
subnet every address is given once; the address of a container that has just gone "cools" until its device is truly
gone from the bridge, so that two stacks never answer for one address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import replace

from backend.errors import Forbidden, InvalidArgument, ServerError
from backend.network.records import AddressPool, IpamConfig

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network
OVERLAP = "invalid pool request: Pool overlaps with other one on this address space"


def parse_subnet(text: str) -> Subnet:
    """*text* as a subnet; host bits must be zero. InvalidArgument in Docker's words."""
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid network config:\ninvalid subnet {text}: invalid CIDR block notation") from None
    if "/" not in text:
        raise InvalidArgument(f"invalid network config:\ninvalid subnet {text}: invalid CIDR block notation")
    subnet = interface.network
    if interface.ip != subnet.network_address:
        raise InvalidArgument(f"invalid network config:\ninvalid subnet {text}: it should be {subnet}")
    return subnet


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """*text* as an address (an IPv6 zone is refused). InvalidArgument otherwise."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IP address: {text}") from None
    if "%" in text:
        raise InvalidArgument(f"invalid IP address: {text}")
    return address


def overlapping(subnet: Subnet, taken: Iterable[Subnet]) -> Subnet | None:
    """The first of *taken* that shares an address with *subnet*. Default routes (/0) do not count."""
    for other in taken:
        if other.version == subnet.version and other.prefixlen and subnet.overlaps(other):
            return other
    return None


def choose_subnet(pools: Sequence[AddressPool], taken: Sequence[Subnet], version: int = 4) -> Subnet:
    """The first free piece of the pools. ServerError in Docker's words when nothing is left.

    It jumps over each obstacle instead of trying every piece: a pool may have millions of them.
    """
    obstacles = _merged(taken, version)
    for pool in pools:
        base = ipaddress.ip_network(pool.base)
        if base.version != version or pool.size < base.prefixlen:
            continue
        step = 1 << (base.max_prefixlen - pool.size)
        origin, end = int(base.network_address), int(base.broadcast_address)
        start = origin
        for first, last in obstacles:
            if last < start:
                continue
            if first >= start + step:
                break
            start = origin + -(-(last + 1 - origin) // step) * step
        if start <= end:
            return type(base)((start, pool.size))
    raise ServerError("all predefined address pools have been fully subnetted")


def _merged(taken: Iterable[Subnet], version: int) -> list[tuple[int, int]]:
    """The stretches of addresses that are taken, in order and apart; default routes (/0) do not count."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((int(one.network_address), int(one.broadcast_address)) for one in taken
                              if one.version == version and one.prefixlen):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def check_pools(pools: Sequence[AddressPool]) -> None:
    """Refuse pools that cannot be cut as asked (InvalidArgument)."""
    for pool in pools:
        try:
            base = ipaddress.ip_network(pool.base)
        except ValueError as problem:
            raise InvalidArgument(f"invalid default address pool {pool.base}: {problem}") from None
        if not base.prefixlen <= pool.size <= base.max_prefixlen:
            raise InvalidArgument(f"invalid default address pool {pool.base}: size {pool.size} does not fit into it")


def complete(config: IpamConfig, subnet: Subnet, *, gateway: bool = True) -> IpamConfig:
    """*config* for *subnet*, checked, with its gateway filled in: the first address unless it was given. Without
    *gateway* none is, and all addresses are the containers'."""
    return _checked(replace(config, gateway=_gateway(config, subnet) if gateway else ""), subnet)


def _gateway(config: IpamConfig, subnet: Subnet) -> str:
    gateway = config.gateway
    if gateway:
        address = parse_address(gateway)
        if address.version != subnet.version or address not in subnet:
            raise InvalidArgument(f"no matching subnet for gateway {gateway}")
    else:
        taken = {parse_address(text) for text in config.auxiliary.values()}
        first = int(subnet.network_address) + (1 if subnet.num_addresses > 2 else 0)
        candidates = (type(subnet.network_address)(number) for number in range(first, first + len(taken) + 1))
        gateway = str(next(address for address in candidates if address not in taken))
    return gateway


def _checked(config: IpamConfig, subnet: Subnet) -> IpamConfig:
    if config.ip_range:
        window = parse_subnet(config.ip_range)
        if window.version != subnet.version or not window.subnet_of(subnet):   # type: ignore[arg-type]
            raise InvalidArgument(f"invalid network config:\ninvalid ip-range {config.ip_range}: "
                                  f"it does not lie in the subnet {subnet}")
    for label, text in config.auxiliary.items():
        if parse_address(text) not in subnet:
            raise InvalidArgument(f"no matching subnet for aux-address {label}={text}")
    return replace(config, subnet=str(subnet))


def refuse_overlap(subnet: Subnet, networks: Iterable[Subnet], routed: Iterable[tuple[Subnet, str]]) -> None:
    """Forbidden (403, as dockerd) if *subnet* is in use by another network or already routed by the host."""
    if overlapping(subnet, networks) is not None:
        raise Forbidden(OVERLAP)
    for route, device in routed:
        if overlapping(subnet, (route,)) is not None:
            raise Forbidden(f"{OVERLAP}: the host already routes {route} through {device}")


class Leases:
    """The addresses of one subnet. Not thread-safe: it lives on the helper's loop."""

    def __init__(self, config: IpamConfig) -> None:
        self.config = config
        self.subnet = parse_subnet(config.subnet)
        first, last = int(self.subnet.network_address), int(self.subnet.broadcast_address)
        window = parse_subnet(config.ip_range) if config.ip_range else self.subnet
        reserved = {int(parse_address(text)) for text in (config.gateway, *config.auxiliary.values()) if text}
        if self.subnet.num_addresses > 2:     # a /31 or /127 has no network address
            reserved.add(first)
            if self.subnet.version == 4:
                reserved.add(last)            # broadcast, IPv4 only
        self._reserved = frozenset(reserved)
        self._first, self._last = int(window.network_address), int(window.broadcast_address)
        self._used: set[int] = set()
        self._cooling: dict[int, None] = {}   # oldest first
        self._next = self._first              # below it nothing is free

    @property
    def prefix(self) -> int:
        """The subnet's prefix length."""
        return self.subnet.prefixlen

    def _text(self, number: int) -> str:
        return str(type(self.subnet.network_address)(number))

    def lease(self) -> str:
        """The lowest free address; the longest cooled one where all others are in use; "" where none is left."""
        number = self._next
        while number <= self._last and (number in self._used or number in self._reserved or number in self._cooling):
            number += 1
        self._next = number
        if number > self._last:
            if not self._cooling:
                return ""
            number = next(iter(self._cooling))
            del self._cooling[number]
        self._used.add(number)
        return self._text(number)

    def take(self, text: str) -> None:
        """Lease exactly *text*: InvalidArgument outside the subnet, Forbidden ("Address already in use") if given."""
        address = parse_address(text)
        if address.version != self.subnet.version or address not in self.subnet:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {text}")
        number = int(address)
        if number in self._used or number in self._reserved:
            raise Forbidden("Address already in use")
        self._cooling.pop(number, None)
        self._used.add(number)

    def release(self, text: str, *, cool: bool = False) -> None:
        """Give *text* back; with *cool* it is not chosen again before :meth:`settle` unless nothing else is free."""
        number = int(parse_address(text))
        if number not in self._used:
            return
        self._used.discard(number)
        if cool:
            self._cooling[number] = None
        elif self._first <= number < self._next:
            self._next = number

    def settle(self, text: str) -> None:
        """*text* has cooled: its old device is gone."""
        number = int(parse_address(text))
        if number in self._cooling:
            del self._cooling[number]
            if self._first <= number < self._next:
                self._next = number

    def used(self) -> int:
        """How many addresses are leased."""
        return len(self._used)
