"""Networks, as the helper asks for them."""

from __future__ import annotations

import builtins
import time
from collections.abc import Mapping

from backend.engine.clock import parse_time, rfc3339
from backend.engine.connect import Connector, wish_of
from backend.engine.container import Container
from backend.engine.core import Core
from backend.errors import Conflict, Forbidden, InvalidArgument, NotFound
from backend.network.records import Endpoint, IpamConfig, Network, NetworkSpec
from backend.spec import api
from backend.spec.filters import Filters

LIST_KEYS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
PRUNE_KEYS = frozenset({"label", "label!", "until"})


def _with_prefix(address: str, prefix: int) -> str:
    return f"{address}/{prefix}" if address else ""


def _given(value: str) -> api.Maybe[str]:
    return value or api.UNSET


class Networks:
    """The networks of the engine, and who is on them."""

    def __init__(self, core: Core, connector: Connector) -> None:
        self._core = core
        self._connector = connector

    # --- views ------------------------------------------------------------------------------------------------------
    def _view(self, network: Network, *, containers: bool) -> api.Network:
        made = api.Network(
            name=network.name, id=network.id, created=rfc3339(network.created), scope=network.scope,
            driver=network.driver, enable_ipv4=network.enable_ipv4, enable_ipv6=network.enable_ipv6,
            ipam=api.Ipam(driver=network.ipam_driver, options=network.ipam_options or None, config=[
                api.IpamConfig(subnet=_given(one.subnet), ip_range=_given(one.ip_range), gateway=_given(one.gateway),
                               auxiliary_addresses=one.auxiliary or api.UNSET) for one in network.ipam]),
            internal=network.internal, attachable=network.attachable, ingress=network.ingress,
            config_only=network.config_only, config_from=api.ConfigReference(network=network.config_from),
            options=network.options, labels=network.labels)
        if containers:
            made.containers = {container.id: self._member(container, endpoint)
                               for container, endpoint in self._members(network)}
        return made

    @staticmethod
    def _member(container: Container, endpoint: Endpoint) -> api.NetworkContainer:
        return api.NetworkContainer(
            name=container.name, endpoint_id=endpoint.id, mac_address=endpoint.mac,
            ipv4_address=_with_prefix(endpoint.ipv4, endpoint.ipv4_prefix),
            ipv6_address=_with_prefix(endpoint.ipv6, endpoint.ipv6_prefix))

    def _members(self, network: Network) -> builtins.list[tuple[Container, Endpoint]]:
        return [(one, endpoint) for one in self._core.table for endpoint in one.status.endpoints
                if endpoint.network_id == network.id]

    def _in_use(self, network: Network) -> bool:
        """A container is on it, or will be when it starts again."""
        names = {network.name, network.id}
        return any(names & set(one.record.networks) for one in self._core.table)

    def list(self, filters: Filters | None = None) -> builtins.list[api.Network]:
        """All networks that the filters let through."""
        chosen = filters or Filters()
        chosen.check(LIST_KEYS)
        dangling = chosen.flag("dangling")
        for kind in chosen.get("type"):
            if kind not in ("custom", "builtin"):
                raise InvalidArgument(f"invalid filter 'type={kind}'")
        return [self._view(one, containers=False) for one in self._core.networks.list()
                if chosen.exact("driver", one.driver) and chosen.fuzzy("id", one.id) and chosen.fuzzy("name", one.name)
                and chosen.exact("scope", one.scope) and chosen.labels(one.labels)
                and chosen.exact("type", "builtin" if one.is_default else "custom")
                and (dangling is None or dangling == (not one.is_default and not self._in_use(one)))]

    def inspect(self, name: str) -> api.Network:
        """One network with the containers on it."""
        return self._view(self._core.networks.get(name), containers=True)

    # --- create and remove ------------------------------------------------------------------------------------------
    async def create(self, body: api.NetworkCreate) -> api.NetworkCreated:
        """Make a network."""
        if body.ingress:
            raise Forbidden("Ingress network can only be global scope network")
        if body.scope == "swarm":
            raise Forbidden("cannot create a swarm scoped network when swarm is not active")
        ipam = body.ipam or api.Ipam()
        network = await self._core.networks.create(NetworkSpec(
            name=body.name, driver=body.driver or "bridge", internal=body.internal, attachable=body.attachable,
            enable_ipv4=body.enable_ipv4 is not False, enable_ipv6=bool(body.enable_ipv6),
            ipam_driver=ipam.driver or "default", ipam_options=ipam.options or {}, ipam=tuple(map(_ipam, ipam.config)),
            options=body.options, labels=body.labels, config_only=body.config_only,
            config_from=body.config_from.network if body.config_from is not None else ""))
        try:
            await self._core.state.put_network(network)
        except BaseException:
            await self._core.networks.remove(network.id)
            raise
        self._tell(network, "create")
        return api.NetworkCreated(id=network.id)

    def _tell(self, network: Network, action: str) -> None:
        self._core.events.publish("network", action, network.id, {"name": network.name, "type": network.driver})

    async def remove(self, name: str) -> None:
        """Remove a network that nobody is on."""
        network = self._core.networks.get(name)
        await self._core.networks.remove(network.id)
        await self._core.state.drop_network(network.id)
        self._tell(network, "destroy")

    async def prune(self, filters: Filters | None = None) -> api.NetworksPruned:
        """Remove the networks that no container uses."""
        chosen = filters or Filters()
        chosen.check(PRUNE_KEYS)
        until = min((parse_time(text, time.time_ns()) for text in chosen.get("until")), default=0)
        report = api.NetworksPruned(networks_deleted=[])
        for one in self._core.networks.list():
            if one.is_default or self._in_use(one) or (until and one.created > until) or not (
                    chosen.labels(one.labels) and chosen.no_labels(one.labels)):
                continue
            try:
                await self.remove(one.id)
            except (Conflict, Forbidden, NotFound):
                continue                     # a container has joined meanwhile, or somebody else removes it
            report.networks_deleted.append(one.name)
        self._core.events.publish("network", "prune", "", {"reclaimed": "0"})
        return report

    # --- members ----------------------------------------------------------------------------------------------------
    async def connect(self, name: str, body: api.NetworkConnect) -> None:
        """Put a container on one more network, at once if it runs."""
        network = self._core.networks.get(name)
        container = self._core.table.get(body.container)
        settings = body.endpoint_config or api.EndpointSettings()
        async with container.lock:
            mode = container.record.host_config.network_mode
            if network.name == "host":
                raise Forbidden("cannot connect container to host network - container must be created in host network "
                                "mode")
            if network.name == "none" or mode in ("host",) or mode.startswith("container:"):
                raise Forbidden("container cannot be connected to multiple networks with one of the networks in "
                                f"private mode ({network.name if network.name == 'none' else mode})")
            self._core.networks.check(network.name, wish_of(container, settings))
            key = self._key(container.record.networks, network)
            if key and container.status.active:
                raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
            before = dict(container.record.networks)
            container.record.networks = {
                **{one: wish for one, wish in before.items() if one not in (key, "none")}, network.name: settings}
            try:
                if container.status.active:
                    await self._connector.attach(container, network, settings)
                await self._core.state.put_container(container.record, container.status)
            except BaseException:
                container.record.networks = before
                raise

    async def disconnect(self, name: str, body: api.NetworkDisconnect) -> None:
        """Take a container off a network."""
        network = self._core.networks.get(name)
        container = self._core.table.get(body.container)
        async with container.lock:
            key = self._key(container.record.networks, network)
            endpoint = next((one for one in container.status.endpoints if one.network_id == network.id), None)
            if not key and endpoint is None:
                raise Forbidden(f"container {container.id} is not connected to network {network.name}")
            if network.name == "host":
                raise Forbidden("container cannot be disconnected from host network")
            if endpoint is not None and container.status.active:
                await self._connector.detach(container, endpoint, network)
            container.record.networks = {one: wish for one, wish in container.record.networks.items() if one != key}
            await self._core.state.put_container(container.record, container.status)

    @staticmethod
    def _key(networks: Mapping[str, api.EndpointSettings], network: Network) -> str:
        """Under which name or ID a container has a network; "" = it has not."""
        return next((one for one in networks if one in (network.name, network.id)), "")


def _ipam(one: api.IpamConfig) -> IpamConfig:
    return IpamConfig(subnet=one.subnet or "", ip_range=one.ip_range or "", gateway=one.gateway or "",
                      auxiliary=dict(one.auxiliary_addresses or {}))
