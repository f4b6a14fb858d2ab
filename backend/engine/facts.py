"""What this machine can do for a container, looked up once: what it cannot, a create says in its warnings."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from glob import glob

from backend.runtime.cgroups import Layout, layout

_SYS_RESOURCE = 24
_UNLIMITED = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Facts:
    """*nodes*: how many memory nodes; *hard_limits*: of this process, by Docker's names, which no container exceeds
    unless *may_raise*; *throttles*: what shows how hot each processor is, which others can be watched by; the rest says
    whether the kernel has the thing."""

    nodes: int = 1
    may_raise: bool = True
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    v2: bool = True
    swap_limit: bool = True
    blkio_weight: bool = True
    realtime: bool = True
    apparmor: bool = False
    throttles: tuple[str, ...] = ()


@cache
def look() -> Facts:
    """The facts of this machine."""
    seen = layout()
    return Facts(nodes=_nodes(), may_raise=_may_raise(), hard_limits=_hard_limits(), v2=seen.v2,
                 swap_limit=_swap_limit(seen), blkio_weight=_weight(seen), apparmor=_apparmor(),
                 realtime=os.path.exists(f"{seen.controllers.get('cpu', '')}/cpu.rt_runtime_us"),
                 throttles=tuple(sorted(glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"))))


def _nodes() -> int:
    return max(1, len(glob("/sys/devices/system/node/node[0-9]*")))


def _may_raise() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)
    return bool(effective >> _SYS_RESOURCE & 1)


def _hard_limits() -> dict[str, int]:
    made = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            hard = resource.getrlimit(getattr(resource, name))[1]
            made[name.removeprefix("RLIMIT_").lower()] = _UNLIMITED if hard < 0 else hard
    return made


def _swap_limit(seen: Layout) -> bool:
    if seen.v2:
        return not os.path.exists(f"{seen.root}/system.slice") or os.path.exists(
            f"{seen.root}/system.slice/memory.swap.max")
    return os.path.exists(f"{seen.controllers.get('memory', '')}/memory.memsw.limit_in_bytes")


def _weight(seen: Layout) -> bool:
    """Weights take effect by the scheduler bfq, on v2 also by the kernel's cost model."""
    if seen.v2 and glob(f"{seen.root}/*/io.weight"):
        return True
    for path in glob("/sys/block/*/queue/scheduler"):
        with open(path, encoding="ascii", errors="replace") as file:
            if "[bfq]" in file.read():
                return True
    return False


def _apparmor() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read().strip() == "Y"
    except OSError:
        return False
