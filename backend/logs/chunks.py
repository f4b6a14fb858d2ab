"""The files of the default driver: ``chunks-00000001.log`` ... in the log's directory.

Each is a sequence of records, one per chunk as it was read from the container::

    u32 length of data · u8 stream · u8 flags · u8 magic · u8 0 · u64 time in ns │ data │ u32 size of the whole record

The size at the end makes a file readable backwards, so that a tail costs what it shows and not what the file holds. A
record torn by a crash has no matching pair of sizes: the writer cuts it off, the reader stops before it, or goes on
after it should something have been written behind it. A file is never renamed, so a follower cannot lose its place: it
reads on to the end and then goes to the next number.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from backend.logs.lines import MAX_LINE, Chunk

HEAD = struct.Struct("<IBBBxQ")
TAIL = struct.Struct("<I")
OVERHEAD = HEAD.size + TAIL.size
MAGIC = 0xA7
CONTINUES = 1  # flag: the chunk starts in the middle of a line of its stream
MAX_CHUNK = 1 << 20
BLOCK = 1 << 20
_STEP = 16 << 10  # the first read: a follower finds little that is new, most tails are short
_NAME = re.compile(r"chunks-(\d{8})\.log")
_MAGIC_AT = 6


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader stands: number of the file and offset in it."""

    file: int
    offset: int


def files(directory: str) -> list[int]:
    """The numbers of the files, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(m[1]) for name in names if (m := _NAME.fullmatch(name)))


def path(directory: str, number: int) -> str:
    """The file's path."""
    return f"{directory}/chunks-{number:08d}.log"


def is_last(directory: str, number: int, fd: int) -> bool:
    """Whether no file comes after that one, open as *fd*. The files go in order: the next outlives this one's name."""
    return os.fstat(fd).st_nlink > 0 and not os.path.exists(path(directory, number + 1))


def valid_end(fd: int, size: int) -> int:
    """The offset after the last whole record: *size* unless a crash tore the end."""
    for reach in (MAX_LINE >> 4, MAX_CHUNK + 2 * OVERHEAD):
        start = max(size - reach, 0)
        window = os.pread(fd, size - start, start)
        for end in range(len(window), OVERHEAD - 1, -1):
            if record_before(window, end):
                return start + end
        if start == 0:
            break
    return 0


def record_before(buffer: bytes, end: int) -> int:
    """The size of the whole record that ends at *end* of *buffer*; 0: there is none."""
    total: int = TAIL.unpack_from(buffer, end - TAIL.size)[0]
    if not OVERHEAD <= total <= end:
        return 0
    length, stream, _, magic, _ = HEAD.unpack_from(buffer, end - total)
    return total if magic == MAGIC and stream in (1, 2) and length == total - OVERHEAD else 0


def chunks(fd: int, offset: int) -> Iterator[tuple[int, Chunk]]:
    """(offset after it, chunk) for each whole record from *offset* on."""
    buffer, base, at, step, ended = b"", offset, 0, _STEP, False
    while True:
        state = _whole(buffer, at)
        if state > 0:
            length, stream, flags, _, time_ns = HEAD.unpack_from(buffer, at)
            begin = at + HEAD.size
            at += state
            yield base + at, Chunk(time_ns, stream, bool(flags & CONTINUES), buffer[begin : begin + length])
            continue
        if state < 0:  # torn, and something came after it: find that
            found = _resume(buffer, at + 1)
            if found >= 0:
                at = found
                continue
        if ended:
            return
        base, buffer, at = base + at, buffer[at:], 0
        if len(buffer) > 4 * MAX_CHUNK:
            return  # nothing of ours for as long as a record can be
        more = os.pread(fd, step, base + len(buffer))
        if not more:
            return
        ended = len(more) < step
        buffer, step = buffer + more, BLOCK


