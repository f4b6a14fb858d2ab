"""What a confined child does in a file tree whose root is its own: look, pack, extract.

Every path is untrusted twice: it comes from a client, and the tree is somebody else's. It is followed by the kernel
with ``RESOLVE_IN_ROOT`` and what is found is used by its descriptor. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.runtime import syscalls as sc
from backend.runtime import users
from backend.runtime.extract import ENTRY_LIMIT, Extractor, Refused, Wish
from backend.runtime.httpbody import Body, ReadInto, from_descriptor, joined
from backend.runtime.pack import Packer, PackFailed, Rules
from backend.runtime.tarpipe import Members, Pipe
from backend.runtime.tarstream import BadTar

Tell = Callable[[dict[str, Any]], None]
_IN_ROOT = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_LINKS = 255


class TaskFailed(Exception):
    """A task that cannot be done. *reason*: one word of :class:`backend.runtime.protocol.KeeperError`."""

    def __init__(self, reason: str, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.errno = number

    def to_wire(self) -> dict[str, Any]:
        """As a report carries it."""
        return {"stage": "files", "reason": self.reason, "errno": self.errno, "message": str(self)}


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a task's tar goes or comes from: a pipe, -1 for none; *socket*: what comes through it follows what came
    through the pipe, -1 for nothing."""

    pipe: int = -1
    socket: int = -1


def run(task: Mapping[str, Any], root: int, ends: Ends, tell: Tell) -> None:
    """Carries *task* out below the directory *root*. Raises :class:`TaskFailed`."""
    try:
        _TASKS[task["kind"]](task, root, ends, tell)
    except _EXPECTED as error:
        raise _failure(error) from error


_EXPECTED = (BadTar, PackFailed, Refused, users.NoSuchUser, OSError)


def _failure(error: Exception) -> TaskFailed:
    """What went wrong, in the words of the protocol."""
    if isinstance(error, OSError):
        reason = {errno.ENOENT: "no_such", errno.EROFS: "read_only"}.get(error.errno or 0, "other")
        return TaskFailed(reason, f"{_shown(error)}{(error.strerror or '').lower()}", error.errno)
    reasons = {BadTar: "bad_archive", Refused: "refused", users.NoSuchUser: "no_user"}
    return TaskFailed(reasons.get(type(error), "other"), str(error))


def _shown(error: OSError) -> str:
    name = error.filename
    return f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) and name else ""


# --- looking --------------------------------------------------------------------------------------------------------
def look(root: int, path: str) -> os.stat_result:
    """lstat: a link is followed only if a slash (or ``/.``) stands behind it."""
    beyond = path.endswith(("/", "/."))
    fd = _open(root, path, os.O_PATH | (os.O_DIRECTORY if beyond else os.O_NOFOLLOW))
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _open(root: int, path: str, flags: int) -> int:
    try:
        return sc.openat2(root, path.lstrip("/") or ".", flags, resolve=_IN_ROOT)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def base_name(path: str) -> str:
    """The last part of a path, as Go's filepath.Base says it."""
    return path.rstrip("/").rpartition("/")[2] or ("/" if path.startswith("/") else ".")


def follow(root: int, path: str) -> str:
    """Where a path leads when every link is followed, as far as that goes. Only to be shown, never to be opened."""
    done: list[str] = []
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            del done[-1:]
            continue
        done.append(part)
        target = _link(root, "/".join(done))
        if target is None or links == _LINKS:
            continue
        links += 1
        done = [] if target.startswith("/") else done[:-1]
        todo += [one for one in reversed(target.split("/")) if one not in ("", ".")]
    return "/" + "/".join(done)


def _link(root: int, path: str) -> str | None:
    try:
        fd = sc.openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve=_IN_ROOT)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _stat(task: Mapping[str, Any], root: int, ends: Ends, tell: Tell) -> None:
    _tell_stat(root, task["path"], tell)


def _tell_stat(root: int, path: str, tell: Tell) -> os.stat_result:
    seen = look(root, path)
    link = follow(root, path) if stat.S_ISLNK(seen.st_mode) else ""
    tell({"stat": {"name": base_name(path), "size": seen.st_size, "mode": seen.st_mode, "mtime": seen.st_mtime_ns,
                   "rdev": seen.st_rdev, "link": link}})  # fmt: skip
    return seen


