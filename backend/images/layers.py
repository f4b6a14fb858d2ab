"""Layers by diff ID: the uncompressed tar is a blob, an EROFS index beside it makes it a file system.

Before Linux 6.12 the pair is mounted through loop devices; where that cannot be either, the layer is an unpacked
directory. All are overlayfs lower directories. A layer is mounted when it is first needed and stays so; it is let go
when it is removed, or at the end.
"""

from __future__ import annotations

import asyncio
import filecmp
import os
import shutil
import tarfile
import tempfile
import weakref
from typing import Literal

from backend.errors import EngineError, InvalidArgument, ServerError
from backend.images import mounting
from backend.images.content import BlobStore
from backend.images.settle import Settler
from backend.images.types import Confined

#: How a layer becomes a directory.
Form = Literal["file", "loop", "directory"]


class LayerStore:
    """The layers under ``ROOT/layers/HEX``: ``index`` and ``mnt``, or ``fs``."""

    def __init__(self, blobs: BlobStore, confined: Confined, form: Form | None = None) -> None:
        self._blobs = blobs
        self._confined = confined
        self.settler = Settler(blobs)
        self._root = f"{blobs.root}/layers"
        self._locks: dict[str, asyncio.Lock] = {}
        self._arriving: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._mounted: set[str] = set()
        self._wanted = form
        self.form: Form = form or "directory"
        #: Layers that were not yet synced when the machine went down.
        self.doubtful: list[str] = []

    async def open(self) -> None:
        """Find out what the kernel can; take away what a helper that was killed has left."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        os.makedirs(self.empty, mode=0o755, exist_ok=True)
        mounting.unmount_below(self._root)
        for name in os.listdir(self._root):
            if name.endswith(".new"):
                shutil.rmtree(f"{self._root}/{name}")
        self.doubtful = self.settler.open()
        if self._wanted is None:
            self.form = await self._probe()

    @property
    def empty(self) -> str:
        """The lower directory of an image without layers (FROM scratch): overlayfs wants at least one."""
        return f"{self._blobs.root}/empty"

    async def close(self) -> None:
        """Unmount all; a container that runs keeps what its overlay holds."""
        for at in list(self._mounted):
            self._unmount(at)
        await self.settler.close()

    async def _probe(self) -> Form:
        """The best form that works here, tried with an empty tar."""
        with tempfile.TemporaryDirectory(dir=self._root, suffix=".new") as folder:
            with tarfile.open(f"{folder}/tar", "w"):
                pass
            os.mkdir(f"{folder}/mnt")
            await self.index(f"{folder}/tar", f"{folder}/index")
            forms: tuple[Form, ...] = ("file", "loop")
            for form in forms:
                try:
                    mounting.mount_pair(f"{folder}/index", f"{folder}/tar", f"{folder}/mnt", loop=form == "loop")
                except OSError:
                    continue
                mounting.unmount(f"{folder}/mnt")
                return form
        return "directory"

    async def index(self, tar: str, index: str) -> None:
        """The EROFS index of the tar file *tar* into the new file *index*. RuntimeError: the tar is refused."""
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
        """Whether the layer can be used: its tar is here and it is indexed or unpacked, as this kernel needs it."""
        folder = self.folder(diff_id)
        if os.path.isdir(f"{folder}/fs"):
            return True
        return self.form != "directory" and os.path.exists(f"{folder}/index") and self._blobs.has(diff_id)

    def arriving(self, diff_id: str) -> asyncio.Lock:
        """Held while the layer is fetched: who wants it too waits, and finds it here."""
        return self._arriving.setdefault(diff_id, asyncio.Lock())

    async def prepare(self, diff_id: str) -> None:
        """Make the layer usable; its tar must be in the store.

        Raises:
            InvalidArgument: the tar is damaged or hostile.
        """
        lock = self._locks.setdefault(diff_id, asyncio.Lock())
        async with lock:
            if self.has(diff_id):
                return
            new, final = f"{self.folder(diff_id)}.new", self.folder(diff_id)
            shutil.rmtree(new, ignore_errors=True)
            os.mkdir(new, 0o700)
            try:
                await self._make(diff_id, new)
                shutil.rmtree(final, ignore_errors=True)  # of a kernel that could mount, or half gone
                self.settler.mark(diff_id, (f"{final}/index",))
                os.rename(new, final)
                self.settler.settle()
            except (EngineError, asyncio.CancelledError):
                shutil.rmtree(new, ignore_errors=True)
                raise
            except OSError as error:
                shutil.rmtree(new, ignore_errors=True)
                raise ServerError(f"the layer {diff_id} could not be made ready: {error.strerror}") from error
            except RuntimeError as error:  # what a confined child says of a tar
                shutil.rmtree(new, ignore_errors=True)
                raise InvalidArgument(f"the layer {diff_id} is refused: {error}") from error

    async def _make(self, diff_id: str, new: str) -> None:
        if self.form == "directory":
            await self._unpack(diff_id, f"{new}/fs")
        else:
            os.mkdir(f"{new}/mnt", 0o700)
            await self.index(self._blobs.path(diff_id), f"{new}/index")

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
                mounting.mount_pair(f"{folder}/index", self._blobs.path(diff_id), at, loop=self.form == "loop")
            except OSError as error:
                raise ServerError(f"the layer {diff_id} cannot be mounted: {error.strerror}") from error
            self._mounted.add(at)
        return at

    async def is_sound(self, diff_id: str) -> bool:
        """Whether the layer's index is what its tar makes. Unpacked directories are only looked for."""
        folder = self.folder(diff_id)
        if os.path.isdir(f"{folder}/fs"):
            return True
        if not os.path.exists(f"{folder}/index"):
            return False
        with tempfile.TemporaryDirectory(dir=self._root, suffix=".new") as again:
            try:
                await self.index(self._blobs.path(diff_id), f"{again}/index")
            except RuntimeError:  # the tar is damaged
                return False
            return await asyncio.to_thread(filecmp.cmp, f"{again}/index", f"{folder}/index", shallow=False)

    def remove(self, diff_id: str) -> None:
        """Forget the layer; its tar is the blob store's."""
        folder = self.folder(diff_id)
        self._unmount(f"{folder}/mnt")
        self._blobs.throw_away(folder)
        self._locks.pop(diff_id, None)

    def _unmount(self, at: str) -> None:
        if at in self._mounted:
            mounting.unmount(at)
            self._mounted.discard(at)

    def all(self) -> list[str]:
        """Diff IDs that are here."""
        return [f"sha256:{name}" for name in os.listdir(self._root) if not name.endswith(".new")]
