"""Volumes whoever has them: the local driver or a plug-in. What the engine does with a volume goes through here."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import msgspec

from backend.engine.core import Core
from backend.engine.record import MountRecord
from backend.errors import Conflict, InvalidArgument, NotFound
from backend.volumes.local import Volume

LOCAL = ("", "local")


def is_local(core: Core, name: str) -> bool:
    """The local driver has a volume of this name."""
    try:
        core.volumes.get(name)
    except NotFound:
        return False
    return True


async def obtain(core: Core, name: str, driver: str, *, labels: dict[str, str] | None = None,
                 options: dict[str, str] | None = None) -> tuple[Volume, bool]:
    """The volume *name* ("" makes an anonymous one) and whether it had to be made. *driver* "": whoever has it, and the
    local driver for a new one."""
    if name and is_local(core, name):
        return core.volumes.create(name, driver=driver, labels=labels, options=options), False
    if driver in LOCAL and not core.plugged.knows(name) and not await _is_elsewhere(core, name):
        return core.volumes.create(name, driver=driver, labels=labels, options=options), True
    if driver == "local":
        raise Conflict(f"create {name}: conflict: volume name must be unique: it exists with the driver of a plug-in")
    known = core.plugged.knows(name)
    owner = driver or (await core.plugged.get(name)).driver
    made = await core.plugged.create(name or secrets.token_hex(32), owner, labels=labels, options=options,
                                     anonymous=not name)
    return made, not known


async def _is_elsewhere(core: Core, name: str) -> bool:
    """A plug-in that is there has a volume of this name, which we did not make."""
    if not name or not core.plugins.found():
        return False
    return any(volume.name == name for volume in await core.plugged.list())


async def every(core: Core) -> list[Volume]:
    """All volumes by name."""
    if not (core.plugged.remembered() or core.plugins.found()):
        return core.volumes.list()
    found = {volume.name: volume for volume in await core.plugged.list()}
    found.update((volume.name, volume) for volume in core.volumes.list())
    return [found[name] for name in sorted(found)]


async def describe(core: Core, name: str) -> Volume:
    """One volume. NotFound."""
    return core.volumes.get(name) if is_local(core, name) else await core.plugged.get(name)


async def remove(core: Core, name: str, *, force: bool = False) -> str:
    """Remove a volume that no container uses; its driver, "" where *force* made a missing one no error."""
    def users(wanted: str) -> Sequence[str]:
        return [one.id for one in core.table.users_of_volume(wanted)]
    if is_local(core, name):
        core.volumes.remove(name, users=users, force=force)
        return "local"
    try:
        driver = (await core.plugged.get(name)).driver if not core.plugged.knows(name) else next(
            volume.driver for volume in core.plugged.remembered() if volume.name == name)
    except NotFound:
        if force:
            return ""
        raise
    await core.plugged.remove(name, users=users, force=force)
    return driver


async def mount(core: Core, mounts: Sequence[MountRecord], holder: str) -> tuple[MountRecord, ...]:
    """*mounts* with the places of volumes filled in, mounted for *holder*; all or none."""
    made: list[MountRecord] = []
    try:
        for one in mounts:
            if one.kind == "volume" and one.driver not in LOCAL:
                place = await core.plugged.mount(one.volume, holder)
                one = msgspec.structs.replace(one, source=place)
            elif one.kind == "volume":
                core.volumes.create(one.volume, labels=one.labels, options=one.driver_options)
                one = msgspec.structs.replace(one, source=await core.volumes.acquire(one.volume, holder))
            made.append(one)
    except BaseException:
        await unmount(core, mounts, holder)
        raise
    return tuple(made)


async def unmount(core: Core, mounts: Sequence[MountRecord], holder: str) -> None:
    """*holder* needs the volumes and images among *mounts* no more."""
    core.volumes.release(holder)
    for one in mounts:
        if one.kind == "image":
            core.images.release(image_holder(holder, one))
    names = {one.volume for one in mounts if one.kind == "volume" and core.plugged.knows(one.volume)}
    if names:
        await asyncio.gather(*(core.plugged.unmount(name, holder) for name in sorted(names)))


def image_holder(holder: str, one: MountRecord) -> str:
    """The name under which *holder* has the layers of an image that it mounts."""
    return f"{holder}:{one.target}"


def paths(core: Core) -> dict[str, str]:
    """Where the volumes' files are, as far as that is known without asking plug-ins."""
    return {volume.name: volume.mountpoint for volume in (*core.volumes.list(), *core.plugged.remembered())}


def check_driver(core: Core, driver: str) -> None:
    """Refuse a volume driver that nobody brings, in Docker's words."""
    if driver not in LOCAL and driver not in core.plugins.found():
        raise InvalidArgument(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
