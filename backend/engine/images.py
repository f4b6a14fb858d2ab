"""Images, as the helper asks for them: the store's images, who uses them, the API's views, the built-in image."""

from __future__ import annotations

import asyncio
import builtins
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from typing import IO, TYPE_CHECKING

from backend.engine import builtin
from backend.engine.clock import parse_time
from backend.engine.core import Core
from backend.engine.imageviews import ImageViews, created
from backend.errors import Conflict, EngineError, InvalidArgument, NotFound
from backend.images.types import Image, ImageUser, Progress, ProgressLine, RegistryAuth, RegistrySettings
from backend.spec import api
from backend.spec.api.layers import Catalog, ImageLayer, LayerFiles, TagList
from backend.spec.filters import Filters
from backend.spec.image import History, Platform, parse_platform
from backend.spec.reference import parse

if TYPE_CHECKING:
    from backend.images import ImageStore
    from backend.runtime.client import Keeper

SEARCH_KEYS = frozenset({"is-automated", "is-official", "stars"})
PRUNE_KEYS = frozenset({"dangling", "label", "label!", "until"})
_BUILTIN_NAMES = frozenset({"slipway/welcome", "slipway/welcome:latest", "docker.io/slipway/welcome",
                            "docker.io/slipway/welcome:latest"})


async def make_store(root: str, keeper: Keeper, settings: RegistrySettings | None) -> ImageStore:
    """The open image store. Its registry client is heavy and is loaded when it is first needed."""
    from backend.images import ImageStore

    store = ImageStore(root, keeper, settings or RegistrySettings())
    await store.open()
    if os.path.isdir(f"{root}/early") and os.listdir(f"{root}/early"):
        await open_early(store, keeper)
    return store


async def open_early(store: ImageStore, keeper: Keeper) -> bool:
    """Let images run before they have arrived. False: this kernel cannot. The registry client comes with it."""
    if store.early is None:
        from backend.images.early import EarlyStarts

        early = EarlyStarts(store, keeper)
        if not await early.open():
            return False
        store.early = early
    return True


