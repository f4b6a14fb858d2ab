"""Takes the samples of the running containers that their histories are made of.

A busy container is sampled every second, an idle one ever more seldom, down to every ten: its curve is flat, and two
hundred idle containers should cost nothing that one notices. Whoever looks at one has it sampled every second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from backend.engine.container import Container
from backend.engine.core import Core, log
from backend.engine.history import COARSE, FINE, History, Row
from backend.engine.stats import past, system_cpu
from backend.runtime.cgroups import Cgroup
from backend.runtime.stats import Usage, cpu_time, usage
from backend.spec import api

_IDLE = 0.5                     # percent of one processor
_WATCHED = 30.0                 # seconds that a look at a container counts
_SKIPS = 5                      # samples of an idle one that read no more than its processor time, in a row


@dataclass(slots=True)
class Gauge:
    """One running container under measurement. Times are of the loop's clock."""

    container: Container
    cgroup: Cgroup
    history: History
    interval: float = FINE
    due: float = 0.0
    watched_until: float = 0.0
    at: float = 0.0             # of `last`
    wall: int = 0               # the same moment, ns since the epoch
    system: int = 0             # processor time of the machine by then, ns
    last: Usage | None = None
    skipped: int = 0
    traffic: tuple[int, int] = (0, 0)


class Meter:
    """The gauges of all running containers, read by one task that sleeps while none runs."""

    def __init__(self, core: Core, cgroup_of: Callable[[Container], Cgroup]) -> None:
        self._core = core
        self._cgroup_of = cgroup_of
        self._gauges: dict[str, Gauge] = {}
        self._task: asyncio.Task[None] | None = None

    # --- what runs --------------------------------------------------------------------------------------------------
    def began(self, container: Container) -> None:
        """It runs (or was found running)."""
        path = self._core.paths.container(container.id).stats
        history = container.history = container.history or History(path)
        self._gauges[container.id] = Gauge(container, self._cgroup_of(container), history)
        if self._task is None:
            self._task = self._core.spawn(self._run(), "usage samples")

    def ended(self, container: Container) -> None:
        """It runs no more; what was seen stays."""
        if self._gauges.pop(container.id, None) is not None and container.history is not None:
            self._keep(container, container.history.close)

    def look(self, container: Container) -> History:
        """Its history; from now on, for a while, it is sampled every second."""
        gauge = self._gauges.get(container.id)
        if gauge is not None:
            now = asyncio.get_running_loop().time()
            gauge.watched_until = now + _WATCHED
            gauge.interval, gauge.due = FINE, min(gauge.due, now + FINE)
        if container.history is None:
            container.history = History(self._core.paths.container(container.id).stats)
        return container.history

    def past(self, container: Container) -> api.Stats | None:
        """What was seen of it last; None right after its start."""
        gauge = self._gauges.get(container.id)
        if gauge is None or gauge.last is None:
            return None
        return past(gauge.wall, gauge.last.cpu, gauge.system, self._core.cpus)

    # --- sampling ---------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._gauges:
                await asyncio.sleep(FINE)
                now = loop.time()
                due = [gauge for gauge in self._gauges.values() if gauge.due <= now]
                if due:
                    traffic, system = interface_bytes(), system_cpu()
                    for gauge in due:
                        self._sample(gauge, now, traffic)
                        gauge.system, gauge.wall = system, time.time_ns()
        finally:
            self._task = None

    def _sample(self, gauge: Gauge, now: float, interfaces: dict[str, tuple[int, int]]) -> None:
        try:
            seen = self._look(gauge, now)
        except FileNotFoundError:
            return                      # it has just ended: its end is told in a moment
        traffic = self._traffic(gauge.container, interfaces)
        before, seconds = gauge.last, now - gauge.at
        gauge.last, gauge.at = seen, now
        received, sent = (max(0, a - b) for a, b in zip(traffic, gauge.traffic, strict=True))
        gauge.traffic = traffic
        if before is None:
            gauge.due = now + FINE / 2
            return
        cpu = max(0, seen.cpu - before.cpu) / seconds / 1e7
        row = Row(time.time(), cpu, seen.memory, received / seconds, sent / seconds,
                  max(0, seen.read - before.read) / seconds, max(0, seen.written - before.written) / seconds, seen.pids)
        self._keep(gauge.container, lambda: gauge.history.add(row))
        idle = cpu < _IDLE and gauge.watched_until < now
        gauge.interval = min(gauge.interval * 2, COARSE) if idle else FINE
        gauge.due = now + gauge.interval - FINE / 2        # half a step early: the next tick shall not miss it

    @staticmethod
    def _look(gauge: Gauge, now: float) -> Usage:
        """A sample; of one that has not run since the last, all but its processor time is taken as it was."""
        cpu, last = cpu_time(gauge.cgroup), gauge.last
        if last is not None and gauge.watched_until < now and gauge.skipped < _SKIPS and (
                cpu - last.cpu < _IDLE * 1e7 * (now - gauge.at)):
            gauge.skipped += 1
            return replace(last, cpu=cpu)
        gauge.skipped = 0
        return usage(gauge.cgroup)

    @staticmethod
    def _traffic(container: Container, interfaces: dict[str, tuple[int, int]]) -> tuple[int, int]:
        """Bytes received and sent on all of its interfaces. The host's end of a pair counts the other way round."""
        ends = [interfaces.get(one.host_interface, (0, 0)) for one in container.status.endpoints if one.host_interface]
        return sum(out for _, out in ends), sum(into for into, _ in ends)

    @staticmethod
    def _keep(container: Container, write: Callable[[], None]) -> None:
        """A full disk costs history, nothing else."""
        try:
            write()
        except OSError as error:
            log.warning("the usage history of %s could not be written: %s", container.name, error.strerror)


def interface_bytes() -> dict[str, tuple[int, int]]:
    """Interface -> bytes received and sent, of all of the host's network namespace, from one file (proc_net(5))."""
    found = {}
    with open("/proc/net/dev", encoding="ascii", errors="replace") as file:
        for line in file.readlines()[2:]:
            name, _, rest = line.partition(":")
            fields = rest.split()
            found[name.strip()] = int(fields[0]), int(fields[8])
    return found
