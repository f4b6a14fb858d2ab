"""A layer unpacked into a directory, for kernels that cannot mount it: the fall-back of :mod:`backend.runtime.erofs`.

Runs in a confined child whose root *is* the target directory, so no name and no link can lead out of it; inside, every
member is made anew (unlinked first, O_EXCL, no link followed at its last component). Standard library only.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from backend.runtime import tarstream
from backend.runtime.erofs import ENTRY_LIMIT, OPAQUE, WHITEOUT
from backend.runtime.tarstream import BadTar, Entry

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class UnpackResult:
    """Number of *entries*, sum of file sizes in *size* bytes."""

    entries: int
    size: int


def untar(tar_fd: int, root_fd: int) -> UnpackResult:
    """Unpack the seekable, uncompressed tar *tar_fd* into the directory *root_fd*, as an overlayfs lower directory.

    Raises:
        BadTar: the archive is damaged or hostile.
        OSError: the file system refused (space, names).
    """
    count = size = 0
    directories: list[tuple[bytes, int]] = []
    for entry in tarstream.entries(tar_fd, limit=ENTRY_LIMIT):
        count += 1
        size += entry.size
        _Member(tar_fd, root_fd, entry).make(directories)
    for path, mtime in reversed(directories):  # last: making a child changes its directory's time
        os.utime(path or b".", (mtime, mtime), dir_fd=root_fd, follow_symlinks=False)
    return UnpackResult(count, size)


class _Member:
    def __init__(self, tar_fd: int, root_fd: int, entry: Entry) -> None:
        self.tar = tar_fd
        self.root = root_fd
        self.entry = entry
        self.path = b"/".join(entry.name)

    def make(self, directories: list[tuple[bytes, int]]) -> None:
        entry = self.entry
        if not entry.name:
            if entry.kind == tarstream.DIRECTORY:
                self._dress(directories)
            return
        self._parents()
        base = entry.name[-1]
        if base.startswith(WHITEOUT):
            self._whiteout(base)
            return
        self._clear()
        if entry.kind == tarstream.DIRECTORY:
            try:
                os.mkdir(self.path, 0o700, dir_fd=self.root)
            except FileExistsError:
                pass
        elif entry.kind == tarstream.FILE:
            self._file()
        elif entry.kind == tarstream.LINK:
            target = b"/".join(tarstream.components(entry.link))
            os.link(target, self.path, src_dir_fd=self.root, dst_dir_fd=self.root, follow_symlinks=False)
            return
        elif entry.kind == tarstream.SYMLINK:
            os.symlink(entry.link, self.path, dir_fd=self.root)
        else:
            kinds = {tarstream.CHAR: stat.S_IFCHR, tarstream.BLOCK_DEVICE: stat.S_IFBLK, tarstream.FIFO: stat.S_IFIFO}
            os.mknod(self.path, kinds[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=self.root)
        self._dress(directories)

    def _parents(self) -> None:
        for depth in range(1, len(self.entry.name)):
            above = b"/".join(self.entry.name[:depth])
            try:
                os.mkdir(above, 0o755, dir_fd=self.root)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(above, dir_fd=self.root).st_mode):
                    os.unlink(above, dir_fd=self.root)
                    os.mkdir(above, 0o755, dir_fd=self.root)

    def _clear(self) -> None:
        try:
            old = os.stat(self.path, dir_fd=self.root, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(old.st_mode):
            if self.entry.kind != tarstream.DIRECTORY:
                _remove_tree(self.root, self.path)
        else:
            os.unlink(self.path, dir_fd=self.root)

    def _whiteout(self, base: bytes) -> None:
        above = b"/".join(self.entry.name[:-1])
        if base == OPAQUE:
            fd = os.open(above or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root)
            try:
                os.setxattr(fd, "trusted.overlay.opaque", b"y")
            finally:
                os.close(fd)
            return
        hidden = base[len(WHITEOUT) :]
        if hidden.startswith(WHITEOUT) or hidden in (b"", b".", b".."):
            raise BadTar(f"the whiteout {base!r} is refused")
        path = above + b"/" + hidden if above else hidden
        try:
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self.root)
        except FileExistsError:
            pass  # this layer itself makes it: the whiteout hides only what is below

    def _file(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600, dir_fd=self.root)
        try:
            at, left = self.entry.data, self.entry.size
            while left:
                piece = os.pread(self.tar, min(left, _PIECE), at)
                if not piece:
                    raise BadTar(f"the archive ends in the middle of {self.path[:100]!r}")
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
                at += len(piece)
                left -= len(piece)
        finally:
            os.close(fd)

    def _dress(self, directories: list[tuple[bytes, int]]) -> None:
        entry, path = self.entry, self.path or b"."
        os.chown(path, entry.uid, entry.gid, dir_fd=self.root, follow_symlinks=False)
        if entry.kind == tarstream.SYMLINK:
            os.utime(path, (entry.mtime, entry.mtime), dir_fd=self.root, follow_symlinks=False)
            return
        os.chmod(path, entry.mode, dir_fd=self.root)
        if entry.xattrs:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.root)
            try:
                for name, value in entry.xattrs.items():
                    os.setxattr(fd, name, value)
            finally:
                os.close(fd)
        if entry.kind == tarstream.DIRECTORY:
            directories.append((self.path, entry.mtime))
        else:
            os.utime(path, (entry.mtime, entry.mtime), dir_fd=self.root, follow_symlinks=False)


def _remove_tree(root: int, path: bytes) -> None:
    for name in os.listdir(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)):
        child = path + b"/" + os.fsencode(name)
        if stat.S_ISDIR(os.stat(child, dir_fd=root, follow_symlinks=False).st_mode):
            _remove_tree(root, child)
        else:
            os.unlink(child, dir_fd=root)
    os.rmdir(path, dir_fd=root)
