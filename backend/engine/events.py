"""What happens in the engine, told to whoever listens. A listener that is too slow is cut off, never waited for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping

from backend.engine.clock import SECOND
from backend.spec import api
from backend.spec.filters import Filters

HISTORY = 256
QUEUE = 4096
FILTER_KEYS = frozenset({"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
                         "scope", "secret", "service", "type", "volume"})
#: Actions that carry details after a colon (`exec_create: ls -l`): a filter names them without.
_DETAILED = ("exec_create", "exec_start", "exec_die", "health_status")


class Subscription:
    """One listener: iterate over it. It ends at `until`, on `close()`, and when it falls too far behind."""

    def __init__(self, bus: EventBus, past: list[api.Event], filters: Filters, until: int) -> None:
        self._bus = bus
        self._filters = filters
        self._until = until
        self._queue: asyncio.Queue[api.Event | None] = asyncio.Queue(QUEUE + 1)
        for event in past:
            self._queue.put_nowait(event)
        self._closed = bool(until) and until <= time.time_ns()
        if self._closed:
            self._queue.put_nowait(None)

    def offer(self, event: api.Event) -> None:
        """Queue *event* if it is wanted. Called by the bus."""
        if self._closed or not wanted(event, self._filters):
            return
        if self._queue.qsize() >= QUEUE:
            self.close()
            return
        self._queue.put_nowait(event)

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._bus.drop(self)
        if not self._closed:
            self._closed = True
            self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[api.Event]:
        return self

    async def __anext__(self) -> api.Event:
        if self._closed and self._queue.empty():
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._remaining()):
                event = await self._queue.get()
        except TimeoutError:
            event = None
        if event is None:
            self._bus.drop(self)
            raise StopAsyncIteration
        return event

    def _remaining(self) -> float | None:
        return max(0.0, (self._until - time.time_ns()) / SECOND) if self._until else None


class EventBus:
    """All events of this engine, and the last `HISTORY` of them for those who ask `since`."""

    def __init__(self) -> None:
        self._history: deque[api.Event] = deque(maxlen=HISTORY)
        self._listeners: set[Subscription] = set()

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def publish(self, kind: str, action: str, identity: str, attributes: Mapping[str, str] | None = None, *,
                image: str = "") -> None:
        """Tell of *action* on the object *identity* of *kind* (container, image, network, volume, builder, daemon)."""
        now = time.time_ns()
        event = api.Event(type=kind, action=action, actor=api.Actor(id=identity, attributes=dict(attributes or {})),
                          time=now // SECOND, time_nano=now)
        if kind in ("container", "image"):      # the old form, which docker-py and docker-compose 1 read
            event.status, event.id = action, identity
            if image:
                event.from_ = image
        self._history.append(event)
        for listener in list(self._listeners):
            listener.offer(event)

    def subscribe(self, since: int = 0, until: int = 0, filters: Filters | None = None) -> Subscription:
        """Events from *since* (0 = from now on) to *until* (0 = for ever), both ns since the epoch."""
        chosen = filters or Filters()
        chosen.check(FILTER_KEYS)
        past = [event for event in self._history if since and event.time_nano >= since
                and (not until or event.time_nano <= until) and wanted(event, chosen)]
        made = Subscription(self, past, chosen, until)
        if not until or until > time.time_ns():
            self._listeners.add(made)
        return made

    def drop(self, listener: Subscription) -> None:
        """Forget a listener."""
        self._listeners.discard(listener)

    def close(self) -> None:
        """End all listeners."""
        for listener in list(self._listeners):
            listener.close()


def wanted(event: api.Event, filters: Filters) -> bool:
    """Whether *filters* (Docker's rules for events) let *event* through."""
    if not filters:
        return True
    attributes = event.actor.attributes
    action = event.action.split(":", 1)[0] if event.action.startswith(_DETAILED) else event.action
    if not (filters.any_of("event", (action, event.action)) and filters.exact("type", event.type)
            and filters.exact("scope", event.scope) and filters.labels(attributes)):
        return False
    for kind in ("container", "volume", "network", "plugin", "daemon", "service", "node", "secret", "config"):
        if kind in filters and not _names(event, kind, filters.get(kind)):
            return False
    return "image" not in filters or _image(event, filters.get("image"))


def _names(event: api.Event, kind: str, wanted_names: tuple[str, ...]) -> bool:
    """Docker matches an object by its ID, a prefix of it, or its name."""
    if event.type == kind:
        name = event.actor.attributes.get("name", "")
        return any(event.actor.id.startswith(one) or name == one.removeprefix("/") for one in wanted_names if one)
    return False


def _image(event: api.Event, wanted_names: tuple[str, ...]) -> bool:
    if event.type not in ("image", "container"):
        return False
    names = {event.actor.attributes.get("image" if event.type == "container" else "name", "")}
    if event.type == "image":
        names.add(event.actor.id)
    names |= {name.rpartition(":")[0] for name in names if ":" in name.rpartition("/")[2]}
    return any(one in names for one in wanted_names)
