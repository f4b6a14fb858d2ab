"""What an image's name stands for at its registry: the manifests below its index, and whether they are here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.errors import EngineError, InvalidArgument, NotFound
from backend.images.index import Record
from backend.images.types import Part
from backend.spec.image import Descriptor, Index, Manifest, Platform, decode_config, decode_manifest

if TYPE_CHECKING:
    from backend.images.store import ImageStore

_DEPTH = 4
REFERENCE_DIGEST = "vnd.docker.reference.digest"
_KIND = "vnd.docker.reference.type"


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry of an index is about another entry and is no image itself."""
    return (entry.annotations or {}).get(_KIND) == "attestation-manifest"


def parts(store: ImageStore, record: Record) -> list[Part]:
    """The manifests of an image, the one that is run here among them."""
    found: dict[str, Part] = {}
    for top in dict.fromkeys([*record.tops.values(), *record.manifests]):
        if not store.blobs.has(top) or (found and top == store.own_digest(record)):
            continue
        try:
            document = decode_manifest(store.blobs.read(top))
        except (NotFound, InvalidArgument):
            continue  # damaged: the check says so
        if isinstance(document, Index):
            for entry in document.manifests:
                found.setdefault(entry.digest, _entry(store, record, entry))
        elif top not in found:
            kind = document.media_type
            found[top] = _entry(store, record, Descriptor(kind, top, store.blobs.size(top)))
    return list(found.values())


def _entry(store: ImageStore, record: Record, entry: Descriptor) -> Part:
    manifest = _manifest(store, entry.digest)
    named = () if manifest is None else (manifest.config, *manifest.layers)
    here = [one for one in named if store.blobs.has(one.digest)]
    own = manifest is not None and manifest.config.digest == record.id
    platform = _platform(store, entry, manifest)
    attests = is_attestation(entry)
    subject = (entry.annotations or {}).get(REFERENCE_DIGEST, "") if attests else ""
    kind = "attestation" if attests else "image" if platform is not None else "unknown"
    return Part(
        entry.digest, entry.media_type, entry.size, kind, own or (manifest is not None and len(here) == len(named)),
        sum(store.blobs.size(one.digest) for one in here) + (entry.size if manifest is not None else 0),
        record.size if own else 0, platform, subject, own,
    )


def _manifest(store: ImageStore, digest: str) -> Manifest | None:
    if not store.blobs.has(digest):
        return None
    try:
        document = decode_manifest(store.blobs.read(digest))
    except (NotFound, InvalidArgument):
        return None
    return document if isinstance(document, Manifest) else None


def _platform(store: ImageStore, entry: Descriptor, manifest: Manifest | None) -> Platform | None:
    if entry.platform is not None and entry.platform.os not in ("", "unknown"):
        return Platform(entry.platform.os, entry.platform.architecture, entry.platform.variant)
    if entry.platform is not None or manifest is None or not store.blobs.has(manifest.config.digest):
        return None
    try:
        details = decode_config(store.blobs.read(manifest.config.digest))
    except (NotFound, InvalidArgument):
        return None
    return Platform(details.os, details.architecture, details.variant or "")


def whole(store: ImageStore, top: str) -> tuple[str, ...] | None:
    """The documents below and with *top*, the leaves first; None where one of them or of their blobs is not here."""
    seen: dict[str, bool] = {}  # in the order of their ends: the leaves come first

    def visit(digest: str, depth: int) -> bool:
        if digest not in seen:
            fits = depth <= _DEPTH and _fits(store, digest, lambda child: visit(child, depth + 1))
            seen[digest] = fits
        return seen[digest]

    return tuple(seen) if visit(top, 0) else None


def _fits(store: ImageStore, digest: str, visit: Callable[[str], bool]) -> bool:
    blobs = store.blobs
    if not blobs.has(digest):
        return False
    try:
        document = decode_manifest(blobs.read(digest))
    except EngineError:  # no manifest of an image, or damaged
        return False
    if isinstance(document, Index):
        return all(visit(one.digest) for one in document.manifests)
    return all(blobs.has(one.digest) for one in (document.config, *document.layers))


def single(store: ImageStore, record: Record) -> str | None:
    """A manifest of the image that came from elsewhere (or went there) and is complete."""
    own = store.own_digest(record)
    for digest in record.manifests:
        if digest == own or whole(store, digest) is None:
            continue
        document = decode_manifest(store.blobs.read(digest))
        if isinstance(document, Manifest) and document.config.digest == record.id:
            return digest
    return None
