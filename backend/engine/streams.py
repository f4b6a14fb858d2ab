"""What a client gets from a container: an attached session, a log as a stream of bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from backend.engine.clock import rfc3339_nano
from backend.engine.container import Container
from backend.logs import LogReader, Record
from backend.runtime.client import Keeper, KeeperError

_HEAD = struct.Struct(">BxxxL")
_BATCH = 64 << 10


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
    """A container's log as bytes ready for the client: Docker's frames, raw for a terminal."""

    def __init__(self, container: Container, directory: str, wish: LogWish, growth: Growth) -> None:
        self.tty = container.record.config.tty
        self._container = container
        self._wish = wish
        self._growth = growth
        self._reader = LogReader(directory)
        self._details = _details(container.record.config.labels, container) if wish.details else b""
        self._iterator = self._run()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._iterator

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()

    async def _run(self) -> AsyncIterator[bytes]:
        wish = self._wish
        follow = wish.follow and self._alive()
        grown = asyncio.Event()
        if follow:
            await self._growth.join(self._container.id, grown)
        try:
            async for chunk in self._batches(self._reader.read(wish.tail, wish.since, wish.until, wish.stdout,
                                                               wish.stderr, follow=follow)):
                yield chunk
            while follow:
                alive = self._alive()
                grown_before = grown.is_set()
                grown.clear()
                async for chunk in self._batches(self._reader.more() if alive else self._reader.finish()):
                    yield chunk
                if not alive:
                    return
                if not grown_before:
                    await self._something(grown)
        finally:
            if follow:
                await self._growth.leave(self._container.id, grown)
            self._reader.close()

    def _alive(self) -> bool:
        return self._container.status.active or self._container.starting

    async def _something(self, grown: asyncio.Event) -> None:
        """Wait until the log has grown or the container has ended."""
        waits = [asyncio.ensure_future(grown.wait()), asyncio.ensure_future(self._container.ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    async def _batches(self, records: Iterator[Record]) -> AsyncIterator[bytes]:
        """Lines put together to pieces worth sending; the loop breathes between them."""
        parts: list[bytes] = []
        size = 0
        for record in records:
            line = self._line(record)
            parts.append(line if self.tty else _HEAD.pack(record.stream, len(line)) + line)
            size += len(line)
            if size >= _BATCH:
                yield b"".join(parts)
                parts, size = [], 0
                await asyncio.sleep(0)
        if parts:
            yield b"".join(parts)

    def _line(self, record: Record) -> bytes:
        if not (self._wish.timestamps or self._details):
            return record.data
        stamp = rfc3339_nano(record.time_ns).encode() + b" " if self._wish.timestamps else b""
        return stamp + self._details + record.data


def _details(labels: Mapping[str, str], container: Container) -> bytes:
    """What `logs --details` puts before each line: the labels and variables that the log options name."""
    options = container.record.host_config.log_config.config
    names = [one for one in options.get("labels", "").split(",") if one]
    found = {name: labels[name] for name in names if name in labels}
    variables = dict(one.partition("=")[::2] for one in container.record.config.env)
    found |= {name: variables[name] for name in options.get("env", "").split(",") if name in variables}
    return (",".join(f"{quote(name)}={quote(value)}" for name, value in sorted(found.items())) + " ").encode()
