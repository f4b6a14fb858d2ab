"""Volumes in a temporary directory: what a user stores must stay, and must stay inside."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from backend.errors import Conflict, InvalidArgument, NotFound
from backend.volumes.local import VolumeStore


def nobody(_: str) -> Sequence[str]:
    return ()


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[VolumeStore]:
    made = VolumeStore(str(tmp_path))
    await made.open()
    yield made
    await made.close()


async def reopened(tmp_path: Path) -> VolumeStore:
    made = VolumeStore(str(tmp_path))
    await made.open()
    return made


async def test_a_volume_and_its_labels_survive_a_restart(store: VolumeStore, tmp_path: Path) -> None:
    volume = store.create("data", labels={"owner": "me"})
    Path(volume.mountpoint, "file").write_text("kept")
    assert volume.mountpoint == f"{tmp_path}/volumes/data/_data"
    again = await reopened(tmp_path)
    assert again.list() == [volume]
    assert Path(again.get("data").mountpoint, "file").read_text() == "kept"
    await again.close()


async def test_creating_an_existing_volume_gives_it_unchanged(store: VolumeStore) -> None:
    first = store.create("data", labels={"a": "1"})
    assert store.create("data", labels={"b": "2"}) is first
    with pytest.raises(Conflict):
        store.create("data", driver="nfs")
    with pytest.raises(NotFound, match="error looking up volume plugin nfs"):
        store.create("other", driver="nfs")


async def test_an_anonymous_volume_is_named_and_marked_as_docker_does(store: VolumeStore) -> None:
    volume = store.create("")
    assert len(volume.name) == 64 and set(volume.name) <= set("0123456789abcdef")
    assert volume.anonymous and volume.labels == {"com.docker.volume.anonymous": ""}


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc", ".hidden", "-x", "a\n", "a b", "é1", "x" * 256, "a"])
async def test_names_that_could_leave_the_store_are_refused(store: VolumeStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="create "):
        store.create(name)
    assert os.listdir(tmp_path / "volumes") == []


async def test_options_that_cannot_be_are_refused_in_dockers_words(store: VolumeStore) -> None:
    for options, why in (({"colour": "red"}, 'invalid option: "colour"'), ({"type": "nfs"}, 'missing required option: "device"'),
                         ({"o": "ro"}, 'missing required option: "device"'), ({"size": "1g"}, "no quota support")):
        with pytest.raises(InvalidArgument, match=why):
            store.create("data", options=options)
    assert store.list() == []


async def test_a_volume_in_use_is_not_removed(store: VolumeStore) -> None:
    volume = store.create("data")
    with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[abc, def\]$"):
        store.remove("data", users=lambda _: ["abc", "def"])
    assert Path(volume.mountpoint).is_dir()
    store.remove("data", users=nobody)
    assert not Path(volume.mountpoint).exists()
    with pytest.raises(NotFound, match="get data: no such volume"):
        store.remove("data", users=nobody)
    store.remove("data", users=nobody, force=True)


async def test_removal_leaves_no_files_and_harms_nothing_outside(store: VolumeStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    data = Path(store.create("data").mountpoint)
    (data / "link").symlink_to(outside)
    deep = os.open(data, os.O_RDONLY)
    for _ in range(1500):      # deeper than recursion, descriptors or a path could go
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    store.remove("data", users=nobody)
    await store.close()
    assert os.listdir(tmp_path / "volumes") == []
    assert (outside / "precious").read_text() == "x"


async def test_first_use_copies_what_the_image_has(store: VolumeStore, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "sub").mkdir(parents=True)
    (image / "sub" / "file").write_text("content")
    (image / "sub" / "file").chmod(0o640)
    os.link(image / "sub" / "file", image / "same")
    (image / "link").symlink_to("/etc/passwd")
    os.mkfifo(image / "pipe")
    os.utime(image / "sub", ns=(1, 2))
    image.chmod(0o1777)
    volume = store.create("data")
    source = os.open(image, os.O_RDONLY)
    assert await store.populate(volume, source) is True
    data = Path(volume.mountpoint)
    assert (data / "sub" / "file").read_text() == "content"
    assert (data / "sub" / "file").stat().st_mode & 0o7777 == 0o640
    assert (data / "same").stat().st_ino == (data / "sub" / "file").stat().st_ino
    assert os.readlink(data / "link") == "/etc/passwd"
    assert (data / "pipe").is_fifo() and (data / "sub").stat().st_mtime_ns == 2
    assert data.stat().st_mode & 0o7777 == 0o1777
    assert sorted(os.listdir(data.parent)) == ["_data", "volume.json"]
    (image / "new").write_text("later")
    assert await store.populate(volume, source) is False, "a volume with contents is left alone"
    assert not (data / "new").exists()
    os.close(source)
    assert await store.usage("data") == len("content") + len("/etc/passwd")


async def test_two_containers_that_start_at_once_fill_a_volume_once(store: VolumeStore, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    for number in range(50):
        (image / str(number)).write_text("x")
    volume = store.create("data")
    source = os.open(image, os.O_RDONLY)
    assert sorted(await asyncio.gather(*(store.populate(volume, source) for _ in range(4)))) == [False] * 3 + [True]
    os.close(source)
    assert len(os.listdir(volume.mountpoint)) == 50


async def test_what_a_crash_left_is_finished_or_swept(store: VolumeStore, tmp_path: Path) -> None:
    place = Path(store.create("data").mountpoint).parent
    (place / "_ready").mkdir()
    (place / "_ready" / "file").write_text("copied")
    for name in (".gone-1", ".gone-1.a.1", ".new-2"):
        (tmp_path / "volumes" / name / "x").mkdir(parents=True)
    again = await reopened(tmp_path)
    assert (place / "_data" / "file").read_text() == "copied" and not (place / "_ready").exists()
    await again.close()
    assert os.listdir(tmp_path / "volumes") == ["data"]


async def test_an_unreadable_description_costs_labels_and_never_data(store: VolumeStore, tmp_path: Path) -> None:
    volume = store.create("data", labels={"a": "b"})
    other = store.create("other")
    Path(volume.mountpoint, "file").write_text("kept")
    for broken in ("", "{", json.dumps({"driver": 5})):
        Path(volume.mountpoint).parent.joinpath("volume.json").write_text(broken)
        again = await reopened(tmp_path)
        assert again.get("data").labels == {} and again.get("other") == other
        assert Path(again.get("data").mountpoint, "file").read_text() == "kept"
        await again.close()


# --- contents replaced as a whole ---------------------------------------------------------------------------------
async def test_a_replacement_is_all_of_the_new_and_the_old_is_deleted(store: VolumeStore, tmp_path: Path) -> None:
    volume = store.create("data")
    Path(volume.mountpoint, "old").write_text("old")
    scratch, fd = store.scratch()
    os.close(fd)
    (tmp_path / "volumes" / scratch / "new").write_text("new")
    store.replace("data", scratch)
    assert os.listdir(volume.mountpoint) == ["new"]
    await store.close()
    assert sorted(os.listdir(tmp_path / "volumes")) == ["data"]


@pytest.mark.parametrize("moved", [False, True], ids=["before-the-old-goes", "between-old-and-new"])
async def test_a_replacement_that_a_crash_cut_short_is_finished_at_the_next_start(store: VolumeStore, tmp_path: Path, moved: bool) -> None:
    volume = store.create("data")
    Path(volume.mountpoint, "old").write_text("old")
    home = Path(volume.mountpoint).parent
    (home / "_replace").mkdir()
    (home / "_replace" / "new").write_text("new")
    if moved:
        (tmp_path / "volumes" / ".gone-x").mkdir()
        os.rename(home / "_data", tmp_path / "volumes" / ".gone-x" / "_data")
    again = await reopened(tmp_path)
    assert os.listdir(again.get("data").mountpoint) == ["new"]
    await again.close()
    assert sorted(os.listdir(tmp_path / "volumes")) == ["data"]


async def test_a_copy_on_its_way_is_swept_at_the_next_start(store: VolumeStore, tmp_path: Path) -> None:
    scratch, fd = store.scratch()
    os.close(fd)
    (tmp_path / "volumes" / scratch / "half").write_text("x")
    await (await reopened(tmp_path)).close()
    assert os.listdir(tmp_path / "volumes") == []


async def test_a_volume_that_is_being_copied_is_not_removed(store: VolumeStore) -> None:
    store.create("data")
    await store.acquire("data", "files-1")
    with pytest.raises(Conflict, match="volume is in use"):
        store.remove("data", users=lambda _: ())
    store.release("files-1")
    store.remove("data", users=lambda _: ())
    with pytest.raises(NotFound):
        await store.acquire("data", "files-2")


def test_a_copy_keeps_holes_links_and_attributes(tmp_path: Path) -> None:
    from backend.volumes import tree

    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    with open(tmp_path / "from" / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"middle")
        file.truncate(16 << 20)
    os.link(tmp_path / "from" / "sparse", tmp_path / "from" / "again")
    source, target = (os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("from", "to"))
    tree.copy(source, target)
    os.close(source)
    os.close(target)
    seen = os.stat(tmp_path / "to" / "sparse")
    assert seen.st_size == 16 << 20 and seen.st_blocks * 512 < 1 << 20 and seen.st_nlink == 2
    assert (tmp_path / "to" / "sparse").read_bytes() == (tmp_path / "from" / "again").read_bytes()
