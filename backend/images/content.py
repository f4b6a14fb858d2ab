"""Blobs by digest, as an OCI image layout: ``blobs/sha256/HEX``. A blob is visible only when it is whole.

Ingest: write into ``ingest/``, hash while writing, compare, sync, rename. A crash leaves an ingest, which the next open
sweeps; it never leaves half a blob.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator

from backend.errors import NotFound, ServerError
from backend.runtime.syscalls import start_writeback
from backend.spec.image import DOCUMENT_LIMIT, digest_of

_PIECE = 1 << 20
_WRITEBACK = 8 << 20  # bytes after which the disk is told to begin


class WrongDigest(ServerError):
    """What arrived is not what its digest promised."""


class Ingest:
    """One blob being written. Use as a context manager: what was not committed is gone at its end."""

    def __init__(self, store: BlobStore, limit: int = -1) -> None:
        self._store = store
        self._limit = limit
        self.path = f"{store.root}/ingest/{secrets.token_hex(8)}"
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._begun = 0
        self._done = False
        self.size = 0

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self.seal()
        if not self._done:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def seal(self) -> None:
        """Nothing more is written: its descriptor is free. It can still be committed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises :class:`WrongDigest` beyond the promised size, so that nobody can fill the disk."""
        self.size += len(data)
        if 0 <= self._limit < self.size:
            raise WrongDigest(f"more than the promised {self._limit} bytes arrived")
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]
        if self.size - self._begun >= _WRITEBACK:  # so that the sync at the end has little left to wait for
            start_writeback(self.fd, self._begun, self.size - self._begun)
            self._begun = self.size

    @property
    def digest(self) -> str:
        """Of what has been written so far."""
        return "sha256:" + self._hash.hexdigest()

    def commit(self, digest: str = "", *, sync: bool = True) -> str:
        """Make it visible; *digest*: what it must be. Returns the digest. *sync*: False for what can be made again and
        is marked so (see :mod:`backend.images.settle`).

        Raises:
            WrongDigest: it is something else.
        """
        found = self.digest
        if digest and found != digest:
            raise WrongDigest(f"the contents have the digest {found}, not {digest} as promised; they were thrown away")
        if sync:
            if self.fd < 0:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            os.fsync(self.fd)
        os.rename(self.path, self._store.path(found))
        self._done = True
        self.seal()
        return found


class BlobStore:
    """The blobs under *root*."""

    def __init__(self, root: str) -> None:
        self.root = root

    def open(self) -> None:
        """Make the layout's folders and throw away what never became whole."""
        for folder in ("blobs/sha256", "ingest", "trash"):
            os.makedirs(f"{self.root}/{folder}", mode=0o700, exist_ok=True)
        for name in os.listdir(f"{self.root}/ingest"):
            os.unlink(f"{self.root}/ingest/{name}")
        for name in os.listdir(self.trash):
            if os.path.isdir(f"{self.trash}/{name}"):
                shutil.rmtree(f"{self.trash}/{name}")
            else:
                os.unlink(f"{self.trash}/{name}")
        marker = f"{self.root}/oci-layout"
        if not os.path.exists(marker):
            replace_file(marker, b'{"imageLayoutVersion":"1.0.0"}')

    @property
    def trash(self) -> str:
        """Where things lie that are gone already and not yet off the disk."""
        return f"{self.root}/trash"

    def throw_away(self, path: str) -> None:
        """Make a file or folder go at once; :class:`backend.images.garbage.Garbage` takes it off the disk."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, f"{self.trash}/{secrets.token_hex(8)}")

    def path(self, digest: str) -> str:
        return f"{self.root}/blobs/{digest.replace(':', '/', 1)}"

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        return os.stat(self.path(digest)).st_size

    def ingest(self, limit: int = -1) -> Ingest:
        """A new blob; *limit*: the size that was promised, in bytes."""
        return Ingest(self, limit)

    def put(self, data: bytes) -> str:
        """A small document; its digest."""
        digest = digest_of(data)
        try:
            whole = self.has(digest) and self.read(digest) == data
        except NotFound:  # the disk has spoiled it
            whole = False
        if not whole:
            with self.ingest() as new:
                new.write(data)
                new.commit(digest)
        return digest

    def read(self, digest: str) -> bytes:
        """A small document, checked against its digest.

        Raises:
            NotFound: it is not here, or the disk has changed it.
        """
        try:
            with open(self.path(digest), "rb") as blob:
                data = blob.read(DOCUMENT_LIMIT + 1)
        except FileNotFoundError as error:
            raise NotFound(f"the blob {digest} is missing from the store; pull the image again") from error
        if digest_of(data) != digest:
            raise NotFound(f"the blob {digest} is damaged on the disk; pull the image again")
        return data

    def pieces(self, digest: str, start: int = 0, size: int = _PIECE) -> Iterator[bytes]:
        """The contents from *start* on, in pieces of *size* bytes."""
        with open(self.path(digest), "rb", 0) as blob:
            blob.seek(start)
            while piece := blob.read(size):
                yield piece

    def is_document(self, digest: str) -> bool:
        """Whether the blob is small enough and begins like JSON."""
        with open(self.path(digest), "rb") as blob:
            return os.fstat(blob.fileno()).st_size <= DOCUMENT_LIMIT and blob.read(16).lstrip()[:1] == b"{"

    def remove(self, digest: str) -> None:
        self.throw_away(self.path(digest))

    def all(self) -> list[str]:
        """Every digest that is here."""
        return [f"sha256:{name}" for name in os.listdir(f"{self.root}/blobs/sha256")]


@contextlib.contextmanager
def disk_told(what: str) -> Iterator[None]:
    """A refusal of the disk as a :class:`ServerError` that begins with *what*; a client that left stays what it is."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise ServerError(f"{what}: {error.strerror or error}") from error


def replace_file(path: str, data: bytes) -> None:
    """Put *data* at *path* so that a crash leaves the old or the new, never a mixture."""
    temporary = f"{path}.{secrets.token_hex(4)}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
