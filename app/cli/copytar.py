"""Tars of `slipway cp`: made from the user's files, and unpacked into them.

What comes out of a container is not to be trusted: nothing is written outside the directory that was named, no link of
the archive is followed, no set-user-ID bit and no device comes along.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tarfile
import threading

from app.cli.errors import Failure

TYPING = False
if TYPING:
    from collections.abc import Iterator
    from typing import IO

_PIECE = 1 << 16


# --- out of files ----------------------------------------------------------------------------------------------------

def pack(source: str, name: str, *, follow: bool) -> Iterator[bytes]:
    """The tar of *source*, whose entry is called *name* ("." = only what is in it). *follow*: *source* may be a link.

    Raises:
        Failure: a file cannot be read.
    """
    source = os.path.realpath(source) if follow else source
    reader, writer = os.pipe2(os.O_CLOEXEC)
    problems: list[OSError] = []

    def write() -> None:
        try:
            with open(writer, "wb") as out, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                tar.add(source, arcname=name)
        except BrokenPipeError:
            return  # nobody reads on: the engine has said why
        except OSError as error:
            problems.append(error)

    worker = threading.Thread(target=write, daemon=True)
    worker.start()
    with open(reader, "rb") as pipe:
        while piece := pipe.read(_PIECE):
            yield piece
    worker.join()
    if problems:
        raise Failure(f"{problems[0].filename or source} cannot be read: {problems[0].strerror}.")


# --- into files ------------------------------------------------------------------------------------------------------

class Unpacker:
    """Unpacks into *folder*. The archive's first part *old* of every name becomes *new*. *owners*: keep them (-a);
    *fresh*: the folder was made for this and becomes what the archive says of it."""

    def __init__(self, folder: str, old: str, new: str, *, owners: bool, fresh: bool = False) -> None:
        self._folder, self._old, self._new, self._owners, self._fresh = folder, old, new, owners, fresh
        self._late: list[tuple[str, tarfile.TarInfo]] = []

    def unpack(self, stream: IO[bytes]) -> int:
        """All of *stream*; the bytes of its files."""
        total = 0
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    total += self._put(tar, member)
        except tarfile.TarError as error:
            raise Failure(f"what the engine sent is no whole tar: {error}.") from None
        # A directory that may not be written to, or a time, must not be set before what is in it.
        for path, member in reversed(self._late):
            self._mark(path, member)
        return total

    def _name(self, text: str) -> str:
        """Where a name of the archive belongs.

        Raises:
            Failure: it leads out of the archive.
        """
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if text.startswith("/") or ".." in parts:
            raise Failure(f"the archive has the name {text!r}, which leads out of it. Nothing more was unpacked.")
        if self._old and parts[:1] == [self._old]:
            parts = [*([self._new] if self._new else []), *parts[1:]]
        return os.path.join(self._folder, *parts)

    def _put(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
        path = self._name(member.name)
        if path != self._folder:
            self._check_parents(path)
        try:
            return self._make(tar, member, path)
        except OSError as error:
            raise Failure(f"{path} cannot be written: {error.strerror}.") from None

    def _check_parents(self, path: str) -> None:
        """Every directory between ours and *path* must be one, and no link that an earlier entry has made."""
        inner = self._folder
        for part in os.path.relpath(path, self._folder).split("/")[:-1]:
            inner = os.path.join(inner, part)
            try:
                mode = os.lstat(inner).st_mode
            except FileNotFoundError:
                os.mkdir(inner)
                continue
            if not stat.S_ISDIR(mode):
                raise Failure(f"{inner} is no directory, so {path} cannot be written. Nothing more was unpacked.")

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> int:
        if member.isdir():
            if not os.path.isdir(path) or os.path.islink(path):
                _make_way(path)
                os.mkdir(path, 0o700)
            if path != self._folder or self._fresh:  # else it is the user's, and stays as he has it
                self._late.append((path, member))
            return 0
        if os.path.isdir(path) and not os.path.islink(path):
            raise Failure(f"{path} is a directory here and none in the container. Move it away first.")
        _make_way(path)
        if member.issym():
            os.symlink(member.linkname, path)
            self._mark(path, member)
        elif member.islnk():
            target = self._name(member.linkname)
            self._check_parents(target)
            os.link(target, path, follow_symlinks=False)
        elif member.isreg():
            self._write(tar, member, path)
            self._mark(path, member)
            return member.size
        else:
            print(f"slipway: {path}: left out, it is a device or a pipe", file=sys.stderr)
        return 0

    @staticmethod
    def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        body = tar.extractfile(member)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as out:
            if body is not None:
                shutil.copyfileobj(body, out)

    def _mark(self, path: str, member: tarfile.TarInfo) -> None:
        if self._owners:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():  # a link has no rights of its own
            os.chmod(path, member.mode & 0o777)
        with contextlib.suppress(OverflowError):
            os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _make_way(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
