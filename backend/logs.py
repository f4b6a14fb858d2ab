"""Container logs: written by chunk, split into lines when read. Shared floor, standard library only.

The default driver ("slipway") keeps files ``chunks-00000001.log`` ... in the log's directory. Each is a sequence of
records, one per chunk as it was read from the container::

    u32 length of data · u8 stream · u8 flags · u8 magic · u8 0 · u64 time in ns │ data │ u32 size of the whole record

The size at the end makes a file readable backwards, so that a tail costs what it shows and not what the file holds. A
record torn by a crash has no matching pair of sizes: the writer cuts it off, the reader stops before it. A file is
never renamed, so a follower cannot lose its place: it reads on to the end and then goes to the next number.

"json-file" is Docker's format and naming (``json.log``, ``json.log.1`` ...), for those who read it with other tools.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

HEAD = struct.Struct("<IBBBxQ")
TAIL = struct.Struct("<I")
OVERHEAD = HEAD.size + TAIL.size
MAGIC = 0xA7
CONTINUES = 1  # the chunk starts in the middle of a line of its stream
MAX_CHUNK = 1 << 20
MAX_LINE = 1 << 20  # a longer line is given in pieces without a newline
JSON_PIECE = 16 << 10  # Docker cuts lines at 16 kB in its own format
_NAME = re.compile(r"chunks-(\d{8})\.log")
_BLOCK = 1 << 20
JSON_NAME = "json.log"


@dataclass(frozen=True, slots=True)
class Record:
    """One line with its newline. *time_ns*: when its first byte was read; *stream*: 1 stdout, 2 stderr.

    The last line may lack its newline; a line beyond :data:`MAX_LINE` comes in pieces, all but the last without one.
    """

    time_ns: int
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader stands: number of the file and offset in it."""

    file: int
    offset: int


def _files(directory: str) -> list[int]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(m[1]) for name in names if (m := _NAME.fullmatch(name)))


def _path(directory: str, number: int) -> str:
    return f"{directory}/chunks-{number:08d}.log"


def _valid_end(fd: int, size: int) -> int:
    """The offset after the last whole record: *size* unless a crash tore the end."""
    start = max(size - MAX_CHUNK - 2 * OVERHEAD, 0)
    window = os.pread(fd, size - start, start)
    for end in range(len(window), OVERHEAD - 1, -1):
        total = TAIL.unpack_from(window, end - TAIL.size)[0]
        if OVERHEAD <= total <= end:
            length, stream, _, magic, _ = HEAD.unpack_from(window, end - total)
            if magic == MAGIC and stream in (1, 2) and length == total - OVERHEAD:
                return start + end
    return 0


class LogWriter:
    """Writes one container's log. A failure (a full disk) is counted in :attr:`lost` and never raised."""

    def __init__(self, directory: str, driver: str, max_size: int, max_files: int) -> None:
        """*driver*: "slipway", "json-file" or "none"; *max_size* bytes a file, 0 = no limit; *max_files* kept."""
        self.lost = 0
        self._driver = driver
        self._impl: _ChunkFile | _JsonFile | None = None
        if driver == "none":
            return
        os.makedirs(directory, mode=0o700, exist_ok=True)
        kind = _JsonFile if driver == "json-file" else _ChunkFile
        self._impl = kind(directory, max_size, max(max_files, 1))

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        """Appends a chunk of *stream*."""
        if self._impl is None:
            return
        try:
            self._impl.write(stream, data, time_ns)
        except OSError:
            self.lost += len(data)

    def flush(self) -> None:
        """At the end of output: what was held back for its line is written."""
        if self._impl is not None:
            try:
                self._impl.flush()
            except OSError:
                self.lost += 1

    def close(self) -> None:
        """Closes the file."""
        if self._impl is not None:
            self.flush()
            self._impl.close()
            self._impl = None


