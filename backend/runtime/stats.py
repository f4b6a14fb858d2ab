"""Samples of a cgroup's counters, from v1 and v2 files to one shape."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.runtime.cgroups import Cgroup

Io = tuple[tuple[int, int, str, int], ...]
_TICK_NS = 10_000_000  # USER_HZ is 100 on every architecture we run on
_UNLIMITED = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class CgroupStats:
    """Counters of one moment. Times in ns, sizes in bytes; ``blkio`` entries are (major, minor, operation, value)."""

    read: int
    cpu_total: int = 0
    cpu_user: int = 0
    cpu_system: int = 0
    cpu_per_core: tuple[int, ...] = ()
    throttled_periods: int = 0
    throttled_time: int = 0
    periods: int = 0
    memory_usage: int = 0
    memory_max: int = 0
    memory_limit: int = 0
    memory_failures: int = 0
    memory_stat: tuple[tuple[str, int], ...] = ()
    pids: int = 0
    pids_limit: int = 0
    io_bytes: tuple[tuple[int, int, str, int], ...] = ()
    io_operations: tuple[tuple[int, int, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """The few counters that a curve needs: `cpu` in ns, `memory` in bytes without inactive page cache."""

    cpu: int
    memory: int
    pids: int
    read: int
    written: int


def usage(group: Cgroup) -> Usage:
    """A cheap sample: a third of a whole one. Raises :class:`FileNotFoundError` if the cgroup is gone."""
    v2 = group.v2
    memory = _int(group.text("memory", "memory.current" if v2 else "memory.usage_in_bytes"))
    cache = _after(group.text("memory", "memory.stat"), "\ninactive_file " if v2 else "\ntotal_inactive_file ")
    io = _v2_io(group.text("", "io.stat"))[0] if v2 else _v1_io(
        group.text("blkio", "blkio.throttle.io_service_bytes_recursive"))
    return Usage(
        cpu_time(group), max(0, memory - cache),
        _int(group.text("pids", "pids.current")), sum(n for _, _, kind, n in io if kind == "read"),
        sum(n for _, _, kind, n in io if kind == "write"))


def cpu_time(group: Cgroup) -> int:
    """Processor time so far, ns. Raises :class:`FileNotFoundError` if the cgroup is gone."""
    text = group.text("", "cpu.stat") if group.v2 else group.text("cpuacct", "cpuacct.usage")
    if not text:
        raise FileNotFoundError(group.path)
    return _after(text, "usage_usec ") * 1000 if group.v2 else _int(text)


def _after(text: str, key: str) -> int:
    """The number that follows *key*; 0 where it does not stand."""
    at = text.find(key)
    return _int(text[at + len(key) : text.find("\n", at + len(key))]) if at >= 0 else 0


def _pairs(text: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.rpartition(" ")
        if key and value.isdigit():
            out[key] = int(value)
    return out


def _int(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _v1_io(text: str) -> Io:
    out = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3:
            major, _, minor = fields[0].partition(":")
            out.append((int(major), int(minor), fields[1].lower(), int(fields[2])))
    return tuple(out)


def sample_v1(group: Cgroup) -> CgroupStats:
    """From the v1 controllers. Raises :class:`FileNotFoundError` if the cgroup is gone."""
    usage = group.text("memory", "memory.usage_in_bytes")
    if not usage:
        raise FileNotFoundError(group.path)
    times = _pairs(group.text("cpuacct", "cpuacct.stat"))
    throttle = _pairs(group.text("cpu", "cpu.stat"))
    limit = _int(group.text("memory", "memory.limit_in_bytes"))
    return CgroupStats(
        read=time.time_ns(),
        cpu_total=_int(group.text("cpuacct", "cpuacct.usage")),
        cpu_user=times.get("user", 0) * _TICK_NS,
        cpu_system=times.get("system", 0) * _TICK_NS,
        cpu_per_core=tuple(int(x) for x in group.text("cpuacct", "cpuacct.usage_percpu").split()),
        periods=throttle.get("nr_periods", 0),
        throttled_periods=throttle.get("nr_throttled", 0),
        throttled_time=throttle.get("throttled_time", 0),
        memory_usage=_int(usage),
        memory_max=_int(group.text("memory", "memory.max_usage_in_bytes")),
        memory_limit=0 if limit >= _UNLIMITED // 4096 * 4096 else limit,
        memory_failures=_int(group.text("memory", "memory.failcnt")),
        memory_stat=tuple(_pairs(group.text("memory", "memory.stat")).items()),
        pids=_int(group.text("pids", "pids.current")),
        pids_limit=_int(group.text("pids", "pids.max")),
        io_bytes=_v1_io(group.text("blkio", "blkio.throttle.io_service_bytes_recursive")),
        io_operations=_v1_io(group.text("blkio", "blkio.throttle.io_serviced_recursive")),
    )


def _v2_io(text: str) -> tuple[Io, Io]:
    sizes: list[tuple[int, int, str, int]] = []
    counts: list[tuple[int, int, str, int]] = []
    for line in text.splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        values = dict(f.split("=", 1) for f in fields if "=" in f)
        for key, name, out in (
            ("rbytes", "read", sizes),
            ("wbytes", "write", sizes),
            ("rios", "read", counts),
            ("wios", "write", counts),
        ):
            if key in values:
                out.append((int(major), int(minor), name, int(values[key])))
    return tuple(sizes), tuple(counts)


def sample_v2(group: Cgroup) -> CgroupStats:
    """From the v2 tree. Raises :class:`FileNotFoundError` if the cgroup is gone."""
    cpu_text = group.text("", "cpu.stat")
    if not cpu_text:
        raise FileNotFoundError(group.path)
    cpu = _pairs(cpu_text)
    sizes, counts = _v2_io(group.text("", "io.stat"))
    return CgroupStats(
        read=time.time_ns(),
        cpu_total=cpu.get("usage_usec", 0) * 1000,
        cpu_user=cpu.get("user_usec", 0) * 1000,
        cpu_system=cpu.get("system_usec", 0) * 1000,
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_time=cpu.get("throttled_usec", 0) * 1000,
        memory_usage=_int(group.text("", "memory.current")),
        memory_max=_int(group.text("", "memory.peak")),
        memory_limit=_int(group.text("", "memory.max")),
        memory_failures=_pairs(group.text("", "memory.events")).get("max", 0),
        memory_stat=tuple(_pairs(group.text("", "memory.stat")).items()),
        pids=_int(group.text("", "pids.current")),
        pids_limit=_int(group.text("", "pids.max")),
        io_bytes=sizes,
        io_operations=counts,
    )
