"""Wire types of the section System of the Engine API: events, info, version, auth, disk usage, stats."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from backend.spec.api.containers import ContainerSummary
from backend.spec.api.images import ImageSummary
from backend.spec.api.networks import Volume
from backend.spec.api.wire import UNSET, Maybe, Wire, field


class Actor(Wire):
    """The object of an event."""

    id: str = field(name="ID", default="")
    attributes: dict[str, str] = {}


class Event(Struct, kw_only=True):
    """One event. `time`: seconds since the epoch. status, id and from are the old form, for containers and images."""

    status: Maybe[str] = UNSET
    id: Maybe[str] = UNSET
    from_: Maybe[str] = field(name="from", default=UNSET)
    type: str = field(name="Type")
    action: str = field(name="Action")
    actor: Actor = field(name="Actor")
    scope: str = "local"
    time: int = 0
    time_nano: int = field(name="timeNano", default=0)


class AuthConfig(Struct, kw_only=True):
    """A name and secret for a registry: the body of POST /auth and of X-Registry-Auth. Its repr hides all of it."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return f"AuthConfig(serveraddress={self.serveraddress!r}, ...)"

    __str__ = __repr__


class AuthResult(Wire):
    """The answer to POST /auth."""

    status: str = "Login Succeeded"
    identity_token: str = ""


class PlatformName(Wire):
    """The product's name."""

    name: str = ""


class Component(Wire):
    """A part of the engine and its version."""

    name: str
    version: str
    details: dict[str, str] = {}


class Version(Wire):
    """GET /version."""

    platform: PlatformName = field(default_factory=PlatformName)
    components: list[Component] = []
    version: str = ""
    api_version: str = ""
    min_api_version: str = field(name="MinAPIVersion", default="")
    git_commit: str = ""
    go_version: str = ""
    os: str = "linux"
    arch: str = ""
    kernel_version: str = ""
    experimental: Maybe[bool] = UNSET
    build_time: str = ""


class PluginsInfo(Wire):
    """The drivers that there are."""

    volume: list[str] = []
    network: list[str] = []
    authorization: list[str] | None = None
    log: list[str] = []


class IndexInfo(Wire):
    """A registry as the engine is set up for it."""

    name: str = ""
    mirrors: list[str] = []
    secure: bool = True
    official: bool = False


class RegistryServiceConfig(Wire):
    """The engine's settings for registries."""

    insecure_registry_cidrs: list[str] = field(name="InsecureRegistryCIDRs", default_factory=list)
    index_configs: dict[str, IndexInfo] = {}
    mirrors: list[str] = []


class RuntimeInfo(Struct, kw_only=True):
    """A runtime that containers can ask for."""

    path: str = ""
    runtime_args: Maybe[list[str]] = field(name="runtimeArgs", default=UNSET)


class Commit(Wire):
    """A component's revision."""

    id: str = ""


class SwarmInfo(Wire):
    """The state of a cluster, which this engine has none of."""

    node_id: str = ""
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: list[str] | None = None


class PoolInfo(Wire):
    """A range that networks get their subnets from."""

    base: str
    size: int


class FirewallInfo(Wire):
    """What keeps the rules of networks and ports."""

    driver: str = "nftables"
    info: list[list[str]] = []