class _ChunkFile:
    def __init__(self, directory: str, max_size: int, max_files: int) -> None:
        self._directory, self._max_size, self._max_files = directory, max_size, max_files
        numbers = _files(directory)
        self._number = numbers[-1] if numbers else 1
        self._fd = self._open(self._number)
        size = os.fstat(self._fd).st_size
        self._size = _valid_end(self._fd, size)
        if self._size != size:
            os.ftruncate(self._fd, self._size)
        self._middle = {1: False, 2: False}  # whether the stream's last chunk ended inside a line
        self._take_up()

    def _take_up(self) -> None:
        """After another writer: a line that it left unfinished at the very end goes on."""
        if self._size > OVERHEAD:
            total = TAIL.unpack(os.pread(self._fd, TAIL.size, self._size - TAIL.size))[0]
            stream = HEAD.unpack(os.pread(self._fd, HEAD.size, self._size - total))[1]
            self._middle[stream] = os.pread(self._fd, 1, self._size - TAIL.size - 1) != b"\n"

    def _open(self, number: int) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(_path(self._directory, number), flags, 0o600)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        if self._max_size and self._size and self._size + len(data) + OVERHEAD > self._max_size:
            self._rotate()
        total = len(data) + OVERHEAD
        head = HEAD.pack(len(data), stream, CONTINUES if self._middle[stream] else 0, MAGIC, time_ns)
        written = os.writev(self._fd, (head, data, TAIL.pack(total)))
        if written != total:
            os.ftruncate(self._fd, self._size)  # a disk that filled up in the middle: no torn record
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += total
        self._middle[stream] = not data.endswith(b"\n")

    def _rotate(self) -> None:
        fresh = self._open(self._number + 1)
        os.close(self._fd)
        self._fd, self._number, self._size = fresh, self._number + 1, 0
        for number in _files(self._directory):
            if number <= self._number - self._max_files:
                os.unlink(_path(self._directory, number))

    def flush(self) -> None:
        return

    def close(self) -> None:
        os.close(self._fd)


def _rfc3339(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    fraction = f"{time_ns % 1_000_000_000:09d}".rstrip("0")
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}Z" if fraction else "Z")


