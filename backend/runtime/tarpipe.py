"""The members of a tar that comes through a pipe, one after another, with their bodies in pieces.

The rules for headers are :mod:`backend.runtime.tarstream`'s; this only reads what cannot be read at an offset. Nothing
is kept but one piece. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from backend.runtime.tarstream import (
    BLOCK,
    FILE,
    HEADER_LIMIT,
    BadTar,
    Entry,
    entry_of,
    number,
    pax_records,
    sum_fits,
)

_SIZE = 1 << 20
_ENOUGH = 1 << 18  # what a body is given on in, if there is so much of it: small writes cost a file system much more


class Supply(Protocol):
    """Where a tar comes from in order: :class:`Pipe`, or the images room's own."""

    def take(self, size: int) -> bytes:
        """Exactly *size* bytes, or fewer at the end of the stream."""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """*size* bytes as they come. Raises :class:`BadTar` if the stream ends before."""

    def skip(self, size: int) -> None:
        """Leaves *size* bytes out."""

    def drain(self) -> None:
        """Reads what stands behind the archive."""


class Pipe:
    """Reads in order, through one buffer that is made once. What :meth:`pieces` gives is valid until the next call.

    *read* puts the next bytes into a buffer and says how many they are, 0 at the end.
    """

    def __init__(self, read: Callable[[memoryview], int]) -> None:
        self._read = read
        self._buffer = memoryview(bytearray(_SIZE))
        self._at = self._end = 0

    def _fill(self, enough: int) -> None:
        """Reads on until *enough* bytes are there, or all."""
        if self._at == self._end:
            self._at = self._end = 0
        elif self._at + enough > _SIZE:
            rest = self._end - self._at
            self._buffer[:rest] = bytes(self._buffer[self._at : self._end])
            self._at, self._end = 0, rest
        while self._end - self._at < enough:
            got = self._read(self._buffer[self._end :])
            if not got:
                return
            self._end += got

    def _more(self, most: int, enough: int) -> memoryview:
        """The next bytes, at most *most*; empty at the end."""
        if self._end - self._at < enough:
            self._fill(enough)
        start, self._at = self._at, min(self._at + most, self._end)
        return self._buffer[start : self._at]

    def take(self, size: int) -> bytes:
        """Exactly *size* bytes, or fewer at the end of the stream."""
        piece = bytes(self._more(size, min(size, _ENOUGH)))
        while len(piece) < size and (more := self._more(size - len(piece), min(size - len(piece), _ENOUGH))):
            piece += bytes(more)
        return piece

    def pieces(self, size: int) -> Iterator[memoryview]:
        """*size* bytes as they come. Raises :class:`BadTar` if the stream ends before."""
        while size:
            piece = self._more(size, min(size, _ENOUGH))
            if not piece:
                raise BadTar("the archive ends in the middle of a file")
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Leaves *size* bytes out."""
        for _ in self.pieces(size):
            pass

    def drain(self) -> None:
        """Reads what stands behind the archive, so that whoever writes it can come to its end."""
        self._at = self._end
        while self._more(_SIZE, 1):
            pass


class Members:
    """The members of the tar in *pipe*. The body of a file is read with :meth:`body` before the next member."""

    def __init__(self, pipe: Supply, *, limit: int) -> None:
        self._pipe = pipe
        self._limit = limit
        self._left = 0  # of the current member's body
        self._padding = 0
        self.count = 0

    def body(self) -> Iterator[memoryview]:
        """The contents of the current file."""
        left, self._left = self._left, 0
        yield from self._pipe.pieces(left)

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[str, bytes] = {}
        default: dict[str, bytes] = {}
        while (header := self._header()) is not None:
            size, kind = number(header[124:136]), header[156:157]
            if kind in (b"x", b"g", b"L", b"K"):
                self._extend(kind, size, pax, default)
                continue
            self.count += 1
            if self.count > self._limit:
                raise BadTar(f"the archive has more than {self._limit} entries")
            entry = entry_of(header, kind, size, 0, {**default, **pax})
            pax = {}
            self._left = entry.size if entry.kind == FILE else 0
            self._padding = -self._left % BLOCK
            yield entry
            self._pipe.skip(self._left + self._padding)
        self._pipe.drain()

    def _header(self) -> bytes | None:
        """The next header; None at the end of the archive."""
        header = self._pipe.take(BLOCK)
        if not header or (len(header) == BLOCK and not header.strip(b"\0")):
            return None
        if len(header) < BLOCK:
            raise BadTar("the archive ends in the middle of a header")
        try:
            fits = sum_fits(header)
        except BadTar:  # where the sum should be is no number
            fits = False
        if not fits:
            raise BadTar("this is no tar archive, or it is damaged: a header has a wrong checksum")
        return header

    def _extend(self, kind: bytes, size: int, pax: dict[str, bytes], default: dict[str, bytes]) -> None:
        if size > HEADER_LIMIT:
            raise BadTar(f"a header of {size} bytes is refused")
        data = self._pipe.take(size)
        if len(data) != size:
            raise BadTar("the archive ends in the middle of a header")
        self._pipe.skip(-size % BLOCK)
        if kind == b"x":
            pax.update(pax_records(data))
        elif kind == b"g":
            default.update(pax_records(data))
        else:
            pax["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")
