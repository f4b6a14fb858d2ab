"""Archives: load of docker's and OCI layout tars, save in a form that is both, a root file system's tar for import.

An archive is spooled and inflated to one file in the store, then read by offsets: nothing of it is ever unpacked, so
no name or link in it can lead anywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import InvalidArgument
from backend.images.content import Ingest
from backend.images.inflate import Inflater
from backend.images.types import Image, Progress, ProgressLine
from backend.runtime import tarstream
from backend.spec.image import (
    DOCUMENT_LIMIT,
    INDEXES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    choose,
    decode_config,
    decode_manifest,
    encode,
)
from backend.spec.reference import is_digest, parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore

_PIECE = 1 << 20
_MEMBER_LIMIT = 100_000
_DEPTH_LIMIT = 3
_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"


async def _spool_into(target: Ingest, source: AsyncIterator[bytes]) -> None:
    """*source*, inflated, into *target*."""
    inflater = Inflater()

    def take(piece: bytes) -> None:
        for plain in inflater.feed(piece):
            target.write(plain)

    async for piece in source:
        await asyncio.to_thread(take, piece)
    target.write(inflater.end())


async def spool(store: ImageStore, source: AsyncIterator[bytes]) -> str:
    """A tar (plain, gzip, zstd, xz) as a layer's blob. Returns its diff ID.

    Raises:
        InvalidArgument: the stream is damaged or no tar.
    """
    with store.blobs.ingest() as new:
        await _spool_into(new, source)
        await asyncio.to_thread(_check_tar, new.fd)
        return await asyncio.to_thread(new.commit)


def _check_tar(fd: int) -> None:
    if not os.fstat(fd).st_size:
        raise InvalidArgument("the archive is empty")
    try:
        next(tarstream.entries(fd, limit=_MEMBER_LIMIT), None)
    except tarstream.BadTar as error:
        raise InvalidArgument(f"this is no tar archive: {error}") from error


class _Archive:
    """The members of a spooled archive by name."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._files: dict[str, tarstream.Entry] = {}
        self._links: dict[str, str] = {}
        try:
            for entry in tarstream.entries(fd, limit=_MEMBER_LIMIT):
                self._take(entry)
        except tarstream.BadTar as error:
            raise InvalidArgument(f"the archive cannot be read: {error}") from error

    def _take(self, entry: tarstream.Entry) -> None:
        name = os.fsdecode(b"/".join(entry.name))
        if entry.kind == tarstream.FILE:
            self._files[name] = entry
        elif entry.kind in (tarstream.SYMLINK, tarstream.LINK):
            # Older dockers wrote a shared layer once and links to it: looked up among the members, never followed.
            above = b"" if entry.kind == tarstream.LINK else b"/".join(entry.name[:-1]) + b"/"
            self._links[name] = os.fsdecode(b"/".join(tarstream.components(above + entry.link)))
        elif entry.kind != tarstream.DIRECTORY:
            raise InvalidArgument(f"the archive has a device or pipe ({name}) and is refused")

    def find(self, name: str) -> tarstream.Entry | None:
        for _ in range(8):
            if name not in self._links:
                return self._files.get(name)
            name = self._links[name]
        raise InvalidArgument(f"too many links in the archive at {name}")

    def document(self, name: str) -> bytes | None:
        """A small member; None: it is not there."""
        entry = self.find(name)
        if entry is None:
            return None
        if entry.size > DOCUMENT_LIMIT:
            raise InvalidArgument(f"{name} in the archive is larger than {DOCUMENT_LIMIT >> 20} MiB and is refused")
        return os.pread(self._fd, entry.size, entry.data)

    def needed(self, name: str) -> bytes:
        data = self.document(name)
        if data is None:
            raise InvalidArgument(f"the archive says that it has {name[:200]}, and has not")
        return data

    def copy(self, name: str, write: Callable[[bytes], None]) -> None:
        entry = self.find(name)
        if entry is None:
            raise InvalidArgument(f"the archive says that it has {name[:200]}, and has not")
        at, left = entry.data, entry.size
        while left:
            piece = os.pread(self._fd, min(left, _PIECE), at)
            if not piece:
                raise InvalidArgument("the archive ends too early")
            write(piece)
            at += len(piece)
            left -= len(piece)


@dataclass(frozen=True, slots=True)
class _Found:
    """One image of an archive, its blobs in the store."""

    config: bytes
    layers: tuple[str, ...]
    names: tuple[str, ...]
    manifests: tuple[str, ...] = ()


