"""Changing the limits and the restart policy of a container that is there, at once if it runs."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from backend.engine import checks, devices, limits
from backend.engine.container import Container
from backend.engine.core import Core
from backend.engine.life import Life
from backend.errors import Conflict, EngineError, InvalidArgument, NotImplemented_, ServerError
from backend.runtime.cgroups import CgroupError
from backend.spec import api

_NUMBERS = ("cpu_shares", "memory", "nano_cpus", "cpu_period", "cpu_quota", "cpu_realtime_period",
            "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "memory_reservation", "memory_swap",
            "blkio_weight", "blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps",
            "blkio_device_read_iops", "blkio_device_write_iops")
_SAID = ("memory_swappiness", "oom_kill_disable", "pids_limit")         # 0 and false mean something
_FIXED = ("ulimits", "devices", "device_cgroup_rules", "device_requests", "cgroup_parent")


async def update(core: Core, life: Life, container: Container, body: api.ContainerUpdate) -> list[str]:
    """Carry it out; the warnings. Nothing has changed when it raises."""
    async with container.lock:
        host, told = _changed(core, container, body)
        if container.status.active:
            await _apply(life, container, host)
        container.record.host_config = host
        await core.state.put_container(container.record, container.status)
    life.tell(container, "update")
    return told


def _changed(core: Core, container: Container, body: api.ContainerUpdate) -> tuple[api.HostConfig, list[str]]:
    """The host's part as it is going to be. Raises what is wrong with it."""
    before = container.record.host_config
    for name in _FIXED:
        if getattr(body, name):
            raise NotImplemented_(f"{name.replace('_', ' ')} cannot be changed once a container has been created")
    changed: dict[str, Any] = {name: getattr(body, name) for name in _NUMBERS if getattr(body, name)}
    changed |= {name: getattr(body, name) for name in _SAID if getattr(body, name) is not None}
    if body.restart_policy.name:
        if before.auto_remove and body.restart_policy.name != "no":
            raise _cannot(container, "Restart policy cannot be updated because AutoRemove is enabled for the container")
        changed["restart_policy"] = body.restart_policy
    _conflicts(container, before, changed)
    host = msgspec.structs.replace(before, **changed)
    if "memory" in changed and "memory_swap" not in changed and before.memory_swap == 2 * before.memory:
        host.memory_swap = 2 * host.memory                 # nobody chose it: it goes with the limit
    limits.normalise(host)
    told = checks.discard(host, core.facts)
    limits.check(host, core.cpus, core.facts)
    checks.check_restart(host)
    return host, told


def _conflicts(container: Container, before: api.HostConfig, changed: dict[str, Any]) -> None:
    """Two ways to say how much CPU there is exclude each other, also one after the other."""
    if changed.get("nano_cpus"):
        for name, words in (("cpu_quota", "CPU Quota"), ("cpu_period", "CPU Period")):
            if getattr(before, name):
                raise _cannot(container, "Conflicting options: Nano CPUs cannot be updated as "
                              f"{words} has already been set")
    if before.nano_cpus:
        for name, words in (("cpu_quota", "CPU Quota"), ("cpu_period", "CPU Period")):
            if changed.get(name):
                raise _cannot(container, f"Conflicting options: {words} cannot be updated as NanoCPUs has already "
                              "been set")
    if (changed.get("memory") or 0) > before.memory_swap > 0 and not changed.get("memory_swap") and (
            before.memory_swap != 2 * before.memory):
        raise _cannot(container, "Memory limit should be smaller than already set memoryswap limit, update the "
                      "memoryswap at the same time")


def _cannot(container: Container, why: str) -> Conflict:
    return Conflict(f"Cannot update container {container.id}: {why}")


async def _apply(life: Life, container: Container, host: api.HostConfig) -> None:
    wanted = limits.resources(host, (), devices.throttles(host))
    if host.pids_limit is None:
        wanted["pids"] = {"limit": -1}
    try:
        await asyncio.to_thread(life.cgroup(container).update, wanted)
    except (OSError, CgroupError) as error:
        kind: type[EngineError] = InvalidArgument if getattr(error, "errno", None) == 22 else ServerError
        raise kind(f"Cannot update container {container.id}: {error}") from error
