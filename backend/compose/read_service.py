"""One service: from the merged tree to the model. Pure: env files come through a callable."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from backend.compose import values
from backend.compose.errors import ComposeError, Mark
from backend.compose.interpolate import Lookup
from backend.compose.model import (
    CONDITIONS,
    Condition,
    Dependency,
    Deploy,
    Device,
    HealthCheck,
    Limits,
    Logging,
    Mount,
    NetworkUse,
    PortMapping,
    Service,
    Ulimit,
)
from backend.compose.nodes import Mapping, Node, Scalar, Sequence
from backend.compose.section import Section, parse_with, scalar_text

# Keys of the Compose specification that are refused by name. A key leaves this list in the change that carries it out.
SERVICE_NOT_YET = frozenset({
    "develop", "build", "blkio_config", "configs", "cpu_count", "cpu_percent", "cpu_rt_period", "cpu_rt_runtime",
    "credential_spec", "extends", "external_links", "gpus", "isolation", "label_file", "links", "models", "post_start",
    "pre_stop", "provider", "pull_refresh_after", "secrets", "storage_opt", "use_api_socket", "volumes_from",
})
DEPLOY_NOT_YET = frozenset({"mode", "endpoint_mode", "labels", "rollback_config", "update_config", "placement"})
# A typing error in `scale` must not become a plan that fills the memory.
MOST_CONTAINERS = 1000
PULL_POLICIES = ("always", "never", "missing", "if_not_present")
_RESTART = re.compile(r"(no|always|unless-stopped|on-failure(:\d+)?)\Z")
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

EnvFileReader = Callable[[str, bool, bool, Mark], "dict[str, str]"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a service's values are read against.

    Attributes:
        directory: the project's, absolute; relative paths start there.
        home: what `~` stands for.
        lookup: the variables of the environment and of `.env`.
        env_file: reads an env file: (absolute path, required, raw, the place that names it).
        profiles: those that are enabled; "*" enables all.
    """

    directory: str
    home: str
    lookup: Lookup
    env_file: EnvFileReader
    profiles: frozenset[str] = frozenset()

    def enables(self, profiles: tuple[str, ...]) -> bool:
        """Whether a service with these profiles is part of the stack."""
        return not profiles or "*" in self.profiles or not self.profiles.isdisjoint(profiles)

    def path(self, text: str) -> str:
        """An absolute path stays as it is written, as docker compose has it: links may change what `..` means."""
        if text.startswith("/"):
            return text
        if text == "~" or text.startswith("~/"):
            text = self.home + text[1:]
        return posixpath.normpath(posixpath.join(self.directory, text))