async def load(store: ImageStore, source: AsyncIterator[bytes], progress: Progress, quiet: bool) -> list[str]:
    """Take in all images of an archive. Returns their names, IDs where they have none.

    Raises:
        InvalidArgument: it is no archive of images, or a part of it is not what it says.
    """
    loop = asyncio.get_running_loop()

    def tell(line: ProgressLine) -> None:
        if not quiet:
            loop.call_soon_threadsafe(progress, line)

    with store.blobs.ingest() as spooled:
        await _spool_into(spooled, source)
        found = await asyncio.to_thread(_read, store, spooled.fd, tell)
        loaded = []
        for one in found:
            for name in one.names:
                _tell_renamed(store, name, one, progress)
            image = await store.add(one.config, one.layers, names=one.names, manifests=one.manifests)
            for name in [parse(each).familiar for each in one.names] or [image.id]:
                kind = "Loaded image" if one.names else "Loaded image ID"
                progress(ProgressLine(stream=f"{kind}: {name}\n"))
                loaded.append(name)
        return loaded


def _tell_renamed(store: ImageStore, name: str, one: _Found, progress: Progress) -> None:
    from backend.errors import NotFound
    from backend.spec.image import digest_of

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


def _read(store: ImageStore, fd: int, tell: Progress) -> list[_Found]:
    archive = _Archive(fd)
    docker = archive.document("manifest.json")
    index = archive.document("index.json")
    # An archive that is both is read as docker's for its names; as an OCI layout it keeps its manifests' digests.
    if index is not None and archive.document("oci-layout") is not None:
        found = _read_layout(store, archive, index, _docker_names(docker), tell)
        if found:
            return found
    if docker is None:
        raise InvalidArgument("the archive has neither a manifest.json (docker save) nor an index.json (OCI layout)")
    return _read_docker(store, archive, docker, tell)


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


def _normal(name: str) -> str:
    reference = parse(name).with_default_tag()
    return f"{reference.repository}:{reference.tag}"


def _read_docker(store: ImageStore, archive: _Archive, data: bytes, tell: Progress) -> list[_Found]:
    found = []
    for row in _rows(data):
        config = archive.needed(_member(str(row.get("Config", ""))))
        details = decode_config(config)
        layers = _strings(row, "Layers")
        if len(layers) != len(details.rootfs.diff_ids):
            raise InvalidArgument("the archive has another number of layers than its image says")
        for diff_id, member in zip(details.rootfs.diff_ids, layers, strict=True):
            _take_layer(store, archive, _member(member), diff_id, tell)
        found.append(_Found(config, tuple(details.rootfs.diff_ids), tuple(map(_normal, _strings(row, "RepoTags")))))
    return found


def _take_layer(store: ImageStore, archive: _Archive, member: str, diff_id: str, tell: Progress) -> None:
    """A layer's tar, inflated where need be, as a blob that is checked against its diff ID."""
    if store.blobs.has(diff_id):
        return
    inflater = Inflater()
    entry = archive.find(member)
    short, total, done = diff_id[7:19], entry.size if entry else 0, 0
    with store.blobs.ingest() as new:

        def take(piece: bytes) -> None:
            nonlocal done
            for plain in inflater.feed(piece):
                new.write(plain)
            done += len(piece)
            tell(ProgressLine(status="Loading layer", id=short, current=done, total=total))

        archive.copy(member, take)
        new.write(inflater.end())
        new.commit(diff_id)


def _read_layout(
    store: ImageStore, archive: _Archive, data: bytes, docker: dict[str, list[str]], tell: Progress
) -> list[_Found]:
    top = decode_manifest(data, OCI_INDEX)
    if not isinstance(top, Index):
        raise InvalidArgument("index.json in the archive is no index")
    found: list[_Found] = []
    for entry in top.manifests:
        names = _annotated(entry)
        one = _read_image(store, archive, entry, (), tell)
        if one is None:
            continue
        config = decode_manifest(store.blobs.read(one.manifests[0]))
        member = f"blobs/{config.config.digest.replace(':', '/', 1)}" if isinstance(config, Manifest) else ""
        names = names or [_normal(name) for name in docker.get(member, [])]
        found.append(_Found(one.config, one.layers, tuple(dict.fromkeys(names)), one.manifests))
    return found


def _annotated(entry: Descriptor) -> list[str]:
    """The name that an index gives an image: in full by containerd, by tag alone or in full by others."""
    notes = entry.annotations or {}
    name = notes.get(_IMAGE_NAME) or notes.get(_REF_NAME) or ""
    if "/" not in name and ":" not in name:
        return []  # a bare tag names no repository
    try:
        return [_normal(name)]
    except InvalidArgument:
        return []  # other tools write paths and words of their own here


