"""A layer that is mounted instead of unpacked: an EROFS index whose files' data lie in the layer's own tar.

The index has all names, modes and owners; each regular file is one chunk that points at its bytes in the tar, which
is the file system's second device. Kernel: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h (on-disk
format), 512-byte blocks because tar aligns to them. Mounted by ``mount -t erofs -o device=TAR INDEX``: backed by files
from Linux 6.12. Whiteouts become what overlayfs reads: character device 0/0, and the xattr trusted.overlay.opaque.

Runs in a confined child: standard library only, and it reads the untrusted tar only through descriptors.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from backend.runtime import tarstream
from backend.runtime.tarstream import BLOCK, BadTar, Entry

ENTRY_LIMIT = 1_000_000
_DEPTH_LIMIT = 1024
_LINK_LIMIT = 40
_META = 4  # first block of inodes: 1024 bytes unused, superblock, device slot, rounded up
_SLOT = 32  # inodes are addressed in units of 32 bytes
_MAGIC = 0xE0F5E1E2
_CHUNKED, _DEVICES = 0x4, 0x8  # incompatible features: chunk-based files, device table
_PLAIN, _CHUNK = 1 | 0 << 1, 1 | 4 << 1  # i_format: 64-byte inode, data layout
_ONE_CHUNK = 0x20 | 31  # chunk format: with indexes; chunks of 2^(9+31) bytes, so one a file
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_CHUNK_INDEX = struct.Struct("<HHI")
_DIRENT = struct.Struct("<QHBx")
_XATTR_HEAD = 12
_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_KINDS = {
    tarstream.FILE: stat.S_IFREG,
    tarstream.DIRECTORY: stat.S_IFDIR,
    tarstream.SYMLINK: stat.S_IFLNK,
    tarstream.CHAR: stat.S_IFCHR,
    tarstream.BLOCK_DEVICE: stat.S_IFBLK,
    tarstream.FIFO: stat.S_IFIFO,
}
_DIRENT_KINDS = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFLNK: 7}
WHITEOUT, OPAQUE = b".wh.", b".wh..wh..opq"
_OVERLAY_OPAQUE = {b"trusted.overlay.opaque": b"y"}


@dataclass(frozen=True, slots=True)
class IndexResult:
    """Number of *entries* in the tar, *size* of the index in bytes."""

    entries: int
    size: int


class _Node:
    __slots__ = (
        "block",
        "children",
        "data",
        "gid",
        "kind",
        "link",
        "links",
        "mode",
        "mtime",
        "nid",
        "rdev",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, kind: int, mode: int = 0o755) -> None:
        self.kind = kind
        self.mode = mode
        self.uid = self.gid = self.size = self.mtime = self.data = self.block = self.rdev = 0
        self.nid = -1
        self.links = 1
        self.link = b""
        self.children: dict[bytes, _Node] | None = {} if kind == stat.S_IFDIR else None
        self.xattrs: dict[bytes, bytes] = {}


class _Tree:
    """The files of one layer, as its tar says in order: later members replace earlier ones."""

    def __init__(self) -> None:
        self.root = _Node(stat.S_IFDIR)
        self.count = 0

    def add(self, entry: Entry) -> None:
        self.count += 1
        if not entry.name:
            if entry.kind == tarstream.DIRECTORY:
                _dress(self.root, entry)
            return
        if len(entry.name) > _DEPTH_LIMIT:
            raise BadTar("the archive nests directories too deeply")
        *above, base = entry.name
        parent = self.directory(tuple(above))
        assert parent.children is not None
        if base.startswith(WHITEOUT):
            self._whiteout(parent, base)
            return
        if entry.kind == tarstream.LINK:
            self._hard_link(parent, base, entry)
            return
        old = parent.children.get(base)
        if entry.kind == tarstream.DIRECTORY and old is not None and old.kind == stat.S_IFDIR:
            _dress(old, entry)
            return
        node = _Node(_KINDS[entry.kind])
        _dress(node, entry)
        _put(parent, base, node)

    def _whiteout(self, parent: _Node, base: bytes) -> None:
        if base == OPAQUE:
            parent.xattrs.update(_OVERLAY_OPAQUE)
            return
        hidden = base[len(WHITEOUT) :]
        if hidden.startswith(WHITEOUT) or hidden in (b"", b".", b".."):
            raise BadTar(f"the whiteout {base!r} is refused")
        assert parent.children is not None
        # A name that this layer itself makes stays: the whiteout hides what is below.
        if hidden not in parent.children:
            parent.children[hidden] = _Node(stat.S_IFCHR, 0)

    def _hard_link(self, parent: _Node, base: bytes, entry: Entry) -> None:
        path = tarstream.components(entry.link)
        target = self._find(path)
        if target is None or target.kind == stat.S_IFDIR:
            raise BadTar(
                f"the hard link {b'/'.join(entry.name)!r} leads to {entry.link!r}, which is no file of this layer"
            )
        if parent.children is not None and parent.children.get(base) is target:
            return
        target.links += 1
        _put(parent, base, target)

    def _find(self, path: tuple[bytes, ...]) -> _Node | None:
        if not path:
            return None
        parent = self.directory(path[:-1], make=False)
        return parent.children.get(path[-1]) if parent is not None and parent.children is not None else None

    def directory(self, path: tuple[bytes, ...], *, make: bool = True) -> _Node:
        """The directory *path*; this layer's symbolic links on the way are followed inside its root, as unpacking."""
        node, stack, left = self.root, [self.root], list(reversed(path))
        links = 0
        while left:
            name = left.pop()
            if name == b"..":
                if len(stack) > 1:
                    stack.pop()
                node = stack[-1]
                continue
            assert node.children is not None
            child = node.children.get(name)
            if child is not None and child.kind == stat.S_IFLNK:
                links += 1
                if links > _LINK_LIMIT:
                    raise BadTar(f"too many symbolic links on the way to {b'/'.join(path)!r}")
                if child.link.startswith(b"/"):
                    node, stack = self.root, [self.root]
                left += [part for part in reversed(child.link.split(b"/")) if part not in (b"", b".")]
                continue
            if child is None or child.kind != stat.S_IFDIR:
                if not make:
                    return _Node(stat.S_IFDIR)
                child = _Node(stat.S_IFDIR)
                _put(node, name, child)
            node = child
            stack.append(node)
            if len(stack) > _DEPTH_LIMIT:
                raise BadTar("the archive nests directories too deeply")
        return node


