"""The headers of a tar, read without trust: POSIX ustar and pax, GNU long names. Standard library only.

Names come back cleaned to components inside the root: no empty ones, no ``.``, ``..`` never above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 512
HEADER_LIMIT = 1 << 20  # a pax header or long name beyond this is an attack, not a name
_NAME_LIMIT = 255  # NAME_MAX of one component
_WINDOW = 1 << 18
FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_XATTR = "SCHILY.xattr."


class BadTar(Exception):
    """The archive cannot be what it says; the text says why and where."""


@dataclass(slots=True)
class Entry:
    """One member. *data*: offset of its contents in the archive; *size* in bytes; *mtime* in seconds."""

    name: tuple[bytes, ...]
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    data: int
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Source:
    """Reads at offsets, through one window, so that thousands of small headers cost few system calls."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._at = 0
        self._window = b""

    def read(self, offset: int, size: int) -> bytes:
        if not self._at <= offset <= offset + size <= self._at + len(self._window):
            self._at, self._window = offset, os.pread(self.fd, max(size, _WINDOW), offset)
        start = offset - self._at
        return self._window[start : start + size]


def number(raw: bytes) -> int:
    if raw[:1] >= b"\x80":  # GNU's binary form for what octal digits cannot hold
        value = int.from_bytes(raw[1:], "big")
        return value if raw[0] == 0x80 else 0
    text = raw.strip(b"\0 ")
    if not text:
        return 0
    if not text.isdigit():
        raise BadTar(f"a number in a header is {text[:20]!r}")
    try:
        return int(text, 8)
    except ValueError as error:
        raise BadTar(f"a number in a header is {text[:20]!r}") from error


def sum_fits(header: bytes) -> bool:
    return sum(header) - sum(header[148:156]) + 8 * 32 == number(header[148:156])


def components(name: bytes) -> tuple[bytes, ...]:
    """*name* as components below the root; ``..`` goes up, but never above it. Raises :class:`BadTar`."""
    out: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not out:
                raise BadTar(f"the name {name[:100]!r} leads out of the archive")
            out.pop()
        elif part not in (b"", b"."):
            if len(part) > _NAME_LIMIT or b"\0" in part:
                raise BadTar(f"the name {name[:100]!r} cannot be a file's name")
            out.append(part)
    return tuple(out)


def pax_records(data: bytes) -> dict[str, bytes]:
    """The records of a pax header: ``LENGTH KEY=VALUE\\n``."""
    out: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise BadTar("a pax header is malformed")
        length = int(digits)
        record = data[space + 1 : at + length]
        if length <= space - at or at + length > len(data) or record[-1:] != b"\n":
            raise BadTar("a pax header is malformed")
        key, equals, value = record[:-1].partition(b"=")
        if not equals:
            raise BadTar("a pax header is malformed")
        out[key.decode("utf-8", "surrogateescape")] = value
        at += length
    return out


def _pax_number(value: bytes) -> int:
    whole = value.partition(b".")[0]
    negative = whole.startswith(b"-")
    if not whole.removeprefix(b"-").isdigit() or len(whole) > 20:
        raise BadTar(f"a pax number is {value[:30]!r}")
    return 0 if negative else int(whole)


def entries(fd: int, *, limit: int) -> Iterator[Entry]:
    """The members of the seekable tar *fd*, at most *limit*.

    Raises:
        BadTar: the archive is damaged, hostile, or uses what cannot be had (sparse files).
    """
    source = Source(fd)
    end = os.fstat(fd).st_size
    at, count = 0, 0
    pax: dict[str, bytes] = {}
    default: dict[str, bytes] = {}
    while at + BLOCK <= end:
        header = source.read(at, BLOCK)
        at += BLOCK
        if len(header) < BLOCK:
            raise BadTar("the archive ends in the middle of a header")
        if not header.strip(b"\0"):
            return
        if not sum_fits(header):
            raise BadTar(f"the header at {at - BLOCK} has a wrong checksum")
        size = number(header[124:136])
        kind = header[156:157]
        if kind in (b"x", b"g", b"L", b"K"):
            if size > HEADER_LIMIT:
                raise BadTar(f"a header of {size} bytes is refused")
            data = os.pread(fd, size, at)
            if len(data) != size:
                raise BadTar("the archive ends in the middle of a header")
            at += (size + BLOCK - 1) // BLOCK * BLOCK
            if kind == b"x":
                pax.update(pax_records(data))
            elif kind == b"g":
                default.update(pax_records(data))
            else:
                pax["path" if kind == b"L" else "linkpath"] = data.rstrip(b"\0")
            continue
        count += 1
        if count > limit:
            raise BadTar(f"the archive has more than {limit} entries")
        entry = entry_of(header, kind, size, at, {**default, **pax})
        pax = {}
        if entry.kind == FILE:
            if at + entry.size > end:
                raise BadTar(f"the archive ends in the middle of {b'/'.join(entry.name)[:100]!r}")
            at += (entry.size + BLOCK - 1) // BLOCK * BLOCK
        yield entry


def entry_of(header: bytes, kind: bytes, size: int, data: int, pax: dict[str, bytes]) -> Entry:
    if kind in (b"\0", b"7"):
        kind = FILE
    if kind == b"S" or any(key.startswith("GNU.sparse") for key in pax):
        raise BadTar("the archive has sparse files, which cannot be mapped; make it without --sparse")
    if kind not in (FILE, LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO):
        raise BadTar(f"the archive has a member of the unknown kind {kind!r}")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    name = pax.get("path", name)
    if kind == FILE and name.endswith(b"/"):
        kind = DIRECTORY  # old archives mark directories so
    uid = _pax_number(pax["uid"]) if "uid" in pax else number(header[108:116])
    gid = _pax_number(pax["gid"]) if "gid" in pax else number(header[116:124])
    mtime = _pax_number(pax["mtime"]) if "mtime" in pax else number(header[136:148])
    if max(uid, gid) > 0xFFFFFFFE:
        raise BadTar(f"the owner {uid}:{gid} is out of range")
    return Entry(
        components(name),
        kind,
        number(header[100:108]) & 0o7777,
        uid,
        gid,
        (_pax_number(pax["size"]) if "size" in pax else size) if kind == FILE else 0,
        mtime,
        data,
        pax.get("linkpath", header[157:257].partition(b"\0")[0]),
        (number(header[329:337]), number(header[337:345])) if kind in (CHAR, BLOCK_DEVICE) else (0, 0),
        _xattrs(pax),
    )


def _xattrs(pax: dict[str, bytes]) -> dict[bytes, bytes]:
    """What a layer may set: file capabilities and user attributes; never marks of overlayfs or security modules."""
    found = {}
    for key, value in pax.items():
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :].encode("utf-8", "surrogateescape")
            if name == b"security.capability" or name.startswith((b"user.", b"system.posix_acl_")):
                found[name] = value
    return found
