"""What a container used, bounded: every second for ten minutes in memory, every ten seconds for a day on disk.

The disk's part is a file of fixed-size rows that is only ever appended to, and replaced by a fresh one when it holds a
day (the one before is kept), so that a crash costs at most the last minute and a torn last row.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

FINE, COARSE = 1, 10                   # seconds a row
FINE_ROWS, COARSE_ROWS = 600, 8640     # ten minutes, a day
_FLUSH = 6                             # coarse rows that wait for the disk: a minute
_ROW = struct.Struct("<dfQffffI")


class Row(NamedTuple):
    """Usage since the row before. Rates are bytes a second; `cpu` is percent of one processor."""

    at: float                          # seconds since the epoch
    cpu: float
    memory: int                        # bytes, without the page cache that could be given up
    received: float
    sent: float
    read: float
    written: float
    pids: int


class History:
    """One container's. *path*: the file of its coarse rows; the rows of one run go on in the next."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fine = bytearray()
        self._slot: list[Row] = []     # rows of the ten seconds that are not over
        self._waiting: list[Row] = []  # coarse rows that are not on disk

    def add(self, row: Row) -> None:
        """Take a row; later than all before it."""
        self._fine += _ROW.pack(*row)
        if len(self._fine) > (FINE_ROWS + 100) * _ROW.size:     # seldom, as this moves all of it
            del self._fine[:-FINE_ROWS * _ROW.size]
        if self._slot and self._slot[0].at // COARSE != row.at // COARSE:
            self._waiting.append(mean(self._slot))
            self._slot.clear()
            if len(self._waiting) >= _FLUSH:
                self.flush()
        self._slot.append(row)

    def flush(self) -> None:
        """Bring what waits to the disk. Raises OSError."""
        data = b"".join(_ROW.pack(*row) for row in self._waiting)
        self._waiting.clear()
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            os.truncate(fd, size - size % _ROW.size)            # a row that a crash has torn
            os.write(fd, data)
            if size + len(data) >= COARSE_ROWS * _ROW.size:
                os.rename(self._path, f"{self._path}.1")
        finally:
            os.close(fd)

    def close(self) -> None:
        """The run has ended: nothing more comes for now. Raises OSError."""
        if self._slot:
            self._waiting.append(mean(self._slot))
            self._slot.clear()
        if self._waiting:
            self.flush()

    def rows(self, step: int, since: float) -> list[Row]:
        """The rows of *step* (:data:`FINE` or :data:`COARSE`) from *since* on, oldest first. Raises OSError."""
        if step == FINE:
            data = bytes(self._fine[-FINE_ROWS * _ROW.size:])
        else:
            data = _file(f"{self._path}.1") + _file(self._path)
            data = data[-COARSE_ROWS * _ROW.size:]
        rows = [Row(*fields) for fields in _ROW.iter_unpack(data)]
        if step == COARSE:
            rows += self._waiting + ([mean(self._slot)] if self._slot else [])
        return [row for row in rows if row.at >= since]


def _file(path: str) -> bytes:
    """Its whole rows; nothing if it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    with open(fd, "rb") as file:
        data = file.read()
    return data[:len(data) - len(data) % _ROW.size]


def mean(rows: list[Row]) -> Row:
    """One row for several: their average, at the time of the last."""
    _, *columns = zip(*rows, strict=True)
    cpu, memory, received, sent, read, written, pids = (sum(column) / len(rows) for column in columns)
    return Row(rows[-1].at, cpu, round(memory), received, sent, read, written, round(pids))
