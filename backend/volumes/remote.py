"""Volumes of plug-ins. The plug-in has the data; here is remembered whose a name is, with its labels and options.

What a plug-in lists besides is shown too: it may have been made by another engine, or before this one's state was lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from backend.errors import Conflict, EngineError, NotFound, ServerError
from backend.volumes import tree
from backend.volumes.local import Volume

log = logging.getLogger(__name__)
T = TypeVar("T")
_LIST_TIME = 5.0      # seconds that a list waits for one plug-in


class Caller(Protocol):
    """What the engine lends us of its plug-ins (backend.plugins)."""

    async def call(self, name: str, method: str, body: Mapping[str, Any], answer: type[T]) -> T:
        """Call a method of a plug-in; NotFound, Unavailable or ServerError."""

    async def of_kind(self, kind: str) -> list[str]:
        """The plug-ins of a kind that are there."""


class _Theirs(msgspec.Struct, rename="pascal"):
    name: str
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] | None = None


class _One(msgspec.Struct, rename="pascal"):
    volume: _Theirs | None = None


class _Many(msgspec.Struct, rename="pascal"):
    volumes: list[_Theirs] | None = None


class _Place(msgspec.Struct, rename="pascal"):
    mountpoint: str = ""


class _Capability(msgspec.Struct, rename="pascal"):
    scope: str = "local"


class _Capabilities(msgspec.Struct, rename="pascal"):
    capabilities: _Capability | None = None


class Kept(msgspec.Struct):
    """What is remembered of one. ``created_at``: ns; ``holders``: containers for which it is mounted."""

    driver: str
    created_at: int
    labels: dict[str, str]
    options: dict[str, str]
    scope: str = "local"
    anonymous: bool = False
    mountpoint: str = ""
    holders: list[str] = []


class RemoteVolumes:
    """Volumes of plug-ins; *path* is the file in which they are remembered."""

    def __init__(self, path: str, plugins: Caller) -> None:
        self._path, self._plugins = path, plugins
        self._kept: dict[str, Kept] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def open(self) -> None:
        """Read what is remembered; a file that cannot be read is put aside, since the plug-ins know the volumes."""
        try:
            with open(self._path, "rb") as source:
                self._kept = msgspec.json.decode(source.read(), type=dict[str, Kept])
        except FileNotFoundError:
            return
        except msgspec.DecodeError as problem:
            log.error("%s cannot be read (%s) and is put aside: labels of plug-ins' volumes are lost", self._path,
                      problem)
            os.rename(self._path, f"{self._path}.damaged")

    def _save(self) -> None:
        draft = f"{self._path}.new"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as sink:
            sink.write(msgspec.json.encode(self._kept))
            sink.flush()
            os.fsync(sink.fileno())
        os.rename(draft, self._path)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    # -- views ---------------------------------------------------------------------------------------------------

    def knows(self, name: str) -> bool:
        """The volume is a plug-in's, as far as we remember."""
        return name in self._kept

    def remembered(self) -> list[Volume]:
        """Those that we remember, without asking anybody."""
        return [self._volume(name) for name in sorted(self._kept)]

    def _volume(self, name: str, theirs: _Theirs | None = None) -> Volume:
        kept = self._kept[name]
        place = theirs.mountpoint if theirs is not None and theirs.mountpoint else kept.mountpoint
        return Volume(name, kept.driver, place, kept.created_at, kept.labels, kept.options, kept.scope,
                      kept.anonymous)

    async def list(self) -> list[Volume]:
        """All of all plug-ins that answer, and those that we remember of the others."""
        found = {volume.name: volume for volume in self.remembered()}
        drivers = await self._plugins.of_kind("VolumeDriver")
        for driver, listed in zip(drivers, await asyncio.gather(*map(self._listed, drivers)), strict=True):
            for one in listed:
                if one.name in self._kept:
                    found[one.name] = self._volume(one.name, one)
                else:
                    found.setdefault(one.name, Volume(one.name, driver, one.mountpoint, time.time_ns()))
        return [found[name] for name in sorted(found)]

    async def _listed(self, driver: str) -> Sequence[_Theirs]:
        try:
            async with asyncio.timeout(_LIST_TIME):
                return (await self._plugins.call(driver, "VolumeDriver.List", {}, _Many)).volumes or ()
        except (EngineError, TimeoutError) as problem:
            log.warning("the volumes of plug-in %s are not listed: %s", driver, problem)
            return ()

    async def get(self, name: str) -> Volume:
        """One volume, as its plug-in describes it now. NotFound where none has it."""
        kept = self._kept.get(name)
        if kept is not None:
            answer = await self._plugins.call(kept.driver, "VolumeDriver.Get", {"Name": name}, _One)
            if answer.volume is None:
                raise ServerError(f"get {name}: plugin {kept.driver} described no volume")
            return self._volume(name, answer.volume)
        for volume in await self.list():
            if volume.name == name:
                return volume
        raise NotFound(f"get {name}: no such volume")

    # -- changes -------------------------------------------------------------------------------------------------

    async def create(self, name: str, driver: str, *, labels: dict[str, str] | None = None,
                     options: dict[str, str] | None = None, anonymous: bool = False) -> Volume:
        """Make a volume. One that is there already is answered as it is; Conflict if it is another driver's."""
        async with self._lock(name):
            kept = self._kept.get(name)
            if kept is not None:
                if driver not in ("", kept.driver):
                    raise Conflict(f"create {name}: conflict: volume name must be unique: it exists with the driver "
                                   f"{kept.driver}")
                return self._volume(name)
            scope = await self._scope(name, driver)
            if not await self._has(name, driver):
                await self._plugins.call(driver, "VolumeDriver.Create", {"Name": name, "Opts": options or {}}, _One)
            self._kept[name] = Kept(driver, time.time_ns(), dict(labels or {}), dict(options or {}), scope, anonymous)
            self._save()
            return self._volume(name)

    async def _has(self, name: str, driver: str) -> bool:
        """It was made by somebody else; plug-ins answer with an error of their own words where it was not."""
        try:
            answer = await self._plugins.call(driver, "VolumeDriver.Get", {"Name": name}, _One)
        except ServerError:
            return False
        return answer.volume is not None

    async def _scope(self, name: str, driver: str) -> str:
        try:
            found = await self._plugins.call(driver, "VolumeDriver.Capabilities", {}, _Capabilities)
        except NotFound as missing:
            raise NotFound(f"create {name}: error looking up volume plugin {driver}: {missing.message}") from None
        except ServerError:      # older plug-ins do not know this call
            return "local"
        scope = found.capabilities.scope if found.capabilities is not None else "local"
        return scope if scope in ("local", "global") else "local"

    async def remove(self, name: str, *, users: Callable[[str], Sequence[str]], force: bool = False) -> None:
        """Remove a volume that nobody uses. *force*: forget it even if its plug-in is gone."""
        async with self._lock(name):
            using = users(name)
            if using:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(using)}]")
            kept = self._kept.get(name)
            driver = kept.driver if kept is not None else (await self.get(name)).driver
            try:
                await self._plugins.call(driver, "VolumeDriver.Remove", {"Name": name}, _One)
            except EngineError as problem:
                if not force:
                    raise ServerError(f"remove {name}: {problem.message}") from problem
                log.warning("volume %s is forgotten although its plug-in did not remove it: %s", name, problem.message)
            if self._kept.pop(name, None) is not None:
                self._save()
        self._locks.pop(name, None)

    async def populate(self, name: str, source: int, holder: str) -> bool:
        """Fill an empty volume with what the image has in its place: *source* is a descriptor of that directory. False
        if the volume has contents already."""
        place = await self.mount(name, holder)
        try:
            return await asyncio.to_thread(_populate, name, place, source)
        finally:
            await self.unmount(name, holder)

    async def mount(self, name: str, holder: str) -> str:
        """Have the plug-in make the volume's files available for the container *holder*; where they are. Again for the
        same container: the same answer."""
        async with self._lock(name):
            kept = self._kept.get(name)
            if kept is None:
                raise NotFound(f"get {name}: no such volume")
            answer = await self._plugins.call(kept.driver, "VolumeDriver.Mount", {"Name": name, "ID": holder}, _Place)
            place = answer.mountpoint
            if not place.startswith("/") or ".." in place.split("/") or not os.path.isdir(place):
                await self._unmount(name, kept, holder)
                raise ServerError(f"plugin {kept.driver} says that volume {name} is mounted at {place!r}, and no "
                                  "directory is there")
            kept.mountpoint = place
            kept.holders = sorted({*kept.holders, holder})
            self._save()
            return place

    async def unmount(self, name: str, holder: str) -> None:
        """The container needs the volume no more. A plug-in that fails here is told in the log: the container has
        ended, whatever the plug-in says."""
        async with self._lock(name):
            kept = self._kept.get(name)
            if kept is not None and holder in kept.holders:
                await self._unmount(name, kept, holder)
                kept.holders = [one for one in kept.holders if one != holder]
                if not kept.holders:
                    kept.mountpoint = ""
                self._save()

    async def _unmount(self, name: str, kept: Kept, holder: str) -> None:
        try:
            await self._plugins.call(kept.driver, "VolumeDriver.Unmount", {"Name": name, "ID": holder}, _One)
        except EngineError as problem:
            log.warning("volume %s: plug-in %s did not unmount it: %s", name, kept.driver, problem.message)


def _populate(name: str, place: str, source: int) -> bool:
    try:
        target = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not tree.is_empty(target):
                return False
            tree.copy(source, target)
        finally:
            os.close(target)
    except OSError as problem:
        raise ServerError(f"volume {name}: its contents could not be copied from the image: "
                          f"{problem.strerror}") from problem
    return True
