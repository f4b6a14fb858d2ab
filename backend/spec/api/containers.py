"""Wire types of the sections Container and Exec of the Engine API."""

from __future__ import annotations

from msgspec import Struct

from backend.spec.api.networks import Address, EndpointSettings
from backend.spec.api.wire import UNSET, Maybe, StrSlice, Wire, field

ZERO_TIME = "0001-01-01T00:00:00Z"


class Empty(Struct):
    """Go's `struct{}`: the value of a map that is used as a set."""


class HealthConfig(Wire):
    """A health check. Times in nanoseconds; `test` empty = as the image says, ["NONE"] = none."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class ContainerConfig(Wire):
    """What of a container can also come from its image."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Empty] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: StrSlice | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Empty] = {}
    working_dir: str = ""
    entrypoint: StrSlice | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: StrSlice | None = None


class LogConfig(Wire):
    """The log driver and its options."""

    type: str = ""
    config: dict[str, str] = {}


class PortBinding(Wire):
    """One address of the host that leads to a port. `host_port` "" = any free one; "a-b" = one of a range."""

    host_ip: str = field(name="HostIp", default="")
    host_port: str = ""


class RestartPolicy(Wire):
    """`name`: "", "no", "always", "unless-stopped" or "on-failure"."""

    name: str = ""
    maximum_retry_count: int = 0


class DeviceMapping(Wire):
    """A device (or directory of devices) of the host inside the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Wire):
    """A request to a device driver (GPUs); no driver of ours serves one yet."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] = field(name="DeviceIDs", default_factory=list)
    capabilities: list[list[str]] = []
    options: dict[str, str] = {}


class WeightDevice(Wire):
    """A block I/O weight for one device."""

    path: str = ""
    weight: int = 0


class ThrottleDevice(Wire):
    """A block I/O rate (bytes or operations a second) for one device."""

    path: str = ""
    rate: int = 0


