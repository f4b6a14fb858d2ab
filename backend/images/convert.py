"""An image once more, with its layers as eStargz: ordinary ones for every engine, and readable in parts for those that
can."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

from backend.errors import InvalidArgument
from backend.images import stargz, toc
from backend.images.naming import full_name
from backend.images.types import Image
from backend.runtime.tarstream import BadTar
from backend.spec.image import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, encode
from backend.spec.reference import parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


async def convert(store: ImageStore, name: str, target: str) -> Image:
    """The image *name* as *target*. Its layers get a table, so it is another image than the one that it is made of.

    Raises:
        NotFound: there is no such image.
        InvalidArgument: *target* is no name for an image.
    """
    image, wish = store.get(name), parse(target)
    if wish.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    record = store.record(image.id)
    with store.garbage.busy():
        made = [await asyncio.to_thread(_layer, store, diff_id) for diff_id in record.layers]
        config = json.loads(store.blobs.read(image.id))
        config["rootfs"] = {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]}
        data = encode(config)
        identity = await asyncio.to_thread(store.blobs.put, data)
        manifest = Manifest(Descriptor(OCI_CONFIG, identity, len(data)), [layer for layer, _ in made], OCI_MANIFEST)
        digest = await asyncio.to_thread(store.blobs.put, encode(manifest))
        found = await store.add(data, [diff_id for _, diff_id in made], names=[full_name(wish.with_default_tag())],
                                manifests=[digest])
    store.on_event("tag", found.id, {"name": wish.with_default_tag().familiar})
    return found


def _layer(store: ImageStore, diff_id: str) -> tuple[Descriptor, str]:
    """In a thread: the converted layer and its new diff ID, both as blobs."""
    source = os.open(store.blobs.path(diff_id), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with store.blobs.ingest() as packed, store.blobs.ingest() as plain:
            table = stargz.write(source, packed.write, plain.write)
            digest, size = packed.commit(), packed.size
            return Descriptor(_LAYER, digest, size, annotations={toc.STARGZ: table}), plain.commit()
    except BadTar as error:
        raise InvalidArgument(f"the layer {diff_id} cannot be converted: {error}") from error
    finally:
        os.close(source)
