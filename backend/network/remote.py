"""Networks and addresses by plug-ins (Docker's remote driver protocol).

A network plug-in makes a device in the host's namespace and names it; moving it into the container, its addresses and
routes stay ours. An address plug-in gives subnets and addresses in place of our own books.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import msgspec

from backend.errors import EngineError, Forbidden, ServerError
from backend.network.bridge import Bridges, random_mac
from backend.network.drivers import addressing, named
from backend.network.endpoints import parse_mac
from backend.network.ipam import parse_address
from backend.network.options import is_device
from backend.network.records import Endpoint, IpamConfig, Network, NetworkSpec, PortWish, PublishedPort

log = logging.getLogger(__name__)
T = TypeVar("T")
_GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_PORTMAP = "com.docker.network.portmap"


class Caller(Protocol):
    """What the engine lends us of its plug-ins (backend.plugins)."""

    async def call(self, name: str, method: str, body: Mapping[str, Any], answer: type[T]) -> T:
        """Call a method of a plug-in; NotFound, Unavailable or ServerError."""


class _Nothing(msgspec.Struct):
    pass


class _Scope(msgspec.Struct, rename="pascal"):
    scope: str = "local"


class _Interface(msgspec.Struct, rename="pascal"):
    address: str = ""
    address_ipv6: str = msgspec.field(name="AddressIPv6", default="")
    mac_address: str = ""


class _Endpoint(msgspec.Struct, rename="pascal"):
    interface: _Interface | None = None


class _InterfaceName(msgspec.Struct, rename="pascal"):
    src_name: str = ""
    dst_prefix: str = ""
    dst_name: str = ""


class _StaticRoute(msgspec.Struct, rename="pascal"):
    destination: str
    route_type: int = 0
    next_hop: str = ""


class _Joined(msgspec.Struct, rename="pascal"):
    interface_name: _InterfaceName | None = None
    gateway: str = ""
    gateway_ipv6: str = msgspec.field(name="GatewayIPv6", default="")
    static_routes: list[_StaticRoute] | None = None


class _Binding(msgspec.Struct, rename="pascal"):
    """A published port in the words of the protocol."""

    proto: int
    port: int
    host_port: int
    host_ip: str = msgspec.field(name="HostIP", default="")


class _Told(msgspec.Struct, rename="pascal"):
    portmap: list[_Binding] | None = msgspec.field(name=_PORTMAP, default=None)


class _Info(msgspec.Struct, rename="pascal"):
    value: _Told | None = None


class RemoteDriver:
    """The networks of one plug-in; a :class:`backend.network.drivers.Driver`."""

    def __init__(self, name: str, plugins: Caller, bridges: Bridges) -> None:
        self._name, self._plugins, self._bridges = name, plugins, bridges

    async def _call(self, method: str, body: Mapping[str, Any], answer: type[T]) -> T:
        return await self._plugins.call(self._name, f"NetworkDriver.{method}", body, answer)

    async def check(self) -> None:
        """NotFound if there is no such plug-in; Forbidden if its networks span machines, which needs a swarm."""
        found = await self._call("GetCapabilities", {}, _Scope)
        if found.scope != "local":
            raise Forbidden(f"the networks of plugin {self._name} have the scope {found.scope}, which needs a swarm: "
                            "this engine has none")

    async def up(self, network: Network) -> None:
        """Tell the plug-in of the network."""
        data: dict[int, list[dict[str, Any]]] = {4: [], 6: []}
        for config in network.ipam:
            subnet = ipaddress.ip_network(config.subnet)
            gateway = f"{config.gateway}/{subnet.prefixlen}" if config.gateway else ""
            data[subnet.version].append({"AddressSpace": "", "Pool": str(subnet), "Gateway": gateway,
                                         "AuxAddresses": config.auxiliary})
        options = {"com.docker.network.generic": network.options, "com.docker.network.internal": network.internal,
                   "com.docker.network.enable_ipv4": network.enable_ipv4,
                   "com.docker.network.enable_ipv6": network.enable_ipv6}
        await self._call("CreateNetwork", {"NetworkID": network.id, "Options": options, "IPv4Data": data[4],
                                           "IPv6Data": data[6]}, _Nothing)

    async def again(self, network: Network) -> None:
        """The plug-in remembers its networks."""

    async def down(self, network: Network) -> None:
        """Tell the plug-in that it is gone. One that fails here is logged: the network is gone for us either way."""
        try:
            await self._call("DeleteNetwork", {"NetworkID": network.id}, _Nothing)
        except EngineError as problem:
            log.warning("network %s: plug-in %s did not remove it: %s", network.name, self._name, problem.message)

    async def join(self, network: Network, netns: int, endpoint: Endpoint, others: Sequence[Endpoint]) -> Endpoint:
        """Take the plug-in's device into the container."""
        given = _Interface(_cidr(endpoint.ipv4, endpoint.ipv4_prefix), _cidr(endpoint.ipv6, endpoint.ipv6_prefix),
                           parse_mac(endpoint.mac))
        answer = await self._call("CreateEndpoint", self._ids(endpoint) | {
            "Interface": msgspec.to_builtins(given), "Options": dict(endpoint.driver_opts)}, _Endpoint)
        try:
            endpoint = _completed(self._name, endpoint, given, answer.interface)
            joined = await self._call("Join", self._ids(endpoint) | {
                "SandboxKey": f"/proc/{os.getpid()}/fd/{netns}", "Options": {}}, _Joined)
            return self._take(network, netns, endpoint, others, joined)
        except BaseException:
            await self.ended(network, endpoint)
            raise

    def _take(self, network: Network, netns: int, endpoint: Endpoint, others: Sequence[Endpoint],
              joined: _Joined) -> Endpoint:
        name = joined.interface_name or _InterfaceName()
        if not is_device(name.src_name) or not is_device(name.dst_name or name.dst_prefix or "eth"):
            raise ServerError(f"plugin {self._name} named no device for the container: {name.src_name[:40]!r}")
        if name.dst_name and name.dst_name in {other.interface for other in others}:
            raise ServerError(f"plugin {self._name} wants the device name {name.dst_name}, which is in use")
        endpoint = replace(named(endpoint, name.dst_prefix[:12] or "eth", others), source=name.src_name,
                           gateway=_gateway(joined.gateway, 4), gateway6=_gateway(joined.gateway_ipv6, 6))
        if name.dst_name:
            endpoint = replace(endpoint, interface=name.dst_name)
        if network.internal:
            endpoint = replace(endpoint, gateway="", gateway6="")
        self._bridges.take(name.src_name, endpoint.interface, netns, parse_mac(endpoint.mac))
        self._bridges.configure(netns, endpoint.interface, addressing(endpoint, others))
        routes = [(str(ipaddress.ip_network(one.destination)), str(parse_address(one.next_hop)) if one.next_hop else "")
                  for one in joined.static_routes or ()]
        if routes:
            self._bridges.route(netns, endpoint.interface, routes)
        return endpoint

    async def leave(self, network: Network, endpoint: Endpoint, netns: int | None) -> None:
        """Give the device back to the plug-in."""
        if netns is not None:
            self._bridges.give_back(endpoint.interface, endpoint.source, netns)
        await self.ended(network, endpoint)

    async def ended(self, network: Network, endpoint: Endpoint) -> None:
        """The container is off the network. What the plug-in answers changes nothing for us; a fault is logged."""
        for method in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
            try:
                await self._call(method, self._ids(endpoint), _Nothing)
            except EngineError as problem:
                quiet = method == "RevokeExternalConnectivity"      # many plug-ins do not have it
                log.log(logging.DEBUG if quiet else logging.WARNING, "network %s: plug-in %s: %s: %s", network.name,
                        self._name, method, problem.message)

    async def publish(self, endpoint: Endpoint, ports: Sequence[PortWish]) -> tuple[PublishedPort, ...]:
        """Ports are the plug-in's to publish, if it can. What it says that it published; where it does not say, what
        it was asked for by number."""
        wanted = [{"Proto": _PROTOCOLS[port.protocol], "IP": "", "Port": port.container_port, "HostIP": port.host_ip,
                   "HostPort": port.host_port, "HostPortEnd": port.host_port_end or port.host_port} for port in ports]
        await self._call("ProgramExternalConnectivity", self._ids(endpoint) | {
            "Options": {_PORTMAP: wanted}}, _Nothing)
        return await self._told(endpoint) or tuple(
            _published(endpoint, port.container_port, port.protocol, port.host_ip, port.host_port)
            for port in ports if port.host_port and not port.host_port_end)

    async def _told(self, endpoint: Endpoint) -> tuple[PublishedPort, ...]:
        try:
            info = await self._call("EndpointOperInfo", self._ids(endpoint), _Info)
            told = info.value.portmap if info.value is not None else None
            return tuple(_published(endpoint, one.port, _protocol(one.proto), one.host_ip, one.host_port)
                         for one in told or ())
        except EngineError as problem:      # it only tells: the ports are published
            log.warning("network %s: plug-in %s did not tell which ports it published: %s", endpoint.network_name,
                        self._name, problem.message)
            return ()

    @staticmethod
    def _ids(endpoint: Endpoint) -> dict[str, Any]:
        return {"NetworkID": endpoint.network_id, "EndpointID": endpoint.id}