def _read_image(
    store: ImageStore, archive: _Archive, entry: Descriptor, above: tuple[str, ...], tell: Progress
) -> _Found | None:
    """The image behind *entry*; None: the archive has it not (indexes name more platforms than they bring)."""
    from backend.images.store import host_platform

    if len(above) > _DEPTH_LIMIT:
        raise InvalidArgument("the archive nests indexes too deeply")
    if not is_digest(entry.digest):
        raise InvalidArgument(f"the archive names the digest {entry.digest[:80]!r}; only sha256 is supported")
    data = archive.document(_blob(entry.digest))
    if data is None:
        return None
    document = decode_manifest(data, entry.media_type)
    digest = _checked_put(store, data, entry.digest)
    if isinstance(document, Index):
        chosen = choose(document, host_platform()) or (document.manifests[0] if len(document.manifests) == 1 else None)
        return _read_image(store, archive, chosen, (digest, *above), tell) if chosen else None
    config = archive.needed(_blob(document.config.digest))
    _checked_put(store, config, document.config.digest)
    details = decode_config(config)
    if len(details.rootfs.diff_ids) != len(document.layers):
        raise InvalidArgument("the image's configuration names another number of layers than its manifest")
    for diff_id, layer in zip(details.rootfs.diff_ids, document.layers, strict=True):
        _take_layer(store, archive, _blob(layer.digest), diff_id, tell)
        if layer.digest != diff_id and not store.blobs.has(layer.digest):
            with store.blobs.ingest(layer.size) as new:  # kept whole, so that the image can be pushed as it was
                archive.copy(_blob(layer.digest), new.write)
                new.commit(layer.digest)
    return _Found(config, tuple(details.rootfs.diff_ids), (), (digest, *above))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _checked_put(store: ImageStore, data: bytes, digest: str) -> str:
    with store.blobs.ingest(DOCUMENT_LIMIT) as new:
        new.write(data)
        return new.commit(digest)


# --- save -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Whole:
    """An image as it goes into an archive."""

    image: Image
    manifest: Descriptor
    layers: tuple[str, ...]
    tags: tuple[str, ...]


async def save(store: ImageStore, names: Sequence[tuple[str, Image]]) -> AsyncGenerator[bytes]:
    """A tar of images: an OCI layout that carries docker's ``manifest.json`` too. A piece at a time is in memory."""
    images = _wholes(store, names)
    blobs: dict[str, int] = {}
    for one in images:
        for digest in (one.image.id, *one.layers, one.manifest.digest):
            blobs[digest] = store.blobs.size(digest)
    yield _header("blobs/", 0, directory=True) + _header("blobs/sha256/", 0, directory=True)
    for digest, size in blobs.items():
        yield _header(_blob(digest), size)
        pieces = store.blobs.pieces(digest)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
        if size % tarstream.BLOCK:
            yield bytes(-size % tarstream.BLOCK)
    for name, data in (
        ("index.json", _index_json(images)),
        ("manifest.json", _manifest_json(images)),
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
    ):
        yield _header(name, len(data)) + data + bytes(-len(data) % tarstream.BLOCK)
    yield bytes(2 * tarstream.BLOCK)


def _wholes(store: ImageStore, names: Sequence[tuple[str, Image]]) -> list[_Whole]:
    """Each image once, with the tags that were asked for: those of a repository, one, or none (by ID)."""
    tags: dict[str, list[str]] = {}
    images: dict[str, Image] = {}
    for name, image in names:
        images[image.id] = image
        tags.setdefault(image.id, []).extend(_tags(name, image))
    out = []
    for image in images.values():
        manifest, layers = _manifest_of(store, image)
        out.append(_Whole(image, manifest, layers, tuple(dict.fromkeys(tags[image.id]))))
    return out


def _tags(name: str, image: Image) -> list[str]:
    try:
        familiar = parse(name).with_default_tag().familiar
    except InvalidArgument:
        return []
    return [familiar] if familiar in image.references else []


def _manifest_of(store: ImageStore, image: Image) -> tuple[Descriptor, tuple[str, ...]]:
    """The manifest that an image came with where all its blobs are here, else one of its layers as they lie here."""
    if image.manifest is not None:
        data = store.blobs.read(image.manifest.digest)
        document = decode_manifest(data)
        if isinstance(document, Manifest) and all(store.blobs.has(one.digest) for one in document.layers):
            return (
                Descriptor(document.media_type or OCI_MANIFEST, image.manifest.digest, len(data)),
                tuple(one.digest for one in document.layers),
            )
    digest = store.blobs.put(store.own_manifest(image.id, image.layers))
    return Descriptor(OCI_MANIFEST, digest, store.blobs.size(digest)), image.layers


def _index_json(images: Sequence[_Whole]) -> bytes:
    entries = []
    for one in images:
        for tag in one.tags or ("",):
            full = _normal(tag) if tag else ""
            notes = {_IMAGE_NAME: full, _REF_NAME: full.rpartition(":")[2]} if tag else None
            entries.append(
                Descriptor(one.manifest.media_type, one.manifest.digest, one.manifest.size, annotations=notes)
            )
    return encode({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": entries})


def _manifest_json(images: Sequence[_Whole]) -> bytes:
    return encode(
        [
            {
                "Config": _blob(one.image.id),
                "RepoTags": list(one.tags) or None,
                "Layers": [_blob(layer) for layer in one.layers],
            }
            for one in images
        ]
    )


def _header(name: str, size: int, *, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o755 if directory else 0o644
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return info.tobuf(tarfile.PAX_FORMAT)
