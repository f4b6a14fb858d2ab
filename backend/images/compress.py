"""Layers as registries want them: gzip, made once, remembered by diff ID."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from backend.images.content import BlobStore, replace_file
from backend.spec.image import Descriptor
from backend.spec.reference import is_digest

_LEVEL = 1  # isal's: an eighth of the time of zlib's 6 for a few per cent more bytes
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Compressor:
    """Compressed forms of the layers of a store, noted in ``compressed.json`` beside it."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._path = f"{blobs.root}/compressed.json"
        self._known: dict[str, str] | None = None

    def _notes(self) -> dict[str, str]:
        if self._known is None:
            self._known = {}
            if os.path.exists(self._path):
                with open(self._path, "rb") as file:
                    self._known = _read(file.read())
        return self._known

    def compressed(self, diff_id: str, tell: Callable[[int], None]) -> Descriptor:
        """The layer's gzip form as a blob of the store. Blocks for as long as the compression takes.

        *tell* is told how many plain bytes are through.
        """
        known = self._notes().get(diff_id, "")
        if known and self._blobs.has(known):
            return Descriptor(DOCKER_LAYER, known, self._blobs.size(known))
        from isal import isal_zlib

        # The header has neither name nor time: the same layer is the same blob on every machine.
        deflater = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 31)
        done = 0
        with self._blobs.ingest() as new:
            for piece in self._blobs.pieces(diff_id):
                new.write(deflater.compress(piece))
                done += len(piece)
                tell(done)
            new.write(deflater.flush())
            size = new.size
            digest = new.commit()
        self._notes()[diff_id] = digest
        here = {one: form for one, form in self._notes().items() if self._blobs.has(form)}
        replace_file(self._path, msgspec.json.encode(here))
        return Descriptor(DOCKER_LAYER, digest, size)


def _read(data: bytes) -> dict[str, str]:
    """The notes; none where the file is damaged: they only save work."""
    try:
        found = msgspec.json.decode(data, type=dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}
    return {layer: form for layer, form in found.items() if is_digest(layer) and is_digest(form)}
