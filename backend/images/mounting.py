"""Mounts of EROFS pairs (index + tar): from files where the kernel can (6.12), through loop devices before that."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from pathlib import Path

from backend.runtime import syscalls

log = logging.getLogger(__name__)
# Nothing in a layer's own mount may be used by itself: containers see it through their overlay, whose flags count.
_ATTRIBUTES = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4  # LO_FLAGS_*: the device goes when its mount does
_INFO = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
_ATTEMPTS = 16


def mount_pair(index: str, tar: str, target: str, *, loop: bool) -> None:
    """Mount *index*, whose files' data lie in *tar*, on *target*. Raises OSError.

    The new mount interface is used because it takes any path: mount(2) ends an option at a comma.
    """
    devices: list[int] = []
    try:
        if loop:
            index, tar = (_loop(path, devices) for path in (index, tar))
        context = syscalls.fsopen("erofs")
        try:
            syscalls.fsconfig_string(context, "source", index)
            syscalls.fsconfig_string(context, "device", tar)
            syscalls.fsconfig_flag(context, "ro")
            syscalls.fsconfig_create(context)
            made = syscalls.fsmount(context, _ATTRIBUTES)
        finally:
            os.close(context)
        try:
            at = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.move_mount(made, at)
            finally:
                os.close(at)
        finally:
            os.close(made)
    finally:
        for device in devices:  # the mount holds them from here on; without one they are cleared
            os.close(device)


def _loop(path: str, devices: list[int]) -> str:
    """A read-only loop device over the file *path*; its descriptor is added to *devices*."""
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _READ_ONLY | _AUTOCLEAR, os.fsencode(path)[-63:], b"", b"", 0, 0)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, struct.pack("=II", backing, 512) + info + bytes(64))
            except OSError as error:
                os.close(device)
                if error.errno == errno.EBUSY:  # somebody else took it between the two calls
                    continue
                raise
            devices.append(device)
            return name
        raise OSError(errno.EBUSY, "no free loop device")
    finally:
        os.close(control)
        os.close(backing)


def unmount_below(root: str) -> None:
    """Detach every mount under the folder *root*: what a helper that was killed has left.

    One that cannot be detached is told in the log and stays: what is mounted there from now on lies above it.
    """
    hidden = [at for at in sorted(_mounts_below(root), key=len, reverse=True) if _detach(at)]
    for at in hidden:                      # what hid it may have been among those that are gone now
        if error := _detach(at):
            log.warning("the mount at %s is left where it is, it cannot be detached: %s (does another mount hide it?)",
                        at, error.strerror)


def _detach(at: str) -> OSError | None:
    """Detach the mount at *at*, or say why not."""
    try:
        syscalls.umount2(at, syscalls.MNT_DETACH)
    except OSError as error:
        return error
    return None


def unmount(at: str) -> None:
    """Detach the mount at *at*; containers hold it by their overlays until the last of them ends."""
    try:
        syscalls.umount2(at, syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted: what was wanted
            raise


def _mounts_below(root: str) -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        at = os.fsdecode(line.split(b" ", 5)[4].decode("unicode_escape").encode("latin-1"))
        if at.startswith(root + "/"):
            found.append(at)
    return found
