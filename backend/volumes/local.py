"""Volumes of the local driver: directories that outlive containers.

``<root>/volumes/<name>/_data`` is what containers see; ``volume.json`` beside it says the rest. A volume appears and
disappears by one rename, so that a crash leaves either all of it or nothing; what a crash left half-made or
half-removed carries a name that begins with a dot, which no volume's can, and is swept when the store opens.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from backend.errors import Conflict, InvalidArgument, NotFound, ServerError
from backend.volumes import mounting, tree

log = logging.getLogger(__name__)

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_LONGEST = 255                         # bytes, what file systems take
_DATA_MODE = 0o755                     # Docker's: programs of any user may look in
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume. ``created_at`` in nanoseconds since the epoch; ``mountpoint`` is the absolute path of its data."""

    name: str
    driver: str
    mountpoint: str
    created_at: int
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    scope: str = "local"
    anonymous: bool = False

    @property
    def is_mount(self) -> bool:
        """Its options say what is mounted there while it is used; else it is a directory of ours."""
        return mounting.wanted(self.options)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What volume.json says: all that does not follow from the place."""

    driver: str
    created_at: int
    labels: dict[str, str]
    options: dict[str, str]
    anonymous: bool


class VolumeStore:
    """The volumes below *root*. Calls answer at once; those that await copy or measure files in a thread."""

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(os.path.join(root, "volumes"))
        self._volumes: dict[str, Volume] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._removals: set[asyncio.Future[None]] = set()
        self._holders: dict[str, set[str]] = {}        # volume -> who needs its data at its place
        self._top = -1

    # -- life ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the store, finish what a crash interrupted."""
        os.makedirs(self._root, mode=0o711, exist_ok=True)
        self._top = os.open(self._root, _DIRECTORY)
        for name in sorted(os.listdir(self._top)):
            if name.startswith("."):
                self._discard(name)
            elif _NAME.fullmatch(name):
                self._finish_replacement(name)
                volume = self._read(name)
                if volume is not None:
                    self._volumes[name] = volume
        for name in self._volumes:
            if os.path.isdir(self._path(name, "_ready")):
                await asyncio.to_thread(self._finish, name)

    def _finish_replacement(self, name: str) -> None:
        """A restore that a crash cut short after it counted."""
        if os.path.isdir(self._path(name, "_replace")):
            gone = f".gone-{secrets.token_hex(8)}"
            os.mkdir(gone, 0o700, dir_fd=self._top)
            self._swap(name, gone)
            self._discard(gone)

    async def close(self) -> None:
        """Wait for removals under way."""
        if self._removals:
            await asyncio.wait(self._removals)
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def _path(self, name: str, *more: str) -> str:
        return os.path.join(self._root, name, *more)

    def _read(self, name: str) -> Volume | None:
        if not os.path.isdir(self._path(name, "_data")):
            return None
        try:
            with open(self._path(name, "volume.json"), "rb") as source:
                kept = msgspec.json.decode(source.read(), type=_Kept)
        except (OSError, msgspec.DecodeError) as problem:
            # The data matters more than its labels: the volume stays usable, and the loss is told.
            log.error("volume %s: its description cannot be read (%s); its labels and options are lost", name, problem)
            kept = _Kept("local", os.stat(self._path(name)).st_mtime_ns, {}, {}, anonymous=False)
        return Volume(name, kept.driver, self._path(name, "_data"), kept.created_at, kept.labels, kept.options,
                      anonymous=kept.anonymous)

    # -- volumes -------------------------------------------------------------------------------------------------

    def create(self, name: str = "", *, driver: str = "local", labels: dict[str, str] | None = None,
               options: dict[str, str] | None = None) -> Volume:
        """Make a volume; "" makes an anonymous one. An existing name is answered with that volume, as it is."""
        anonymous = not name
        name = name or secrets.token_hex(32)
        self._check_name(name)
        known = self._volumes.get(name)
        if known is not None:
            if driver not in ("", known.driver):
                raise Conflict(f"create {name}: conflict: volume name must be unique: it exists with the driver "
                               f"{known.driver}")
            return known
        if driver not in ("", "local"):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        mounting.check(name, options or {})
        wanted = {**(labels or {}), **({ANONYMOUS_LABEL: ""} if anonymous else {})}
        kept = _Kept("local", time.time_ns(), wanted, dict(options or {}), anonymous)
        try:
            self._make(name, kept)
        except OSError as problem:
            raise ServerError(f"create {name}: {problem.strerror}") from problem
        self._volumes[name] = Volume(name, kept.driver, self._path(name, "_data"), kept.created_at, kept.labels,
                                     kept.options, anonymous=anonymous)
        return self._volumes[name]

    @staticmethod
    def _check_name(name: str) -> None:
        if len(name) == 1:
            raise InvalidArgument(f"create {name}: volume name is too short, names should be at least two "
                                  "alphanumeric characters")
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                                  '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                                  "use absolute path")
        if len(name) > _LONGEST:
            raise InvalidArgument(f"create {name[:32]}…: volume name is too long, at most {_LONGEST} characters")

    def _make(self, name: str, kept: _Kept) -> None:
        draft = f".new-{secrets.token_hex(8)}"
        os.mkdir(draft, 0o711, dir_fd=self._top)
        try:
            directory = os.open(draft, _DIRECTORY, dir_fd=self._top)
            try:
                os.mkdir("_data", dir_fd=directory)
                os.chmod("_data", _DATA_MODE, dir_fd=directory)      # whatever the umask
                record = os.open("volume.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600,
                                 dir_fd=directory)
                with open(record, "wb") as sink:
                    sink.write(msgspec.json.encode(kept))
                    sink.flush()
                    os.fsync(record)
                os.fsync(directory)
            finally:
                os.close(directory)
            os.rename(draft, name, src_dir_fd=self._top, dst_dir_fd=self._top)
        except BaseException:
            tree.remove(self._top, draft)
            raise
        os.fsync(self._top)

    def get(self, name: str) -> Volume:
        """A volume by name."""
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def list(self) -> list[Volume]:
        """All volumes by name."""
        return [self._volumes[name] for name in sorted(self._volumes)]

    def remove(self, name: str, *, users: Callable[[str], Sequence[str]], force: bool = False) -> None:
        """Remove a volume that nobody uses; *users* gives the IDs of the containers that do. *force*: a missing volume
        is no error. The files are deleted in the background."""
        if force and name not in self._volumes:
            return
        volume = self.get(name)
        using = [*users(name), *self._working(name)]
        if using:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(using)}]")
        gone = f".gone-{secrets.token_hex(8)}"
        try:
            os.rename(name, gone, src_dir_fd=self._top, dst_dir_fd=self._top)
        except FileNotFoundError:      # somebody removed the directory by hand
            log.warning("volume %s: %s was already gone", name, volume.mountpoint)
        except OSError as problem:
            raise ServerError(f"remove {name}: {problem.strerror}") from problem
        else:
            self._discard(gone)
        del self._volumes[name]
        self._locks.pop(name, None)

    def _discard(self, name: str) -> None:
        """Delete a directory of the store in the background."""
        work = asyncio.get_running_loop().run_in_executor(None, tree.remove, self._top, name)
        self._removals.add(work)
        work.add_done_callback(self._discarded)

    def _discarded(self, work: asyncio.Future[None]) -> None:
        self._removals.discard(work)
        if not work.cancelled() and work.exception() is not None:
            log.error("files of a removed volume stay until the next start: %s", work.exception())

    # -- use -----------------------------------------------------------------------------------------------------

    async def acquire(self, name: str, holder: str) -> str:
        """The path of a volume's data; what its options say is mounted there until the last holder releases it."""
        volume = self.get(name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            holders = self._holders.setdefault(name, set())
            if volume.is_mount and not holders and not mounting.mounted(volume.mountpoint):
                await asyncio.to_thread(mounting.mount, volume.options, volume.mountpoint)
            holders.add(holder)
        return volume.mountpoint

    def release(self, holder: str) -> None:
        """*holder* needs none of its volumes any longer."""
        for name, holders in list(self._holders.items()):
            holders.discard(holder)
            if not holders:
                del self._holders[name]
                self._unmount(name)

    def settle(self) -> None:
        """After a restart, once all who use volumes have acquired them: take off what nobody needs."""
        for name in self._volumes:
            if name not in self._holders:
                self._unmount(name)

    def _unmount(self, name: str) -> None:
        volume = self._volumes.get(name)
        if volume is None or not volume.is_mount:
            return
        try:
            mounting.unmount(volume.mountpoint)
        except OSError as problem:
            log.error("volume %s: %s cannot be unmounted: %s", name, volume.mountpoint, problem.strerror)

    def _working(self, name: str) -> Sequence[str]:
        """Copies and backups of a volume that are under way."""
        return sorted(one for one in self._holders.get(name, ()) if one.startswith("files-"))

    # -- contents ------------------------------------------------------------------------------------------------

    async def populate(self, volume: Volume, source: int) -> bool:
        """Fill an empty volume with what the image has in its place: *source* is a descriptor of that directory, which
        stays the caller's. False if the volume has contents already. All appears, or nothing."""
        async with self._locks.setdefault(volume.name, asyncio.Lock()):
            return await asyncio.to_thread(self._populate, self.get(volume.name).name, source)

    def _populate(self, name: str, source: int) -> bool:
        directory = os.open(name, _DIRECTORY, dir_fd=self._top)
        try:
            data = os.open("_data", _DIRECTORY, dir_fd=directory)
            try:
                if not tree.is_empty(data):
                    return False
                if self._volumes[name].is_mount:       # nothing can be renamed into it from here
                    tree.copy(source, data)
                    return True
            finally:
                os.close(data)
            for stale in [entry for entry in os.listdir(directory) if entry.startswith("_staging")]:
                tree.remove(directory, stale)
            os.mkdir("_staging", 0o700, dir_fd=directory)
            try:
                staging = os.open("_staging", _DIRECTORY, dir_fd=directory)
                try:
                    tree.copy(source, staging)
                finally:
                    os.close(staging)
                os.rename("_staging", "_ready", src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                tree.remove(directory, "_staging")
                raise
        except OSError as problem:
            raise ServerError(f"volume {name}: its contents could not be copied from the image: "
                              f"{problem.strerror}") from problem
        finally:
            os.close(directory)
        self._finish(name)
        return True

    def _finish(self, name: str) -> None:
        """Move what is ready into place: into the directory that is there, since a container may have it mounted."""
        directory = os.open(name, _DIRECTORY, dir_fd=self._top)
        try:
            ready = os.open("_ready", _DIRECTORY, dir_fd=directory)
            data = os.open("_data", _DIRECTORY, dir_fd=directory)
            try:
                status = os.stat(ready)
                for entry in os.listdir(ready):
                    os.rename(entry, entry, src_dir_fd=ready, dst_dir_fd=data)
                os.fchown(data, status.st_uid, status.st_gid)
                os.fchmod(data, status.st_mode & 0o7777)
                os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(ready)
                os.close(data)
            os.rmdir("_ready", dir_fd=directory)
        finally:
            os.close(directory)

    # -- contents as a whole -------------------------------------------------------------------------------------

    def scratch(self) -> tuple[str, int]:
        """An empty directory on the volumes' file system, for a copy that is on its way: its name for :meth:`discard`
        and a descriptor, the caller's to close. A crash's are swept when the store opens."""
        name = f".scratch-{secrets.token_hex(8)}"
        os.mkdir(name, 0o700, dir_fd=self._top)
        return name, os.open(name, _DIRECTORY, dir_fd=self._top)

    def discard(self, name: str) -> None:
        """Delete what :meth:`scratch` made, in the background."""
        self._discard(name)

    def replace(self, name: str, scratch: str) -> None:
        """Make the directory *scratch* the contents of a volume that nothing has mounted. All of it appears, or
        nothing; the old contents are deleted in the background."""
        self.get(name)
        gone = f".gone-{secrets.token_hex(8)}"
        os.mkdir(gone, 0o700, dir_fd=self._top)
        try:
            # From here on it counts.
            os.rename(scratch, f"{name}/_replace", src_dir_fd=self._top, dst_dir_fd=self._top)
            self._swap(name, gone)
        except OSError as problem:
            raise ServerError(f"volume {name}: its contents cannot be replaced: {problem.strerror}") from problem
        finally:
            self._discard(gone)

    def _swap(self, name: str, gone: str) -> None:
        """Put ``_replace`` in the place of ``_data``; a second time after a crash, if need be."""
        if os.path.isdir(self._path(name, "_data")):
            os.rename(f"{name}/_data", f"{gone}/_data", src_dir_fd=self._top, dst_dir_fd=self._top)
        os.rename(f"{name}/_replace", f"{name}/_data", src_dir_fd=self._top, dst_dir_fd=self._top)
        directory = os.open(name, _DIRECTORY, dir_fd=self._top)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    async def usage(self, name: str) -> int:
        """The size of its files in bytes; -1 for a mount, which may be a slow server's or another program's."""
        if self.get(name).is_mount:
            return -1
        return await asyncio.to_thread(self._usage, self.get(name).name)

    def _usage(self, name: str) -> int:
        directory = os.open(name, _DIRECTORY, dir_fd=self._top)
        try:
            data = os.open("_data", _DIRECTORY, dir_fd=directory)
            try:
                return tree.size(data)
            finally:
                os.close(data)
        finally:
            os.close(directory)