def _put(parent: _Node, name: bytes, node: _Node) -> None:
    assert parent.children is not None
    old = parent.children.get(name)
    if old is not None:
        old.links -= 1
    parent.children[name] = node


def _dress(node: _Node, entry: Entry) -> None:
    node.mode, node.uid, node.gid, node.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    opaque = _OVERLAY_OPAQUE.items() <= node.xattrs.items()
    node.xattrs = {**entry.xattrs, **(_OVERLAY_OPAQUE if opaque else {})}
    if node.kind == stat.S_IFREG:
        node.size, node.data = entry.size, entry.data
    elif node.kind == stat.S_IFLNK:
        node.link, node.size = entry.link, len(entry.link)
        if not 0 < node.size < 4096:
            raise BadTar(f"the symbolic link {b'/'.join(entry.name)!r} has a target of {node.size} bytes")
    elif node.kind in (stat.S_IFCHR, stat.S_IFBLK):
        major, minor = entry.device
        if major >= 1 << 12 or minor >= 1 << 20:
            raise BadTar(f"the device {major}:{minor} is out of range")
        node.rdev = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _xattr_area(xattrs: dict[bytes, bytes]) -> bytes:
    """The attributes of one inode, in line behind it; empty where there are none."""
    if not xattrs:
        return b""
    out = bytearray(_XATTR_HEAD)
    for name, value in sorted(xattrs.items()):
        prefix, index = next((p, i) for p, i in _PREFIXES if name.startswith(p))
        rest = name[len(prefix) :]
        if len(rest) > 255 or len(value) > 0xFFFF:
            raise BadTar(f"the extended attribute {name[:60]!r} is too long")
        out += struct.pack("<BBH", len(rest), index, len(value)) + rest + value
        out += bytes(-len(out) % 4)
    if len(out) > 1 << 16:
        raise BadTar("a file's extended attributes are too long")
    return bytes(out)


