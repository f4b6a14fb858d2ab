"""Wire types of ``/slipway/images/{name}/layers`` and ``/slipway/registries``: Docker's API has no match for them."""

from __future__ import annotations

from backend.spec.api.wire import Wire, field


class ImageLayer(Wire):
    """A layer of an image, lowest first. `size`: bytes of its uncompressed tar; `created_by`: the step that made it."""

    diff_id: str = field(name="DiffID")
    size: int = 0
    created: str = ""
    created_by: str = ""
    comment: str = ""


class LayerEntry(Wire):
    """A name in a directory of a layer. `kind`: file, directory, link, device, pipe or socket. `change`: added,
    changed, removed, or "" for a directory that is there only to hold what changed; `size` in bytes, `mode` the
    permission bits, `modified` seconds since the epoch, `target` of a link."""

    name: str
    kind: str = ""
    change: str = ""
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    modified: int = 0
    target: str = ""


class LayerFiles(Wire):
    """A directory of a layer, sorted by name. `more`: there are more names than are told."""

    path: str = "/"
    entries: list[LayerEntry] = []
    more: bool = False


class Catalog(Wire):
    """Repositories of a registry. `next`: where to go on (the `last` of the next request), "" at the end."""

    repositories: list[str] = []
    next: str = ""


class TagList(Wire):
    """Tags of a repository."""

    name: str = ""
    tags: list[str] = []
