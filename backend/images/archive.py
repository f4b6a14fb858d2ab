"""Load: docker's tars and OCI layouts, and a root file system's tar for import. Nothing of an archive is ever unpacked,
so no name or link in it can lead anywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import InvalidArgument, NotFound
from backend.images.intake import Intake, Stream, inflated
from backend.images.types import Progress, ProgressLine
from backend.images.work import in_thread
from backend.runtime import tarstream
from backend.spec.image import (
    DOCUMENT_LIMIT,
    OCI_INDEX,
    Descriptor,
    Index,
    Manifest,
    Platform,
    choose,
    decode_config,
    decode_manifest,
    digest_of,
)
from backend.spec.reference import is_digest, parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore

_DEPTH_LIMIT = 3
_PARALLEL = 2
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


async def spool(store: ImageStore, source: AsyncIterator[bytes]) -> str:
    """A tar (plain, gzip, zstd, xz, bzip2) as a layer's blob. Returns its diff ID.

    Raises:
        InvalidArgument: the stream is damaged or no tar.
    """

    def take(pieces: Iterator[bytes]) -> str:
        with store.blobs.ingest() as new:
            for piece in inflated(pieces):
                new.write(piece)
            _check_tar(new.fd)
            return new.commit()

    return await Stream().through(source, take)


def _check_tar(fd: int) -> None:
    if not os.fstat(fd).st_size:
        raise InvalidArgument("the archive is empty")
    try:
        next(tarstream.entries(fd, limit=1), None)
    except tarstream.BadTar as error:
        raise InvalidArgument(f"this is no tar archive: {error}") from error


@dataclass(frozen=True, slots=True)
class _Found:
    """One image of an archive. *manifests*: the one that it is made by, then those above it."""

    config: bytes
    layers: tuple[str, ...]
    names: tuple[str, ...]
    manifests: tuple[str, ...] = ()
    referrers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that an archive brings. *blob*: the digest of its member, where that is kept as it is."""

    member: str
    diff_id: str
    blob: str = ""


async def load(
    store: ImageStore, source: AsyncIterator[bytes], progress: Progress, quiet: bool, wish: Platform | None = None
) -> list[str]:
    """Take in all images of an archive. Returns their names, IDs where they have none.

    Raises:
        InvalidArgument: it is no archive of images, or a part of it is not what it says.
    """
    loop = asyncio.get_running_loop()

    def tell(line: ProgressLine) -> None:
        if not quiet:
            loop.call_soon_threadsafe(progress, line)

    with Intake(store.blobs) as intake:
        await Stream().through(source, intake.read)
        reader = _Reader(store, intake, wish)
        found = await asyncio.to_thread(reader.read)
        await _take_layers(store, intake, reader.layers, tell)
        loaded = []
        with store.batch():
            for one in found:
                loaded += await _add(store, one, progress)
        return loaded


async def _add(store: ImageStore, one: _Found, progress: Progress) -> list[str]:
    for name in one.names:
        _tell_renamed(store, name, one, progress)
    image = await store.add(
        one.config, one.layers, names=one.names, manifests=one.manifests, referrers=one.referrers
    )
    kind = "Loaded image" if one.names else "Loaded image ID"
    names = [parse(each).familiar for each in one.names] or [image.id]
    for name in names:
        progress(ProgressLine(stream=f"{kind}: {name}\n"))
    return names


def _tell_renamed(store: ImageStore, name: str, one: _Found, progress: Progress) -> None:
    try:
        old = store.get(name)
    except NotFound:
        return
    if old.id != digest_of(one.config):
        progress(
            ProgressLine(
                stream=f"The image {parse(name).familiar} already exists, renaming the old one with ID "
                f"{old.id} to empty string\n"
            )
        )


async def _take_layers(store: ImageStore, intake: Intake, layers: Iterable[_Layer], tell: Progress) -> None:
    """Every layer into the store and ready, some at a time."""
    stop, slots = threading.Event(), asyncio.Semaphore(_PARALLEL)

    async def one(layer: _Layer) -> None:
        async with slots, store.layers.arriving(layer.diff_id):
            await in_thread(stop, _take_layer, store, intake, layer, tell)
            await store.layers.prepare(layer.diff_id)

    tasks = [asyncio.ensure_future(one(layer)) for layer in layers]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _take_layer(store: ImageStore, intake: Intake, layer: _Layer, tell: Progress) -> None:
    """In a thread: the layer's tar, inflated where need be, as a blob that is checked against its diff ID."""
    here = store.blobs.has(layer.diff_id)
    if not here and not intake.keep(layer.member, layer.diff_id):
        _inflate(store, intake, layer, tell)
    wanted = layer.blob and layer.blob != layer.diff_id and not store.blobs.has(layer.blob)
    if wanted and not intake.keep(layer.member, layer.blob):
        _copy(store, intake, layer)
    if not here:
        size = store.blobs.size(layer.diff_id)
        tell(ProgressLine(status="Loading layer", id=layer.diff_id[7:19], current=size, total=size))