class Ulimit(Wire):
    """A resource limit; -1 = unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DriverConfig(Wire):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class BindOptions(Wire):
    """Options of a mount of type bind."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class VolumeOptions(Wire):
    """Options of a mount of type volume."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    subpath: str = ""
    driver_config: DriverConfig | None = None


class ImageOptions(Wire):
    """Options of a mount of type image."""

    subpath: str = ""


class TmpfsOptions(Wire):
    """Options of a mount of type tmpfs. `mode`: permission bits."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class Mount(Wire):
    """One entry of HostConfig.Mounts (the --mount form)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class HostConfig(Wire):
    """What of a container belongs to the host it runs on. Memory in bytes, times of the scheduler in microseconds."""

    binds: list[str] | None = None
    container_id_file: str = field(name="ContainerIDFile", default="")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = []
    annotations: dict[str, str] = {}
    cap_add: StrSlice | None = None
    cap_drop: StrSlice | None = None
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = field(name="BlkioDeviceReadIOps", default_factory=list)
    blkio_device_write_iops: list[ThrottleDevice] = field(name="BlkioDeviceWriteIOps", default_factory=list)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = field(name="KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = field(name="IOMaximumBandwidth", default=0)
    mounts: list[Mount] = []
    init: bool | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None


class NetworkingConfig(Wire):
    """The endpoints that a container is created with, by network name."""

    endpoints_config: dict[str, EndpointSettings] = {}


class ContainerCreate(ContainerConfig):
    """The body of POST /containers/create."""

    host_config: HostConfig = field(default_factory=HostConfig)
    networking_config: NetworkingConfig = field(default_factory=NetworkingConfig)
    runtime: str = ""                     # where docker-py puts what belongs into the host's part


class ContainerCreated(Wire):
    """The answer to a create."""

    id: str = field(name="Id")
    warnings: list[str] = []


class ContainerUpdate(HostConfig):
    """The body of POST /containers/{id}/update: resources and the restart policy."""


class ContainerUpdated(Wire):
    """The answer to an update."""

    warnings: list[str] = []


class Port(Wire):
    """A port in a list of containers. No `public_port`: exposed but not published."""

    ip: Maybe[str] = UNSET
    private_port: int = 0
    public_port: Maybe[int] = UNSET
    type: str = "tcp"


class MountPoint(Wire):
    """A mount as list and inspect show it. `type`: bind, volume, tmpfs, image."""

    type: str = ""
    name: Maybe[str] = UNSET
    source: str = ""
    destination: str = ""
    driver: Maybe[str] = UNSET
    mode: str = ""
    rw: bool = True
    propagation: str = ""


class SummaryHostConfig(Wire):
    """The part of HostConfig that a list shows."""

    network_mode: str = ""
    annotations: Maybe[dict[str, str]] = UNSET


class SummaryNetworks(Wire):
    """The part of NetworkSettings that a list shows."""

    networks: dict[str, EndpointSettings] = {}


class ContainerSummary(Wire):
    """One container in GET /containers/json. `created`: seconds since the epoch; `names` with a leading slash."""

    id: str = field(name="Id")
    names: list[str]
    image: str
    image_id: str
    command: str
    created: int
    ports: list[Port] = []
    size_rw: Maybe[int] = field(name="SizeRw", default=UNSET)
    size_root_fs: Maybe[int] = UNSET
    labels: dict[str, str] = {}
    state: str = ""
    status: str = ""
    host_config: SummaryHostConfig = field(default_factory=SummaryHostConfig)
    network_settings: SummaryNetworks = field(default_factory=SummaryNetworks)
    mounts: list[MountPoint] = []


class HealthResult(Wire):
    """One run of a health check."""

    start: str = ""
    end: str = ""
    exit_code: int = 0
    output: str = ""


class Health(Wire):
    """The state of a health check: "starting", "healthy" or "unhealthy"."""

    status: str = "none"
    failing_streak: int = 0
    log: list[HealthResult] = []


class ContainerState(Wire):
    """`status`: created, running, paused, restarting, removing, exited or dead. Times as RFC 3339."""

    status: str = "created"
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = field(name="OOMKilled", default=False)
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    health: Maybe[Health] = UNSET


class GraphDriver(Wire):
    """The layers of a container or image, as far as they have paths."""

    name: str = "overlay2"
    data: dict[str, str] | None = None


class NetworkSettings(Wire):
    """The networks of a container; the flat fields are those of the default network."""

    bridge: str = ""
    sandbox_id: str = ""
    sandbox_key: str = ""
    ports: dict[str, list[PortBinding] | None] = {}
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field(name="LinkLocalIPv6Address", default="")
    link_local_ipv6_prefix_len: int = field(name="LinkLocalIPv6PrefixLen", default=0)
    secondary_ip_addresses: list[Address] | None = field(name="SecondaryIPAddresses", default=None)
    secondary_ipv6_addresses: list[Address] | None = field(name="SecondaryIPv6Addresses", default=None)
    endpoint_id: str = ""
    gateway: str = ""
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = ""
    mac_address: str = ""
    networks: dict[str, EndpointSettings] = {}


class ContainerInspect(Wire):
    """GET /containers/{id}/json."""

    id: str = field(name="Id")
    created: str = ""
    path: str = ""
    args: list[str] = []
    state: ContainerState = field(default_factory=ContainerState)
    image: str = ""
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    log_path: str = ""
    name: str = ""
    restart_count: int = 0
    driver: str = "overlay2"
    platform: str = "linux"
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: list[str] | None = field(name="ExecIDs", default=None)
    host_config: HostConfig = field(default_factory=HostConfig)
    graph_driver: GraphDriver = field(default_factory=GraphDriver)
    size_rw: Maybe[int] = field(name="SizeRw", default=UNSET)
    size_root_fs: Maybe[int] = UNSET
    mounts: list[MountPoint] = []
    config: ContainerConfig = field(default_factory=ContainerConfig)
    network_settings: NetworkSettings = field(default_factory=NetworkSettings)


class WaitError(Wire):
    """Why a wait could not be answered."""

    message: str = ""


class WaitResult(Wire):
    """The one line of POST /containers/{id}/wait."""

    status_code: int = 0
    error: Maybe[WaitError] = UNSET


class Top(Wire):
    """GET /containers/{id}/top: `ps` as columns and rows."""

    titles: list[str] = []
    processes: list[list[str]] = []


class ExecCreate(Wire):
    """The body of POST /containers/{id}/exec. `console_size`: rows, columns."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    env: list[str] = []
    cmd: StrSlice = []
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] = []


class IdResponse(Wire):
    """The answer of exec create and commit."""

    id: str = field(name="Id")


class ExecStart(Wire):
    """The body of POST /exec/{id}/start. `console_size`: rows, columns."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] = []


class ExecProcess(Struct, kw_only=True):
    """What an exec runs, as exec inspect shows it."""

    tty: bool = False
    entrypoint: str = ""
    arguments: list[str] = []
    privileged: bool = False
    user: Maybe[str] = UNSET


class ExecInspect(Wire):
    """GET /exec/{id}/json. `exit_code` is null while it runs."""

    id: str
    running: bool = False
    exit_code: int | None = None
    process_config: ExecProcess = field(default_factory=ExecProcess)
    open_stdin: bool = False
    open_stderr: bool = False
    open_stdout: bool = False
    can_remove: bool = False
    container_id: str = ""
    detach_keys: str = ""
    pid: int = 0


class ContainersPruned(Wire):
    """The report of a container prune. Space in bytes."""

    containers_deleted: list[str] = []
    space_reclaimed: int = 0


class FilesystemChange(Wire):
    """A path that differs from the image. `kind`: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class PathStat(Struct, kw_only=True):
    """What is at a path of a container (X-Docker-Container-Path-Stat). `mode` as Go counts it; `mtime` in ns."""

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str = ""
