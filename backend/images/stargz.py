"""Writes a layer as eStargz: an ordinary gzip tar in which each file's contents begin a stream of their own, with a
table of them at its end. Blocks; runs in worker threads."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import os
import tarfile
from collections.abc import Callable

from isal import isal_zlib

from backend.images import toc
from backend.images.toc import Row, Table
from backend.runtime import tarstream
from backend.runtime.tarstream import BLOCK, Entry

_CHUNK = 1 << 20                     # bytes of a file that come at once; the format's own default is 4 MiB
_LEVEL = 2
_LIMIT = 1_000_000
_TYPES = {tarstream.DIRECTORY: "dir", tarstream.FILE: "reg", tarstream.SYMLINK: "symlink", tarstream.LINK: "hardlink",
          tarstream.CHAR: "char", tarstream.BLOCK_DEVICE: "block", tarstream.FIFO: "fifo"}

Write = Callable[[bytes], object]


class _Streams:
    """Gzip streams one after another: *packed* gets them, *plain* what is in them."""

    def __init__(self, packed: Write, plain: Write) -> None:
        self._packed, self._plain = packed, plain
        self._deflater: isal_zlib.Compress | None = None
        self.size = 0

    def _out(self, data: bytes) -> None:
        self.size += len(data)
        self._packed(data)

    def write(self, data: bytes) -> None:
        if self._deflater is None:
            self._deflater = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 31)
        self._plain(data)
        self._out(self._deflater.compress(data))

    def begin(self) -> int:
        """End the stream that is open; where the next one will begin."""
        if self._deflater is not None:
            self._out(self._deflater.flush())
            self._deflater = None
        return self.size

    def raw(self, data: bytes) -> None:
        self._out(data)


def write(source: int, packed: Write, plain: Write) -> str:
    """The tar file *source* as eStargz to *packed*, and the tar that this is when unpacked to *plain*.

    Returns the digest of the table, for the layer's descriptor. Raises :class:`tarstream.BadTar`.
    """
    out = _Streams(packed, plain)
    rows: list[Row] = []
    at = 0
    for entry in tarstream.entries(source, limit=_LIMIT):
        if entry.name and entry.name[-1].decode("utf-8", "surrogateescape") == toc.TABLE_NAME and len(entry.name) == 1:
            at = _skip(entry)         # the table of a layer that was eStargz already
            continue
        out.write(os.pread(source, entry.data - at, at))       # the headers, as they are
        at = entry.data
        rows.append(_row(entry))
        if entry.kind == tarstream.FILE and entry.size:
            rows[-1:] = _contents(source, entry, rows[-1], out)
            at = _skip(entry)
            out.write(bytes(at - entry.data - entry.size))
    return _finish(rows, out)


def _skip(entry: Entry) -> int:
    return entry.data + (entry.size + BLOCK - 1) // BLOCK * BLOCK


def _row(entry: Entry) -> Row:
    name = b"/".join(entry.name).decode("utf-8", "surrogateescape")
    time = datetime.datetime.fromtimestamp(entry.mtime, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    xattrs = {key.decode("utf-8", "surrogateescape"): base64.b64encode(value).decode()
              for key, value in entry.xattrs.items()}
    return Row(name + ("/" if entry.kind == tarstream.DIRECTORY else ""), _TYPES[entry.kind], size=entry.size,
               modtime=time, link_name=entry.link.decode("utf-8", "surrogateescape"), mode=entry.mode, uid=entry.uid,
               gid=entry.gid, dev_major=entry.device[0], dev_minor=entry.device[1], xattrs=xattrs or None)


def _contents(source: int, entry: Entry, row: Row, out: _Streams) -> list[Row]:
    """The file's contents, in chunks; its rows."""
    rows, whole, done = [row], hashlib.sha256(), 0
    while done < entry.size:
        data = os.pread(source, min(_CHUNK, entry.size - done), entry.data + done)
        if not data:
            raise tarstream.BadTar("the archive ends in the middle of a file")
        one = row if not done else Row(row.name, "chunk")
        if done:
            rows.append(one)
        one.offset, one.chunk_offset = out.begin(), done
        one.chunk_size = len(data) if entry.size > len(data) else 0
        one.chunk_digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        whole.update(data)
        out.write(data)
        done += len(data)
    row.digest = f"sha256:{whole.hexdigest()}"
    return rows


def _finish(rows: list[Row], out: _Streams) -> str:
    text = toc.encode(Table(rows))
    place = out.begin()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo(toc.TABLE_NAME)
        info.size, info.mode = len(text), 0o444
        made.addfile(info, io.BytesIO(text))
    out.write(tar.getvalue())
    out.begin()
    out.raw(_footer(place))
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _footer(place: int) -> bytes:
    """An empty gzip stream whose header says where the table is (eStargz, "Footer")."""
    extra = b"SG" + (22).to_bytes(2, "little") + f"{place:016x}".encode() + b"STARGZ"
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + len(extra).to_bytes(2, "little") + extra
    return head + b"\x01\x00\x00\xff\xff" + bytes(8)
