"""Who gives addresses: our own books, or an address plug-in (``--ipam-driver``), or nobody (``null``).

With our own books nothing here waits, so that what the manager does around it is one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.errors import NotFound
from backend.network.endpoints import AddressBook
from backend.network.ipam import Subnet, check_pools
from backend.network.planning import plan_subnets, pools6, versions, wished_subnets
from backend.network.records import DEFAULT_POOLS, AddressPool, Endpoint, EndpointWish, IpamConfig, Network, NetworkSpec
from backend.network.remote import Caller, RemoteIpam

OWN = ("", "default")


class Addresses:
    """Plans subnets and leases addresses. *routed* tells what the host routes, *seed* makes the IPv6 prefix ours."""

    def __init__(self, pools: Sequence[AddressPool], seed: str, plugins: Caller | None,
                 routed: Callable[[], Sequence[tuple[Subnet, str]]]) -> None:
        check_pools(pools)
        self.pools = tuple(pools) or DEFAULT_POOLS
        self.book = AddressBook()
        self._pools6 = pools6(self.pools, seed)
        self._plugins, self._routed = plugins, routed

    def _remote(self, name: str) -> RemoteIpam:
        if self._plugins is None:
            raise NotFound(f'plugin "{name}" not found')
        return RemoteIpam(name, self._plugins)

    async def plan(self, spec: NetworkSpec) -> tuple[tuple[IpamConfig, ...], tuple[str, ...]]:
        """The subnets of a new network, and a plug-in's names for them."""
        if spec.ipam_driver == "null":
            return (), ()
        if spec.ipam_driver in OWN:
            return plan_subnets(spec, self.pools, self._pools6, self.book.subnets(), self._routed()), ()
        return await self._remote(spec.ipam_driver).plan(spec, wished_subnets(spec), versions(spec))

    async def unplan(self, network: Network) -> None:
        """A network is gone, or came to nothing."""
        self.book.remove(network.id)
        if network.pools:
            await self._remote(network.ipam_driver).release_pools(network.pools, network.ipam)

    async def lease(self, network: Network, endpoint: Endpoint, wish: EndpointWish) -> Endpoint:
        """*endpoint* with its addresses, all or none."""
        if network.pools:
            return await self._remote(network.ipam_driver).lease(network, endpoint, wish.ipv4, wish.ipv6)
        return self.book.lease(network, endpoint, wish)

    async def release(self, network: Network, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back."""
        if network.pools:
            await self._remote(network.ipam_driver).release(network, endpoint)
        else:
            self.book.release(endpoint)
