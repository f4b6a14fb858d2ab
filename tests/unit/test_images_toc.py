"""Layers that can be read in parts: written, found, and refused where their table lies."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from backend.images import stargz, toc
from backend.runtime import tarstream
from backend.spec.image import Descriptor
from tests.support.images import tar_of

BIG = random.Random(3).randbytes(2_500_000)


def special(kind: bytes, link: str = "", **more: int) -> tarfile.TarInfo:
    made = tarfile.TarInfo("x")
    made.type, made.linkname, made.mode, made.mtime = kind, link, 0o640, 1_700_000_000
    for key, value in more.items():
        setattr(made, key, value)
    return made


def original() -> bytes:
    marked = tarfile.TarInfo("x")
    marked.size = 0
    marked.pax_headers = {"SCHILY.xattr.user.mark": "value"}
    return tar_of([("etc", None), ("etc/hosts", b"127.0.0.1 localhost\n"), ("bin", None), ("bin/big", BIG), ("empty", b""), ("x" * 160, b"a long name"),
                   ("link", special(tarfile.SYMTYPE, "etc/hosts")), ("hard", special(tarfile.LNKTYPE, "etc/hosts")), ("null", special(tarfile.CHRTYPE, devmajor=1, devminor=3)),
                   ("marked", marked), ("etc/.wh.gone", b"")])


class Layer:
    def __init__(self, tmp_path: Path, tar: bytes) -> None:
        packed, plain = io.BytesIO(), io.BytesIO()
        (tmp_path / "source").write_bytes(tar)
        fd = os.open(tmp_path / "source", os.O_RDONLY)
        digest = stargz.write(fd, packed.write, plain.write)
        os.close(fd)
        self.packed, self.plain = packed.getvalue(), plain.getvalue()
        self.descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "sha256:" + hashlib.sha256(self.packed).hexdigest(), len(self.packed),
                                     annotations={toc.STARGZ: digest})
        self.asked: list[tuple[int, int]] = []

    def part(self, start: int, size: int) -> bytes:
        self.asked.append((start, size))
        return self.packed[start:start + size]


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    return Layer(tmp_path, original())


def members(tar: bytes) -> dict[str, tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {one.name: (one.type, one.mode, one.uid, one.size, one.mtime, one.linkname, one.devmajor, one.devminor, one.pax_headers.get("SCHILY.xattr.user.mark"),
                           opened.extractfile(one).read() if one.isreg() else None) for one in opened}  # type: ignore[union-attr]


def filled(layer: Layer, tmp_path: Path) -> bytes:
    table, end = toc.fetch(layer.descriptor, layer.part)
    fd = os.open(tmp_path / "skeleton", os.O_RDWR | os.O_CREAT)
    for chunk in toc.skeleton(table, end, fd):
        os.pwrite(fd, toc.unpack("stargz", layer.packed[chunk.begin:chunk.end], chunk), chunk.start)
    os.close(fd)
    return (tmp_path / "skeleton").read_bytes()


def test_a_converted_layer_is_an_ordinary_one_for_everybody_else(layer: Layer) -> None:
    assert gzip.decompress(layer.packed) == layer.plain
    found = members(layer.plain)
    assert found.pop(toc.TABLE_NAME) and found == members(original())


def test_the_table_and_the_parts_give_the_same_files_as_the_whole(layer: Layer, tmp_path: Path) -> None:
    assert members(filled(layer, tmp_path)) == members(original())
    assert len(layer.asked) == 1, "a small table is fetched by one request"


def test_the_headers_alone_tell_every_name_before_any_contents_have_come(layer: Layer, tmp_path: Path) -> None:
    table, end = toc.fetch(layer.descriptor, layer.part)
    fd = os.open(tmp_path / "skeleton", os.O_RDWR | os.O_CREAT)
    chunks = toc.skeleton(table, end, fd)
    names = [b"/".join(one.name) for one in tarstream.entries(fd, limit=100)]
    assert b"bin/big" in names and b"etc/.wh.gone" in names and toc.TABLE_NAME.encode() not in names
    assert sum(one.size for one in chunks) == len(BIG) + 20 + 11 and os.fstat(fd).st_blocks * 512 < 100_000
    os.close(fd)


def test_a_layer_that_was_converted_before_is_converted_again_with_one_table(layer: Layer, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    second = Layer(tmp_path / "again", layer.plain)
    assert second.packed == layer.packed


def test_a_part_that_was_changed_is_refused(layer: Layer, tmp_path: Path) -> None:
    table, end = toc.fetch(layer.descriptor, layer.part)
    fd = os.open(tmp_path / "skeleton", os.O_RDWR | os.O_CREAT)
    chunk = toc.skeleton(table, end, fd)[0]
    os.close(fd)
    for packed in (gzip.compress(b"something else, of that length"), layer.packed[chunk.begin:chunk.begin + 12], b"", b"no gzip"):
        with pytest.raises(toc.BadTable):
            toc.unpack("stargz", packed, chunk)


def test_a_table_that_the_manifest_does_not_name_is_refused(layer: Layer) -> None:
    other = Descriptor(layer.descriptor.media_type, layer.descriptor.digest, layer.descriptor.size, annotations={toc.STARGZ: "sha256:" + "0" * 64})
    with pytest.raises(toc.BadTable, match="not the one that the manifest names"):
        toc.fetch(other, layer.part)


def row(**more: object) -> toc.Row:
    return toc.Row(**{"name": "f", "type": "reg", "size": 10, "offset": 5, "chunk_digest": "sha256:" + "0" * 64, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [
    [row(type="door")], [row(chunk_digest="")], [row(offset=500)], [row(offset=-5)], [row(chunk_size=4)], [row(chunk_size=11)], [row(size=1 << 40)],
    [row(chunk_size=4), row(type="chunk", chunk_offset=5)], [row(chunk_size=4), row(type="chunk", chunk_offset=4, chunk_size=7)],
    [row(type="dir", size=0), row(type="chunk")], [row(type="chunk")], [row(chunk_type="zeros", chunk_offset=1)], [row(xattrs={"a": "?"})], [row(uid=-1 << 70)],
], ids=str)
def test_a_table_that_contradicts_itself_is_refused(rows: list[toc.Row], tmp_path: Path) -> None:
    fd = os.open(tmp_path / "skeleton", os.O_RDWR | os.O_CREAT)
    with pytest.raises(toc.BadTable):
        toc.skeleton(toc.Table(rows), 100, fd)
    os.close(fd)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-51] + bytes(51), lambda data: data[:-35] + b"f" * 16 + data[-19:], lambda data: b""])
def test_a_damaged_footer_is_refused(layer: Layer, damage: object) -> None:
    layer.packed = damage(layer.packed)  # type: ignore[operator]
    with pytest.raises(toc.BadTable):
        toc.fetch(layer.descriptor, layer.part)
