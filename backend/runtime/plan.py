"""From the OCI bundle to a typed plan of what the child does to its root file system. Decides, touches nothing.

Everything is computed before the fork: the child only carries out, in order, the operations listed here
(:mod:`backend.runtime.rootfs`). Options follow mount(8) and the runtime-spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

from backend.runtime import syscalls as sc


class BadConfig(Exception):
    """The bundle asks for something that cannot be; the message is meant for people."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """The layers of a root file system; *lower* topmost first, absolute paths. *volatile*: what is written need not
    outlive a crash of the machine, so nothing waits for the disk (overlayfs.rst, "Volatile mount")."""

    lower: tuple[str, ...]
    upper: str
    work: str
    volatile: bool = False


@dataclass(frozen=True, slots=True)
class FsMount:
    """A fresh file system (tmpfs, proc, devpts ...) at *target*."""

    kind: str
    source: str
    target: str
    flags: int
    data: str
    copy_up: bool = False

    def describe(self) -> str:
        """One line for the log."""
        return f"mount {self.kind} on {self.target} ({self.data})"


@dataclass(frozen=True, slots=True)
class BindMount:
    """A part of the host at *target*. Attributes are added and removed; those of the source otherwise stay."""

    source: str
    target: str
    recursive: bool
    add: int
    remove: int
    recursive_attributes: bool
    propagation: int
    propagation_recursive: bool
    idmap: bool = False  # seen with the container's IDs, where it has a user namespace

    def describe(self) -> str:
        """One line for the log."""
        return f"bind {self.source} on {self.target}"


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """The container's view of its own cgroups; the layout depends on the host (v1 hybrid or v2)."""

    target: str
    read_only: bool

    def describe(self) -> str:
        """One line for the log."""
        return f"cgroup on {self.target}"


MountOp = FsMount | BindMount | CgroupMount


@dataclass(frozen=True, slots=True)
class Device:
    """A device node."""

    path: str
    kind: int  # stat.S_IFCHR | S_IFBLK | S_IFIFO
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


_S_IFCHR, _S_IFBLK, _S_IFIFO = 0o020000, 0o060000, 0o010000

