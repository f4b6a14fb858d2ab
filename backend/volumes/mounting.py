"""Volumes of the local driver that are mounts: the options type, device and o, as Docker has them.

The options are the user's, who may mount whatever he likes on this machine anyway (docs/security.md); a password among
them is in no error and no log.
"""

from __future__ import annotations

import errno
import os
import re
import socket

from backend.errors import InvalidArgument, ServerError
from backend.runtime import syscalls as sc

_KNOWN = ("type", "o", "device", "size")
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_SET = {
    "ro": sc.MS_RDONLY, "nosuid": sc.MS_NOSUID, "nodev": sc.MS_NODEV, "noexec": sc.MS_NOEXEC, "sync": 16, "remount": 32,
    "mand": 64, "dirsync": 128, "noatime": 1 << 10, "nodiratime": 1 << 11, "bind": sc.MS_BIND,
    "rbind": sc.MS_BIND | sc.MS_REC, "relatime": 1 << 21, "strictatime": 1 << 24}
_CLEAR = {"rw": sc.MS_RDONLY, "suid": sc.MS_NOSUID, "dev": sc.MS_NODEV, "exec": sc.MS_NOEXEC, "async": 16, "nomand": 64,
          "atime": 1 << 10, "diratime": 1 << 11, "norelatime": 1 << 21, "nostrictatime": 1 << 24, "defaults": 0}
_PROPAGATION = {
    "private": sc.MS_PRIVATE, "rprivate": sc.MS_PRIVATE | sc.MS_REC, "shared": sc.MS_SHARED,
    "rshared": sc.MS_SHARED | sc.MS_REC, "slave": sc.MS_SLAVE, "rslave": sc.MS_SLAVE | sc.MS_REC,
    "unbindable": sc.MS_UNBINDABLE, "runbindable": sc.MS_UNBINDABLE | sc.MS_REC}
_SECRET = re.compile(r"((?:^|,)(?:password|pass|passwd)=)[^,]*")


def check(name: str, options: dict[str, str]) -> None:
    """Raise :class:`InvalidArgument` for options that no volume can have, in Docker's words."""
    for key in options:
        if key not in _KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{key}"')
    if options.get("size"):
        raise InvalidArgument(f"create {name}: quota size requested but no quota support")
    for key, needed in _NEEDS.items():
        for other in needed:
            if key in options and other not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')


def wanted(options: dict[str, str]) -> bool:
    """Whether a volume with these options is a mount, not a directory of ours."""
    return bool(options.get("device") or options.get("type"))


def mount(options: dict[str, str], target: str) -> None:
    """Mount what *options* say on the directory *target*. Blocks. Raises :class:`ServerError` in Docker's words."""
    device, kind = options.get("device", ""), options.get("type", "")
    text = options.get("o", "")
    try:
        flags, propagation, data = _flags(_resolved(kind, text))
        sc.mount(device, target, kind or None, flags, data or None)
        if flags & sc.MS_BIND and flags & ~(sc.MS_BIND | sc.MS_REC):    # a bind takes its flags in a second step
            sc.mount(None, target, None, flags | sc.MS_REMOUNT)
        if propagation:
            sc.mount(None, target, None, propagation)
    except OSError as error:
        shown = _SECRET.sub(r"\1********", text)
        why = (error.strerror or str(error)).lower()
        raise ServerError(f"error while mounting volume '{target}': failed to mount local volume: mount "
                          f"{device}:{target}, data: {shown}: {why}") from error


def _flags(text: str) -> tuple[int, int, str]:
    """The flags of mount(2), the propagation, and what is the file system's own."""
    flags = propagation = 0
    data = []
    for option in filter(None, text.split(",")):
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEAR:
            flags &= ~_CLEAR[option]
        elif option in _PROPAGATION:
            propagation = _PROPAGATION[option]
        else:
            data.append(option)
    return flags, propagation, ",".join(data)


def _resolved(kind: str, text: str) -> str:
    """The options with the name of a server made an address: the kernel knows no names."""
    found = re.search(r"(?:^|,)addr=([^,]+)", text)
    if kind not in ("nfs", "nfs4", "cifs") or found is None:
        return text
    try:
        address = socket.getaddrinfo(found[1], None, type=socket.SOCK_STREAM)[0][4][0]
    except socket.gaierror as error:
        raise OSError(errno.EHOSTUNREACH, f"the address {found[1]} is not known: {error.strerror}") from error
    return text.replace(f"addr={found[1]}", f"addr={address}", 1)


def unmount(target: str) -> None:
    """Take the mount off *target*; one that is busy goes when its last user does."""
    try:
        sc.umount2(target)
    except OSError as error:
        if error.errno == errno.EBUSY:
            sc.umount2(target, sc.MNT_DETACH)
        elif error.errno not in (errno.EINVAL, errno.ENOENT):     # it is not mounted: what was wanted
            raise


def mounted(target: str) -> bool:
    """Whether something is mounted on the directory *target*, whose parent is ours."""
    # By the table: a look at the directory itself would wait for a server that does not answer.
    with open("/proc/self/mountinfo", "rb") as table:
        places = {line.split(b" ", 5)[4] for line in table}
    return os.fsencode(target).replace(b"\\", b"\\134").replace(b" ", b"\\040") in places
