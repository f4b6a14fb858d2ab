"""Everything about a container that can be wrong before it starts, and what of it this machine cannot give. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from backend.engine import limits, links, spec
from backend.engine.logchoice import check_log, log_warnings
from backend.engine.signals import signal_number
from backend.errors import InvalidArgument, NotImplemented_
from backend.network.ports import parse_wish
from backend.spec import api

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.engine.facts import Facts

#: What runs containers: our own, and programs of others that take the same bundle.
OWN_RUNTIME = "slipway"
RUNTIMES = {"slipway": "", "runc": "runc", "io.containerd.runc.v2": "runc", "crun": "crun"}
RESTARTS = ("", "no", "always", "unless-stopped", "on-failure")
_HOSTNAME = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]*[a-zA-Z0-9_])?")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}|[0-9a-fA-F]{2}(-[0-9a-fA-F]{2}){5}")
_MILLISECOND = 1_000_000
#: Options of a tmpfs that the kernel takes, besides the flags of every mount.
_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"})
_TMPFS_FLAGS = frozenset({
    "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "nodiratime", "diratime",
    "relatime", "norelatime", "strictatime", "nostrictatime", "sync", "async", "dirsync", "remount", "mand", "nomand",
    "bind", "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave", "rslave",
    "defaults", "silent", "loud", "tmpcopyup", "nosymfollow"})


def check(config: api.ContainerConfig, host: api.HostConfig, cpus: int, facts: Facts) -> None:
    """Raises :class:`InvalidArgument` and :class:`NotImplemented_`."""
    limits.check(host, cpus, facts)
    spec.capabilities(host)
    _check_apparmor(spec.security_options(host), facts)
    for port, bindings in host.port_bindings.items():
        for binding in bindings:
            parse_wish(port, binding.host_ip, binding.host_port)
    check_restart(host)
    _check_modes(host)
    check_log(host)
    _check_process(config)
    _check_names(config, host)
    check_health(config.healthcheck)
    _check_odds(host)


def _check_process(config: api.ContainerConfig) -> None:
    if config.stop_signal:
        signal_number(config.stop_signal)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_dir}' is invalid, "
                              "it needs to be an absolute path")
    for one in config.env:
        if not one or one.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {one}")


def _check_names(config: api.ContainerConfig, host: api.HostConfig) -> None:
    if config.hostname and (len(config.hostname) > 63 or not _HOSTNAME.fullmatch(config.hostname)):
        raise InvalidArgument(f"invalid hostname format: {config.hostname}")
    if config.mac_address and not _MAC.fullmatch(config.mac_address):
        raise InvalidArgument(f"invalid MAC address: {config.mac_address}")
    for entry in host.extra_hosts or ():
        _check_extra_host(entry)
    for text in host.links or ():
        links.parse(text)
    for path, options in host.tmpfs.items():
        if not path.startswith("/"):
            raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
        _check_tmpfs(options)


def _check_extra_host(entry: str) -> None:
    name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
    if not separator or not name:
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address == "host-gateway":
        return
    try:
        ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"') from None


def _check_tmpfs(options: str) -> None:
    for option in filter(None, options.split(",")):
        name, equals, _ = option.partition("=")
        if not (name in _TMPFS_VALUES if equals else name in _TMPFS_FLAGS):
            raise InvalidArgument(f'invalid tmpfs option "{option}"')


def check_health(given: api.HealthConfig | None) -> None:
    """Refuse a health check that cannot be, in Docker's words."""
    if given is None:
        return
    for what, value in (("Interval", given.interval), ("Timeout", given.timeout),
                        ("StartPeriod", given.start_period), ("StartInterval", given.start_interval)):
        if value and value < _MILLISECOND:
            raise InvalidArgument(f"{what} in Healthcheck cannot be less than 1ms")
    if given.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _check_odds(host: api.HostConfig) -> None:
    """What belongs to other systems, or cannot be had here."""
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.io_maximum_iops:
        raise InvalidArgument("invalid option: QoS maximum IOPs configuration is not supported on linux")
    if host.io_maximum_bandwidth:
        raise InvalidArgument("invalid option: QoS maximum bandwidth configuration is not supported on linux")
    if "" in host.annotations:
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    if host.auto_remove and host.restart_policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if host.storage_opt:
        raise NotImplemented_("storage options are not supported: overlay layers have no size limit here")


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
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if RUNTIMES[host.runtime] and host.init:
        raise NotImplemented_(f"--init is part of the built-in runtime and cannot be combined with {host.runtime}")
    if host.ipc_mode not in ("private", "shareable", "host", "none") and not _is_other(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "private", "host") and not _is_other(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")


def _is_other(mode: str) -> bool:
    return mode.startswith("container:") and mode != "container:"


def _check_apparmor(options: spec.SecurityOptions, facts: Facts) -> None:
    if options.apparmor not in ("", "unconfined") and not facts.apparmor:
        raise InvalidArgument(f"AppArmor is not enabled on this machine, so the profile {options.apparmor!r} cannot "
                              "confine the container; leave it out or say apparmor=unconfined")


# --- warnings -------------------------------------------------------------------------------------------------------
def discard(host: api.HostConfig, facts: Facts) -> list[str]:
    """Take out of *host* what this kernel cannot do, and say so: the warnings of a create or an update."""
    made = _discard_block(host, facts)
    if host.memory_swap and not facts.swap_limit:
        host.memory_swap = -1
        made.append("Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
                    "Memory limited without swap.")
    if host.memory_swappiness is not None and host.memory_swappiness >= 0 and facts.v2:
        host.memory_swappiness = None
        made.append("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
                    "Memory swappiness discarded.")
    if host.oom_kill_disable and facts.v2:
        host.oom_kill_disable = None
        made.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    elif host.oom_kill_disable and not host.memory:
        made.append("OOM killer is disabled for the container, but no memory limit is set, this can result in the "
                    "system running out of resources.")
    if host.kernel_memory or host.kernel_memory_tcp:
        host.kernel_memory = host.kernel_memory_tcp = 0
        made.append("Limits of kernel memory are no longer a thing of the kernel. Kernel memory limit discarded.")
    if host.cpu_percent:
        host.cpu_percent = 0
        made.append("linux does not support CPU percent. Percent discarded.")
    return made


def _discard_block(host: api.HostConfig, facts: Facts) -> list[str]:
    made = []
    if host.blkio_weight and not facts.blkio_weight:
        host.blkio_weight = 0
        made.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
    if host.blkio_weight_device and not facts.blkio_weight:
        host.blkio_weight_device = []
        made.append("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
                    "Weight-device discarded.")
    return made


def warnings(host: api.HostConfig, facts: Facts) -> list[str]:
    """What will be less than was asked for, although nothing is left out."""
    made = log_warnings(host)
    if host.network_mode == "host" and host.port_bindings:
        made.append("Published ports are discarded when using host network mode")
    if facts.may_raise:
        return made
    for one in host.ulimits or ():
        cap = facts.hard_limits.get(one.name)
        if cap is not None and (one.hard < 0 or one.hard > cap):
            made.append(f"ulimit {one.name}: the engine may not raise limits on this machine (no CAP_SYS_RESOURCE); "
                        f"the hard limit will be {cap} instead of {'unlimited' if one.hard < 0 else one.hard}")
    if host.oom_score_adj < 0:
        made.append("the engine may not lower the oom score on this machine (no CAP_SYS_RESOURCE): "
                    f"{host.oom_score_adj} is not applied")
    return made


def references(host: api.HostConfig) -> Sequence[tuple[str, str]]:
    """The other containers that a container's modes and links name: (kind, reference)."""
    made = [(kind, mode.removeprefix("container:")) for kind, mode in (
        ("ipc", host.ipc_mode), ("pid", host.pid_mode)) if _is_other(mode)]
    return made + [("link", links.parse(text)[0]) for text in host.links or ()]
