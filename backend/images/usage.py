"""What images take on the disk: layers once, however many images share them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from backend.images.content import BlobStore
from backend.images.index import Record, References


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of layers: of all, and by image what others have too (the rest is its own)."""

    total: int
    shared: dict[str, int]


class Usage:
    """Sizes of layers, uncompressed, as Docker counts them."""

    def __init__(self, blobs: BlobStore, references: References) -> None:
        self._blobs = blobs
        self._references = references
        self._known: dict[str, int] = {}

    def layer(self, diff_id: str) -> int:
        """Bytes of a layer's tar; 0 for one that is not here."""
        if diff_id not in self._known:
            if not self._blobs.has(diff_id):
                return 0
            self._known[diff_id] = self._blobs.size(diff_id)
        return self._known[diff_id]

    def sizes(self) -> Sizes:
        """Of all images now."""
        records = self._references.all()
        users = Counter(layer for record in records for layer in set(record.layers))
        self._known = {layer: size for layer, size in self._known.items() if layer in users}
        shared = {
            record.id: sum(self.layer(layer) for layer in set(record.layers) if users[layer] > 1) for record in records
        }
        return Sizes(sum(map(self.layer, users)), shared)

    def freed_by(self, record: Record) -> int:
        """Bytes that go when this image goes: the layers that no other has."""
        others = {layer for one in self._references.all() if one.id != record.id for layer in one.layers}
        return sum(self.layer(layer) for layer in set(record.layers) if layer not in others)
