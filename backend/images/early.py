"""Images that run before they have arrived: what their first process needs comes when it is read, the rest behind it.

A pull that may do so looks at the manifest, the configuration and the tables of the layers that have one; the other
layers it fetches as always. Then the image is there to be run, and to nobody else: it is in no list and cannot be
saved, pushed or built upon, because the store keeps only what is whole and verified. In the background the ordinary
pull fetches the image; from its blobs the holes are filled, the watches are taken away, and the store's own image
takes over. A container that runs by then keeps its sparse files, which are whole and plain now.

``early/IMAGE/`` has for each layer the sparse ``N.data``, the ``N.index`` over it and its mount ``N``; ``image.json``
is what a helper that comes after a crash goes on with. The watches are entrusted to the keeper meanwhile: readers
wait. If helper and keeper die together, the watches are gone and holes would read as zeros: those images are in
:attr:`lost`, and the engine ends their containers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from backend.errors import EngineError, InvalidArgument, ServerError
from backend.images import mounting, toc
from backend.images.content import WrongDigest
from backend.images.naming import full_name, is_hex
from backend.images.ondemand import OnDemand, supported
from backend.images.registry import Registry
from backend.images.toc import BadTable, Chunk
from backend.images.transfer import Pull
from backend.images.types import Image, Progress, ProgressLine, RegistryAuth
from backend.spec.image import Descriptor, ImageConfig, Manifest, Platform, decode_config
from backend.spec.reference import Reference, parse

if TYPE_CHECKING:
    from backend.images.registry import Fetched
    from backend.images.store import ImageStore

log = logging.getLogger("images")
_SMALL = 256 << 10          # a layer of so few bytes is fetched at once
_QUIET = 1.0                # seconds without a question until the rest is fetched: the first process goes before
_PATIENCE = 10.0            # seconds after which it is fetched all the same
_TRIES = 10                 # after which an image that no container needs is given up
_RETRY = (1.0, 60.0)        # seconds between tries of the rest: the first pause, the longest


class Keeping(Protocol):
    """Who keeps copies of descriptors for us, and outlives us: the keeper."""

    async def entrust(self, name: str, fds: list[int]) -> None:
        """Keep them under *name*; none: no longer."""

    async def entrusted(self, name: str) -> list[int]:
        """Copies of what is kept."""


@dataclass(slots=True)
class _Layer:
    """One layer: on demand, or (``demand`` None) whole in the store."""

    diff_id: str
    layer: Descriptor
    place: str = ""
    table: toc.Table | None = None
    end: int = 0
    demand: OnDemand | None = None

    def row(self) -> dict[str, Any]:
        return {"diff_id": self.diff_id, "digest": self.layer.digest, "size": self.layer.size, "end": self.end,
                "annotations": self.layer.annotations or {}, "place": self.place}


@dataclass(slots=True)
class _Arriving:
    """An image on its way. *top*: the digest that its name means at the registry."""

    image: Image
    reference: Reference
    platform: Platform | None
    top: str
    documents: list[bytes]
    layers: list[_Layer]
    folder: str
    registry: Registry | None = None
    look: _Look | None = None
    auth: RegistryAuth | None = None
    holders: set[str] = field(default_factory=set)
    busy: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    task: asyncio.Task[None] | None = None

    @property
    def on_demand(self) -> list[_Layer]:
        return [one for one in self.layers if one.demand is not None]


def is_worth_it(layer: Descriptor) -> bool:
    """Whether *layer* can be read in parts and is large enough to."""
    return toc.form_of(layer) is not None and layer.size >= _SMALL


def _table(registry: Registry, layer: Descriptor) -> tuple[toc.Table, int]:
    return toc.fetch(layer, lambda start, size: registry.piece(layer.digest, start, size))


class _Look(Pull):
    """The first steps of a pull: what the image is, without its layers. ``tables``: those of its layers, on their
    way."""

    def __init__(self, store: ImageStore, reference: Reference, platform: Platform | None, auth: RegistryAuth | None,
                 progress: Progress) -> None:
        super().__init__(store, reference, platform, auth, progress)
        self.tables: dict[str, asyncio.Future[tuple[toc.Table, int]]] = {}

    async def look(self) -> tuple[Registry, Manifest, bytes, ImageConfig, str] | None:
        """None: it is here already. The registry is the caller's to close."""
        registry, fetched = await self._thread(self._reach)
        try:
            if fetched is None:
                registry.close()
                return None
            manifest, last = await self._thread(self._choose, registry, fetched)
            for layer in filter(is_worth_it, manifest.layers):
                if layer.digest not in self.tables:
                    self.tables[layer.digest] = self._loop.run_in_executor(None, _table, registry, layer)
            config = await self._thread(self._config, registry, manifest)
            details = decode_config(config)
            self._check(manifest, details)
            self._manifests = [last.digest, *(one for one in self._manifests if one != last.digest)]
            return registry, manifest, config, details, fetched.digest
        except BaseException:
            await self.leave()
            registry.close()
            raise

    async def whole_layer(self, registry: Registry, layer: Descriptor, diff_id: str) -> None:
        """One layer, as a pull fetches it."""
        await self._layer(registry, layer, diff_id)

    @property
    def documents(self) -> list[str]:
        """The digests of the manifest and the indexes above it."""
        return self._manifests

    async def leave(self) -> None:
        """End every request of ours."""
        self._stop.set()
        await asyncio.gather(*self.tables.values(), return_exceptions=True)


