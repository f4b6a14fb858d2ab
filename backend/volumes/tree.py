"""Directory trees by descriptor: copy, size, removal. What a container can write is never reached by a path that it can
bend: every step resolves beneath a directory that is held open, and no symbolic link is followed.

No recursion and no descriptor per level: a container can nest directories as deep as it likes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator

from backend.runtime import syscalls

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 8 << 20
# What belongs to the layer's storage or to the host's policy, not to the file.
_FOREIGN_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux", "system.")
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_FICLONE = 0x40049409
_NO_CLONE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EPERM, errno.ETXTBSY)
_NO_XATTRS = (errno.ENOTSUP, errno.EPERM)


def _beneath(root: int, path: str) -> int:
    """Open the directory *path* beneath *root* without following any link."""
    return syscalls.openat2(root, path or ".", _DIRECTORY, 0,
                            syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS)


def _walk(root: int, *, lenient: bool = False) -> Iterator[tuple[str, int, list[str]]]:
    """Each directory beneath *root*, parents first: its path, a descriptor (closed when the next is asked for), and the
    names in it. *lenient*: directories that have gone meanwhile, or lie deeper than a path can say, are left out."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            descriptor = _beneath(root, path)
        except OSError as problem:
            if lenient and problem.errno in _VANISHED:
                continue
            raise
        try:
            names = os.listdir(descriptor)
            yield path, descriptor, names
            for name in names:
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:      # a container is at work in it
                    continue
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(f"{path}/{name}" if path else name)
        finally:
            os.close(descriptor)


def is_empty(directory: int) -> bool:
    """Nothing is in it. ``lost+found`` counts as nothing: a volume may be a file system of its own."""
    return not any(name != "lost+found" for name in os.listdir(directory))


def size(root: int) -> int:
    """The sum of the files' sizes in bytes, hard links once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for _, descriptor, names in _walk(root, lenient=True):
        for name in names:
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(status.st_mode):
                continue
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    return total


def copy(source: int, target: int) -> None:
    """Copy what is in the directory *source* into the empty directory *target*: contents, owners, modes, times,
    extended attributes, hard links, symbolic links as they are, devices and fifos; last *source*'s own owner and mode.
    """
    links = _Links(target)
    directories: list[str] = []
    for path, here, names in _walk(source):
        there = _beneath(target, path)
        try:
            directories.append(path)
            for name in names:
                _copy_entry(here, there, name, f"{path}/{name}" if path else name, links)
        finally:
            os.close(there)
    for path in reversed(directories):      # last, so that nothing written within changes a directory's times
        here, there = _beneath(source, path), _beneath(target, path)
        try:
            _copy_status(os.stat(here), there)
            _copy_xattrs(here, there)
        finally:
            os.close(here)
            os.close(there)


class _Links:
    """Hard links seen so far, so that they stay links."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._first: dict[tuple[int, int], str] = {}

    def again(self, status: os.stat_result, there: int, name: str) -> bool:
        """Link *name* to the copy of the same file, if there is one."""
        first = self._first.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if first is None:
            return False
        os.link(first, name, src_dir_fd=self._target, dst_dir_fd=there, follow_symlinks=False)
        return True

    def remember(self, status: os.stat_result, path: str) -> None:
        """The copy of this file is at *path* in the target."""
        if status.st_nlink > 1:
            self._first[status.st_dev, status.st_ino] = path


def _copy_entry(here: int, there: int, name: str, path: str, links: _Links) -> None:
    status = os.stat(name, dir_fd=here, follow_symlinks=False)
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        os.mkdir(name, 0o700, dir_fd=there)
        return
    if links.again(status, there, name):
        return
    if stat.S_ISREG(mode):
        _copy_file(here, there, name, status)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
        _own(name, there, status)
        _copy_link_xattrs(here, there, name)
    elif stat.S_ISSOCK(mode):
        return                              # a socket without its program is nothing
    else:
        os.mknod(name, mode, status.st_rdev, dir_fd=there)
        _own(name, there, status)
        os.chmod(name, stat.S_IMODE(mode), dir_fd=there)
    links.remember(status, path)


