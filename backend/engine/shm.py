"""The shared memory of containers that let others into their IPC namespace (`--ipc shareable`).

POSIX shared memory is a tmpfs, which no namespace carries along: so it is mounted where both containers can have it
bound, in the engine's own folder, for as long as the container that owns it is there.
"""

from __future__ import annotations

import os

from backend.engine.paths import Paths
from backend.errors import ServerError
from backend.runtime import syscalls as sc


def place(paths: Paths, identity: str) -> str:
    """Where the shared memory of a container is."""
    return f"{paths.exec_root}/shm/{identity}"


def provide(paths: Paths, identity: str, size: int) -> str:
    """Mount it if it is not there; its place. Raises :class:`ServerError`."""
    at = place(paths, identity)
    try:
        os.makedirs(at, mode=0o700, exist_ok=True)
        if not os.path.ismount(at):
            flags = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
            sc.mount("shm", at, "tmpfs", flags, f"mode=1777,size={size}")
    except OSError as error:
        raise ServerError(f"shared memory of container {identity[:12]}: {error.strerror}") from error
    return at


def withdraw(paths: Paths, identity: str) -> None:
    """Unmount and remove it. A container that still uses it keeps it until it ends."""
    at = place(paths, identity)
    if not os.path.isdir(at):
        return
    if os.path.ismount(at):
        sc.umount2(at, sc.MNT_DETACH)
    os.rmdir(at)


def known(paths: Paths) -> list[str]:
    """IDs of the containers that have one."""
    try:
        return os.listdir(f"{paths.exec_root}/shm")
    except FileNotFoundError:
        return []
