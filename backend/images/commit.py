"""A container's own layer on top of its image's: a new image."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from backend.images.naming import full_name
from backend.images.types import Commit, Image
from backend.spec.image import encode
from backend.spec.reference import parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore

#: The tar without a member: a container that changed nothing adds no layer.
_EMPTY = "sha256:" + hashlib.sha256(bytes(1024)).hexdigest()


async def commit(store: ImageStore, base: str, layer: AsyncIterator[bytes], change: Commit) -> Image:
    """See :meth:`ImageStore.commit`. The layer is hashed while it is written; nothing of it is held in memory."""
    image = store.get(base)
    digest = await _keep(store, layer)
    layers = [*image.layers, *([digest] if digest else [])]
    below = json.loads(await asyncio.to_thread(store.blobs.read, base))
    document = _document(below, layers, change, empty=not digest)
    names = [full_name(parse(change.name))] if change.name else []
    return await store.add(encode(document), layers, names=names, parent=base)


async def _keep(store: ImageStore, layer: AsyncIterator[bytes]) -> str:
    """The layer in the store; "" if there is nothing in it."""
    with store.blobs.ingest() as new:
        async for piece in layer:
            await asyncio.to_thread(new.write, piece)
        if new.digest == _EMPTY:
            return ""
        return await asyncio.to_thread(new.commit)


def _document(below: dict[str, Any], layers: list[str], change: Commit, *, empty: bool) -> dict[str, Any]:
    """The image's configuration, from that of the image *below*."""
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    said = {key: value for key, value in (("author", change.author), ("comment", change.comment)) if value}
    step: dict[str, Any] = {"created": now, **({"created_by": change.created_by} if change.created_by else {}), **said}
    if empty:
        step["empty_layer"] = True
    for gone in ("author", "comment", "container", "container_config", "id", "parent"):
        below.pop(gone, None)
    return below | said | {
        "created": now,
        "config": change.defaults,
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": [*(below.get("history") or []), step],
    }  # fmt: skip
