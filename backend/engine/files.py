"""The files of containers, as the helper asks for them: stat, copy in and out, changes, export, commit.

The work is done by confined children of the keeper (:mod:`backend.runtime.files`); here is decided whose view a child
gets, and its refusals become Docker's errors. A running container is seen as it sees itself, tmpfs included. A stopped
one's layers are mounted for the child alone; only one that is written to is held still meanwhile, so that nobody can
start it on the same layer.
"""

from __future__ import annotations

import asyncio
import posixpath
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import msgspec

from backend.engine import spec, volumedrivers
from backend.engine.changes import changes
from backend.engine.container import Container
from backend.engine.core import Core
from backend.engine.life import Life
from backend.engine.mountsources import sources
from backend.engine.rootview import root_of
from backend.engine.threads import tidy, undisturbed
from backend.errors import Conflict, EngineError, InvalidArgument, NotFound, ServerError, Unavailable
from backend.images.changes import apply
from backend.images.inflate import Inflater
from backend.images.types import Commit
from backend.runtime.client import KeeperError, Overlay
from backend.runtime.filejob import FileJob, Look, Upload
from backend.spec import api
from backend.spec.gomode import go_mode
from backend.spec.reference import parse

#: What the runtime makes in a container's layer to mount on, where the image has it not. Docker keeps the like in a
#: layer of its own below the container's, so that neither a diff nor a commit shows it.
PLACEHOLDERS = frozenset({
    "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
    "/proc", "/sys", "/sys/fs", "/sys/fs/cgroup", "/.dockerenv"})
_ATTEMPTS = 20                     # a container may start or stop between the look at its state and the child's


class Archive:
    """A tar that a child writes. Read it to its end, or leave it: :meth:`close` ends the child either way."""

    def __init__(self, job: FileJob, stack: AsyncExitStack, what: str, stat: api.PathStat | None = None) -> None:
        self.stat = stat
        self._job = job
        self._stack = stack
        self._what = what

    async def pieces(self) -> AsyncIterator[bytes]:
        """The tar. Raises :class:`ServerError` behind its last byte if it is not whole."""
        try:
            async for piece in self._job.pieces():
                yield piece
            await self._job.report("done")
        except KeeperError as error:
            raise ServerError(f"{self._what}: {error.message}") from error

    async def close(self) -> None:
        """Let go of everything."""
        await undisturbed(self._stack.aclose())