class Images:
    """The images of the engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images
        self._views = ImageViews(core)
        core.images.on_event = self._tell

    def _tell(self, action: str, identity: str, attributes: dict[str, str]) -> None:
        self._core.events.publish("image", action, identity, attributes)
        if action == "delete":
            self._core.trust.forget_unused()
        elif action == "pull":
            self._core.trust.arrived()

    def _users(self, image: str) -> builtins.list[ImageUser]:
        return [ImageUser(one.id, one.status.active or one.status.state == "restarting") for one in self._core.table
                if one.record.image == image or any(mount.image == image for mount in one.record.mounts)]

    # --- views ------------------------------------------------------------------------------------------------------
    def list(self, *, all: bool = False, filters: Filters | None = None, shared_size: bool = False,
             digests: bool = False, manifests: bool = False) -> builtins.list[api.ImageSummary]:
        """Rows of a list, newest first. *all*: with the parts that builds left. *digests* is always told."""
        return self._views.list(all=all, filters=filters or Filters(), shared_size=shared_size, manifests=manifests)

    def layers_size(self) -> int:
        """Bytes of all layers, each once."""
        return self._store.usage.sizes().total

    def inspect(self, name: str, *, manifests: bool = False, platform: str = "") -> api.ImageInspect:
        """One image. *platform*: what it must be for. Raises :class:`NotFound`."""
        self._store.check_platform(self._store.get(name), name, _platform(platform))
        return self._views.inspect(name, manifests=manifests)

    def history(self, name: str, *, platform: str = "") -> builtins.list[api.HistoryItem]:
        """How an image was made, newest step first. Raises :class:`NotFound`."""
        self._store.check_platform(self._store.get(name), name, _platform(platform))
        return self._views.history(name)

    # --- registries -------------------------------------------------------------------------------------------------
    async def push(self, repository: str, tag: str, *, platform: str = "", auth: RegistryAuth | None = None,
                   progress: Progress) -> None:
        """Bring *repository*:*tag* to its registry; no tag = all tags of the repository."""
        await self._store.push(repository, tag, platform=_platform(platform), auth=auth, progress=progress)

    async def distribution(self, name: str, auth: RegistryAuth | None) -> api.DistributionInspect:
        """What *name* means at its registry, not here."""
        from backend.images import remote

        found, platforms = await asyncio.to_thread(remote.describe, parse(name), auth, self._store.settings)
        return api.DistributionInspect(
            descriptor=api.Descriptor(media_type=found.media_type, digest=found.digest, size=found.size),
            platforms=[api.Platform(architecture=one.architecture, os=one.os, variant=one.variant or api.UNSET)
                       for one in platforms])

    async def search(self, term: str, limit: int, filters: Filters,
                     auth: RegistryAuth | None) -> builtins.list[api.SearchResult]:
        """Repositories of a registry that has a search, the most starred first."""
        from backend.images import remote

        filters.check(SEARCH_KEYS)
        stars = max((_whole(text) for text in filters.get("stars")), default=0)
        official, automated = filters.flag("is-official"), filters.flag("is-automated")
        found = await asyncio.to_thread(remote.search, term, limit, auth, self._store.settings)
        return [api.SearchResult(name=one.name, description=one.description, is_official=one.official,
                                 is_automated=one.automated, star_count=one.stars)
                for one in found if one.stars >= stars and official in (None, one.official)
                and automated in (None, one.automated)]

    async def catalog(self, host: str, auth: RegistryAuth | None, *, last: str, limit: int) -> Catalog:
        """A page of a registry's list of repositories."""
        from backend.images import remote

        names, following = await asyncio.to_thread(
            remote.catalog, host, auth, self._store.settings, last=last, limit=limit)
        return Catalog(repositories=names, next=following)

    async def tags(self, repository: str, auth: RegistryAuth | None) -> TagList:
        """All tags of a repository at its registry."""
        from backend.images import remote

        meant = parse(repository)
        found = await asyncio.to_thread(remote.all_tags, meant, auth, self._store.settings)
        return TagList(name=meant.familiar_name, tags=found)

    # --- layers -----------------------------------------------------------------------------------------------------
    def layers(self, name: str) -> builtins.list[ImageLayer]:
        """The layers of an image, lowest first, with the step that made each. Raises :class:`NotFound`."""
        image = self._store.get(name)
        steps = [one for one in image.details.history or () if not one.empty_layer]
        return [self._layer(diff_id, steps[number] if number < len(steps) else None)
                for number, diff_id in enumerate(image.layers)]

    def _layer(self, diff_id: str, step: History | None) -> ImageLayer:
        size = self._store.blobs.size(diff_id) if self._store.blobs.has(diff_id) else 0
        if step is None:
            return ImageLayer(diff_id=diff_id, size=size)
        return ImageLayer(diff_id=diff_id, size=size, created=step.created or "", created_by=step.created_by or "",
                          comment=step.comment or "")

    async def layer_files(self, name: str, number: int, path: str) -> LayerFiles:
        """A directory of a layer (counted from 0, the lowest), with what it changed of the layers below."""
        from backend.images.browse import list_directory

        image = self._store.get(name)
        if not 0 <= number < len(image.layers):
            raise NotFound(f"{name} has no layer {number}: it has {len(image.layers)}, counted from 0")
        # Held like a container's, so that the layers stay mounted while they are looked at.
        holder = f"browse-{secrets.token_hex(8)}"
        found = (await self._store.lowers(image.id, holder))[::-1]
        try:
            below = found[:number][::-1]
            return await asyncio.to_thread(list_directory, found[number], below, path)
        finally:
            self._store.release(holder)

    # --- getting and giving -----------------------------------------------------------------------------------------
    async def _early(self, name: str, platform: Platform | None, auth: RegistryAuth | None,
                     progress: Progress) -> bool:
        """Whether the image can be run already, and arrives by itself."""
        if not await open_early(self._store, self._core.keeper):
            return False
        assert self._store.early is not None
        return await self._store.early.pull(name, platform=platform, auth=auth, progress=progress)

    async def convert(self, name: str, target: str) -> str:
        """The image *name* once more as *target*, in a form that runs before it has arrived. Returns its ID."""
        from backend.images.convert import convert

        return (await convert(self._store, name, target)).id

    async def pull(self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None,
                   progress: Progress, lazy: bool = False) -> None:
        """Pull an image, all tags where *reference* names none; the built-in one is made here and now. *lazy*: done as
        soon as it can be run, where it can be before it has arrived."""
        if reference in _BUILTIN_NAMES:
            await self._make_builtin(progress)
            return
        wish, meant = _platform(platform), parse(reference)
        references = [reference]
        if not meant.tag and not meant.digest:
            from backend.images import remote

            tags = await asyncio.to_thread(remote.all_tags, meant, auth, self._store.settings)
            references = [f"{meant.repository}:{tag}" for tag in tags]
        for one in references:
            signed = await self._core.trust.before_pull(one, auth)
            if not (lazy and await self._early(one, wish, auth, progress)):
                await self._store.pull(one, platform=wish, auth=auth, progress=progress)
            if signed:
                progress(ProgressLine(status=signed))

    async def _make_builtin(self, progress: Progress) -> None:
        from backend.engine.system import go_arch

        progress(ProgressLine(status="Making the built-in image from this machine's busybox", id="welcome"))
        program = await asyncio.to_thread(builtin.find_busybox)
        tar = await asyncio.to_thread(builtin.root_tar, program)
        config = builtin.image_config(go_arch(os.uname().machine))
        with tempfile.NamedTemporaryFile(dir=self._core.paths.images, prefix=".builtin-", suffix=".tar") as file:
            await asyncio.to_thread(_write, file, tar)
            await self._store.build_in(file.name, config, builtin.REFERENCE)
        progress(ProgressLine(status=f"Status: Made {builtin.REFERENCE}"))

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress,
                   quiet: bool = False, platform: str = "") -> builtins.list[str]:
        """Load the images of an archive; what was loaded, by name or ID."""
        return await self._store.load(source, progress=progress, quiet=quiet, platform=_platform(platform))

    def save(self, names: Sequence[str], *, platform: str = "") -> AsyncIterator[bytes]:
        """An archive of images."""
        return self._store.save(names, _platform(platform))

    async def import_(self, source: AsyncIterator[bytes], *, reference: str = "", message: str = "",
                      changes: Sequence[str] = (), platform: str = "") -> str:
        """An image from a root file system's tar. Returns its ID."""
        made = await self._store.import_(source, reference=reference or None, message=message, changes=changes,
                                         platform=_platform(platform))
        return made.id

    async def tag(self, name: str, repository: str, tag: str = "") -> None:
        """Give an image one more name."""
        await self._store.tag(name, repository, tag)

    async def check_auth(self, address: str, auth: RegistryAuth | None) -> str:
        """Try credentials at the registry that they are for; raises Unauthorized when it does not accept them."""
        from backend.images import login

        return await asyncio.to_thread(login.check, address, auth or RegistryAuth(), self._store.settings)

    async def check(self, *, repair: bool, auth: RegistryAuth | None, progress: Progress) -> api.ImagesChecked:
        """Hash everything of the store again; with *repair*, make or fetch anew what is broken."""
        checked, size, found = await self._store.check(repair=repair, auth=auth, progress=progress)
        return api.ImagesChecked(blobs=checked, size=size, problems=[
            api.ImageProblem(image=one.image, digest=one.digest, problem=one.what, repaired=one.done, reason=one.why)
            for one in found])

    # --- removal ----------------------------------------------------------------------------------------------------
    async def remove(self, name: str, *, force: bool = False, prune: bool = True) -> builtins.list[api.ImageDeleteItem]:
        """Take a name off an image, or remove the image."""
        removed = await self._store.remove(name, force=force, prune=prune, users=self._users)
        return [api.ImageDeleteItem(untagged=one.untagged) if one.untagged else api.ImageDeleteItem(deleted=one.deleted)
                for one in removed]

    async def prune(self, filters: Filters | None = None) -> api.ImagesPruned:
        """Remove images without a name, with `dangling=false` all that no container uses."""
        chosen = filters or Filters()
        chosen.check(PRUNE_KEYS)
        only_dangling = chosen.flag("dangling") is not False
        until = min((parse_time(text, time.time_ns()) for text in chosen.get("until")), default=0)
        report = api.ImagesPruned(images_deleted=[])
        for one in self._store.list():
            labels = one.config.labels
            if (only_dangling and one.references) or (until and created(one) > until) or not (
                    chosen.labels(labels) and chosen.no_labels(labels)):
                continue
            await self._prune_one(one, report)
        self._core.events.publish("image", "prune", "", {"reclaimed": str(report.space_reclaimed)})
        return report

    async def _prune_one(self, one: Image, report: api.ImagesPruned) -> None:
        """A used image keeps its last name: taking that is refused, as for Docker."""
        users = self._users(one.id)
        names = builtins.list(one.references) or [one.id]
        if users:
            names = names[:-1] if one.references else []
        freed = self._store.usage.freed_by(self._store.record(one.id))
        for name in names:
            try:
                removed = await self.remove(name)
            except (Conflict, EngineError):
                continue                     # something else holds it
            report.images_deleted += removed
            if any(item.deleted for item in removed):
                report.space_reclaimed += freed


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()


def _platform(text: str) -> Platform | None:
    return parse_platform(text) if text else None


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidArgument(f"invalid filter 'stars={text[:40]}': a whole number is expected")
    return int(text)
