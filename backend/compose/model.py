"""What a stack shall be: plain, frozen, comparable. Pure.

Units: memory in bytes, durations in nanoseconds, CPU in billionths of one. None means that the file does not say, so
that the image's or the engine's default holds. Mappings are tuples of pairs: frozen, and in a stable order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Pairs = tuple[tuple[str, str], ...]
Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]
CONDITIONS: tuple[Condition, ...] = ("service_started", "service_healthy", "service_completed_successfully")


@dataclass(frozen=True, slots=True)
class PortMapping:
    """``published``: a port, a range to choose from, or empty for any free one; ``host_ip``: empty for all of them.

    The last three mean nothing to one engine; docker compose's hash has them.
    """

    target: int
    published: str
    host_ip: str
    protocol: str
    mode: str = "ingress"
    name: str = ""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """``source``: an absolute host path (bind), a key of the project's volumes, or empty (an anonymous volume).

    ``stated``: the file has a mapping for its options, if an empty one, which docker compose's hash tells apart.
    """

    kind: str      # "bind", "volume", "tmpfs"
    source: str
    target: str
    read_only: bool = False
    create_host_path: bool = False
    propagation: str = ""
    selinux: str = ""
    nocopy: bool = False
    subpath: str = ""
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None
    stated: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """A service's place in a network. ``network`` is a key of the project's networks; ``stated`` as in a mount."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: Pairs = ()
    priority: int = 0
    gw_priority: int = 0
    stated: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Dependency:
    service: str
    condition: Condition = "service_started"
    restart: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """``test`` as the Engine API has it (CMD, CMD-SHELL or NONE first); None keeps the image's."""

    test: tuple[str, ...] | None = None
    interval: int | None = None
    timeout: int | None = None
    retries: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Device:
    source: str
    target: str
    permissions: str


@dataclass(frozen=True, slots=True)
class Logging:
    driver: str
    options: Pairs = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a service's container may use; None where the file sets no limit."""

    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    memory_swappiness: int | None = None
    nano_cpus: int | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpuset: str = ""
    pids: int | None = None
    shm_size: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    ulimits: tuple[Ulimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Deploy:
    """What `deploy` says, as it says it. Its effect is in the service's limits and restart policy already."""

    nano_cpus: int | None = None
    memory: int | None = None
    pids: int | None = None
    memory_reservation: int | None = None
    restart_condition: str = ""
    restart_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One service. Its fields are Compose's, with shorthand spelt out and paths absolute."""

    name: str
    image: str
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str | None], ...] = field(default=(), repr=False)   # passwords live here
    ports: tuple[PortMapping, ...] = ()
    expose: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    networks: tuple[NetworkUse, ...] = ()
    network_mode: str = ""
    depends_on: tuple[Dependency, ...] = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    restart: str = ""
    healthcheck: HealthCheck | None = None
    limits: Limits = Limits()
    deploy: Deploy | None = None
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    container_name: str = ""
    mac_address: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    sysctls: Pairs = ()
    privileged: bool = False
    read_only: bool = False
    init: bool | None = None
    tty: bool = False
    stdin_open: bool = False
    attach: bool = True
    stop_signal: str = ""
    stop_grace_period: int | None = None
    extra_hosts: Pairs = ()
    dns: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    logging: Logging | None = None
    ipc: str = ""
    pid: str = ""
    uts: str = ""
    userns_mode: str = ""
    cgroup: str = ""
    cgroup_parent: str = ""
    runtime: str = ""
    platform: str = ""
    pull_policy: str = "missing"
    profiles: tuple[str, ...] = ()
    scale: int = 1


@dataclass(frozen=True, slots=True)
class IpamPool:
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: Pairs = ()


@dataclass(frozen=True, slots=True)
class Network:
    """``key`` is its name in the file, ``name`` its name in the engine."""

    key: str
    name: str
    driver: str = ""
    driver_opts: Pairs = ()
    ipam_driver: str = ""
    ipam_options: Pairs = ()
    ipam_pools: tuple[IpamPool, ...] = ()
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    labels: Pairs = ()
    external: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    key: str
    name: str
    driver: str = ""
    driver_opts: Pairs = ()
    labels: Pairs = ()
    external: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """A stack: the services that the chosen profiles enable, and the networks and volumes that they use.

    ``other_services`` are those of the file that no chosen profile enables: their containers are no orphans.
    """

    name: str
    directory: str
    files: tuple[str, ...]
    services: tuple[Service, ...]
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    other_services: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def service(self, name: str) -> Service:
        """The service called *name*; KeyError if there is none."""
        return {s.name: s for s in self.services}[name]

    def network(self, key: str) -> Network:
        """The network that the file calls *key*; KeyError if there is none."""
        return {n.key: n for n in self.networks}[key]

    def volume(self, key: str) -> Volume:
        """The volume that the file calls *key*; KeyError if there is none."""
        return {v.key: v for v in self.volumes}[key]
