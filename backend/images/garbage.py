"""What must stay in the store and what may go: counted from the images, the containers and the work in progress.

Nothing is ever deleted in place: what goes is renamed into ``trash/`` at once (so it is gone for everybody) and taken
off the disk in a thread. A crash in between leaves trash, which the next open sweeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Iterator

from backend.errors import InvalidArgument, NotFound
from backend.images.content import BlobStore
from backend.images.index import Record, References
from backend.images.layers import LayerStore
from backend.spec.image import Index, Manifest, decode_manifest

log = logging.getLogger("images")


class Garbage:
    """Decides and removes. All of it on the helper's loop but the deletion itself."""

    def __init__(self, blobs: BlobStore, layers: LayerStore, references: References) -> None:
        self._blobs = blobs
        self._layers = layers
        self._references = references
        self._held: dict[str, tuple[str, ...]] = {}
        self._named: dict[str, tuple[str, ...]] = {}
        self._busy = 0
        self._due = False  # something may be collected once nobody holds it
        self._emptying: asyncio.Task[None] | None = None
        #: False: an unreadable record may name blobs, so none is thrown away.
        self.all_known = True

    async def close(self) -> None:
        """Wait until the trash is empty."""
        if self._emptying is not None:
            await asyncio.wait([self._emptying])

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While something arrives or is read, nothing goes: it may need any blob of the store."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if self._due:
                self.collect()

    def hold(self, holder: str, layers: tuple[str, ...]) -> None:
        """*holder* (a container) needs *layers* until it lets them go."""
        self._held[holder] = layers

    def release(self, holder: str) -> None:
        """*holder* needs its layers no longer."""
        if self._held.pop(holder, None) is not None and self._due:
            self.collect()

    def collect(self) -> None:
        """Remove the blobs and layers that no image and no container needs; later, while something is under way."""
        self._due = True
        if self._busy or not self.all_known:
            return
        self._due = bool(self._held)
        layers, keep = self._needed()
        for layer in self._layers.all():
            if layer not in layers:
                self._layers.remove(layer)
        for digest in self._blobs.all():
            if digest not in keep:
                self._blobs.remove(digest)
                self._named.pop(digest, None)
        self._empty_trash()

    def _needed(self) -> tuple[set[str], set[str]]:
        """The layers and the blobs that must stay."""
        layers = {layer for held in self._held.values() for layer in held}
        keep = set(layers)
        for record in self._references.all():
            layers.update(record.layers)
            keep.update(self.blobs_of(record))
        return layers, keep

    def blobs_of(self, record: Record) -> set[str]:
        """Every blob that belongs to an image, whether it is here or not: documents, layers, what refers to it."""
        found = {record.id, *record.layers}
        todo = [*record.manifests, *record.referrers]
        while todo:
            digest = todo.pop()
            if digest not in found:
                found.add(digest)
                todo += self.named_by(digest)
        return found

    def named_by(self, digest: str) -> tuple[str, ...]:
        """What a manifest or index of the store names; nothing for any other blob."""
        if digest not in self._named:
            found: tuple[str, ...] = ()
            if self._blobs.has(digest) and self._blobs.is_document(digest):
                found = self._read_names(digest)
            elif not self._blobs.has(digest):
                return ()  # it may still come
            self._named[digest] = found
        return self._named[digest]

    def _read_names(self, digest: str) -> tuple[str, ...]:
        try:
            document = decode_manifest(self._blobs.read(digest))
        except (NotFound, InvalidArgument):
            return ()  # a configuration, a small layer, an artifact that we only keep; damage is the check's matter
        if isinstance(document, Index):
            return tuple(one.digest for one in document.manifests)
        assert isinstance(document, Manifest)
        return (document.config.digest, *(one.digest for one in document.layers))

    def _empty_trash(self) -> None:
        if self._emptying is None or self._emptying.done():
            self._emptying = asyncio.get_running_loop().create_task(asyncio.to_thread(self._sweep))

    def _sweep(self) -> None:
        self._empty()
        self._references.reserve()

    def _empty(self) -> None:
        folder = self._blobs.trash
        while names := os.listdir(folder):
            for name in names:
                path = f"{folder}/{name}"
                try:
                    if os.path.isdir(path):
                        shutil.rmtree(path)
                    else:
                        os.unlink(path)
                except OSError as error:
                    log.error("%s stays on the disk: %s", path, error.strerror)
                    return
