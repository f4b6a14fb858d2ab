"""The mounts of a container with the host's paths filled in: volumes brought to their places, binds made or checked."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from backend.engine import volumedrivers
from backend.engine.core import Core
from backend.engine.record import MountRecord
from backend.engine.rootview import root_of
from backend.errors import InvalidArgument, ServerError
from backend.runtime import syscalls as sc

_ESCAPE = re.compile(rb"\\([0-7]{3})")
_BENEATH = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS


async def sources(core: Core, mounts: Sequence[MountRecord], holder: str,
                  stack: AsyncExitStack) -> tuple[MountRecord, ...]:
    """*mounts* with their sources. Volumes are held for *holder*; parts of volumes are there until *stack* ends, by
    when the container's own mounts must be made."""
    made = []
    for one in await volumedrivers.mount(core, mounts, holder):
        if one.kind == "image":
            made.append(msgspec.structs.replace(one, source=await _image(core, one, holder, stack)))
        elif one.kind == "volume" and one.subpath:
            made.append(msgspec.structs.replace(one, source=_part(core, one.source, one.subpath, stack)))
        else:
            if one.kind == "bind":
                check_bind(one, make=True)
            made.append(one)
    return tuple(made)


def check_bind(one: MountRecord, *, make: bool) -> None:
    """Refuse a bind whose source is missing; the -v form makes a directory there instead (*make*: now)."""
    if os.path.lexists(one.source):
        return
    if not one.create_source:
        raise InvalidArgument('invalid mount config for type "bind": bind source path does not exist: ' + one.source)
    if make:
        try:
            os.makedirs(one.source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise ServerError(f"error while creating mount source path '{one.source}': "
                              f"mkdir {error.filename}: {(error.strerror or '').lower()}") from error


def propagation_warning(one: MountRecord) -> str:
    """What is to be said of a bind that is to share mounts with the host where the host's own mount shares none
    (machines whose root is not shared, as systemd makes it): it works, alone. "" where there is nothing to say."""
    shared, slave = one.propagation in ("shared", "rshared"), one.propagation in ("slave", "rslave")
    if one.kind != "bind" or not (shared or slave):
        return ""
    point, tags = _mount_of(os.path.realpath(one.source))
    if "shared:" in tags or (slave and "master:" in tags):
        return ""
    kind = "shared" if shared else "shared or slave"
    return (f"path {one.source} is mounted on {point} but it is not a {kind} mount: mounts below it are not seen on "
            f"the other side; 'mount --make-rshared {point}' on the host changes that")


def _mount_of(path: str) -> tuple[str, str]:
    """The mount point that holds *path*, and what the kernel says of its propagation (proc_pid_mountinfo(5))."""
    wanted, found, tags = os.fsencode(path), b"/", b""
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            words = line.partition(b" - ")[0].split(b" ")
            point = _ESCAPE.sub(lambda digits: bytes([int(digits[1], 8)]), words[4])
            inside = wanted == point or wanted.startswith(point.rstrip(b"/") + b"/")
            if inside and len(point) >= len(found):         # of several at one place the last covers the others
                found, tags = point, b" ".join(words[6:])
    return os.fsdecode(found), tags.decode()


# --- images -----------------------------------------------------------------------------------------------------------
async def _image(core: Core, one: MountRecord, holder: str, stack: AsyncExitStack) -> str:
    """A path at which the files of an image (or *subpath* of them) are."""
    await core.trust.check(one.image, one.source)
    lower = await core.images.lowers(one.image, volumedrivers.image_holder(holder, one))
    with root_of(lower) as root:
        place = _place(core, directory=True, stack=stack)
        if len(lower) == 1:
            _mount(root, place)
        else:
            _attach(root, place)
    return _part(core, place, one.subpath, stack) if one.subpath else place


# --- parts of volumes -----------------------------------------------------------------------------------------------
def _part(core: Core, data: str, subpath: str, stack: AsyncExitStack) -> str:
    """A path at which only *subpath* of a volume is. It is a mount of what was found there by descriptor: a container
    that exchanges the path for a link at this moment wins nothing."""
    directory = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = sc.openat2(directory, subpath, os.O_PATH, resolve=_BENEATH)
    except OSError as error:
        why = "path leads out of the volume" if error.errno == errno.EXDEV else (error.strerror or "").lower()
        raise InvalidArgument(f"cannot access path {data}/{subpath}: {why}") from error
    finally:
        os.close(directory)
    try:
        place = _place(core, directory=stat.S_ISDIR(os.fstat(found).st_mode), stack=stack)
        _mount(found, place)
    finally:
        os.close(found)
    return place


def _place(core: Core, *, directory: bool, stack: AsyncExitStack) -> str:
    """Something to mount on, which goes with *stack*."""
    place = f"{core.paths.parts}/{secrets.token_hex(8)}"
    if directory:
        os.mkdir(place, 0o700)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    stack.callback(drop_part, place)
    return place


def _mount(found: int, place: str) -> None:
    tree = sc.open_tree(found, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH | sc.AT_RECURSIVE)
    try:
        _attach(tree, place)
    finally:
        os.close(tree)


def _attach(tree: int, place: str) -> None:
    point = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        sc.move_mount(tree, point)
    finally:
        os.close(point)


def drop_part(place: str) -> None:
    """Take away what :func:`sources` made for a part of a volume (or what a helper that was killed left of it)."""
    try:
        sc.umount2(place, sc.MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:           # EINVAL: nothing is mounted there
            raise
    os.rmdir(place) if os.path.isdir(place) else os.unlink(place)


def sweep_parts(core: Core) -> None:
    """What a helper that was killed between two steps has left."""
    for name in os.listdir(core.paths.parts):
        drop_part(f"{core.paths.parts}/{name}")
