"""Images as the API shows them. A row is made once for each state of an image: lists of thousands stay fast."""

from __future__ import annotations

import builtins
import copy
import re
import time
from collections import Counter
from collections.abc import Sequence

from backend.engine.clock import parse_time, rfc3339
from backend.engine.core import Core
from backend.errors import InvalidArgument
from backend.images.types import Image, Part
from backend.spec import api
from backend.spec.filters import Filters
from backend.spec.image import ImageConfig

LIST_KEYS = frozenset({"before", "dangling", "label", "reference", "since", "until"})


class ImageViews:
    """Lists, one image, its history."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.images
        self._rows: dict[str, tuple[Image, int, api.ImageSummary]] = {}

    def list(self, *, all: bool, filters: Filters, shared_size: bool,
             manifests: bool) -> builtins.list[api.ImageSummary]:
        """Rows of a list, newest first."""
        filters.check(LIST_KEYS)
        images = self._store.list()
        dangling = filters.flag("dangling")
        before = [created(self._store.get(name)) for name in filters.get("before")]
        since = [created(self._store.get(name)) for name in filters.get("since")]
        until = min((parse_time(text, time.time_ns()) for text in filters.get("until")), default=0)
        parents = {one.parent for one in images}
        users = Counter(one.record.image for one in self._core.table)
        shared = self._store.usage.sizes().shared if shared_size else {}
        rows = []
        for one in images:
            made, row = self._row(one)
            if (before and made >= min(before)) or (since and made <= max(since)) or (until and made > until):
                continue
            if dangling is not None and dangling != (not one.references):
                continue
            if not all and not one.references and not one.digests and one.id in parents:
                continue
            references = _matching(one, filters.get("reference"))
            if references is None or not filters.labels(one.config.labels):
                continue
            row = copy.copy(row)
            row.repo_tags, row.containers, row.shared_size = references, users[one.id], shared.get(one.id, -1)
            if manifests:
                row.manifests = self.manifests(one)
            rows.append((made, row))
        rows.sort(key=lambda pair: pair[0], reverse=True)
        self._forget(images)
        return [row for _, row in rows]

    def _row(self, one: Image) -> tuple[int, api.ImageSummary]:
        known = self._rows.get(one.id)
        if known is None or known[0] is not one:
            row = api.ImageSummary(
                id=one.id, parent_id=one.parent, repo_digests=list(one.digests), created=created(one) // 1_000_000_000,
                size=one.size, labels=one.config.labels or None)
            known = self._rows[one.id] = one, created(one), row
        return known[1], known[2]

    def _forget(self, images: Sequence[Image]) -> None:
        if len(self._rows) > len(images):
            here = {one.id for one in images}
            self._rows = {identity: row for identity, row in self._rows.items() if identity in here}

    def inspect(self, name: str, *, manifests: bool) -> api.ImageInspect:
        """One image."""
        one = self._store.get(name)
        details = one.details
        made = api.ImageInspect(
            id=one.id, repo_tags=list(one.references), repo_digests=list(one.digests),
            parent=one.parent, comment=_comment(details), created=details.created,
            docker_version=details.docker_version or "", author=details.author or "", config=details.config,
            architecture=details.architecture, variant=details.variant or api.UNSET, os=details.os, size=one.size,
            graph_driver=api.GraphDriver(data={}), root_fs=api.RootFs(layers=list(one.layers)),
            metadata=api.ImageMetadata(last_tag_time=rfc3339(one.tagged)))
        if manifests:
            made.manifests = self.manifests(one)
        return made

    def history(self, name: str) -> builtins.list[api.HistoryItem]:
        """How an image was made, newest step first."""
        return [api.HistoryItem(id=one.id or "<missing>", created=moment(one.created) // 1_000_000_000,
                                created_by=one.created_by, tags=list(one.tags) or None, size=one.size,
                                comment=one.comment) for one in self._store.history(name)]

    def manifests(self, one: Image) -> builtins.list[api.ImageManifest]:
        """What the image's name stands for at its registry: one manifest a platform, and attestations."""
        users = [each.id for each in self._core.table if each.record.image == one.id]
        return [_manifest(part, users) for part in self._store.parts(one.id)]


def _comment(details: ImageConfig) -> str:
    """What was said of an image when it was made: by itself, or by its last step (an import, BuildKit)."""
    return details.comment or (details.history[-1].comment if details.history else "") or ""


def _manifest(part: Part, users: Sequence[str]) -> api.ImageManifest:
    descriptor = api.Descriptor(media_type=part.media_type, digest=part.digest, size=part.size)
    platform = api.Platform(architecture=part.platform.architecture, os=part.platform.os,
                            variant=part.platform.variant or api.UNSET) if part.platform else api.UNSET
    if platform is not api.UNSET:
        descriptor.platform = platform
    made = api.ImageManifest(
        id=part.digest, descriptor=descriptor, available=part.available, kind=part.kind,
        size=api.ImageManifestSize(total=part.content + part.unpacked, content=part.content))
    if part.kind == "image" and platform is not api.UNSET:
        made.image_data = api.ImageManifestData(
            platform=platform, containers=list(users) if part.own else [],
            size=api.ImageManifestUnpacked(unpacked=part.unpacked))
    elif part.kind == "attestation":
        made.attestation_data = api.AttestationData(for_=part.subject)
    return made


def moment(text: str | None) -> int:
    """A time of an image in ns; 0 for what is none: an image may say anything."""
    try:
        return parse_time(text, 0) if text else 0
    except InvalidArgument:
        return 0


def created(one: Image) -> int:
    """When an image was made, as it says itself (ns)."""
    return moment(one.details.created)


def _matching(one: Image, patterns: Sequence[str]) -> list[str] | None:
    """The references of an image that match `reference` filters; None: it is not shown."""
    if not patterns:
        return list(one.references)
    found = [name for name in one.references for pattern in patterns if _glob(pattern, name)]
    by_digest = any(_glob(pattern, name) for name in one.digests for pattern in patterns)
    return list(dict.fromkeys(found)) if found or by_digest else None


def _glob(pattern: str, name: str) -> bool:
    """Docker's match of a familiar name: a star stops at a slash; a pattern without a tag means all tags."""
    parts = []
    for piece in re.findall(r"\*+|\?|[^*?]+", pattern):
        parts.append("[^/]*" if piece.startswith("*") else "[^/]" if piece == "?" else re.escape(piece))
    rule = re.compile("".join(parts))
    repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    return rule.fullmatch(name) is not None or rule.fullmatch(repository) is not None