def _inflate(store: ImageStore, intake: Intake, layer: _Layer, tell: Progress) -> None:
    total, done = intake.size(layer.member), 0

    def counted() -> Iterator[bytes]:
        nonlocal done
        for piece in intake.pieces(layer.member):
            done += len(piece)
            tell(ProgressLine(status="Loading layer", id=layer.diff_id[7:19], current=done, total=total))
            yield piece

    with store.blobs.ingest() as new:
        for plain in inflated(counted()):
            new.write(plain)
        if layer.blob:  # the compressed form is kept: it can be made again
            store.layers.settler.mark(layer.diff_id, ())
        new.commit(layer.diff_id, sync=not layer.blob)


def _copy(store: ImageStore, intake: Intake, layer: _Layer) -> None:
    with store.blobs.ingest() as new:
        for piece in intake.pieces(layer.member):
            new.write(piece)
        new.commit(layer.blob)


class _Reader:
    """Finds the images of an archive; their documents go into the store. ``layers``: what they need."""

    def __init__(self, store: ImageStore, intake: Intake, wish: Platform | None) -> None:
        self._store = store
        self._intake = intake
        self._wish = wish
        self._layers: dict[str, _Layer] = {}

    @property
    def layers(self) -> list[_Layer]:
        """Each once, in the order in which they were met."""
        return list(self._layers.values())

    def read(self) -> list[_Found]:
        """All images. Raises :class:`InvalidArgument`."""
        docker = self._intake.document("manifest.json")
        index = self._intake.document("index.json")
        # An archive that is both is read as docker's for its names; as an OCI layout it keeps its manifests' digests.
        if index is not None and self._intake.document("oci-layout") is not None:
            found = self._layout(index, _docker_names(docker))
            if found:
                return found
        if docker is None:
            raise InvalidArgument(
                "the archive has neither a manifest.json (docker save) nor an index.json (OCI layout)"
            )
        return self._docker(docker)

    def _need(self, layer: _Layer) -> None:
        known = self._layers.get(layer.diff_id)
        if known is None or (layer.blob and not known.blob):
            self._layers[layer.diff_id] = layer

    # --- docker's form ------------------------------------------------------------------------------------------
    def _docker(self, data: bytes) -> list[_Found]:
        found = []
        for row in _rows(data):
            config = self._intake.needed(_member(str(row.get("Config", ""))))
            details = decode_config(config)
            layers = _strings(row, "Layers")
            if len(layers) != len(details.rootfs.diff_ids):
                raise InvalidArgument("the archive has another number of layers than its image says")
            self._check_platform(Platform(details.os, details.architecture, details.variant or ""))
            for diff_id, member in zip(details.rootfs.diff_ids, layers, strict=True):
                self._need(_Layer(_member(member), diff_id))
            names = tuple(map(normal, _strings(row, "RepoTags")))
            found.append(_Found(config, tuple(details.rootfs.diff_ids), names))
        return found

    def _check_platform(self, has: Platform) -> None:
        if self._wish is not None and not self._wish.fits(has):
            raise NotFound(f"the archive's image is for {has}, not for the specified platform ({self._wish})")

    # --- OCI layouts --------------------------------------------------------------------------------------------
    def _layout(self, data: bytes, docker: dict[str, list[str]]) -> list[_Found]:
        top = decode_manifest(data, OCI_INDEX)
        if not isinstance(top, Index):
            raise InvalidArgument("index.json in the archive is no index")
        found: dict[str, _Found] = {}
        referring: dict[str, list[str]] = {}
        for entry in top.manifests:
            subject = self._subject(entry)
            if subject:
                referring.setdefault(subject, []).append(entry.digest)
                continue
            one = self._image(entry, ())
            if one is None:
                continue
            member = blob_member(digest_of(one.config))
            names = _annotated(entry) or [normal(name) for name in docker.get(member, [])]
            old = found.get(entry.digest)  # an image of several names has an entry for each
            names = [*(old.names if old else ()), *names]
            found[entry.digest] = _Found(one.config, one.layers, tuple(dict.fromkeys(names)), one.manifests)
        return [_with_referrers(one, referring) for one in found.values()]

    def _subject(self, entry: Descriptor) -> str:
        """What the manifest behind *entry* refers to; it comes into the store with its blobs. "" for an image."""
        data = self._intake.document(blob_member(entry.digest)) if is_digest(entry.digest) else None
        if data is None:
            return ""
        document = decode_manifest(data, entry.media_type)
        if not isinstance(document, Manifest) or document.subject is None:
            return ""
        self._put(data, entry.digest)
        self._put_blobs(document)
        return document.subject.digest

    def _put_blobs(self, document: Manifest) -> None:
        """The small blobs of what is no image."""
        for blob in (document.config, *document.layers):
            data = self._intake.document(blob_member(blob.digest))
            if data is not None:
                self._put(data, blob.digest)

    def _image(self, entry: Descriptor, above: tuple[str, ...]) -> _Found | None:
        """The image behind *entry*; None: the archive has it not (indexes name more platforms than they bring)."""
        if len(above) > _DEPTH_LIMIT:
            raise InvalidArgument("the archive nests indexes too deeply")
        if not is_digest(entry.digest):
            raise InvalidArgument(f"the archive names the digest {entry.digest[:80]!r}; only sha256 is supported")
        data = self._intake.document(blob_member(entry.digest))
        if data is None:
            return None
        document = decode_manifest(data, entry.media_type)
        digest = self._put(data, entry.digest)
        if isinstance(document, Index):
            return self._chosen(document, (digest, *above))
        return self._manifest(document, (digest, *above))

    def _chosen(self, index: Index, above: tuple[str, ...]) -> _Found | None:
        """The image of *index* that can be run here, else the only one that the archive brings."""
        from backend.images.parts import is_attestation
        from backend.images.store import host_platform

        here = [one for one in index.manifests if self._intake.document(blob_member(one.digest)) is not None]
        images = [one for one in here if not is_attestation(one)]
        chosen = choose(Index(images), self._wish or host_platform())
        if chosen is None and self._wish is None and len(images) == 1:
            chosen = images[0]
        if chosen is None:
            return None
        for entry in here:
            if is_attestation(entry):
                data = self._intake.needed(blob_member(entry.digest))
                document = decode_manifest(data, entry.media_type)
                self._put(data, entry.digest)
                if isinstance(document, Manifest):
                    self._put_blobs(document)
        return self._image(chosen, above)

    def _manifest(self, document: Manifest, digests: tuple[str, ...]) -> _Found:
        config = self._intake.needed(blob_member(document.config.digest))
        self._put(config, document.config.digest)
        details = decode_config(config)
        if len(details.rootfs.diff_ids) != len(document.layers):
            raise InvalidArgument("the image's configuration names another number of layers than its manifest")
        self._check_platform(Platform(details.os, details.architecture, details.variant or ""))
        for diff_id, layer in zip(details.rootfs.diff_ids, document.layers, strict=True):
            self._need(_Layer(blob_member(layer.digest), diff_id, layer.digest))
        return _Found(config, tuple(details.rootfs.diff_ids), (), digests)

    def _put(self, data: bytes, digest: str) -> str:
        with self._store.blobs.ingest(DOCUMENT_LIMIT) as new:
            new.write(data)
            return new.commit(digest)


