"""User namespaces: who a container's IDs are outside, and how such a namespace comes to be.

A container with one is put together by the host's root as any other, because overlay, devices and the files of the
engine are his to mount; what appears inside is made with the file system IDs of the container's root (``fsuid``), and
layers, volumes and the engine's own files are mounted with their IDs shifted (id-mapped), so that what is on disk are
the container's IDs. The process enters the namespace last, before it becomes what the container asked for. A process
with Python in it is never traceable from inside: its memory belongs to the host's user namespace.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Any, NoReturn

from backend.runtime import syscalls as sc
from backend.runtime.plan import BadConfig

Ranges = tuple[tuple[int, int, int], ...]  # (inside, outside, count)
_MAX_RANGES = 16
_TOP = 0xFFFFFFFE


@dataclass(frozen=True, slots=True)
class IdMaps:
    """Which IDs of the host a container's are."""

    uids: Ranges
    gids: Ranges

    def uid(self, inside: int) -> int:
        """Who user *inside* is on the host. Raises :class:`BadConfig`."""
        return _outside(self.uids, inside, "user")

    def gid(self, inside: int) -> int:
        """As :meth:`uid` for groups."""
        return _outside(self.gids, inside, "group")


def _outside(ranges: Ranges, inside: int, what: str) -> int:
    for first, outside, count in ranges:
        if first <= inside < first + count:
            return outside + inside - first
    raise BadConfig(f"{what} {inside} is outside of the container's ID range; --userns=host has all of them")


def id_maps(linux: dict[str, Any]) -> IdMaps | None:
    """``uidMappings`` and ``gidMappings`` of OCI ``linux``, None without. Raises :class:`BadConfig`."""
    if not linux.get("uidMappings") and not linux.get("gidMappings"):
        return None
    return IdMaps(_ranges(linux.get("uidMappings")), _ranges(linux.get("gidMappings")))


def _ranges(entries: object) -> Ranges:
    if not isinstance(entries, list) or not 0 < len(entries) <= _MAX_RANGES:
        raise BadConfig(f"an ID mapping has 1 to {_MAX_RANGES} ranges")
    made = tuple(_range(entry) for entry in entries)
    if not any(first == 0 for first, _, _ in made):
        raise BadConfig("an ID mapping must map 0: a container without a root cannot be put together")
    return made


def _range(entry: object) -> tuple[int, int, int]:
    numbers = [entry.get(name) for name in ("containerID", "hostID", "size")] if isinstance(entry, dict) else []
    first, outside, count = (n if type(n) is int and 0 <= n <= _TOP else -1 for n in numbers or (-1, -1, -1))
    if min(first, outside) < 0 or count <= 0 or max(first, outside) + count > _TOP:
        raise BadConfig(f"ID range {entry!r} is out of bounds")
    return first, outside, count


# --- making one -----------------------------------------------------------------------------------------------------
def make(maps: IdMaps) -> tuple[int, int]:
    """Descriptors of a user namespace with *maps*, and of a network namespace that belongs to it, with lo up.

    The namespaces need a process to be born; it holds nothing, and is gone when this returns. OSError if it fails.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made: list[int] = []
    pid, pidfd = -1, -1
    try:
        pid, pidfd = sc.clone3(sc.CLONE_NEWUSER | sc.CLONE_NEWNET)
        if pid == 0:
            _hold(theirs)
        theirs.close()
        if ours.recv(1) != b"1":
            raise OSError(errno.EIO, "the process of a new user namespace has died")
        for name, ranges in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            _write(f"/proc/{pid}/{name}", "".join(f"{a} {b} {c}\n" for a, b, c in ranges))
        made += [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
        return made[0], made[1]
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    finally:
        ours.close()
        if pid != 0:
            theirs.close()
        if pidfd >= 0:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)  # our end is closed: it leaves
            os.close(pidfd)


def _hold(sync: socket.socket) -> NoReturn:
    try:
        sc.close_all_but({sync.fileno()})
        sc.loopback_up()
        sync.send(b"1")
        sync.recv(1)
    finally:
        os._exit(0)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# --- in the child ---------------------------------------------------------------------------------------------------
def act_as_root_of(maps: IdMaps) -> None:
    """What this process makes from now on belongs to the container's root; it may still do all that it could."""
    effective, permitted, inheritable = sc.capget()
    sc.setfsids(maps.uid(0), maps.gid(0))
    sc.capset(effective, permitted, inheritable)  # leaving fsuid 0 takes the file capabilities away


def enter(namespace: int, kinds: int) -> None:
    """Joins the user namespace of *namespace* (a descriptor, or a process's with *kinds*), all capabilities in it."""
    sc.setns(namespace, kinds)
    os.close(namespace)


def own_mounts() -> None:
    """A mount namespace that belongs to the user namespace; what hides parts of the tree is locked in place."""
    sc.unshare(sc.CLONE_NEWNS)
