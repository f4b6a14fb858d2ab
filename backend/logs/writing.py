"""The keeper's end of a log. Nothing that the disk does stops a container or its keeper."""

from __future__ import annotations

import errno
import os

from backend.logs import chunks
from backend.logs.jsonfile import JsonWriter

_OVERLAP = 1_000_000_000  # ns: a clock that was set back further than that is believed


class LogWriter:
    """Writes one container's log. A failure (a full disk) is counted in :attr:`lost` (bytes) and never raised."""

    def __init__(self, directory: str, driver: str, max_size: int, max_files: int, *, resumes: bool = False) -> None:
        """*driver*: "slipway", "json-file" or "none"; *max_size* bytes a file, 0 = no limit; *max_files* kept.

        *resumes*: it goes on with the streams of another writer, which may have ended within a line.
        """
        self.lost = 0
        self._next = 0
        self._impl: _ChunkWriter | JsonWriter | None = None
        if driver == "none":
            return
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if driver == "json-file":
            self._impl = JsonWriter(directory, max_size, max(max_files, 1))
        else:
            self._impl = _ChunkWriter(directory, max_size, max(max_files, 1), resumes=resumes)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        """Appends a chunk of *stream*."""
        if self._impl is None or not data:
            return
        if 0 < self._next - time_ns < _OVERLAP:
            time_ns = self._next  # each line has a nanosecond of its own
        self._next = time_ns + data.count(b"\n") + 1
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


class _ChunkWriter:
    def __init__(self, directory: str, max_size: int, max_files: int, *, resumes: bool) -> None:
        self._directory, self._max_size, self._max_files = directory, max_size, max_files
        numbers = chunks.files(directory)
        self._number = numbers[-1] if numbers else 1
        self._fd = self._open(self._number)
        size = os.fstat(self._fd).st_size
        self._size = chunks.valid_end(self._fd, size)
        if self._size != size:
            os.ftruncate(self._fd, self._size)
        # Whether the stream's last chunk ended inside a line.
        self._middle = {1: False, 2: False}
        if resumes:
            self._middle = chunks.unfinished(self._fd, self._size, is_first=len(numbers) <= 1)

    def _open(self, number: int) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(chunks.path(self._directory, number), flags, 0o600)

    def write(self, stream: int, data: bytes, time_ns: int) -> None:
        total = len(data) + chunks.OVERHEAD
        if self._max_size and self._size and self._size + total > self._max_size:
            self._rotate()
        flags = chunks.CONTINUES if self._middle[stream] else 0
        head = chunks.HEAD.pack(len(data), stream, flags, chunks.MAGIC, time_ns)
        try:
            written = os.writev(self._fd, (head, data, chunks.TAIL.pack(total)))
            if written != total:
                os.ftruncate(self._fd, self._size)  # a disk that filled up in the middle: no torn record
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            self._middle[stream] = not data.endswith(b"\n")
        self._size += total

    def _rotate(self) -> None:
        fresh = self._open(self._number + 1)
        os.close(self._fd)
        self._fd, self._number, self._size = fresh, self._number + 1, 0
        for number in chunks.files(self._directory):
            if number <= self._number - self._max_files:
                os.unlink(chunks.path(self._directory, number))

    def flush(self) -> None:
        return

    def close(self) -> None:
        os.close(self._fd)
