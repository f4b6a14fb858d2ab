"""From the body of a create to a container's record: Docker's defaults and the image's share filled in. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from backend.engine import checks, limits, links, logchoice, mounts, ports, spec
from backend.engine.connect import network_mode
from backend.engine.record import ContainerRecord, MountRecord
from backend.errors import InvalidArgument
from backend.spec import api

if TYPE_CHECKING:
    from backend.engine.facts import Facts
    from backend.images.types import Image



def build_record(body: api.ContainerCreate, image: Image, *, identity: str, name: str, cpus: int, facts: Facts,
                 log_driver: str, log_opts: dict[str, str],
                 others: Callable[[str], Sequence[MountRecord]]) -> tuple[ContainerRecord, list[str]]:
    """The record of a new container, and what has to be said of it. Raises :class:`InvalidArgument` and
    :class:`NotImplemented_`."""
    _check_network_mode(body)
    config = _config(body, image, identity)
    host = _host(body.host_config, log_driver, log_opts, body.runtime, facts.throttles)
    told = checks.discard(host, facts)
    checks.check(config, host, cpus, facts)
    told += checks.warnings(host, facts)
    path, args = spec.command(config.entrypoint, config.cmd)
    found = mounts.collect(config, host, list(image.config.volumes or ()), others)
    own_log = not body.host_config.log_config.type and not log_driver
    return ContainerRecord(
        id=identity, name=name, created=time.time_ns(), image=image.id, image_name=body.image, path=path, args=args,
        config=config, host_config=host, networks=_networks(body, host), mounts=found, own_log=own_log), told


def _config(body: api.ContainerCreate, image: Image, identity: str) -> api.ContainerConfig:
    """The container's configuration with its image's defaults, merged by Docker's rules."""
    made = api.ContainerConfig(**{name: getattr(body, name) for name in api.ContainerConfig.__struct_fields__})
    theirs = image.config
    if not made.entrypoint:
        if not made.cmd:
            made.cmd = list(theirs.cmd) if theirs.cmd else None
        if made.entrypoint is None:
            made.entrypoint = list(theirs.entrypoint) if theirs.entrypoint else None
    made.env = spec.merged_env(made.env, theirs.env or ())
    made.labels = {**(theirs.labels or {}), **made.labels}
    made.user = made.user or theirs.user or ""
    made.working_dir = made.working_dir or theirs.working_dir or ""
    made.stop_signal = made.stop_signal or theirs.stop_signal or ""
    made.volumes = {**{one: api.Empty() for one in theirs.volumes or ()}, **made.volumes}
    made.exposed_ports = {**{port: api.Empty() for port in theirs.exposed_ports or ()}, **made.exposed_ports}
    made.exposed_ports = ports.exposed(made, body.host_config)
    if made.healthcheck is None or not made.healthcheck.test:
        made.healthcheck = _health(made.healthcheck, theirs.healthcheck or None)
    mode = network_mode(body.host_config.network_mode)
    if not made.hostname and mode != "host" and not mode.startswith("container:"):
        made.hostname = identity[:12]
    return made


def _health(own: api.HealthConfig | None, theirs: object) -> api.HealthConfig | None:
    """The image's check, with the times that the user changed."""
    if theirs is None:
        return own
    base = api.convert(api.to_builtins(theirs), api.HealthConfig)
    if own is None:
        return base
    changed = {name: getattr(own, name) for name in ("interval", "timeout", "retries", "start_period", "start_interval")
               if getattr(own, name)}
    return msgspec.structs.replace(base, **changed)


def _host(given: api.HostConfig, log_driver: str, log_opts: dict[str, str], runtime: str = "",
          hidden: Sequence[str] = ()) -> api.HostConfig:
    """The host's part with Docker's defaults filled in, as inspect shows them. *hidden*: more paths to mask."""
    made = msgspec.structs.replace(given)
    made.network_mode = network_mode(made.network_mode)
    made.runtime = made.runtime or runtime or checks.OWN_RUNTIME
    made.ipc_mode = made.ipc_mode or "private"
    made.cgroupns_mode = made.cgroupns_mode or ("host" if made.privileged else "private")
    made.shm_size = made.shm_size or spec.DEFAULT_SHM
    made.restart_policy = msgspec.structs.replace(made.restart_policy, name=made.restart_policy.name or "no")
    usual = log_driver or logchoice.DEFAULT
    driver = made.log_config.type or usual
    made.log_config = api.LogConfig(type=driver, config={**(log_opts if driver == usual else {}),
                                                         **made.log_config.config})
    if not made.console_size:
        made.console_size = [0, 0]
    if made.memory and not made.memory_swap:
        made.memory_swap = 2 * made.memory
    limits.normalise(made)
    made.links = [f"{name}:{alias}" for name, alias in map(links.parse, made.links)] if made.links else made.links
    if not made.privileged and not spec.security_options(made).unmasked:
        made.masked_paths = [*spec.MASKED_PATHS, *hidden] if made.masked_paths is None else made.masked_paths
        made.readonly_paths = list(spec.READONLY_PATHS) if made.readonly_paths is None else made.readonly_paths
    return made


def _networks(body: api.ContainerCreate, host: api.HostConfig) -> dict[str, api.EndpointSettings]:
    """The networks that it will be on, the network mode's among them."""
    mode = network_mode(host.network_mode)
    if mode.startswith("container:") or body.network_disabled:
        return {}
    made: dict[str, api.EndpointSettings] = {}
    for name, settings in body.networking_config.endpoints_config.items():
        made[network_mode(name)] = settings
    if mode not in made:
        made = {mode: api.EndpointSettings(), **made}
    if body.mac_address and not made[mode].mac_address:
        made[mode] = msgspec.structs.replace(made[mode], mac_address=body.mac_address)
    if mode in ("host", "none") and len(made) > 1:
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined "
                              f"network-modes ({', '.join(made)})")
    return made


def _check_network_mode(body: api.ContainerCreate) -> None:
    """What a container cannot have of its own in the host's or another container's network namespace."""
    host, mode = body.host_config, network_mode(body.host_config.network_mode)
    joined = mode.startswith("container:")
    if host.links and (joined or mode == "host"):
        raise InvalidArgument(f"conflicting options: {'container' if joined else 'host'} type networking can't be used "
                              "with links. This would result in undefined behavior")
    if not joined:
        return
    refused = (("hostname and the network mode", body.hostname), ("dns and the network mode", host.dns),
               ("custom host-to-IP mapping and the network mode", host.extra_hosts),
               ("mac-address and the network mode", body.mac_address),
               ("port publishing and the container type network mode", host.port_bindings or host.publish_all_ports),
               ("port exposing and the container type network mode", body.exposed_ports))
    for words, given in refused:
        if given:
            raise InvalidArgument(f"conflicting options: {words}")