def read_service(name: str, node: Node, around: Surroundings) -> Service:
    """The service *name* as *node* describes it.

    Raises:
        ComposeError: unknown keys, keys not supported yet, and values that make no sense, each with its place.
    """
    section = Section(node, f"services.{name}")
    service = Service(
        name=name,
        image=section.text("image"),
        command=_command(section, "command"),
        entrypoint=_command(section, "entrypoint"),
        environment=_environment(section, around),
        ports=_ports(section),
        expose=_expose(section),
        mounts=_mounts(section, around),
        tmpfs=section.strings("tmpfs"),
        networks=_networks(section),
        network_mode=section.text("network_mode"),
        depends_on=_depends_on(section),
        labels=section.pairs("labels"),
        annotations=section.pairs("annotations"),
        restart=_restart(section),
        healthcheck=_healthcheck(section),
        limits=_limits(section),
        container_name=_container_name(section),
        devices=_devices(section),
        sysctls=section.pairs("sysctls"),
        init=section.flag("init"),
        attach=section.flag("attach") is not False,
        stop_grace_period=section.duration("stop_grace_period"),
        extra_hosts=_extra_hosts(section),
        logging=_logging(section),
        pull_policy=section.choice("pull_policy", PULL_POLICIES, "missing").replace("if_not_present", "missing"),
        profiles=section.strings("profiles"),
        user=section.text("user"),
        working_dir=section.text("working_dir"),
        hostname=section.text("hostname"),
        domainname=section.text("domainname"),
        mac_address=section.text("mac_address"),
        stop_signal=section.text("stop_signal"),
        ipc=section.text("ipc"),
        pid=section.text("pid"),
        uts=section.text("uts"),
        userns_mode=section.text("userns_mode"),
        cgroup=section.text("cgroup"),
        cgroup_parent=section.text("cgroup_parent"),
        runtime=section.text("runtime"),
        platform=section.text("platform"),
        cap_add=section.strings("cap_add"),
        cap_drop=section.strings("cap_drop"),
        group_add=section.strings("group_add"),
        security_opt=section.strings("security_opt"),
        device_cgroup_rules=section.strings("device_cgroup_rules"),
        dns=section.strings("dns"),
        dns_opt=section.strings("dns_opt"),
        dns_search=section.strings("dns_search"),
        privileged=section.yes("privileged"),
        read_only=section.yes("read_only"),
        tty=section.yes("tty"),
        stdin_open=section.yes("stdin_open"),
    )
    service = _with_deploy(section, service)
    section.finish(SERVICE_NOT_YET)
    _check(section, service)
    return service


def _check(section: Section, service: Service) -> None:
    """What no single key shows."""
    if not service.image:
        raise ComposeError(f"{section.path} has no image", section.node.mark)
    if service.network_mode and service.networks:
        raise section.error("network_mode", "network_mode and networks exclude each other")
    if service.network_mode in ("host", "none") and service.ports:
        raise section.error("ports", f"network_mode {service.network_mode} publishes no ports")
    if service.container_name and service.scale > 1:
        raise section.error("container_name", "a service with a container_name runs once, not with a scale of "
                            f"{service.scale}")


def _command(section: Section, key: str) -> tuple[str, ...] | None:
    """A string is split as a shell does; an empty string or list clears what the image says."""
    value = section.take(key)
    if value is None:
        return None
    if isinstance(value, Sequence):
        return tuple(scalar_text(item, f"{section.at(key)}[{i}]") for i, item in enumerate(value.items))
    return parse_with(values.parse_command, value, section.at(key))


def _environment(section: Section, around: Surroundings) -> tuple[tuple[str, str | None], ...]:
    """Env files in their order, then `environment`; a key without a value takes it from the surroundings."""
    found: dict[str, str | None] = {}
    files = _env_files(section, around)
    # The files of a service that no profile enables need not be there.
    for path, required, raw, mark in files if around.enables(section.strings("profiles")) else ():
        found.update(around.env_file(path, required, raw, mark))
    for key, value in section.raw_pairs("environment"):
        found[key] = around.lookup(key) if value is None else value
    return tuple(sorted(found.items()))


def _env_files(section: Section, around: Surroundings) -> list[tuple[str, bool, bool, Mark]]:
    value = section.take("env_file")
    if value is None:
        return []
    files = []
    for index, item in enumerate(value.items if isinstance(value, Sequence) else (value,)):
        if isinstance(item, Mapping):
            long = Section(item, f"{section.at('env_file')}[{index}]")
            required, raw = long.flag("required") is not False, long.choice("format", ("raw",)) == "raw"
            path = long.text("path")
            long.finish()
        else:
            path, required, raw = scalar_text(item, section.at("env_file")), True, False
        files.append((around.path(path), required, raw, item.mark))
    return files


def _ports(section: Section) -> tuple[PortMapping, ...]:
    found: dict[PortMapping, None] = {}
    for path, item in section.items("ports"):
        ports = (_long_port(item, path),) if isinstance(item, Mapping) else parse_with(values.parse_ports, item, path)
        found.update(dict.fromkeys(ports))
    return tuple(found)


