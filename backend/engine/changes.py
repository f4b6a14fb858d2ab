"""What a container changed of its image: its upper directory compared with what lies below. By descriptors only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Set

MODIFIED, ADDED, DELETED = 0, 1, 2
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_LIMIT = 1024


def changes(upper: int, lower: int, placeholders: Set[str] = frozenset()) -> Iterator[tuple[str, int]]:
    """(path, kind) of everything in the overlay's directory *upper* that differs from the tree *lower*, sorted, each
    behind the directories above it. *placeholders*: empty files and directories there are the runtime's own."""
    yield from _Comparison(placeholders).directory(_again(upper), _again(lower), "", 0)


def _again(fd: int) -> int:
    return os.open(".", _DIRECTORY, dir_fd=fd)


class _Comparison:
    def __init__(self, placeholders: Set[str]) -> None:
        self._placeholders = placeholders

    def directory(self, upper: int, lower: int, path: str, depth: int) -> Iterator[tuple[str, int]]:
        """What differs in a directory; *lower* is -1 where there is none. Both are closed."""
        try:
            if depth > _DEPTH_LIMIT:
                raise OSError(40, f"directories are nested deeper than {_DEPTH_LIMIT}")
            names = sorted(os.listdir(upper))
            if lower >= 0 and _opaque(upper):
                names = sorted({*names, *os.listdir(lower)})
            for name in names:
                yield from self._entry(upper, lower, name, f"{path}/{name}", depth)
        finally:
            os.close(upper)
            if lower >= 0:
                os.close(lower)

    def _entry(self, upper: int, lower: int, name: str, path: str, depth: int) -> Iterator[tuple[str, int]]:
        now, was = _stat(upper, name), _stat(lower, name)
        if now is None or (stat.S_ISCHR(now.st_mode) and now.st_rdev == 0):
            if was is not None:
                yield path, DELETED
            return
        if not stat.S_ISDIR(now.st_mode):
            if was is not None or path not in self._placeholders or now.st_size:
                yield path, ADDED if was is None else MODIFIED
            return
        both = was is not None and stat.S_ISDIR(was.st_mode)
        below = os.open(name, _DIRECTORY, dir_fd=upper)
        there = os.open(name, _DIRECTORY, dir_fd=lower) if both else -1
        hidden = self._hides(below, there, path)
        inner = self.directory(below, there, path, depth + 1)
        first = next(inner, None)
        if was is None:
            quiet = first is None and path in self._placeholders
        else:
            quiet = first is None and both and (hidden or _same(now, was)) and _alike(now, was)
        if not quiet:
            yield path, ADDED if was is None else MODIFIED
        if first is not None:
            yield first
            yield from inner

    def _hides(self, upper: int, lower: int, path: str) -> bool:
        """Whether something of the runtime's own lies in a directory: then its time says nothing."""
        return any(f"{path}/{name}" in self._placeholders and _stat(lower, name) is None for name in os.listdir(upper))


def _stat(directory: int, name: str) -> os.stat_result | None:
    if directory < 0:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False                         # the attribute is not there


def _alike(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return int(one.st_mtime) == int(other.st_mtime)
