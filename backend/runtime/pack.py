"""A tar out of a tree: what a copy out of a container, an export, a commit and a volume's backup send.

Runs in a confined child on files that somebody else writes at the same time: every name is opened beneath a directory
that is held open, no link is followed, only regular files are opened, and a file that shrinks or grows meanwhile is
filled up or cut, since its header has gone out before it. Memory does not grow with the tree: names come in batches,
bodies go from the file to the pipe within the kernel. Only hard links are remembered. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from backend.runtime import syscalls as sc
from backend.runtime.erofs import OPAQUE, WHITEOUT
from backend.runtime.tarstream import BLOCK, BLOCK_DEVICE, CHAR, DIRECTORY, FIFO, FILE, LINK, SYMLINK

_FLUSH = 1 << 18
_SMALL = 1 << 16  # files up to here are read and collected; larger ones are sent by the kernel
_SEND = 1 << 24
_BATCH = 1 << 16  # names of one directory that are sorted together
_DEPTH_LIMIT = 1024
_ZEROS = memoryview(bytes(1 << 20))
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENXIO, errno.ELOOP, errno.ENOTDIR, errno.ESTALE)
_NO_XATTRS = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA)
_NODES = {stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCK_DEVICE, stat.S_IFIFO: FIFO}
#: File systems whose files are the kernel's, not the container's: proc, sysfs, cgroup 1 and 2, devpts, mqueue,
#: debugfs, tracefs, securityfs, bpf, pstore, configfs, efivarfs, selinuxfs, binfmt_misc.
PSEUDO = frozenset((
    sc.PROC_SUPER_MAGIC, sc.SYSFS_MAGIC, sc.CGROUP_SUPER_MAGIC, sc.CGROUP2_SUPER_MAGIC, sc.DEVPTS_SUPER_MAGIC,
    0x19800202, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11, 0x6165676C, 0x62656570, 0xDE5E81E4, 0xF97CFF8C,
    0x42494E4D,
))  # fmt: skip


class PackFailed(Exception):
    """The tree cannot be said as a tar; the message is meant for people."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Number of *entries*, sum of file sizes in *size* bytes."""

    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How a tree is packed. *layer*: it is overlayfs' upper directory, whose marks become whiteouts; *placeholders*:
    paths of empty files and directories that the runtime made to mount on, left out of a layer; *closed*:
    (device, inode) of directories that are not entered."""

    layer: bool = False
    placeholders: frozenset[bytes] = frozenset()
    closed: frozenset[tuple[int, int]] = frozenset()


@dataclass(slots=True)
class _Level:
    """A directory that is being read. *name*: of its members, with the slash, in the archive; *path*: in the tree."""

    fd: int
    names: Iterator[bytes]
    name: bytes
    path: bytes
    device: int


@dataclass(slots=True)
class _Member:
    """What a header says."""

    name: bytes
    kind: bytes
    seen: os.stat_result
    size: int = 0
    link: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class Packer:
    """Writes one archive to the descriptor *out*."""

    def __init__(self, out: int, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._out = _Out(out)
        self._links: dict[tuple[int, int], bytes] = {}
        self._entries = self._size = 0

    def tree(self, directory: int, name: bytes) -> None:
        """The open *directory* (it is closed) with all that is in it; its own entry is called *name*."""
        own = name if name == b"/" else name + b"/"
        try:
            seen = os.fstat(directory)
            self._write(_Member(own, DIRECTORY, seen, xattrs=_xattrs(directory)))
        except BaseException:
            os.close(directory)
            raise
        self._walk(_Level(directory, _names(directory), own, b"", seen.st_dev))

    def contents(self, directory: int) -> None:
        """What is in the open *directory* (it is closed), without an entry for itself: an export, a layer."""
        self._walk(_Level(directory, _names(directory), b"", b"", os.fstat(directory).st_dev))

    def _walk(self, top: _Level) -> None:
        stack = [top]
        try:
            while stack:
                base = next(stack[-1].names, None)
                if base is None:
                    os.close(stack.pop().fd)
                    continue
                below = self._entry(stack[-1], base)
                if below is not None:
                    stack.append(below)
                if len(stack) > _DEPTH_LIMIT:
                    raise PackFailed(f"directories are nested deeper than {_DEPTH_LIMIT}; no tar can hold them")
        finally:
            for level in stack:
                os.close(level.fd)

    def single(self, above: int, base: bytes, name: bytes) -> None:
        """One member that is no directory: *base* in the directory *above*, as *name*."""
        seen = os.stat(base, dir_fd=above, follow_symlinks=False)
        self._plain(above, base, name, seen)

    def end(self) -> Packed:
        """The two empty blocks; all has been written when it returns."""
        self._out.add(bytes(2 * BLOCK))
        self._out.flush()
        return Packed(self._entries, self._size)

    # --- members ----------------------------------------------------------------------------------------------------
    def _entry(self, level: _Level, base: bytes) -> _Level | None:
        """Writes one entry of a directory; a directory that is to be entered comes back."""
        try:
            seen = os.stat(base, dir_fd=level.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _GONE:
                return None  # gone between the listing and now
            raise
        name, path = level.name + base, level.path + b"/" + base
        if stat.S_ISDIR(seen.st_mode):
            return self._directory(level, base, name, path)
        if not (self._rules.layer and self._special(level.fd, base, name, path, seen)):
            self._plain(level.fd, base, name, seen)
        return None

    def _directory(self, level: _Level, base: bytes, name: bytes, path: bytes) -> _Level | None:
        try:
            fd = os.open(base, _OPEN | os.O_DIRECTORY, dir_fd=level.fd)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        seen = os.fstat(fd)
        try:
            if path in self._rules.placeholders and next(_names(fd), None) is None:
                os.close(fd)
                return None
            self._write(_Member(name + b"/", DIRECTORY, seen, xattrs=_xattrs(fd)))
            self._mark_opaque(fd, name + b"/")
            foreign = seen.st_dev != level.device and sc.fstatfs_type(fd) in PSEUDO
            if foreign or (seen.st_dev, seen.st_ino) in self._rules.closed:
                os.close(fd)
                return None
        except BaseException:
            os.close(fd)
            raise
        return _Level(fd, _names(fd), name + b"/", path, seen.st_dev)

    def _plain(self, above: int, base: bytes, name: bytes, seen: os.stat_result) -> None:
        kind = stat.S_IFMT(seen.st_mode)
        if self._again(seen, name):
            return
        if kind == stat.S_IFREG:
            self._file(above, base, name)
        elif kind == stat.S_IFLNK:
            try:
                self._write(_Member(name, SYMLINK, seen, link=os.readlink(base, dir_fd=above)))
            except OSError as error:
                if error.errno not in (*_GONE, errno.EINVAL):  # EINVAL: it is no link any more
                    raise
        elif kind in _NODES:
            self._write(_Member(name, _NODES[kind], seen))
        # A socket without its program is nothing, and tar has no word for it.

    def _again(self, seen: os.stat_result, name: bytes) -> bool:
        """A further name of a file that is in the archive already becomes a link to it."""
        if seen.st_nlink < 2:
            return False
        first = self._links.setdefault((seen.st_dev, seen.st_ino), name)
        if first is name:
            return False
        self._write(_Member(name, LINK, seen, link=first))
        return True

    def _file(self, above: int, base: bytes, name: bytes) -> None:
        try:
            fd = os.open(base, _OPEN, dir_fd=above)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode):
                return  # exchanged for something else meanwhile
            self._write(_Member(name, FILE, seen, seen.st_size, xattrs=_xattrs(fd)))
            self._out.body(fd, seen)
            self._size += seen.st_size
        finally:
            os.close(fd)

    # --- layers -----------------------------------------------------------------------------------------------------
    def _mark_opaque(self, fd: int, name: bytes) -> None:
        if not self._rules.layer:
            return
        if _xattr(fd, "trusted.overlay.redirect"):
            raise PackFailed(f"{os.fsdecode(name)} was renamed by overlayfs' redirect_dir, which no layer can say")
        if _xattr(fd, "trusted.overlay.opaque") == b"y":
            self._mark(name + OPAQUE, os.fstat(fd))

    def _special(self, above: int, base: bytes, name: bytes, path: bytes, seen: os.stat_result) -> bool:
        """What a layer says in its own way, or not at all."""
        if stat.S_ISCHR(seen.st_mode) and seen.st_rdev == 0:
            self._mark(name[: len(name) - len(base)] + WHITEOUT + base, seen)
            return True
        if base.startswith(WHITEOUT):
            raise PackFailed(f"the file {os.fsdecode(path)} has a name that means a removal in a layer; rename it")
        return path in self._rules.placeholders and stat.S_ISREG(seen.st_mode) and seen.st_size == 0

    def _mark(self, name: bytes, seen: os.stat_result) -> None:
        plain = os.stat_result((stat.S_IFREG, *seen[1:3], 1, 0, 0, 0, *seen[7:]))
        self._write(_Member(name, FILE, plain))

    def _write(self, member: _Member) -> None:
        self._entries += 1
        self._out.add(_header(member))


# --- bytes ----------------------------------------------------------------------------------------------------------
class _Out:
    """Small things are collected, large ones go straight from their file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pending = bytearray()

    def add(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        view = memoryview(bytes(self._pending))
        self._pending.clear()
        while view:
            view = view[os.write(self._fd, view) :]

    def body(self, fd: int, seen: os.stat_result) -> None:
        """The contents of a file and the padding behind it: as long as *seen* says, whatever has become of it."""
        size = seen.st_size
        if size <= _SMALL:
            data = _read(fd, size)
            self.add(data + bytes(size - len(data) + -size % BLOCK))
            return
        self.flush()
        at = 0
        for start, stop in _filled(fd, size) if seen.st_blocks * 512 < size else ((0, size),):
            self._zeros(start - at)
            at = self._send(fd, start, stop)
        self._zeros(size - at)
        self.add(bytes(-size % BLOCK))

    def _send(self, fd: int, at: int, stop: int) -> int:
        """Up to *stop*, or to where the file ends now."""
        while at < stop:
            sent = os.sendfile(self._fd, fd, at, min(stop - at, _SEND))
            if not sent:
                break
            at += sent
        return at

    def _zeros(self, count: int) -> None:
        while count > 0:
            count -= os.write(self._fd, _ZEROS[: min(count, len(_ZEROS))])


def _read(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    while data and len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            break
        data += more
    return data


def _filled(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file that hold data."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            stop = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing more, or cut short meanwhile
                return
            raise
        if start >= size:
            return
        at = min(stop, size)
        yield start, at


def _names(fd: int) -> Iterator[bytes]:
    """The names in a directory: sorted as far as a batch goes, so that a million of them cost no memory."""
    with os.scandir(fd) as found:
        while batch := sorted(os.fsencode(one.name) for one in islice(found, _BATCH)):
            yield from batch


def _xattr(fd: int, name: str) -> bytes:
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return b""
        raise


def _xattrs(fd: int) -> dict[bytes, bytes]:
    """The attributes that go with a file: capabilities, access lists and the user's own."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    found = {}
    for name in names:
        kept = name == "security.capability" or name.startswith(("user.", "system.posix_acl_"))
        if kept and not name.startswith("user.overlay."):
            found[os.fsencode(name)] = _xattr(fd, name)
    return found


# --- headers --------------------------------------------------------------------------------------------------------
def _header(member: _Member) -> bytes:
    """The header of a member, behind a pax header where ustar cannot say it."""
    seen = member.seen
    pax: dict[bytes, bytes] = {b"SCHILY.xattr." + key: value for key, value in member.xattrs.items()}
    name, prefix = _split(member.name, pax)
    link = member.link
    if len(link) > 100:
        pax[b"linkpath"], link = link, link[:100]
    size = _fits(b"size", member.size, 11, pax)
    uid, gid = _fits(b"uid", seen.st_uid, 7, pax), _fits(b"gid", seen.st_gid, 7, pax)
    mtime = _fits(b"mtime", int(seen.st_mtime), 11, pax)
    major, minor = (os.major(seen.st_rdev), os.minor(seen.st_rdev)) if member.kind in (CHAR, BLOCK_DEVICE) else (0, 0)
    block = (
        name.ljust(100, b"\0")
        + b"%07o\0%07o\0%07o\0%011o\0%011o\0        " % (stat.S_IMODE(seen.st_mode), uid, gid, size, mtime)
        + member.kind
        + link.ljust(100, b"\0")
        + b"ustar\00000"
        + bytes(64)
        + b"%07o\0%07o\0" % (major & 0o7777777, minor & 0o7777777)
        + prefix.ljust(155, b"\0")
        + bytes(12)
    )
    block = b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])
    return _pax_header(pax) + block if pax else block


def _split(name: bytes, pax: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """*name* as ustar's name and prefix; a longer one goes into the pax header."""
    if len(name) <= 100:
        return name, b""
    cut = name.find(b"/", len(name) - 101, 156)
    if 0 < cut < len(name) - 1:
        return name[cut + 1 :], name[:cut]
    pax[b"path"] = name
    return name[:100], b""


def _fits(key: bytes, value: int, digits: int, pax: dict[bytes, bytes]) -> int:
    if 0 <= value < 8**digits:
        return value
    pax[key] = b"%d" % value
    return 0


def _pax_header(pax: dict[bytes, bytes]) -> bytes:
    data = b"".join(_record(key, value) for key, value in pax.items())
    block = (
        b"PaxHeader".ljust(100, b"\0")
        + b"%07o\0%07o\0%07o\0%011o\0%011o\0        x" % (0o644, 0, 0, len(data), 0)
        + bytes(100)
        + b"ustar\00000"
        + bytes(247)
    )
    block = b"%b%06o\0 %b" % (block[:148], sum(block), block[156:])
    return block + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE``, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
