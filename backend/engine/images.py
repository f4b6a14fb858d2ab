"""Images, as the helper asks for them: the store's images, who uses them, the API's views, the built-in image."""

from __future__ import annotations

import asyncio
import builtins
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from typing import IO, TYPE_CHECKING

from backend.engine import builtin
from backend.engine.clock import parse_time, rfc3339
from backend.engine.core import Core
from backend.errors import Conflict, EngineError, InvalidArgument
from backend.images.types import Image, ImageUser, Progress, ProgressLine, RegistryAuth, RegistrySettings
from backend.spec import api
from backend.spec.filters import Filters
from backend.spec.image import Platform, parse_platform

if TYPE_CHECKING:
    from backend.images import ImageStore
    from backend.runtime.client import Keeper

LIST_KEYS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_KEYS = frozenset({"dangling", "label", "label!", "until"})
_BUILTIN_NAMES = frozenset({"slipway/welcome", "slipway/welcome:latest", "docker.io/slipway/welcome",
                            "docker.io/slipway/welcome:latest"})


async def make_store(root: str, keeper: Keeper, settings: RegistrySettings | None) -> ImageStore:
    """The open image store. Its registry client is heavy and is loaded when it is first needed."""
    from backend.images import ImageStore

    store = ImageStore(root, keeper, settings or RegistrySettings())
    await store.open()
    return store


class Images:
    """The images of the engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images
        core.images.on_event = self._tell

    def _tell(self, action: str, identity: str, attributes: dict[str, str]) -> None:
        self._core.events.publish("image", action, identity, attributes)

    def _users(self, image: str) -> builtins.list[ImageUser]:
        return [ImageUser(one.id, one.status.active or one.status.state == "restarting") for one in self._core.table
                if one.record.image == image]

    # --- views ------------------------------------------------------------------------------------------------------
    def list(self, *, all: bool = False, filters: Filters | None = None, shared_size: bool = False,
             digests: bool = False) -> builtins.list[api.ImageSummary]:
        """Rows of a list, newest first. *all*: with the parts that builds left. *digests* is always told."""
        chosen = filters or Filters()
        chosen.check(LIST_KEYS)
        dangling = chosen.flag("dangling")
        before = [_created(self._store.get(name)) for name in chosen.get("before")]
        since = [_created(self._store.get(name)) for name in chosen.get("since")]
        until = min((parse_time(text, time.time_ns()) for text in chosen.get("until")), default=0)
        parents = {one.parent for one in self._store.list()}
        rows = []
        for one in sorted(self._store.list(), key=_created, reverse=True):
            created = _created(one)
            if (before and created >= min(before)) or (since and created <= max(since)) or (until and created > until):
                continue
            if dangling is not None and dangling != (not one.references):
                continue
            if not all and not one.references and not one.digests and one.id in parents:
                continue
            references = _matching(one, chosen.get("reference"))
            if references is None or not chosen.labels(one.config.labels):
                continue
            rows.append(self._summary(one, references, shared_size=shared_size))
        return rows

    def _summary(self, one: Image, references: Sequence[str], *, shared_size: bool) -> api.ImageSummary:
        return api.ImageSummary(
            id=one.id, parent_id=one.parent, repo_tags=builtins.list(references),
            repo_digests=builtins.list(one.digests), created=_created(one) // 1_000_000_000, size=one.size,
            labels=one.config.labels or None,
            shared_size=self._shared(one) if shared_size else -1, containers=len(self._users(one.id)))

    def _shared(self, one: Image) -> int:
        """Bytes that an image shares with others, as far as whole layers say it."""
        others = [set(other.layers) for other in self._store.list() if other.id != one.id]
        return one.size if any(set(one.layers) <= layers for layers in others) else 0

    def layers_size(self) -> int:
        """Bytes of all layers, each once (as far as the images tell: the largest of those that share all)."""
        seen: set[tuple[str, ...]] = set()
        total = 0
        for one in self._store.list():
            if one.layers not in seen:
                seen.add(one.layers)
                total += one.size
        return total

    def inspect(self, name: str) -> api.ImageInspect:
        """One image."""
        one = self._store.get(name)
        details = one.details
        return api.ImageInspect(
            id=one.id, repo_tags=builtins.list(one.references), repo_digests=builtins.list(one.digests),
            parent=one.parent, comment=details.comment or "", created=details.created,
            docker_version=details.docker_version or "", author=details.author or "", config=details.config,
            architecture=details.architecture, variant=details.variant or api.UNSET, os=details.os, size=one.size,
            graph_driver=api.GraphDriver(data={}), root_fs=api.RootFs(layers=builtins.list(one.layers)),
            metadata=api.ImageMetadata(last_tag_time=rfc3339(one.tagged)))

    def history(self, name: str) -> builtins.list[api.HistoryItem]:
        """How an image was made, newest step first."""
        return [api.HistoryItem(id=one.id or "<missing>", created=_time(one.created) // 1_000_000_000,
                                created_by=one.created_by, tags=builtins.list(one.tags) or None, size=one.size,
                                comment=one.comment) for one in self._store.history(name)]

    # --- getting and giving -----------------------------------------------------------------------------------------
    async def pull(self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None,
                   progress: Progress) -> None:
        """Pull an image; the built-in one is made here and now."""
        if reference in _BUILTIN_NAMES:
            await self._make_builtin(progress)
            return
        await self._store.pull(reference, platform=_platform(platform), auth=auth, progress=progress)

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
                   quiet: bool = False) -> builtins.list[str]:
        """Load the images of an archive; what was loaded, by name or ID."""
        return await self._store.load(source, progress=progress, quiet=quiet)

    def save(self, names: Sequence[str]) -> AsyncIterator[bytes]:
        """An archive of images."""
        return self._store.save(names)

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
            if (only_dangling and one.references) or (until and _created(one) > until) or not (
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
        for name in names:
            try:
                removed = await self.remove(name)
            except (Conflict, EngineError):
                continue                     # something else holds it
            report.images_deleted += removed
            if any(item.deleted for item in removed):
                report.space_reclaimed += one.size


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()


def _platform(text: str) -> Platform | None:
    return parse_platform(text) if text else None


def _time(text: str | None) -> int:
    try:
        return parse_time(text, 0) if text else 0
    except InvalidArgument:
        return 0                             # an image may say anything


def _created(one: Image) -> int:
    return _time(one.details.created)


def _matching(one: Image, patterns: Sequence[str]) -> builtins.list[str] | None:
    """The references of an image that match `reference` filters; None: it is not shown."""
    if not patterns:
        return builtins.list(one.references)
    found = [name for name in one.references for pattern in patterns if _glob(pattern, name)]
    by_digest = any(_glob(pattern, name) for name in one.digests for pattern in patterns)
    return builtins.list(dict.fromkeys(found)) if found or by_digest else None


def _glob(pattern: str, name: str) -> bool:
    """Docker's match of a familiar name: a star stops at a slash; a pattern without a tag means all tags."""
    parts = []
    for piece in re.findall(r"\*+|\?|[^*?]+", pattern):
        parts.append("[^/]*" if piece.startswith("*") else "[^/]" if piece == "?" else re.escape(piece))
    rule = re.compile("".join(parts))
    repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    return rule.fullmatch(name) is not None or rule.fullmatch(repository) is not None
