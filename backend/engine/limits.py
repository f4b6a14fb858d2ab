"""Resource limits: what the API says, checked, as OCI `linux.resources` and `process.rlimits`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import InvalidArgument, NotImplemented_
from backend.spec import api

if TYPE_CHECKING:
    from backend.engine.facts import Facts

MINIMUM_MEMORY = 6 << 20
_PERIOD = 100_000
_CPUSET_MAXIMUM = 8192
_ULIMITS = frozenset({"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
                      "rtprio", "rttime", "sigpending", "stack"})
_NAMESPACED = ("net.", "fs.mqueue.")
_IPC = frozenset({"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
                  "kernel.shmmni", "kernel.shm_rmid_forced"})
_UTS = frozenset({"kernel.domainname", "kernel.hostname"})


def normalise(host: api.HostConfig) -> None:
    """Write the several ways to say "no limit" in one."""
    if host.pids_limit is not None and host.pids_limit <= 0:
        host.pids_limit = None


def check(host: api.HostConfig, cpus: int, facts: Facts) -> None:
    """Raise :class:`InvalidArgument` for a limit that cannot be, in Docker's words. *cpus*: how many there are."""
    _check_memory(host)
    _check_cpu(host, cpus, facts.nodes)
    if (host.cpu_realtime_runtime or host.cpu_realtime_period) and not facts.realtime:
        raise InvalidArgument("Your kernel does not support CPU real-time scheduling by control groups")
    if host.cpu_realtime_period and host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("range of blkio weight is from 10 to 1000")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if host.device_requests:
        wanted = host.device_requests[0]
        groups = " ".join("[" + " ".join(group) + "]" for group in wanted.capabilities)
        raise NotImplemented_(f'could not select device driver "{wanted.driver}" with capabilities: [{groups}]: '
                              "device requests (--gpus) are not supported; name the devices with --device")
    for one in host.ulimits or ():
        if one.name not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {one.name}")
        if one.hard != -1 and (one.soft > one.hard or one.soft == -1):
            raise InvalidArgument("ulimit soft limit must be less than or equal to hard limit: "
                                  f"{one.soft} > {one.hard}")
    for name in host.sysctls:
        check_sysctl(name, host)


def _check_memory(host: api.HostConfig) -> None:
    if host.memory and host.memory < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_reservation and host.memory_reservation < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if host.memory and host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(host: api.HostConfig, cpus: int, nodes: int) -> None:
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        other = "CPU Period" if host.cpu_period else "CPU Quota"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    if host.nano_cpus < 0 or host.nano_cpus > cpus * 1_000_000_000:
        raise InvalidArgument(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for what, name, text, count in (("CPUs", "cpus", host.cpuset_cpus, cpus),
                                    ("memory nodes", "mems", host.cpuset_mems, nodes)):
        if _largest(name, text) >= count:
            there = f"0-{count - 1}" if count > 1 else "0"
            raise InvalidArgument(f"Requested {what} are not available - requested {text}, available: {there}")


def _largest(name: str, text: str) -> int:
    """The largest number of a list such as "0-2,5"; -1 if it is empty."""
    made = -1
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        numbers = (first, last) if dash else (first, first)
        if not all(one.isascii() and one.isdigit() for one in numbers):
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}: invalid format: {part}")
        if any(len(one) > 5 or int(one) >= _CPUSET_MAXIMUM for one in numbers):
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}: value of out range, "
                                  f"maximum is {_CPUSET_MAXIMUM}")
        if int(numbers[0]) > int(numbers[1]):
            raise InvalidArgument(f"Invalid value {text} for cpuset {name}: invalid format: {part}")
        made = max(made, int(numbers[1]))
    return made


def check_sysctl(name: str, host: api.HostConfig) -> None:
    """Refuse a sysctl that is not the container's own: it would change the host."""
    if name.startswith("net.") and host.network_mode == "host":
        raise InvalidArgument(f"invalid sysctl {name!r}: not allowed in host network namespace")
    if (name in _IPC or name.startswith("fs.mqueue.")) and host.ipc_mode == "host":
        raise InvalidArgument(f"invalid sysctl {name!r}: not allowed in host ipc namespace")
    if not (name.startswith(_NAMESPACED) or name in _IPC or name in _UTS):
        raise InvalidArgument(f'invalid sysctl "{name}": it is not in a separate kernel namespace')


def rlimits(host: api.HostConfig) -> list[dict[str, Any]]:
    """OCI `process.rlimits`; -1 is unlimited."""
    return [{"type": f"RLIMIT_{one.name.upper()}", "soft": _unlimited(one.soft), "hard": _unlimited(one.hard)}
            for one in host.ulimits or ()]


def _unlimited(value: int) -> int:
    return (1 << 64) - 1 if value < 0 else value


def resources(host: api.HostConfig, device_rules: Sequence[Mapping[str, Any]],
              throttles: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """OCI `linux.resources`: only what was asked for, so that the kernel's defaults stay otherwise.

    *throttles*: the block I/O limits of single devices, looked up by :func:`backend.engine.devices.throttles`.
    """
    made: dict[str, Any] = {"devices": [dict(rule) for rule in device_rules]} if device_rules else {}
    memory = _memory(host)
    cpu = _cpu(host)
    block = {**({"weight": host.blkio_weight} if host.blkio_weight else {}), **(throttles or {})}
    if memory:
        made["memory"] = memory
    if cpu:
        made["cpu"] = cpu
    if host.pids_limit:
        made["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    if block:
        made["blockIO"] = block
    return made


def _memory(host: api.HostConfig) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if host.memory > 0:
        made["limit"] = host.memory
        made["swap"] = host.memory_swap or 2 * host.memory      # Docker's default: as much swap as memory
    elif host.memory_swap:
        made["swap"] = host.memory_swap
    if host.memory_reservation > 0:
        made["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        made["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        made["disableOOMKiller"] = True
    return made


def _cpu(host: api.HostConfig) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if host.nano_cpus > 0:
        made |= {"period": _PERIOD, "quota": host.nano_cpus * _PERIOD // 1_000_000_000}
    for name, value in (("shares", host.cpu_shares), ("period", host.cpu_period), ("quota", host.cpu_quota),
                        ("realtimePeriod", host.cpu_realtime_period), ("realtimeRuntime", host.cpu_realtime_runtime),
                        ("cpus", host.cpuset_cpus), ("mems", host.cpuset_mems)):
        if value:
            made[name] = value
    return made