class _Writer:
    """Numbers the inodes, lays out directories and links behind them, and writes it all."""

    def __init__(self, tree: _Tree, tar_size: int) -> None:
        self.tar_blocks = (tar_size + BLOCK - 1) // BLOCK
        self.order: list[_Node] = []
        self.areas: dict[int, bytes] = {}
        slots = self._number(tree.root)
        self.data_block = _META + (slots * _SLOT + BLOCK - 1) // BLOCK
        self.blobs: list[bytes] = []
        self._lay_out(tree.root)

    def _number(self, root: _Node) -> int:
        slots, todo = 0, [root]
        while todo:
            node = todo.pop()
            node.nid = slots
            area = _xattr_area(node.xattrs)
            if area:
                self.areas[slots] = area
            size = _INODE.size + len(area)
            if node.kind == stat.S_IFREG:
                size += -size % _CHUNK_INDEX.size + _CHUNK_INDEX.size
            slots += (size + _SLOT - 1) // _SLOT
            self.order.append(node)
            for child in (node.children or {}).values():
                if child.nid < 0:
                    child.nid = 0  # taken: a hard link is met more than once
                    todo.append(child)
        return slots

    def _store(self, data: bytes) -> int:
        at = self.data_block
        padded = data + bytes(-len(data) % BLOCK)
        self.blobs.append(padded)
        self.data_block += len(padded) // BLOCK
        return at

    def _lay_out(self, root: _Node) -> None:
        todo = [(root, root)]
        while todo:
            node, above = todo.pop()
            assert node.children is not None
            data = _directory(node, above)
            node.size, node.block = len(data), self._store(data)
            node.links = 2
            for child in node.children.values():
                if child.kind == stat.S_IFDIR:
                    node.links += 1
                    todo.append((child, node))
                elif child.kind == stat.S_IFLNK and not child.block:
                    child.block = self._store(child.link)

    def _inode(self, node: _Node) -> bytes:
        area = self.areas.get(node.nid, b"")
        count = (len(area) - _XATTR_HEAD) // 4 + 1 if area else 0
        regular = node.kind == stat.S_IFREG
        device = node.kind in (stat.S_IFCHR, stat.S_IFBLK)
        union = _ONE_CHUNK if regular else node.rdev if device else node.block
        out = (
            _INODE.pack(
                _CHUNK if regular else _PLAIN,
                count,
                node.kind | node.mode,
                0,
                node.size,
                union,
                node.nid & 0xFFFFFFFF,
                node.uid,
                node.gid,
                node.mtime,
                0,
                node.links,
            )
            + area
        )
        if regular:
            first = node.data // BLOCK
            out += bytes(-len(out) % _CHUNK_INDEX.size) + _CHUNK_INDEX.pack(first >> 32, 1, first & 0xFFFFFFFF)
        return out + bytes(-len(out) % _SLOT)

    def write(self, fd: int) -> int:
        superblock = struct.pack(
            "<IIIBBHQQIIII16s16sIHHHBBIQB23x",
            _MAGIC,
            0,
            0,
            9,
            0,
            0,
            len(self.order),
            0,
            0,
            self.data_block,
            _META,
            0,
            bytes(16),
            b"",
            _CHUNKED | _DEVICES,
            0,
            1,
            9,
            0,
            0,
            0,
            0,
            0,
        )
        device = struct.pack("<64sII56x", b"layer", self.tar_blocks & 0xFFFFFFFF, 0)
        head = bytes(1024) + superblock + device
        with os.fdopen(os.dup(fd), "wb", 1 << 20) as out:
            out.write(head + bytes(_META * BLOCK - len(head)))
            written = 0
            for node in self.order:
                inode = self._inode(node)
                written += len(inode)
                out.write(inode)
            out.write(bytes(-written % BLOCK))
            for blob in self.blobs:
                out.write(blob)
            return out.tell()


def _directory(node: _Node, above: _Node) -> bytes:
    """A directory's blocks: sorted names, each block with its own table of entries."""
    assert node.children is not None
    names = sorted(
        [
            (b".", node.nid, 2),
            (b"..", above.nid, 2),
            *((name, child.nid, _DIRENT_KINDS[child.kind]) for name, child in node.children.items()),
        ]
    )
    out: list[bytes] = []
    block: list[tuple[bytes, int, int]] = []
    used = 0
    for one in names:
        need = _DIRENT.size + len(one[0])
        if used + need > BLOCK:
            out.append(_directory_block(block))
            block, used = [], 0
        block.append(one)
        used += need
    last = _directory_block(block)
    return b"".join(out) + last


def _directory_block(block: list[tuple[bytes, int, int]]) -> bytes:
    offset = _DIRENT.size * len(block)
    table = []
    for name, nid, kind in block:
        table.append(_DIRENT.pack(nid, offset, kind))
        offset += len(name)
    data = b"".join(table) + b"".join(name for name, _, _ in block)
    return data + bytes(BLOCK - len(data))


def build_index(tar_fd: int, out_fd: int) -> IndexResult:
    """Write the index of the seekable, uncompressed tar *tar_fd* into the empty file *out_fd*.

    Raises:
        BadTar: the archive is damaged or hostile; the text says why.
    """
    tree = _Tree()
    for entry in tarstream.entries(tar_fd, limit=ENTRY_LIMIT):
        tree.add(entry)
    size = _Writer(tree, os.fstat(tar_fd).st_size).write(out_fd)
    return IndexResult(tree.count, size)
