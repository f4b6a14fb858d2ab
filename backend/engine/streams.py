"""What a client gets from a container: an attached session, a log as a stream of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from backend.engine.container import Container
from backend.engine.logchoice import log_details
from backend.engine.logshape import LineShape
from backend.engine.threads import to_the_end
from backend.logs import LogReader, Run
from backend.runtime.client import Keeper, KeeperError

_BATCH = 256 << 10
_FRESH = 64 << 10   # what is read in the loop's thread, at most


@dataclass(frozen=True, slots=True)
class AttachWish:
    """What an attach asks for. `stream` False: only what is in the log (`logs`)."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    stream: bool = True
    logs: bool = False


@dataclass(frozen=True, slots=True)
class LogWish:
    """Which part of a log, and how. `since` and `until`: ns since the epoch, 0 = no bound; `tail` None = all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    tail: int | None = None
    since: int = 0
    until: int = 0
    timestamps: bool = False
    details: bool = False


@dataclass(slots=True)
class Session:
    """An attached client's end. `socket` carries to the client what goes there as it is, and takes stdin; None when
    only the log was asked for. `history` comes first."""

    tty: bool
    socket: socket.socket | None
    history: LogStream | None = None
    _on_close: list[Callable[[], None]] = field(default_factory=list)

    def on_close(self, call: Callable[[], None]) -> None:
        """Have *call* run when the session ends."""
        self._on_close.append(call)

    def close(self) -> None:
        """End it. May be called twice."""
        if self.socket is not None:
            self.socket.close()
        if self.history is not None:
            self.history.close()
        calls, self._on_close = self._on_close, []
        for call in calls:
            call()


class Growth:
    """Tells followers of one container's log that there is more. The keeper is asked only while somebody follows."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._followers: dict[str, set[asyncio.Event]] = {}

    async def join(self, identity: str, event: asyncio.Event) -> None:
        """Have *event* set when the log of *identity* grows."""
        followers = self._followers.setdefault(identity, set())
        followers.add(event)
        if len(followers) == 1:
            await self._watch(identity, lambda: self._grown(identity))

    async def leave(self, identity: str, event: asyncio.Event) -> None:
        """The opposite."""
        followers = self._followers.get(identity, set())
        followers.discard(event)
        if not followers:
            self._followers.pop(identity, None)
            await self._watch(identity, None)

    async def _watch(self, identity: str, call: Callable[[], None] | None) -> None:
        try:
            await self._keeper.watch_log(identity, call)
        except KeeperError as error:
            if error.reason not in ("no_such", "lost"):
                raise

    def _grown(self, identity: str) -> None:
        for event in self._followers.get(identity, ()):
            event.set()


class LogStream:
    """A container's log as bytes ready for the client: Docker's frames, raw for a terminal.

    It is read by the piece as the client takes it: nothing waits in memory for one that is slow. What is on the disk is
    read in threads; what has just been written, and is still in the kernel's memory, is read at once.
    """

    def __init__(self, container: Container, directory: str, wish: LogWish, growth: Growth) -> None:
        self.tty = container.record.config.tty
        self._container = container
        self._wish = wish
        self._growth = growth
        self._reader = LogReader(directory)
        self._shape = LineShape(raw=self.tty, stamps=wish.timestamps,
                                details=log_details(container.record) if wish.details else b"")
        self._iterator = self._run()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._iterator

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()

    async def _run(self) -> AsyncIterator[bytes]:
        wish = self._wish
        try:
            if not (wish.follow and self._alive()):
                async for piece in self._pieces(self._read(follow=False)):
                    yield piece
                return
            async with _Growing(self._growth, self._container) as growing:
                async for piece in self._pieces(self._read(follow=True)):
                    yield piece
                async for piece in self._follow(growing):
                    yield piece
        finally:
            self._reader.close()

    def _read(self, *, follow: bool) -> Iterator[Run]:
        wish = self._wish
        return self._reader.read(wish.tail, wish.since, wish.until, wish.stdout, wish.stderr, follow=follow)

    async def _follow(self, growing: _Growing) -> AsyncIterator[bytes]:
        until = self._wish.until
        over = False
        while not over and not self._reader.past_until:
            over = growing.over or not self._alive() or bool(until and time.time_ns() > until)
            growing.event.clear()
            runs = self._reader.finish() if over else self._reader.more()
            fresh, more = self._piece(runs, _FRESH)
            if fresh:
                yield fresh
            if more:
                async for piece in self._pieces(runs):
                    yield piece
            if not over:
                await growing.wait(until)

    def _alive(self) -> bool:
        return self._container.status.active or self._container.starting

    async def _pieces(self, runs: Iterator[Run]) -> AsyncIterator[bytes]:
        """Lines put together to pieces worth sending, in threads."""
        more = True
        while more:
            piece, more = await to_the_end(self._piece, runs, _BATCH)
            if piece:
                yield piece

    def _piece(self, runs: Iterator[Run], limit: int) -> tuple[bytes, bool]:
        """(at least *limit* bytes, True), or what is left of *runs* and False."""
        parts: list[bytes] = []
        size = 0
        for run in runs:
            parts += self._shape.parts(run)
            size += sum(map(len, run.lines))
            if size >= limit:
                return b"".join(parts), True
        return b"".join(parts), False


class _Growing:
    """Tells one follower that the log has grown or the container has ended."""

    def __init__(self, growth: Growth, container: Container) -> None:
        self._growth = growth
        self._container = container
        self._ending: asyncio.Task[None] | None = None
        self.event = asyncio.Event()
        self.over = False

    async def __aenter__(self) -> _Growing:
        self._ending = asyncio.ensure_future(self._end())
        await self._growth.join(self._container.id, self.event)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ending is not None:
            self._ending.cancel()
        await self._growth.leave(self._container.id, self.event)

    async def _end(self) -> None:
        await self._container.ended.wait()
        self.over = True
        self.event.set()

    async def wait(self, until: int) -> None:
        """Until one of both, or the time *until* (ns; 0: for ever)."""
        if not until:
            await self.event.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.event.wait(), max((until - time.time_ns()) / 1e9, 0))
