"""The files of a volume, one at a time, below a directory that is held open.

Containers write there at the same time, and what they write is untrusted: a path is followed by the kernel with
``RESOLVE_IN_ROOT`` (the volume is the root, so a link to /etc is one to the volume's own), only regular files are
opened, a file is written beside its place and renamed. All of it blocks: for threads.
"""

from __future__ import annotations

import errno
import heapq
import os
import posixpath
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from backend.errors import Conflict, EngineError, Forbidden, InvalidArgument, NotFound, ServerError
from backend.runtime import syscalls as sc
from backend.spec.api.files import FileEntry, FileList
from backend.volumes import tree

_IN_ROOT = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PIECE = 1 << 18
_LINKS = 40
_DRAFT = ".slipway-"                    # a file on its way to its place; a crash leaves it
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link", stat.S_IFBLK: "device",
          stat.S_IFCHR: "device", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}


def clean(path: str) -> str:
    """An absolute path, ``/`` for the volume itself. Raises :class:`InvalidArgument`."""
    if "\0" in path or (not path.isascii() and any("\ud800" <= one <= "\udfff" for one in path)):
        raise InvalidArgument("a path cannot have a NUL or half a character in it")
    return posixpath.normpath("/" + path.lstrip("/"))


@contextmanager
def _told(path: str) -> Iterator[None]:
    """The system's refusals as ours."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        kind: type[EngineError] = ServerError
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.EXDEV):
            kind, why = NotFound, "there is no such file in the volume"
        elif error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL):
            kind = InvalidArgument
        elif error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.EBUSY):
            kind = Conflict
        elif error.errno in (errno.EROFS, errno.EPERM, errno.EACCES):
            kind = Forbidden
        raise kind(f"{path}: {why}") from error


def _open(root: int, path: str, flags: int) -> int:
    return sc.openat2(root, path.lstrip("/") or ".", flags, resolve=_IN_ROOT)


@contextmanager
def _directory(root: int, path: str) -> Iterator[int]:
    fd = _open(root, path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _place(path: str) -> tuple[str, str]:
    """The directory and the name of a path. Raises :class:`InvalidArgument` for the volume itself."""
    above, _, name = path.rpartition("/")
    if not name:
        raise InvalidArgument("this is the volume itself; name a file or directory in it")
    return above or "/", name


# --- looking --------------------------------------------------------------------------------------------------------
def entries(root: int, path: str, *, after: str = "", limit: int = 1000) -> FileList:
    """The names in a directory behind *after*, at most *limit*. However many there are, few are held at once."""
    with _told(path), _directory(root, path) as fd, os.scandir(fd) as found:
        wanted = (one.name for one in found if one.name > after and not one.name.startswith(_DRAFT))
        names = heapq.nsmallest(limit + 1, wanted)
        rows = [row for name in names[:limit] if (row := _entry(fd, name)) is not None]
    return FileList(path=path, entries=rows, more=len(names) > limit)


def _entry(directory: int, name: str) -> FileEntry | None:
    """What is said of a name; None if it has gone meanwhile."""
    try:
        seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
        target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(seen.st_mode) else ""
    except OSError:
        return None
    shown, odd = _text(name)
    return FileEntry(name=shown, odd=odd, kind=_KINDS[stat.S_IFMT(seen.st_mode)], size=seen.st_size,
                     mode=stat.S_IMODE(seen.st_mode), uid=seen.st_uid, gid=seen.st_gid, modified=seen.st_mtime_ns,
                     target=_text(target)[0])


def _text(name: str) -> tuple[str, bool]:
    shown = os.fsencode(name).decode(errors="replace")
    return shown, shown != name


def describe(root: int, path: str) -> FileEntry:
    """What is at a path, the last link of it not followed."""
    if path == "/":
        return FileEntry(name="/", kind="directory", mode=stat.S_IMODE(os.fstat(root).st_mode))
    above, name = _place(path)
    with _told(path), _directory(root, above) as fd:
        found = _entry(fd, name)
    if found is None:
        raise NotFound(f"{path}: there is no such file in the volume")
    return found


# --- reading --------------------------------------------------------------------------------------------------------
class Reader:
    """An open regular file of a volume. `size` in bytes and `version` are those of the moment when it was opened."""

    def __init__(self, root: int, path: str, offset: int = 0) -> None:
        with _told(path):
            self._fd = _open(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        seen = os.fstat(self._fd)
        if not stat.S_ISREG(seen.st_mode):
            os.close(self._fd)
            raise InvalidArgument(f"{path}: this is a {_KINDS[stat.S_IFMT(seen.st_mode)]}, not a file to be read")
        self.size, self.version = seen.st_size, version(seen)
        self._at, self._left = offset, max(0, seen.st_size - offset)

    def limit(self, length: int) -> None:
        """Read at most *length* bytes."""
        self._left = min(self._left, length)

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self._left

    def read(self) -> bytes:
        """The next piece, b"" at the end. A file that has shrunk meanwhile is filled up with zeros."""
        size = min(self._left, _PIECE)
        data = os.pread(self._fd, size, self._at)
        data += bytes(size - len(data))
        self._at += size
        self._left -= size
        return data

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def version(seen: os.stat_result) -> str:
    """What tells two states of a file apart."""
    return f"{seen.st_ino:x}-{seen.st_mtime_ns:x}-{seen.st_size:x}"


# --- writing --------------------------------------------------------------------------------------------------------
class Writer:
    """A file on its way to *path*: written beside it, put there by :meth:`commit`, or gone with :meth:`close`.

    A file that is there is replaced by one of its owner and mode; a link is followed, so that it stays one.
    """

    def __init__(self, root: int, path: str, *, mode: int | None = None, expected: str = "") -> None:
        self._path = path
        self._expected = expected
        with _told(path):
            above, self._name = _place(_followed(root, path))
            self._above = _open(root, above, _DIRECTORY)
        self._fd, self._draft = -1, ""
        try:
            with _told(path):
                self._begin(mode)
        except BaseException:
            self.close()
            raise

    def _begin(self, mode: int | None) -> None:
        old = self._old()
        draft = f"{_DRAFT}{secrets.token_hex(8)}"
        self._fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                           dir_fd=self._above)
        self._draft = draft
        owner = old or os.fstat(self._above)          # a new file belongs to whoever the directory belongs to
        os.fchown(self._fd, owner.st_uid, owner.st_gid)
        os.fchmod(self._fd, mode if mode is not None else stat.S_IMODE(old.st_mode) if old else 0o644)

    def _old(self) -> os.stat_result | None:
        """The file that is there now; checked to be one, and to be the expected one."""
        try:
            old = os.stat(self._name, dir_fd=self._above, follow_symlinks=False)
        except FileNotFoundError:
            old = None
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise Conflict(f"{self._path}: a {_KINDS[stat.S_IFMT(old.st_mode)]} is there, not a file")
        if self._expected and (old is None or version(old) != self._expected):
            raise Conflict(f"{self._path}: the file has changed since it was read; read it again")
        return old

    def write(self, data: bytes) -> None:
        """Append."""
        with _told(self._path):
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view):]

    def commit(self) -> str:
        """Put it into its place; its version."""
        with _told(self._path):
            os.fsync(self._fd)
            self._old()
            os.rename(self._draft, self._name, src_dir_fd=self._above, dst_dir_fd=self._above)
            self._draft = ""
            return version(os.fstat(self._fd))

    def close(self) -> None:
        """Drop what was not committed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._draft:
            os.unlink(self._draft, dir_fd=self._above)
            self._draft = ""
        if self._above >= 0:
            os.close(self._above)
            self._above = -1


