"""Network namespaces made ahead: with a device on the default bridge, an address and routes, so that a start finds all
that ready (it would otherwise cost 2 to 4 ms of kernel work).

They are made in a thread of their own, one after the other; the kernel serialises such changes anyway.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from backend.network.records import Endpoint

log = logging.getLogger(__name__)

_PAUSE = 0.03       # seconds after a take, so that the start that took is not delayed by the refill
_RETRY = 5.0        # seconds after a failure


@dataclass(frozen=True, slots=True)
class Prepared:
    """A namespace with a device on a network; the endpoint has no container yet."""

    netns: int
    endpoint: Endpoint


def identity(netns: int) -> int:
    """The inode of a namespace: descriptor numbers are used again, inodes not as long as the namespace lives."""
    return os.fstat(netns).st_ino


class SandboxPool:
    """Keeps *size* namespaces ready. *fresh* makes empty ones, *lease* finds an address, *furnish* makes the device (in
    the pool's thread), *discard* takes an address back."""

    def __init__(self, size: int, *, fresh: Callable[[int], Awaitable[list[int]]], lease: Callable[[], Endpoint],
                 furnish: Callable[[int, Endpoint], Endpoint], discard: Callable[[Endpoint], None]) -> None:
        self._size, self._fresh, self._lease, self._furnish, self._discard = size, fresh, lease, furnish, discard
        self._ready: deque[Prepared] = deque()
        self._maker = ThreadPoolExecutor(1, "network-ahead")
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to fill."""
        if self._size and self._refill is None and not self._closed:
            self._refill = asyncio.get_running_loop().create_task(self._fill())
            self._refill.add_done_callback(self._filled)

    def take(self) -> Prepared | None:
        """The oldest one, which becomes the caller's; None if all are gone."""
        taken = self._ready.popleft() if self._ready else None
        self.start()
        return taken

    async def filled(self) -> None:
        """Wait until the refill under way has ended."""
        if self._refill is not None:
            await asyncio.wait([self._refill])

    async def _fill(self) -> None:
        await asyncio.sleep(_PAUSE)
        while len(self._ready) < self._size and not self._closed:
            made = deque(await self._fresh(self._size - len(self._ready)))
            try:
                while made and not self._closed:
                    self._ready.append(await self._make(made[0]))
                    made.popleft()
            finally:
                for netns in made:
                    os.close(netns)

    async def _make(self, netns: int) -> Prepared:
        endpoint = self._lease()
        try:
            work = asyncio.get_running_loop().run_in_executor(self._maker, self._furnish, netns, endpoint)
            return Prepared(netns, await work)
        except BaseException:
            self._discard(endpoint)
            raise

    def _filled(self, task: asyncio.Task[None]) -> None:
        self._refill = None
        if not task.cancelled() and task.exception() is not None and not self._closed:
            # Without it starts are slower, nothing else.
            log.warning("no network namespaces are made ahead for now: %s", task.exception())
            asyncio.get_running_loop().call_later(_RETRY, self.start)

    async def close(self) -> None:
        """Let all go; their devices vanish with them."""
        self._closed = True
        await self.filled()
        while self._ready:
            prepared = self._ready.popleft()
            os.close(prepared.netns)
            self._discard(prepared.endpoint)
        await asyncio.to_thread(self._maker.shutdown)
