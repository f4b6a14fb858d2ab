"""The room's door: images by name or ID, their layers ready to be mounted, and what may be done with them."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import datetime
import logging
import platform as machine
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backend.errors import InvalidArgument, NotFound
from backend.images.compress import Compressor
from backend.images.content import BlobStore, disk_told
from backend.images.garbage import Garbage
from backend.images.index import Record, References
from backend.images.layers import Form, LayerStore
from backend.images.naming import full_name, is_hex, meant, merge
from backend.images.removal import Removal
from backend.images.types import (
    Commit,
    Confined,
    HistoryEntry,
    Image,
    ImageUser,
    OnEvent,
    Part,
    Problem,
    Progress,
    ProgressLine,
    RegistryAuth,
    RegistrySettings,
    Removed,
)
from backend.images.usage import Usage
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
    digest_of,
    encode,
)
from backend.spec.reference import Reference, is_digest, parse

if TYPE_CHECKING:
    from backend.images.early import EarlyStarts

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
        self.garbage = Garbage(self.blobs, self.layers, self._references)
        self.usage = Usage(self.blobs, self._references)
        self.compressor = Compressor(self.blobs)
        #: Images that run before they have arrived; None: not here.
        self.early: EarlyStarts | None = None
        self._details: dict[str, ImageConfig] = {}
        self._images: dict[str, tuple[Record, Image]] = {}

    async def open(self) -> None:
        """Read the store; throw away what never became whole."""
        self.blobs.open()
        self.garbage.all_known = self._references.open()
        await self.layers.open()
        if self.layers.doubtful:
            from backend.images.check import settle_doubts

            for layer in await settle_doubts(self):
                log.error("the layer %s was lost when the machine went down; pull or load its image again", layer)
        for record in self._references.all():
            try:
                self._image(record)
            except (NotFound, InvalidArgument) as error:
                log.error("the image %s cannot be read and is left out: %s", record.id, error.message)
                self._references.forget(record.id)
                self.garbage.all_known = False
        self.garbage.collect()

    async def close(self) -> None:
        """Unmount the layers; containers that run keep theirs."""
        if self.early is not None:
            await self.early.close()
        await self.layers.close()
        await self.garbage.close()

    # -- finding -------------------------------------------------------------------------------------------------
    def get(self, name: str) -> Image:
        """The image that *name* means: a reference, an ID, or the unique beginning of one.

        Raises:
            NotFound: ``No such image: ...``
            InvalidArgument: nothing can have such a name.
        """
        record = self._find(name)
        if record is None:
            on_its_way = self.early.get(name) if self.early is not None else None
            if on_its_way is not None:
                return on_its_way
            shown = name if is_digest(name) or is_hex(name) else parse(name).with_default_tag().familiar
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
                found = self._references.by_name(full_name(reference))
            if found is not None:
                return found
        hexes = name.removeprefix("sha256:")
        if not is_hex(hexes):
            return None
        fitting = [one for one in self._references.all() if one.id.partition(":")[2].startswith(hexes)]
        if len(fitting) > 1 and len(hexes) >= _SHORTEST_PREFIX:
            raise InvalidArgument(f"the ID {name} is the beginning of {len(fitting)} images; write more of it")
        return fitting[0] if len(fitting) == 1 and len(hexes) >= _SHORTEST_PREFIX else None

    def _image(self, record: Record) -> Image:
        """The image of a record: made once for each state of it."""
        known = self._images.get(record.id)
        if known is None or known[0] is not record:
            known = self._images[record.id] = record, self._make_image(record)
        return known[1]

    def parts(self, image_id: str) -> builtins.list[Part]:
        """The manifests that an image's names stand for."""
        from backend.images.parts import parts

        return parts(self, self.record(image_id))

    def records(self) -> builtins.list[Record]:
        """What the store keeps of all images."""
        return self._references.all()

    def record(self, image_id: str) -> Record:
        """What the store keeps of an image. Raises :class:`NotFound`."""
        record = self._references.get(image_id)
        if record is None:
            raise self.unfinished(image_id) or NotFound(f"No such image: {image_id}")
        return record

    def unfinished(self, name: str) -> NotFound | None:
        """What is said to those who need the whole of an image that is on its way; None: it is not."""
        image = self.early.get(name) if self.early is not None else None
        if image is None:
            return None
        shown = next(iter((*image.references, *image.digests)))
        return NotFound(f"{shown} has not arrived yet: it can be run, and nothing else, until it has")

    def _make_image(self, record: Record) -> Image:
        details = self._details.get(record.id)
        if details is None:
            details = self._details[record.id] = decode_config(self.blobs.read(record.id))
        manifest = None
        if record.manifests and self.blobs.has(record.manifests[0]):
            manifest = Descriptor(OCI_MANIFEST, record.manifests[0], self.blobs.size(record.manifests[0]))
        return Image(
            record.id,
            details,
            tuple(sorted(parse(one).familiar for one in record.names)),
            tuple(sorted(parse(one).familiar for one in record.digests)),
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
            found = self.early.lowers(image_id, holder) if self.early is not None else None
            if found is None:
                raise NotFound(f"No such image: {image_id}")
            return found
        for layer in record.layers:
            if not self.layers.has(layer):
                await self.layers.prepare(layer)
        found = tuple(self.layers.directory(layer) for layer in reversed(record.layers))
        self.garbage.hold(holder, record.layers)
        return found or (self.layers.empty,)

    def release(self, holder: str) -> None:
        """*holder* needs its layers no longer."""
        self.garbage.release(holder)
        if self.early is not None:
            self.early.release(holder)

    # -- making --------------------------------------------------------------------------------------------------
    async def pull(
        self, reference: str, *, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        """Fetch an image from its registry. Cancelling drops what is half there, never a whole blob."""
        from backend.images.transfer import Pull  # requests and its libraries: only who pulls needs them

        with self.garbage.busy():
            image = await Pull(self, parse(reference), platform, auth, progress).run()
        self.on_event("pull", parse(reference).with_default_tag().familiar, {"name": parse(reference).familiar_name})
        return image

    async def push(
        self, repository: str, tag: str, *, auth: RegistryAuth | None, progress: Progress,
        platform: Platform | None = None,
    ) -> None:
        """Bring the image *repository*:*tag* to its registry; "" = all tags there are; ``sha256:...`` = by digest.

        Raises:
            NotFound: there is no such image, with docker's words for it.
            EngineError: what the registry says.
        """
        from backend.images.push import Push, chosen

        target = parse(repository)
        tag = tag or target.tag
        target = Reference(target.registry, target.path)
        with self.garbage.busy():
            progress(ProgressLine(status=f"The push refers to repository [{target.repository}]"))
            records = chosen(self, target, tag, platform)
            await Push(self, target, auth, progress).run(records)
        for which, record in records:
            name = Reference(target.registry, target.path, which).familiar if ":" not in which else record.id
            self.on_event("push", name, {"name": target.familiar_name})

    def check_platform(self, image: Image, name: str, platform: Platform | None) -> None:
        """Raises :class:`NotFound` where the image is for another platform than *platform*."""
        has = Platform(image.details.os, image.details.architecture, image.details.variant or "")
        if platform is not None and not platform.fits(has):
            raise NotFound(
                f"image with reference {name} was found but its platform ({has}) does not match the specified "
                f"platform ({platform})"
            )

    def pushed(self, image_id: str, name: str, digest: str, documents: Sequence[str]) -> None:
        """Note that *name* now means the last of *documents* at its registry; *digest*: the full name with digest."""
        record = self.record(image_id)
        plain = [one for one in documents if self.garbage.named_by(one)[:1] == (image_id,)]
        tops = {**record.tops, digest: documents[-1], **({name: documents[-1]} if name in record.names else {})}
        self._references.put(replace(
            record, digests=merge(record.digests, [digest]), tops=tops,
            manifests=merge([*plain, *documents], record.manifests)))

    async def load(
        self, source: AsyncIterator[bytes], *, progress: Progress, quiet: bool = False,
        platform: Platform | None = None,
    ) -> builtins.list[str]:
        """Take in the images of a tar (docker's or an OCI layout); what it loaded, as names or IDs."""
        from backend.images.archive import load

        with self.garbage.busy(), disk_told("the archive could not be stored"):
            loaded = await load(self, source, progress, quiet, platform)
        for name in loaded:
            self.on_event("load", self.get(name).id, {"name": name})
        return loaded

    def save(self, names: Sequence[str], platform: Platform | None = None) -> AsyncIterator[bytes]:
        """A tar of images that docker and OCI tools load. A name without a tag means all tags of the repository.

        Raises:
            NotFound: before its first byte.
        """
        from backend.images.save import meaning, save

        found: builtins.list[tuple[str, Record]] = []
        for name in names:
            found += meaning(self, name, platform)
        for image_id in dict.fromkeys(record.id for _, record in found):
            self.on_event("save", image_id, {"name": image_id})

        async def pieces() -> AsyncIterator[bytes]:
            with self.garbage.busy():
                async with contextlib.aclosing(save(self, found)) as made:
                    async for piece in made:
                        yield piece

        return pieces()

    async def check(
        self, *, repair: bool, auth: RegistryAuth | None = None, progress: Progress
    ) -> tuple[int, int, builtins.list[Problem]]:
        """Hash everything again and, with *repair*, mend what is broken. Returns blobs, bytes, and what was wrong."""
        from backend.images.check import Check

        with self.garbage.busy():
            work = Check(self, auth, progress, repair=repair)
            problems = await work.run()
        self.garbage.collect()
        return work.checked, work.size, problems

    def batch(self) -> contextlib.AbstractContextManager[None]:
        """While many images are added, their list is written once, at the end."""
        return self._references.batch()

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
        with self.garbage.busy(), disk_told("the archive could not be stored"):
            layer = await spool(self, source)
            image = await self._single_layer(
                layer,
                {"config": defaults, "comment": message or "Imported from -"},
                platform or host_platform(),
                target,
            )
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
        with self.garbage.busy():
            layer = await asyncio.to_thread(store)
            old = self._references.by_name(full_name(target))
            if old is not None and old.layers == (layer,):
                return self._image(old)
            return await self._single_layer(layer, config, host_platform(), target)

    async def commit(self, base: str, layer: AsyncIterator[bytes], change: Commit) -> Image:
        """An image of the layers of *base* (an ID) and *layer* (a tar; an empty one adds none) above them."""
        from backend.images.commit import commit

        with self.garbage.busy(), disk_told("the image could not be stored"):
            image = await commit(self, base, layer, change)
        if change.name:
            self.on_event("tag", image.id, {"name": parse(change.name).familiar})
        return image

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
        return await self.add(encode(document), [layer], names=[full_name(target)] if target else [])

    async def add(
        self,
        config: bytes,
        layers: Sequence[str],
        *,
        names: Sequence[str] = (),
        digests: Sequence[str] = (),
        manifests: Sequence[str] = (),
        referrers: Sequence[str] = (),
        parent: str = "",
    ) -> Image:
        """Make an image of blobs that are here visible, its layers ready; *layers* are diff IDs, lowest first;
        *manifests*: the one that it is made by, then the indexes above it; *referrers*: what speaks of it;
        *parent*: the image that it was made of here.

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
            merge(old.names if old else (), names),
            merge(old.digests if old else (), digests),
            merge(manifests, old.manifests if old else ()),
            sum(self.blobs.size(one) for one in layers),
            time.time_ns(),
            parent or (old.parent if old else ""),
            tuple(layers),
            {**(old.tops if old else {}), **dict.fromkeys((*names, *digests), manifests[-1])},
            merge(referrers, old.referrers if old else ()),
        )
        self._references.put(record)
        return self._image(record)

    def own_digest(self, record: Record) -> str:
        """The digest of the manifest that we made of an image's uncompressed layers: good here, not on the wire."""
        return digest_of(self.own_manifest(record.id, record.layers))

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
        record = self.record(image.id)
        full = full_name(target)
        tops = {**record.tops, full: record.tops.get(meant(name), record.manifests[0])}
        names = merge(record.names, [full])
        self._references.put(replace(record, names=names, tagged=time.time_ns(), tops=tops))
        self.on_event("tag", image.id, {"name": target.familiar})

    async def remove(
        self, name: str, *, force: bool, prune: bool, users: Callable[[str], Sequence[ImageUser]]
    ) -> builtins.list[Removed]:
        """Take a name away, and the image with its last one. *users*: the containers of an image ID.

        Raises:
            Conflict: it is in use, with docker's words for it.
            NotFound: ``No such image: ...``
        """
        return Removal(self, self._references).remove(name, users, force=force)

    def gone(self, image_id: str) -> None:
        """Forget what was remembered of an image that is no more, and collect what it leaves."""
        self._details.pop(image_id, None)
        self._images.pop(image_id, None)
        self.garbage.collect()
