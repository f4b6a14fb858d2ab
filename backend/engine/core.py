"""What the parts of the engine share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from backend.engine.container import Table
from backend.engine.events import EventBus
from backend.engine.facts import Facts, look
from backend.engine.paths import Paths
from backend.engine.settings import Settings
from backend.engine.state import State
from backend.engine.trust import Trust
from backend.engine.userns import IdRanges
from backend.plugins import Plugins
from backend.volumes.local import VolumeStore
from backend.volumes.remote import RemoteVolumes

if TYPE_CHECKING:
    from backend.images import ImageStore
    from backend.network.manager import NetworkManager
    from backend.runtime.client import Keeper

log = logging.getLogger("slipway.engine")
T = TypeVar("T")


@dataclass(slots=True)
class Core:
    """The open engine's parts, handed to each subsystem. `cpus`: processors of this machine; `memory`: bytes of it."""

    settings: Settings
    paths: Paths
    state: State
    events: EventBus
    table: Table
    keeper: Keeper
    images: ImageStore
    trust: Trust
    networks: NetworkManager
    volumes: VolumeStore
    plugins: Plugins
    plugged: RemoteVolumes
    machine: str
    kernel: tuple[int, int]
    cpus: int
    memory: int
    ids: IdRanges
    facts: Facts = field(default_factory=look)
    closing: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, T], what: str) -> asyncio.Task[T]:
        """Run *work* in the background; a failure of it is logged with *what* it was."""
        task = asyncio.get_running_loop().create_task(work, name=what)
        self.tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def spawn_thread(self, work: Callable[[], None], what: str) -> asyncio.Task[None]:
        """Run blocking *work* in a thread, in the background."""
        return self.spawn(asyncio.to_thread(work), what)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())