def _protocol(number: int) -> str:
    for name, known in _PROTOCOLS.items():
        if known == number:
            return name
    raise ServerError(f"a plugin gave {number} as the protocol of a port")


def _published(endpoint: Endpoint, inner: int, protocol: str, host_ip: str, host_port: int) -> PublishedPort:
    if not (0 < inner <= 65535 and 0 < host_port <= 65535):
        raise ServerError(f"a plugin gave {host_port}:{inner} as ports")
    address = str(parse_address(host_ip)) if host_ip else "0.0.0.0"
    return PublishedPort(inner, protocol, address, host_port, endpoint.ipv4 or endpoint.ipv6)


def _cidr(address: str, prefix: int) -> str:
    return f"{address}/{prefix}" if address else ""


def _gateway(text: str, version: int) -> str:
    if not text:
        return ""
    found = parse_address(text.partition("/")[0])
    if found.version != version:
        raise ServerError(f"a plugin gave {text!r} as gateway of IPv{version}")
    return str(found)


def _completed(name: str, endpoint: Endpoint, given: _Interface, theirs: _Interface | None) -> Endpoint:
    """*endpoint* with what the plug-in chose; what we gave it may not be changed."""
    chosen = theirs or _Interface()
    for field in ("address", "address_ipv6", "mac_address"):
        ours, answer = getattr(given, field), getattr(chosen, field)
        if ours and answer and ours.lower() != answer.lower():
            raise ServerError(f"plugin {name} changed {ours} to {answer[:60]!r}, which it may not")
    try:
        if chosen.address and not endpoint.ipv4:
            four = ipaddress.IPv4Interface(chosen.address)
            endpoint = replace(endpoint, ipv4=str(four.ip), ipv4_prefix=four.network.prefixlen)
        if chosen.address_ipv6 and not endpoint.ipv6:
            six = ipaddress.IPv6Interface(chosen.address_ipv6)
            endpoint = replace(endpoint, ipv6=str(six.ip), ipv6_prefix=six.network.prefixlen)
    except ValueError as problem:
        raise ServerError(f"plugin {name} gave an address without sense: {problem}") from None
    return replace(endpoint, mac=parse_mac(given.mac_address or chosen.mac_address) or random_mac())


