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
from dataclasses import dataclass, field, replace

from backend.errors import EngineError, Forbidden, InvalidArgument, NotFound, Unavailable
from backend.network import records
from backend.network.bridge import (
    Addressing,
    Bridges,
    NetnsOps,
    bridge_name,
    default_bridge_name,
    read_sysctl,
    write_sysctl,
)
from backend.network.cooling import Cooling
from backend.network.dns import HostResolver, NameServer
from backend.network.endpoints import (
    AddressBook,
    dns_names,
    free_interface,
    mac_for,
    parse_mac,
    refuse_static,
    way_out,
)
from backend.network.firewall import Firewall, redirect_names
from backend.network.ipam import (
    Subnet,
    check_pools,
)
from backend.network.names import Names
from backend.network.planning import check, default_bridge, plan_subnets, pools6
from backend.network.pool import Prepared, SandboxPool, identity
from backend.network.publisher import Publication, Publisher
from backend.network.records import (
    DEFAULT_POOLS,
    AddressPool,
    Endpoint,
    EndpointWish,
    Network,
    NetworkSpec,
    PortWish,
    PublishedPort,
)
from backend.network.resolvconf import ResolverPlan, plan
from backend.network.ruleset import BridgeRules
from backend.network.watch import TableWatch

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Place:
    """What a container has here: endpoints by network ID, ports."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    published: list[Publication] = field(default_factory=list)


class NetworkManager:
    """Networks of one helper. *instance* names its firewall table; *bip* is the default bridge's address with its
    prefix length ("10.1.2.1/24"), "" for the first free piece of the pools; *ahead*: how many namespaces stand ready
    for containers on it."""

    def __init__(self, *, instance: str, state_dir: str, pools: Sequence[AddressPool], netns: NetnsOps,
                 bip: str = "", ahead: int = 6) -> None:
        check_pools(pools)
        self._instance = instance
        self._state_dir = state_dir
        self._pools = tuple(pools) or DEFAULT_POOLS
        self._bip = bip
        self._ops = netns
        self._networks: dict[str, Network] = {}
        self._addresses = AddressBook()
        self._places: dict[str, _Place] = {}
        self._pool = SandboxPool(ahead, fresh=netns.fresh, lease=self._lease_ahead, furnish=self._furnish,
                                 discard=self._addresses.release)
        self._handed: dict[int, Prepared] = {}      # given out and not yet connected, by namespace
        self._broken: dict[str, str] = {}           # why a network cannot be used, by ID
        self._inherited: set[str] = set()           # veths on our bridges from an earlier life
        self._resolver = HostResolver()
        self._names = Names()
        self._server = NameServer(self._names, netns.inside, redirect_names, self._resolver)
        self._firewall: Firewall | None = None
        self._watched: TableWatch | None = None
        self._fault = ""
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
        for network in saved:
            self._networks[network.id] = network
            self._addresses.add(network)
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null")):
            if not any(network.name == name for network in self._networks.values()):
                self._add_default(name, driver)
        if self._firewall is not None:
            await self._open_kernel(self._firewall)

    async def _open_kernel(self, firewall: Firewall) -> None:
        bridged = [network for network in self._networks.values() if network.driver == "bridge"]
        for name in set(self._bridges.own_bridges()) - {network.bridge for network in bridged}:
            self._bridges.remove(name)
        if read_sysctl("ipv4/ip_forward") == "0":
            write_sysctl("ipv4/ip_forward", "1")
            self._note("IPv4 forwarding was off on this host and has been switched on (net.ipv4.ip_forward)")
        self._inherited = set(self._bridges.ports())
        for network in bridged:
            try:
                self._forward_v6(network)
                await self._bridges.left(network.bridge)
                self._bridges.ensure(network)
            except (OSError, EngineError) as problem:      # one network must not keep the others, and the engine, down
                self._broken[network.id] = f"network {network.name} could not be brought up: {problem}"
                self._note(self._broken[network.id])
        firewall.open([self._rules(network) for network in bridged if network.id not in self._broken])
        self._watched = TableWatch(self._instance, firewall.heal)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        log.warning("%s", text)

    def _forward_v6(self, network: Network) -> None:
        if network.enable_ipv6 and read_sysctl("ipv6/conf/all/forwarding") == "0":
            write_sysctl("ipv6/conf/all/forwarding", "1")
            self._note("IPv6 forwarding was off on this host and has been switched on (net.ipv6.conf.all.forwarding)")

    async def restored(self) -> None:
        """Call once after the last :meth:`restore`: removes veths and published ports that no container claimed, and
        begins to make namespaces ahead."""
        if self._firewall is not None:
            claimed = {endpoint.host_interface for place in self._places.values()
                       for endpoint in place.endpoints.values()}
            for name in self._inherited - claimed:
                self._bridges.discard(name)
            self._inherited.clear()
            self._firewall.sweep()
            self._pool.start()      # not before: it would take addresses that running containers have

    async def close(self, keep: bool) -> None:
        """Let go of everything. *keep*: containers go on running, so bridges and firewall stay; else they go."""
        self._cooling.close()
        self._server.close()
        await self._pool.close()
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
        await asyncio.to_thread(self._bridges.close)

    # -- networks ------------------------------------------------------------------------------------------------

    def _add_default(self, name: str, driver: str) -> None:
        identity = secrets.token_hex(32)
        if driver == "bridge":
            device = default_bridge_name(self._instance)
            taken = [*self._addresses.subnets(), *(subnet for subnet, _ in self._routed(device))]
            network = default_bridge(identity, device, self._bip, self._pools, taken)
        else:
            network = Network(identity, name, driver, time.time_ns())
        self._networks[identity] = network
        self._addresses.add(network)

    def _routed(self, ignore: str = "") -> list[tuple[Subnet, str]]:
        """What the host routes, and through which device; without the device *ignore*."""
        names = self._bridges.device_names()
        routes = ((route.subnet, names.get(route.device, "a gateway")) for route in self._bridges.routes())
        return [(subnet, device) for subnet, device in routes if device != ignore]

    async def create(self, spec: NetworkSpec) -> Network:
        """Make a network; nothing stays when it fails."""
        check(spec, {network.name for network in self._networks.values()})
        firewall = self._working()
        v6 = pools6(self._pools, f"{self._instance}:{_machine()}")
        plans = plan_subnets(spec, self._pools, v6, self._addresses.subnets(), self._routed())
        identity = secrets.token_hex(32)
        network = Network(
            identity, spec.name, spec.driver, time.time_ns(), enable_ipv4=spec.enable_ipv4,
            enable_ipv6=spec.enable_ipv6, internal=spec.internal, attachable=spec.attachable,
            ipam_driver=spec.ipam_driver or "default", ipam_options=spec.ipam_options, ipam=plans,
            user_subnets=any(config.subnet for config in spec.ipam), options=spec.options, labels=spec.labels,
            bridge=bridge_name(identity, spec.options))
        if any(other.bridge == network.bridge for other in self._networks.values()):
            raise Forbidden(f"the bridge name {network.bridge} is already used by another network")
        self._forward_v6(network)
        await self._bridges.left(network.bridge)
        self._bridges.ensure(network)
        try:
            firewall.add_bridge(self._rules(network))
        except BaseException:
            self._bridges.remove(network.bridge)
            raise
        self._networks[identity] = network
        self._addresses.add(network)
        return network

    def _rules(self, network: Network) -> BridgeRules:
        return BridgeRules(
            network.bridge, tuple(config.subnet for config in network.ipam), network.internal,
            network.flag(records.OPTION_ICC, True), network.flag(records.OPTION_MASQUERADE, True),
            network.options.get(records.OPTION_MODE4) == "nat-unprotected")

    async def remove(self, network_id: str) -> None:
        """Remove a network without endpoints (Forbidden, as dockerd, otherwise)."""
        network = self.get(network_id)
        if network.is_default:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        users = self.endpoints(network.id)
        if users:
            who = ", ".join(f'name:"{user.container_name}" id:"{user.id[:12]}"' for user in users)
            raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({who})")
        del self._networks[network.id]
        self._addresses.remove(network.id)
        self._broken.pop(network.id, None)
        if self._firewall is not None:
            self._firewall.remove_bridge(network.bridge)
            self._bridges.remove(network.bridge)

    def get(self, name_or_id: str) -> Network:
        """A network by ID, name, or unique beginning of its ID."""
        if name_or_id in self._networks:
            return self._networks[name_or_id]
        for network in self._networks.values():
            if network.name == name_or_id:
                return network
        found = [network for network in self._networks.values() if name_or_id and network.id.startswith(name_or_id)]
        if len(found) > 1:
            raise InvalidArgument(f"network {name_or_id} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {name_or_id} not found")
        return found[0]

    def list(self) -> list[Network]:
        """All networks, oldest first."""
        return sorted(self._networks.values(), key=lambda network: network.created)

    def endpoints(self, network_id: str) -> Sequence[Endpoint]:
        """Who is on a network."""
        return [place.endpoints[network_id] for place in self._places.values() if network_id in place.endpoints]

    def _working(self) -> Firewall:
        if self._firewall is None:
            raise Unavailable(self._fault or "networks are not open")
        return self._firewall

    # -- containers ----------------------------------------------------------------------------------------------

    async def sandbox(self, network_id: str = "") -> int:
        """A descriptor of a network namespace with lo up; the caller's to close. *network_id* says on which network the
        container will be first: for the default bridge, namespaces stand ready."""
        network = self._networks.get(network_id)
        if network is not None and network.name == "bridge":
            prepared = self._pool.take()
            if prepared is not None:
                self._handed[identity(prepared.netns)] = prepared
                return prepared.netns
        return (await self._ops.fresh(1))[0]

    async def connect(self, network_id: str, container_id: str, netns: int, wish: EndpointWish) -> Endpoint:
        """Put a container on a network: address, device, routes, names. On host and none there is nothing to do but the
        record (*netns* is not used there)."""
        network = self.get(network_id)
        place = self._places.get(container_id) or _Place()
        if network.id in place.endpoints:
            raise Forbidden(f"endpoint with name {wish.container_name} already exists in network {network.name}")
        endpoint = Endpoint(
            secrets.token_hex(32), network.id, network.name, container_id, wish.container_name, aliases=wish.aliases,
            dns_names=dns_names(network, container_id, wish), links=wish.links, gw_priority=wish.gw_priority,
            driver_opts=wish.driver_opts)
        if network.driver == "bridge":
            self._working()
            if network.id in self._broken:
                raise Unavailable(self._broken[network.id])
            prepared = self._handed.pop(identity(netns), None)
            if prepared is not None and prepared.endpoint.network_id == network.id:
                endpoint = self._move_in(prepared, endpoint, wish)
            else:
                if prepared is not None:      # made for another network than it is used for
                    await self._bridges.unplug(prepared.endpoint.host_interface)
                    self._addresses.release(prepared.endpoint)
                endpoint = self._plug(network, place, netns, endpoint, wish)
        self._places.setdefault(container_id, place).endpoints[network.id] = endpoint
        self._names.add(endpoint)
        return endpoint

    def _move_in(self, prepared: Prepared, endpoint: Endpoint, wish: EndpointWish) -> Endpoint:
        """Use a namespace that was made ahead."""
        ready = prepared.endpoint
        mac = parse_mac(wish.mac)
        try:
            if wish.ipv4 or wish.ipv6:
                refuse_static(self.get(endpoint.network_id))
            if mac:
                self._bridges.set_mac(prepared.netns, ready.interface, mac)
        except BaseException:
            self._cool(ready)
            raise
        return replace(endpoint, interface=ready.interface, host_interface=ready.host_interface, mac=mac or ready.mac,
                       ipv4=ready.ipv4, ipv4_prefix=ready.ipv4_prefix, gateway=ready.gateway,
                       ipv6=ready.ipv6, ipv6_prefix=ready.ipv6_prefix, gateway6=ready.gateway6)

    def _plug(self, network: Network, place: _Place, netns: int, endpoint: Endpoint, wish: EndpointWish) -> Endpoint:
        endpoint = self._addresses.lease(network, endpoint, wish)
        try:
            prefix = network.options.get(records.OPTION_PREFIX, "") or "eth"
            interface = free_interface(prefix, {other.interface for other in place.endpoints.values()})
            endpoint = replace(endpoint, interface=interface, mac=parse_mac(wish.mac) or mac_for(endpoint.ipv4))
            out = way_out([*place.endpoints.values(), endpoint]) is endpoint
            host = self._bridges.plug(network, netns, interface, _addressing(endpoint, out=out), endpoint.mac)
        except BaseException:
            self._addresses.release(endpoint)
            raise
        return replace(endpoint, host_interface=host)

    # -- made ahead ----------------------------------------------------------------------------------------------

    def _lease_ahead(self) -> Endpoint:
        self._forget_unused()
        network = self.get("bridge")
        endpoint = self._addresses.lease(network, Endpoint("", network.id, network.name, ""), EndpointWish())
        return replace(endpoint, interface="eth0", mac=mac_for(endpoint.ipv4))

    def _furnish(self, netns: int, endpoint: Endpoint) -> Endpoint:
        """In the pool's thread."""
        network = self._networks[endpoint.network_id]
        host = self._bridges.plug(network, netns, endpoint.interface, _addressing(endpoint, out=True), endpoint.mac,
                                  by=self._bridges.ahead)
        return replace(endpoint, host_interface=host)

    def _forget_unused(self) -> None:
        """Addresses of namespaces that were given out and closed without a connect."""
        present = self._bridges.present(prepared.endpoint.host_interface for prepared in self._handed.values())
        for key, prepared in list(self._handed.items()):
            if prepared.endpoint.host_interface not in present:
                del self._handed[key]
                self._addresses.release(prepared.endpoint)

    async def disconnect(self, endpoint: Endpoint, netns: int | None) -> None:
        """Take a container off a network; *netns* (None: it does not run) gets another way out if it lost its own."""
        place = self._places.get(endpoint.container_id)
        if place is None or endpoint.network_id not in place.endpoints:
            raise Forbidden(f"container {endpoint.container_id} is not connected to network {endpoint.network_name}")
        endpoint = place.endpoints.pop(endpoint.network_id)
        self._names.remove(endpoint)
        gone = [publication for publication in place.published if publication.endpoint == endpoint.id]
        place.published = [publication for publication in place.published if publication.endpoint != endpoint.id]
        self._end(gone)
        if not place.endpoints:
            self._places.pop(endpoint.container_id, None)
        if endpoint.host_interface:
            await self._bridges.unplug(endpoint.host_interface)
            out = way_out(place.endpoints.values())
            if netns is not None and out is not None:
                self._bridges.reroute(netns, out.interface, (out.gateway, out.gateway6))
        self._addresses.release(endpoint)

    # -- ports ---------------------------------------------------------------------------------------------------

    async def publish(self, container_id: str, endpoint: Endpoint,
                      ports: Sequence[PortWish]) -> tuple[PublishedPort, ...]:
        """Publish a container's ports on the host, all or none. Endpoints without an address of their own (host, none)
        publish nothing, as with Docker."""
        if not endpoint.ipv4 or not ports:
            return ()
        publisher = self._publishing()
        binding = self.get(endpoint.network_id).options.get(records.OPTION_BINDING, "")
        done = publisher.publish(endpoint, ports, "" if binding == "0.0.0.0" else binding)
        self._places.setdefault(container_id, _Place()).published += done
        self._bridges.hairpin(endpoint.host_interface)
        return tuple(publication.record for publication in done)

    def _publishing(self) -> Publisher:
        self._working()
        assert self._publisher is not None
        return self._publisher

    def _end(self, publications: Sequence[Publication], *, withdraw: bool = True) -> None:
        if self._publisher is not None:
            self._publisher.end(publications, withdraw=withdraw)

    async def release(self, container_id: str) -> None:
        """The container has ended: free its ports and addresses. Its veths go with its namespace, in the background."""
        place = self._places.pop(container_id, None)
        if place is None:
            return
        self._server.stop(container_id)
        self._end(place.published)
        for endpoint in place.endpoints.values():
            self._names.remove(endpoint)
            if endpoint.host_interface:
                self._cool(endpoint)

    def _cool(self, endpoint: Endpoint) -> None:
        """Keep an address from others until its device is gone."""
        self._addresses.release(endpoint, cool=True)
        self._cooling.add(endpoint)

    async def restore(self, container_id: str, netns: int, endpoints: Sequence[Endpoint],
                      ports: Sequence[PublishedPort]) -> None:
        """Take a running container over after a restart of the helper: addresses, ports, names. Its resolver comes back
        with :meth:`serve_names`."""
        place = _Place()
        self._places[container_id] = place
        for endpoint in endpoints:
            self._addresses.claim(endpoint)
            place.endpoints[endpoint.network_id] = endpoint
            self._names.add(endpoint)
        for endpoint in endpoints:
            wishes = [PortWish(port.container_port, port.protocol, port.host_ip, port.host_port)
                      for port in ports if port.target == endpoint.ipv4]
            if wishes:
                place.published += self._publishing().publish(endpoint, wishes)

    # -- names ---------------------------------------------------------------------------------------------------

    def resolver_plan(self, container_id: str, *, servers: Sequence[str] = (), search: Sequence[str] = (),
                      options: Sequence[str] = ()) -> ResolverPlan:
        """The container's /etc/resolv.conf, after its connects, and whether :meth:`serve_names` must be called. The
        arguments are the user's (``--dns``, ``--dns-search``, ``--dns-option``)."""
        drivers = [self.get(endpoint.network_id) for endpoint in self._names.endpoints(container_id)]
        isolated = not any(network.driver == "host" for network in drivers)
        host = self._resolver.for_containers() if isolated else self._resolver.current()
        return plan(host, embedded=any(network.has_names for network in drivers),
                    isolated=isolated and any(network.driver == "bridge" for network in drivers),
                    servers=servers, search=search, options=options)

    def rename(self, container_id: str, name: str) -> Sequence[Endpoint]:
        """The container has another name: its endpoints, changed, to be kept in place of the old ones."""
        place = self._places.get(container_id)
        if place is None:
            return ()
        for endpoint in list(place.endpoints.values()):
            known = (name if known == endpoint.container_name else known for known in endpoint.dns_names)
            changed = replace(endpoint, container_name=name, dns_names=tuple(dict.fromkeys(known)))
            self._names.remove(endpoint)
            self._names.add(changed)
            place.endpoints[endpoint.network_id] = changed
        return tuple(place.endpoints.values())

    async def serve_names(self, container_id: str, netns: int, *, servers: Sequence[str] = ()) -> None:
        """Answer the container at 127.0.0.11:53 until :meth:`release`. *servers*: the user's, instead of the host's."""
        await self._server.serve(container_id, netns, servers)


def _addressing(endpoint: Endpoint, *, out: bool) -> Addressing:
    return Addressing(endpoint.ipv4, endpoint.ipv4_prefix, endpoint.gateway if out else "",
                      endpoint.ipv6, endpoint.ipv6_prefix, endpoint.gateway6 if out else "")


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