def _long_port(item: Mapping, path: str) -> PortMapping:
    long = Section(item, path)
    target = long.integer("target", 1)
    if target is None:
        raise ComposeError(f"{path}: a port needs its `target`", item.mark)
    published, ip = long.text("published"), long.text("host_ip")
    protocol = long.choice("protocol", values.PROTOCOLS, "tcp")
    words = (long.choice("mode", ("host", "ingress"), "ingress"), long.text("name"), long.text("app_protocol"))
    long.finish()
    try:
        short = f"{f'[{ip}]:' if ip else ''}{published}{':' if published or ip else ''}{target}/{protocol}"
        port = values.parse_ports(short)[0]
    except ValueError as error:
        raise ComposeError(f"{path}: {error}", item.mark) from None
    return replace(port, mode=words[0], name=words[1], app_protocol=words[2])


def _expose(section: Section) -> tuple[str, ...]:
    return tuple(port for ports in section.each("expose", values.parse_expose) for port in ports)


def _mounts(section: Section, around: Surroundings) -> tuple[Mount, ...]:
    found: dict[str, Mount] = {}
    for path, item in section.items("volumes"):
        mount = _long_mount(item, path) if isinstance(item, Mapping) else parse_with(values.parse_volume, item, path)
        if mount.kind == "bind":
            mount = replace(mount, source=around.path(mount.source))
        if mount.target in found:
            raise ComposeError(f"{path}: {mount.target} has a mount already", item.mark)
        found[mount.target] = mount
    return tuple(found.values())


def _long_mount(item: Mapping, path: str) -> Mount:
    long = Section(item, path)
    mount = Mount(
        kind=long.choice("type", ("bind", "volume", "tmpfs")),
        source=long.text("source"),
        target=long.text("target"),
        read_only=long.yes("read_only"),
    )
    long.choice("consistency", ("consistent", "cached", "delegated", "default"))
    if not mount.kind or not mount.target.startswith("/"):
        missing = "type (bind, volume or tmpfs)" if not mount.kind else "target, an absolute path in the container"
        raise ComposeError(f"{path}: a mount needs its {missing}", item.mark)
    if mount.kind == "bind" and not mount.source:
        raise ComposeError(f"{path}: a bind mount needs its source", item.mark)
    mount = _mount_options(long, replace(mount, target=posixpath.normpath(mount.target)))
    long.finish({"image", "bind", "volume", "tmpfs"})
    return mount


def _mount_options(long: Section, mount: Mount) -> Mount:
    options = long.section(mount.kind)
    if options is None:
        return mount
    mount = replace(mount, stated=True)
    if mount.kind == "bind":
        mount = replace(mount, create_host_path=options.yes("create_host_path"),
                        propagation=options.text("propagation"), selinux=options.choice("selinux", ("z", "Z")))
        options.finish({"recursive"})
    elif mount.kind == "volume":
        mount = replace(mount, nocopy=options.yes("nocopy"), subpath=options.text("subpath"))
        options.finish({"labels"})
    else:
        mount = replace(mount, tmpfs_size=options.size("size"), tmpfs_mode=options.integer("mode", 0))
        options.finish()
    return mount


def _networks(section: Section) -> tuple[NetworkUse, ...]:
    uses = []
    for name, node in section.sections("networks"):
        use = Section(node, f"{section.at('networks')}.{name}")
        uses.append(NetworkUse(
            network=name,
            aliases=use.strings("aliases"),
            ipv4_address=use.text("ipv4_address"),
            ipv6_address=use.text("ipv6_address"),
            link_local_ips=use.strings("link_local_ips"),
            mac_address=use.text("mac_address"),
            driver_opts=use.pairs("driver_opts"),
            priority=use.integer("priority") or 0,
            gw_priority=use.integer("gw_priority") or 0,
            stated=isinstance(node, Mapping),
        ))
        use.finish({"interface_name"})
    return tuple(uses)


