"""The network room's door: networks, containers' places on them, published ports.

Everything here runs on the helper's loop; between two awaits nothing else runs, which is what keeps addresses, ports
and names from being given twice. Records are values: the engine stores them, this room keeps none on disk.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence

from backend.errors import EngineError, Forbidden, InvalidArgument, NotFound, Unavailable
from backend.network.addresses import Addresses
from backend.network.ahead import Ahead, is_plain
from backend.network.bridge import (
    Bridges,
    NetnsOps,
    bridge_name,
    default_bridge_name,
    read_sysctl,
    write_sysctl,
)
from backend.network.cooling import Cooling
from backend.network.dns import HostResolver, NameServer
from backend.network.drivers import (
    BridgeDriver,
    Driver,
    LanDriver,
    parent_name,
    rules,
)
from backend.network.endpoints import check_wish, dns_names, ways_out
from backend.network.firewall import Firewall, redirect_names
from backend.network.ipam import Subnet
from backend.network.known import Known
from backend.network.names import Names
from backend.network.options import bridge_options
from backend.network.places import Place, Places
from backend.network.planning import check, config_network, configured, default_bridge, planned
from backend.network.publisher import Publication, Publisher
from backend.network.records import (
    LANS,
    AddressPool,
    Endpoint,
    EndpointWish,
    Network,
    NetworkSpec,
    PortWish,
    PublishedPort,
)
from backend.network.remote import Caller as Plugins
from backend.network.remote import RemoteDriver
from backend.network.resolvconf import ResolverPlan, plan
from backend.network.watch import TableWatch

log = logging.getLogger(__name__)


class NetworkManager:
    """Networks of one helper. *instance* names its firewall table; *bip* is the default bridge's address with its
    prefix length ("10.1.2.1/24"), "" for the first free piece of the pools; *ahead*: how many namespaces stand ready
    for containers on it."""

    def __init__(self, *, instance: str, state_dir: str, pools: Sequence[AddressPool], netns: NetnsOps,
                 bip: str = "", ahead: int = 6, plugins: Plugins | None = None) -> None:
        self._instance = instance
        self._state_dir = state_dir
        self._bip = bip
        self._ops = netns
        self._plugins = plugins
        self._known = Known()
        self._given = Addresses(pools, f"{instance}:{_machine()}", plugins, self._routed)
        self._addresses = self._given.book
        self._places = Places()
        self._ahead = Ahead(ahead, netns, self._addresses, self.get, self._cool)
        self._broken: dict[str, str] = {}           # why a network cannot be used, by ID
        self._inherited: set[str] = set()           # veths on our bridges from an earlier life
        self._resolver = HostResolver()
        self._names = Names()
        self._server = NameServer(self._names, netns.inside, redirect_names, self._resolver)
        self._firewall: Firewall | None = None
        self._watched: TableWatch | None = None
        self._fault = ""
        self._drivers: dict[str, Driver] = {}
        self._joining: dict[str, int] = {}          # connects under way, by network ID
        self._bridges: Bridges
        self._cooling: Cooling
        self._publisher: Publisher | None = None
        self.notes: list[str] = []      # what was changed on the host, for the engine's `info` and log

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self, saved: Sequence[Network]) -> None:
        """Bring up what is *saved*, make missing default networks, remove bridges that a dead instance left."""
        self._bridges = Bridges(self._instance, self._ops)
        self._cooling = Cooling(self._bridges.present, self._addresses.settle, self._bridges.discard)
        try:
            self._firewall = Firewall(self._instance)
            self._publisher = Publisher(self._firewall, _ephemeral(), self._bridges.local)
        except Unavailable as missing:
            self._fault = missing.message
            self._note(missing.message)
        lan = LanDriver(self._bridges)
        self._drivers.update(macvlan=lan, ipvlan=lan)
        if self._firewall is not None:
            self._drivers["bridge"] = BridgeDriver(self._bridges, self._firewall, self._forward_v6)
        for network in saved:
            self._known.add(network)
            if network.driver not in (*self._drivers, "bridge", "host", "null") and self._plugins is not None:
                self._drivers[network.driver] = RemoteDriver(network.driver, self._plugins, self._bridges)
            self._addresses.add(network)
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            if name not in self._known.names():
                self._add_default(name, driver)
        if self._firewall is not None:
            self._prepare_host()
        for network in self._known:
            if network.driver in self._drivers:
                await self._bring_back(network)
        if self._firewall is not None:
            self._firewall.open([rules(network) for network in self._known.of("bridge")
                                 if network.id not in self._broken])
            self._watched = TableWatch(self._instance, self._firewall.heal)
            for obstacle in self._firewall.obstacles(self.get("bridge").bridge):
                self._note(obstacle)

    def _prepare_host(self) -> None:
        """Remove what a dead instance left, switch forwarding on."""
        for name in set(self._bridges.own_bridges()) - {network.bridge for network in self._known.of("bridge")}:
            self._bridges.remove(name)
        self._bridges.remove_parents({parent_name(one) for one in self._known if one.driver in LANS})
        self._inherited = set(self._bridges.ports())
        if read_sysctl("ipv4/ip_forward") == "0":
            write_sysctl("ipv4/ip_forward", "1")
            self._note("IPv4 forwarding was off on this host and has been switched on (net.ipv4.ip_forward)")

    async def _bring_back(self, network: Network) -> None:
        try:
            await self._drivers[network.driver].again(network)
        except (OSError, EngineError) as problem:      # one network must not keep the others, and the engine, down
            self._broken[network.id] = f"network {network.name} could not be brought up: {problem}"
            self._note(self._broken[network.id])

    def _note(self, text: str) -> None:
        self.notes.append(text)
        log.warning("%s", text)

    def _forward_v6(self) -> None:
        if read_sysctl("ipv6/conf/all/forwarding") == "0":
            write_sysctl("ipv6/conf/all/forwarding", "1")
            self._note("IPv6 forwarding was off on this host and has been switched on (net.ipv6.conf.all.forwarding)")

    async def restored(self) -> None:
        """Call once after the last :meth:`restore`: removes veths and published ports that no container claimed, and
        begins to make namespaces ahead."""
        if self._firewall is not None:
            for name in self._inherited - self._places.devices():
                self._bridges.discard(name)
            self._inherited.clear()
            self._firewall.sweep()
            self._ahead.start(self._bridges)      # not before: it would take addresses that running containers have

    async def close(self, keep: bool) -> None:
        """Let go of everything. *keep*: containers go on running, so bridges and firewall stay; else they go."""
        self._cooling.close()
        self._server.close()
        await self._ahead.pool.close()
        for place in self._places.values():
            self._end(place.published, withdraw=False)
        if self._watched is not None:
            self._watched.close()
        if self._publisher is not None:
            self._publisher.close()
        self._places.clear()
        if self._firewall is not None:
            self._firewall.close(keep=keep)
            if not keep:
                for name in self._bridges.own_bridges():
                    self._bridges.remove(name)
                self._bridges.remove_parents(())
        await asyncio.to_thread(self._bridges.close)

    # -- networks ------------------------------------------------------------------------------------------------

    def _add_default(self, name: str, driver: str) -> None:
        identity = secrets.token_hex(32)
        if driver == "bridge":
            device = default_bridge_name(self._instance)
            taken = [*self._addresses.subnets(), *(subnet for subnet, _ in self._routed(device))]
            network = default_bridge(identity, device, self._bip, self._given.pools, taken)
        else:
            network = Network(identity, name, driver, time.time_ns())
        self._known.add(network)
        self._addresses.add(network)

    def _routed(self, ignore: str = "") -> list[tuple[Subnet, str]]:
        """What the host routes, and through which device; without the device *ignore*."""
        named = [(route.subnet, self._bridges.name_of(route.device)) for route in self._bridges.routes()]
        return [(subnet, device) for subnet, device in named if device != ignore]

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network; nothing stays when it fails."""
        check(spec, self._known.names())
        if spec.config_from:
            spec = configured(spec, self._known.configuration(spec.config_from))
        identity = secrets.token_hex(32)
        network = config_network(identity, spec) if spec.config_only else await self._planned(identity, spec)
        self._known.add(network)
        self._addresses.add(network)      # before the first wait: nobody else gets the subnets meanwhile
        try:
            check(spec, self._known.names(without=network))
            if not network.config_only:
                self._known.refuse_shared(network)
                await self._driver(network).up(network)
        except BaseException:
            self._known.remove(network)
            await self._given.unplan(network)
            raise
        return network

    async def _planned(self, identity: str, spec: NetworkSpec) -> Network:
        await self._prepare_driver(spec.driver)
        plans, pools = await self._given.plan(spec)
        device = bridge_name(identity, spec.options) if spec.driver == "bridge" else ""
        return planned(identity, spec, plans, pools, device)

    async def _prepare_driver(self, name: str) -> None:
        """Refuse a driver that cannot be used now; one that is none of ours is a plug-in's."""
        if name == "bridge":
            self._working()
        elif name not in LANS:
            if self._plugins is None:
                raise NotFound(f'plugin "{name}" not found')
            remote = RemoteDriver(name, self._plugins, self._bridges)
            await remote.check()
            self._drivers[name] = remote

    def _driver(self, network: Network) -> Driver:
        if network.driver == "bridge":
            self._working()
        return self._drivers[network.driver]

    async def remove(self, network_id: str) -> None:
        """Remove a network without endpoints (Forbidden, as dockerd, otherwise)."""
        network = self.get(network_id)
        if network.is_default:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        self._refuse_used(network)
        self._known.remove(network)
        self._broken.pop(network.id, None)
        if network.driver in self._drivers:
            await self._drivers[network.driver].down(network)
        await self._given.unplan(network)

    def _refuse_used(self, network: Network) -> None:
        failed = f"error while removing network: network {network.name} "
        users = self.endpoints(network.id)
        if users:
            who = ", ".join(f'name:"{user.container_name}" id:"{user.id[:12]}"' for user in users)
            raise Forbidden(f"{failed}has active endpoints ({who})")
        if self._joining.get(network.id):
            raise Forbidden(f"{failed}has active endpoints: a container is being connected to it")
        self._known.refuse_configuring(network)

    def get(self, name_or_id: str) -> Network:
        """A network by ID, name, or unique beginning of its ID."""
        return self._known.get(name_or_id)

    def list(self) -> list[Network]:
        """All networks, oldest first."""
        return self._known.oldest_first()

    def endpoints(self, network_id: str) -> Sequence[Endpoint]:
        """Who is on a network."""
        return self._places.on(network_id)

    def _working(self) -> Firewall:
        if self._firewall is None:
            raise Unavailable(self._fault or "networks are not open")
        return self._firewall

    # -- containers ----------------------------------------------------------------------------------------------

    async def sandbox(self, network_id: str = "") -> int:
        """A descriptor of a network namespace with lo up; the caller's to close. *network_id* says on which network the
        container will be first: for the default bridge, namespaces stand ready."""
        network = self._known.find(network_id)
        if network is not None and network.name == "bridge":
            ready = self._ahead.take()
            if ready is not None:
                return ready
        return (await self._ops.fresh(1))[0]

    def check(self, name: str, wish: EndpointWish) -> None:
        """Refuse now what :meth:`connect` would refuse later for what the client wrote."""
        try:
            network = self.get(name)
        except NotFound:
            network = None
        try:
            check_wish(network, name if network is None else network.name, wish)
        except InvalidArgument as problem:
            raise InvalidArgument(f"invalid config for network {name}: {problem.message}") from None

    async def connect(self, network_id: str, container_id: str, netns: int, wish: EndpointWish) -> Endpoint:
        """Put a container on a network: address, device, routes, names. On host and none there is nothing to do but the
        record (*netns* is not used there)."""
        network = self.get(network_id)
        check_wish(network, network.name, wish)
        place = self._places.get(container_id) or Place()
        if network.id in place.endpoints:
            raise Forbidden(f"endpoint with name {wish.container_name} already exists in network {network.name}")
        if network.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        endpoint = Endpoint(
            secrets.token_hex(32), network.id, network.name, container_id, wish.container_name, mac=wish.mac,
            aliases=wish.aliases, dns_names=dns_names(network, container_id, wish), links=wish.links,
            gw_priority=wish.gw_priority, driver_opts=wish.driver_opts, link_local=wish.link_local)
        if network.driver not in ("host", "null"):
            endpoint = await self._join(network, place, netns, endpoint, wish)
        self._places.setdefault(container_id, place).endpoints[network.id] = endpoint
        self._names.add(endpoint)
        return endpoint

    async def _join(self, network: Network, place: Place, netns: int, endpoint: Endpoint,
                    wish: EndpointWish) -> Endpoint:
        driver = self._driver(network)
        if network.id in self._broken:
            await self._mend(network, driver)
        self._joining[network.id] = self._joining.get(network.id, 0) + 1
        try:
            prepared = self._ahead.claim(netns)
            if prepared is not None:
                if prepared.endpoint.network_id == network.id and is_plain(wish):
                    return self._ahead.move_in(prepared, endpoint, wish)
                await self._ahead.empty(prepared)
            endpoint = await self._given.lease(network, endpoint, wish)
            try:
                return await driver.join(network, netns, endpoint, tuple(place.endpoints.values()))
            except BaseException:
                await self._given.release(network, endpoint)
                raise
        finally:
            self._joining[network.id] -= 1
            if not self._joining[network.id]:
                del self._joining[network.id]

    async def _mend(self, network: Network, driver: Driver) -> None:
        """What kept a network from coming up at the start may have been put right meanwhile."""
        try:
            await driver.up(network)
        except (OSError, EngineError) as problem:
            raise Unavailable(f"network {network.name} could not be brought up: {problem}") from problem
        note = self._broken.pop(network.id, "")
        self.notes[:] = [one for one in self.notes if one != note]

    async def disconnect(self, endpoint: Endpoint, netns: int | None) -> None:
        """Take a container off a network; *netns* (None: it does not run) gets another way out if it lost its own."""
        place = self._places.get(endpoint.container_id)
        if place is None or endpoint.network_id not in place.endpoints:
            raise Forbidden(f"container {endpoint.container_id} is not connected to network {endpoint.network_name}")
        endpoint = place.endpoints.pop(endpoint.network_id)
        self._names.remove(endpoint)
        self._end(place.take_published(endpoint))
        if not place.endpoints:
            self._places.pop(endpoint.container_id, None)
        network = self.get(endpoint.network_id)
        try:
            if network.driver in self._drivers:
                await self._drivers[network.driver].leave(network, endpoint, netns)
                if netns is not None:
                    self._reroute(netns, place)
        finally:
            await self._given.release(network, endpoint)

    def _reroute(self, netns: int, place: Place) -> None:
        """Make the ways out what they are now."""
        four, six = ways_out(place.endpoints.values())
        if four is not None:
            self._bridges.reroute(netns, four.interface, (four.gateway,))
        if six is not None:
            self._bridges.reroute(netns, six.interface, (six.gateway6,))

    # -- ports ---------------------------------------------------------------------------------------------------

    async def publish(self, container_id: str, endpoint: Endpoint,
                      ports: Sequence[PortWish]) -> tuple[PublishedPort, ...]:
        """Publish a container's ports on the host, all or none. Endpoints without an address of their own (host, none)
        publish nothing, nor do macvlan and ipvlan, as with Docker."""
        network = self.get(endpoint.network_id)
        driver = self._drivers.get(network.driver)
        if ports and isinstance(driver, RemoteDriver):
            return await driver.publish(endpoint, ports)
        if network.driver != "bridge" or not ports:
            return ()
        done = self._publishing().publish(endpoint, ports, bridge_options(network.options))
        self._places.setdefault(container_id, Place()).published += done
        self._bridges.hairpin(endpoint.host_interface)
        return tuple(publication.record for publication in done)

    def _publishing(self) -> Publisher:
        self._working()
        assert self._publisher is not None
        return self._publisher

    def _end(self, publications: Sequence[Publication], *, withdraw: bool = True) -> None:
        if self._publisher is not None:
            self._publisher.end(publications, withdraw=withdraw)

    async def release(self, container_id: str, recorded: Sequence[Endpoint] = ()) -> None:
        """The container has ended: free its ports and addresses. Its veths go with its namespace, in the background.
        *recorded* are its endpoints as the engine knows them: it may have ended while nobody looked, and a plug-in
        must hear of it all the same."""
        place = self._places.pop(container_id, None)
        if place is not None:
            self._release_own(container_id, place)
        for endpoint in place.endpoints.values() if place is not None else recorded:
            network = self._known.find(endpoint.network_id)
            if network is not None and network.driver in self._drivers:
                await self._drivers[network.driver].ended(network, endpoint)
                if network.pools:
                    await self._given.release(network, endpoint)

    def _release_own(self, container_id: str, place: Place) -> None:
        self._server.stop(container_id)
        self._end(place.published)
        for endpoint in place.endpoints.values():
            self._names.remove(endpoint)
            if endpoint.interface:
                self._cool(endpoint)

    def _cool(self, endpoint: Endpoint) -> None:
        """Keep an address from others until its device is gone."""
        self._addresses.release(endpoint, cool=True)
        self._cooling.add(endpoint)

    async def restore(self, container_id: str, netns: int, endpoints: Sequence[Endpoint],
                      ports: Sequence[PublishedPort]) -> None:
        """Take a running container over after a restart of the helper: addresses, ports, names. Its resolver comes back
        with :meth:`serve_names`."""
        place = Place()
        self._places[container_id] = place
        for endpoint in endpoints:
            self._addresses.claim(endpoint)
            place.endpoints[endpoint.network_id] = endpoint
            self._names.add(endpoint)
        for endpoint in endpoints:
            network = self.get(endpoint.network_id)
            if network.driver != "bridge":      # a plug-in's ports are its own
                continue
            wishes = [PortWish(port.container_port, port.protocol, port.host_ip, port.host_port)
                      for port in ports if port.target and port.target in (endpoint.ipv4, endpoint.ipv6)]
            if wishes:
                place.published += self._publishing().publish(endpoint, wishes, bridge_options(network.options))

    # -- names ---------------------------------------------------------------------------------------------------

    def resolver_plan(self, container_id: str, *, servers: Sequence[str] = (), search: Sequence[str] = (),
                      options: Sequence[str] = ()) -> ResolverPlan:
        """The container's /etc/resolv.conf, after its connects, and whether :meth:`serve_names` must be called. The
        arguments are the user's (``--dns``, ``--dns-search``, ``--dns-option``)."""
        drivers = [self.get(endpoint.network_id) for endpoint in self._names.endpoints(container_id)]
        isolated = not any(network.driver == "host" for network in drivers)
        host = self._resolver.for_containers() if isolated else self._resolver.current()
        return plan(host, embedded=any(network.has_names for network in drivers),
                    isolated=isolated and any(network.driver != "null" for network in drivers),
                    servers=servers, search=search, options=options)

    def rename(self, container_id: str, name: str) -> Sequence[Endpoint]:
        """The container has another name: its endpoints, changed, to be kept in place of the old ones."""
        place = self._places.get(container_id)
        if place is None:
            return ()
        for old, changed in place.rename(name):
            self._names.remove(old)
            self._names.add(changed)
        return tuple(place.endpoints.values())

    async def serve_names(self, container_id: str, netns: int, *, servers: Sequence[str] = ()) -> None:
        """Answer the container at 127.0.0.11:53 until :meth:`release`. *servers*: the user's, instead of the host's."""
        await self._server.serve(container_id, netns, servers)


def _ephemeral() -> tuple[int, int]:
    """The kernel's range for ports that nobody chose."""
    text = read_sysctl("ipv4/ip_local_port_range").split()
    return (int(text[0]), int(text[1])) if len(text) == 2 else (32768, 60999)


def _machine() -> str:
    try:
        with open("/etc/machine-id", encoding="ascii") as source:
            return source.read().strip()
    except OSError:      # containers often have none; the instance's name alone must do
        return ""
