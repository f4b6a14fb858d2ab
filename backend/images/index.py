"""Which images and names the store has: one small file, replaced whole. An unreadable one is put aside, not obeyed."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec

from backend.images.content import replace_file

log = logging.getLogger("images")
_BALLAST = 2 << 20  # bytes: the list of a few thousand images


@dataclass(frozen=True, slots=True)
class Record:
    """An image as the store keeps it. *names*: full references with tag; *digests*: full names with digest;
    *manifests*: digests of the manifest that it is made by (first) and of all documents that it came with; *tops*: by
    name, the manifest or index that the name means at its registry; *referrers*: manifests that speak of the image
    (signatures, attestations); *size* of its layers in bytes."""

    id: str
    names: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    size: int = 0
    tagged: int = 0
    parent: str = ""
    layers: tuple[str, ...] = field(default=())
    tops: dict[str, str] = field(default_factory=dict)
    referrers: tuple[str, ...] = ()


class References:
    """The records by image ID, on disk at *path*."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._records: dict[str, Record] = {}
        self._batches = 0
        self._ballast = f"{path}.ballast"

    def open(self) -> bool:
        """Read the file. One that cannot be read is renamed and reported; the store then starts without names.

        Returns whether all that is meant is known: False after an unreadable file, now or earlier.
        """
        self.reserve()
        whole = not any(
            name.startswith(os.path.basename(self._path) + ".unreadable-")
            for name in os.listdir(os.path.dirname(self._path))
        )
        try:
            with open(self._path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return whole
        try:
            records = msgspec.json.decode(data, type=list[Record])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            aside = f"{self._path}.unreadable-{int(time.time())}"
            os.rename(self._path, aside)
            log.error("the list of images cannot be read (%s); it was put aside as %s", error, aside)
            return False
        self._records = {one.id: one for one in records}
        return whole

    def forget(self, image_id: str) -> None:
        """Leave a record out without writing: the next change of any image makes it final."""
        self._records.pop(image_id, None)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Changes in here are written together at the end, also of a failure: what was done is done."""
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            self._save()

    def _save(self) -> None:
        if self._batches:
            return
        data = msgspec.json.encode(list(self._records.values()))
        try:
            replace_file(self._path, data)
        except OSError as error:
            if error.errno != errno.ENOSPC or not os.path.exists(self._ballast):
                raise
            os.unlink(self._ballast)  # on a full disk images can still be removed
            replace_file(self._path, data)

    def reserve(self) -> None:
        """Keep room for writing the list on a full disk."""
        if os.path.exists(self._ballast):
            return
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _BALLAST)
        except OSError as error:
            log.warning("no room is left in reserve for the list of images: %s", error.strerror)
            os.unlink(self._ballast)
        finally:
            os.close(fd)

    def all(self) -> list[Record]:
        return list(self._records.values())

    def get(self, image_id: str) -> Record | None:
        return self._records.get(image_id)

    def by_name(self, name: str) -> Record | None:
        """The image of the full reference *name* (with tag, or with digest)."""
        return next((one for one in self._records.values() if name in one.names or name in one.digests), None)

    def put(self, record: Record) -> None:
        """Keep *record*, and take its names away from whoever had them."""
        for other in list(self._records.values()):
            if other.id != record.id and set(other.names) & set(record.names):
                kept = tuple(name for name in other.names if name not in record.names)
                self._records[other.id] = replace(other, names=kept)
        self._records[record.id] = record
        self._save()

    def remove(self, image_id: str) -> None:
        self._records.pop(image_id, None)
        self._save()
