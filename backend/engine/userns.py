"""User namespaces of containers: what was asked for, and a range of the host's IDs for each that no other has.

A range belongs to its container from the create to the remove and is kept in its record; which ranges are taken is
read from the records, so nothing can be forgotten or given twice. What a container leaves on disk has its own IDs (see
:mod:`backend.runtime.userns`), so that a freed range may be given to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from backend.engine.record import IdRange
from backend.errors import InvalidArgument, NotImplemented_, ServerError
from backend.spec import api

SIZE = 65536
_TOP = 1 << 31
#: Where ranges come from when /etc/subuid names nobody: what systemd's table of IDs leaves free for such use.
FREE = (1879048192, 2147352576 - 1879048192)


@dataclass(frozen=True, slots=True)
class Wish:
    """A namespace of its own. `size`: how many IDs; `keep_uid`, `keep_gid`: IDs that are the same inside and outside,
    -1 for none."""

    size: int = SIZE
    keep_uid: int = -1
    keep_gid: int = -1


def wish(host: api.HostConfig, default: str) -> Wish | None:
    """What a container asked for, by --userns or `--security-opt userns=` (the docker client refuses the former for
    all but "host"); *default*: what those get that ask for nothing. None: the host's namespace."""
    text = host.userns_mode
    for option in host.security_opt or ():
        name, _, value = option.partition("=")
        if name == "userns":
            if text not in ("", value):
                raise InvalidArgument(f"--userns={text} and --security-opt {option} contradict each other")
            text = value
    return _parse(text or default)


def _parse(text: str) -> Wish | None:
    kind, _, rest = text.partition(":")
    words = dict(word.partition("=")[::2] for word in rest.split(",") if word)
    known = {"host": set(), "": set(), "auto": {"size"}, "private": {"size"}, "keep-id": {"size", "uid", "gid"}}
    if kind not in known or set(words) - known[kind] or not all(_number(value) for value in words.values()):
        raise InvalidArgument(f"invalid user namespace mode {text!r}: it is host, auto[:size=N] or "
                              "keep-id:uid=N[,gid=N][,size=N]")
    if kind in ("", "host"):
        return None
    size = int(words.get("size", SIZE))
    uid = int(words.get("uid", -1))
    gid = int(words.get("gid", uid))
    if kind == "keep-id" and uid < 0:
        raise InvalidArgument("keep-id needs to know whose ID to keep: keep-id:uid=1000,gid=1000")
    if not max(uid, gid, 0) < size <= _TOP >> 3 or (kind == "keep-id" and 0 in (uid, gid)):
        raise InvalidArgument(f"invalid user namespace mode {text!r}: a size must hold the IDs that are kept, and "
                              "root's cannot be")
    return Wish(size, uid, gid)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11


def check(host: api.HostConfig, chosen: Wish | None, *, builtin: bool) -> None:
    """Refuse what a container cannot have in a user namespace of its own, in Docker's words where it has some."""
    if chosen is None:
        if any("idmap" in (text.rpartition(":")[2]).split(",") for text in host.binds or ()):
            raise InvalidArgument("the mount option idmap needs a user namespace of the container's own "
                                  "(--userns=auto)")
        return
    refusals = (
        (host.privileged, "privileged mode is incompatible with user namespaces.  You must run the container in the "
                          "host namespace when running privileged mode"),
        (host.network_mode == "host", "cannot share the host's network namespace when user namespaces are enabled"),
        (host.pid_mode == "host", "cannot share the host PID namespace when user namespaces are enabled"))
    for bad, text in refusals:
        if bad:
            raise InvalidArgument(text)
    if not builtin:
        raise NotImplemented_(f"user namespaces need the built-in runtime; with {host.runtime} say --userns=host")


def mappings(ids: IdRange, kept: int) -> list[dict[str, int]]:
    """A range in OCI's form; the ID *kept* is the same on both sides (-1: none is)."""
    if kept < 0:
        return [_row(0, ids.start, ids.size)]
    rows = [_row(0, ids.start, kept), _row(kept, kept, 1), _row(kept + 1, ids.start + kept + 1, ids.size - kept - 1)]
    return [one for one in rows if one["size"]]


def _row(inside: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": size}


# --- ranges ---------------------------------------------------------------------------------------------------------
def pool(user: str, subuid: str, subgid: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where ranges may be taken, and what others have of it, as (start, count). *subuid*, *subgid*: the files' texts.

    A user named in both with the same range gives that; else it is the space that nobody uses by convention.
    """
    uids, gids = list(_lines(subuid)), list(_lines(subgid))
    own = [(start, count) for name, start, count in uids if name == user and (name, start, count) in gids]
    others = [(start, count) for name, start, count in (*uids, *gids) if name != user]
    if user and not own and user != "slipway":
        raise InvalidArgument(f"user {user} has no range of IDs that is the same in /etc/subuid and /etc/subgid")
    return own or [FREE], others


def _lines(text: str) -> Iterator[tuple[str, int, int]]:
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if name and not name.startswith("#") and _number(start) and _number(count.strip()):
            yield name, int(start), int(count)


class IdRanges:
    """Gives ranges out. Which are taken is asked of the records each time."""

    def __init__(self, spaces: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> None:
        self._spaces = list(spaces)
        self._others = list(others)
        self._pending: list[IdRange] = []

    @contextmanager
    def claim(self, chosen: Wish | None, taken: Sequence[IdRange]) -> Iterator[IdRange | None]:
        """A range that is nobody's, until the end of the block by when its record must be among the others.

        Raises :class:`ServerError` when there is none.
        """
        if chosen is None:
            yield None
            return
        used = [(one.start, one.size) for one in (*taken, *self._pending)] + self._others
        made = IdRange(start=self._find(chosen.size, used), size=chosen.size, keep_uid=chosen.keep_uid,
                       keep_gid=chosen.keep_gid)
        self._pending.append(made)
        try:
            yield made
        finally:
            self._pending.remove(made)

    def _find(self, size: int, used: Sequence[tuple[int, int]]) -> int:
        blocked = sorted(used)
        for first, count in self._spaces:
            at = first
            for start, length in blocked:
                if start < at + size and at < start + length:
                    at = start + length
            if at + size <= first + count:
                return at
        raise ServerError(f"no {size} IDs are free for another user namespace; remove containers, give this engine "
                          "more in /etc/subuid and /etc/subgid (user slipway), or say --userns=host")
