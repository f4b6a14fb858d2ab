"""Filling a fresh tmpfs with what the image has at its place (Docker's ``--tmpfs``), by directory descriptors only.

Runs in the child, as root, on untrusted files: nothing is followed, nothing is opened that is not a regular file or a
directory, and the tmpfs's own size bounds it.
"""

from __future__ import annotations

import os
import stat

MAX_DEPTH = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source: int, target: int, depth: int = 0) -> None:
    """Copies the content of directory *source* into *target*: directories, files, links; other kinds are left out."""
    if depth > MAX_DEPTH:
        raise OSError(f"directories are nested deeper than {MAX_DEPTH}")
    for name in os.listdir(source):
        seen = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISLNK(seen.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, seen.st_uid, seen.st_gid, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISDIR(seen.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            below, made = os.open(name, _DIRECTORY, dir_fd=source), os.open(name, _DIRECTORY, dir_fd=target)
            try:
                copy_tree(below, made, depth + 1)
                _take_over(made, seen)
            finally:
                os.close(below)
                os.close(made)
        elif stat.S_ISREG(seen.st_mode):
            _copy_file(source, target, name)


def _copy_file(source: int, target: int, name: str) -> None:
    read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        seen = os.fstat(read)
        write = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(write, read, None, 1 << 20):
                pass
            _take_over(write, seen)
        finally:
            os.close(write)
    finally:
        os.close(read)


def _take_over(fd: int, seen: os.stat_result) -> None:
    os.fchown(fd, seen.st_uid, seen.st_gid)
    os.fchmod(fd, stat.S_IMODE(seen.st_mode))
    os.utime(fd, ns=(seen.st_atime_ns, seen.st_mtime_ns))