class Info(Wire):
    """GET /info. Sizes in bytes."""

    id: str = field(name="ID", default="")
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    driver: str = "overlay2"
    driver_status: list[list[str]] = []
    docker_root_dir: str = ""
    plugins: PluginsInfo = field(default_factory=PluginsInfo)
    memory_limit: bool = True
    swap_limit: bool = True
    cpu_cfs_period: bool = True
    cpu_cfs_quota: bool = True
    cpu_shares: bool = field(name="CPUShares", default=True)
    cpu_set: bool = field(name="CPUSet", default=True)
    pids_limit: bool = True
    ipv4_forwarding: bool = field(name="IPv4Forwarding", default=True)
    debug: bool = False
    n_fd: int = field(name="NFd", default=0)
    oom_kill_disable: bool = False
    n_goroutines: int = field(name="NGoroutines", default=0)
    system_time: str = ""
    logging_driver: str = ""
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str = "2"
    n_events_listener: int = field(name="NEventsListener", default=0)
    kernel_version: str = ""
    operating_system: str = ""
    os_version: str = field(name="OSVersion", default="")
    os_type: str = field(name="OSType", default="linux")
    architecture: str = ""
    index_server_address: str = "https://index.docker.io/v1/"
    registry_config: RegistryServiceConfig = field(default_factory=RegistryServiceConfig)
    n_cpu: int = field(name="NCPU", default=0)
    mem_total: int = 0
    generic_resources: list[str] | None = None
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    name: str = ""
    labels: list[str] = []
    experimental_build: bool = False
    server_version: str = ""
    runtimes: dict[str, RuntimeInfo] = {}
    default_runtime: str = ""
    swarm: SwarmInfo = field(default_factory=SwarmInfo)
    live_restore_enabled: bool = True
    isolation: str = ""
    init_binary: str = ""
    containerd_commit: Commit = field(default_factory=Commit)
    runc_commit: Commit = field(default_factory=Commit)
    init_commit: Commit = field(default_factory=Commit)
    security_options: list[str] = []
    product_license: str = ""
    default_address_pools: list[PoolInfo] = []
    firewall_backend: FirewallInfo = field(default_factory=FirewallInfo)
    cdi_spec_dirs: list[str] = field(name="CDISpecDirs", default_factory=list)
    warnings: list[str] | None = None


class BuildCacheItem(Wire):
    """A record of the build cache."""

    id: str = field(name="ID", default="")
    type: str = ""
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str = ""
    last_used_at: str | None = None
    usage_count: int = 0


class DiskUsage(Wire):
    """GET /system/df. Sizes in bytes."""

    layers_size: int = 0
    images: list[ImageSummary] = []
    containers: list[ContainerSummary] = []
    volumes: list[Volume] = []
    build_cache: list[BuildCacheItem] = []


class PidsStats(Struct, kw_only=True, omit_defaults=True):
    """Processes of a container now, and its limit."""

    current: int = 0
    limit: int = 0


class BlkioEntry(Struct):
    """Bytes or operations on one device."""

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(Struct, kw_only=True):
    """Block I/O, by device."""

    io_service_bytes_recursive: list[BlkioEntry] | None = None
    io_serviced_recursive: list[BlkioEntry] | None = None
    io_queue_recursive: list[BlkioEntry] | None = None
    io_service_time_recursive: list[BlkioEntry] | None = None
    io_wait_time_recursive: list[BlkioEntry] | None = None
    io_merged_recursive: list[BlkioEntry] | None = None
    io_time_recursive: list[BlkioEntry] | None = None
    sectors_recursive: list[BlkioEntry] | None = None


class CpuUsage(Struct, kw_only=True):
    """Processor time in nanoseconds."""

    total_usage: int = 0
    percpu_usage: Maybe[list[int]] = UNSET
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class Throttling(Struct, kw_only=True):
    """How often the quota held a container up; time in nanoseconds."""

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CpuStats(Struct, kw_only=True):
    """Processor usage of a container and, to compare with, of the whole machine (nanoseconds)."""

    cpu_usage: CpuUsage = field(default_factory=CpuUsage)
    system_cpu_usage: Maybe[int] = UNSET
    online_cpus: Maybe[int] = UNSET
    throttling_data: Throttling = field(default_factory=Throttling)


class MemoryStats(Struct, kw_only=True, omit_defaults=True):
    """Memory in bytes. `stats`: the kernel's own counters, as its version of cgroups names them."""

    usage: int = 0
    max_usage: int = 0
    stats: dict[str, int] = {}
    failcnt: int = 0
    limit: int = 0


class NetworkStats(Struct, kw_only=True):
    """What went through one interface of a container, seen from inside."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Stats(Struct, kw_only=True):
    """One sample of GET /containers/{id}/stats."""

    id: str = ""
    name: str = ""
    read: str = "0001-01-01T00:00:00Z"
    preread: str = "0001-01-01T00:00:00Z"
    pids_stats: PidsStats = field(default_factory=PidsStats)
    blkio_stats: BlkioStats = field(default_factory=BlkioStats)
    num_procs: int = 0
    storage_stats: dict[str, Any] = {}
    cpu_stats: CpuStats = field(default_factory=CpuStats)
    precpu_stats: CpuStats = field(default_factory=CpuStats)
    memory_stats: MemoryStats = field(default_factory=MemoryStats)
    networks: Maybe[dict[str, NetworkStats]] = UNSET
