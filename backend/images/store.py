"""The room's door: images by name or ID, their layers ready to be mounted, and what may be done with them."""

from __future__ import annotations

import asyncio
import builtins
import datetime
import logging
import platform as machine
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from backend.errors import Conflict, InvalidArgument, NotFound
from backend.images.content import BlobStore
from backend.images.index import Record, References
from backend.images.layers import Form, LayerStore
from backend.images.types import (
    Confined,
    HistoryEntry,
    Image,
    ImageUser,
    OnEvent,
    Progress,
    RegistryAuth,
    RegistrySettings,
    Removed,
)
from backend.spec.image import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    Platform,
    decode_config,
    decode_manifest,
    encode,
)
from backend.spec.reference import Reference, is_digest, parse

log = logging.getLogger("images")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_SHORTEST_PREFIX = 4


def host_platform() -> Platform:
    """What this machine runs."""
    name = machine.machine()
    return Platform("linux", _MACHINES.get(name, name))


def _nothing(action: str, name: str, attributes: dict[str, str]) -> None:
    """Nobody listens yet."""


class ImageStore:
    """The images under *root*. Its methods run on the helper's loop; what takes long runs in threads."""

    def __init__(self, root: str, confined: Confined, settings: RegistrySettings, *, form: Form | None = None) -> None:
        """*form*: how layers become directories; None = the best that works here."""
        self.blobs = BlobStore(root)
        self.layers = LayerStore(self.blobs, confined, form)
        self.settings = settings
        self.on_event: OnEvent = _nothing
        self._references = References(f"{root}/references.json")
        self._held: dict[str, tuple[str, ...]] = {}
        self._details: dict[str, ImageConfig] = {}
        self._busy = 0
        self._rubbish = False  # something may be collected once nobody holds it
        self._whole = True  # False: an unreadable record may name blobs, so none is thrown away
        self._named: dict[str, list[str]] = {}

    async def open(self) -> None:
        """Read the store; throw away what never became whole."""
        self.blobs.open()
        self._whole = self._references.open()
        await self.layers.open()
        for record in self._references.all():
            try:
                self._image(record)
            except (NotFound, InvalidArgument) as error:
                log.error("the image %s cannot be read and is left out: %s", record.id, error.message)
                self._references.forget(record.id)
                self._whole = False
        self._collect()

    async def close(self) -> None:
        """Unmount the layers; containers that run keep theirs."""
        await self.layers.close()

    # -- finding -------------------------------------------------------------------------------------------------
    def get(self, name: str) -> Image:
        """The image that *name* means: a reference, an ID, or the unique beginning of one.

        Raises:
            NotFound: ``No such image: ...``
        """
        record = self._find(name)
        if record is None:
            shown = name if is_digest(name) or _is_hex(name) else _familiar(name)
            raise NotFound(f"No such image: {shown}")
        return self._image(record)

    def list(self) -> list[Image]:
        """All images, the newest first."""
        found = [self._image(one) for one in self._references.all()]
        return sorted(found, key=lambda one: one.details.created or "", reverse=True)

    def _find(self, name: str) -> Record | None:
        if is_digest(name):
            return self._references.get(name)
        try:
            reference = parse(name)
        except InvalidArgument:
            reference = None
        if reference is not None:
            if reference.digest:
                found = self._references.by_name(f"{reference.repository}@{reference.digest}")
            else:
                found = self._references.by_name(_full(reference))
            if found is not None:
                return found
        hexes = name.removeprefix("sha256:")
        if not _is_hex(hexes):
            return None
        fitting = [one for one in self._references.all() if one.id.partition(":")[2].startswith(hexes)]
        if len(fitting) > 1 and len(hexes) >= _SHORTEST_PREFIX:
            raise InvalidArgument(f"the ID {name} is the beginning of {len(fitting)} images; write more of it")
        return fitting[0] if len(fitting) == 1 and len(hexes) >= _SHORTEST_PREFIX else None

    def _image(self, record: Record) -> Image:
        details = self._details.get(record.id)
        if details is None:
            details = self._details[record.id] = decode_config(self.blobs.read(record.id))
        manifest = None
        if record.manifests and self.blobs.has(record.manifests[0]):
            manifest = Descriptor(OCI_MANIFEST, record.manifests[0], self.blobs.size(record.manifests[0]))
        return Image(
            record.id,
            details,
            tuple(parse(one).familiar for one in record.names),
            tuple(parse(one).familiar for one in record.digests),
            record.size,
            record.tagged,
            manifest,
            record.parent,
        )

    def history(self, name: str) -> builtins.list[HistoryEntry]:
        """How the image was made, the newest step first."""
        image = self.get(name)
        layers = iter(image.layers)
        out = []
        for step in image.details.history or [History(created=image.details.created) for _ in image.layers]:
            layer = None if step.empty_layer else next(layers, None)
            size = self.blobs.size(layer) if layer and self.blobs.has(layer) else 0
            out.append(
                HistoryEntry("<missing>", step.created or "", step.created_by or "", step.comment or "", size, ())
            )
        if out:
            out[-1] = replace(out[-1], id=image.id, tags=image.references)
        return list(reversed(out))

    # -- layers for containers -------------------------------------------------------------------------------------
    async def lowers(self, image_id: str, holder: str) -> tuple[str, ...]:
        """Overlay lower directories, topmost first; the image cannot lose them until ``release(holder)``."""
        record = self._references.get(image_id)
        if record is None:
            raise NotFound(f"No such image: {image_id}")
        for layer in record.layers:
            if not self.layers.has(layer):
                await self.layers.prepare(layer)
        found = tuple(self.layers.directory(layer) for layer in reversed(record.layers))
        self._held[holder] = record.layers
        return found or (self.layers.empty,)

    def release(self, holder: str) -> None:
        """*holder* needs its layers no longer."""
        if self._held.pop(holder, None) is not None and self._rubbish:
            self._collect()

    # -- making --------------------------------------------------------------------------------------------------
    async def pull(
        self, reference: str, *, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        """Fetch an image from its registry. Cancelling drops what is half there, never a whole blob."""
        from backend.images.transfer import Pull  # requests and its libraries: only who pulls needs them

        self._busy += 1
        try:
            image = await Pull(self, parse(reference), platform, auth, progress).run()
        finally:
            self._arrived()
        self.on_event("pull", parse(reference).with_default_tag().familiar, {"name": parse(reference).familiar_name})
        return image

    async def load(
        self, source: AsyncIterator[bytes], *, progress: Progress, quiet: bool = False
    ) -> builtins.list[str]:
        """Take in the images of a tar (docker's or an OCI layout); what it loaded, as names or IDs."""
        from backend.images.archive import load

        self._busy += 1
        try:
            loaded = await load(self, source, progress, quiet)
        finally:
            self._arrived()
        for name in loaded:
            self.on_event("load", self.get(name).id, {"name": name})
        return loaded

    def save(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """A tar of images that docker and OCI tools load. Raises :class:`NotFound` before its first byte."""
        from backend.images.archive import save

        found = [(name, self.get(name)) for name in names]
        for _, image in found:
            self.on_event("save", image.id, {"name": image.id})
        return save(self, found)

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        reference: str | None,
        message: str = "",
        changes: Sequence[str] = (),
        platform: Platform | None = None,
    ) -> Image:
        """An image of one layer from a root file system's tar."""
        from backend.images.archive import spool
        from backend.images.changes import apply

        target = parse(reference).with_default_tag() if reference else None
        defaults = apply(changes)
        self._busy += 1
        try:
            layer = await spool(self, source)
            image = await self._single_layer(
                layer,
                {"config": defaults, "comment": message or "Imported from -"},
                platform or host_platform(),
                target,
            )
        finally:
            self._arrived()
        self.on_event("import", image.id, {"name": target.familiar if target else image.id})
        return image

    async def build_in(self, tar: str, config: dict[str, Any], reference: str) -> Image:
        """An image from the tar file at the path *tar* and a configuration without rootfs: the built-in one.

        The same tar under the same name is the image that is there already.
        """

        def store() -> str:
            with open(tar, "rb") as file, self.blobs.ingest() as new:
                while piece := file.read(1 << 20):
                    new.write(piece)
                return new.commit()

        target = parse(reference).with_default_tag()
        self._busy += 1
        try:
            layer = await asyncio.to_thread(store)
            old = self._references.by_name(_full(target))
            if old is not None and old.layers == (layer,):
                return self._image(old)
            return await self._single_layer(layer, config, host_platform(), target)
        finally:
            self._arrived()

    def _arrived(self) -> None:
        """What came is whole or gone; what was removed meanwhile can be collected."""
        self._busy -= 1
        if self._rubbish:
            self._collect()

    async def _single_layer(self, layer: str, more: dict[str, Any], wish: Platform, target: Reference | None) -> Image:
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        comment = str(more.pop("comment", ""))
        document = {
            "architecture": wish.architecture,
            "os": wish.os,
            **({"variant": wish.variant} if wish.variant else {}),
            **more,
            "created": now,
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created": now, **({"comment": comment} if comment else {})}],
        }
        return await self.add(encode(document), [layer], names=[_full(target)] if target else [])

    async def add(
        self,
        config: bytes,
        layers: Sequence[str],
        *,
        names: Sequence[str] = (),
        digests: Sequence[str] = (),
        manifests: Sequence[str] = (),
    ) -> Image:
        """Make an image of blobs that are here visible, its layers ready; *layers* are diff IDs, lowest first.

        Raises:
            InvalidArgument: the configuration names other layers, or one of them is hostile.
        """
        details = decode_config(config)
        if list(details.rootfs.diff_ids) != list(layers):
            raise InvalidArgument("the image's configuration names other layers than it came with")
        for layer in layers:
            await self.layers.prepare(layer)
        identity = await asyncio.to_thread(self.blobs.put, config)
        if not manifests:
            manifests = [await asyncio.to_thread(self.blobs.put, self.own_manifest(identity, layers))]
        old = self._references.get(identity)
        record = Record(
            identity,
            _merge(old.names if old else (), names),
            _merge(old.digests if old else (), digests),
            _merge(manifests, old.manifests if old else ()),
            sum(self.blobs.size(one) for one in layers),
            time.time_ns(),
            old.parent if old else "",
            tuple(layers),
        )
        self._references.put(record)
        return self._image(record)

    def own_manifest(self, identity: str, layers: Sequence[str]) -> bytes:
        """The manifest of an image that came without one: its layers as they lie here, uncompressed."""
        return encode(
            Manifest(
                Descriptor(OCI_CONFIG, identity, self.blobs.size(identity)),
                [Descriptor(OCI_LAYER, one, self.blobs.size(one)) for one in layers],
                OCI_MANIFEST,
            )
        )

    # -- names and removal -----------------------------------------------------------------------------------------
    async def tag(self, name: str, repository: str, tag: str) -> None:
        """Give the image another name. Raises :class:`InvalidArgument` and :class:`NotFound`."""
        image = self.get(name)
        target = parse(f"{repository}:{tag}" if tag else repository).with_default_tag()
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        record = self._references.get(image.id)
        assert record is not None
        self._references.put(replace(record, names=_merge(record.names, [_full(target)]), tagged=time.time_ns()))
        self.on_event("tag", image.id, {"name": target.familiar})

    async def remove(
        self, name: str, *, force: bool, prune: bool, users: Callable[[str], Sequence[ImageUser]]
    ) -> builtins.list[Removed]:
        """Take a name away, and the image with its last one. *users*: the containers of an image ID.

        Raises:
            Conflict: it is in use, with docker's words for it.
            NotFound: ``No such image: ...``
        """
        image = self.get(name)
        record = self._references.get(image.id)
        assert record is not None
        using = list(users(image.id))
        by_id = not _names_record(name, record)
        running = next((one for one in using if one.running), None)
        if by_id:
            self._refuse_by_id(image, record, using, running, force)
            going = [*record.names, *record.digests]
        else:
            target = parse(name)
            full = f"{target.repository}@{target.digest}" if target.digest else _full(target)
            left = [one for one in record.names if one != full]
            if not left and using and not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{_familiar(name)}" (must force) - '
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
            self.on_event("untag", image.id, {"name": image.id})
        record = replace(
            record,
            names=tuple(one for one in record.names if one not in going),
            digests=tuple(one for one in record.digests if one not in going),
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

    def _delete(self, record: Record) -> builtins.list[Removed]:
        self._references.remove(record.id)
        self._details.pop(record.id, None)
        self.on_event("delete", record.id, {"name": record.id})
        gone = [Removed(deleted=record.id)]
        kept = {layer for one in self._references.all() for layer in one.layers}
        gone += [Removed(deleted=layer) for layer in reversed(record.layers) if layer not in kept]
        self._collect()
        return gone

    def _collect(self) -> None:
        """Remove the blobs and layers that no image and no container needs. Not while something arrives."""
        self._rubbish = True
        if self._busy or not self._whole:
            return
        self._rubbish = bool(self._held)
        keep = {layer for held in self._held.values() for layer in held}
        layers = set(keep)
        for record in self._references.all():
            layers.update(record.layers)
            keep.update((record.id, *record.layers, *record.manifests))
            for manifest in record.manifests:
                keep.update(self._named_by(manifest))
        for layer in self.layers.all():
            if layer not in layers:
                self.layers.remove(layer)
        for digest in self.blobs.all():
            if digest not in keep:
                self.blobs.remove(digest)

    def _named_by(self, manifest: str) -> builtins.list[str]:
        """The blobs that a manifest of the store names."""
        if manifest not in self._named:
            try:
                found = decode_manifest(self.blobs.read(manifest))
            except (NotFound, InvalidArgument) as error:
                log.error("the manifest %s cannot be read: %s", manifest, error.message)
                return []
            self._named[manifest] = [one.digest for one in found.layers] if isinstance(found, Manifest) else []
        return self._named[manifest]


def _merge(first: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *more)))


def _full(reference: Reference) -> str:
    """The name under which the store keeps *reference*."""
    tagged = reference.with_default_tag()
    return f"{tagged.repository}:{tagged.tag}"


def _is_hex(text: str) -> bool:
    return bool(text) and all(one in "0123456789abcdef" for one in text)


def _familiar(name: str) -> str:
    try:
        return parse(name).with_default_tag().familiar
    except InvalidArgument:
        return name


def _names_record(name: str, record: Record) -> bool:
    """Whether *name* is one of the record's references, rather than its ID."""
    try:
        reference = parse(name)
    except InvalidArgument:
        return False
    return _full(reference) in record.names or f"{reference.repository}@{reference.digest}" in record.digests
