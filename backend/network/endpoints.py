"""A container's place on a network, as far as it can be decided without the kernel: names, device, MAC, addresses, and
which network is the way out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from backend.errors import InvalidArgument, ServerError
from backend.network.ipam import Leases, Subnet, parse_address
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


def way_out(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint with the default route, as Docker chooses: highest priority, then the network's name."""
    candidates = [endpoint for endpoint in endpoints if endpoint.gateway or endpoint.gateway6]
    return min(candidates, key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name), default=None)


def mac_for(address: str) -> str:
    """The MAC of a container with this IPv4 address (02:42 and the address): an address that is given again keeps its
    MAC, so that neighbours' ARP tables stay true."""
    return bytes([0x02, 0x42, *(int(part) for part in address.split("."))]).hex(":")


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


def refuse_static(network: Network) -> None:
    """Static addresses are for networks whose subnets the user chose (InvalidArgument in Docker's words)."""
    if not network.user_subnets:
        raise InvalidArgument("invalid endpoint settings:\nuser specified IP address is supported only when "
                              "connecting to networks with user configured subnets")


class AddressBook:
    """The leases of all networks."""

    def __init__(self) -> None:
        self._leases: dict[str, list[Leases]] = {}

    def add(self, network: Network) -> None:
        """A network came."""
        self._leases[network.id] = [Leases(config) for config in network.ipam]

    def remove(self, network_id: str) -> None:
        """It went."""
        del self._leases[network_id]

    def subnets(self) -> list[Subnet]:
        """All subnets in use."""
        return [leases.subnet for group in self._leases.values() for leases in group]

    def lease(self, network: Network, endpoint: Endpoint, wish: EndpointWish) -> Endpoint:
        """*endpoint* with its addresses, all or none."""
        if wish.ipv4 or wish.ipv6:
            refuse_static(network)
        for leases in self._leases[network.id]:
            version = leases.subnet.version
            wanted = wish.ipv4 if version == 4 else wish.ipv6
            try:
                address = str(parse_address(wanted)) if wanted else leases.lease()
                if wanted:
                    leases.take(address)
                elif not address:
                    raise ServerError(f"no available IPv{version} addresses on this network's address pools: "
                                      f"{network.name} ({network.id})")
            except BaseException:
                self.release(endpoint)
                raise
            gateway = "" if network.internal else leases.config.gateway
            if version == 4:
                endpoint = replace(endpoint, ipv4=address, ipv4_prefix=leases.prefix, gateway=gateway)
            else:
                endpoint = replace(endpoint, ipv6=address, ipv6_prefix=leases.prefix, gateway6=gateway)
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
        pairs = ((leases, endpoint.ipv4 if leases.subnet.version == 4 else endpoint.ipv6)
                 for leases in self._leases.get(endpoint.network_id, ()))
        return [(leases, address) for leases, address in pairs if address]