def _whole(buffer: bytes, at: int) -> int:
    """The size of the record at *at*; 0: it is not all there (yet); -1: that is no record."""
    if len(buffer) - at < HEAD.size:
        return 0
    length, stream, _, magic, _ = HEAD.unpack_from(buffer, at)
    if magic != MAGIC or stream not in (1, 2) or length > 2 * MAX_CHUNK:
        return -1
    total: int = length + OVERHEAD
    if len(buffer) - at < total:
        return 0
    return total if TAIL.unpack_from(buffer, at + total - TAIL.size)[0] == total else -1


def _resume(buffer: bytes, at: int) -> int:
    """Where the next whole record starts, from *at* on; -1: nowhere in *buffer*."""
    magic = at + _MAGIC_AT
    while (magic := buffer.find(MAGIC, magic)) >= 0:
        if _whole(buffer, magic - _MAGIC_AT) > 0:
            return magic - _MAGIC_AT
        magic += 1
    return -1


class Backward:
    """Walks back over whole records until enough lines begin after the place that it has reached.

    Enough is *lines* of them (None: all), or all that were finished at *since* or later. A line that began far back is
    followed to its start only as far as a piece of it can be long.
    """

    def __init__(self, lines: int | None, since: int = 0) -> None:
        self._missing = lines
        self._since = since
        self._past = False
        self._inside: dict[int, int] = {}  # stream whose earliest record begins within a line -> bytes of that line

    @property
    def enough(self) -> bool:
        """Whether reading forward from here gives what was asked for."""
        reached = self._past or (self._missing is not None and self._missing <= 0)
        return reached and all(size > MAX_LINE for size in self._inside.values())

    def walk(self, fd: int, end: int) -> int:
        """From the offset *end* of one file towards its start; returns where it stopped."""
        buffer, base, step = b"", end, _STEP
        while end > 0 and not self.enough:
            total = record_before(buffer, end - base) if end - base >= OVERHEAD else 0
            if total == 0:
                base = max(end - step, 0)
                buffer, step = os.pread(fd, end - base, base), (BLOCK + MAX_CHUNK if step > _STEP else 10 * _STEP)
                total = record_before(buffer, end - base) if OVERHEAD <= len(buffer) == end - base else 0
            if total == 0 and base > 0:  # it is longer than that
                base = max(end - BLOCK - MAX_CHUNK, 0)
                buffer = os.pread(fd, end - base, base)
                total = record_before(buffer, end - base) if len(buffer) == end - base else 0
            if total == 0:
                return end  # the file shrank under us, or is torn here: what is after this place is still good
            self._count(buffer, end - base - total, end - base)
            end -= total
        return end

    def _count(self, buffer: bytes, begin: int, end: int) -> None:
        length, stream, flags, _, time_ns = HEAD.unpack_from(buffer, begin)
        begin += HEAD.size
        if self._missing is not None:
            self._missing -= buffer.count(b"\n", begin, end - TAIL.size)
        first = buffer.find(b"\n", begin, end - TAIL.size)
        self._past = self._past or time_ns < self._since
        if not flags & CONTINUES:
            self._inside.pop(stream, None)
        elif first < 0:
            before = self._inside.get(stream, 0)
            self._inside[stream] = before + length
            if self._missing is not None:
                self._missing -= (before + length) // MAX_LINE - before // MAX_LINE
        else:
            self._inside[stream] = first - begin


def unfinished(fd: int, end: int, *, is_first: bool) -> dict[int, bool]:
    """Stream -> whether what was written last of it, before *end*, ended within a line.

    Looked for in the last records only; where none of the stream is among them, the answer is yes, which costs a
    walk back a little more and is never wrong.
    """
    start = max(end - BLOCK, 0)
    window = os.pread(fd, end - start, start)
    found: dict[int, bool] = {}
    at = len(window)
    while at >= OVERHEAD and len(found) < 2 and (total := record_before(window, at)):
        stream = HEAD.unpack_from(window, at - total)[1]
        found.setdefault(stream, window[at - TAIL.size - 1 : at - TAIL.size] != b"\n")
        at -= total
    unknown = not (start == 0 and at == 0 and is_first)
    return {stream: found.get(stream, unknown) for stream in (1, 2)}
