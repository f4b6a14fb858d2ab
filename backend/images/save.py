"""Save: a tar of images that is an OCI layout and carries docker's ``manifest.json`` too."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.images.archive import IMAGE_NAME, REF_NAME, blob_member
from backend.images.index import Record
from backend.images.naming import meant
from backend.images.parts import single
from backend.images.push import media_type
from backend.runtime import tarstream
from backend.spec.image import INDEXES, Descriptor, Manifest, Platform, decode_manifest, encode
from backend.spec.reference import parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

@dataclass(frozen=True, slots=True)
class _Whole:
    """An image as it goes into an archive. *tops*: by tag ("" = none), what its index names for it."""

    id: str
    layers: tuple[str, ...]
    tops: dict[str, str]
    referrers: tuple[str, ...]


def meaning(store: ImageStore, name: str, platform: Platform | None) -> list[tuple[str, Record]]:
    """The full references that *name* means (all tags of a repository), with their images; an ID stands for itself.

    Raises:
        NotFound: there is no such image, or it is for another platform.
    """
    full = meant(name)
    if full and not parse(name).tag and not parse(name).digest:
        prefix = f"{parse(name).repository}:"
        rows = [(tag, one) for one in store.records() for tag in one.names if tag.startswith(prefix)]
        if rows:
            return rows
    image = store.get(name)
    store.check_platform(image, name, platform)
    return [(full, store.record(image.id))]


async def save(store: ImageStore, names: Sequence[tuple[str, Record]]) -> AsyncGenerator[bytes]:
    """The tar of the images of *names* (full references, or IDs for images without a tag). A piece is in memory."""
    images = await asyncio.to_thread(_wholes, store, names)
    index, docker = await asyncio.to_thread(_index_json, store, images), _manifest_json(images)
    yield _header("blobs/", 0, directory=True) + _header("blobs/sha256/", 0, directory=True)
    for digest in await asyncio.to_thread(_blobs, store, images):
        size = store.blobs.size(digest)
        yield _header(blob_member(digest), size)
        pieces = store.blobs.pieces(digest)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
        if size % tarstream.BLOCK:
            yield bytes(-size % tarstream.BLOCK)
    for name, data in (("index.json", index), ("manifest.json", docker), ("oci-layout", _LAYOUT)):
        yield _header(name, len(data)) + data + bytes(-len(data) % tarstream.BLOCK)
    yield bytes(2 * tarstream.BLOCK)


def _wholes(store: ImageStore, names: Sequence[tuple[str, Record]]) -> list[_Whole]:
    """Each image once, with the tags that were asked for."""
    tags: dict[str, list[str]] = {}
    records: dict[str, Record] = {}
    for name, record in names:
        records[record.id] = record
        tags.setdefault(record.id, []).append(name if name in record.names else "")
    return [_whole(store, record, tags[record.id]) for record in records.values()]


def _whole(store: ImageStore, record: Record, tags: Sequence[str]) -> _Whole:
    """The manifest that an image came with where all its blobs are here, else one of its layers as they lie here."""
    manifest = single(store, record)
    if manifest is None:
        manifest = store.blobs.put(store.own_manifest(record.id, record.layers))
        return _Whole(record.id, record.layers, dict.fromkeys(tags, manifest), record.referrers)
    document = decode_manifest(store.blobs.read(manifest))
    assert isinstance(document, Manifest)
    tops = {}
    for tag in tags:
        top = record.tops.get(tag, manifest)
        tops[tag] = top if manifest in _reached(store, top) else manifest
    return _Whole(record.id, tuple(one.digest for one in document.layers), tops, record.referrers)


def _reached(store: ImageStore, top: str) -> dict[str, None]:
    """What is here of all that *top* names, itself among it."""
    found: dict[str, None] = {}
    todo = [top]
    while todo:
        digest = todo.pop()
        if digest not in found and store.blobs.has(digest):
            found[digest] = None
            todo += store.garbage.named_by(digest)
    return found


def _blobs(store: ImageStore, images: Sequence[_Whole]) -> list[str]:
    """The blobs of an archive, each once."""
    found: dict[str, None] = {}
    for one in images:
        found.update(dict.fromkeys((one.id, *one.layers)))
        for top in (*one.tops.values(), *one.referrers):
            found.update(_reached(store, top))
    return list(found)


def _index_json(store: ImageStore, images: Sequence[_Whole]) -> bytes:
    entries = []
    for one in images:
        for tag, top in one.tops.items():
            notes = {IMAGE_NAME: tag, REF_NAME: tag.rpartition(":")[2]} if tag else None
            entries.append(_descriptor(store, top, notes))
        entries += [_descriptor(store, each, None) for each in one.referrers if store.blobs.has(each)]
    return encode({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": entries})


def _descriptor(store: ImageStore, digest: str, notes: dict[str, str] | None) -> Descriptor:
    data = store.blobs.read(digest)
    return Descriptor(media_type(data), digest, len(data), annotations=notes)


def _manifest_json(images: Sequence[_Whole]) -> bytes:
    return encode(
        [
            {
                "Config": blob_member(one.id),
                "RepoTags": [parse(tag).familiar for tag in one.tops if tag] or None,
                "Layers": [blob_member(layer) for layer in one.layers],
            }
            for one in images
        ]
    )


def _header(name: str, size: int, *, directory: bool = False) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o755 if directory else 0o644
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    return info.tobuf(tarfile.PAX_FORMAT)
