"""What the engine says of itself and its machine."""

from __future__ import annotations

import os
import time

from backend.engine import checks, logchoice
from backend.engine.clock import rfc3339_nano
from backend.engine.containers import Containers
from backend.engine.core import Core
from backend.engine.images import Images
from backend.engine.volumes import Volumes
from backend.network.records import DEFAULT_POOLS
from backend.plugins.registry import NETWORK, VOLUME
from backend.runtime.cgroups import layout
from backend.spec import api

_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "riscv64": "riscv64",
            "ppc64le": "ppc64le", "s390x": "s390x"}


def go_arch(machine: str) -> str:
    """The name that images use for a machine."""
    return _GO_ARCH.get(machine, machine)


class System:
    """Info, version and disk usage."""

    def __init__(self, core: Core, containers: Containers, images: Images, volumes: Volumes, identity: str) -> None:
        self._core = core
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._identity = identity

    def version(self) -> api.Version:
        """Versions of the engine, its API and the kernel."""
        uname = os.uname()
        own = self._core.settings.version
        details = {"ApiVersion": api.API_VERSION, "MinAPIVersion": api.MIN_API_VERSION, "Arch": go_arch(uname.machine),
                   "Os": "linux", "KernelVersion": uname.release, "Experimental": "false", "GoVersion": "",
                   "GitCommit": "", "BuildTime": ""}
        return api.Version(
            platform=api.PlatformName(name="Slipway"), components=[
                api.Component(name="Engine", version=own, details=details)],
            version=own, api_version=api.API_VERSION, min_api_version=api.MIN_API_VERSION, os="linux",
            arch=go_arch(uname.machine), kernel_version=uname.release)

    def info(self) -> api.Info:
        """What `docker info` shows."""
        core, uname = self._core, os.uname()
        states = [one.status.state for one in core.table]
        pools = core.settings.address_pools or DEFAULT_POOLS
        return api.Info(
            id=self._identity, containers=len(states), containers_running=states.count("running"),
            containers_paused=states.count("paused"),
            containers_stopped=len(states) - states.count("running") - states.count("paused"),
            images=len(core.images.list()), driver_status=[["Backing Filesystem", _file_system(core.paths.data_root)]],
            docker_root_dir=core.paths.data_root, plugins=api.PluginsInfo(
                volume=["local", *core.plugins.active(VOLUME)],
                network=sorted(["bridge", "host", "ipvlan", "macvlan", "null", *core.plugins.active(NETWORK)]),
                authorization=list(core.settings.authorization) or None, log=["json-file", "local", "none"]),
            ipv4_forwarding=_flag("/proc/sys/net/ipv4/ip_forward"), debug=core.settings.debug,
            n_fd=len(os.listdir("/proc/self/fd")), n_goroutines=len(core.tasks),
            system_time=rfc3339_nano(time.time_ns()),
            logging_driver=core.settings.log_driver or logchoice.DEFAULT, cgroup_version="2" if layout().v2 else "1",
            n_events_listener=core.events.listeners, kernel_version=uname.release,
            operating_system=_os_release().get("PRETTY_NAME", "Linux"),
            os_version=_os_release().get("VERSION_ID", ""), architecture=uname.machine, n_cpu=core.cpus,
            mem_total=core.memory, registry_config=self._registries(), name=uname.nodename,
            labels=list(core.settings.labels), server_version=core.settings.version,
            runtimes={name: api.RuntimeInfo(path=name) for name in checks.RUNTIMES}, default_runtime=checks.OWN_RUNTIME,
            security_options=["name=seccomp,profile=builtin", "name=cgroupns",
                              *(["name=userns"] if core.settings.userns not in ("", "host") else [])],
            default_address_pools=[api.PoolInfo(base=one.base, size=one.size) for one in pools],
            warnings=list(core.networks.notes) or None)

    def _registries(self) -> api.RegistryServiceConfig:
        settings = self._core.settings.registry
        mirrors = list(settings.mirrors) if settings is not None else []
        made = api.RegistryServiceConfig(insecure_registry_cidrs=["::1/128", "127.0.0.0/8"], mirrors=mirrors)
        made.index_configs["docker.io"] = api.IndexInfo(name="docker.io", mirrors=mirrors, official=True)
        for one in settings.insecure if settings is not None else ():
            made.index_configs[one] = api.IndexInfo(name=one, secure=False)
        return made

    async def df(self, types: frozenset[str] = frozenset()) -> api.DiskUsage:
        """Disk usage. *types*: container, image, volume, build-cache; empty = all."""
        made = api.DiskUsage()
        if not types or "image" in types:
            made.images = self._images.list(all=True, shared_size=True)
            made.layers_size = self._images.layers_size()
        if not types or "container" in types:
            made.containers = self._containers.list(all=True)
            await self._containers.add_sizes(made.containers)
        if not types or "volume" in types:
            made.volumes = await self._volumes.usage()
        return made


def _flag(path: str) -> bool:
    with open(path, encoding="ascii") as file:
        return file.read(8).strip() == "1"


def _os_release() -> dict[str, str]:
    made = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    name, found, value = line.strip().partition("=")
                    if found:
                        made[name] = value.strip("\"'")
        except FileNotFoundError:
            continue
        break
    return made


def _file_system(path: str) -> str:
    """The kind of the file system that *path* is on: the longest mount point above it."""
    best = ("", "unknown")
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, point, kind = line.split(" ")[:3]
            above = point in ("/", path) or path.startswith(point + "/")
            if above and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]