def _depends_on(section: Section) -> tuple[Dependency, ...]:
    found = []
    for name, node in section.sections("depends_on"):
        entry = Section(node, f"{section.at('depends_on')}.{name}")
        condition = entry.choice("condition", CONDITIONS, "service_started")
        typed: Condition = next(c for c in CONDITIONS if c == condition)
        found.append(Dependency(name, typed, entry.yes("restart"), entry.flag("required") is not False))
        entry.finish()
    return tuple(found)


def _restart(section: Section) -> str:
    policy = section.text("restart")
    if isinstance(section.take("restart"), Scalar) and policy == "false":
        policy = "no"       # `restart: no` without quotes, which older YAML reads as false
    if policy and not _RESTART.match(policy):
        raise section.error("restart", f"{policy!r} is none of no, always, unless-stopped, on-failure[:tries]")
    return policy


def _container_name(section: Section) -> str:
    name = section.text("container_name")
    if name and not _CONTAINER_NAME.match(name):
        raise section.error("container_name", f"{name!r} is no container name (letters, digits, `_`, `.`, `-`, at "
                            "least two)")
    return name


def _healthcheck(section: Section) -> HealthCheck | None:
    check = section.section("healthcheck")
    if check is None:
        return None
    disabled = check.yes("disable")
    read = HealthCheck(
        test=_test(check),
        interval=check.duration("interval"),
        timeout=check.duration("timeout"),
        retries=check.integer("retries", 0),
        start_period=check.duration("start_period"),
        start_interval=check.duration("start_interval"),
    )
    check.finish()
    return HealthCheck(("NONE",), disabled=True) if disabled else read


