"""Containers' places on the default bridge, made before anybody asks: see pool.py for how they are kept ready.

What is handed out is remembered until it is connected, so that an address is not lost when it never is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backend.network.bridge import Bridges, NetnsOps
from backend.network.drivers import addressing
from backend.network.endpoints import AddressBook, mac_for, parse_mac
from backend.network.options import EndpointOptions, endpoint_options
from backend.network.pool import Prepared, SandboxPool, identity
from backend.network.records import Endpoint, EndpointWish, Network


class Ahead:
    """*network* gives a record by name or ID; *cool* keeps an address until its device is gone."""

    def __init__(self, size: int, ops: NetnsOps, addresses: AddressBook, network: Callable[[str], Network],
                 cool: Callable[[Endpoint], None]) -> None:
        self._addresses, self._network, self._cool = addresses, network, cool
        self._bridges: Bridges
        self._handed: dict[int, Prepared] = {}      # given out and not yet connected, by namespace
        self.pool = SandboxPool(size, fresh=ops.fresh, lease=self._lease, furnish=self._furnish,
                                discard=addresses.release)

    def start(self, bridges: Bridges) -> None:
        """Begin to make them."""
        self._bridges = bridges
        self.pool.start()

    def take(self) -> int | None:
        """The namespace of one that is ready, the caller's to close; None if all are gone."""
        prepared = self.pool.take()
        if prepared is None:
            return None
        self._handed[identity(prepared.netns)] = prepared
        return prepared.netns

    def claim(self, netns: int) -> Prepared | None:
        """What stands in a namespace that :meth:`take` gave and that is now connected."""
        return self._handed.pop(identity(netns), None)

    def move_in(self, prepared: Prepared, endpoint: Endpoint, wish: EndpointWish) -> Endpoint:
        """*endpoint* in a place that was made ahead."""
        ready = prepared.endpoint
        mac = parse_mac(wish.mac)
        try:
            if mac:
                self._bridges.set_mac(prepared.netns, ready.interface, mac)
        except BaseException:
            self._cool(ready)
            raise
        return replace(endpoint, interface=ready.interface, host_interface=ready.host_interface, mac=mac or ready.mac,
                       ipv4=ready.ipv4, ipv4_prefix=ready.ipv4_prefix, gateway=ready.gateway,
                       ipv6=ready.ipv6, ipv6_prefix=ready.ipv6_prefix, gateway6=ready.gateway6)

    async def empty(self, prepared: Prepared) -> None:
        """Take the device out of a namespace that goes to another network, or is wanted in another way."""
        await self._bridges.unplug(prepared.endpoint.host_interface)
        self._addresses.release(prepared.endpoint)

    def _lease(self) -> Endpoint:
        self._forget_unused()
        network = self._network("bridge")
        endpoint = self._addresses.lease(network, Endpoint("", network.id, network.name, ""), EndpointWish())
        return replace(endpoint, interface="eth0", mac=mac_for(endpoint.ipv4 or endpoint.ipv6))

    def _furnish(self, netns: int, endpoint: Endpoint) -> Endpoint:
        """In the pool's thread."""
        host = self._bridges.plug(self._network(endpoint.network_id), netns, endpoint.interface,
                                  addressing(endpoint, ()), endpoint.mac, by=self._bridges.ahead)
        return replace(endpoint, host_interface=host)

    def _forget_unused(self) -> None:
        """Addresses of namespaces that were given out and closed without a connect."""
        present = self._bridges.present(prepared.endpoint.host_interface for prepared in self._handed.values())
        for key, prepared in list(self._handed.items()):
            if prepared.endpoint.host_interface not in present:
                del self._handed[key]
                self._addresses.release(prepared.endpoint)


def is_plain(wish: EndpointWish) -> bool:
    """A place that was made ahead can be had: the wish says nothing that is done when a device is made."""
    return not wish.link_local and endpoint_options(wish.driver_opts) == EndpointOptions()
