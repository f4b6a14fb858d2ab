"""Docker's format and naming: ``json.log``, ``json.log.1`` (older) ..., one JSON object a line."""

from __future__ import annotations

import calendar
import errno
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from json.encoder import encode_basestring

from backend.logs.lines import Run

JSON_NAME = "json.log"
PIECE = 16 << 10  # Docker cuts lines at 16 kB in its own format
_BLOCK = 1 << 20
_STEP = 128 << 10
_LONGEST = 6 * PIECE + 256  # bytes that an entry of ours can have: each byte as \u00xx
_SECOND = 1_000_000_000
# What most entries are: nothing in them needs a JSON parser, which would take three times as long.
_PLAIN = re.compile(rb'\{"log":"([^"\\]*)(\\n)?","stream":"(stdout|stderr)",'
                    rb'"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)Z"\}')


class JsonWriter:
    """Writes it; holds the beginning of a line back until the line or a piece is whole."""

    def __init__(self, directory: str, max_size: int, max_files: int) -> None:
        self._base, self._max_size, self._max_files = f"{directory}/{JSON_NAME}", max_size, max_files
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._cut_torn()
        self._partial: dict[int, tuple[int, bytearray]] = {}

    def _open(self) -> int:
        return os.open(self._base, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _cut_torn(self) -> None:
        start = max(self._size - _LONGEST, 0)
        window = os.pread(self._fd, self._size - start, start)
        if window and not window.endswith(b"\n"):
            self._size = start + window.rfind(b"\n") + 1
            os.ftruncate(self._fd, self._size)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        """Appends what is whole of a chunk; line n of it has the time *time_ns* + n."""
        held = self._partial.pop(stream, (0, bytearray()))[1]
        held += data
        out: list[str] = []
        begin, lines = 0, 0
        while begin < len(held):
            end = held.find(b"\n", begin, begin + PIECE) + 1
            if not end:
                if len(held) - begin < PIECE:
                    break
                end = begin + PIECE
            out.append(_entry(stream, held[begin:end], time_ns + lines))
            lines += held[end - 1] == 10
            begin = end
        if begin < len(held):
            self._partial[stream] = (time_ns + lines, held[begin:])
        self._put("".join(out).encode())

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._max_size and self._size and self._size + len(data) > self._max_size:
            self._rotate()
        written = os.write(self._fd, data)
        if written != len(data):
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written

    def _rotate(self) -> None:
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._base}.{number}"
            newer = self._base if number == 1 else f"{self._base}.{number - 1}"
            with suppress(FileNotFoundError):
                os.replace(newer, older)
        if self._max_files == 1:
            os.unlink(self._base)
        fresh = self._open()
        os.close(self._fd)
        self._fd, self._size = fresh, 0

    def flush(self) -> None:
        """Writes down what is held back."""
        held, self._partial = self._partial, {}
        for stream, (time_ns, data) in sorted(held.items(), key=lambda item: item[1][0]):
            self._put(_entry(stream, data, time_ns).encode())

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def _entry(stream: int, data: bytearray, time_ns: int) -> str:
    text = encode_basestring(data.decode("utf-8", "replace"))
    name = "stdout" if stream == 1 else "stderr"
    return f'{{"log":{text},"stream":"{name}","time":"{rfc3339(time_ns)}"}}\n'


_last_second = (-1, "")


def rfc3339(time_ns: int) -> str:
    """*time_ns* in UTC, without zeros at the end of the fraction."""
    global _last_second
    seconds, rest = divmod(time_ns, _SECOND)
    if _last_second[0] != seconds:
        _last_second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{_last_second[1]}.{rest:09d}".rstrip("0").rstrip(".") + "Z"


