"""Layers by diff ID: the uncompressed tar is a blob, an EROFS index beside it makes it a file system.

Where the kernel cannot mount that (before Linux 6.12), the layer is an unpacked directory. Both are overlayfs lower
directories. A layer is mounted when it is first needed and stays so; it is let go when it is removed, or at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from backend.errors import InvalidArgument, ServerError
from backend.images.content import BlobStore
from backend.images.types import Confined
from backend.runtime import syscalls

_READ_ONLY = syscalls.MS_RDONLY | syscalls.MS_NODEV | syscalls.MS_NOSUID


class LayerStore:
    """The layers under ``ROOT/layers/HEX``: ``index`` and ``mnt``, or ``fs``."""

    def __init__(self, blobs: BlobStore, confined: Confined) -> None:
        self._blobs = blobs
        self._confined = confined
        self._root = f"{blobs.root}/layers"
        self._locks: dict[str, asyncio.Lock] = {}
        self._mounted: set[str] = set()
        self.mountable = False

    async def open(self) -> None:
        """Find out what the kernel can, and take note of what is still mounted from before."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        for name in os.listdir(self._root):
            if name.endswith(".new"):
                shutil.rmtree(f"{self._root}/{name}")
        self._mounted = mounts_below(self._root)
        self.mountable = await self._probe()

    async def close(self) -> None:
        """Unmount what no container holds; what is in use stays until the kernel lets go of it."""
        for at in list(self._mounted):
            self._unmount(at)

    async def _probe(self) -> bool:
        """Whether a tar and its index can be mounted here, tried with an empty one."""
        with tempfile.TemporaryDirectory(dir=self._root, suffix=".new") as folder:
            with tarfile.open(f"{folder}/tar", "w"):
                pass
            os.mkdir(f"{folder}/mnt")
            await self._index(f"{folder}/tar", f"{folder}/index")
            try:
                syscalls.mount(f"{folder}/index", f"{folder}/mnt", "erofs", _READ_ONLY, f"device={folder}/tar")
            except OSError:
                return False
            syscalls.umount2(f"{folder}/mnt")
            return True

    async def _index(self, tar: str, index: str) -> None:
        source = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(index, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            await self._confined.index(source, target)
        finally:
            os.close(source)
            os.close(target)

    def folder(self, diff_id: str) -> str:
        return f"{self._root}/{diff_id.partition(':')[2]}"

    def has(self, diff_id: str) -> bool:
        """Whether the layer can be used: its tar is here and it is indexed or unpacked."""
        folder = self.folder(diff_id)
        return os.path.isdir(f"{folder}/fs") or (os.path.exists(f"{folder}/index") and self._blobs.has(diff_id))

    async def prepare(self, diff_id: str) -> None:
        """Make the layer usable; its tar must be in the store.

        Raises:
            InvalidArgument: the tar is damaged or hostile.
        """
        lock = self._locks.setdefault(diff_id, asyncio.Lock())
        async with lock:
            if self.has(diff_id):
                return
            new = f"{self.folder(diff_id)}.new"
            shutil.rmtree(new, ignore_errors=True)
            os.mkdir(new, 0o700)
            try:
                if self.mountable:
                    os.mkdir(f"{new}/mnt", 0o700)
                    await self._index(self._blobs.path(diff_id), f"{new}/index")
                else:
                    await self._unpack(diff_id, f"{new}/fs")
                os.rename(new, self.folder(diff_id))
            except (OSError, RuntimeError) as error:
                shutil.rmtree(new, ignore_errors=True)
                raise InvalidArgument(f"the layer {diff_id} cannot be used: {error}") from error
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise

    async def _unpack(self, diff_id: str, target: str) -> None:
        os.mkdir(target, 0o755)
        tar = os.open(self._blobs.path(diff_id), os.O_RDONLY | os.O_CLOEXEC)
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._confined.unpack(tar, root)
        finally:
            os.close(tar)
            os.close(root)

    def directory(self, diff_id: str) -> str:
        """Where the layer's files are, mounted if need be.

        Raises:
            ServerError: the layer is not in the store or cannot be mounted.
        """
        folder = self.folder(diff_id)
        if os.path.isdir(f"{folder}/fs"):
            return f"{folder}/fs"
        at = f"{folder}/mnt"
        if at not in self._mounted:
            try:
                syscalls.mount(f"{folder}/index", at, "erofs", _READ_ONLY, f"device={self._blobs.path(diff_id)}")
            except OSError as error:
                raise ServerError(f"the layer {diff_id} cannot be mounted: {error.strerror}") from error
            self._mounted.add(at)
        return at

    def remove(self, diff_id: str) -> None:
        """Forget the layer; its tar is the blob store's."""
        folder = self.folder(diff_id)
        self._unmount(f"{folder}/mnt")
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, f"{folder}.new")
            shutil.rmtree(f"{folder}.new")

    def _unmount(self, at: str) -> None:
        if at in self._mounted:
            # Containers hold it by their overlays: detached, it goes when the last of them does.
            syscalls.umount2(at, syscalls.MNT_DETACH)
            self._mounted.discard(at)

    def all(self) -> list[str]:
        """Diff IDs that are here."""
        return [f"sha256:{name}" for name in os.listdir(self._root) if not name.endswith(".new")]


def mounts_below(root: str) -> set[str]:
    """Mount points under the folder *root* (proc_pid_mountinfo(5))."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        at = line.split(" ", 5)[4].encode().decode("unicode_escape")
        if at.startswith(root + "/"):
            found.add(at)
    return found
