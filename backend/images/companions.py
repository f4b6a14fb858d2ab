"""What speaks of an image and travels with it: attestations beside it in its index, and referrers (signatures, SBOMs).

They are small, and a pull does not fail for them: what is too large or cannot be had is left, and the log says so.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from backend.errors import EngineError, InvalidArgument, ServerError
from backend.images.parts import REFERENCE_DIGEST, is_attestation
from backend.images.registry import Registry
from backend.spec.image import DOCUMENT_LIMIT, Descriptor, Index, Manifest, decode_manifest

if TYPE_CHECKING:
    from backend.images.content import BlobStore

log = logging.getLogger("images")
_MOST = 32  # manifests
_BYTES = 32 << 20  # of all their blobs together


class Companions:
    """Fetches them in a thread, beside the layers."""

    def __init__(self, registry: Registry, blobs: BlobStore) -> None:
        self._registry = registry
        self._blobs = blobs
        self._left = _BYTES

    def attestations(self, index: Index, image: str) -> None:
        """Into the store: the entries of *index* that are about the manifest *image*."""
        about = [one for one in index.manifests
                 if is_attestation(one) and (one.annotations or {}).get(REFERENCE_DIGEST) == image]
        for entry in about[:_MOST]:
            self._try(entry)

    def referrers(self, digests: tuple[str, ...]) -> list[str]:
        """Into the store: what refers to *digests*. Returns its manifests."""
        found: list[str] = []
        for digest in digests:
            try:
                answer = self._registry.referrers(digest)
                entries = self._entries(answer.data) if answer is not None else []
            except EngineError as error:
                log.warning("what refers to %s cannot be had: %s", digest, error.message)
                return found
            found += [entry.digest for entry in entries[:_MOST] if self._try(entry)]
        return found

    def _entries(self, data: bytes) -> list[Descriptor]:
        document = decode_manifest(data, "application/vnd.oci.image.index.v1+json")
        return document.manifests if isinstance(document, Index) else []

    def _try(self, entry: Descriptor) -> bool:
        try:
            self._fetch(entry)
        except EngineError as error:
            log.warning("%s, which speaks of an image, cannot be had: %s", entry.digest, error.message)
            return False
        return True

    def _fetch(self, entry: Descriptor) -> None:
        if not self._blobs.has(entry.digest):
            if entry.size > DOCUMENT_LIMIT:
                raise InvalidArgument(f"its manifest is larger than {DOCUMENT_LIMIT >> 20} MiB")
            self._blobs.put(self._registry.manifest(entry.digest).data)
        document = decode_manifest(self._blobs.read(entry.digest))
        if not isinstance(document, Manifest):
            raise InvalidArgument("it is an index")
        for blob in (document.config, *document.layers):
            self._blob(blob)

    def _blob(self, blob: Descriptor) -> None:
        if self._blobs.has(blob.digest):
            return
        self._left -= blob.size
        if self._left < 0:
            raise ServerError(f"it and its like are larger than {_BYTES >> 20} MiB")
        with self._blobs.ingest(blob.size) as new:
            for piece in self._registry.blob(blob.digest, blob.size):
                new.write(piece)
            new.commit(blob.digest)
