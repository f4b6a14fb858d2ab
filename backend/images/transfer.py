"""Pull: reference → manifest (through indexes) → configuration → layers in parallel → image.

Each layer is one pass in one thread: bytes from the network are hashed, kept as the blob that they are, inflated,
hashed again and kept as the tar that the layer is. Nothing is visible before both digests are what was promised.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from backend.errors import EngineError, InvalidArgument, NotFound, ServerError
from backend.images.companions import Companions
from backend.images.content import WrongDigest
from backend.images.inflate import Inflater
from backend.images.registry import Fetched, Registry, endpoints
from backend.images.types import Image, Progress, ProgressLine, RegistryAuth, retrying
from backend.images.work import in_thread
from backend.spec.image import (
    DOCUMENT_LIMIT,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    choose,
    decode_config,
    decode_manifest,
)
from backend.spec.reference import Reference

if TYPE_CHECKING:
    from backend.images.store import ImageStore

T = TypeVar("T")
_PARALLEL = 3  # layers at a time, as docker's default
_DEPTH_LIMIT = 3  # indexes in indexes
_LAYER_LIMIT = 500  # what overlayfs can stack
_PACE = 0.1  # seconds between two progress lines of a layer


class _Tell(Protocol):
    def __call__(self, current: int, status: str = "") -> None:
        """Say how far a layer is."""


class Pull:
    """One pull, from its first request to the image."""

    def __init__(
        self,
        store: ImageStore,
        reference: Reference,
        platform: Platform | None,
        auth: RegistryAuth | None,
        progress: Progress,
    ) -> None:
        self._store = store
        self._reference = reference.with_default_tag()
        self._platform = platform
        self._auth = auth
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._manifests: list[str] = []
        self._indexes: list[Index] = []
        self._beside: asyncio.Future[list[str]] | None = None
        self._here = self._complete()

    async def run(self) -> Image:
        """Do it. Raises :class:`EngineError`; a cancelled pull leaves nothing half-made visible."""
        try:
            registry, fetched = await self._thread(self._reach)
            try:
                return self._unchanged() if fetched is None else await self._from(registry, fetched)
            finally:
                self._stop.set()
                if self._beside is not None:
                    await asyncio.gather(self._beside, return_exceptions=True)
                registry.close()
        except OSError as error:
            raise ServerError(f"the image could not be stored: {error.strerror or error}") from error
        finally:
            self._stop.set()

    # --- manifests ----------------------------------------------------------------------------------------------
    @property
    def _which(self) -> str:
        return self._reference.digest or self._reference.tag

    def _reach(self) -> tuple[Registry, Fetched | None]:
        """The first endpoint that has the manifest; None for the manifest: it is the one that is here already. Where a
        mirror knows no such image and the registry behind it cannot be reached, the mirror's answer is the better one.
        """
        missing: EngineError | None = None
        last: EngineError | None = None
        for endpoint in endpoints(self._reference, self._store.settings):
            registry = Registry(endpoint, self._reference, self._auth, self._stop, self._store.settings)
            try:
                registry.connect()
                if self._here is not None:
                    meant = registry.head(self._which)
                    if meant is not None and meant.digest == self._here:
                        return registry, None
                return registry, registry.manifest(self._which)
            except EngineError as error:
                registry.close()
                last = error
                missing = error if isinstance(error, NotFound) else missing
            except BaseException:
                registry.close()
                raise
        assert last is not None
        raise missing or last

    def _complete(self) -> str | None:
        """The digest that the reference means here, where its image is whole and for the wished platform."""
        store, reference = self._store, self._reference
        try:
            image = store.get(reference.familiar)
            record = store.record(image.id)
            store.check_platform(image, reference.familiar, self._platform)
        except NotFound:
            return None
        name = f"{reference.repository}@{reference.digest}" if reference.digest else (
            f"{reference.repository}:{reference.tag}")
        top = record.tops.get(name, "")
        whole = f"{reference.repository}@{top}" in record.digests and all(map(store.layers.has, record.layers))
        return top if whole else None

    def _unchanged(self) -> Image:
        """The image that is here and is what the registry has."""
        self._progress(ProgressLine(status=f"Pulling from {self._reference.path}", id=self._which))
        self._progress(ProgressLine(status=f"Digest: {self._here}"))
        self._progress(ProgressLine(status=f"Status: Image is up to date for {self._reference.familiar}"))
        return self._store.get(self._reference.familiar)

    async def _from(self, registry: Registry, fetched: Fetched) -> Image:
        self._progress(ProgressLine(status=f"Pulling from {self._reference.path}", id=self._which))
        top = fetched.digest
        manifest, fetched = await self._thread(self._choose, registry, fetched)
        config = await self._thread(self._config, registry, manifest)
        details = decode_config(config)
        self._check(manifest, details)
        known = self._known(manifest.config.digest, top)
        self._beside = asyncio.ensure_future(self._thread(self._companions, registry, fetched.digest, top))
        await self._layers(registry, manifest, details)
        referrers = await self._beside
        names = [f"{self._reference.repository}:{self._reference.tag}"] if not self._reference.digest else []
        image = await self._store.add(
            config,
            details.rootfs.diff_ids,
            names=names,
            digests=[f"{self._reference.repository}@{top}"],
            manifests=[fetched.digest, *(one for one in self._manifests if one != fetched.digest)],
            referrers=referrers,
        )
        self._progress(ProgressLine(status=f"Digest: {top}"))
        word = "Image is up to date for" if known else "Downloaded newer image for"
        self._progress(ProgressLine(status=f"Status: {word} {self._reference.familiar}"))
        return image

    def _companions(self, registry: Registry, digest: str, top: str) -> list[str]:
        """In a thread: what speaks of the image; the manifests that refer to it."""
        fetch = Companions(registry, self._store.blobs)
        for above in self._indexes:
            fetch.attestations(above, digest)
        return fetch.referrers(tuple(dict.fromkeys((digest, top))))

    def _known(self, image: str, top: str) -> bool:
        """Whether the reference already means this image."""
        try:
            old = self._store.get(self._reference.familiar)
        except NotFound:
            return False
        return old.id == image and f"{self._reference.familiar_name}@{top}" in old.digests

    def _choose(self, registry: Registry, fetched: Fetched) -> tuple[Manifest, Fetched]:
        """Down through indexes to the manifest for the platform; every document on the way is kept."""
        from backend.images.store import host_platform

        wish = self._platform or host_platform()
        for _ in range(_DEPTH_LIMIT + 1):
            document = decode_manifest(fetched.data, fetched.media_type)
            self._manifests.insert(0, self._store.blobs.put(fetched.data))
            if isinstance(document, Manifest):
                return document, fetched
            self._indexes.append(document)
            entry = self._entry(document, wish)
            if entry.size > DOCUMENT_LIMIT:
                raise InvalidArgument(
                    f"the manifest {entry.digest} is larger than {DOCUMENT_LIMIT >> 20} MiB and is refused"
                )
            fetched = registry.manifest(entry.digest)
            if len(fetched.data) != entry.size:
                raise ServerError(
                    f"the manifest {entry.digest} has {len(fetched.data)} bytes, not {entry.size} as its index says"
                )
        raise InvalidArgument(f"{self._reference.familiar}: indexes are nested too deeply")

    def _entry(self, index: Index, wish: Platform) -> Descriptor:
        entry = choose(index, wish)
        if entry is None:
            raise NotFound(f"no matching manifest for {wish} in the manifest list entries")
        return entry

    def _config(self, registry: Registry, manifest: Manifest) -> bytes:
        wanted = manifest.config
        if wanted.size > DOCUMENT_LIMIT:
            raise InvalidArgument(f"the image configuration is larger than {DOCUMENT_LIMIT >> 20} MiB and is refused")
        if self._store.blobs.has(wanted.digest):
            try:
                return self._store.blobs.read(wanted.digest)
            except NotFound:  # the disk has spoiled it
                self._store.blobs.remove(wanted.digest)
        with self._store.blobs.ingest(wanted.size) as new:
            data = b"".join(registry.blob(wanted.digest, wanted.size))
            new.write(data)
            new.commit(wanted.digest)
        return data

    def _check(self, manifest: Manifest, details: ImageConfig) -> None:
        if len(manifest.layers) != len(details.rootfs.diff_ids):
            raise InvalidArgument(
                f"{self._reference.familiar} is no image that can be run: its configuration has "
                f"{len(details.rootfs.diff_ids)} layers and its manifest {len(manifest.layers)}"
            )
        if len(manifest.layers) > _LAYER_LIMIT:
            raise InvalidArgument(f"the image has {len(manifest.layers)} layers; at most {_LAYER_LIMIT} can be stacked")
        if details.os not in ("", "linux"):
            raise InvalidArgument(f'image operating system "{details.os}" cannot be used on this platform')
        has = Platform(details.os, details.architecture, details.variant or "")
        if self._platform is not None and not self._platform.fits(has):
            raise NotFound(
                f"image with reference {self._reference.familiar} was found but its platform ({has}) does not "
                f"match the specified platform ({self._platform})"
            )

    # --- layers -------------------------------------------------------------------------------------------------
    async def _layers(self, registry: Registry, manifest: Manifest, details: ImageConfig) -> None:
        pairs = list(zip(manifest.layers, details.rootfs.diff_ids, strict=True))
        jobs: dict[str, tuple[Descriptor, str]] = {}
        for layer, diff_id in pairs:
            short = layer.digest[7:19]
            if self._store.layers.has(diff_id):
                self._progress(ProgressLine(status="Already exists", id=short))
            elif diff_id not in jobs:
                jobs[diff_id] = (layer, diff_id)
                self._progress(ProgressLine(status="Pulling fs layer", id=short))
        for layer, _ in list(jobs.values())[_PARALLEL:]:
            self._progress(ProgressLine(status="Waiting", id=layer.digest[7:19]))
        tasks = [asyncio.ensure_future(self._layer(registry, layer, diff_id)) for layer, diff_id in jobs.values()]
        try:
            for task in tasks:  # "Pull complete" comes in the order of the image, as docker draws it
                line = await task
                self._progress(line)
        finally:
            if not all(task.done() for task in tasks):
                self._stop.set()  # threads cannot be cancelled: they look at this between two pieces
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _layer(self, registry: Registry, layer: Descriptor, diff_id: str) -> ProgressLine:
        short = layer.digest[7:19]
        async with self._slots, self._store.layers.arriving(diff_id):
            try:
                await self._thread(self._fetch, registry, layer, diff_id)
            except WrongDigest as error:
                raise ServerError(
                    f"filesystem layer verification failed for digest {layer.digest}: {error.message}"
                ) from error
        self._progress(ProgressLine(status="Extracting", id=short, current=layer.size, total=layer.size))
        await self._store.layers.prepare(diff_id)
        return ProgressLine(status="Pull complete", id=short)

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await in_thread(self._stop, work, *arguments)

    def _fetch(self, registry: Registry, layer: Descriptor, diff_id: str) -> None:
        """In a thread: the layer's blob and its tar into the store."""
        blobs, tell, mark = self._store.blobs, self._teller(layer), self._store.layers.settler.mark
        if blobs.has(diff_id):
            return
        if blobs.has(layer.digest) and self._from_blob(layer, diff_id, tell):  # an earlier pull came so far
            return
        again = self._retrying(layer)
        with blobs.ingest(layer.size) as raw, blobs.ingest() as tar:
            # A layer that is not compressed is its own tar, written once.
            plain = layer.digest == diff_id
            source = registry.blob(layer.digest, layer.size, again)
            _inflate(source, None if plain else tar.write, raw.write, tell)
            tell(layer.size, "Verifying Checksum")
            if not plain and tar.digest != diff_id:
                raise WrongDigest(f"its contents have the digest {tar.digest}, not {diff_id} as the image says")
            raw.commit(layer.digest)
            if not plain:
                mark(diff_id, ())  # it can be made again from the blob: synced in the background
                tar.commit(diff_id, sync=False)
            tell(layer.size, "Download complete")

    def _from_blob(self, layer: Descriptor, diff_id: str, tell: _Tell) -> bool:
        """The layer's tar from its blob that is here. False: the disk has spoiled it, and it is gone."""
        blobs = self._store.blobs
        with blobs.ingest() as tar:
            try:
                _inflate(blobs.pieces(layer.digest), tar.write, None, tell)
            except InvalidArgument:
                blobs.remove(layer.digest)
                return False
            if tar.digest != diff_id:
                blobs.remove(layer.digest)
                return False
            self._store.layers.settler.mark(diff_id, ())
            tar.commit(diff_id, sync=False)
        return True

    def _retrying(self, layer: Descriptor) -> Callable[[float], None]:
        """Tells that a download broke off and goes on after so many seconds."""

        def tell(seconds: float) -> None:
            line = ProgressLine(status=retrying(seconds), id=layer.digest[7:19])
            self._loop.call_soon_threadsafe(self._progress, line)

        return tell

    def _teller(self, layer: Descriptor) -> _Tell:
        short, last = layer.digest[7:19], 0.0

        def tell(current: int, status: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if status:
                line = ProgressLine(status=status, id=short)
            elif now - last >= _PACE:
                last = now
                line = ProgressLine(status="Downloading", id=short, current=current, total=layer.size)
            else:
                return
            self._loop.call_soon_threadsafe(self._progress, line)

        return tell


def _inflate(
    source: Iterator[bytes], write: Callable[[bytes], None] | None, keep: Callable[[bytes], None] | None, tell: _Tell
) -> None:
    """*source* to *keep* as it is and to *write* inflated; either may be None."""
    inflater, done = Inflater(), 0
    for piece in source:
        if keep is not None:
            keep(piece)
        if write is not None:
            for plain in inflater.feed(piece):
                write(plain)
        done += len(piece)
        tell(done)
    if write is not None:
        write(inflater.end())