def _own(name: str, there: int, status: os.stat_result) -> None:
    os.chown(name, status.st_uid, status.st_gid, dir_fd=there, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=there, follow_symlinks=False)


def _copy_file(here: int, there: int, name: str, status: os.stat_result) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    try:
        sink = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=there)
        try:
            _copy_bytes(source, sink)
            _copy_status(status, sink)
            _copy_xattrs(source, sink)      # after the owner: chown drops security.capability
        finally:
            os.close(sink)
    finally:
        os.close(source)


def _copy_bytes(source: int, sink: int) -> None:
    """In the kernel: shared blocks where the file system can, else without a way through this process. Holes stay."""
    try:
        fcntl.ioctl(sink, _FICLONE, source)
        return
    except OSError as problem:
        if problem.errno not in _NO_CLONE:
            raise
    for start, stop in _filled(source):
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(sink, start, os.SEEK_SET)
        _copy_range(source, sink, stop - start)
    os.ftruncate(sink, os.fstat(source).st_size)


def _filled(fd: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data."""
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as problem:
            if problem.errno != errno.ENXIO:               # ENXIO: there is no more
                raise
            return
        yield start, at


def _copy_range(source: int, sink: int, left: int) -> None:
    try:
        while left > 0 and (copied := os.copy_file_range(source, sink, min(left, _CHUNK))):
            left -= copied
        return
    except OSError as problem:
        if problem.errno not in _NO_CLONE:
            raise
    # Two file systems. It continues where the first way stopped.
    while left > 0 and (copied := os.sendfile(sink, source, None, min(left, _CHUNK))):
        left -= copied


def _copy_status(status: os.stat_result, sink: int) -> None:
    os.fchown(sink, status.st_uid, status.st_gid)
    os.fchmod(sink, stat.S_IMODE(status.st_mode))
    os.utime(sink, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_xattrs(source: int, sink: int) -> None:
    try:
        names = os.listxattr(source)
    except OSError as problem:
        if problem.errno in _NO_XATTRS:
            return
        raise
    for name in names:
        if not name.startswith(_FOREIGN_XATTRS):
            os.setxattr(sink, name, os.getxattr(source, name))


def _copy_link_xattrs(here: int, there: int, name: str) -> None:
    """A link's own attributes (trusted.*, security.*); the parent is a descriptor, the link itself is not followed."""
    source, sink = f"/proc/self/fd/{here}/{name}", f"/proc/self/fd/{there}/{name}"
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError as problem:
        if problem.errno in _NO_XATTRS:
            return
        raise
    for key in names:
        if not key.startswith(_FOREIGN_XATTRS):
            os.setxattr(sink, key, os.getxattr(source, key, follow_symlinks=False), follow_symlinks=False)


def remove(parent: int, name: str) -> None:
    """Remove the directory *name* in *parent* with all that is in it. Nested directories are first moved up beside it,
    so that depth costs nothing. A directory on which something is mounted is an error (EBUSY) and stays."""
    waiting = [name]
    prefix = f"{name}.{secrets.token_hex(4)}"     # a removal that a crash cut short may have left others
    count = 0
    while waiting:
        current = waiting.pop()
        directory = os.open(current, _DIRECTORY, dir_fd=parent)
        try:
            for entry in os.listdir(directory):
                status = os.stat(entry, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    count += 1
                    moved = f"{prefix}.{count}"
                    os.rename(entry, moved, src_dir_fd=directory, dst_dir_fd=parent)
                    waiting.append(moved)
                else:
                    os.unlink(entry, dir_fd=directory)
        finally:
            os.close(directory)
        os.rmdir(current, dir_fd=parent)