# The runtime-spec's default devices.
DEFAULT_DEVICES = tuple(
    Device(f"/dev/{name}", _S_IFCHR, major, minor, 0o666, 0, 0)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
DEV_LINKS = (
    ("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0"), ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"), ("/dev/ptmx", "pts/ptmx"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RootPlan:
    """All that happens to the root file system."""

    path: str  # directory that becomes the root
    overlay: Overlay | None
    read_only: bool
    propagation: int  # of the whole tree while it is prepared
    mounts: tuple[MountOp, ...]
    devices: tuple[Device, ...]
    masked: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...]
    console: bool

    def describe(self) -> list[str]:
        """The plan as text, one operation a line."""
        lines = [f"overlay of {len(self.overlay.lower)} layers on {self.path}" if self.overlay else f"root {self.path}"]
        lines += [m.describe() for m in self.mounts]
        lines += [f"mknod {d.path}" for d in self.devices]
        return lines + [f"mask {p}" for p in self.masked] + [f"read-only {p}" for p in self.readonly_paths]


# option -> (mount(2) flag, MOUNT_ATTR to add, MOUNT_ATTR to remove)
_FLAGS: dict[str, tuple[int, int, int]] = {
    "ro": (sc.MS_RDONLY, sc.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, 0, sc.MOUNT_ATTR_RDONLY),
    "nosuid": (sc.MS_NOSUID, sc.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, 0, sc.MOUNT_ATTR_NOSUID),
    "nodev": (sc.MS_NODEV, sc.MOUNT_ATTR_NODEV, 0),
    "dev": (0, 0, sc.MOUNT_ATTR_NODEV),
    "noexec": (sc.MS_NOEXEC, sc.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, 0, sc.MOUNT_ATTR_NOEXEC),
    "noatime": (1 << 10, sc.MOUNT_ATTR_NOATIME, sc.MOUNT_ATTR__ATIME),
    "nodiratime": (1 << 11, sc.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, 0, sc.MOUNT_ATTR_NODIRATIME),
    "relatime": (1 << 21, sc.MOUNT_ATTR_RELATIME, sc.MOUNT_ATTR__ATIME),
    "strictatime": (1 << 24, sc.MOUNT_ATTR_STRICTATIME, sc.MOUNT_ATTR__ATIME),
    "nosymfollow": (1 << 8, sc.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "sync": (16, 0, 0), "async": (0, 0, 0), "dirsync": (128, 0, 0), "mand": (64, 0, 0), "nomand": (0, 0, 0),
    "silent": (1 << 15, 0, 0), "loud": (0, 0, 0), "defaults": (0, 0, 0), "atime": (0, 0, 0), "norelatime": (0, 0, 0),
}  # fmt: skip
_RECURSIVE = {
    "rro": "ro",
    "rrw": "rw",
    "rnosuid": "nosuid",
    "rnodev": "nodev",
    "rnoexec": "noexec",
    "rnosymfollow": "nosymfollow",
}
PROPAGATION: dict[str, tuple[int, bool]] = {
    "shared": (sc.MS_SHARED, False), "rshared": (sc.MS_SHARED, True),
    "slave": (sc.MS_SLAVE, False), "rslave": (sc.MS_SLAVE, True),
    "private": (sc.MS_PRIVATE, False), "rprivate": (sc.MS_PRIVATE, True),
    "unbindable": (sc.MS_UNBINDABLE, False), "runbindable": (sc.MS_UNBINDABLE, True),
}  # fmt: skip
_KINDS = {
    "proc",
    "tmpfs",
    "devpts",
    "mqueue",
    "sysfs",
    "cgroup",
    "cgroup2",
    "bind",
    "none",
    "ramfs",
    "hugetlbfs",
    "nfs",
    "nfs4",
    "cifs",
    "ext4",
    "xfs",
    "btrfs",
    "overlay",
    "debugfs",
    "tracefs",
    "bpf",
    "fuse",
    "iso9660",
    "vfat",
}


def _mount(entry: dict[str, Any]) -> MountOp:
    target = entry.get("destination")
    if not isinstance(target, str) or not target.startswith("/") or "\0" in target:
        raise BadConfig(f"mount destination {target!r} is not an absolute path")
    options = [str(o) for o in entry.get("options") or []]
    kind = str(entry.get("type") or "")
    bind = "bind" in options or "rbind" in options or kind == "bind"
    if kind in ("cgroup", "cgroup2") and not bind:
        return CgroupMount(target, "ro" in options)
    if not bind and kind not in _KINDS:
        raise BadConfig(f"file system type {kind!r} of mount {target} is not supported")
    return _bind(entry, target, options) if bind else _fresh(entry, kind, target, options)


def _fresh(entry: dict[str, Any], kind: str, target: str, options: list[str]) -> FsMount:
    flags, data, copy_up = 0, [], False
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option][0]
        elif option == "tmpcopyup":
            copy_up = True
        elif option not in PROPAGATION:
            data.append(option)
    return FsMount(kind, str(entry.get("source") or kind), target, flags, ",".join(data), copy_up)


def _bind(entry: dict[str, Any], target: str, options: list[str]) -> BindMount:
    source = entry.get("source")
    if not isinstance(source, str) or not source or "\0" in source:
        raise BadConfig(f"bind mount on {target} has no source")
    add = remove = 0
    recursive_attributes = False
    propagation, propagation_recursive = sc.MS_PRIVATE, True
    idmap = "idmap" in options or "ridmap" in options
    for option in options:
        plain = _RECURSIVE.get(option, option)
        recursive_attributes |= plain is not option and option in _RECURSIVE
        if plain in _FLAGS:
            add |= _FLAGS[plain][1]
            remove |= _FLAGS[plain][2]
        elif option in PROPAGATION:
            propagation, propagation_recursive = PROPAGATION[option]
    return BindMount(
        source,
        target,
        "rbind" in options,
        add,
        remove & ~add if not add & sc.MOUNT_ATTR__ATIME else remove,
        recursive_attributes,
        propagation,
        propagation_recursive,
        idmap,
    )


def bind_mounts(entries: list[dict[str, Any]]) -> tuple[BindMount, ...]:
    """OCI mounts that are all binds. Raises :class:`BadConfig`."""
    found = []
    for entry in entries:
        one = _mount(entry)
        if not isinstance(one, BindMount):
            raise BadConfig(f"the mount on {one.target} is no bind mount")
        found.append(one)
    return tuple(found)


def device(entry: dict[str, Any]) -> Device:
    """One entry of OCI ``linux.devices``."""
    kinds = {"c": _S_IFCHR, "u": _S_IFCHR, "b": _S_IFBLK, "p": _S_IFIFO}
    path = entry.get("path")
    if not isinstance(path, str) or not path.startswith("/") or entry.get("type") not in kinds:
        raise BadConfig(f"device {path!r} is not understood")
    mode = entry.get("fileMode")
    return Device(
        path,
        kinds[entry["type"]],
        int(entry.get("major") or 0),
        int(entry.get("minor") or 0),
        int(mode) & 0o7777 if mode is not None else 0o666,
        int(entry.get("uid") or 0),
        int(entry.get("gid") or 0),
    )


_SYSCTL = re.compile(r"[A-Za-z0-9_\-./]+")


def _sysctls(linux: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    result = []
    for key, value in (linux.get("sysctl") or {}).items():
        if not _SYSCTL.fullmatch(key) or ".." in key or key.startswith("/"):
            raise BadConfig(f"sysctl {key!r} is not a valid name")
        # "net.ipv4.conf.eth0/1.x": a slash stands for a dot of a name.
        result.append((key.translate(str.maketrans("./", "/.")), str(value)))
    return tuple(result)


class Maps(Protocol):
    """Which IDs of the host a container's are (:class:`backend.runtime.userns.IdMaps`)."""

    def uid(self, inside: int) -> int: ...
    def gid(self, inside: int) -> int: ...


def _shifted(op: MountOp, maps: Maps) -> MountOp:
    """A fresh file system's owner as the host numbers it."""
    if not isinstance(op, FsMount):
        return op
    data = []
    for option in op.data.split(","):
        name, _, value = option.partition("=")
        if name in ("uid", "gid") and value.isdecimal():
            option = f"{name}={maps.uid(int(value)) if name == 'uid' else maps.gid(int(value))}"
        data.append(option)
    return replace(op, data=",".join(data))


def root_plan(
    config: dict[str, Any], bundle: str, overlay: Overlay | None, *, tty: bool, maps: Maps | None = None
) -> RootPlan:
    """The plan of *config* (OCI), of a container with its own IDs if *maps* are given. Raises :class:`BadConfig`."""
    linux = config.get("linux") or {}
    root = config.get("root") or {}
    path = f"{bundle}/rootfs" if overlay else str(root.get("path") or "rootfs")
    if not path.startswith("/"):
        path = f"{bundle}/{path}"
    propagation = str(linux.get("rootfsPropagation") or "rslave")
    if propagation not in PROPAGATION:
        raise BadConfig(f"rootfsPropagation {propagation!r} is not known")
    mounts = tuple(_mount(m) for m in config.get("mounts") or [])
    given = tuple(device(d) for d in linux.get("devices") or [])
    if maps is not None:
        mounts = tuple(_shifted(one, maps) for one in mounts)
        given = tuple(replace(one, uid=maps.uid(one.uid), gid=maps.gid(one.gid)) for one in given)
        if PROPAGATION[propagation][0] == sc.MS_SHARED:
            raise BadConfig("a mount that is shared with the host needs --userns=host")
    has_dev = any(isinstance(m, FsMount) and m.target == "/dev" for m in mounts)
    taken = {d.path for d in given}
    defaults = tuple(d for d in DEFAULT_DEVICES if d.path not in taken) if has_dev else ()
    return RootPlan(
        path,
        overlay,
        bool(root.get("readonly")),
        PROPAGATION[propagation][0],
        mounts,
        defaults + given,
        tuple(linux.get("maskedPaths") or []),
        tuple(linux.get("readonlyPaths") or []),
        _sysctls(linux),
        tty and has_dev,
    )