# -- addresses -------------------------------------------------------------------------------------------------------


class _Space(msgspec.Struct, rename="pascal"):
    local_default_address_space: str = "LocalDefault"


class _Pool(msgspec.Struct, rename="pascal"):
    pool: str
    pool_id: str = msgspec.field(name="PoolID")


class _Address(msgspec.Struct, rename="pascal"):
    address: str


class RemoteIpam:
    """Addresses by one plug-in."""

    def __init__(self, name: str, plugins: Caller) -> None:
        self._name, self._plugins = name, plugins

    async def _call(self, method: str, body: Mapping[str, Any], answer: type[T]) -> T:
        return await self._plugins.call(self._name, f"IpamDriver.{method}", body, answer)

    async def plan(self, spec: NetworkSpec, wishes: Mapping[int, Sequence[IpamConfig]],
                   versions: Sequence[int]) -> tuple[tuple[IpamConfig, ...], tuple[str, ...]]:
        """Subnets for a new network with their gateways, and the plug-in's names for them; all or none."""
        space = (await self._call("GetDefaultAddressSpaces", {}, _Space)).local_default_address_space
        configs: list[IpamConfig] = []
        pools: list[str] = []
        try:
            for version in versions:
                for wish in wishes[version] or [IpamConfig()]:
                    answer = await self._call("RequestPool", {
                        "AddressSpace": space, "Pool": wish.subnet, "SubPool": wish.ip_range,
                        "Options": spec.ipam_options, "V6": version == 6}, _Pool)
                    pools.append(answer.pool_id)
                    subnet = self._subnet(answer.pool, version)
                    gateway = await self._request(answer.pool_id, wish.gateway, subnet, _GATEWAY)
                    for text in wish.auxiliary.values():
                        await self._request(answer.pool_id, text, subnet, {})
                    configs.append(IpamConfig(str(subnet), wish.ip_range, gateway, wish.auxiliary))
        except BaseException:
            await self.release_pools(pools)
            raise
        return tuple(configs), tuple(pools)

    def _subnet(self, text: str, version: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        try:
            found = ipaddress.ip_network(text, strict=False)
        except ValueError:
            found = None
        if found is None or found.version != version:
            raise ServerError(f"plugin {self._name} gave {text[:60]!r}, which is no IPv{version} subnet")
        return found

    async def _request(self, pool: str, wanted: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network,
                       options: Mapping[str, str]) -> str:
        answer = await self._call("RequestAddress", {"PoolID": pool, "Address": wanted, "Options": options}, _Address)
        try:
            found = ipaddress.ip_address(answer.address.partition("/")[0])
        except ValueError:
            found = None
        if found is None or found not in subnet:
            raise ServerError(f"plugin {self._name} gave {answer.address[:60]!r}, which does not lie in {subnet}")
        return str(found)

    async def lease(self, network: Network, endpoint: Endpoint, ipv4: str, ipv6: str) -> Endpoint:
        """*endpoint* with its addresses, all or none."""
        options = {"com.docker.network.endpoint.macaddress": endpoint.mac} if endpoint.mac else {}
        try:
            for config, pool in zip(network.ipam, network.pools, strict=True):
                subnet = ipaddress.ip_network(config.subnet)
                wanted = ipv4 if subnet.version == 4 else ipv6
                if (endpoint.ipv4 if subnet.version == 4 else endpoint.ipv6) or (
                        wanted and parse_address(wanted) not in subnet):
                    continue
                address = await self._request(pool, wanted, subnet, options)
                gateway = "" if network.internal else config.gateway
                if subnet.version == 4:
                    endpoint = replace(endpoint, ipv4=address, ipv4_prefix=subnet.prefixlen, gateway=gateway)
                else:
                    endpoint = replace(endpoint, ipv6=address, ipv6_prefix=subnet.prefixlen, gateway6=gateway)
        except BaseException:
            await self.release(network, endpoint)
            raise
        return endpoint

    async def release(self, network: Network, endpoint: Endpoint) -> None:
        """Give an endpoint's addresses back; a fault is logged."""
        for config, pool in zip(network.ipam, network.pools, strict=True):
            subnet = ipaddress.ip_network(config.subnet)
            address = endpoint.ipv4 if subnet.version == 4 else endpoint.ipv6
            if address and ipaddress.ip_address(address) in subnet:
                await self._quietly("ReleaseAddress", {"PoolID": pool, "Address": address})

    async def release_pools(self, pools: Sequence[str], configs: Sequence[IpamConfig] = ()) -> None:
        """Give subnets back, with the addresses of *configs* that belong to no container."""
        for pool, config in zip(pools, configs, strict=False):
            for address in (config.gateway, *config.auxiliary.values()):
                if address:
                    await self._quietly("ReleaseAddress", {"PoolID": pool, "Address": address})
        for pool in pools:
            await self._quietly("ReleasePool", {"PoolID": pool})

    async def _quietly(self, method: str, body: Mapping[str, Any]) -> None:
        try:
            await self._call(method, body, _Nothing)
        except EngineError as problem:
            log.warning("address plug-in %s: %s: %s", self._name, method, problem.message)
