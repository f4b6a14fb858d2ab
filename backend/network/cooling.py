"""Addresses of containers that have ended, until their devices are gone.

The kernel dismantles a network namespace some 20 ms after its last user; until then the old stack still answers for its
address. A device that stays longer, because something else holds the namespace, is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from backend.network.records import Endpoint

_FIRST, _SLOWEST, _PATIENCE = 0.05, 1.0, 3.0      # seconds
_UNSEEN = 0.5                                     # seconds


@dataclass(slots=True)
class _Left:
    endpoint: Endpoint
    since: float
    forced: bool = False


class Cooling:
    """Looks after released endpoints. *present* tells which devices exist, *settled* is told of an endpoint whose
    device is gone, *force* deletes a device in the background. Of a device without an end on the host nothing can be
    seen; it gets a fixed time."""

    def __init__(self, present: Callable[[Iterable[str]], set[str]], settled: Callable[[Endpoint], None],
                 force: Callable[[str], object]) -> None:
        self._present, self._settled, self._force = present, settled, force
        self._waiting: dict[str, _Left] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, endpoint: Endpoint) -> None:
        """The endpoint's container has ended."""
        if not endpoint.host_interface:
            asyncio.get_running_loop().call_later(_UNSEEN, self._settled, endpoint)
            return
        self._waiting[endpoint.host_interface] = _Left(endpoint, asyncio.get_running_loop().time())
        self._watch(_FIRST)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()

    def _watch(self, delay: float) -> None:
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._look, delay)

    def _look(self, delay: float) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        present = self._present(self._waiting)
        for name, left in list(self._waiting.items()):
            if name not in present:
                del self._waiting[name]
                self._settled(left.endpoint)
            elif now - left.since > _PATIENCE and not left.forced:
                left.forced = True
                self._force(name)
        self._watch(min(delay * 2, _SLOWEST))
