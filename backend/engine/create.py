"""From the body of a create to a container's record: defaults, the image's share, every check that needs no kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from backend.engine import limits, mounts, ports, spec
from backend.engine.connect import network_mode
from backend.engine.record import ContainerRecord, MountRecord
from backend.engine.signals import signal_number
from backend.errors import InvalidArgument, NotImplemented_
from backend.network.ports import parse_wish
from backend.spec import api

if TYPE_CHECKING:
    from backend.images.types import Image

RUNTIMES = ("slipway",)
DRIVERS = {"": "local", "local": "local", "slipway": "local", "json-file": "json-file", "none": "none"}
RESTARTS = ("", "no", "always", "unless-stopped", "on-failure")
_HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_])?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def build_record(body: api.ContainerCreate, image: Image, *, identity: str, name: str, cpus: int, log_driver: str,
                 log_opts: dict[str, str], others: Callable[[str], Sequence[MountRecord]]) -> ContainerRecord:
    """The record of a new container. Raises :class:`InvalidArgument` and :class:`NotImplemented_`."""
    _check_network_mode(body)
    config = _config(body, image, identity)
    host = _host(body.host_config, log_driver, log_opts)
    check(config, host, cpus)
    path, args = spec.command(config.entrypoint, config.cmd)
    found = mounts.collect(config, host, list(image.config.volumes or ()), others)
    return ContainerRecord(
        id=identity, name=name, created=time.time_ns(), image=image.id, image_name=body.image, path=path, args=args,
        config=config, host_config=host, networks=_networks(body, host), mounts=found)


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


def _host(given: api.HostConfig, log_driver: str, log_opts: dict[str, str]) -> api.HostConfig:
    """The host's part with Docker's defaults filled in, as inspect shows them."""
    made = msgspec.structs.replace(given)
    made.network_mode = network_mode(made.network_mode)
    made.runtime = made.runtime or RUNTIMES[0]
    made.ipc_mode = made.ipc_mode or "private"
    made.cgroupns_mode = made.cgroupns_mode or ("host" if made.privileged else "private")
    made.shm_size = made.shm_size or spec.DEFAULT_SHM
    made.restart_policy = msgspec.structs.replace(made.restart_policy, name=made.restart_policy.name or "no")
    own_driver = bool(made.log_config.type)
    made.log_config = api.LogConfig(type=made.log_config.type or log_driver,
                                    config={**({} if own_driver else log_opts), **made.log_config.config})
    if not made.console_size:
        made.console_size = [0, 0]
    if made.memory and not made.memory_swap:
        made.memory_swap = 2 * made.memory
    if not made.privileged and not spec.security_options(made).unmasked:
        made.masked_paths = list(spec.MASKED_PATHS) if made.masked_paths is None else made.masked_paths
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


def check(config: api.ContainerConfig, host: api.HostConfig, cpus: int) -> None:
    """Everything about a container that can be wrong before it starts."""
    limits.check(host, cpus)
    spec.capabilities(host)
    spec.security_options(host)
    for port, bindings in host.port_bindings.items():
        for binding in bindings:
            parse_wish(port, binding.host_ip, binding.host_port)
    check_restart(host)
    _check_modes(host)
    _check_log(host)
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_dir}' is invalid, "
                              "it needs to be an absolute path")
    if config.hostname and (len(config.hostname) > 63 or not _HOSTNAME.fullmatch(config.hostname)):
        raise InvalidArgument(f"invalid hostname format: {config.hostname}")
    for one in config.env:
        if not one or one.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {one}")
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument(f"invalid stop timeout: {config.stop_timeout}")
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if host.storage_opt:
        raise NotImplemented_("storage options are not supported: overlay layers have no size limit here")


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


def check_restart(host: api.HostConfig) -> None:
    """Refuse a restart policy that cannot be."""
    policy = host.restart_policy
    if policy.name not in RESTARTS:
        raise InvalidArgument(f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
                              "'on-failure', or 'unless-stopped'")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")


def _check_modes(host: api.HostConfig) -> None:
    if host.runtime not in RUNTIMES:
        if host.runtime in ("runc", "crun", "io.containerd.runc.v2"):
            raise NotImplemented_(f"the runtime {host.runtime} cannot be chosen yet; leave --runtime out")
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.ipc_mode not in ("private", "shareable", "host", "none"):
        if host.ipc_mode.startswith("container:"):
            raise NotImplemented_("--ipc=container:... is not supported yet")
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "private", "host") and not host.pid_mode.startswith("container:"):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host"):
        raise NotImplemented_(f"--userns={host.userns_mode} is not supported yet")


def _check_log(host: api.HostConfig) -> None:
    if host.log_config.type not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{host.log_config.type}' is registered")
    log_limits(host.log_config)


def log_limits(config: api.LogConfig) -> tuple[str, int, int]:
    """The keeper's driver for a log, bytes a file (0 = no limit) and files to keep. Raises :class:`InvalidArgument`."""
    driver = DRIVERS[config.type]
    size = _size(config.config.get("max-size", "20m" if driver == "local" else "-1"))
    count = config.config.get("max-file", "5" if driver == "local" else "1")
    if not (count.isascii() and count.isdigit()) or not int(count[:6]) > 0:
        raise InvalidArgument(f"log-opt max-file {count!r} must be a number above 0")
    known = {"max-size", "max-file", "compress", "mode", "max-buffer-size", "labels", "labels-regex", "env",
             "env-regex", "tag"}
    for name in config.config:
        if name not in known:
            raise InvalidArgument(f"unknown log opt '{name}' for {config.type} log driver")
    return ("slipway" if driver == "local" else driver), size, int(count)


def _size(text: str) -> int:
    if text == "-1":
        return 0
    found = _SIZE.fullmatch(text)
    if not found:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * 1024 ** "bkmgt".index((found[2] or "b").lower()))