class Files:
    """Container files. `ref` is an ID, a unique beginning of one, or a name."""

    def __init__(self, core: Core, life: Life) -> None:
        self._core = core
        self._life = life

    # --- a child with the right view --------------------------------------------------------------------------------
    async def _start(self, container: Container, task: Mapping[str, Any], data: Literal["in", "out", ""],
                     stack: AsyncExitStack, *, own: bool = False, upload: Upload | None = None) -> tuple[FileJob, Any]:
        """A child that works on the container's files, and what it says first; what it needs is let go with *stack*."""
        for attempt in range(_ATTEMPTS):
            if container.removed or container.status.removing:
                raise Conflict(f"container {container.id} is being removed")
            inner = AsyncExitStack()
            try:
                look = await inner.enter_async_context(self._look(container, write=data == "in", own=own))
                job = await inner.enter_async_context(
                    await FileJob.start(self._core.keeper, look, dict(task), data, upload))
                said = await job.report("stat" if task["kind"] in ("stat", "pack") else "ready")
            except KeeperError as error:
                await undisturbed(inner.aclose())
                if error.reason != "not_running" or attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.05)          # its end is being told
                continue
            except BaseException:
                await undisturbed(inner.aclose())
                raise
            await stack.enter_async_context(inner)
            return job, said
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _look(self, container: Container, *, write: bool, own: bool) -> AsyncGenerator[Look]:
        # In a user namespace the mounts below the root are locked to it: its layers are looked at instead.
        if container.status.active and not (own and container.record.ids is not None):
            yield Look(id=container.id, own=own)
            return
        async with AsyncExitStack() as stack:
            if write:
                await stack.enter_async_context(container.lock)
                if container.status.active:
                    await stack.aclose()
                    yield Look(id=container.id, own=own)
                    return
            holder = f"files-{secrets.token_hex(8)}"
            lower = await self._core.images.lowers(container.record.image, holder)
            stack.callback(self._core.images.release, holder)
            mounts = [] if own else await self._mounts(container, stack)
            places = self._core.paths.container(container.id)
            overlay = Overlay(lower, places.upper, places.work) if write else Overlay((places.upper, *lower), "", "")
            yield Look(overlay=overlay, mounts=mounts,
                       read_only=write and container.record.host_config.readonly_rootfs)

    async def _mounts(self, container: Container, stack: AsyncExitStack) -> list[dict[str, Any]]:
        """What a stopped container would have mounted from the host, in the order of a start. No tmpfs: it is empty."""
        places = self._core.paths.container(container.id)
        files = spec.etc_mounts(places.files(), container.record.host_config, container.record.mounts)
        holder = f"files-{secrets.token_hex(8)}"
        stack.push_async_callback(volumedrivers.unmount, self._core, container.record.mounts, holder)
        resolved = await sources(self._core, container.record.mounts, holder, stack)
        return files + [one for one in spec.user_mounts(resolved) if one["type"] == "bind"]

    # --- copies -----------------------------------------------------------------------------------------------------
    async def stat(self, ref: str, path: str) -> api.PathStat:
        """What is at *path*, the last link of it not followed. :class:`NotFound` in Docker's words."""
        container = self._core.table.get(ref)
        async with tidy() as stack:
            try:
                _, seen = await self._start(container, {"kind": "stat", "path": clean(path)}, "", stack)
                return _path_stat(seen)
            except KeeperError as error:
                raise refusal(error, ref, path) from error

    async def archive(self, ref: str, path: str) -> Archive:
        """What is at *path* as a tar."""
        container = self._core.table.get(ref)
        stack = AsyncExitStack()
        try:
            # /dev is the runtime's own and is entered only by who asks for what is in it.
            task = {"kind": "pack", "path": clean(path), "closed": ["/dev"] if container.status.active else []}
            job, seen = await self._start(container, task, "out", stack)
        except KeeperError as error:
            await undisturbed(stack.aclose())
            raise refusal(error, ref, path) from error
        except BaseException:
            await undisturbed(stack.aclose())
            raise
        self._life.tell(container, "archive-path")
        return Archive(job, stack, f"copying {path} from container {ref}", _path_stat(seen))

    async def extract(self, ref: str, path: str, source: AsyncIterator[bytes] | Upload, *, keep_kinds: bool = False,
                      copy_owner: bool = False) -> None:
        """Put the tar *source* (plain, gzip, zstd or xz; of an :class:`Upload` plain) into the directory *path*.

        *keep_kinds*: no directory is replaced by something else or the other way round; *copy_owner*: all belongs to
        the container's own user.
        """
        container = self._core.table.get(ref)
        owner = container.record.config.user if copy_owner else ""
        task = {"kind": "extract", "path": clean(path), "keep_kinds": keep_kinds, "owner": owner}
        async with tidy() as stack:
            try:
                upload = source if isinstance(source, Upload) else None
                job, _ = await self._start(container, task, "in", stack, upload=upload)
                await feed(job, source)
                await job.report("done")
            except KeeperError as error:
                raise refusal(error, ref, path) from error
        self._life.tell(container, "extract-to-dir")

    # --- the container's own layer ----------------------------------------------------------------------------------
    async def changes(self, ref: str) -> list[api.FilesystemChange]:
        """What differs from the image, sorted; every change with the directories above it."""
        container = self._core.table.get(ref)
        holder = f"files-{secrets.token_hex(8)}"
        lower = await self._core.images.lowers(container.record.image, holder)
        upper = self._core.paths.container(container.id).upper

        def compare() -> list[api.FilesystemChange]:
            with root_of(lower) as below, root_of((upper,)) as above:
                found = changes(above, below, PLACEHOLDERS)
                return [api.FilesystemChange(path=path, kind=kind) for path, kind in found]

        try:
            return await asyncio.to_thread(compare)
        except OSError as error:
            raise ServerError(f"cannot compare container {ref} with its image: {error.strerror}") from error
        finally:
            self._core.images.release(holder)

    async def export(self, ref: str) -> Archive:
        """The whole root file system as a tar, without what is mounted on it."""
        container = self._core.table.get(ref)
        stack = AsyncExitStack()
        try:
            job, _ = await self._start(container, {"kind": "export"}, "out", stack, own=True)
        except KeeperError as error:
            await undisturbed(stack.aclose())
            raise ServerError(f"Error exporting container {ref}: {error.message}") from error
        except BaseException:
            await undisturbed(stack.aclose())
            raise
        self._life.tell(container, "export")
        return Archive(job, stack, f"Error exporting container {ref}")

    async def commit(self, ref: str, *, config: api.ContainerConfig | None, changes: Sequence[str] = (),
                     repository: str = "", tag: str = "", author: str = "", comment: str = "",
                     pause: bool = True) -> str:
        """An image of the container as it is: its image's layers and its own. Returns the new image's ID."""
        container = self._core.table.get(ref)
        name = _target(repository, tag)
        defaults = _defaults(config or container.record.config, container.record.config, changes)
        change = Commit(defaults, name, author, comment, " ".join(container.record.config.cmd or ()))
        async with tidy() as stack:
            if pause:
                await undisturbed(self._life.hold_for(container, stack))
            image = await self._commit(container, change, stack)
        shown = parse(name).familiar if name else ""
        self._life.tell(container, "commit", comment=comment, imageID=image, imageRef=shown)
        return image

    async def _commit(self, container: Container, change: Commit, held: AsyncExitStack) -> str:
        """*held* is let go once the container's files have been read: what is made of them takes longer."""
        holder = f"files-{secrets.token_hex(8)}"
        await self._core.images.lowers(container.record.image, holder)
        try:
            with root_of((self._core.paths.container(container.id).upper,)) as upper:
                task = {"kind": "export", "layer": True, "placeholders": sorted(PLACEHOLDERS)}
                async with await FileJob.start(self._core.keeper, Look(directory=upper), task, "out") as job:
                    await job.report("ready")
                    made = await self._core.images.commit(container.record.image, _whole(job, held), change)
            return made.id
        except KeeperError as error:
            raise ServerError(f"cannot commit container {container.id}: {error.message}") from error
        finally:
            self._core.images.release(holder)