class _JsonFile:
    def __init__(self, directory: str, max_size: int, max_files: int) -> None:
        self._base, self._max_size, self._max_files = f"{directory}/{JSON_NAME}", max_size, max_files
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._partial: dict[int, tuple[int, bytearray]] = {}

    def _open(self) -> int:
        return os.open(self._base, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        start, held = self._partial.pop(stream, (time_ns, bytearray()))
        held += data
        out: list[str] = []
        begin = 0
        while begin < len(held):
            end = held.find(b"\n", begin, begin + JSON_PIECE) + 1
            if not end:
                if len(held) - begin < JSON_PIECE:
                    break
                end = begin + JSON_PIECE
            out.append(self._line(stream, bytes(held[begin:end]), start))
            begin, start = end, time_ns
        if begin < len(held):
            self._partial[stream] = (start, held[begin:])
        self._put("".join(out).encode())

    @staticmethod
    def _line(stream: int, data: bytes, time_ns: int) -> str:
        entry = {
            "log": data.decode("utf-8", "replace"),
            "stream": "stdout" if stream == 1 else "stderr",
            "time": _rfc3339(time_ns),
        }
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"

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
            try:
                os.replace(newer, older)
            except FileNotFoundError:
                continue
        os.close(self._fd)
        if self._max_files == 1:
            os.unlink(self._base)
        self._fd, self._size = self._open(), 0

    def flush(self) -> None:
        for stream, (time_ns, held) in sorted(self._partial.items()):
            self._put(self._line(stream, bytes(held), time_ns).encode())
        self._partial.clear()

    def close(self) -> None:
        os.close(self._fd)


# --- reading --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Chunk:
    time_ns: int
    stream: int
    continues: bool
    data: bytes


def _chunks(fd: int, offset: int) -> Iterator[tuple[int, _Chunk]]:
    """(offset after it, chunk) for each whole record from *offset* on."""
    buffer, base, at = b"", offset, 0
    while True:
        if len(buffer) - at >= HEAD.size:
            length, stream, flags, magic, time_ns = HEAD.unpack_from(buffer, at)
            if magic != MAGIC or length > 2 * MAX_CHUNK:
                return  # not a record: torn or foreign
            total = length + OVERHEAD
            if len(buffer) - at >= total:
                begin = at + HEAD.size
                chunk = _Chunk(time_ns, stream, bool(flags & CONTINUES), buffer[begin : begin + length])
                at += total
                yield base + at, chunk
                continue
        base, buffer, at = base + at, buffer[at:], 0
        more = os.pread(fd, _BLOCK, base + len(buffer))
        if not more:
            return
        buffer += more


class _Backward:
    """Walks back over whole records until enough lines begin after the place that it has reached."""

    def __init__(self, lines: int) -> None:
        self._missing = lines
        self._inside: set[int] = set()  # streams whose earliest record seen begins in the middle of a line

    @property
    def enough(self) -> bool:
        return self._missing <= 0 and not self._inside

    def walk(self, fd: int, end: int) -> int:
        """From the offset *end* of one file towards its start; returns where it stopped."""
        buffer, base = b"", end
        while end > 0 and not self.enough:
            total = TAIL.unpack_from(buffer, end - base - TAIL.size)[0] if end - base >= TAIL.size else 0
            if total == 0 or total > end - base:
                base = max(min(end - total, end - _BLOCK), 0)
                buffer = os.pread(fd, end - base, base)
                total = TAIL.unpack_from(buffer, end - base - TAIL.size)[0] if len(buffer) == end - base else 0
            if not OVERHEAD <= total <= end - base:
                return end  # the file shrank under us, or is not ours: what is after this place is still good
            begin = end - base - total
            _, stream, flags, _, _ = HEAD.unpack_from(buffer, begin)
            self._missing -= buffer.count(b"\n", begin + HEAD.size, end - base - TAIL.size)
            (self._inside.add if flags & CONTINUES else self._inside.discard)(stream)
            end -= total
        return end


class _Lines:
    """Puts chunks together to lines, for each stream by itself."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, bytearray]] = {}

    def feed(self, chunk: _Chunk) -> Iterator[Record]:
        time_ns, held = self._held.pop(chunk.stream, (chunk.time_ns, None))
        data = chunk.data if held is None else bytes(held + chunk.data)
        begin = 0
        while True:
            end = data.find(b"\n", begin) + 1
            if not end:
                break
            yield Record(time_ns, chunk.stream, data[begin:end])
            begin, time_ns = end, chunk.time_ns
        while len(data) - begin > MAX_LINE:
            yield Record(time_ns, chunk.stream, data[begin : begin + MAX_LINE])
            begin += MAX_LINE
        if begin < len(data):
            self._held[chunk.stream] = (time_ns, bytearray(memoryview(data)[begin:]))

    def rest(self) -> Iterator[Record]:
        for stream, (time_ns, held) in sorted(self._held.items(), key=lambda item: item[1][0]):
            yield Record(time_ns, stream, bytes(held))
        self._held.clear()


class LogReader:
    """Reads a log's directory, whatever driver wrote it.

    :meth:`read` gives what is there. To follow: keep one reader, call :meth:`read` with ``follow=True`` first (an
    unfinished line is then kept back), and :meth:`more` whenever the keeper says that the log has grown;
    :meth:`finish` at the end of the container gives the unfinished line.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lines = _Lines()
        self._fd = -1
        self._position = Position(0, 0)
        self._streams: frozenset[int] = frozenset((1, 2))
        self._until = 0
        self._json = False
        self._json_rest = b""

    @property
    def position(self) -> Position:
        """Where reading goes on."""
        return self._position

    def close(self) -> None:
        """Closes the file that is being followed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(
        self,
        tail: int | None = None,
        since: int = 0,
        until: int = 0,
        stdout: bool = True,
        stderr: bool = True,
        *,
        follow: bool = False,
    ) -> Iterator[Record]:
        """The lines of the streams asked for, from *since* up to *until* (ns, 0 = no bound).

        *tail* counts as Docker's does: the last so many lines of both streams together (None: all), of which those
        that the other arguments leave out are then left out.
        """
        self._streams = frozenset(n for n, on in ((1, stdout), (2, stderr)) if on)
        self._until = until
        self._json = os.path.exists(f"{self._directory}/{JSON_NAME}")
        skip = 0
        if tail is not None and self._json:
            skip = sum(1 for _ in LogReader(self._directory)._json_records(False)) - tail
        elif tail is not None:
            numbers = _files(self._directory)
            self._start(numbers, tail)
            if tail == 0:
                self._to_end(numbers)
            else:
                skip = self._count(follow) - tail
        for record in self._json_records(follow) if self._json else self._records(follow):
            if skip > 0:
                skip -= 1
            elif record.time_ns >= since and self._wanted(record):
                yield record

    def _wanted(self, record: Record) -> bool:
        return record.stream in self._streams and not (self._until and record.time_ns > self._until)

    def more(self) -> Iterator[Record]:
        """What has come since, for a follower."""
        for record in self._follow_json() if self._json else self._records(True):
            if self._wanted(record):
                yield record

    def finish(self) -> Iterator[Record]:
        """The last, unfinished lines, once nothing more can come."""
        yield from self.more()
        for record in self._lines.rest():
            if self._wanted(record):
                yield record

    # --- chunk files ------------------------------------------------------------------------------------------------
    def _start(self, numbers: list[int], tail: int | None) -> None:
        """Sets the position: the first file's start, or far enough from the end for *tail* lines."""
        if not numbers:
            self._position = Position(0, 0)
            return
        self._position = Position(numbers[0], 0)
        if not tail:
            return
        back = _Backward(tail + 1)
        for number in reversed(numbers):
            try:
                fd = os.open(_path(self._directory, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                offset = back.walk(fd, _valid_end(fd, os.fstat(fd).st_size))
            finally:
                os.close(fd)
            self._position = Position(number, offset)
            if back.enough:
                return

    def _to_end(self, numbers: list[int]) -> None:
        if numbers:
            with open(_path(self._directory, numbers[-1]), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._position = Position(numbers[-1], _valid_end(file.fileno(), size))

    def _count(self, follow: bool) -> int:
        probe = LogReader(self._directory)
        probe._position = self._position
        try:
            return sum(1 for _ in probe._records(follow))
        finally:
            probe.close()

    def _records(self, follow: bool) -> Iterator[Record]:
        for chunk in self._all_chunks():
            yield from self._lines.feed(chunk)
        if not follow:
            yield from self._lines.rest()

    def _all_chunks(self) -> Iterator[_Chunk]:
        while True:
            if self._fd < 0 and not self._open_next():
                return
            number = self._position.file
            for offset, chunk in _chunks(self._fd, self._position.offset):
                self._position = Position(number, offset)
                yield chunk
            following = [n for n in _files(self._directory) if n > number]
            if not following:
                return
            # The next file exists, so this one has got its last record: look once more, then go on.
            for offset, chunk in _chunks(self._fd, self._position.offset):
                self._position = Position(number, offset)
                yield chunk
            self.close()
            self._position = Position(following[0], 0)

    def _open_next(self) -> bool:
        for number in _files(self._directory):
            if number < self._position.file:
                continue
            try:
                self._fd = os.open(_path(self._directory, number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated away between listing and opening
            if number != self._position.file:
                self._position = Position(number, 0)
            return True
        return False

    # --- json files -------------------------------------------------------------------------------------------------
    def _json_names(self) -> list[str]:
        base = f"{self._directory}/{JSON_NAME}"
        old = []
        number = 1
        while os.path.exists(f"{base}.{number}"):
            old.append(f"{base}.{number}")
            number += 1
        return [*reversed(old), base]

    def _json_records(self, follow: bool) -> Iterator[Record]:
        for name in self._json_names():
            yield from self._json_file(name, keep=follow and name.endswith(JSON_NAME))

    def _json_file(self, name: str, *, keep: bool) -> Iterator[Record]:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            yield from self._json_lines(fd)
            if keep:
                self.close()
                self._fd = os.dup(fd)
        finally:
            os.close(fd)
            if not keep:
                self._json_rest = b""

    def _json_lines(self, fd: int) -> Iterator[Record]:
        while block := os.read(fd, _BLOCK):
            *lines, self._json_rest = (self._json_rest + block).split(b"\n")
            for line in lines:
                record = _from_json(line)
                if record:
                    yield record

    def _follow_json(self) -> Iterator[Record]:
        base = f"{self._directory}/{JSON_NAME}"
        if self._fd >= 0:
            yield from self._json_lines(self._fd)
            try:
                if os.stat(base).st_ino == os.fstat(self._fd).st_ino:
                    return
            except FileNotFoundError:
                return
            self.close()
            self._json_rest = b""
        yield from self._json_file(base, keep=True)


def _from_json(line: bytes) -> Record | None:
    """One line of Docker's format; None for a torn one."""
    try:
        entry = json.loads(line)
        head, _, fraction = entry["time"].rstrip("Z").partition(".")
        moment = datetime.strptime(head, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        time_ns = int(moment.timestamp()) * 1_000_000_000 + int((fraction + "000000000")[:9])
        return Record(time_ns, 1 if entry["stream"] == "stdout" else 2, entry["log"].encode("utf-8", "surrogatepass"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
