"""The networks that there are, and what they keep from each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.errors import Forbidden, InvalidArgument, NotFound
from backend.network.drivers import refuse_shared_parent
from backend.network.records import Network


class Known:
    """Networks by ID, name and the beginning of an ID."""

    def __init__(self) -> None:
        self._by_id: dict[str, Network] = {}

    def __iter__(self) -> Iterator[Network]:
        return iter(self._by_id.values())

    def add(self, network: Network) -> None:
        """It is there from now on."""
        self._by_id[network.id] = network

    def remove(self, network: Network) -> None:
        """It is gone."""
        del self._by_id[network.id]

    def find(self, network_id: str) -> Network | None:
        """A network by its whole ID."""
        return self._by_id.get(network_id)

    def get(self, name_or_id: str) -> Network:
        """A network by ID, name, or unique beginning of its ID."""
        if name_or_id in self._by_id:
            return self._by_id[name_or_id]
        for network in self:
            if network.name == name_or_id:
                return network
        found = [network for network in self if name_or_id and network.id.startswith(name_or_id)]
        if len(found) > 1:
            raise InvalidArgument(f"network {name_or_id} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {name_or_id} not found")
        return found[0]

    def configuration(self, name: str) -> Network:
        """The network that another takes its values from."""
        try:
            return self.get(name)
        except NotFound:
            raise NotFound(f'configuration network "{name}" does not exist') from None

    def names(self, without: Network | None = None) -> set[str]:
        """All names, but that of *without*."""
        return {network.name for network in self if network is not without}

    def oldest_first(self) -> list[Network]:
        """All."""
        return sorted(self, key=lambda network: network.created)

    def of(self, driver: str) -> Sequence[Network]:
        """Those of one driver."""
        return [network for network in self if network.driver == driver]

    def refuse_shared(self, network: Network) -> None:
        """Forbidden where *network* wants a device that another has for itself."""
        others = [other for other in self if other is not network]
        if network.bridge and any(other.bridge == network.bridge for other in others):
            raise Forbidden(f"the bridge name {network.bridge} is already used by another network")
        refuse_shared_parent(network, others)

    def refuse_configuring(self, network: Network) -> None:
        """Forbidden while other networks have their values from *network*."""
        if network.config_only and any(network.name == other.config_from for other in self):
            raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
