"""The helper's end of a log."""

from __future__ import annotations

import os
from collections.abc import Iterator

from backend.logs import chunks
from backend.logs.chunks import Position
from backend.logs.jsonfile import JSON_NAME, JsonReader
from backend.logs.lines import Chunk, Lines, Run


class LogReader:
    """Reads a log's directory, whatever driver wrote it.

    :meth:`read` gives what is there. To follow: keep one reader, call :meth:`read` with ``follow=True`` first (an
    unfinished line is then kept back), and :meth:`more` whenever the keeper says that the log has grown;
    :meth:`finish` at the end of the container gives the unfinished line. Reading blocks on the disk.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._streams: frozenset[int] = frozenset((1, 2))
        self._since = self._until = 0
        self._source: _ChunkReader | JsonReader | None = None
        self.past_until = False
        """Whether what came last was later than *until*: nothing that is asked for comes any more."""

    def close(self) -> None:
        """Closes the files."""
        if self._source is not None:
            self._source.close()

    def read(
        self,
        tail: int | None = None,
        since: int = 0,
        until: int = 0,
        stdout: bool = True,
        stderr: bool = True,
        *,
        follow: bool = False,
    ) -> Iterator[Run]:
        """The lines of the streams asked for, from *since* up to *until* (ns, 0 = no bound).

        *tail* counts as Docker's does: the last so many lines of both streams together (None: all), of which those
        that the other arguments leave out are then left out. A clock that was set back ends a search for *since*.
        """
        self._streams = frozenset(n for n, on in ((1, stdout), (2, stderr)) if on)
        self._since, self._until = since, until
        source = self._found()
        if source is None:
            return
        source.open(tail, since, unfinished=not follow)
        yield from self._wanted(source.runs())
        if not follow and not self.past_until and isinstance(source, _ChunkReader):
            yield from self._wanted(source.rest())

    def _found(self) -> _ChunkReader | JsonReader | None:
        """The source of whichever files are there; a follower may come before they are."""
        if self._source is None:
            if os.path.exists(f"{self._directory}/{JSON_NAME}"):
                self._source = JsonReader(self._directory)
            elif chunks.files(self._directory):
                self._source = _ChunkReader(self._directory)
        return self._source

    def _wanted(self, runs: Iterator[Run]) -> Iterator[Run]:
        for run in runs:
            if self._until and run.time_ns > self._until:
                self.past_until = True
                return
            if run.stream in self._streams and (chosen := run.within(self._since, self._until)):
                yield chosen

    def more(self) -> Iterator[Run]:
        """What has come since, for a follower."""
        source = self._found()
        if source is not None and not self.past_until:
            yield from self._wanted(source.runs())

    def finish(self) -> Iterator[Run]:
        """The same and the last, unfinished lines, once nothing more can come."""
        yield from self.more()
        if isinstance(self._source, _ChunkReader) and not self.past_until:
            yield from self._wanted(self._source.rest())


class _ChunkReader:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lines = Lines()
        self._fd = -1
        self._position = Position(0, 0)
        self._skip = 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def rest(self) -> Iterator[Run]:
        return self._skipping(self._lines.rest())

    def runs(self) -> Iterator[Run]:
        return self._skipping(run for chunk in self._chunks() for run in self._lines.feed(chunk))

    def _skipping(self, runs: Iterator[Run]) -> Iterator[Run]:
        """Without what is before the tail."""
        for run in runs:
            if self._skip >= len(run.lines):
                self._skip -= len(run.lines)
                continue
            yield run.after(self._skip) if self._skip else run
            self._skip = 0

    # --- where to begin ---------------------------------------------------------------------------------------------
    def open(self, tail: int | None, since: int, *, unfinished: bool) -> None:
        """Goes to where the last *tail* lines begin, or those from *since* on. *unfinished*: such a line counts."""
        numbers = chunks.files(self._directory)
        if not numbers:
            return
        self._position = Position(numbers[0], 0)
        if tail == 0:
            self._go_back(numbers[-1:], chunks.Backward(0))
        elif tail is not None or since:
            self._go_back(numbers, chunks.Backward(None if tail is None else tail + 1, since))
        if tail and self._fd >= 0:
            self._skip = max(self._count(unfinished) - tail, 0)

    def _go_back(self, numbers: list[int], back: chunks.Backward) -> None:
        for number in reversed(numbers):
            try:
                fd = os.open(chunks.path(self._directory, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return  # rotated away, with all before it
            self.close()
            self._fd = fd
            self._position = Position(number, back.walk(fd, chunks.valid_end(fd, os.fstat(fd).st_size)))
            if back.enough:
                return

    def _count(self, unfinished: bool) -> int:
        """How many lines there are from here on."""
        probe = _ChunkReader(self._directory)
        probe._position, probe._fd = self._position, os.dup(self._fd)
        try:
            count = sum(len(run.lines) for run in probe.runs())
            return count + (sum(len(run.lines) for run in probe.rest()) if unfinished else 0)
        finally:
            probe.close()

    # --- from there on ----------------------------------------------------------------------------------------------
    def _chunks(self) -> Iterator[Chunk]:
        while True:
            if self._fd < 0 and not self._open_next():
                return
            yield from self._file()
            if chunks.is_last(self._directory, self._position.file, self._fd):
                return
            following = [n for n in chunks.files(self._directory) if n > self._position.file]
            if not following:
                return
            yield from self._file()  # the next file exists, so this one has got its last record: look once more
            self.close()
            self._position = Position(following[0], 0)

    def _file(self) -> Iterator[Chunk]:
        for offset, chunk in chunks.chunks(self._fd, self._position.offset):
            self._position = Position(self._position.file, offset)
            yield chunk

    def _open_next(self) -> bool:
        for number in chunks.files(self._directory):
            if number < self._position.file:
                continue
            try:
                self._fd = os.open(chunks.path(self._directory, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated away between listing and opening
            if number != self._position.file:
                self._position = Position(number, 0)
            return True
        return False
