"""The body of an HTTP request, read by whoever has its socket: chunked (RFC 9112, section 7.1) or of a known length.

The helper hands the socket of a large upload to the confined child that needs what comes through it, so that the bytes
take one way less. What the helper has read already comes first, through a pipe. Standard library only.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

from backend.runtime.tarstream import BadTar

_BUFFER = 1 << 18
_LINE = 4096
_HEX = frozenset(b"0123456789abcdefABCDEF")
ReadInto = Callable[[memoryview], int]


def from_descriptor(fd: int) -> ReadInto:
    """Reads from *fd*, waiting where it is non-blocking."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)

    def read(view: memoryview) -> int:
        while True:
            try:
                return os.readv(fd, [view])
            except BlockingIOError:
                poll.poll()

    return read


def joined(first: int, second: int) -> ReadInto:
    """Reads from *first* to its end, then from *second*."""
    now, later = from_descriptor(first), from_descriptor(second)
    state = [now]

    def read(view: memoryview) -> int:
        got = state[0](view)
        if not got and state[0] is now:
            state[0] = later
            got = later(view)
        return got

    return read


class Body:
    """The contents of a body whose raw bytes *read* gives. *length*: in bytes, -1 for chunked."""

    def __init__(self, read: ReadInto, length: int) -> None:
        self._read = read
        self._chunked = length < 0
        self._left = max(length, 0)  # of the body, or of the chunk
        self._first = True
        self._buffer = memoryview(bytearray(_BUFFER))
        self._at = self._end = 0

    def __call__(self, view: memoryview) -> int:
        """The next bytes of the contents into *view*; 0 at the end. Raises :class:`BadTar` if it breaks off."""
        if self._chunked and not self._left:
            self._begin_chunk()
        if not self._left:
            return 0
        if self._at == self._end and not self._chunked:
            got = self._read(view[: self._left])
        else:
            if self._at == self._end:
                self._fill()
            got = min(len(view), self._left, self._end - self._at)
            view[:got] = self._buffer[self._at : self._at + got]
            self._at += got
        if not got:
            raise BadTar("the upload breaks off")
        self._left -= got
        return got

    def _fill(self) -> None:
        """More raw bytes behind those that are there."""
        rest = self._end - self._at
        if rest:
            self._buffer[:rest] = bytes(self._buffer[self._at : self._end])
        got = self._read(self._buffer[rest:])
        if not got:
            raise BadTar("the upload breaks off")
        self._at, self._end = 0, rest + got

    def _line(self) -> bytes:
        """A line, without its end."""
        while True:
            seen = bytes(self._buffer[self._at : min(self._end, self._at + _LINE)])
            stop = seen.find(b"\n")
            if stop >= 0:
                self._at += stop + 1
                return seen[:stop].rstrip(b"\r")
            if len(seen) == _LINE:
                raise BadTar("the upload's chunks are malformed")
            self._fill()

    def _begin_chunk(self) -> None:
        if not self._first and self._line():
            raise BadTar("the upload's chunks are malformed")
        self._first = False
        digits = self._line().partition(b";")[0].strip()
        if not digits or len(digits) > 15 or not _HEX.issuperset(digits):
            raise BadTar("the upload's chunks are malformed")
        self._left = int(digits, 16)
        if not self._left:
            while self._line():  # trailers, which mean nothing here
                pass
            self._chunked = False
