"""The keeper's event loop: epoll, callbacks by descriptor, a few timers. Nothing else, to be read in a minute."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

IN, OUT, HUP, ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR
Handler = Callable[[int], None]


class Loop:
    """One thread, level-triggered. A callback gets the events of its descriptor."""

    def __init__(self, guard: Callable[..., bool]) -> None:
        """*guard* calls its first argument with the others and says whether that went well."""
        self._guard = guard
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._handlers: dict[int, Handler] = {}
        self._masks: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.running = True

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        """Calls *handler* when *fd* has one of *mask* (hang-up and error always)."""
        if fd in self._handlers:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._handlers[fd], self._masks[fd] = handler, mask

    def set_mask(self, fd: int, mask: int) -> None:
        """Changes what is waited for; no call if it is the same."""
        if self._masks.get(fd, mask) != mask:
            self._epoll.modify(fd, mask)
            self._masks[fd] = mask

    def forget(self, fd: int) -> None:
        """Stops watching; to be called before *fd* is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._masks.pop(fd, None)
            self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls once after *seconds*."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), call))

    def _timeout(self) -> float:
        return max(self._timers[0][0] - time.monotonic(), 0) if self._timers else -1

    def run(self) -> None:
        """Until :attr:`running` is cleared."""
        while self.running:
            for fd, events in self._epoll.poll(self._timeout()):
                # An earlier callback of this round may have closed the descriptor.
                handler = self._handlers.get(fd)
                if handler is not None and not self._guard(handler, events):
                    self.forget(fd)  # it would be called for the same event for ever
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._guard(heapq.heappop(self._timers)[2])
