"""From the model to the bodies of the Engine API. Pure."""

from __future__ import annotations

from backend.compose import labels
from backend.compose.model import HealthCheck, Limits, Mount, Network, NetworkUse, Project, Service, Volume
from backend.compose.observed import ObservedMount
from backend.spec import api

_SECOND = 10**9


def container_name(project: Project, service: Service, number: int) -> str:
    return service.container_name or f"{project.name}-{service.name}-{number}"


def container_body(
    project: Project, service: Service, number: int, image_id: str = "", inherited: tuple[ObservedMount, ...] = (),
) -> api.ContainerCreate:
    """The body of POST /containers/create for container *number* of *service*.

    Args:
        image_id: of the image that it will run, for the label; "" if not known.
        inherited: anonymous volumes of the container that it takes the place of.
    """
    body = api.ContainerCreate(
        image=service.image,
        hostname=service.hostname,
        domainname=service.domainname,
        user=service.user,
        working_dir=service.working_dir,
        env=[key if value is None else f"{key}={value}" for key, value in service.environment],
        tty=service.tty,
        open_stdin=service.stdin_open,
        # As docker compose: output is attached when somebody follows the logs of `up`, input never is.
        attach_stdout=True,
        attach_stderr=True,
        exposed_ports={port: api.Empty() for port in _exposed(service)},
        labels=labels.container_labels(project, service, number, image_id),
        stop_signal=service.stop_signal,
        mac_address=service.mac_address,
        host_config=_host_config(project, service, inherited),
        networking_config=_networking(project, service, number),
    )
    if service.command is not None:
        body.cmd = list(service.command)
    if service.entrypoint is not None:
        # A list of one empty string is Docker's way to say "none"; an empty list would mean "the image's".
        body.entrypoint = list(service.entrypoint) or [""]
    if service.stop_grace_period is not None:
        body.stop_timeout = -(-service.stop_grace_period // _SECOND)
    if service.healthcheck is not None:
        body.healthcheck = _health(service.healthcheck)
    return body


def _exposed(service: Service) -> list[str]:
    return sorted({*service.expose, *(f"{p.target}/{p.protocol}" for p in service.ports)})


def _health(check: HealthCheck) -> api.HealthConfig:
    return api.HealthConfig(
        test=list(check.test or ()), interval=check.interval or 0, timeout=check.timeout or 0,
        retries=check.retries or 0, start_period=check.start_period or 0, start_interval=check.start_interval or 0,
    )


def _host_config(project: Project, service: Service, inherited: tuple[ObservedMount, ...]) -> api.HostConfig:
    host = api.HostConfig(
        binds=_binds(project, service, inherited),
        mounts=[
            _mount(project, m) for m in service.mounts if not _is_bind_string(m) and not _is_inherited(m, inherited)
        ],
        port_bindings=_port_bindings(service),
        network_mode=_network_mode(project, service),
        annotations=dict(service.annotations),
        cap_add=list(service.cap_add) or None,
        cap_drop=list(service.cap_drop) or None,
        dns=list(service.dns),
        dns_options=list(service.dns_opt),
        dns_search=list(service.dns_search),
        extra_hosts=[f"{host}:{address}" for host, address in service.extra_hosts] or None,
        group_add=list(service.group_add) or None,
        ipc_mode=service.ipc,
        pid_mode=service.pid,
        uts_mode=service.uts,
        userns_mode=service.userns_mode,
        cgroupns_mode=service.cgroup,
        cgroup_parent=service.cgroup_parent,
        privileged=service.privileged,
        readonly_rootfs=service.read_only,
        security_opt=list(service.security_opt) or None,
        tmpfs=dict(_tmpfs(entry) for entry in service.tmpfs),
        sysctls=dict(service.sysctls),
        runtime=service.runtime,
        init=service.init,
        devices=[
            api.DeviceMapping(path_on_host=d.source, path_in_container=d.target, cgroup_permissions=d.permissions)
            for d in service.devices
        ],
        device_cgroup_rules=list(service.device_cgroup_rules) or None,
    )
    if service.logging is not None:
        host.log_config = api.LogConfig(type=service.logging.driver, config=dict(service.logging.options))
    if service.restart:
        name, _, tries = service.restart.partition(":")
        host.restart_policy = api.RestartPolicy(name=name, maximum_retry_count=int(tries or 0))
    _set_limits(host, service.limits)
    return host


def _set_limits(host: api.HostConfig, limits: Limits) -> None:
    host.memory = limits.memory or 0
    host.memory_reservation = limits.memory_reservation or 0
    host.memory_swap = limits.memory_swap or 0
    host.memory_swappiness = limits.memory_swappiness
    host.nano_cpus = limits.nano_cpus or 0
    host.cpu_shares = limits.cpu_shares or 0
    host.cpu_quota = limits.cpu_quota or 0
    host.cpu_period = limits.cpu_period or 0
    host.cpuset_cpus = limits.cpuset
    host.pids_limit = limits.pids
    host.shm_size = limits.shm_size or 0
    host.oom_kill_disable = limits.oom_kill_disable or None
    host.oom_score_adj = limits.oom_score_adj or 0
    host.ulimits = [api.Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in limits.ulimits] or None


def _is_inherited(mount: Mount, inherited: tuple[ObservedMount, ...]) -> bool:
    """Whether an anonymous volume of the file is the old container's, which is mounted by its name."""
    return mount.kind == "volume" and not mount.source and mount.target in {m.destination for m in inherited}


def _is_bind_string(mount: Mount) -> bool:
    """Whether Docker's older `source:target:options` can say it, which alone makes a missing host directory."""
    if ":" in mount.target or ":" in mount.source or mount.subpath:
        return False
    return (mount.kind == "bind" and mount.create_host_path) or (mount.kind == "volume" and bool(mount.source))


def _binds(project: Project, service: Service, inherited: tuple[ObservedMount, ...]) -> list[str] | None:
    binds = [_bind(project, m) for m in service.mounts if _is_bind_string(m)]
    taken = {m.target for m in service.mounts if m.kind != "volume" or m.source}
    binds += [f"{m.name}:{m.destination}" for m in inherited if m.destination not in taken]
    return binds or None


def _bind(project: Project, mount: Mount) -> str:
    source = project.volume(mount.source).name if mount.kind == "volume" else mount.source
    options = ["ro" if mount.read_only else "rw", mount.selinux, mount.propagation, "nocopy" if mount.nocopy else ""]
    return f"{source}:{mount.target}:{','.join(o for o in options if o)}"


def _mount(project: Project, mount: Mount) -> api.Mount:
    source = project.volume(mount.source).name if mount.kind == "volume" and mount.source else mount.source
    made = api.Mount(type=mount.kind, source=source, target=mount.target, read_only=mount.read_only)
    if mount.kind == "bind":
        made.bind_options = api.BindOptions(propagation=mount.propagation, create_mountpoint=mount.create_host_path)
    elif mount.kind == "volume":
        made.volume_options = api.VolumeOptions(no_copy=mount.nocopy, subpath=mount.subpath)
    elif mount.tmpfs_size is not None or mount.tmpfs_mode is not None:
        made.tmpfs_options = api.TmpfsOptions(size_bytes=mount.tmpfs_size or 0, mode=mount.tmpfs_mode or 0)
    return made


def _tmpfs(entry: str) -> tuple[str, str]:
    path, _, options = entry.partition(":")
    return path, options


def _port_bindings(service: Service) -> dict[str, list[api.PortBinding]]:
    bindings: dict[str, list[api.PortBinding]] = {}
    for port in service.ports:
        binding = api.PortBinding(host_ip=port.host_ip, host_port=port.published)
        bindings.setdefault(f"{port.target}/{port.protocol}", []).append(binding)
    return bindings


def _by_priority(service: Service) -> list[NetworkUse]:
    return sorted(service.networks, key=lambda u: (-u.priority, u.network))


def _network_mode(project: Project, service: Service) -> str:
    if service.network_mode:
        return service.network_mode
    return project.network(_by_priority(service)[0].network).name


def _networking(project: Project, service: Service, number: int) -> api.NetworkingConfig:
    ends = {}
    for use in _by_priority(service):
        wish = api.EndpointIpam()
        if use.ipv4_address:
            wish.ipv4_address = use.ipv4_address
        if use.ipv6_address:
            wish.ipv6_address = use.ipv6_address
        if use.link_local_ips:
            wish.link_local_ips = list(use.link_local_ips)
        names = dict.fromkeys([container_name(project, service, number), service.name, *use.aliases])
        ends[project.network(use.network).name] = api.EndpointSettings(
            ipam_config=wish, aliases=list(names), mac_address=use.mac_address or "",
            driver_opts=dict(use.driver_opts) or None, gw_priority=use.gw_priority,
        )
    return api.NetworkingConfig(endpoints_config=ends)


def network_body(project: Project, network: Network) -> api.NetworkCreate:
    """The body of POST /networks/create."""
    ipam = None
    if network.ipam_driver or network.ipam_pools or network.ipam_options:
        ipam = api.Ipam(driver=network.ipam_driver or "default", options=dict(network.ipam_options) or None)
        ipam.config = [_pool(p.subnet, p.ip_range, p.gateway, dict(p.aux_addresses)) for p in network.ipam_pools]
    return api.NetworkCreate(
        name=network.name, driver=network.driver or "bridge", options=dict(network.driver_opts), ipam=ipam,
        internal=network.internal, attachable=network.attachable, enable_ipv4=network.enable_ipv4,
        enable_ipv6=network.enable_ipv6, labels=labels.network_labels(project, network),
    )


def _pool(subnet: str, ip_range: str, gateway: str, auxiliary: dict[str, str]) -> api.IpamConfig:
    return api.IpamConfig(
        subnet=subnet or api.UNSET, ip_range=ip_range or api.UNSET, gateway=gateway or api.UNSET,
        auxiliary_addresses=auxiliary or api.UNSET,
    )


def volume_body(project: Project, volume: Volume) -> api.VolumeCreate:
    """The body of POST /volumes/create."""
    return api.VolumeCreate(name=volume.name, driver=volume.driver or "local", driver_opts=dict(volume.driver_opts),
                            labels=labels.volume_labels(project, volume))
