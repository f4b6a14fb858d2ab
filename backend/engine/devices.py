"""The host's devices that containers ask for, looked up when they start."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from backend.engine.spec import HostDevice
from backend.errors import InvalidArgument, ServerError
from backend.spec import api

#: What of the host's /dev a privileged container gets from its own mounts instead.
_OWN = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console", "ptmx", "null", "zero",
                  "full", "random", "urandom", "tty", "stdin", "stdout", "stderr", "core"})


def _describe(path: str, inside: str, access: str) -> HostDevice:
    found = os.stat(path)
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise ServerError(f'error gathering device information while adding custom device "{path}": not a device node')
    return HostDevice(path=inside, kind="c" if stat.S_ISCHR(found.st_mode) else "b", major=os.major(found.st_rdev),
                      minor=os.minor(found.st_rdev), mode=stat.S_IMODE(found.st_mode), uid=found.st_uid,
                      gid=found.st_gid, access=access)


def _below(directory: str, skip: frozenset[str] = frozenset()) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in skip:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path)
            elif not entry.is_symlink():
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    yield entry.path


def wanted(host: api.HostConfig) -> tuple[HostDevice, ...]:
    """The devices of a container: those it names, or all of them for a privileged one.

    Raises :class:`ServerError` for one that is not there, as dockerd does at the start.
    """
    if host.privileged:
        return tuple(_describe(path, path, "rwm") for path in _below("/dev", _OWN))
    made: list[HostDevice] = []
    for one in host.devices:
        inside = one.path_in_container or one.path_on_host
        access = one.cgroup_permissions or "rwm"
        if set(access) - set("rwm"):
            raise InvalidArgument(f"invalid device mode: {access}")
        try:
            if os.path.isdir(one.path_on_host):
                made += [_describe(path, inside + path.removeprefix(one.path_on_host), access)
                         for path in _below(one.path_on_host)]
            else:
                made.append(_describe(one.path_on_host, inside, access))
        except OSError as error:
            raise ServerError(f'error gathering device information while adding custom device "{one.path_on_host}": '
                              f'{(error.strerror or "").lower()}') from error
    return tuple(made)


_THROTTLES = (("throttleReadBpsDevice", "blkio_device_read_bps"), ("throttleWriteBpsDevice", "blkio_device_write_bps"),
              ("throttleReadIOPSDevice", "blkio_device_read_iops"),
              ("throttleWriteIOPSDevice", "blkio_device_write_iops"))


def throttles(host: api.HostConfig) -> dict[str, list[dict[str, int]]]:
    """The block I/O limits of single devices, as OCI `blockIO` has them. Raises :class:`ServerError` for a device that
    is not there, as dockerd does at the start."""
    made = {}
    for name, attribute in _THROTTLES:
        entries = [{**_number(one.path), "rate": one.rate} for one in getattr(host, attribute)]
        if entries:
            made[name] = entries
    weights = [{**_number(one.path), "weight": one.weight} for one in host.blkio_weight_device]
    return {**made, "weightDevice": weights} if weights else made


def _number(path: str) -> dict[str, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise ServerError(f"stat {path}: {(error.strerror or '').lower()}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise ServerError(f"{path} is not a block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