def _followed(root: int, path: str) -> str:
    """*path* with the links at its end followed. What becomes of it is opened inside the root in any case."""
    for _ in range(_LINKS):
        above, name = _place(path)
        with _directory(root, above) as fd:
            try:
                target = os.readlink(name, dir_fd=fd)
            except (FileNotFoundError, OSError):
                return path
        path = posixpath.normpath(posixpath.join(above, target) if not target.startswith("/") else target)
    raise OSError(errno.ELOOP, "too many links")


def make_directory(root: int, path: str, mode: int = 0o755) -> None:
    """Make a directory and those above it that are missing. Raises :class:`Conflict` if something is there."""
    _place(path)
    parts = [one for one in path.split("/") if one]
    with _told(path):
        for depth in range(1, len(parts) + 1):
            with _directory(root, "/" + "/".join(parts[:depth - 1])) as fd:
                try:
                    os.mkdir(parts[depth - 1], 0o700, dir_fd=fd)
                except FileExistsError:
                    if depth == len(parts):
                        raise
                    continue
                owner = os.fstat(fd)
                os.chown(parts[depth - 1], owner.st_uid, owner.st_gid, dir_fd=fd, follow_symlinks=False)
                os.chmod(parts[depth - 1], mode, dir_fd=fd)


def remove(root: int, path: str) -> None:
    """Remove a file, or a directory with all that is in it. A link goes, what it leads to stays."""
    above, name = _place(path)
    with _told(path), _directory(root, above) as fd:
        try:
            os.unlink(name, dir_fd=fd)
        except IsADirectoryError:
            tree.remove(fd, name)


def rename(root: int, old: str, new: str) -> None:
    """Move a file or directory within the volume. Raises :class:`Conflict` if something is at *new*."""
    (old_above, old_name), (new_above, new_name) = _place(old), _place(new)
    with _told(old), _directory(root, old_above) as source:
        os.stat(old_name, dir_fd=source, follow_symlinks=False)
        with _told(new), _directory(root, new_above) as target:
            if _entry(target, new_name) is not None:
                raise Conflict(f"{new}: something is there already")
            os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)


def empty(root: int) -> None:
    """Remove everything that is in the volume."""
    with _told("/"):
        for name in os.listdir(root):
            remove(root, "/" + name)


