"""A container in the engine's memory, and the table of all of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.engine.names import check_name, random_name
from backend.engine.record import ContainerRecord, MountRecord, Status
from backend.errors import Conflict, InvalidArgument, NotFound
from backend.spec import api

if TYPE_CHECKING:
    from backend.engine.execs import Exec
    from backend.engine.health import Monitor
    from backend.engine.history import History
    from backend.runtime.cgroups import Cgroup
    from backend.runtime.client import Exit

CONDITIONS = ("", "not-running", "next-exit", "removed")


class Waiter:
    """Someone who waits for a container. It is registered from the moment it is made."""

    def __init__(self, container: Container, condition: str) -> None:
        self.condition = condition
        self._container = container
        self._future: asyncio.Future[api.WaitResult] = asyncio.get_running_loop().create_future()
        if condition in ("", "not-running") and not container.status.active and container.status.state != "restarting":
            self.answer(container.status, why=container.status.error)
        else:
            container.waiters.add(self)

    def answer(self, status: Status, why: str = "") -> None:
        """Tell the exit code, and *why* there is none of a program's own. Who waited while the start failed has heard
        that from the start."""
        if not self._future.done():
            error = api.WaitError(message=why) if why else api.UNSET
            self._future.set_result(api.WaitResult(status_code=status.exit_code, error=error))

    async def result(self) -> api.WaitResult:
        """The exit code, once the condition holds. Cancelling it ends the wait."""
        try:
            return await self._future
        finally:
            self._container.waiters.discard(self)


@dataclass(slots=True, eq=False)
class PendingAttach:
    """An attach that came before the start: the keeper gets `peer` as soon as it knows the container."""

    peer: socket.socket
    stdin: bool
    stdout: bool
    stderr: bool


@dataclass(slots=True, eq=False)
class Container:
    """One container. `lock` is held by whatever changes its life (start, remove, connect ...), never while waiting
    for its process to end."""

    record: ContainerRecord
    status: Status
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiters: set[Waiter] = field(default_factory=set)
    pending: list[PendingAttach] = field(default_factory=list)
    execs: dict[str, Exec] = field(default_factory=dict)
    used: bool = False                    # the keeper, the network or the image store hold something for it
    starting: bool = False
    early_exit: Exit | None = None        # it ended before the start's own answer was seen
    stopping: bool = False                # a stop is under way: its exit is no reason to restart
    hushed: bool = False                  # no restart after the next exit (restart, shutdown)
    removed: bool = False
    holds: int = 0                        # copies of its files that are under way and have it paused
    failures: int = 0                     # restarts since it last ran for a while: the back-off
    restart_timer: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    cgroup: Cgroup | None = None
    history: History | None = None
    health: Monitor | None = None

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self.record.id

    @property
    def name(self) -> str:
        """Without the slash."""
        return self.record.name

    @property
    def hostname(self) -> str:
        """The name that it calls itself."""
        return self.record.config.hostname

    def answer_waiters(self, *conditions: str) -> None:
        """Tell the exit code to those who wait for one of *conditions*."""
        for waiter in list(self.waiters):
            if waiter.condition in conditions:
                waiter.answer(self.status)

    def drop_pending(self) -> None:
        """End attaches whose start did not come."""
        for one in self.pending:
            one.peer.close()
        self.pending.clear()

    def attributes(self, **more: str) -> dict[str, str]:
        """The attributes of its events: its labels, image and name, and *more*."""
        return {**self.record.config.labels, "image": self.record.image_name, "name": self.name, **more}


class Table:
    """All containers, by ID and name."""

    def __init__(self) -> None:
        self._by_id: dict[str, Container] = {}
        self._names: dict[str, str] = {}      # name -> ID; "" while a create is under way

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def by_id(self, identity: str) -> Container | None:
        """The container with exactly this ID."""
        return self._by_id.get(identity)

    def get(self, ref: str) -> Container:
        """By ID, name, or unique beginning of an ID. Raises :class:`NotFound` in the words that clients match."""
        name = ref.removeprefix("/")
        found = self._by_id.get(ref) or self._by_id.get(self._names.get(name, ""))
        if found is None and name:
            matches = [one for identity, one in self._by_id.items() if identity.startswith(name)]
            if len(matches) > 1:
                raise InvalidArgument(f"multiple IDs found with provided prefix: {name}")
            found = matches[0] if matches else None
        if found is None:
            raise NotFound(f"No such container: {ref}")
        return found

    def claim(self, name: str, identity: str) -> str:
        """Reserve *name* ("" = a random one) for a container. Raises :class:`Conflict` with the text clients match."""
        if not name:
            name = random_name(self._names)
        name = check_name(name)
        owner = self._names.get(name)
        if owner is not None:
            raise Conflict(f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
                           "You have to remove (or rename) that container to be able to reuse that name.")
        self._names[name] = identity
        return name

    def unclaim(self, name: str) -> None:
        """Free a name."""
        self._names.pop(name, None)

    def add(self, container: Container) -> None:
        """Enter a container."""
        self._by_id[container.id] = container
        self._names[container.name] = container.id

    def drop(self, container: Container) -> None:
        """Take a container out."""
        self._by_id.pop(container.id, None)
        if self._names.get(container.name) == container.id:
            del self._names[container.name]

    def users_of_volume(self, name: str) -> list[Container]:
        """The containers that mount a volume, running or not."""
        return [one for one in self._by_id.values()
                if any(mount.kind == "volume" and mount.volume == name for mount in one.record.mounts)]

    def mounts_of(self, ref: str) -> tuple[MountRecord, ...]:
        """The mounts of another container, for --volumes-from. Raises :class:`InvalidArgument`: clients read a "not
        found" of a create as one of its image."""
        try:
            return self.get(ref).record.mounts
        except NotFound as error:
            raise InvalidArgument(error.message) from error
