"""OCI ``linux.resources`` as the files to write, for cgroup v1 and v2. Decides, touches nothing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# (controller, file, value, optional): optional files may be missing without harm (no swap accounting, say)
Write = tuple[str, str, str, bool]


def _given(section: dict[str, Any], key: str) -> int | None:
    value = section.get(key)
    return None if value is None else int(value)


def v1_writes(resources: dict[str, Any], controllers: Collection[str]) -> list[Write]:
    """The writes for v1, in an order that is right for a fresh cgroup."""
    out: list[Write] = []
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    limit, swap = _given(memory, "limit"), _given(memory, "swap")
    if limit:
        out.append(("memory", "memory.limit_in_bytes", str(limit), False))
    if swap:
        out.append(("memory", "memory.memsw.limit_in_bytes", str(swap), True))
    for key, name in (("reservation", "memory.soft_limit_in_bytes"), ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
                      ("swappiness", "memory.swappiness")):  # fmt: skip
        value = _given(memory, key)
        if value is not None and (value or key == "swappiness"):
            out.append(("memory", name, str(value), key != "reservation"))
    if memory.get("disableOOMKiller"):
        out.append(("memory", "memory.oom_control", "1", False))
    for key, name in (("shares", "cpu.shares"), ("period", "cpu.cfs_period_us"), ("quota", "cpu.cfs_quota_us"),
                      ("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")):  # fmt: skip
        value = _given(cpu, key)
        if value:
            out.append(("cpu", name, str(value), False))
    if cpu.get("cpus"):
        out.append(("cpuset", "cpuset.cpus", str(cpu["cpus"]), False))
    if cpu.get("mems"):
        out.append(("cpuset", "cpuset.mems", str(cpu["mems"]), False))
    pids = _given(resources.get("pids") or {}, "limit")
    if pids is not None:
        out.append(("pids", "pids.max", str(pids) if pids > 0 else "max", False))
    out += _v1_blkio(resources.get("blockIO") or {})
    return [w for w in out if w[0] in controllers]


_THROTTLE = (
    ("throttleReadBpsDevice", "read_bps", "rbps"),
    ("throttleWriteBpsDevice", "write_bps", "wbps"),
    ("throttleReadIOPSDevice", "read_iops", "riops"),
    ("throttleWriteIOPSDevice", "write_iops", "wiops"),
)


def _v1_blkio(section: dict[str, Any]) -> list[Write]:
    out: list[Write] = []
    if section.get("weight"):
        # Only the bfq scheduler has it, under its own name.
        out.append(("blkio", "blkio.bfq.weight", str(section["weight"]), True))
    for e in section.get("weightDevice") or []:
        out.append(("blkio", "blkio.bfq.weight_device", f"{e['major']}:{e['minor']} {e['weight']}", False))
    for key, name, _ in _THROTTLE:
        for e in section.get(key) or []:
            out.append(("blkio", f"blkio.throttle.{name}_device", f"{e['major']}:{e['minor']} {e['rate']}", False))
    return out


def v2_writes(resources: dict[str, Any]) -> list[Write]:
    """The writes for v2; values of v1's scales are converted as crun and runc do."""
    out: list[Write] = []
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    limit, swap = _given(memory, "limit"), _given(memory, "swap")
    if limit:
        out.append(("", "memory.max", "max" if limit < 0 else str(limit), False))
    if swap:
        # v1 counts memory and swap together, v2 swap alone.
        alone = "max" if swap < 0 else str(max(swap - (limit or 0), 0))
        out.append(("", "memory.swap.max", alone, True))
    if reservation := _given(memory, "reservation"):
        out.append(("", "memory.low", str(reservation), False))
    if shares := _given(cpu, "shares"):
        out.append(("", "cpu.weight", str(1 + (max(shares, 2) - 2) * 9999 // 262142), False))
    quota, period = _given(cpu, "quota"), _given(cpu, "period")
    if quota or period:
        out.append(("", "cpu.max", f"{quota if quota and quota > 0 else 'max'} {period or 100000}", False))
    if cpu.get("cpus"):
        out.append(("", "cpuset.cpus", str(cpu["cpus"]), False))
    if cpu.get("mems"):
        out.append(("", "cpuset.mems", str(cpu["mems"]), False))
    pids = _given(resources.get("pids") or {}, "limit")
    if pids is not None:
        out.append(("", "pids.max", str(pids) if pids > 0 else "max", False))
    section = resources.get("blockIO") or {}
    if weight := _given(section, "weight"):
        out.append(("", "io.bfq.weight", str(weight), True))
        out.append(("", "io.weight", str(1 + (weight - 10) * 9999 // 990), True))
    for entry in section.get("weightDevice") or []:
        scaled = 1 + (int(entry["weight"]) - 10) * 9999 // 990
        out.append(("", "io.weight", f"{entry['major']}:{entry['minor']} {scaled}", False))
    for key, _, short in _THROTTLE:
        for entry in section.get(key) or []:
            out.append(("", "io.max", f"{entry['major']}:{entry['minor']} {short}={entry['rate']}", False))
    for name, value in (resources.get("unified") or {}).items():
        if "/" in name or name.startswith("cgroup."):
            continue
        out.append(("", name, str(value), False))
    return out
