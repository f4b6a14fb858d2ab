"""What a container used, over time: the engine's history and live samples in one shape. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import UNSET

from app.models.rows import usage
from backend.spec import api
from backend.spec.api.usage import Usage as History


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment. `at`: seconds since the epoch; `cpu` percent of one processor; `memory` in bytes; rates in bytes a
    second."""

    at: float
    cpu: float
    memory: float
    received: float = 0.0
    sent: float = 0.0
    read: float = 0.0
    written: float = 0.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What the engine counts from the start of a container on."""

    at: float
    received: int
    sent: int
    read: int
    written: int


def past(history: History) -> list[Sample]:
    """The engine's history as samples, oldest first."""
    return [Sample(*row) for row in zip(history.time, history.cpu, history.memory, history.received, history.sent,
                                        history.read, history.written, strict=True)]


def counters(stats: api.Stats, at: float) -> Counters:
    """The counters of a live sample that came at the time *at*."""
    networks = stats.networks.values() if stats.networks is not UNSET else ()
    done = {"read": 0, "write": 0}
    for entry in stats.blkio_stats.io_service_bytes_recursive or ():
        key = entry.op.lower()
        done[key] = done.get(key, 0) + entry.value
    return Counters(at, sum(one.rx_bytes for one in networks), sum(one.tx_bytes for one in networks), done["read"],
                    done["write"])


def live(stats: api.Stats, before: Counters | None, now: Counters) -> Sample | None:
    """A live sample, once there is one before it to compare with."""
    found = usage(stats)
    if found is None or before is None or now.at <= before.at:
        return None
    span = now.at - before.at

    def rate(new: int, old: int) -> float:
        return max(new - old, 0) / span
    return Sample(now.at, found.cpu, found.memory, rate(now.received, before.received), rate(now.sent, before.sent),
                  rate(now.read, before.read), rate(now.written, before.written))


def pieces(times: list[float], gap: float) -> Iterator[range]:
    """The stretches of *times* in which no two neighbours are more than *gap* apart: between them nothing ran."""
    start = 0
    for place in range(1, len(times) + 1):
        if place == len(times) or times[place] - times[place - 1] > gap:
            yield range(start, place)
            start = place
