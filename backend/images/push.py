"""Push: what a name means → its blobs, those that the registry lacks → manifests, from the leaves up → the tag.

An image that was pulled goes out with the manifest (or the whole index) that it came with, so its digest stays. One
that was made here gets a manifest of Docker's schema 2 with its layers compressed, as dockerd makes it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from backend.errors import NotFound, ServerError
from backend.images.hosts import own_endpoint
from backend.images.index import Record
from backend.images.parts import single, whole
from backend.images.registry import Outgoing, Registry, Stopped
from backend.images.types import Progress, ProgressLine, RegistryAuth, retrying
from backend.images.work import in_thread
from backend.spec.image import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEXES,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    decode_manifest,
    encode,
)
from backend.spec.reference import Reference, parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore

T = TypeVar("T")
_PARALLEL = 4
_PACE = 0.1  # seconds between two progress lines of a layer
_PIECE = 1 << 18
_SOURCES = 4  # repositories that a blob is tried to be mounted from


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes out under one name: documents, the leaves first and the named one last."""

    documents: tuple[str, ...]
    layers: tuple[tuple[str, str], ...]  # digest, the ID that progress lines show
    others: tuple[str, ...]  # configurations and what attestations are made of
    note: str = ""


class Push:
    """One push of one repository's tags, from its first request to the last tag."""

    def __init__(
        self, store: ImageStore, reference: Reference, auth: RegistryAuth | None, progress: Progress
    ) -> None:
        self._store = store
        self._reference = reference
        self._loop = asyncio.get_running_loop()
        self._tell = progress
        self._stop = threading.Event()
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._there: set[str] = set()
        endpoint = own_endpoint(reference, store.settings)
        sources = tuple(self._sources())
        self._registry = Registry(endpoint, reference, auth, self._stop, store.settings, push=True, sources=sources)

    def _sources(self) -> list[str]:
        """Other repositories of the same registry that have layers of ours, for mounting."""
        found = []
        for record in self._store.records():
            for name in record.digests:
                other = parse(name)
                if other.registry == self._reference.registry and other.path != self._reference.path:
                    found.append(other.path)
        return list(dict.fromkeys(found))[:_SOURCES]

    async def run(self, records: Sequence[tuple[str, Record]]) -> None:
        """Push the images under their tags (or, for ``sha256:...``, by digest). Raises :class:`EngineError`."""
        try:
            await self._thread(self._registry.connect)
            for which, record in records:
                await self._one(which, record)
        except OSError as error:
            raise ServerError(f"the image could not be read: {error.strerror or error}") from error
        finally:
            self._stop.set()
            self._registry.close()

    async def _one(self, which: str, record: Record) -> None:
        parcel = await self._parcel(which, record)
        if parcel.note:
            self._tell(ProgressLine(status=parcel.note))
        await self._blobs(parcel)
        for digest in parcel.documents[:-1]:
            await self._thread(self._document, digest, digest)
        top = parcel.documents[-1]
        size = await self._thread(self._document, top, which)
        await self._thread(self._referrers, record)
        full = self._reference.repository
        name = f"{full}:{which}" if not which.startswith("sha256:") else f"{full}@{which}"
        self._store.pushed(record.id, name, f"{full}@{top}", parcel.documents)
        self._tell(ProgressLine(status=f"{which}: digest: {top} size: {size}"))
        self._tell(ProgressLine(aux={"Tag": which, "Digest": top, "Size": size}))

    # --- what goes out ------------------------------------------------------------------------------------------
    async def _parcel(self, which: str, record: Record) -> Parcel:
        store = self._store
        name = f"{self._reference.repository}:{which}"
        top = which if which.startswith("sha256:") else record.tops.get(name, record.manifests[0])
        if which.startswith("sha256:") and which not in record.manifests:
            raise NotFound(f"the image has no manifest {which} that could be pushed")
        documents = await self._thread(whole, store, top)
        if documents is not None and top != self._store.own_digest(record):
            return self._pack(record, documents)
        note = ""
        alone = await self._thread(single, store, record)
        if alone is None:
            alone = await self._made(record)
        elif isinstance(decode_manifest(self._store.blobs.read(top)), Index):
            platform = store.get(record.id).details
            note = (f"Only {platform.os}/{platform.architecture} of this multi-platform image is here: its manifest "
                    f"is pushed alone")
        return self._pack(record, (alone,), note)

    async def _made(self, record: Record) -> str:
        """A manifest of the image with its layers compressed."""
        forms = await self._together([self._compress(layer) for layer in record.layers])
        config = Descriptor(DOCKER_CONFIG, record.id, self._store.blobs.size(record.id))
        data = encode({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": config, "layers": forms})
        return await self._thread(self._store.blobs.put, data)

    async def _compress(self, layer: str) -> Descriptor:
        total = self._store.usage.layer(layer)
        async with self._slots:
            tell = self._teller("Compressing", _short(layer), total)
            return await self._thread(self._store.compressor.compressed, layer, tell)

    def _pack(self, record: Record, documents: Sequence[str], note: str = "") -> Parcel:
        layers: dict[str, str] = {}
        others: dict[str, None] = {}
        for digest in documents:
            document = decode_manifest(self._store.blobs.read(digest))
            if isinstance(document, Index):
                continue
            others[document.config.digest] = None
            image = document.config.digest == record.id and len(document.layers) == len(record.layers)
            for number, layer in enumerate(document.layers):
                layers.setdefault(layer.digest, _short(record.layers[number] if image else layer.digest))
        return Parcel(tuple(documents), tuple(layers.items()), tuple(one for one in others if one not in layers), note)

    # --- blobs --------------------------------------------------------------------------------------------------
    async def _blobs(self, parcel: Parcel) -> None:
        for _, shown in parcel.layers:
            self._tell(ProgressLine(status="Preparing", id=shown))
        for _, shown in parcel.layers[_PARALLEL:]:
            self._tell(ProgressLine(status="Waiting", id=shown))
        jobs = [self._blob(digest, shown) for digest, shown in reversed(parcel.layers)]
        await self._together([*jobs, *(self._blob(digest, "") for digest in parcel.others)])

    async def _blob(self, digest: str, shown: str) -> None:
        async with self._slots:
            if digest in self._there:
                status = "Layer already exists"
            else:
                status = await self._thread(self._bring, digest, shown)
                self._there.add(digest)
        if shown:
            self._tell(ProgressLine(status=status, id=shown))

    def _bring(self, digest: str, shown: str) -> str:
        """In a thread: the blob is there afterwards. Returns docker's word for how."""
        if self._registry.has_blob(digest):
            return "Layer already exists"
        session = ""
        source = self._source_of(digest)
        if source:
            session = self._registry.mount(digest, source)
            if not session:
                return f"Mounted from {parse(f'{self._reference.registry}/{source}').familiar_name}"
        blobs = self._store.blobs
        size = blobs.size(digest)

        def pieces(start: int) -> Iterator[bytes]:
            return blobs.pieces(digest, start, _PIECE)

        tell = self._teller("Pushing", shown, size) if shown else lambda done: None
        self._registry.upload(Outgoing(digest, size, pieces, tell, self._retrying(shown)), session)
        return "Pushed"

    def _retrying(self, shown: str) -> Callable[[float], None]:
        """Tells that an upload broke off and goes on after so many seconds."""

        def tell(seconds: float) -> None:
            if shown:
                line = ProgressLine(status=retrying(seconds), id=shown)
                self._loop.call_soon_threadsafe(self._tell, line)

        return tell

    def _source_of(self, digest: str) -> str:
        """A repository of the same registry that an image with this blob was pulled from or pushed to."""
        for record in self._store.records():
            for name in record.digests:
                other = parse(name)
                if (other.registry == self._reference.registry and other.path != self._reference.path
                        and digest in self._store.garbage.blobs_of(record)):
                    return other.path
        return ""

    def _document(self, digest: str, which: str) -> int:
        """In a thread: put a manifest under *which*; its size in bytes."""
        data = self._store.blobs.read(digest)
        self._registry.put_manifest(which, data, media_type(data))
        return len(data)

    def _referrers(self, record: Record) -> None:
        """In a thread: what speaks of the image goes with it, and is entered where the registry keeps no list."""
        for digest in record.referrers:
            documents = whole(self._store, digest)
            if documents is None:
                continue
            data = self._store.blobs.read(digest)
            manifest = decode_manifest(data)
            assert isinstance(manifest, Manifest)
            for blob in (manifest.config, *manifest.layers):
                self._bring(blob.digest, "")
            if not self._registry.put_manifest(digest, data, media_type(data)):
                self._registry.enter_referrer(data)

    # --- threads and lines --------------------------------------------------------------------------------------
    async def _together(self, jobs: Sequence[Coroutine[object, object, T]]) -> list[T]:
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            if not all(task.done() for task in tasks):
                self._stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await in_thread(self._stop, work, *arguments)

    def _teller(self, status: str, shown: str, total: int) -> Callable[[int], None]:
        last = 0.0

        def tell(current: int) -> None:
            nonlocal last
            if self._stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now - last >= _PACE:
                last = now
                line = ProgressLine(status=status, id=shown, current=current, total=total)
                self._loop.call_soon_threadsafe(self._tell, line)

        return tell


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


def media_type(data: bytes) -> str:
    """What a manifest is put as: its own word, or what its fields say. Raises :class:`InvalidArgument`."""
    document = decode_manifest(data)
    return document.media_type or (INDEXES[0] if isinstance(document, Index) else OCI_MANIFEST)


def chosen(
    store: ImageStore, target: Reference, tag: str, platform: Platform | None
) -> list[tuple[str, Record]]:
    """The tags that a push is of, with their images; no *tag* = all of the repository.

    Raises:
        NotFound: there are none, or the image is for another platform.
    """
    prefix = f"{target.repository}:"
    rows = [(name.removeprefix(prefix), one) for one in store.records() for name in one.names
            if name.startswith(prefix)]
    if tag:
        digest = f"{target.repository}@{tag}"
        by_digest = [(tag, one) for one in store.records() if digest in one.digests]
        rows = [row for row in rows if row[0] == tag] or by_digest
    if not rows:
        missing = NotFound(f"An image does not exist locally with the tag: {target.familiar_name}")
        raise store.unfinished(f"{target.repository}:{tag}" if tag else target.repository) or missing
    for which, record in rows:
        store.check_platform(store.get(record.id), f"{target.familiar_name}:{which}", platform)
    return sorted(rows, key=lambda row: row[0])
