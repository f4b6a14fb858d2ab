"""The table of contents of a layer that can be read in parts: eStargz and zstd:chunked.

Such a layer is an ordinary compressed tar whose files each begin a compressed stream of their own; a table at its end
says where. With the table the layer's files can be shown before their contents have come: :func:`skeleton` writes a
tar with all headers and holes where the contents belong, and :class:`Chunk` says which part of the layer fills which
hole. The table's digest is in the image's manifest, and each chunk's digest is in the table; what has none is not read
in parts.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from backend.errors import InvalidArgument
from backend.spec.image import Descriptor

#: In the layer's descriptor: the digest of an eStargz table.
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
#: Of zstd:chunked: ...position is OFFSET:PACKED:UNPACKED:TYPE, ...checksum the digest of the table's packed bytes.
_CHUNKED = ("io.github.containers.zstd-chunked.manifest-", "io.containers.zstd-chunked.manifest-")
FOOTER = 51            # bytes of an eStargz footer: an empty gzip member with the table's place in its header
TABLE_NAME = "stargz.index.json"
_TABLE_LIMIT = 64 << 20
_CHUNK_LIMIT = 16 << 20     # several are in memory at a time
_ENTRIES_LIMIT = 1_000_000
_OWN = frozenset({TABLE_NAME, ".prefetch.landmark", ".no.prefetch.landmark"})
_BLOCK = 512
_OWNER_LIMIT = 0xFFFFFFFE
_KINDS = {"dir": tarfile.DIRTYPE, "reg": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE,
          "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "fifo": tarfile.FIFOTYPE}

Form = Literal["stargz", "zstd"]


class BadTable(InvalidArgument):
    """The table cannot be used; the layer is fetched whole instead."""


class Row(Struct, omit_defaults=True):
    """One line of a table, named as the formats name it."""

    name: str
    type: str
    size: int = 0
    modtime: str = ""
    link_name: str = field(name="linkName", default="")
    mode: int = 0
    uid: int = 0
    gid: int = 0
    offset: int = 0
    end_offset: int = field(name="endOffset", default=0)
    dev_major: int = field(name="devMajor", default=0)
    dev_minor: int = field(name="devMinor", default=0)
    xattrs: dict[str, str] | None = None
    digest: str = ""
    chunk_offset: int = field(name="chunkOffset", default=0)
    chunk_size: int = field(name="chunkSize", default=0)
    chunk_digest: str = field(name="chunkDigest", default="")
    chunk_type: str = field(name="chunkType", default="")
    inner_offset: int = field(name="innerOffset", default=0)


class Table(Struct):
    """A whole table."""

    entries: list[Row]
    version: int = 1


@dataclass(frozen=True, slots=True)
class Chunk:
    """*size* bytes of a file, at *start* of the skeleton; packed in the layer from *begin* to *end*, where they stand
    *inner* bytes into the unpacked stream."""

    start: int
    size: int
    begin: int
    end: int
    digest: str
    inner: int = 0


def form_of(layer: Descriptor) -> Form | None:
    """How *layer* can be read in parts, as its descriptor says."""
    notes = layer.annotations or {}
    if notes.get(STARGZ):
        return "stargz"
    return "zstd" if _chunked(notes) is not None else None


def _chunked(notes: Mapping[str, str]) -> tuple[str, str] | None:
    """The place and the digest of a zstd:chunked table; older writers name them otherwise."""
    return next(((notes[f"{one}position"], notes[f"{one}checksum"]) for one in _CHUNKED
                 if notes.get(f"{one}position") and notes.get(f"{one}checksum")), None)


# --- finding the table ------------------------------------------------------------------------------------------------

def fetch(layer: Descriptor, part: Callable[[int, int], bytes]) -> tuple[Table, int]:
    """The table of *layer* and where the files' contents end in it. *part*: bytes of the layer from an offset on.

    Raises:
        BadTable: it is damaged, not what the manifest promises, or cannot be used.
    """
    notes = layer.annotations or {}
    if form_of(layer) == "stargz":
        return _fetch_stargz(layer.size, notes[STARGZ], part)
    found = _chunked(notes)
    if found is None:
        raise BadTable("the layer has no table")
    try:
        offset, packed, unpacked, kind = (int(one) for one in found[0].split(":"))
    except ValueError:
        raise BadTable("the place of the table is malformed") from None
    if kind != 1 or not 0 < packed <= _TABLE_LIMIT or not 0 < unpacked <= _TABLE_LIMIT or offset + packed > layer.size:
        raise BadTable("the table is of another kind, or too large")
    data = part(offset, packed)
    _expect(data, found[1])
    return _decode(_zstd_prefix(data, unpacked)), offset


def _fetch_stargz(size: int, digest: str, part: Callable[[int, int], bytes]) -> tuple[Table, int]:
    guess = min(size, 256 << 10)      # most tables are small: one request instead of two
    tail = part(size - guess, guess)
    offset = footer_place(tail[-FOOTER:])
    if not 0 < size - FOOTER - offset <= _TABLE_LIMIT or offset < 0:
        raise BadTable("the footer points outside of the layer")
    have = size - guess
    packed = tail[offset - have:-FOOTER] if offset >= have else part(offset, size - FOOTER - offset)
    inflater = zlib.decompressobj(31)
    try:
        text = inflater.decompress(packed, _TABLE_LIMIT + 2048)
    except zlib.error as error:
        raise BadTable(f"the table cannot be unpacked: {error}") from None
    try:
        with tarfile.open(fileobj=io.BytesIO(text)) as tar:
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.name == TABLE_NAME else None
            data = file.read() if file is not None else b""
    except (tarfile.TarError, EOFError) as error:
        raise BadTable(f"the table is damaged: {error}") from None
    _expect(data, digest)
    return _decode(data), offset


def footer_place(footer: bytes) -> int:
    """Where the table begins, as an eStargz footer says."""
    marks = footer[:4], footer[12:14], footer[32:38]
    if len(footer) != FOOTER or marks != (b"\x1f\x8b\x08\x04", b"SG", b"STARGZ"):
        raise BadTable("the layer has no eStargz footer")
    try:
        return int(footer[16:32].decode(), 16)
    except ValueError:
        raise BadTable("the footer is damaged") from None


def _expect(data: bytes, digest: str) -> None:
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise BadTable("the table is not the one that the manifest names")


def _decode(data: bytes) -> Table:
    try:
        table = msgspec.json.decode(data, type=Table)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadTable(f"the table cannot be read: {error}") from None
    if len(table.entries) > _ENTRIES_LIMIT:
        raise BadTable(f"the table has more than {_ENTRIES_LIMIT} entries")
    return table


# --- what it says -----------------------------------------------------------------------------------------------------

def skeleton(table: Table, end: int, target: int = -1) -> list[Chunk]:
    """Writes the tar of *table* with holes into the empty file *target*; *end*: where contents end in the layer.
    Without a *target* nothing is written.

    Returns what fills the holes, in their order.

    Raises:
        BadTable: the table contradicts itself.
    """
    rows = [row for row in table.entries if row.name.lstrip("./") not in _OWN]
    ends = _ends(rows, end)
    chunks: list[Chunk] = []
    at, number = 0, 0
    while number < len(rows):
        row = rows[number]
        parts = 1
        while number + parts < len(rows) and rows[number + parts].type == "chunk":
            parts += 1
        header = _header(row)
        if target >= 0:
            os.pwrite(target, header, at)
        at += len(header)
        if row.type == "reg" and row.size:
            chunks += _chunks(rows[number:number + parts], at, ends)
            at += (row.size + _BLOCK - 1) // _BLOCK * _BLOCK
        elif parts > 1:
            raise BadTable(f"{row.name[:100]!r} has contents and is no file")
        number += parts
    if target >= 0:
        os.ftruncate(target, at + 2 * _BLOCK)
    return chunks


def _ends(rows: Sequence[Row], end: int) -> dict[int, int]:
    """Where the packed stream that begins at an offset ends: where the next one begins."""
    begins = sorted({row.offset for row in rows if row.type in ("reg", "chunk") and row.offset})
    if begins and (begins[0] < 0 or begins[-1] >= end):
        raise BadTable("the table points outside of the layer")
    return dict(zip(begins, [*begins[1:], end], strict=False))


def _chunks(rows: Sequence[Row], at: int, ends: dict[int, int]) -> list[Chunk]:
    whole, done = rows[0], 0
    found = []
    for number, row in enumerate(rows):
        last = number == len(rows) - 1
        size = row.chunk_size or whole.size - row.chunk_offset
        digest = row.chunk_digest or (row.digest if last and not number else "")
        if row.chunk_offset != done or not 0 < size <= _CHUNK_LIMIT or done + size > whole.size or not (
                digest or row.chunk_type == "zeros"):
            raise BadTable(f"the parts of {whole.name[:100]!r} do not fit together or have no digest")
        if row.chunk_type == "zeros":         # a hole is what it is
            done += size
            continue
        if row.offset not in ends:
            raise BadTable(f"{whole.name[:100]!r} has a part of a kind that is not known here")
        stop = min(row.end_offset or ends[row.offset], ends[row.offset])
        found.append(Chunk(at + done, size, row.offset, stop, digest, row.inner_offset))
        done += size
    if done != whole.size:
        raise BadTable(f"the parts of {whole.name[:100]!r} are not all there")
    return found


def _header(row: Row) -> bytes:
    kind = _KINDS.get(row.type)
    if kind is None:
        raise BadTable(f"the table has an entry of the unknown kind {row.type[:30]!r}")
    if not (0 <= row.uid <= _OWNER_LIMIT and 0 <= row.gid <= _OWNER_LIMIT):
        raise BadTable(f"the owner of {row.name[:100]!r} is out of range")
    made = tarfile.TarInfo(row.name)
    made.type, made.mode, made.uid, made.gid = kind, row.mode & 0o7777, row.uid, row.gid
    made.size = row.size if row.type == "reg" else 0
    made.linkname, made.devmajor, made.devminor = row.link_name, row.dev_major, row.dev_minor
    made.mtime = _seconds(row.modtime)
    xattrs: dict[str, str] = {}
    try:
        for name, value in (row.xattrs or {}).items():
            data = base64.b64decode(value, validate=True)
            xattrs[f"SCHILY.xattr.{name}"] = data.decode("utf-8", "surrogateescape")
        made.pax_headers = xattrs
        return made.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except (binascii.Error, ValueError, OverflowError) as error:
        raise BadTable(f"the entry {row.name[:100]!r} cannot be written: {error}") from None


def _seconds(text: str) -> int:
    try:
        return max(int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()), 0) if text else 0
    except (ValueError, OverflowError):
        return 0


def _gzip_prefix(data: bytes, size: int) -> bytes:
    """The first *size* bytes of a gzip stream. Raises :class:`BadTable`."""
    from isal import isal_zlib

    errors: Any = (isal_zlib.error, EOFError)  # the module's own type is an object to type checkers
    try:
        found: bytes = isal_zlib.decompressobj(31).decompress(data, size)
    except errors as error:
        raise BadTable(f"a part of the layer cannot be unpacked: {error}") from None
    return found


def _zstd_prefix(data: bytes, size: int) -> bytes:
    """The first *size* bytes of zstd frames. Raises :class:`BadTable`."""
    import zstandard

    out = bytearray()
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data, read_across_frames=True) as reader:
            while len(out) < size and (piece := reader.read(size - len(out))):
                out += piece
    except zstandard.ZstdError as error:
        raise BadTable(f"a part of the layer cannot be unpacked: {error}") from None
    return bytes(out)


def unpack(form: Form, packed: bytes, chunk: Chunk) -> bytes:
    """The bytes of *chunk* from its packed form, checked against its digest. Raises :class:`BadTable`."""
    wanted = chunk.inner + chunk.size
    data = _gzip_prefix(packed, wanted) if form == "stargz" else _zstd_prefix(packed, wanted)
    data = data[chunk.inner:wanted]
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != chunk.digest:
        raise BadTable("a part of the layer is not what its table promises")
    return data


def decode(data: bytes) -> Table:
    """A table from JSON that we wrote. Raises :class:`BadTable`."""
    return _decode(data)


def encode(table: Table) -> bytes:
    """A table as JSON."""
    return json.dumps(msgspec.to_builtins(table), separators=(",", ":")).encode()
