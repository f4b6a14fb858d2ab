"""The contents of volumes: browse, backup, restore, clone (``/slipway/volumes/…``), whoever's driver has them.

A backup or clone of a volume that running containers may write to is made while they are paused, all of them together,
for no longer than a copy on the volumes' own file system takes (a moment where that shares blocks): it is what the disk
would show had the power failed at that instant. The stream is sent from the copy, however slowly its client reads.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, TypeVar

from backend.engine import volumedrivers
from backend.engine.container import Container
from backend.engine.core import Core
from backend.engine.files import Archive, feed
from backend.engine.life import Life
from backend.engine.record import MountRecord
from backend.engine.threads import tidy, to_the_end, undisturbed
from backend.engine.volumes import view
from backend.errors import Conflict, EngineError, InvalidArgument, NotFound, ServerError
from backend.runtime.client import KeeperError
from backend.runtime.filejob import FileJob, Look
from backend.spec import api
from backend.spec.api.files import FileEntry, FileList, Restored, VolumeClone
from backend.volumes import browse, tree

T = TypeVar("T")
Compression = Literal["none", "gzip", "zstd"]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DATA_MODE = 0o755


class VolumeFiles:
    """What is in volumes. Paths are absolute, as a container sees them that mounts the volume at ``/``."""

    def __init__(self, core: Core, life: Life) -> None:
        self._core = core
        self._life = life

    @asynccontextmanager
    async def _held(self, name: str) -> AsyncGenerator[int]:
        """A descriptor of the volume's data, mounted if it has to be; nobody can remove the volume meanwhile."""
        volume = await volumedrivers.describe(self._core, name)
        mounts = [MountRecord(kind="volume", target="/", volume=name, driver=volume.driver)]
        holder = f"files-{secrets.token_hex(8)}"
        (placed,) = await volumedrivers.mount(self._core, mounts, holder)
        try:
            fd = os.open(placed.source, _DIRECTORY)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            raise ServerError(f"volume {name}: {error.strerror}") from error
        finally:
            await undisturbed(volumedrivers.unmount(self._core, mounts, holder))

    async def _inside(self, name: str, work: Callable[..., T], *arguments: str, **more: Any) -> T:
        async with self._held(name) as root:
            return await to_the_end(work, root, *arguments, **more)

    # --- browse -----------------------------------------------------------------------------------------------------
    async def list(self, name: str, path: str, *, after: str = "", limit: int = 1000) -> FileList:
        """The names in a directory behind *after*."""
        return await self._inside(name, browse.entries, browse.clean(path), after=after, limit=limit)

    async def describe(self, name: str, path: str) -> FileEntry:
        """What is at a path."""
        return await self._inside(name, browse.describe, browse.clean(path))

    @asynccontextmanager
    async def read(self, name: str, path: str, offset: int = 0) -> AsyncGenerator[browse.Reader]:
        """A file, open for reading (each read blocks: in a thread)."""
        async with self._held(name) as root:
            reader = await to_the_end(browse.Reader, root, browse.clean(path), offset)
            try:
                yield reader
            finally:
                reader.close()

    async def write(self, name: str, path: str, source: AsyncIterator[bytes], *, mode: int | None = None,
                    expected: str = "") -> str:
        """Make *source* the contents of a file, at once when all has come; its new version. *expected*: the version
        that it must have now (:class:`Conflict` if somebody changed it)."""
        async with self._held(name) as root:
            writer = await to_the_end(browse.Writer, root, browse.clean(path), mode=mode, expected=expected)
            try:
                async for piece in source:
                    await to_the_end(writer.write, piece)
                return await to_the_end(writer.commit)
            finally:
                await to_the_end(writer.close)

    async def make_directory(self, name: str, path: str) -> None:
        """Make a directory, with those above it."""
        await self._inside(name, browse.make_directory, browse.clean(path))

    async def remove(self, name: str, path: str) -> None:
        """Remove a file or a directory with all that is in it."""
        await self._inside(name, browse.remove, browse.clean(path))

    async def rename(self, name: str, old: str, new: str) -> None:
        """Move a file or directory within the volume."""
        await self._inside(name, browse.rename, browse.clean(old), browse.clean(new))

    # --- consistency ------------------------------------------------------------------------------------------------
    def _running(self, name: str, *, writers: bool) -> builtins.list[Container]:
        """The containers that have the volume now; only those that may write to it where *writers* is set."""
        return [one for one in self._core.table.users_of_volume(name)
                if (one.status.active or one.starting) and any(
                    mount.volume == name and not (writers and mount.read_only) for mount in one.record.mounts)]

    @asynccontextmanager
    async def _still(self, name: str) -> AsyncGenerator[None]:
        """While this lasts, no running container writes to the volume."""
        async with tidy() as stack:
            for one in self._running(name, writers=True):
                await undisturbed(self._life.hold_for(one, stack))
            yield

    async def _copy(self, name: str, source: int, target: int) -> None:
        """Everything in *source* into *target*, as it is at one moment."""
        async with self._still(name):
            try:
                await to_the_end(tree.copy, source, target)
            except OSError as error:
                raise ServerError(f"volume {name}: a copy could not be made: {error.strerror}") from error

    # --- backup -----------------------------------------------------------------------------------------------------
    async def backup(self, name: str, *, path: str = "/", pause: bool = True,
                     compression: Compression = "none") -> Backup:
        """A tar of the volume, or of what is at *path* in it. *pause* False: as it is read, writers go on meanwhile."""
        stack = AsyncExitStack()
        try:
            root = await stack.enter_async_context(self._held(name))
            if pause and self._running(name, writers=True):
                scratch, copy = self._core.volumes.scratch()
                stack.callback(self._core.volumes.discard, scratch)
                stack.callback(os.close, copy)
                await self._copy(name, root, copy)
                root = copy
            inside = browse.clean(path)
            task = {"kind": "pack", "path": "/." if inside == "/" else inside}
            job = await stack.enter_async_context(
                await FileJob.start(self._core.keeper, Look(directory=root), task, "out"))
            await job.report("stat")
        except KeeperError as error:
            await undisturbed(stack.aclose())
            raise _refusal(error, name) from error
        except BaseException:
            await undisturbed(stack.aclose())
            raise
        return Backup(Archive(job, stack, f"backup of volume {name}"), compression)

    # --- restore and clone ------------------------------------------------------------------------------------------
    async def restore(self, name: str, source: AsyncIterator[bytes], *, replace: bool = False) -> Restored:
        """Fill a volume from a tar (plain, gzip, zstd, xz); one that is not there is made. *replace*: what is in it
        goes; else it must be empty. A volume of the local driver has all of the old or all of the new at any moment."""
        volume, fresh = await volumedrivers.obtain(self._core, name, "")
        if fresh:
            self._core.events.publish("volume", "create", name, {"driver": volume.driver})
        try:
            async with self._held(name) as root:
                self._check_idle(name)
                if not replace and not await to_the_end(tree.is_empty, root):
                    raise Conflict(f"volume {name} is not empty: say replace=1 to put the backup in the place of what "
                                   "is there, or restore into another volume")
                if volume.driver == "local" and not volume.is_mount:
                    return await self._restore_whole(name, source)
                if replace:
                    await to_the_end(browse.empty, root)
                return await self._extract(name, root, source)
        except BaseException:
            if fresh:
                await volumedrivers.remove(self._core, name, force=True)
                self._core.events.publish("volume", "destroy", name, {"driver": volume.driver})
            raise

    def _check_idle(self, name: str) -> None:
        running = self._running(name, writers=False)
        if running:
            raise Conflict(f"volume {name} is in use by running containers ({', '.join(one.name for one in running)}): "
                           "stop them first")

    async def _restore_whole(self, name: str, source: AsyncIterator[bytes]) -> Restored:
        scratch, draft = self._core.volumes.scratch()
        try:
            os.fchmod(draft, _DATA_MODE)
            done = await self._extract(name, draft, source)
            self._check_idle(name)                 # no await from here on: nobody starts in between
            self._core.volumes.replace(name, scratch)
            return done
        except BaseException:
            self._core.volumes.discard(scratch)
            raise
        finally:
            os.close(draft)

    async def _extract(self, name: str, root: int, source: AsyncIterator[bytes]) -> Restored:
        task = {"kind": "extract", "path": "/", "root": True}
        try:
            async with await FileJob.start(self._core.keeper, Look(directory=root), task, "in") as job:
                await job.report("ready")
                await feed(job, source)
                done = await job.report("done")
        except KeeperError as error:
            raise _refusal(error, name) from error
        return Restored(entries=done["entries"], size=done["size"])

    async def clone(self, name: str, body: VolumeClone) -> api.Volume:
        """A new volume of the local driver with the same contents, as they are at one moment."""
        core = self._core
        async with self._held(name) as root:
            if not body.name:
                raise InvalidArgument("Name is needed: what the clone shall be called")
            if any(one.name == body.name for one in await volumedrivers.every(core)):
                raise Conflict(f"there is a volume {body.name} already; choose another name for the clone")
            made = core.volumes.create(body.name, labels=body.labels)
            scratch, draft = core.volumes.scratch()
            try:
                await self._copy(name, root, draft)
                core.volumes.replace(made.name, scratch)
            except BaseException:
                core.volumes.discard(scratch)
                await volumedrivers.remove(core, made.name, force=True)
                raise
            finally:
                os.close(draft)
        core.events.publish("volume", "create", made.name, {"driver": made.driver})
        return view(made)


def _refusal(error: KeeperError, name: str) -> EngineError:
    if error.reason in ("bad_archive", "refused"):
        return InvalidArgument(f"volume {name}: {error.message}")
    if error.reason == "no_such":
        return NotFound(f"volume {name}: there is no such file in it")
    return ServerError(f"volume {name}: {error.message}")


class Backup:
    """A volume as a stream."""

    def __init__(self, archive: Archive, compression: Compression) -> None:
        self._archive = archive
        self._compression = compression

    async def pieces(self) -> AsyncIterator[bytes]:
        """The tar, compressed as was asked for."""
        if self._compression == "none":
            async for piece in self._archive.pieces():
                yield piece
            return
        compress, flush = _compressor(self._compression)
        async for piece in self._archive.pieces():
            if made := await asyncio.to_thread(compress, piece):
                yield made
        yield flush()

    async def close(self) -> None:
        """Let go of everything."""
        await self._archive.close()


def _compressor(kind: Compression) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if kind == "gzip":
        from isal import isal_zlib

        deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
        return deflater.compress, deflater.flush
    import zstandard

    squeezer = zstandard.ZstdCompressor(level=3).compressobj()
    return squeezer.compress, squeezer.flush


