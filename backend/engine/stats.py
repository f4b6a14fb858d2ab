"""Statistics in Docker's JSON, for both versions of cgroups."""

from __future__ import annotations

import os
import time

from backend.engine.clock import rfc3339
from backend.engine.container import Container
from backend.runtime.cgroups import Cgroup
from backend.runtime.stats import CgroupStats
from backend.spec import api

_TICK = 10_000_000                  # ns a tick of /proc/stat: USER_HZ is 100 on what we run on
_COUNTERS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")


def system_cpu() -> int:
    """Processor time of the whole machine since it started, ns."""
    with open("/proc/stat", encoding="ascii") as file:
        words = file.readline().split()
    return sum(int(word) for word in words[1:8]) * _TICK


def empty(container: Container) -> api.Stats:
    """What a container that does not run gets: zeros."""
    return api.Stats(id=container.id, name=f"/{container.name}")


def sample(container: Container, cgroup: Cgroup, before: api.Stats | None, *, cpus: int, memory: int) -> api.Stats:
    """One sample; what *before* saw is its `precpu`. Raises FileNotFoundError when the container has just ended."""
    found = cgroup.stats()
    made = api.Stats(
        id=container.id, name=f"/{container.name}", read=rfc3339(time.time_ns()),
        pids_stats=api.PidsStats(current=found.pids, limit=found.pids_limit), blkio_stats=_blkio(found),
        cpu_stats=_cpu(found, cpus), memory_stats=_memory(found, memory))
    if before is not None:
        made.preread, made.precpu_stats = before.read, before.cpu_stats
    networks = _networks(container)
    if networks:
        made.networks = networks
    return made


def past(at: int, cpu: int, system: int, cpus: int) -> api.Stats:
    """A sample of which only the processor time is known, for the first of a series to compare with. Times in ns."""
    return api.Stats(read=rfc3339(at), cpu_stats=api.CpuStats(
        cpu_usage=api.CpuUsage(total_usage=cpu), system_cpu_usage=system, online_cpus=cpus))


def _cpu(found: CgroupStats, cpus: int) -> api.CpuStats:
    usage = api.CpuUsage(total_usage=found.cpu_total, usage_in_kernelmode=found.cpu_system,
                         usage_in_usermode=found.cpu_user)
    if found.cpu_per_core:
        usage.percpu_usage = list(found.cpu_per_core)
    return api.CpuStats(
        cpu_usage=usage, system_cpu_usage=system_cpu(), online_cpus=cpus,
        throttling_data=api.Throttling(periods=found.periods, throttled_periods=found.throttled_periods,
                                       throttled_time=found.throttled_time))


def _memory(found: CgroupStats, memory: int) -> api.MemoryStats:
    limit = found.memory_limit
    return api.MemoryStats(usage=found.memory_usage, max_usage=found.memory_max, stats=dict(found.memory_stat),
                           failcnt=found.memory_failures, limit=limit if 0 < limit < memory else memory)


def _blkio(found: CgroupStats) -> api.BlkioStats:
    return api.BlkioStats(
        io_service_bytes_recursive=[api.BlkioEntry(*entry) for entry in found.io_bytes],
        io_serviced_recursive=[api.BlkioEntry(*entry) for entry in found.io_operations])


def _networks(container: Container) -> dict[str, api.NetworkStats]:
    """What went through each of its interfaces. The host's end of a pair counts the other way round."""
    made = {}
    for endpoint in container.status.endpoints:
        if not endpoint.host_interface:
            continue
        base = f"/sys/class/net/{endpoint.host_interface}/statistics/"
        counters = {}
        try:
            for name in _COUNTERS:
                fd = os.open(base + name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    counters[_other_side(name)] = int(os.read(fd, 32))
                finally:
                    os.close(fd)
        except FileNotFoundError:
            continue                # the interface has gone with its container
        made[endpoint.interface] = api.NetworkStats(**counters)
    return made


def _other_side(name: str) -> str:
    return ("tx" if name.startswith("rx") else "rx") + name[2:]