def _with_referrers(one: _Found, referring: dict[str, list[str]]) -> _Found:
    about = [digest for manifest in one.manifests for digest in referring.get(manifest, [])]
    return _Found(one.config, one.layers, one.names, one.manifests, tuple(about))


def _rows(data: bytes) -> list[dict[str, Any]]:
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"manifest.json in the archive is not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidArgument("manifest.json in the archive is not a list of images")
    return rows


def _strings(row: dict[str, Any], key: str) -> list[str]:
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidArgument(f"{key} in the archive's manifest.json is not a list of names")
    return value


def _member(name: str) -> str:
    """A member's name as the archive's own documents write it. Raises :class:`InvalidArgument`."""
    try:
        return os.fsdecode(b"/".join(tarstream.components(os.fsencode(name))))
    except (tarstream.BadTar, ValueError) as error:
        raise InvalidArgument(f"the archive cannot be read: {error}") from error


def _docker_names(data: bytes | None) -> dict[str, list[str]]:
    """Names by the configuration's member, as docker's part of an archive has them."""
    if data is None:
        return {}
    return {_member(str(row.get("Config", ""))): _strings(row, "RepoTags") for row in _rows(data)}


def normal(name: str) -> str:
    """*name* in full, with its tag. Raises :class:`InvalidArgument`."""
    reference = parse(name).with_default_tag()
    return f"{reference.repository}:{reference.tag}"


def _annotated(entry: Descriptor) -> list[str]:
    """The name that an index gives an image: in full by containerd, by tag alone or in full by others."""
    notes = entry.annotations or {}
    name = notes.get(IMAGE_NAME) or notes.get(REF_NAME) or ""
    if "/" not in name and ":" not in name:
        return []  # a bare tag names no repository
    try:
        return [normal(name)]
    except InvalidArgument:
        return []  # other tools write paths and words of their own here


def blob_member(digest: str) -> str:
    """Where an OCI layout has a blob."""
    return f"blobs/{digest.replace(':', '/', 1)}"
