"""Follows a container's log, over ends, restarts and a helper that goes away, without a line twice."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime

from app.models.mirror import Mirror
from app.models.streams import reading
from backend.errors import EngineError, NotFound, NotModified

TAIL = 10_000
_STAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\S+) ", re.MULTILINE)


class LogFeed:
    """Gives chunks to *sink* (bytes, is it stderr) and tells *ended* whether more may come now."""

    def __init__(self, mirror: Mirror, key: str, sink: Callable[[bytes, bool], None],
                 ended: Callable[[bool], None]) -> None:
        self.mirror, self.key, self.sink, self.ended = mirror, key, sink, ended
        self._last = b""
        self._wake = asyncio.Event()
        mirror.containers.dataChanged.connect(self._changed)
        mirror.state_changed.connect(self._changed)

    def close(self) -> None:
        """Listen no more."""
        self.mirror.containers.dataChanged.disconnect(self._changed)
        self.mirror.state_changed.disconnect(self._changed)

    def _changed(self, *_: object) -> None:
        row = self.mirror.containers.get(self.key)
        if self.mirror.state == "connected" and row is not None and row.running:
            self._wake.set()

    async def run(self) -> None:
        """Follow until the container is gone or the task is cancelled. An error at the start is raised."""
        first = True
        while True:
            try:
                self._wake.clear()
                await self._follow(first)
            except NotFound:
                if first:
                    raise
                return
            except (EngineError, OSError) as error:
                # The mirror says that the helper is away; the log goes on when it is back.
                if first and not isinstance(error, NotModified):
                    raise
            first = False
            self.ended(True)
            await self._wake.wait()
            self.ended(False)

    async def _follow(self, first: bool) -> None:
        since = self._since()
        tail = TAIL if first else None
        stream = self.mirror.client.logs(self.key, follow=True, timestamps=True, tail=tail, since=since)
        async with reading(stream) as chunks:
            async for number, data in chunks:
                data = self._skip(data) if since else data
                if stamp := (_STAMP.match(data[data.rfind(b"\n", 0, len(data) - 1) + 1:]) or _STAMP.match(data)):
                    self._last = max(self._last, stamp.group(1))
                if data:
                    self.sink(data, number == 2)

    def _since(self) -> str | None:
        """The last line's time, in the form that the API takes: seconds, a dot, nanoseconds."""
        if not self._last:
            return None
        whole, _, fraction = self._last.decode().rstrip("Z").partition(".")
        return f"{int(datetime.fromisoformat(f'{whole}+00:00').timestamp())}.{fraction:0<9}"

    def _skip(self, data: bytes) -> bytes:
        """Without the lines that came before the stream was lost."""
        kept = [line for line in data.splitlines(keepends=True)
                if not (stamp := _STAMP.match(line)) or stamp.group(1) > self._last]
        return b"".join(kept)