# --- out ------------------------------------------------------------------------------------------------------------
def _pack(task: Mapping[str, Any], root: int, ends: Ends, tell: Tell) -> None:
    """One file or directory, under its own name."""
    path = task["path"]
    seen = _tell_stat(root, path, tell)
    packer = Packer(ends.pipe, Rules(closed=_places(root, task.get("closed", ()))))
    if stat.S_ISDIR(seen.st_mode):
        packer.tree(_open(root, path, os.O_RDONLY | os.O_DIRECTORY), os.fsencode(base_name(path)))
    else:
        above, _, base = path.rpartition("/")
        fd = _open(root, above, os.O_RDONLY | os.O_DIRECTORY)
        try:
            packer.single(fd, os.fsencode(base), os.fsencode(base))
        finally:
            os.close(fd)
    _finish(packer, tell)


def _export(task: Mapping[str, Any], root: int, ends: Ends, tell: Tell) -> None:
    """All that is in the root, without an entry for itself; *layer*: as a layer of an image."""
    placeholders = frozenset(os.fsencode(one) for one in task.get("placeholders", ()))
    packer = Packer(ends.pipe, Rules(bool(task.get("layer")), placeholders))
    tell({"ready": True})
    packer.contents(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root))
    _finish(packer, tell)


def _finish(packer: Packer, tell: Tell) -> None:
    packed = packer.end()
    tell({"done": {"entries": packed.entries, "size": packed.size}})


def _places(root: int, paths: tuple[str, ...]) -> frozenset[tuple[int, int]]:
    """What the paths stand for, by device and inode."""
    found = set()
    for path in paths:
        try:
            seen = look(root, path)
        except OSError:
            continue
        found.add((seen.st_dev, seen.st_ino))
    return frozenset(found)


# --- in -------------------------------------------------------------------------------------------------------------
def _extract(task: Mapping[str, Any], root: int, ends: Ends, tell: Tell) -> None:
    path = task["path"]
    try:
        target = _open(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError as error:
        raise TaskFailed("not_directory", "extraction point is not a directory", error.errno) from error
    try:
        if os.statvfs(target).f_flag & os.ST_RDONLY:
            own = os.fstat(target).st_dev == os.fstat(root).st_dev
            raise TaskFailed("read_only", f"{'container rootfs' if own else 'mounted volume'} is marked read-only")
        identity = users.resolve(root, task["owner"]) if task.get("owner") else None
        owner = (identity.uid, identity.gid) if identity else None
        wish = Wish(bool(task.get("keep_kinds")), owner, path, bool(task.get("root")))
        tell({"ready": True})
        pipe = Pipe(_incoming(ends, int(task.get("length", -1))))
        try:
            extracted = Extractor(root, os.fsencode(path), target, wish).run(Members(pipe, limit=ENTRY_LIMIT))
        except _EXPECTED as error:
            tell({"error": _failure(error).to_wire()})
            pipe.drain()  # the client comes to its end and reads why
            return
    finally:
        os.close(target)
    tell({"done": {"entries": extracted.entries, "size": extracted.size}})


def _incoming(ends: Ends, length: int) -> ReadInto:
    """What reads the tar: from the pipe, or the body of the request whose socket was handed over."""
    if ends.socket < 0:
        return from_descriptor(ends.pipe)
    return Body(joined(ends.pipe, ends.socket), length)


# --- who ------------------------------------------------------------------------------------------------------------
def _user(task: Mapping[str, Any], root: int, ends: Ends, tell: Tell) -> None:
    """Whether there is such a user (``name[:group]``)."""
    identity = users.resolve(root, task["user"])
    tell({"user": [identity.uid, identity.gid]})


_TASKS: dict[str, Callable[[Mapping[str, Any], int, Ends, Tell], None]] = {
    "stat": _stat, "pack": _pack, "export": _export, "extract": _extract, "user": _user,
}  # fmt: skip
