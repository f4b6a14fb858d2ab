"""What is written but not yet safe on the disk: layers' tars and indexes, which can be made again from their blobs.

They are used at once and synced in the background. A mark in ``unsynced/`` says which they are; one that is still there
after the machine went down belongs to a layer that nobody can vouch for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading

from backend.images.content import BlobStore

log = logging.getLogger("images")
_BOOT = "/proc/sys/kernel/random/boot_id"


class Settler:
    """Marks layers and syncs them, one at a time, in a thread."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._folder = f"{blobs.root}/unsynced"
        self._due: dict[str, tuple[int, tuple[str, ...]]] = {}  # by layer: how often it was marked, what to sync
        self._lock = threading.Lock()  # layers are marked by the threads that fetch them
        self._task: asyncio.Task[None] | None = None
        self._boot = ""

    def open(self) -> list[str]:
        """The layers that cannot be trusted: the machine went down before they were synced."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(_BOOT, encoding="ascii") as file:
            self._boot = file.read().strip()
        doubtful = []
        for name in os.listdir(self._folder):
            with open(f"{self._folder}/{name}", "rb") as file:
                same = file.read(64).decode("ascii", "replace") == self._boot
            if same:  # this helper was killed, but the kernel still has what it wrote
                self.mark(f"sha256:{name}", (f"{self._blobs.root}/layers/{name}/index",))
            else:
                doubtful.append(f"sha256:{name}")
        return doubtful

    def mark(self, diff_id: str, paths: tuple[str, ...]) -> None:
        """Before a layer becomes visible: it is not synced. *paths*: what is to be synced beside its tar."""
        path = f"{self._folder}/{diff_id.partition(':')[2]}"
        with self._lock:
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                os.write(fd, self._boot.encode())
                os.close(fd)
            marked, known = self._due.get(diff_id, (0, ()))
            self._due[diff_id] = marked + 1, tuple(dict.fromkeys((*known, *paths)))

    def settle(self) -> None:
        """Begin to sync what is marked. On the loop."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._all())

    async def close(self) -> None:
        """Wait until all is synced."""
        self.settle()
        assert self._task is not None
        await asyncio.wait([self._task])

    async def _all(self) -> None:
        while due := list(self._due.items()):
            for diff_id, state in due:
                try:
                    await asyncio.to_thread(self._sync, diff_id, state[1])
                except OSError as error:
                    log.error("the layer %s could not be synced: %s", diff_id, error.strerror)
                    self._due.pop(diff_id, None)  # its mark stays
                    continue
                self._settled(diff_id, state)

    def _settled(self, diff_id: str, state: tuple[int, tuple[str, ...]]) -> None:
        with self._lock:
            if self._due.get(diff_id) == state:  # else it was marked again meanwhile
                del self._due[diff_id]
                self.clear(diff_id)

    def _sync(self, diff_id: str, paths: tuple[str, ...]) -> None:
        for path in (self._blobs.path(diff_id), *paths):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # removed meanwhile
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def clear(self, diff_id: str) -> None:
        """The layer is safe, or gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._folder}/{diff_id.partition(':')[2]}")
