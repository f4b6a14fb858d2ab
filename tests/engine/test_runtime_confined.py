"""Unpacking in a confined child: it works, and an archive that wants out reaches nothing."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.runtime.client import KeeperError
from tests.support.keeper import Lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = await Lab.open()
    yield lab
    await lab.close()


def archive(path: str, *entries: tuple[str, bytes, bytes | str]) -> int:
    """A tar file of (name, kind, content or link target), opened for reading."""
    with tarfile.open(path, "w") as tar:
        for name, kind, body in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if isinstance(body, bytes):
                entry.size = len(body)
                tar.addfile(entry, io.BytesIO(body))
            else:
                entry.linkname = body
                tar.addfile(entry)
    return os.open(path, os.O_RDONLY)


async def unpack(lab: Lab, tar: int) -> int:
    os.makedirs(f"{lab.at}/target", exist_ok=True)
    target = os.open(f"{lab.at}/target", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return (await lab.keeper.unpack(tar, target)).entries
    finally:
        os.close(target)
        os.close(tar)


async def test_files_arrive_with_owner_and_mode(lab: Lab) -> None:
    before = lab.census()
    tar = archive(f"{lab.at}/t", ("d", tarfile.DIRTYPE, b""), ("d/f", tarfile.REGTYPE, b"content"), ("l", tarfile.SYMTYPE, "d/f"))
    assert await unpack(lab, tar) == 3
    assert Path(lab.at, "target/l").read_bytes() == b"content"
    assert lab.census() == before


async def test_an_archive_cannot_write_outside_of_its_target(lab: Lab) -> None:
    os.mkdir(f"{lab.at}/victim")
    for n, entries in enumerate((
        [("x", tarfile.SYMTYPE, f"{lab.at}/victim"), ("x/f", tarfile.REGTYPE, b"bad")],
        [("../victim/f", tarfile.REGTYPE, b"bad")],
        [(f"{lab.at}/victim/f", tarfile.REGTYPE, b"bad")],
        [("h", tarfile.LNKTYPE, "../exec/keeper.lock"), ("h", tarfile.REGTYPE, b"bad")],
    )):  # fmt: skip
        try:
            await unpack(lab, archive(f"{lab.at}/t{n}", *entries))
        except KeeperError as error:
            assert error.stage == "unpack"
    assert os.listdir(f"{lab.at}/victim") == []
    assert Path(lab.exec_root, "keeper.lock").read_bytes() == b""


async def test_what_is_no_archive_is_an_error_and_not_the_end_of_the_keeper(lab: Lab) -> None:
    Path(lab.at, "junk").write_bytes(os.urandom(4096))
    with pytest.raises(KeeperError) as caught:
        await unpack(lab, os.open(f"{lab.at}/junk", os.O_RDONLY))
    assert caught.value.stage == "unpack" and caught.value.message
    assert await lab.sh("echo alive") == "alive\n"
