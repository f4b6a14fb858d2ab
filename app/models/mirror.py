"""One live copy of the engine's state, fed by one event subscription. No widgets, no polling.

The subscription asks for events from before the lists on: what happens between the two is told twice and costs one
more look, never a missed change. After that an event names what changed, and only that is asked for again. When the
helper goes away the copy stays as it was (the window says so), and everything is compared again when it comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection
from typing import Literal

from PySide6.QtCore import QObject, Signal

from app import collector
from app.models.containers import ContainerTable
from app.models.images import ImageTable
from app.models.networks import NetworkTable, network_row
from app.models.problems import Problem, engine_away
from app.models.rows import Usage, container_row, image_rows, stack_rows, usage
from app.models.stacks import StackTable
from app.models.streams import reading
from app.models.volumes import VolumeTable, volume_row
from backend.client import Client
from backend.errors import EngineError, NotFound, Unavailable
from backend.spec import api

log = logging.getLogger(__name__)

State = Literal["connecting", "connected", "lost"]
#: How long changes are gathered before they are asked for: one request for a burst, and far below 200 ms.
GATHER = 0.02
#: Waits between attempts to reach a helper that went away, in seconds; the last one is repeated.
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0)
#: Container events after which nothing that a list shows is different.
_SILENT = ("exec_", "attach", "detach", "resize", "top", "export", "archive-path", "copy", "commit")
_USE_EVENTS = frozenset({"create", "destroy", "rename"})


class Mirror(QObject):
    """The engine as the window sees it. `told` passes every event on, for pages that follow one object."""

    state_changed = Signal(str)
    loaded = Signal()
    told = Signal(object)
    usage_batch = Signal(object)
    lists_known = Signal()

    def __init__(self, client: Client, host: str) -> None:
        super().__init__()
        self.client = client
        self.host = host
        self.state: State = "connecting"
        self.problem: Problem | None = None
        self.version = ""
        self.is_slipway = False
        self.is_loaded = False
        self.requests = 0
        self.containers, self.images, self.stacks = ContainerTable(), ImageTable(), StackTable()
        self.networks, self.volumes = NetworkTable(), VolumeTable()
        self._followed: set[str] = {"image"}
        self.known: set[str] = set()  # lists that have been read at least once
        self._main: asyncio.Task[None] | None = None
        self._dirty: set[str] = set()
        self._lists: set[str] = set()
        self._gather: asyncio.Task[None] | None = None
        self._stats_on = False
        self._stats_only: Collection[str] | None = None
        self._stats: dict[str, asyncio.Task[None]] = {}
        self._fresh: dict[str, Usage] = {}
        self._flush: asyncio.TimerHandle | None = None

    # --- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow the engine."""
        self._main = asyncio.ensure_future(self._follow())

    async def stop(self) -> None:
        """Stop following."""
        self.watch_stats(False)
        tasks = [task for task in (self._main, self._gather) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        attempt = 0
        while True:
            error: BaseException | None = None
            since = f"{time.time():.9f}"
            try:
                async with reading(self.client.events(since=since)) as events:
                    attempt = await self._live(events, attempt)
            except (EngineError, OSError, TimeoutError) as caught:
                error = caught
            log.info("the engine is away: %r", error)
            self._lost(error)
            await asyncio.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
            attempt += 1

    async def _live(self, events: AsyncIterator[api.Event], attempt: int) -> int:
        """Follow one subscription to its end. Resets the count of attempts once the lists have come."""
        # Its first item is awaited in a task, so that the subscription goes out together with the lists.
        first = asyncio.ensure_future(anext(events, None))
        try:
            await self.resync()
            self._set_state("connected")
            attempt = 0
            event = await first
            while event is not None:
                self._take(event)
                event = await anext(events, None)
        finally:
            # Cancelled, or failed just as the lists did: in both cases there is nothing more to tell of it.
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        return attempt

    def _set_state(self, state: State) -> None:
        if state == "connected":
            self.problem = None
        if state != self.state:
            self.state = state
            self.state_changed.emit(state)

    def _lost(self, error: BaseException | None) -> None:
        self.problem = engine_away(self.host, error)
        for task in self._stats.values():
            task.cancel()
        self._stats.clear()
        was = self.state
        self.state = "lost"
        if was != "lost":
            self.state_changed.emit("lost")

    # --- lists -----------------------------------------------------------------------------------------------------

    async def resync(self) -> None:
        """Ask for everything and take over what is different."""
        containers, images = await asyncio.gather(self.client.list_containers(all=True), self.client.list_images())
        self.requests += 2
        self.containers.sync((view.id, container_row(view)) for view in containers)
        self._take_images(images)
        self._after_containers()
        await self._read_lists(self._followed - {"image"})
        if not self.version:
            said = await self.client.version()
            self.version, self.is_slipway = said.version, said.platform.name == "Slipway"
        if not self.is_loaded:
            self.is_loaded = True
            self.loaded.emit()

    def _take_images(self, images: list[api.ImageSummary]) -> None:
        users: dict[str, list[str]] = {}
        for one in self.containers.rows():
            users.setdefault(one.image_id, []).append(one.name)
        rows = [row for view in images for row in image_rows(view, tuple(sorted(users.get(view.id, ()))))]
        self.images.sync((row.key, row) for row in rows)

    def _after_containers(self) -> None:
        self.stacks.sync((row.name, row) for row in stack_rows(self.containers.rows()))
        self._match_stats()

    # --- events ----------------------------------------------------------------------------------------------------

    def _take(self, event: api.Event) -> None:
        self.told.emit(event)
        if event.type == "container":
            if event.action.startswith(_SILENT):
                return
            if event.action == "destroy":
                self._dirty.discard(event.actor.id)
                self.containers.remove(event.actor.id)
                self._after_containers()
            else:
                self._dirty.add(event.actor.id)
            if event.action in _USE_EVENTS:
                self._lists |= {"image", "volume"} & self._followed
        elif event.type == "network" and (container := event.actor.attributes.get("container")):
            self._dirty.add(container)
        elif event.type in self._followed:
            self._lists.add(event.type)
        self._look_soon()

    def _look_soon(self) -> None:
        if (self._dirty or self._lists) and (self._gather is None or self._gather.done()):
            self._gather = asyncio.ensure_future(self._look())

    def follow(self, *kinds: str) -> None:
        """Keep the list of networks or volumes as well, from now on: pages ask for it when they are first shown."""
        fresh = set(kinds) - self._followed
        self._followed |= fresh
        if self.is_loaded:
            self._lists |= fresh
            self._look_soon()

    async def _look(self) -> None:
        """Ask for what changed, until nothing more has changed meanwhile."""
        while self._dirty or self._lists:
            await asyncio.sleep(GATHER)
            ids, self._dirty = self._dirty, set()
            lists, self._lists = self._lists, set()
            try:
                if ids:
                    await self._look_at(ids)
                await self._read_lists(lists)
            except (Unavailable, OSError, TimeoutError) as error:
                # The subscription notices as well; everything is compared again when the helper is back.
                log.info("could not look at what changed: %r", error)
                return
            finally:
                collector.tidy()

    async def _read_lists(self, kinds: set[str]) -> None:
        self.requests += len(kinds)
        if "image" in kinds:
            self._take_images(await self.client.list_images())
        if "network" in kinds:
            self.networks.sync((one.id, network_row(one)) for one in await self.client.list_networks())
        if "volume" in kinds:
            self.volumes.sync((one.name, volume_row(one)) for one in (await self.client.list_volumes()).volumes)
        if kinds - self.known:
            self.known |= kinds
            self.lists_known.emit()

    async def _look_at(self, ids: set[str]) -> None:
        self.requests += 1
        try:
            views = await self.client.list_containers(all=True, filters={"id": sorted(ids)})
        except NotFound:
            views = []
        for view in views:
            self.containers.upsert(view.id, container_row(view))
        for key in ids - {view.id for view in views}:
            self.containers.remove(key)
        self._after_containers()

    # --- usage -----------------------------------------------------------------------------------------------------

    def watch_stats(self, on: bool, only: Collection[str] | None = None) -> None:
        """Follow what running containers use (while somebody looks), or stop. *only*: those that can be seen."""
        self._stats_on, self._stats_only = on, only
        self._match_stats()

    def _match_stats(self) -> None:
        only = self._stats_only
        wanted = {one.id for one in self.containers.rows() if one.state == "running" and (
            only is None or one.id in only)} if self._stats_on else set()
        for key in set(self._stats) - wanted:
            self._stats.pop(key).cancel()
        for key in wanted - set(self._stats):
            self._stats[key] = asyncio.ensure_future(self._watch(key))

    async def _watch(self, key: str) -> None:
        try:
            async with reading(self.client.stats(key)) as samples:
                async for sample in samples:
                    if (one := usage(sample)) is not None:
                        self._fresh[key] = one
                        if self._flush is None:
                            self._flush = asyncio.get_running_loop().call_later(1.0, self._flush_usage)
        except (EngineError, OSError, TimeoutError) as error:
            log.info("no usage of %s: %r", key[:12], error)

    def _flush_usage(self) -> None:
        self._flush = None
        batch, self._fresh = self._fresh, {}
        self.containers.add_usage(batch)
        self.usage_batch.emit(batch)
        collector.tidy()