# --- words ----------------------------------------------------------------------------------------------------------
def clean(path: str) -> str:
    """An absolute path as the container sees it. A slash or ``/.`` at the end stays: it means what a link leads to."""
    made = posixpath.normpath("/" + path.lstrip("/"))
    if path.endswith("/.") or path == ".":
        return f"{made.rstrip('/')}/."
    return made if not path.endswith("/") or made == "/" else made + "/"


def _path_stat(seen: Mapping[str, Any]) -> api.PathStat:
    return api.PathStat(name=seen["name"], size=seen["size"], mode=go_mode(seen["mode"]), mtime=seen["mtime"],
                        link_target=seen["link"])


def refusal(error: KeeperError, ref: str, path: str) -> EngineError:
    """A child's refusal as the API tells it."""
    if error.reason == "no_such":
        return NotFound(f"Could not find the file {path} in container {ref}")
    if error.reason in ("not_directory", "read_only", "bad_archive", "no_user"):
        return InvalidArgument(error.message)
    if error.reason == "lost":
        return Unavailable(error.message)
    return ServerError(error.message)


async def feed(job: FileJob, source: AsyncIterator[bytes] | Upload) -> None:
    """Send *source*, inflated, to a child that extracts. If it takes no more, its report says why."""
    if isinstance(source, Upload):
        await job.hand_over(source)
        return
    inflater = Inflater()
    open_ = True
    async for piece in source:
        if not open_:
            continue                               # the client is let come to its end, so that it reads our answer
        for plain in inflater.feed(piece):
            open_ = open_ and await job.write(plain)
    if open_:
        await job.write(inflater.end())
    job.end_input()


async def _whole(job: FileJob, held: AsyncExitStack) -> AsyncIterator[bytes]:
    async for piece in job.pieces():
        yield piece
    await job.report("done")
    await undisturbed(held.aclose())


def _target(repository: str, tag: str) -> str:
    """The name of a commit's image, "" for none. Raises :class:`InvalidArgument`."""
    if not repository:
        return ""
    reference = parse(f"{repository}:{tag}" if tag else repository)
    if reference.digest:
        raise InvalidArgument("cannot import digest reference")
    return str(reference.with_default_tag().familiar)


_KEPT = ("User", "ExposedPorts", "Env", "Cmd", "Healthcheck", "ArgsEscaped", "Volumes", "WorkingDir", "Entrypoint",
         "OnBuild", "Labels", "StopSignal", "Shell")


def _defaults(asked: api.ContainerConfig, own: api.ContainerConfig, changes: Sequence[str]) -> dict[str, Any]:
    """The configuration of a commit's image: what was asked for, changed, and completed from the container's own."""
    base = {key: value for key, value in msgspec.to_builtins(asked).items() if key in _KEPT and value}
    made = apply(changes, base)
    words = [one.strip().partition(" ")[0].upper() for one in changes]
    if "ENTRYPOINT" in words and "CMD" not in words:
        made.pop("Cmd", None)                      # the old command was for the old entrypoint
    given = msgspec.to_builtins(own)
    env = {one.partition("=")[0] for one in made.get("Env") or ()}
    made["Env"] = [*(made.get("Env") or ()), *(one for one in given["Env"] if one.partition("=")[0] not in env)]
    for key in ("ExposedPorts", "Volumes", "Labels"):
        made[key] = {**(given.get(key) or {}), **(made.get(key) or {})}
    if not made.get("Entrypoint"):
        made["Cmd"] = made.get("Cmd") or given.get("Cmd")
        made["Entrypoint"] = made.get("Entrypoint") or given.get("Entrypoint")
    for key in ("User", "WorkingDir", "StopSignal", "Healthcheck", "Shell", "OnBuild"):
        made[key] = made.get(key) or given.get(key)
    return {key: value for key, value in made.items() if value}
