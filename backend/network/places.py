"""Which containers are on which networks, and what they publish. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from backend.network.publisher import Publication
from backend.network.records import Endpoint


@dataclass(slots=True)
class Place:
    """What a container has here: endpoints by network ID, ports."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    published: list[Publication] = field(default_factory=list)

    def take_published(self, endpoint: Endpoint) -> list[Publication]:
        """The ports that lead to *endpoint*; they are no longer here."""
        gone = [publication for publication in self.published if publication.endpoint == endpoint.id]
        self.published = [publication for publication in self.published if publication.endpoint != endpoint.id]
        return gone

    def rename(self, name: str) -> Iterator[tuple[Endpoint, Endpoint]]:
        """The container has another name: each endpoint as it was and as it is now."""
        for endpoint in list(self.endpoints.values()):
            known = (name if known == endpoint.container_name else known for known in endpoint.dns_names)
            changed = replace(endpoint, container_name=name, dns_names=tuple(dict.fromkeys(known)))
            self.endpoints[endpoint.network_id] = changed
            yield endpoint, changed


class Places(dict[str, Place]):
    """Places by container ID."""

    def on(self, network_id: str) -> Sequence[Endpoint]:
        """Who is on a network."""
        return [place.endpoints[network_id] for place in self.values() if network_id in place.endpoints]

    def devices(self) -> set[str]:
        """The host's ends of all containers' devices."""
        return {endpoint.host_interface for place in self.values() for endpoint in place.endpoints.values()}
