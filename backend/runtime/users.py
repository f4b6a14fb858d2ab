"""Who a container's process is: ``name[:group]`` against the image's own /etc/passwd and /etc/group.

Our own bounded parser: the C library's would load NSS modules from the container, and the files are untrusted (a FIFO,
a device, a gigabyte of text). The rules are those that Docker clients know: a numeric user is looked up by number, an
explicit group replaces the supplementary groups, an unknown number is taken as it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from backend.runtime import syscalls as sc

MAX_FILE = 4 << 20
MAX_LINE = 64 << 10
MAX_ID = (1 << 31) - 1


class NoSuchUser(Exception):
    """The user or group is not known inside the rootfs and not a number; the message is meant for people."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the process becomes."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def number(text: str) -> int | None:
    """A plain decimal number, or None. Stricter than ``int()``: no sign, blank, underscore or foreign digit."""
    if not text or len(text) > 10 or not text.isascii() or not text.isdigit():
        return None
    return int(text)


def _checked(value: int) -> int:
    if not 0 <= value <= MAX_ID:
        raise NoSuchUser(f"uids and gids must be in range 0-{MAX_ID}: {value} is not")
    return value


def read_lines(root: int, path: str) -> Iterator[list[str]]:
    """The colon-separated fields of each line of a regular file inside *root*; nothing if there is no such file."""
    try:
        fd = sc.openat2(
            root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
        )
    except OSError:
        return
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        yield from _fields(fd)
    finally:
        os.close(fd)


def _fields(fd: int) -> Iterator[list[str]]:
    rest, total = b"", 0
    while total < MAX_FILE:
        chunk = os.read(fd, 64 << 10)
        total += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        if not chunk and rest:
            lines, rest = [rest], b""
        for line in lines:
            if line and len(line) <= MAX_LINE and not line.startswith(b"#"):
                yield line.decode("utf-8", "surrogateescape").strip().split(":")
        if not chunk:
            return
        if len(rest) > MAX_LINE:  # an endless line is no record; what follows it still may be
            rest = rest[-MAX_LINE - 1 :]


@dataclass(frozen=True, slots=True)
class User:
    """One line of a passwd file."""

    name: str
    uid: int
    gid: int
    home: str


def all_users(root: int) -> Iterator[User]:
    """The users of the passwd file inside *root*."""
    for fields in read_lines(root, "/etc/passwd"):
        if len(fields) >= 4 and (uid := number(fields[2])) is not None and (gid := number(fields[3])) is not None:
            yield User(fields[0], uid, gid, fields[5] if len(fields) > 5 else "")


def _groups(root: int) -> Iterator[tuple[str, int, list[str]]]:
    for fields in read_lines(root, "/etc/group"):
        if len(fields) >= 3 and (gid := number(fields[2])) is not None:
            yield fields[0], gid, fields[3].split(",") if len(fields) > 3 else []


def group_id(root: int, name: str) -> int:
    """The number of a group given by name or number (``--group-add``)."""
    wanted = number(name)
    for group, gid, _ in _groups(root):
        if gid == wanted if wanted is not None else group == name:
            return _checked(gid)
    if wanted is None:
        raise NoSuchUser(f"unable to find group {name}: no matching entries in group file")
    return _checked(wanted)


def resolve(root: int, text: str) -> Identity:
    """Resolves ``name[:group]`` (empty: root) inside the directory *root*. Raises :class:`NoSuchUser`."""
    user_part, _, group_part = text.partition(":")
    wanted = number(user_part or "0")
    match = next((u for u in all_users(root) if (u.uid == wanted if wanted is not None else u.name == user_part)), None)
    if match is None and wanted is None and user_part.isascii() and user_part.isdigit():
        raise NoSuchUser(f"uids and gids must be in range 0-{MAX_ID}: {user_part} is not")
    if match is None and wanted is None:
        raise NoSuchUser(f"unable to find user {user_part}: no matching entries in passwd file")
    uid = match.uid if match else wanted or 0
    gid = match.gid if match else 0
    groups: tuple[int, ...] = ()
    if group_part:
        gid = group_id(root, group_part)
    elif match:
        groups = tuple(g for _, g, members in _groups(root) if match.name in members and 0 <= g <= MAX_ID)
    home = (match.home if match else "") or "/"
    return Identity(_checked(uid), _checked(gid), groups, home)
