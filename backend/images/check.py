"""Verify: every blob is hashed again, every index made again and compared; what is broken is made or fetched anew."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import EngineError, NotFound
from backend.images.hosts import endpoints
from backend.images.index import Record
from backend.images.intake import inflated
from backend.images.registry import Registry
from backend.images.types import Problem, Progress, ProgressLine, RegistryAuth
from backend.images.work import in_thread
from backend.spec.image import Manifest, decode_manifest
from backend.spec.reference import parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore


@dataclass(frozen=True, slots=True)
class _Way:
    """How a layer's tar can be had: from the blob *digest* of *size* bytes."""

    digest: str
    size: int


class Check:
    """One pass over the store."""

    def __init__(self, store: ImageStore, auth: RegistryAuth | None, progress: Progress, *, repair: bool) -> None:
        self._store = store
        self._auth = auth
        self._progress = progress
        self._repair = repair
        self._stop = threading.Event()
        self._indexed: set[str] = set()
        self.checked = 0
        self.size = 0

    async def run(self) -> list[Problem]:
        """What was wrong, and what was done about it."""
        problems: list[Problem] = []
        seen: set[str] = set()
        for record in self._store.records():
            name = parse(record.names[0]).familiar if record.names else record.id
            self._progress(ProgressLine(status="Checking", id=name))
            for digest in sorted(self._store.garbage.blobs_of(record) - seen):
                seen.add(digest)
                wrong = await self._wrong(record, digest)
                if wrong:
                    problems.append(await self._mend(record, name, digest, wrong))
            problems += await self._indexes(record, name)
        return problems

    async def _wrong(self, record: Record, digest: str) -> str:
        """What is wrong with a blob; "" for nothing."""
        if not self._store.blobs.has(digest):
            return "missing" if digest in (record.id, *record.layers, *record.manifests) else ""
        self.checked += 1
        self.size += self._store.blobs.size(digest)
        try:
            found = await in_thread(self._stop, _hash, self._store.blobs.path(digest))
        except OSError as error:
            return f"unreadable ({error.strerror})"
        return "" if found == digest else "damaged"

    async def _indexes(self, record: Record, name: str) -> list[Problem]:
        """Layers whose index is not what their tar makes; they are made anew."""
        out = []
        for layer in record.layers:
            if layer in self._indexed:
                continue
            self._indexed.add(layer)
            if not self._store.blobs.has(layer) or await self._store.layers.is_sound(layer):
                continue
            done = ""
            if self._repair:
                self._store.layers.remove(layer)
                await self._store.layers.prepare(layer)
                done = "indexed again"
            out.append(Problem(name, layer, "its index is missing or damaged", done))
        return out

    async def _mend(self, record: Record, name: str, digest: str, wrong: str) -> Problem:
        if not self._repair:
            return Problem(name, digest, wrong, "")
        try:
            how = await in_thread(self._stop, self.restore, record, digest)
        except EngineError as error:
            return Problem(name, digest, wrong, "", error.message)
        return Problem(name, digest, wrong, how)

    # --- restoring, in a thread ---------------------------------------------------------------------------------
    def restore(self, record: Record, digest: str) -> str:
        """Make the blob whole again; how that was done. Blocks.

        Raises:
            EngineError: it can be had from nowhere; the message says why.
        """
        blobs = self._store.blobs
        if blobs.has(digest):
            blobs.remove(digest)
        ways = self._ways(record) if digest in record.layers else {}
        way = ways.get(digest)
        if way is not None and blobs.has(way.digest) and _hash(blobs.path(way.digest)) == way.digest:
            self._inflate(digest, blobs.pieces(way.digest))
            return "made again from its compressed form"
        with self._registry(record) as registry:
            if way is not None:
                self._inflate(digest, self._fetched(registry, way))
            elif digest in record.manifests or digest in record.referrers:
                blobs.put(registry.manifest(digest).data)
            else:
                size = self._sizes(record).get(digest)
                if size is None:
                    raise NotFound(f"nothing says how large {digest} is; pull the image again")
                for _ in self._fetched(registry, _Way(digest, size)):
                    pass
        return f"fetched again from {parse(record.digests[0]).registry}"

    def _fetched(self, registry: Registry, way: _Way) -> Iterator[bytes]:
        """The pieces of a blob, which is in the store when they have been read."""
        if self._store.blobs.has(way.digest):
            self._store.blobs.remove(way.digest)  # damaged too, or it would have done
        with self._store.blobs.ingest(way.size) as new:
            for piece in registry.blob(way.digest, way.size):
                new.write(piece)
                yield piece
            new.commit(way.digest)

    def _inflate(self, diff_id: str, pieces: Iterator[bytes]) -> None:
        with self._store.blobs.ingest() as new:
            for plain in inflated(pieces):
                new.write(plain)
            new.commit(diff_id)

    def _registry(self, record: Record) -> _Closing:
        if not record.digests:
            raise NotFound("the image came from no registry; load or build it again")
        reference = parse(record.digests[0])
        endpoint = endpoints(reference, self._store.settings)[0]
        return _Closing(Registry(endpoint, reference, self._auth, self._stop, self._store.settings))

    def _documents(self, record: Record) -> Iterator[Manifest]:
        for digest in (*record.manifests, *record.referrers):
            try:
                document = decode_manifest(self._store.blobs.read(digest))
            except EngineError:  # damaged itself: it has a line of its own
                continue
            if isinstance(document, Manifest):
                yield document

    def _ways(self, record: Record) -> dict[str, _Way]:
        """By diff ID the blobs that the layers came as."""
        found: dict[str, _Way] = {}
        for document in self._documents(record):
            if document.config.digest == record.id and len(document.layers) == len(record.layers):
                for diff_id, layer in zip(record.layers, document.layers, strict=True):
                    if layer.digest != diff_id:
                        found.setdefault(diff_id, _Way(layer.digest, layer.size))
        return found

    def _sizes(self, record: Record) -> dict[str, int]:
        return {one.digest: one.size for document in self._documents(record)
                for one in (document.config, *document.layers)}


class _Closing:
    """A registry that is connected for a while."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __enter__(self) -> Registry:
        self._registry.connect()
        return self._registry

    def __exit__(self, *_: object) -> None:
        self._registry.close()


def _hash(path: str) -> str:
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


async def settle_doubts(store: ImageStore) -> list[str]:
    """After the machine went down: layers that were not synced are hashed, and made again where they are not whole.

    Returns those that could not be.
    """
    lost = []
    for diff_id in store.layers.doubtful:
        store.layers.remove(diff_id)
        if store.blobs.has(diff_id) and await asyncio.to_thread(_hash, store.blobs.path(diff_id)) != diff_id:
            store.blobs.remove(diff_id)
        if not store.blobs.has(diff_id) and not await asyncio.to_thread(_made_again, store, diff_id):
            lost.append(diff_id)
        store.layers.settler.clear(diff_id)
        if store.blobs.has(diff_id):
            await store.layers.prepare(diff_id)
    store.layers.doubtful.clear()
    return lost


def _made_again(store: ImageStore, diff_id: str) -> bool:
    check = Check(store, None, lambda line: None, repair=True)
    for record in store.records():
        way = check._ways(record).get(diff_id) if diff_id in record.layers else None
        if way is not None and os.path.exists(store.blobs.path(way.digest)):
            try:
                check.restore(record, diff_id)
            except EngineError:
                continue
            return True
    return False
