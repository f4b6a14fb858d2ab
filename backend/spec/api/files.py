"""Wire types of ``/slipway/volumes/{name}/…``: the files of a volume, which Docker's API does not show."""

from __future__ import annotations

from backend.spec.api.wire import Wire


class FileEntry(Wire):
    """One name in a directory. `kind`: file, directory, link, device, pipe or socket; `size` in bytes; `mode`:
    permission bits; `modified`: ns since the epoch; `target`: of a link; `odd`: the name is no text (it is shown with
    replacements and cannot be asked for), as programs of old systems make them."""

    name: str
    kind: str
    size: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    modified: int = 0
    target: str = ""
    odd: bool = False


class FileList(Wire):
    """A directory, sorted by name. `more`: there are names behind the last one (ask again with `after`)."""

    path: str = "/"
    entries: list[FileEntry] = []
    more: bool = False


class Restored(Wire):
    """What a restore put into a volume. `size`: bytes of its files."""

    entries: int = 0
    size: int = 0


class VolumeClone(Wire):
    """The body of POST /slipway/volumes/{name}/clone."""

    name: str = ""
    labels: dict[str, str] = {}
