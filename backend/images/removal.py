"""Removal of names and images, with docker's rules and words for what is in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from backend.errors import Conflict
from backend.images.index import Record, References
from backend.images.naming import full_name, names_record
from backend.images.types import Image, ImageUser, Removed
from backend.spec.reference import parse

if TYPE_CHECKING:
    from backend.images.store import ImageStore


class Removal:
    """Takes names off images, and images out of the store."""

    def __init__(self, store: ImageStore, references: References) -> None:
        self._store = store
        self._references = references

    def remove(self, name: str, users: Callable[[str], Sequence[ImageUser]], *, force: bool) -> list[Removed]:
        """See :meth:`backend.images.store.ImageStore.remove`."""
        image = self._store.get(name)
        record = self._store.record(image.id)
        using = list(users(image.id))
        by_id = not names_record(name, record)
        running = next((one for one in using if one.running), None)
        if by_id:
            self._refuse_by_id(image, record, using, running, force)
            going = [*record.names, *record.digests]
        else:
            target = parse(name)
            full = f"{target.repository}@{target.digest}" if target.digest else full_name(target)
            left = [one for one in record.names if one != full]
            if not left and using and not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{name}" (must force) - '
                    f"container {using[0].id[:12]} is using its referenced image {image.id[7:19]}"
                )
            going = [full] if left else [full, *record.digests]
            if left:  # the digest stays as long as its repository has a name
                going += [
                    one
                    for one in record.digests
                    if not any(parse(other).repository == parse(one).repository for other in left)
                ]
        out = []
        for each in dict.fromkeys(going):
            out.append(Removed(untagged=parse(each).familiar))
            self._store.on_event("untag", image.id, {"name": image.id})
        record = replace(
            record,
            names=tuple(one for one in record.names if one not in going),
            digests=tuple(one for one in record.digests if one not in going),
            tops={one: top for one, top in record.tops.items() if one not in going},
        )
        if record.names or record.digests or using:
            self._references.put(record)
            return out
        return out + self._delete(record)

    def _refuse_by_id(
        self, image: Image, record: Record, using: Sequence[ImageUser], running: ImageUser | None, force: bool
    ) -> None:
        short = image.id[7:19]
        if running is not None:
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - image is being used by running "
                f"container {running.id[:12]}"
            )
        if force:
            return
        if using:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is being used by stopped "
                f"container {using[0].id[:12]}"
            )
        if len(record.names) > 1:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )

    def _delete(self, record: Record) -> list[Removed]:
        self._references.remove(record.id)
        self._store.on_event("delete", record.id, {"name": record.id})
        gone = [Removed(deleted=record.id)]
        kept = {layer for one in self._references.all() for layer in one.layers}
        gone += [Removed(deleted=layer) for layer in reversed(record.layers) if layer not in kept]
        self._store.gone(record.id)
        return gone
