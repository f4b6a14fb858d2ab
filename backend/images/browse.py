"""What a layer did to the image below it, one directory at a time.

Layers are untrusted: nothing in them is followed, every name is looked at below a descriptor of its directory. The
layers below are looked through as overlayfs does: the first that has a name decides, whiteouts and opaque directories
hide what is under them. All of it blocks: for threads.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backend.errors import InvalidArgument, NotFound
from backend.spec.api.layers import LayerEntry, LayerFiles

#: Names told of one directory.
LIMIT = 5000
_OPAQUE = "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFBLK: "device",
          stat.S_IFCHR: "device", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


@dataclass(slots=True)
class _View:
    """A directory of the layer (None: it has none there) and those below it that show through, topmost first."""

    own: int | None
    below: list[int]
    hides: bool


def list_directory(layer: str, below: Sequence[str], path: str) -> LayerFiles:
    """The directory *path* of the layer at *layer*; *below*: the layers under it, topmost first.

    Raises:
        NotFound: the layer has no such directory.
    """
    parts = [one for one in path.split("/") if one and one != "."]
    if ".." in parts or "\0" in path:
        raise InvalidArgument("the path of a layer's directory has no .. in it")
    with contextlib.ExitStack() as held:
        view = _root(held, layer, below)
        for part in parts:
            view = _step(held, view, part)
        if view.own is None:
            raise NotFound(f"the layer has no directory {path}")
        entries = sorted(_entries(view), key=lambda one: (one.kind != "directory", one.name))
    return LayerFiles(path="/" + "/".join(parts), entries=entries[:LIMIT], more=len(entries) > LIMIT)


def _held(held: contextlib.ExitStack, fd: int) -> int:
    held.callback(os.close, fd)
    return fd


def _root(held: contextlib.ExitStack, layer: str, below: Sequence[str]) -> _View:
    own = _held(held, os.open(layer, _DIRECTORY))
    return _View(own, [_held(held, os.open(one, _DIRECTORY)) for one in below], _opaque(own))


def _step(held: contextlib.ExitStack, view: _View, name: str) -> _View:
    """Into the directory *name*."""
    own = None if view.own is None else _enter(held, view.own, name)
    found = []
    for fd in view.below:
        seen = _stat(fd, name)
        if seen is None:
            continue
        inner = _enter(held, fd, name) if stat.S_ISDIR(seen.st_mode) else None
        if inner is None:
            break
        found.append(inner)
        if _opaque(inner):
            break
    return _View(own, found, view.hides or (own is not None and _opaque(own)))


def _enter(held: contextlib.ExitStack, fd: int, name: str) -> int | None:
    try:
        return _held(held, os.open(name, _DIRECTORY, dir_fd=fd))
    except OSError:
        return None


def _stat(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None


def _opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False


def _whiteout(seen: os.stat_result) -> bool:
    return stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0


def _shown_below(view: _View, name: str) -> os.stat_result | None:
    """What the image had under this name before the layer."""
    for fd in view.below:
        if (seen := _stat(fd, name)) is not None:
            return None if _whiteout(seen) else seen
    return None


def _entries(view: _View) -> Iterator[LayerEntry]:
    assert view.own is not None
    names = os.listdir(view.own)
    for name in names:
        seen, before = _stat(view.own, name), _shown_below(view, name)
        if seen is None:
            continue
        if _whiteout(seen):
            if before is not None:
                yield _entry(view.below[0], name, before, "removed")
        else:
            yield _entry(view.own, name, seen, _change(seen, before))
    if view.hides:
        gone = {name for fd in view.below for name in os.listdir(fd)} - set(names)
        for name in gone:
            if (before := _shown_below(view, name)) is not None:
                yield _entry(view.below[0], name, before, "removed")


def _change(seen: os.stat_result, before: os.stat_result | None) -> str:
    if before is None:
        return "added"
    same = (seen.st_mode, seen.st_uid, seen.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    return "" if same and stat.S_ISDIR(seen.st_mode) else "changed"


def _entry(fd: int, name: str, seen: os.stat_result, change: str) -> LayerEntry:
    target = ""
    if stat.S_ISLNK(seen.st_mode) and change != "removed":
        with contextlib.suppress(OSError):
            target = _text(os.readlink(name, dir_fd=fd))
    return LayerEntry(name=_text(name), kind=_KINDS[stat.S_IFMT(seen.st_mode)], change=change, size=seen.st_size,
                      mode=stat.S_IMODE(seen.st_mode), uid=seen.st_uid, gid=seen.st_gid, modified=int(seen.st_mtime),
                      target=target)


def _text(name: str) -> str:
    """Names that are no text are shown with marks in place of what is none."""
    return os.fsencode(name).decode(errors="replace")