def _test(check: Section) -> tuple[str, ...] | None:
    value = check.take("test")
    if value is None:
        return None
    if isinstance(value, Scalar):
        return ("CMD-SHELL", scalar_text(value, check.at("test")))
    words = check.strings("test")
    if not words or words[0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise check.error("test", "a list begins with CMD, CMD-SHELL or NONE")
    return words


def _limits(section: Section) -> Limits:
    return Limits(
        memory=section.size("mem_limit"),
        memory_reservation=section.size("mem_reservation"),
        memory_swap=section.size("memswap_limit"),
        memory_swappiness=section.integer("mem_swappiness", 0),
        nano_cpus=section.billionths("cpus"),
        cpu_shares=section.integer("cpu_shares", 0),
        cpu_quota=section.checked("cpu_quota", section.parsed("cpu_quota", _microseconds)),
        cpu_period=section.checked("cpu_period", section.parsed("cpu_period", _microseconds)),
        cpuset=section.text("cpuset"),
        pids=section.integer("pids_limit"),
        shm_size=section.size("shm_size"),
        oom_kill_disable=section.yes("oom_kill_disable"),
        oom_score_adj=section.integer("oom_score_adj"),
        ulimits=_ulimits(section),
    )


def _microseconds(text: str) -> int:
    """The kernel's unit for quota and period; Compose also takes `50ms`."""
    return int(text) if text.lstrip("-").isdigit() else values.parse_duration(text) // 1000


def _ulimits(section: Section) -> tuple[Ulimit, ...]:
    found = []
    for name, node in section.sections("ulimits"):
        path = f"{section.at('ulimits')}.{name}"
        if isinstance(node, Mapping):
            pair = Section(node, path)
            soft, hard = pair.integer("soft"), pair.integer("hard")
            pair.finish()
            if soft is None or hard is None:
                raise ComposeError(f"{path}: needs `soft` and `hard`", node.mark)
        else:
            soft = hard = parse_with(_whole, node, path)
        if not all(-1 <= limit < 2**63 for limit in (soft, hard)):
            raise ComposeError(f"{path}: a limit is -1 (none) or a number that is not too large", node.mark)
        found.append(Ulimit(name, soft, hard))
    return tuple(sorted(found, key=lambda u: u.name))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _devices(section: Section) -> tuple[Device, ...]:
    found = []
    for path, item in section.items("devices"):
        if isinstance(item, Mapping):
            long = Section(item, path)
            source = long.text("source")
            found.append(Device(source, long.text("target", source), long.text("permissions", "rwm")))
            long.finish()
        else:
            found.append(Device(*parse_with(values.parse_device, item, path)))
    return tuple(found)


def _extra_hosts(section: Section) -> tuple[tuple[str, str], ...]:
    value = section.take("extra_hosts")
    if isinstance(value, Mapping):
        found = []
        for host, node in value.entries.items():
            path = f"{section.at('extra_hosts')}.{host}"
            addresses = node.items if isinstance(node, Sequence) else (node,)
            found += [parse_with(partial(_address_of, host), item, path) for item in addresses]
        return tuple(found)
    return section.each("extra_hosts", values.parse_extra_host)


def _address_of(host: str, address: str) -> tuple[str, str]:
    return values.parse_extra_host(f"{host}={address}")


def _logging(section: Section) -> Logging | None:
    logging = section.section("logging")
    if logging is None:
        return None
    read = Logging(logging.text("driver"), tuple(sorted(logging.pairs("options"))))
    logging.finish()
    return read


def _with_deploy(section: Section, service: Service) -> Service:
    """`scale` and the parts of `deploy` that mean something to one engine."""
    scale, where = section.integer("scale", 0), "scale"
    part = section.section("deploy")
    if part is not None:
        replicas = part.integer("replicas", 0)
        if scale is not None and replicas is not None and scale != replicas:
            raise section.error("scale", f"deploy.replicas says {replicas}")
        scale = replicas if scale is None else scale
        where = "deploy"
        deploy = _restart_policy(part, _resources(part))
        part.finish(DEPLOY_NOT_YET)
        service = replace(service, deploy=deploy, limits=_with_resources(service.limits, deploy),
                          restart=_deployed_restart(deploy) or service.restart)
    if scale is not None and scale > MOST_CONTAINERS:
        raise section.error(where, f"{scale} containers are more than {MOST_CONTAINERS}")
    return service if scale is None else replace(service, scale=scale)


def _resources(part: Section) -> Deploy:
    deploy = Deploy()
    resources = part.section("resources")
    if resources is None:
        return deploy
    most, least = resources.section("limits"), resources.section("reservations")
    if most is not None:
        deploy = Deploy(most.billionths("cpus"), most.size("memory"), most.integer("pids"))
        most.finish()
    if least is not None:
        deploy = replace(deploy, memory_reservation=least.size("memory"))
        # A reservation of CPU is for a scheduler of many machines; Docker's engine has nothing that it could set.
        least.finish({"cpus", "devices", "generic_resources"})
    resources.finish()
    return deploy


def _with_resources(limits: Limits, deploy: Deploy) -> Limits:
    return replace(
        limits,
        nano_cpus=limits.nano_cpus if deploy.nano_cpus is None else deploy.nano_cpus,
        memory=limits.memory if deploy.memory is None else deploy.memory,
        pids=limits.pids if deploy.pids is None else deploy.pids,
        memory_reservation=limits.memory_reservation if deploy.memory_reservation is None
        else deploy.memory_reservation,
    )


def _restart_policy(part: Section, deploy: Deploy) -> Deploy:
    policy = part.section("restart_policy")
    if policy is None:
        return deploy
    condition = policy.choice("condition", ("none", "on-failure", "any"), "any")
    tries = policy.integer("max_attempts", 0)
    policy.finish({"delay", "window"})
    return replace(deploy, restart_condition=condition, restart_attempts=tries)


def _deployed_restart(deploy: Deploy) -> str:
    if deploy.restart_condition == "on-failure":
        return f"on-failure:{deploy.restart_attempts}" if deploy.restart_attempts else "on-failure"
    return {"": "", "none": "no", "any": "always"}[deploy.restart_condition]
