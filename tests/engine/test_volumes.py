"""Volumes as root: owners, devices and attributes of an image's directory come along."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backend.volumes.local import VolumeStore

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change owners")]


async def test_owners_devices_and_attributes_are_copied(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "db").write_bytes(b"x" * 3_000_000)
    os.chown(image / "db", 999, 998)
    os.chmod(image / "db", 0o4750)
    os.setxattr(image / "db", "user.note", b"hello")
    os.setxattr(image / "db", "trusted.overlay.origin", b"the layer's own")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(image / "db", "security.capability", capability)
    os.mknod(image / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (image / "link").symlink_to("db")
    os.chown(image / "link", 999, 998, follow_symlinks=False)
    os.chown(image, 999, 998)
    store = VolumeStore(str(tmp_path / "root"))
    await store.open()
    volume = store.create("data")
    source = os.open(image, os.O_RDONLY)
    assert await store.populate(volume, source)
    os.close(source)
    data = Path(volume.mountpoint)
    copied = (data / "db").stat()
    assert (copied.st_uid, copied.st_gid, copied.st_mode & 0o7777) == (999, 998, 0o4750)
    assert (data / "db").read_bytes() == b"x" * 3_000_000
    assert os.getxattr(data / "db", "user.note") == b"hello"
    assert os.getxattr(data / "db", "security.capability") == capability
    assert "trusted.overlay.origin" not in os.listxattr(data / "db")
    assert (data / "null").stat().st_rdev == os.makedev(1, 3)
    assert (data / "link").lstat().st_uid == 999 and data.stat().st_uid == 999
    await store.close()


async def test_an_image_cannot_make_the_copy_follow_its_links(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("k")
    image = tmp_path / "image"
    image.mkdir()
    (image / "dir").symlink_to(secret)
    store = VolumeStore(str(tmp_path / "root"))
    await store.open()
    volume = store.create("data")
    source = os.open(image, os.O_RDONLY)
    assert await store.populate(volume, source)
    os.close(source)
    assert os.listdir(volume.mountpoint) == ["dir"] and Path(volume.mountpoint, "dir").is_symlink()
    await store.close()
