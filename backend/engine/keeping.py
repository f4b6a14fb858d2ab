"""Brings a new keeper up when the old one is gone, and takes in what happened meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from backend.engine.container import Container
from backend.engine.core import Core, log
from backend.engine.life import Life
from backend.engine.restore import UNKNOWN_EXIT, end_orphan, sweep_cgroups
from backend.runtime.client import Exit, Keeper, KeeperContainer, KeeperError

_FIRST_DELAY, _LONGEST_DELAY = 0.05, 30.0


class Keeping:
    """The engine's care for its keeper. The containers run on in any case; what waits is the news of them."""

    def __init__(self, core: Core, life: Life) -> None:
        self._core = core
        self._life = life
        self._replacing: asyncio.Task[None] | None = None
        self._settled = False          # the engine knows its containers
        self._replaced_early = False   # a keeper was lost before that

    def lost(self) -> None:
        """The keeper has gone without having been asked to."""
        if self._core.closing or (self._replacing is not None and not self._replacing.done()):
            return
        log.error("the keeper is gone; its containers run on, and a new one takes them over")
        self._replacing = self._core.spawn(self._replace(), "replacement of the keeper")

    async def _replace(self) -> None:
        core, delay = self._core, _FIRST_DELAY
        while True:
            try:
                sock = await asyncio.to_thread(Keeper.find_or_start, core.settings.exec_root)
                known = await core.keeper.replace(sock)
                break
            except (KeeperError, OSError) as error:
                log.critical("no new keeper could be had, the next try is in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_DELAY)
        if self._settled:
            self.take_in(known)
        else:                          # a container that is not restored yet would be taken for an orphan
            self._replaced_early = True
        core.keeper.resume()
        log.warning("a new keeper (process %d) has taken %d containers over", core.keeper.pid, len(known))

    async def settle(self) -> None:
        """All containers are restored: from now on what the keeper knows besides is nobody's."""
        self._settled = True
        if self._replaced_early:
            self.take_in(await self._core.keeper.list())

    def take_in(self, known: Sequence[KeeperContainer]) -> None:
        """Brings the engine's picture to what the keeper found."""
        left = {one.id: one for one in known}
        for container in self._core.table:
            self._compare(container, left.pop(container.id, None))
        for orphan in left.values():
            self._core.spawn(end_orphan(self._core, orphan), f"end of {orphan.id[:12]}")
        self._core.spawn_thread(lambda: sweep_cgroups(self._core), "sweep of cgroups")

    def _compare(self, container: Container, seen: KeeperContainer | None) -> None:
        if container.starting:             # the start itself asks what has become of it
            if seen is not None and seen.exit is not None and seen.started_at:
                self._life.exited(seen.exit)
        elif container.status.active:
            if seen is None or seen.status == "stopped":
                end = seen.exit if seen is not None else None
                self._life.exited(end or Exit(container.id, "", UNKNOWN_EXIT, 0, time.time_ns(), oom=False,
                                              known=False))
        elif seen is not None and seen.status == "running":
            self._core.spawn(end_orphan(self._core, seen), f"end of {container.name}")