# --- reading --------------------------------------------------------------------------------------------------------
class JsonReader:
    """Reads the files from the oldest on, and follows through rotation: what it will read is held open."""

    def __init__(self, directory: str) -> None:
        self._base = f"{directory}/{JSON_NAME}"
        self._fds: deque[int] = deque()  # oldest first; the first is being read
        self._offset = 0
        self._rest = b""
        self._parse = EntryParser()

    def close(self) -> None:
        """Closes the files."""
        while self._fds:
            os.close(self._fds.popleft())

    def open(self, tail: int | None, since: int, *, unfinished: bool) -> None:
        """Takes hold of the files and goes to where *tail* entries or those from *since* on begin.

        *unfinished* is the same either way: the beginning of a line is no entry before the container has ended.
        """
        self._fds.extendleft(self._newer_than(None))
        if tail is not None:
            self._seek(_LastEntries(tail))
        elif since:
            self._seek(_EntriesSince(since))

    def _newer_than(self, known: int | None) -> Iterator[int]:
        """Open files, the newest first, down to the one that *known* is open on, without it.

        Newest first, because rotation only moves files towards older names: none can be missed on the way, and one
        that is met again under its next name is told by its inode.
        """
        last = os.fstat(known).st_ino if known is not None else -1
        seen: set[int] = set()
        number = 0
        while True:
            try:
                fd = os.open(f"{self._base}.{number}" if number else self._base, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if number:
                    return
                number += 1  # just between two names
                continue
            inode = os.fstat(fd).st_ino
            if inode == last or inode in seen:
                os.close(fd)
                if inode == last:
                    return
            else:
                seen.add(inode)
                yield fd
            number += 1

    def _seek(self, find: Callable[[int, int], int]) -> None:
        """Asks *find* (descriptor, size -> offset, -1: this file and more) from the newest file on; drops the rest."""
        kept: deque[int] = deque()
        offset = -1
        while self._fds:
            fd = self._fds.pop()
            if offset >= 0:
                os.close(fd)
                continue
            offset = find(fd, os.fstat(fd).st_size)
            kept.appendleft(fd)
        self._fds, self._offset = kept, max(offset, 0)

    def runs(self) -> Iterator[Run]:
        """What there is from here on."""
        if not self._fds:
            self._fds.extendleft(self._newer_than(None))
        while self._fds:
            yield from self._file(self._fds[0])
            if len(self._fds) == 1:
                self._fds.extend(reversed(list(self._newer_than(self._fds[0]))))
                if len(self._fds) == 1:
                    return
                yield from self._file(self._fds[0])  # rotated: it has got its last entry, which may be new
            os.close(self._fds.popleft())
            self._offset, self._rest = 0, b""

    def _file(self, fd: int) -> Iterator[Run]:
        step = _STEP
        while block := os.pread(fd, step, self._offset):
            self._offset += len(block)
            *lines, self._rest = (self._rest + block).split(b"\n")
            step = _BLOCK
            yield from _together(run for line in lines if (run := self._parse(line)))
            if len(self._rest) > _BLOCK:
                self._rest = b""  # no entry of ours is that long


def _together(runs: Iterator[Run]) -> Iterator[Run]:
    """Entries that were read together as one run."""
    last: Run | None = None
    for run in runs:
        if last is not None and run.stream == last.stream and run.time_ns == last.time_ns + len(last.lines):
            last.lines.append(run.lines[0])
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


class _LastEntries:
    def __init__(self, count: int) -> None:
        self._missing = count

    def __call__(self, fd: int, end: int) -> int:
        step = _STEP
        while end > 0:
            base = max(end - step, 0)
            block = os.pread(fd, end - base, base)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if self._missing == 0:
                    return base + at + 1
                self._missing -= 1
            end, step = base, _BLOCK
        return 0 if self._missing == 0 else -1


class _EntriesSince:
    def __init__(self, since: int) -> None:
        self._since = since
        self._parse = EntryParser()

    def __call__(self, fd: int, size: int) -> int:
        if not self._older(os.pread(fd, 2 * _LONGEST, 0)):
            return -1
        low, high = 0, size
        while high - low > _STEP:
            middle = (low + high) // 2
            block = os.pread(fd, 3 * _LONGEST, middle)
            begin = block.find(b"\n") + 1
            if begin and self._older(block[begin:]):
                low = middle + begin
            else:
                high = middle
        return low

    def _older(self, block: bytes) -> bool:
        entry, newline, _ = block.partition(b"\n")
        run = self._parse(entry) if newline else None
        return run is not None and run.time_ns < self._since


class EntryParser:
    """Reads entries; remembers the last second, since few are far from the one before."""

    def __init__(self) -> None:
        self._second = ("", 0)

    def __call__(self, line: bytes) -> Run | None:
        """One line of Docker's format; None for a torn one."""
        try:
            if plain := _PLAIN.fullmatch(line):
                data, newline, name, at = plain.groups()
                return Run(self.time(at.decode()), 1 if name == b"stdout" else 2, [data + b"\n" if newline else data])
            entry = json.loads(line)
            data = entry["log"].encode("utf-8", "surrogatepass")
            return Run(self.time(entry["time"]), 1 if entry["stream"] == "stdout" else 2, [data])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def time(self, text: str) -> int:
        """A time in UTC as ns."""
        head, _, fraction = text.rstrip("Z").partition(".")
        if head != self._second[0]:
            self._second = (head, calendar.timegm(time.strptime(head, "%Y-%m-%dT%H:%M:%S")))
        return self._second[1] * _SECOND + int(f"{fraction:0<9}"[:9])