class _Rest(Pull):
    """The whole pull, of exactly the manifest that was looked at, whatever the tag means by now."""

    def meaning(self, top: str) -> _Rest:
        self._top = top
        self._here = None
        return self

    @property
    def _which(self) -> str:
        return self._top

    def _reach(self) -> tuple[Registry, Fetched | None]:
        self._here = None
        return super()._reach()


class EarlyStarts:
    """The images on their way. Its methods run on the helper's loop."""

    def __init__(self, store: ImageStore, keeping: Keeping) -> None:
        self._store = store
        self._keeping = keeping
        self._root = f"{store.blobs.root}/early"
        self._all: dict[str, _Arriving] = {}
        #: Images whose watches died with helper and keeper: what runs of them reads zeros where nothing has come.
        self.lost: set[str] = set()

    async def open(self) -> bool:
        """Go on with what a helper before us has begun. Returns whether this kernel can do it at all."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        mounting.unmount_below(self._root)
        if self._store.layers.form != "file" or not supported(self._root):
            return False
        for name in os.listdir(self._root):
            try:
                await self._resume(f"{self._root}/{name}")
            except (OSError, ValueError, KeyError, TypeError, EngineError) as error:
                log.error("the image in %s/%s had not arrived and cannot be gone on with: %s", self._root, name, error)
                shutil.rmtree(f"{self._root}/{name}")
        return True

    async def close(self) -> None:
        """Leave; who reads what has not come waits for the helper after us."""
        for one in list(self._all.values()):
            if one.task is not None:
                one.task.cancel()
                await asyncio.wait([one.task])
            if one.look is not None:
                await one.look.leave()
            for layer in one.on_demand:
                assert layer.demand is not None
                await asyncio.to_thread(layer.demand.close)
                mounting.unmount(layer.place)
            if one.registry is not None:
                one.registry.close()

    # --- finding ----------------------------------------------------------------------------------------------------
    def get(self, name: str) -> Image | None:
        """The image on its way that *name* means."""
        try:
            reference = parse(name)
            full = f"{reference.repository}@{reference.digest}" if reference.digest else full_name(reference)
        except InvalidArgument:
            full = ""
        hexes = name.removeprefix("sha256:")
        for one in self._all.values():
            names = full_name(one.reference), f"{one.reference.repository}@{one.top}"
            if full in names or (len(hexes) >= 4 and is_hex(hexes) and one.image.id[7:].startswith(hexes)):
                return one.image
        return None

    def lowers(self, image: str, holder: str) -> tuple[str, ...] | None:
        """As the store's; None: there is no such image on its way."""
        one = self._all.get(image)
        if one is None:
            return (self._store.layers.empty,) if image in self.lost else None
        one.holders.add(holder)
        return tuple(layer.place if layer.demand is not None else self._store.layers.directory(layer.diff_id)
                     for layer in reversed(one.layers))

    def release(self, holder: str) -> None:
        """*holder* needs its image no longer."""
        for one in self._all.values():
            one.holders.discard(holder)

    # --- beginning --------------------------------------------------------------------------------------------------
    async def pull(self, name: str, *, platform: Platform | None, auth: RegistryAuth | None,
                   progress: Progress) -> bool:
        """Make the image ready to be run. False: it cannot be run early; pull it as always.

        Raises:
            EngineError: it cannot be had at all.
        """
        look = _Look(self._store, parse(name), platform, auth, progress)
        with contextlib.ExitStack() as busy:
            busy.enter_context(self._store.garbage.busy())
            found = await look.look()
            if found is None:
                return False
            registry, manifest, config, details, top = found
            identity = manifest.config.digest
            if identity in self._all or not any(map(is_worth_it, manifest.layers)):
                await look.leave()
                registry.close()
                return False
            reference = parse(name).with_default_tag()
            progress(ProgressLine(status=f"Pulling from {reference.path}", id=reference.digest or reference.tag))
            one = _Arriving(
                _image(identity, details, reference, top, manifest), reference, platform, top,
                [config, *(self._store.blobs.read(digest) for digest in look.documents)], [],
                f"{self._root}/{identity[7:31]}", registry, look, auth)
            try:
                if not await self._begin(one, manifest, details, progress):
                    await self._drop(one)
                    return False
            except BaseException:
                await self._drop(one)
                raise
            one.busy = busy.pop_all()      # what is here of it belongs to no image of the store yet
        progress(ProgressLine(status=f"Digest: {top}"))
        progress(ProgressLine(status=f"Status: {reference.familiar} can be run; the rest of it arrives behind"))
        return True

    async def _begin(self, one: _Arriving, manifest: Manifest, details: ImageConfig, progress: Progress) -> bool:
        """Makes the image ready to be run. False: none of its layers can be read in parts."""
        shutil.rmtree(one.folder, ignore_errors=True)
        os.mkdir(one.folder, 0o700)
        for number, (layer, diff_id) in enumerate(zip(manifest.layers, details.rootfs.diff_ids, strict=True)):
            one.layers.append(_Layer(diff_id, layer, f"{one.folder}/{number}"))
        missing = {made.diff_id: made for made in one.layers if not self._store.layers.has(made.diff_id)}
        for made in one.layers:
            status = "Pulling fs layer" if made.diff_id in missing else "Already exists"
            progress(ProgressLine(status=status, id=made.layer.digest[7:19]))
        tasks = [asyncio.ensure_future(self._ready(one, made, progress)) for made in missing.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not one.on_demand:
            return False
        await asyncio.gather(asyncio.to_thread(self._note, one),
                             self._keeping.entrust(_name(one), _descriptors(one)))
        for made in one.on_demand:
            self._serve(one, made)
            self._mount(made)
        self._all[one.image.id] = one
        one.task = asyncio.ensure_future(self._rest(one, quiet=True))
        return True

    async def _ready(self, one: _Arriving, made: _Layer, progress: Progress) -> None:
        """The layer on demand, or else whole."""
        assert one.look is not None and one.registry is not None
        if not is_worth_it(made.layer) or not await self._watch(one, made):
            await one.look.whole_layer(one.registry, made.layer, made.diff_id)
        progress(ProgressLine(status="Pull complete", id=made.layer.digest[7:19]))

    async def _watch(self, one: _Arriving, made: _Layer) -> bool:
        """The layer's sparse file and index, watched. False: its table cannot be used."""
        assert one.look is not None
        try:
            made.table, made.end = await one.look.tables[made.layer.digest]
            chunks = await asyncio.to_thread(_write_skeleton, made)
            await self._store.layers.index(f"{made.place}.data", f"{made.place}.index")
        except (BadTable, RuntimeError, ServerError) as error:      # some registries give no parts
            log.warning("the layer %s is fetched whole: %s", made.layer.digest, error)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{made.place}.data")
            return False
        made.demand = OnDemand.watch(f"{made.place}.data", chunks)
        return True

    def _serve(self, one: _Arriving, made: _Layer) -> None:
        assert made.demand is not None
        made.demand.serve(partial(self._fill, one, made))

    def _mount(self, made: _Layer) -> None:
        os.makedirs(made.place, exist_ok=True)
        mounting.mount_pair(f"{made.place}.index", f"{made.place}.data", made.place, loop=False)

    def _fill(self, one: _Arriving, made: _Layer, chunks: Sequence[Chunk]) -> list[bytes]:
        """In a thread: the contents of neighbouring chunks, from the layer's blob if it has come, else from afar."""
        begin, end = chunks[0].begin, max(chunk.end for chunk in chunks)
        if self._store.blobs.has(made.layer.digest):
            with open(self._store.blobs.path(made.layer.digest), "rb") as blob:
                packed = os.pread(blob.fileno(), end - begin, begin)
        elif one.registry is None:
            raise ServerError("the registry is not in reach yet")
        else:
            packed = one.registry.piece(made.layer.digest, begin, end - begin)
        form = toc.form_of(made.layer)
        assert form is not None
        return [toc.unpack(form, packed[chunk.begin - begin:chunk.end - begin], chunk) for chunk in chunks]

    # --- arriving ---------------------------------------------------------------------------------------------------
    async def _rest(self, one: _Arriving, *, quiet: bool) -> None:
        """The whole image, then the holes from it, then the end of the watches. Tried until it succeeds."""
        if quiet:
            await self._quiet(one)
        pause, tries = _RETRY[0], 0
        while True:
            try:
                with self._store.garbage.busy():
                    if not all(self._store.blobs.has(layer.layer.digest) for layer in one.on_demand):
                        await self._fetch_rest(one)
                    for layer in one.on_demand:
                        assert layer.demand is not None
                        await asyncio.to_thread(layer.demand.fill_all, partial(self._fill, one, layer))
                    await self._arrived(one)
                return
            except (EngineError, OSError) as error:
                if isinstance(error.__cause__, WrongDigest):
                    await self._refused(one, error)
                    return
                log.warning("the rest of %s has not arrived: %s; again in %d s", one.reference.familiar, error, pause)
            tries += 1
            if tries >= _TRIES and not one.holders:
                log.error("%s is given up: nobody runs it", one.reference.familiar)
                self._all.pop(one.image.id, None)
                await self._drop(one)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY[1])

    async def _quiet(self, one: _Arriving) -> None:
        deadline, before = asyncio.get_running_loop().time() + _PATIENCE, -1
        while asyncio.get_running_loop().time() < deadline:
            now = sum(layer.demand.served for layer in one.on_demand if layer.demand is not None)
            if now == before:
                return
            before = now
            await asyncio.sleep(_QUIET)

    async def _fetch_rest(self, one: _Arriving) -> None:
        rest = _Rest(self._store, one.reference, one.platform, one.auth, lambda line: None).meaning(one.top)
        await rest.run()
        name = one.reference.familiar
        self._store.on_event("pull", name, {"name": one.reference.familiar_name})

    async def _refused(self, one: _Arriving, error: BaseException) -> None:
        """The whole is not what the image promises, and so is not kept, as an ordinary pull would not have. What runs
        of it got only what the table promised, and gets the rest of that."""
        log.error("%s is not kept: %s", one.reference.familiar, error)
        self._all.pop(one.image.id, None)
        for layer in one.on_demand:
            assert layer.demand is not None
            await asyncio.to_thread(layer.demand.fill_all, partial(self._fill, one, layer))
        await self._arrived(one)

    async def _arrived(self, one: _Arriving) -> None:
        """Nothing is missing: from here on the store's image is the image."""
        for holder in one.holders:
            self._store.garbage.hold(holder, tuple(layer.diff_id for layer in one.layers))
        self._all.pop(one.image.id, None)
        for layer in one.on_demand:
            assert layer.demand is not None
            await asyncio.to_thread(layer.demand.stop)
            await asyncio.to_thread(layer.demand.answer_orphans)
        await self._drop(one)

    async def _drop(self, one: _Arriving) -> None:
        """Let go of everything; containers that run keep what their mounts hold."""
        await self._keeping.entrust(_name(one), [])
        for layer in one.on_demand:
            assert layer.demand is not None
            await asyncio.to_thread(layer.demand.close)
            mounting.unmount(layer.place)
        if one.look is not None:
            await one.look.leave()
        if one.registry is not None:
            one.registry.close()
        self._store.blobs.throw_away(one.folder)
        one.busy.close()

    # --- over a restart ---------------------------------------------------------------------------------------------
    def _note(self, one: _Arriving) -> None:
        """What a helper after us needs. No credentials: it goes on without, or when somebody pulls again."""
        for layer in one.on_demand:
            assert layer.table is not None
            with open(f"{layer.place}.table", "wb") as file:     # not synced: it is of use only while the machine is up
                file.write(toc.encode(layer.table))
        document = {
            "reference": one.reference.familiar, "top": one.top, "image": one.image.id,
            "platform": [one.platform.os, one.platform.architecture, one.platform.variant] if one.platform else None,
            "documents": [base64.b64encode(data).decode() for data in one.documents],
            "layers": [layer.row() for layer in one.layers],
            "on_demand": [number for number, layer in enumerate(one.layers) if layer.demand is not None]}
        with open(f"{one.folder}/image.json.new", "w") as file_of_all:
            json.dump(document, file_of_all)
        os.rename(f"{one.folder}/image.json.new", f"{one.folder}/image.json")

    async def _resume(self, folder: str) -> None:
        with open(f"{folder}/image.json", "rb") as file:
            document = json.load(file)
        documents = [base64.b64decode(text) for text in document["documents"]]
        identity, reference = str(document["image"]), parse(document["reference"])
        details = decode_config(documents[0])
        platform = Platform(*document["platform"]) if document["platform"] else None
        layers = [_Layer(row["diff_id"], Descriptor("", row["digest"], row["size"], annotations=row["annotations"]),
                         row["place"], end=row["end"]) for row in document["layers"]]
        one = _Arriving(_image(identity, details, reference, document["top"], None), reference, platform,
                        document["top"], documents, layers, folder)
        fds = await self._keeping.entrusted(_name(one))
        if not fds:
            self.lost.add(identity)
            shutil.rmtree(folder)
            return
        one.busy.enter_context(self._store.garbage.busy())
        for data in documents:
            self._store.blobs.put(data)
        for number, (data_fd, group) in zip(document["on_demand"], zip(fds[::2], fds[1::2], strict=True), strict=True):
            layer = layers[number]
            with open(f"{layer.place}.table", "rb") as file:
                layer.table = toc.decode(file.read())
            layer.demand = OnDemand(data_fd, group, toc.skeleton(layer.table, layer.end))
            self._mount(layer)
        await self._keeping.entrust(_name(one), _descriptors(one))
        self._all[identity] = one
        # Nobody is served before everything is there: a question that died with its reader has a number that one of
        # ours could have too, and the kernel would take our answer for its.
        one.task = asyncio.ensure_future(self._rest(one, quiet=False))


def _image(identity: str, details: ImageConfig, reference: Reference, top: str, manifest: Manifest | None) -> Image:
    names = () if reference.digest else (reference.familiar,)
    size = sum(layer.size for layer in manifest.layers) if manifest is not None else 0
    return Image(identity, details, names, (f"{reference.familiar_name}@{top}",), size, 0, None)


def _write_skeleton(made: _Layer) -> list[Chunk]:
    assert made.table is not None
    fd = os.open(f"{made.place}.data", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        return toc.skeleton(made.table, made.end, fd)
    finally:
        os.close(fd)


def _name(one: _Arriving) -> str:
    return f"early:{one.image.id}"


def _descriptors(one: _Arriving) -> list[int]:
    return [fd for layer in one.on_demand if layer.demand is not None for fd in (layer.demand.data, layer.demand.group)]
