"""An archive as it arrives: its members are hashed and written once, on their way, and become blobs by a rename.

The request's pieces go from the loop through a bounded queue into one thread, which inflates and takes the tar apart.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from backend.errors import InvalidArgument
from backend.images.content import BlobStore, Ingest
from backend.images.inflate import Inflater
from backend.images.transport import Stopped
from backend.images.work import in_thread
from backend.runtime import tarstream
from backend.runtime.tarpipe import Members
from backend.spec.image import DOCUMENT_LIMIT

T = TypeVar("T")
_QUEUED = 4 << 20  # bytes between the loop and the thread
_SMALL, _SMALL_TOTAL = 1 << 16, 16 << 20  # members that are kept in memory
_MEMBER_LIMIT = 100_000
_PIECE = 1 << 20


class Stream:
    """Pieces from the loop to a thread, a bounded number of bytes on their way."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = self._broken = False
        self._there = threading.Condition()
        self._room = asyncio.Event()

    async def through(self, source: AsyncIterator[bytes], work: Callable[[Iterator[bytes]], T]) -> T:
        """*work* in a thread on the pieces of *source*; its result. Whatever ends one of them ends the other."""
        stop = threading.Event()
        job = asyncio.ensure_future(in_thread(stop, work, self._give()))
        job.add_done_callback(lambda _: self._room.set())
        try:
            async for piece in source:
                if job.done():  # it failed, or has all it needs: the rest is read, so that the sender can end
                    continue
                await self._put(piece)
            self._finish(broken=False)
            return await job
        except BaseException:
            self._finish(broken=True)
            await asyncio.gather(job, return_exceptions=True)
            raise

    async def _put(self, piece: bytes) -> None:
        with self._there:
            self._pieces.append(piece)
            self._size += len(piece)
            full = self._size >= _QUEUED
            if full:
                self._room.clear()
            self._there.notify()
        if full:
            await self._room.wait()

    def _finish(self, *, broken: bool) -> None:
        with self._there:
            self._ended = True
            self._broken = self._broken or broken
            self._there.notify()

    def _give(self) -> Iterator[bytes]:
        """In the thread. Raises :class:`Stopped` where the source broke off."""
        while True:
            with self._there:
                while not self._pieces and not self._ended:
                    self._there.wait()
                if self._broken:
                    raise Stopped
                if not self._pieces:
                    return
                piece = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
                self._pieces.clear()
                self._size = 0
            self._loop.call_soon_threadsafe(self._room.set)
            yield piece


def inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The plain bytes of a stream whose compression its beginning tells."""
    inflater = Inflater()
    for piece in pieces:
        yield from inflater.feed(piece)
    if rest := inflater.end():
        yield rest


class _Fed:
    """A tar from an iterator instead of a descriptor (:class:`backend.runtime.tarpipe.Supply`)."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = memoryview(b"")

    def _more(self, most: int) -> memoryview:
        while not self._buffer:
            piece = next(self._pieces, None)
            if piece is None:
                return memoryview(b"")
            self._buffer = memoryview(piece)
        found, self._buffer = self._buffer[:most], self._buffer[most:]
        return found

    def take(self, size: int) -> bytes:
        """Exactly *size* bytes, or fewer at the end of the stream."""
        parts = []
        while size and (piece := self._more(size)):
            parts.append(piece)
            size -= len(piece)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """*size* bytes as they come. Raises :class:`BadTar` if the stream ends before."""
        while size:
            piece = self._more(size)
            if not piece:
                raise tarstream.BadTar("the archive ends in the middle of a file")
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Leaves *size* bytes out."""
        for _ in self.pieces(size):
            pass

    def drain(self) -> None:
        """Reads what stands behind the archive, so that the sender can come to its end."""
        self._buffer = memoryview(b"")
        for _ in self._pieces:
            pass


class Intake:
    """The members of an archive by name. Use as a context manager: what was not taken over is gone at its end."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._small: dict[str, bytes] = {}
        self._large: dict[str, Ingest] = {}
        self._links: dict[str, str] = {}
        self._held = 0

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._large.values():
            one.__exit__()

    def read(self, pieces: Iterator[bytes]) -> None:
        """In a thread: take the whole archive in. Raises :class:`InvalidArgument`."""
        try:
            members = Members(_Fed(inflated(pieces)), limit=_MEMBER_LIMIT)
            for entry in members:
                self._take(entry, members)
        except tarstream.BadTar as error:
            raise InvalidArgument(f"the archive cannot be read: {error}") from error

    def _take(self, entry: tarstream.Entry, members: Members) -> None:
        name = os.fsdecode(b"/".join(entry.name))
        if entry.kind == tarstream.FILE:
            self._file(name, entry.size, members)
        elif entry.kind in (tarstream.SYMLINK, tarstream.LINK):
            # Older dockers wrote a shared layer once and links to it: looked up among the members, never followed.
            above = b"" if entry.kind == tarstream.LINK else b"/".join(entry.name[:-1]) + b"/"
            self._links[name] = os.fsdecode(b"/".join(tarstream.components(above + entry.link)))
        elif entry.kind != tarstream.DIRECTORY:
            raise InvalidArgument(f"the archive has a device or pipe ({name}) and is refused")

    def _file(self, name: str, size: int, members: Members) -> None:
        old = self._large.pop(name, None)
        if old is not None:
            old.__exit__()
        if size <= _SMALL and self._held + size <= _SMALL_TOTAL:
            self._held += size
            self._small[name] = b"".join(members.body())
            return
        self._small.pop(name, None)
        new = self._large[name] = self._blobs.ingest()
        for piece in members.body():
            new.write(piece)
        new.seal()

    def _name(self, name: str) -> str:
        for _ in range(8):
            if name not in self._links:
                return name
            name = self._links[name]
        raise InvalidArgument(f"too many links in the archive at {name}")

    def document(self, name: str) -> bytes | None:
        """A small member; None: it is not there."""
        name = self._name(name)
        if name in self._small:
            return self._small[name]
        large = self._large.get(name)
        if large is None:
            return None
        if large.size > DOCUMENT_LIMIT:
            raise InvalidArgument(f"{name} in the archive is larger than {DOCUMENT_LIMIT >> 20} MiB and is refused")
        return b"".join(_pieces(large.path))

    def needed(self, name: str) -> bytes:
        """A small member that must be there. Raises :class:`InvalidArgument`."""
        data = self.document(name)
        if data is None:
            raise _missing(name)
        return data

    def size(self, name: str) -> int:
        """Bytes of a member. Raises :class:`InvalidArgument`: it is not there."""
        name = self._name(name)
        if name in self._small:
            return len(self._small[name])
        if name in self._large:
            return self._large[name].size
        raise _missing(name)

    def pieces(self, name: str) -> Iterator[bytes]:
        """The contents of a member. Raises :class:`InvalidArgument`: it is not there."""
        name = self._name(name)
        if name in self._small:
            yield self._small[name]
        elif name in self._large:
            yield from _pieces(self._large[name].path)
        else:
            raise _missing(name)

    def keep(self, name: str, digest: str) -> bool:
        """Make a member the blob *digest* if that is what it is; it is a member no longer then."""
        name = self._name(name)
        large = self._large.get(name)
        if large is not None and large.digest == digest:
            large.commit(digest)
            del self._large[name]
            return True
        return False


def _missing(name: str) -> InvalidArgument:
    return InvalidArgument(f"the archive says that it has {name[:200]}, and has not")


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb", 0) as file:
        while piece := file.read(_PIECE):
            yield piece
