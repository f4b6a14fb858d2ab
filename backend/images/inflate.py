"""Compressed streams, told by their first bytes: gzip, zstd, xz, or none. Bounded against bombs."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Iterator
from typing import Any, Protocol

from backend.errors import InvalidArgument

#: One member may not grow beyond this; a layer of a real image is far below.
GROWTH_LIMIT = 1 << 38
_RATIO_LIMIT, _RATIO_FROM = 1200, 1 << 28  # gzip cannot do better than 1032:1; zstd and xz bombs can
_MAGIC = 6  # the longest of them, xz's


class _Engine(Protocol):
    # How much is inflated in one go: what a bomb of so many bytes makes must fit into memory.
    step: int

    def decompress(self, data: bytes) -> bytes:
        """The next plain bytes."""

    def whole(self) -> bool:
        """Whether the stream may end here."""


class _Plain:
    step = 1 << 20

    def decompress(self, data: bytes) -> bytes:
        return data

    def whole(self) -> bool:
        return True


class _Members:
    """Streams of one kind one after another (pigz, eStargz and zstd:chunked make such), padded by zeros at most."""

    def __init__(self, name: str, step: int, errors: tuple[type[Exception], ...]) -> None:
        self.step = step
        self._name = name
        self._errors = errors
        self._current = self._new()

    def _new(self) -> Any:
        raise NotImplementedError

    def decompress(self, data: bytes) -> bytes:
        out = []
        while data:
            if self._current.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                self._current = self._new()
            try:
                out.append(self._current.decompress(data))
            except self._errors as error:
                raise InvalidArgument(f"the {self._name} stream is damaged: {error}") from error
            data = self._current.unused_data if self._current.eof else b""
        return out[0] if len(out) == 1 else b"".join(out)

    def whole(self) -> bool:
        return bool(self._current.eof)


class _Gzip(_Members):
    def __init__(self) -> None:
        from isal import isal_zlib

        self._module = isal_zlib
        errors: Any = (isal_zlib.error, OSError, EOFError)  # the module's own type is an object to type checkers
        super().__init__("gzip", 1 << 17, errors)

    def _new(self) -> Any:
        return self._module.decompressobj(wbits=31)


class _Zstd(_Members):
    def __init__(self) -> None:
        import zstandard

        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        # A block of four bytes can stand for 128 KiB.
        super().__init__("zstd", 1 << 12, (zstandard.ZstdError,))

    def _new(self) -> Any:
        return self._decompressor.decompressobj()


class _Xz(_Members):
    def __init__(self) -> None:
        super().__init__("xz", 1 << 13, (lzma.LZMAError,))

    def _new(self) -> Any:
        return lzma.LZMADecompressor(memlimit=1 << 28)


class _Bzip2(_Members):
    def __init__(self) -> None:
        # A block of 45 bytes can stand for 900 kB.
        super().__init__("bzip2", 1 << 12, (OSError, ValueError, EOFError))

    def _new(self) -> Any:
        return bz2.BZ2Decompressor()


class Inflater:
    """Plain bytes of a stream whose compression its beginning tells."""

    def __init__(self) -> None:
        self._head = b""
        self._engine: _Engine | None = None
        self._in = self._out = 0

    @property
    def compressed(self) -> bool:
        """Whether it was compressed at all; known after the first piece."""
        return not isinstance(self._engine, _Plain)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes that *data* brings, in pieces. Raises :class:`InvalidArgument` for damage and bombs."""
        if self._engine is None:
            self._head += data
            if len(self._head) < _MAGIC:
                return
            data, self._head = self._head, b""
            self._engine = _engine_for(data)
        step = self._engine.step
        for at in range(0, len(data), step):
            part = data[at : at + step] if len(data) > step else data
            plain = self._engine.decompress(part)
            self._in += len(part)
            self._out += len(plain)
            if self._out > GROWTH_LIMIT or (self._out > _RATIO_FROM and self._out > self._in * _RATIO_LIMIT):
                raise InvalidArgument("the archive grows beyond all measure when it is inflated, and is refused")
            if plain:
                yield plain

    def end(self) -> bytes:
        """What is left of a stream that was shorter than any magic number.

        Raises:
            InvalidArgument: the stream broke off.
        """
        if self._engine is None:
            self._engine = _Plain()
            return self._head
        if not self._engine.whole():
            raise InvalidArgument("the compressed stream ends too early")
        return b""


def _engine_for(head: bytes) -> _Engine:
    if head.startswith(b"\x1f\x8b"):
        return _Gzip()
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return _Zstd()
    if head.startswith(b"\xfd7zXZ\x00"):
        return _Xz()
    if head.startswith(b"BZh"):
        return _Bzip2()
    return _Plain()
