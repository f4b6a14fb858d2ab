"""A container's place on a network, as far as it can be decided without the kernel: names, device, MAC, addresses, and
which network is the way out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from backend.errors import InvalidArgument, ServerError
from backend.network.ipam import Leases, Subnet, parse_address, parse_subnet
from backend.network.options import endpoint_problems
from backend.network.records import Endpoint, EndpointWish, Network


def dns_names(network: Network, container_id: str, wish: EndpointWish) -> tuple[str, ...]:
    """Name, aliases, short ID and host name, each once, in Docker's order; none on networks without names."""
    if not network.has_names:
        return ()
    names = (wish.container_name, *wish.aliases, container_id[:12], wish.hostname)
    return tuple(dict.fromkeys(name for name in names if name))


def free_interface(prefix: str, taken: Collection[str]) -> str:
    """The first device name of *prefix* that is not taken inside the container."""
    return next(name for number in range(len(taken) + 1) if (name := f"{prefix}{number}") not in taken)


def ways_out(endpoints: Iterable[Endpoint]) -> tuple[Endpoint | None, Endpoint | None]:
    """The endpoints with the default routes of IPv4 and IPv6, as Docker chooses them: highest priority, then those that
    have both, then the network's name."""
    ordered = sorted(endpoints, key=lambda one: (-one.gw_priority, not (one.gateway and one.gateway6),
                                                 one.network_name))
    return (next((one for one in ordered if one.gateway), None), next((one for one in ordered if one.gateway6), None))


def mac_for(address: str) -> str:
    """The MAC of a container with this address (02:42 and its last four bytes): an address that is given again keeps
    its MAC, so that neighbours' ARP tables stay true."""
    return bytes([0x02, 0x42, *parse_address(address).packed[-4:]]).hex(":")


def parse_mac(text: str) -> str:
    """A unicast MAC address in the kernel's form; "" stays ""."""
    if not text:
        return ""
    parts = text.replace("-", ":").lower().split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise InvalidArgument(f"invalid MAC address: {text}")
    if int(parts[0], 16) & 1:
        raise InvalidArgument(f"invalid MAC address: {text} is a multicast address")
    return ":".join(parts)


def wish_problems(network: Network | None, name: str, wish: EndpointWish) -> list[str]:
    """What is wrong with *wish* on *network* (None: not made yet), which is called *name*; in Docker's words."""
    static = [text for text in (wish.ipv4, wish.ipv6) if text]
    found: list[str] = []
    if name in ("bridge", "host", "none"):
        if static:
            found.append("user specified IP address is supported on user defined networks only")
        if wish.aliases:
            found.append("network-scoped alias is supported only for containers in user defined networks")
    found += [f"invalid IPv{version} address: {text}" for version, text in ((4, wish.ipv4), (6, wish.ipv6))
              if text and _version(text) != version]
    found += [f"invalid link local IP address: {text}" for text in wish.link_local if not _is_link_local(text)]
    if network is not None:
        found += _range_problems(network, [text for text in static if _version(text)])
    return found + endpoint_problems(wish.driver_opts)


def _range_problems(network: Network, static: Sequence[str]) -> list[str]:
    if static and not network.user_subnets:
        return ["user specified IP address is supported only when connecting to networks with user configured subnets"]
    subnets = [parse_subnet(config.subnet) for config in network.ipam if config.subnet]
    return [f"no configured subnet or ip-range contain the IP address {text}" for text in static
            if not any(parse_address(text) in subnet for subnet in subnets)]


def _is_link_local(text: str) -> bool:
    try:
        return parse_address(text).is_link_local
    except InvalidArgument:
        return False


def _version(text: str) -> int:
    try:
        return parse_address(text).version
    except InvalidArgument:
        return 0


def check_wish(network: Network | None, name: str, wish: EndpointWish) -> None:
    """Refuse a wish that cannot be fulfilled (InvalidArgument in Docker's words)."""
    found = wish_problems(network, name, wish)
    if found:
        lines = "\n* ".join(found)
        raise InvalidArgument(f"invalid endpoint settings:\n{f'* {lines}' if len(found) > 1 else lines}")


class AddressBook:
    """The leases of all networks."""

    def __init__(self) -> None:
        self._leases: dict[str, list[Leases]] = {}

    def add(self, network: Network) -> None:
        """A network came."""
        self._leases[network.id] = [Leases(config) for config in network.ipam
                                    if not network.config_only and not network.pools]

    def remove(self, network_id: str) -> None:
        """It went."""
        del self._leases[network_id]

    def subnets(self) -> list[Subnet]:
        """All subnets in use."""
        return [leases.subnet for group in self._leases.values() for leases in group]

    def lease(self, network: Network, endpoint: Endpoint, wish: EndpointWish) -> Endpoint:
        """*endpoint* with its addresses, all or none."""
        for version in (4, 6):
            candidates = [leases for leases in self._leases[network.id] if leases.subnet.version == version]
            wanted = wish.ipv4 if version == 4 else wish.ipv6
            try:
                if candidates or wanted:
                    endpoint = _placed(network, endpoint, *_leased(network, candidates, wanted, version))
            except BaseException:
                self.release(endpoint)
                raise
        return endpoint

    def claim(self, endpoint: Endpoint) -> None:
        """Take the addresses that a running container has."""
        for leases, address in self._of(endpoint):
            leases.take(address)

    def release(self, endpoint: Endpoint, *, cool: bool = False) -> None:
        """Give an endpoint's addresses back; *cool*: not to others before :meth:`settle`."""
        for leases, address in self._of(endpoint):
            leases.release(address, cool=cool)

    def settle(self, endpoint: Endpoint) -> None:
        """The endpoint's device is gone."""
        for leases, address in self._of(endpoint):
            leases.settle(address)

    def _of(self, endpoint: Endpoint) -> Sequence[tuple[Leases, str]]:
        given = [parse_address(text) for text in (endpoint.ipv4, endpoint.ipv6) if text]
        return [(leases, str(address)) for leases in self._leases.get(endpoint.network_id, ()) for address in given
                if address.version == leases.subnet.version and address in leases.subnet]


def _leased(network: Network, candidates: Sequence[Leases], wanted: str, version: int) -> tuple[Leases, str]:
    if wanted:
        address = parse_address(wanted)
        for leases in candidates:
            if address in leases.subnet:
                leases.take(str(address))
                return leases, str(address)
        raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {wanted}")
    for leases in candidates:
        found = leases.lease()
        if found:
            return leases, found
    raise ServerError(f"no available IPv{version} addresses on this network's address pools: "
                      f"{network.name} ({network.id})")


def _placed(network: Network, endpoint: Endpoint, leases: Leases, address: str) -> Endpoint:
    gateway = "" if network.internal else leases.config.gateway
    if leases.subnet.version == 4:
        return replace(endpoint, ipv4=address, ipv4_prefix=leases.prefix, gateway=gateway)
    return replace(endpoint, ipv6=address, ipv6_prefix=leases.prefix, gateway6=gateway)
