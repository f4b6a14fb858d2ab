"""Lines out of chunks: the pure part of reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO

MAX_LINE = 1 << 20  # a longer line is given in pieces without a newline


@dataclass(frozen=True, slots=True)
class Record:
    """One line with its newline. *stream*: 1 stdout, 2 stderr; *time_ns*: when its end was read.

    The last line may lack its newline; a line beyond :data:`MAX_LINE` comes in pieces, all but the last without one.
    Times rise from line to line over both streams, so that who was cut off can go on after the last one he has seen.
    """

    time_ns: int
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Lines of one stream that were read together; the time of line n is *time_ns* + n."""

    time_ns: int
    stream: int
    lines: list[bytes]

    def after(self, count: int) -> Run:
        """Without the first *count* lines."""
        return Run(self.time_ns + count, self.stream, self.lines[count:])

    def within(self, since: int, until: int) -> Run | None:
        """The lines from *since* up to *until* (ns; *until* 0: no bound); None if there are none."""
        run = self.after(since - self.time_ns) if since > self.time_ns else self
        if until and run.time_ns + len(run.lines) - 1 > until:
            run = Run(run.time_ns, run.stream, run.lines[: max(until - run.time_ns + 1, 0)])
        return run if run.lines else None


def records(runs: Iterable[Run]) -> Iterator[Record]:
    """The lines one by one."""
    for run in runs:
        for n, line in enumerate(run.lines):
            yield Record(run.time_ns + n, run.stream, line)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read gave. *continues*: it starts in the middle of a line of its stream."""

    time_ns: int
    stream: int
    continues: bool
    data: bytes


class Lines:
    """Puts chunks together to lines, for each stream by itself."""

    def __init__(self) -> None:
        self._held: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._times: dict[int, int] = {1: 0, 2: 0}

    def feed(self, chunk: Chunk) -> Iterator[Run]:
        """The lines that are whole with *chunk*."""
        stream, held = chunk.stream, self._held[chunk.stream]
        if held and not chunk.continues:
            yield self._take(stream)  # an earlier life of the container ended within a line
            held = self._held[stream]
        lines = BytesIO(chunk.data).readlines()
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if held and lines:
            held += lines[0]
            lines[0] = bytes(held)
            held.clear()
        if lines and len(lines[0]) > MAX_LINE:
            long = lines[0]
            for at in range(0, len(long), MAX_LINE):
                yield Run(chunk.time_ns, stream, [long[at : at + MAX_LINE]])
            if len(lines) > 1:
                yield Run(chunk.time_ns + 1, stream, lines[1:])
        elif lines:
            yield Run(chunk.time_ns, stream, lines)
        held += rest
        self._times[stream] = chunk.time_ns + len(lines)
        while len(held) > MAX_LINE:
            yield Run(self._times[stream], stream, [bytes(held[:MAX_LINE])])
            del held[:MAX_LINE]

    def _take(self, stream: int) -> Run:
        run = Run(self._times[stream], stream, [bytes(self._held[stream])])
        self._held[stream] = bytearray()
        return run

    @property
    def holds(self) -> bool:
        """Whether a line is unfinished."""
        return any(self._held.values())

    def rest(self) -> Iterator[Run]:
        """The unfinished lines, once nothing more comes."""
        for stream in sorted(self._held, key=lambda one: self._times[one]):
            if self._held[stream]:
                yield self._take(stream)
