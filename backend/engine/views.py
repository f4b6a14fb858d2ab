"""Containers as the API shows them: list, inspect, and the words of the status column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.engine import mounts, ports
from backend.engine.clock import SECOND, human, rfc3339
from backend.engine.container import Container
from backend.engine.paths import ContainerPaths
from backend.network.records import Endpoint
from backend.spec import api


def status_text(container: Container, now: int) -> str:
    """What `docker ps` shows as STATUS. *now*: ns since the epoch."""
    status = container.status
    if status.removing:
        return "Removal In Progress"
    if status.state == "created":
        return "Created"
    if status.state in ("running", "paused"):
        text = f"Up {human((now - status.started_at) // SECOND)}"
        if status.state == "paused":
            return f"{text} (Paused)"
        health = container.health.text() if container.health is not None else ""
        return f"{text} ({health})" if health else text
    if status.state == "dead":
        return "Dead"
    ago = f"({status.exit_code}) {human((now - status.finished_at) // SECOND)} ago"
    return f"Restarting {ago}" if status.state == "restarting" else f"Exited {ago}"


def state_name(container: Container) -> str:
    """created, running, paused, restarting, removing, exited or dead."""
    return "removing" if container.status.removing and not container.status.active else container.status.state


def command_text(path: str, args: Sequence[str]) -> str:
    """Program and arguments as one line; an argument with a space gets quotes, as Docker shows it."""
    return " ".join([path, *(f"'{one}'" if " " in one else one for one in args)])


def state_view(container: Container) -> api.ContainerState:
    """The State of an inspect."""
    status = container.status
    made = api.ContainerState(
        status=state_name(container), running=status.active or status.state == "restarting",
        paused=status.state == "paused", restarting=status.state == "restarting", oom_killed=status.oom,
        dead=status.state == "dead", pid=status.pid if status.active else 0, exit_code=status.exit_code,
        error=status.error, started_at=rfc3339(status.started_at), finished_at=rfc3339(status.finished_at))
    if container.health is not None:
        made.health = container.health.view()
    return made


def endpoint_view(settings: api.EndpointSettings, endpoint: Endpoint | None, network_id: str) -> api.EndpointSettings:
    """What was wished of a network, and what it came to."""
    made = api.EndpointSettings(
        ipam_config=settings.ipam_config, links=settings.links, aliases=settings.aliases,
        driver_opts=settings.driver_opts, gw_priority=settings.gw_priority, mac_address=settings.mac_address,
        network_id=network_id)
    if endpoint is None:
        return made
    made.mac_address, made.endpoint_id, made.network_id = endpoint.mac, endpoint.id, endpoint.network_id
    made.gateway, made.ip_address, made.ip_prefix_len = endpoint.gateway, endpoint.ipv4, endpoint.ipv4_prefix
    made.ipv6_gateway, made.global_ipv6_address = endpoint.gateway6, endpoint.ipv6
    made.global_ipv6_prefix_len = endpoint.ipv6_prefix
    made.dns_names = list(endpoint.dns_names) or None
    return made


def endpoint_views(container: Container, network_ids: Mapping[str, str]) -> dict[str, api.EndpointSettings]:
    """All networks of a container by name. *network_ids*: the ID of each by name or ID as it was asked for."""
    live = {one.network_id: one for one in container.status.endpoints}
    made = {}
    for name, settings in container.record.networks.items():
        endpoint = live.get(network_ids.get(name, ""))
        shown = endpoint.network_name if endpoint is not None else name
        made[shown] = endpoint_view(settings, endpoint, network_ids.get(name, ""))
    return made


def summary(container: Container, *, image: str, now: int, networks: dict[str, api.EndpointSettings],
            volume_path: Mapping[str, str]) -> api.ContainerSummary:
    """One row of a list."""
    record = container.record
    return api.ContainerSummary(
        id=record.id, names=[f"/{record.name}"], image=image, image_id=record.image,
        command=command_text(record.path, record.args), created=record.created // SECOND,
        ports=ports.port_list(record.config.exposed_ports if container.status.active else {}, container.status.ports),
        labels=record.config.labels,
        state=state_name(container), status=status_text(container, now),
        host_config=api.SummaryHostConfig(network_mode=record.host_config.network_mode,
                                          annotations=record.host_config.annotations or api.UNSET),
        network_settings=api.SummaryNetworks(networks=networks),
        mounts=mounts.points(record.mounts, volume_path))


def inspect(container: Container, *, places: ContainerPaths, networks: dict[str, api.EndpointSettings],
            volume_path: Mapping[str, str], log_path: str) -> api.ContainerInspect:
    """Everything about a container."""
    record = container.record
    return api.ContainerInspect(
        id=record.id, created=rfc3339(record.created), path=record.path, args=record.args,
        state=state_view(container), image=record.image, resolv_conf_path=places.resolv_conf,
        hostname_path=places.hostname, hosts_path=places.hosts, log_path=log_path, name=f"/{record.name}",
        restart_count=container.status.restart_count, platform=record.platform,
        exec_ids=[one.id for one in container.execs.values() if one.running] or None, host_config=record.host_config,
        graph_driver=api.GraphDriver(data={"UpperDir": places.upper, "WorkDir": places.work}),
        mounts=mounts.points(record.mounts, volume_path), config=record.config,
        network_settings=network_settings(container, networks))


def network_settings(container: Container, networks: dict[str, api.EndpointSettings]) -> api.NetworkSettings:
    """NetworkSettings with its flat fields, which speak of the default bridge."""
    active = container.status.active
    made = api.NetworkSettings(
        sandbox_id=container.id if active else "",
        sandbox_key=f"/proc/{container.status.pid}/ns/net" if active else "", networks=networks,
        ports=ports.port_map(container.record.config.exposed_ports, container.status.ports) if active else {})
    bridge = networks.get("bridge")
    if bridge is not None:
        made.endpoint_id, made.gateway, made.ip_address = bridge.endpoint_id, bridge.gateway, bridge.ip_address
        made.ip_prefix_len, made.ipv6_gateway = bridge.ip_prefix_len, bridge.ipv6_gateway
        made.global_ipv6_address = bridge.global_ipv6_address
        made.global_ipv6_prefix_len, made.mac_address = bridge.global_ipv6_prefix_len, bridge.mac_address
    return made
