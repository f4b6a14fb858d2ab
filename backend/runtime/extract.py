"""A tar into a tree that is there already: what a copy into a container and the restore of a volume do.

Runs in a confined child whose root is the tree's. Members are untrusted, and somebody else may change the tree at the
same time: a member's directory is opened once, without following links, and all is done by that descriptor. A link
that was there before may be followed, inside the root; one that the archive itself brought may not. Nothing that
exists is ever opened: it is merged (directory with directory) or removed first. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from backend.runtime import syscalls as sc
from backend.runtime import tarstream
from backend.runtime.pack import PSEUDO
from backend.runtime.tarpipe import Members
from backend.runtime.tarstream import BadTar, Entry

ENTRY_LIMIT = 10_000_000
_DEPTH_LIMIT = 1024
_HOLE = 1 << 16  # runs of zeros from here on become holes
_ZEROS = bytes(1 << 20)
_BENEATH = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_MAGICLINKS
_IN_ROOT = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {tarstream.CHAR: stat.S_IFCHR, tarstream.BLOCK_DEVICE: stat.S_IFBLK, tarstream.FIFO: stat.S_IFIFO}


class Refused(Exception):
    """The tree does not take a member; the message is meant for people."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """Number of *entries*, sum of file sizes in *size* bytes."""

    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Wish:
    """*keep_kinds*: a directory is not replaced by something else, nor the other way round; *owner*: (uid, gid) that
    everything gets instead of what the archive says; *shown*: the target as messages name it; *root*: what the archive
    says of its own root is said of the target (a backup that is restored)."""

    keep_kinds: bool = False
    owner: tuple[int, int] | None = None
    shown: str = "/"
    root: bool = False


class Extractor:
    """Puts the members of one archive into the directory *target*, which is at *path* below *root*."""

    def __init__(self, root: int, path: bytes, target: int, wish: Wish) -> None:
        self._root = root
        self._path = path
        self._target = target
        self._wish = wish
        self._above: tuple[tuple[bytes, ...], int] = ((), -1)  # the directory of the last member, which stays open
        self._devices = {os.fstat(target).st_dev}
        self._brought: set[tuple[bytes, ...]] = set()  # links that the archive made
        self._times: list[tuple[tuple[bytes, ...], int]] = []

    def run(self, members: Members) -> Extracted:
        """All of them. Raises :class:`BadTar`, :class:`Refused`, :class:`OSError`."""
        size = 0
        _check_place(self._target)
        try:
            for entry in members:
                size += entry.size
                if entry.name:
                    self._member(entry, members)
                elif self._wish.root and entry.kind == tarstream.DIRECTORY:
                    self._dress_root(entry)
            for name, mtime in reversed(self._times):  # last: making a child changes its directory's time
                self._set_time(name, mtime)
        finally:
            if self._above[1] >= 0:
                os.close(self._above[1])
        return Extracted(members.count, size)

    def _dress_root(self, entry: Entry) -> None:
        os.fchown(self._target, *self._owner(entry))
        self._dress(self._target, entry)

    def _set_time(self, name: tuple[bytes, ...], mtime: int) -> None:
        try:
            os.utime(name[-1], (mtime, mtime), dir_fd=self._directory(name[:-1]), follow_symlinks=False)
        except FileNotFoundError:
            pass  # somebody has removed the directory meanwhile

    # --- where ------------------------------------------------------------------------------------------------------
    def _directory(self, names: tuple[bytes, ...]) -> int:
        """The directory of a member, made if it is missing; it stays open until another is asked for."""
        if self._above[1] >= 0:
            if self._above[0] == names:
                return self._above[1]
            os.close(self._above[1])
            self._above = ((), -1)
        fd = self._open(names)
        seen = os.fstat(fd)
        if seen.st_dev not in self._devices:
            _check_place(fd)
            self._devices.add(seen.st_dev)
        self._above = (names, fd)
        return fd

    def _open(self, names: tuple[bytes, ...]) -> int:
        if not names:
            return os.dup(self._target)
        try:
            return sc.openat2(self._target, _text(names), _DIRECTORY & ~os.O_NOFOLLOW, resolve=_BENEATH)
        except FileNotFoundError:
            return self._make(names)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
        return self._through_links(names)

    def _through_links(self, names: tuple[bytes, ...]) -> int:
        for depth in range(1, len(names) + 1):
            if names[:depth] in self._brought:
                raise BadTar(f"the name {b'/'.join(names)[:100]!r} leads through a link of the archive itself")
        whole = _text((*(part for part in self._path.split(b"/") if part), *names))
        try:
            return sc.openat2(self._root, whole, _DIRECTORY & ~os.O_NOFOLLOW, resolve=_IN_ROOT)
        except FileNotFoundError:
            return self._make(names)

    def _make(self, names: tuple[bytes, ...]) -> int:
        """The archive says nothing of this directory: it gets root's ownership, or the wished one."""
        above = self._open(names[:-1])
        try:
            try:
                os.mkdir(names[-1], 0o755, dir_fd=above)
                if self._wish.owner:
                    os.chown(names[-1], *self._wish.owner, dir_fd=above, follow_symlinks=False)
            except FileExistsError:
                pass
            return os.open(names[-1], _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)

    # --- what -------------------------------------------------------------------------------------------------------
    def _member(self, entry: Entry, members: Members) -> None:
        above, base = self._directory(entry.name[:-1]), entry.name[-1]
        for attempt in range(3):
            try:
                self._make_member(above, base, entry, members)
                return
            except FileExistsError:
                if attempt == 2:
                    raise
                if self._clear(above, base, entry):
                    break
        self._dress_directory(above, base, entry)

    def _make_member(self, above: int, base: bytes, entry: Entry, members: Members) -> None:
        if entry.kind == tarstream.FILE:
            self._file(above, base, entry, members)
        elif entry.kind == tarstream.DIRECTORY:
            os.mkdir(base, 0o700, dir_fd=above)
            self._dress_directory(above, base, entry)
        elif entry.kind == tarstream.SYMLINK:
            os.symlink(entry.link, base, dir_fd=above)
            self._brought.add(entry.name)
            os.chown(base, *self._owner(entry), dir_fd=above, follow_symlinks=False)
            os.utime(base, (entry.mtime, entry.mtime), dir_fd=above, follow_symlinks=False)
        elif entry.kind == tarstream.LINK:
            self._link(above, base, entry)
        else:
            os.mknod(base, _NODES[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=above)
            os.chown(base, *self._owner(entry), dir_fd=above, follow_symlinks=False)
            os.chmod(base, entry.mode, dir_fd=above)
            os.utime(base, (entry.mtime, entry.mtime), dir_fd=above, follow_symlinks=False)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        return self._wish.owner or (entry.uid, entry.gid)

    def _link(self, above: int, base: bytes, entry: Entry) -> None:
        target = tarstream.components(entry.link)
        if not target:
            raise BadTar("a hard link in the archive has no target")
        source = self._open(target[:-1])
        try:
            os.link(target[-1], base, src_dir_fd=source, dst_dir_fd=above, follow_symlinks=False)
        finally:
            os.close(source)
        if target in self._brought:
            self._brought.add(entry.name)

    def _file(self, above: int, base: bytes, entry: Entry, members: Members) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(base, flags, 0o600, dir_fd=above)
        try:
            _fill(fd, entry.size, members.body())
            os.fchown(fd, *self._owner(entry))
            self._dress(fd, entry)
            os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _dress(self, fd: int, entry: Entry) -> None:
        os.fchmod(fd, entry.mode)
        for name, value in entry.xattrs.items():
            os.setxattr(fd, name, value)

    def _dress_directory(self, above: int, base: bytes, entry: Entry) -> None:
        fd = os.open(base, _DIRECTORY, dir_fd=above)
        try:
            os.fchown(fd, *self._owner(entry))
            self._dress(fd, entry)
        finally:
            os.close(fd)
        self._times.append((entry.name, entry.mtime))

    def _clear(self, above: int, base: bytes, entry: Entry) -> bool:
        """Makes room for a member. True: a directory is there, and the member is one too: they are merged."""
        try:
            old = os.stat(base, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return False
        was, will = stat.S_ISDIR(old.st_mode), entry.kind == tarstream.DIRECTORY
        if was and will:
            return True
        if was != will and self._wish.keep_kinds:
            name = os.fsdecode(b"/".join(entry.name))
            kinds = ("directory", "non-directory") if was else ("non-directory", "directory")
            raise Refused(f'cannot overwrite {kinds[0]} "{name}" with {kinds[1]} "{self._wish.shown}"')
        if was:
            remove_tree(above, base)
        else:
            os.unlink(base, dir_fd=above)
        self._brought.discard(entry.name)
        return False


def _text(names: tuple[bytes, ...]) -> str:
    return os.fsdecode(b"/".join(names)) or "."


def _check_place(fd: int) -> None:
    """The kernel's own file systems are no place for an archive: a write there is an order to the kernel."""
    if sc.fstatfs_type(fd) in PSEUDO:
        raise OSError(errno.EPERM, "files of the kernel (/proc, /sys) cannot be copied to")


def _fill(fd: int, size: int, pieces: Iterator[memoryview]) -> None:
    """Writes a file's contents; long runs of zeros become holes."""
    at = written = 0
    for piece in pieces:
        count = len(piece)
        if count >= _HOLE and not piece[0] and bytes(piece) == _ZEROS[:count]:
            at += count
            continue
        if written != at:
            os.lseek(fd, at, os.SEEK_SET)
        while piece:
            piece = piece[os.write(fd, piece) :]
        at += count
        written = at
    if written != at:
        os.ftruncate(fd, size)


def remove_tree(above: int, base: bytes) -> None:
    """Removes the directory *base* in *above* with all that is in it, by descriptors."""
    stack = [_opened(above, base)]
    try:
        while stack:
            fd, name, names = stack[-1]
            below = _unlink_files(fd, names)
            if below is None:
                stack.pop()
                os.close(fd)
                os.rmdir(name, dir_fd=stack[-1][0] if stack else above)
                continue
            if len(stack) > _DEPTH_LIMIT:
                raise OSError(errno.ENAMETOOLONG, "directories are nested too deep to be removed")
            stack.append(_opened(fd, below))
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _opened(above: int, base: bytes) -> tuple[int, bytes, list[bytes]]:
    fd = os.open(base, _DIRECTORY, dir_fd=above)
    return fd, base, [os.fsencode(name) for name in os.listdir(fd)]


def _unlink_files(fd: int, names: list[bytes]) -> bytes | None:
    """Unlinks what *names* says is in a directory, up to the first directory among it, which is returned."""
    while names:
        base = names.pop()
        try:
            os.unlink(base, dir_fd=fd)
        except IsADirectoryError:
            return base
        except FileNotFoundError:
            continue
    return None
