"""A container's way into its networks: namespace, endpoints, ports, and the files of /etc that follow from them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backend.engine import etcfiles, links, ports
from backend.engine.container import Container
from backend.engine.core import Core
from backend.engine.paths import write
from backend.engine.record import ContainerRecord, IdRange
from backend.engine.userns import mappings
from backend.errors import Conflict, InvalidArgument
from backend.network.endpoints import ways_out
from backend.network.records import Endpoint, EndpointWish, Network
from backend.network.resolvconf import ResolverPlan
from backend.spec import api

PREDEFINED = ("host", "none")


@dataclass(slots=True)
class Sandbox:
    """The network side of a start. `netns`: a descriptor of ours, -1 for none; `userns`: of the user namespace that it
    belongs to, -1 for the host's; `joined`: "" = a namespace of its own, "host", or the path of another container's."""

    netns: int = -1
    userns: int = -1
    joined: str = ""
    files: dict[str, str] = field(default_factory=dict)
    hostname: str = ""

    def close(self) -> None:
        """Let go of the namespaces; the container's process keeps them alive."""
        for fd in (self.netns, self.userns):
            if fd >= 0:
                os.close(fd)
        self.netns = self.userns = -1


def network_mode(mode: str) -> str:
    """The mode that is meant: Docker's "default" is the bridge."""
    return "bridge" if mode in ("", "default") else mode


def wish_of(container: Container, settings: api.EndpointSettings) -> EndpointWish:
    """How a container wants to be on a network."""
    return wish_for(container.record, settings, container.hostname)


def wish_for(record: ContainerRecord, settings: api.EndpointSettings, hostname: str = "") -> EndpointWish:
    """How the container of *record* wants to be on a network."""
    ipam = settings.ipam_config or api.EndpointIpam()
    links = tuple((name, alias or name) for one in settings.links or () for name, _, alias in [one.partition(":")])
    return EndpointWish(
        container_name=record.name, hostname=hostname, aliases=tuple(settings.aliases or ()),
        ipv4=ipam.ipv4_address or "", ipv6=ipam.ipv6_address or "",
        mac=settings.mac_address, gw_priority=settings.gw_priority,
        driver_opts=settings.driver_opts or {}, links=links, link_local=tuple(ipam.link_local_ips or ()))


