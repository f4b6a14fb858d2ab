"""Who is called what on which network: pure look-ups for the resolver.

A container sees the names on the networks that it is on, and no others. A name that several containers carry (a
service's) gives all their addresses, in another order each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.network.records import Endpoint

# Docker Desktop's names for the host; on Linux Docker needs --add-host for the first one.
HOST_NAMES = ("host.docker.internal", "gateway.docker.internal")


class Names:
    """Endpoints by network, name and address."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], list[Endpoint]] = {}
        self._by_address: dict[tuple[str, str], Endpoint] = {}
        self._of: dict[str, dict[str, Endpoint]] = {}      # container → network ID → endpoint
        self._turn = 0

    def add(self, endpoint: Endpoint) -> None:
        """A container came onto a network."""
        self._of.setdefault(endpoint.container_id, {})[endpoint.network_id] = endpoint
        for name in {name.lower() for name in endpoint.dns_names}:
            self._by_name.setdefault((endpoint.network_id, name), []).append(endpoint)
        if endpoint.dns_names:
            for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
                self._by_address[endpoint.network_id, address] = endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """It left."""
        known = self._of.get(endpoint.container_id, {})
        known.pop(endpoint.network_id, None)
        if not known:
            self._of.pop(endpoint.container_id, None)
        for name in {name.lower() for name in endpoint.dns_names}:
            same = self._by_name.get((endpoint.network_id, name), [])
            same[:] = [other for other in same if other.id != endpoint.id]
            if not same:
                self._by_name.pop((endpoint.network_id, name), None)
        for address in filter(None, (endpoint.ipv4, endpoint.ipv6)):
            if self._by_address.get((endpoint.network_id, address), endpoint).id == endpoint.id:
                self._by_address.pop((endpoint.network_id, address), None)

    def resolve(self, container_id: str, name: str) -> list[str] | None:
        """All addresses behind *name* (lower case, no final dot) for this container; None: the name is not ours."""
        own = self._of.get(container_id, {})
        found: list[Endpoint] = []
        for endpoint in own.values():
            for other, alias in endpoint.links:
                if alias.lower() == name:
                    found += self._by_name.get((endpoint.network_id, other.lower()), ())
            found += self._by_name.get((endpoint.network_id, name), ())
            suffix = f".{endpoint.network_name.lower()}"
            if not found and name.endswith(suffix):
                found += self._by_name.get((endpoint.network_id, name.removesuffix(suffix)), ())
        if found:
            return self._rotated([text for one in found for text in (one.ipv4, one.ipv6) if text])
        if name in HOST_NAMES:
            gateways = [text for one in own.values() for text in (one.gateway, one.gateway6) if text]
            return gateways or None
        return None

    def _rotated(self, found: list[str]) -> list[str]:
        unique = list(dict.fromkeys(found))
        self._turn += 1
        start = self._turn % len(unique)
        return unique[start:] + unique[:start]

    def reverse(self, container_id: str, address: str) -> str:
        """The name of a neighbour by its address, as Docker writes it: ``container.network``; "" if unknown."""
        for network_id, own in self._of.get(container_id, {}).items():
            found = self._by_address.get((network_id, address))
            if found is not None:
                return f"{found.dns_names[0]}.{own.network_name}"
        return ""

    def outbound(self, container_id: str) -> bool:
        """The container may look up names of the world: it is on some network that leads out."""
        own = self._of.get(container_id, {})
        return not own or any(endpoint.gateway or endpoint.gateway6 or endpoint.direct
                              or not (endpoint.ipv4 or endpoint.ipv6) for endpoint in own.values())

    def endpoints(self, container_id: str) -> Sequence[Endpoint]:
        """Where a container is."""
        return tuple(self._of.get(container_id, {}).values())