def host_file(path: str) -> str:
    """A file of the host's /etc, "" where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""


@contextmanager
def namespace_of(pid: int) -> Iterator[int]:
    """A descriptor of the network namespace of a process."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class Connector:
    """Connects containers when they start, and while they run."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def up(self, container: Container) -> Sandbox:
        """Everything that a start needs. On failure nothing is left."""
        mode = network_mode(container.record.host_config.network_mode)
        if mode.startswith("container:"):
            return await self._join(container, mode.removeprefix("container:"))
        sandbox = Sandbox(hostname=container.hostname)
        try:
            if mode == "host":
                sandbox.joined = "host"
            elif container.record.ids is not None:
                sandbox.userns, sandbox.netns = await self._user_namespace(container.record.ids)
            else:
                first = mode if mode in container.record.networks else next(iter(container.record.networks), "")
                sandbox.netns = await self._core.networks.sandbox(self._core.networks.get(first).id if first else "")
            await self._connect_all(container, mode, sandbox)
            self.write_files(container)
            places = self._core.paths.container(container.id)
            sandbox.files = {"/etc/resolv.conf": places.resolv_conf, "/etc/hostname": places.hostname,
                             "/etc/hosts": places.hosts}
        except BaseException:
            sandbox.close()
            await self.down(container)
            raise
        return sandbox

    async def _user_namespace(self, ids: IdRange) -> tuple[int, int]:
        """A user namespace with the container's IDs, and a network namespace whose root is the container's."""
        return await self._core.keeper.userns(mappings(ids, ids.keep_uid), mappings(ids, ids.keep_gid))

    async def _join(self, container: Container, ref: str) -> Sandbox:
        other = self._core.table.get(ref)
        if other.id == container.id:
            raise InvalidArgument("cannot join own network namespace")
        if not other.status.active:
            raise Conflict(f"cannot join network namespace of a non running container: "
                           f"container {other.name} is {other.status.state}")
        places = self._core.paths.container(other.id)
        userns = -1
        if container.record.ids is not None:
            userns, unused = await self._user_namespace(container.record.ids)
            os.close(unused)
        return Sandbox(joined=f"/proc/{other.status.pid}/ns/net", userns=userns, hostname=other.hostname,
                       files={"/etc/resolv.conf": places.resolv_conf, "/etc/hostname": places.hostname,
                              "/etc/hosts": places.hosts})

    async def _connect_all(self, container: Container, mode: str, sandbox: Sandbox) -> None:
        endpoints: list[Endpoint] = []
        wanted = container.record.networks
        first = [name for name in wanted if name == mode]
        for name in (*first, *(name for name in wanted if name not in first)):
            network = self._core.networks.get(name)
            endpoints.append(await self._core.networks.connect(
                network.id, container.id, sandbox.netns, wish_of(container, wanted[name])))
            container.status.endpoints = tuple(endpoints)
            self.tell(container, network, "connect")
        out = next((one for one in ways_out(endpoints) if one is not None), None)
        wishes = ports.wishes(container.record.config, container.record.host_config)
        container.status.ports = ()
        if out is not None and wishes and mode not in PREDEFINED:
            container.status.ports = await self._core.networks.publish(container.id, out, wishes)
        if sandbox.netns >= 0:
            await self._serve_names(container, sandbox.netns)

    async def _serve_names(self, container: Container, netns: int) -> None:
        if self._resolver(container).serve:
            await self._core.networks.serve_names(
                container.id, netns, servers=tuple(container.record.host_config.dns))

    def _resolver(self, container: Container) -> ResolverPlan:
        """What its resolv.conf says, and whether our name server must answer it."""
        host = container.record.host_config
        return self._core.networks.resolver_plan(container.id, servers=tuple(host.dns), search=tuple(host.dns_search),
                                                 options=tuple(host.dns_options))

    async def down(self, container: Container) -> None:
        """Free ports, addresses and names of a container that has ended."""
        endpoints, container.status.endpoints, container.status.ports = container.status.endpoints, (), ()
        await self._core.networks.release(container.id, endpoints)
        for endpoint in endpoints:
            self.tell(container, self._core.networks.get(endpoint.network_id), "disconnect")

    def tell(self, container: Container, network: Network, action: str) -> None:
        """The event of a connect or disconnect."""
        self._core.events.publish("network", action, network.id,
                                  {"container": container.id, "name": network.name, "type": network.driver})

    # --- while it runs ----------------------------------------------------------------------------------------------
    async def attach(self, container: Container, network: Network, settings: api.EndpointSettings) -> None:
        """Connect a running container to one more network."""
        with namespace_of(container.status.pid) as netns:
            endpoint = await self._core.networks.connect(network.id, container.id, netns, wish_of(container, settings))
            container.status.endpoints = (*container.status.endpoints, endpoint)
            await self._serve_names(container, netns)
        self.write_files(container)
        self.tell(container, network, "connect")

    async def detach(self, container: Container, endpoint: Endpoint, network: Network) -> None:
        """Take a running container off a network."""
        with namespace_of(container.status.pid) as netns:
            await self._core.networks.disconnect(endpoint, netns)
        container.status.endpoints = tuple(one for one in container.status.endpoints if one.id != endpoint.id)
        kept = {address for one in container.status.endpoints for address in (one.ipv4, one.ipv6) if address}
        container.status.ports = tuple(one for one in container.status.ports if one.target in kept)
        self.write_files(container)
        self.tell(container, network, "disconnect")

    async def restore(self, container: Container) -> None:
        """Take a running container over after a restart of the engine."""
        if container.status.pid and network_mode(container.record.host_config.network_mode) != "host":
            with namespace_of(container.status.pid) as netns:
                await self._core.networks.restore(container.id, netns, container.status.endpoints,
                                                  container.status.ports)
                await self._serve_names(container, netns)
        elif container.status.endpoints:
            await self._core.networks.restore(container.id, -1, container.status.endpoints, ())

    # --- files ------------------------------------------------------------------------------------------------------
    def write_files(self, container: Container) -> None:
        """Write resolv.conf, hosts and hostname as the container's networks are now."""
        record, host = container.record, container.record.host_config
        places = self._core.paths.container(container.id)
        on_host = network_mode(host.network_mode) == "host"
        write(places.hostname, container.hostname + "\n")
        write(places.hosts, etcfiles.hosts(
            [(address, etcfiles.own_names(container.hostname, record.config.domainname))
             for one in container.status.endpoints for address in (one.ipv4, one.ipv6) if address],
            [*etcfiles.extra_hosts(host.extra_hosts or (), self._gateway()), *self._links(container)],
            host_file("/etc/hosts") if on_host else ""))
        if on_host and not (host.dns or host.dns_search or host.dns_options):
            write(places.resolv_conf, host_file("/etc/resolv.conf"))
        else:
            write(places.resolv_conf, self._resolver(container).text)

    def _gateway(self) -> str:
        """What `host-gateway` means: the default bridge's address."""
        bridge = self._core.networks.get("bridge")
        return bridge.ipam[0].gateway if bridge.ipam else ""

    def _links(self, container: Container) -> list[tuple[str, str]]:
        """The old links of the default bridge: lines for containers that run."""
        made = []
        for other, alias, address in self._linked(container):
            names = dict.fromkeys((alias, other.hostname, other.name))
            made.append((address, " ".join(names)))
        return made

    def _linked(self, container: Container) -> Iterator[tuple[Container, str, str]]:
        """The containers that it is linked to, what it calls them, and their addresses."""
        for text in container.record.host_config.links or ():
            name, alias = links.parse(text)
            other = self._core.table.get(name)
            if not other.status.active:
                raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
            for endpoint in other.status.endpoints[:1]:
                yield other, alias, endpoint.ipv4

    def link_environment(self, container: Container) -> list[str]:
        """What its links put into its environment."""
        return [entry for other, alias, address in self._linked(container) for entry in links.environment(
            container.name, alias, address, other.record.config.exposed_ports, other.record.config.env)]
