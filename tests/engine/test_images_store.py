"""Images in a real store: load, import, names, removal, layers as file systems. Needs root for the mounts."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile

import pytest

from backend.errors import Conflict, InvalidArgument, NotFound
from backend.images.types import ImageUser, ProgressLine
from tests.support.images import digest, docker_archive, nothing, pieces, store, tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root")


def nobody(_: str) -> list[ImageUser]:
    return []


async def test_an_archive_of_docker_save_loads_and_its_files_can_be_read() -> None:
    lower, upper = tar_of([("etc", None), ("etc/a", b"one"), ("b", b"two" * 1000)]), tar_of([("c", b"three")])
    lines: list[ProgressLine] = []
    async with store() as images:
        assert await images.load(pieces(docker_archive([lower, upper])), progress=lines.append) == ["made:1"]
        assert lines[-1].stream == "Loaded image: made:1\n"
        image = images.get("made:1")
        assert image.references == ("made:1",) and image.config.cmd == ["/bin/true"]
        assert images.get(image.id[7:19]).id == image.id
        top, bottom = await images.lowers(image.id, "holder")
        assert open(f"{bottom}/etc/a").read() == "one" and open(f"{top}/c").read() == "three"
        assert open(f"{bottom}/b", "rb").read() == b"two" * 1000
        assert images.history("made:1")[0].id == image.id


@pytest.mark.parametrize("squeeze", [gzip.compress, lambda data: __import__("lzma").compress(data),
                                     lambda data: __import__("zstandard").compress(data), bytes])
async def test_a_root_file_system_is_imported_from_any_compression(squeeze) -> None:
    tar = tar_of([("bin", None), ("bin/x", os.urandom(300_000)), ("y", b"")])
    async with store() as images:
        made = await images.import_(pieces(squeeze(tar)), reference="debian:mine", message="hand-made",
                                    changes=['CMD ["bash"]', "ENV A=1 B='2 3'", "EXPOSE 80 53/udp", "WORKDIR /srv"])
        assert made.layers == (digest(tar),) and made.references == ("debian:mine",)
        assert made.config.cmd == ["bash"] and made.config.env == ["A=1", "B=2 3"]
        assert set(made.config.exposed_ports) == {"80/tcp", "53/udp"} and made.config.working_dir == "/srv"
        assert made.details.history[0].comment == "hand-made"


async def test_what_was_imported_is_there_after_a_restart(tmp_path) -> None:
    async with store(str(tmp_path)) as images:
        made = await images.import_(pieces(tar_of([("a", b"x")])), reference="kept:1")
    async with store(str(tmp_path)) as images:
        assert [one.id for one in images.list()] == [made.id]
        where, = await images.lowers(made.id, "h")
        assert open(f"{where}/a").read() == "x"


async def test_mounts_that_others_hide_do_not_keep_the_store_from_opening(tmp_path, caplog) -> None:
    def tmpfs(at: str) -> None:
        os.makedirs(at, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", at], check=True)

    layer = f"{tmp_path}/layers/left"
    tmpfs(f"{layer}/mnt")
    tmpfs(layer)
    async with store(str(tmp_path)) as images:
        made = await images.import_(pieces(tar_of([("a", b"x")])), reference="kept:1")
    assert not caplog.text and f" {layer}" not in open("/proc/self/mountinfo").read()      # what hid it went, and it after that
    tmpfs(f"{layer}/mnt")
    tmpfs(str(tmp_path))                                                                # is not ours to take
    try:
        async with store(str(tmp_path)) as images:
            await images.import_(pieces(tar_of([("b", b"y")])), reference=None)
        assert f"{layer}/mnt is left where it is" in caplog.text
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    async with store(str(tmp_path)) as images:
        where, = await images.lowers(made.id, "h")
        assert open(f"{where}/a").read() == "x"
    assert f" {layer}" not in open("/proc/self/mountinfo").read()


async def test_removal_speaks_as_docker_does_and_frees_the_disk(tmp_path) -> None:
    async with store(str(tmp_path)) as images:
        made = await images.import_(pieces(tar_of([("a", b"x")])), reference="one:1")
        await images.tag("one:1", "two", "")
        with pytest.raises(Conflict, match=r"must be forced.*image is referenced in multiple repositories"):
            await images.remove(made.id, force=False, prune=True, users=nobody)
        assert [one.untagged for one in await images.remove("two", force=False, prune=True, users=nobody)] == ["two:latest"]
        stopped, running = ImageUser("c" * 64, False), ImageUser("d" * 64, True)
        with pytest.raises(Conflict, match=r'unable to remove repository reference "one:1" \(must force\) - container cccccccccccc is using'):
            await images.remove("one:1", force=False, prune=True, users=lambda _: [stopped])
        with pytest.raises(Conflict, match="image is being used by running container dddddddddddd"):
            await images.remove(made.id, force=True, prune=True, users=lambda _: [running])
        gone = await images.remove("one:1", force=False, prune=True, users=nobody)
        assert gone[0].untagged == "one:1" and gone[-1].deleted == made.layers[0]
        with pytest.raises(NotFound, match="No such image: one:1"):
            images.get("one:1")
        assert os.listdir(tmp_path / "blobs/sha256") == [] and os.listdir(tmp_path / "layers") == []


async def test_a_container_keeps_the_files_of_an_image_that_is_removed() -> None:
    async with store() as images:
        made = await images.import_(pieces(tar_of([("a", b"x")])), reference="one:1")
        where, = await images.lowers(made.id, "container")
        await images.remove("one:1", force=True, prune=True, users=nobody)
        assert open(f"{where}/a").read() == "x"
        images.release("container")
        assert images.blobs.all() == []


async def test_a_saved_archive_loads_again_with_the_same_id(tmp_path) -> None:
    async with store() as images:
        await images.load(pieces(docker_archive([tar_of([("a", b"x" * 70_000)])], compress=True)), progress=nothing)
        identity = images.get("made:1").id
        saved = b"".join([piece async for piece in images.save(["made:1"])])
    (tmp_path / "saved.tar").write_bytes(saved)
    with tarfile.open(tmp_path / "saved.tar") as tar:
        assert {"oci-layout", "index.json", "manifest.json"} <= set(tar.getnames())
    async with store() as images:
        assert await images.load(pieces(saved), progress=nothing) == ["made:1"]
        assert images.get("made:1").id == identity


@pytest.mark.parametrize(("data", "words"), [
    (b"", "neither"), (b"no tar at all" * 100, "tar|checksum|number|cannot be read"),
    (tar_of([("x", b"y")]), "neither"),
    (gzip.compress(bytes(64))[:20], "too early|damaged"),
    (tar_of([("manifest.json", b'[{"Config":"../../etc/passwd","Layers":[]}]')]), "leads out|has not"),
    (tar_of([("manifest.json", b"[" * 100_000)]), "not JSON"),
])
async def test_a_bad_archive_is_refused_with_words_and_leaves_nothing(data: bytes, words: str, tmp_path) -> None:
    async with store(str(tmp_path)) as images:
        with pytest.raises(InvalidArgument, match=words):
            await images.load(pieces(data), progress=nothing)
        assert images.list() == [] and os.listdir(tmp_path / "ingest") == []


async def test_a_layer_that_is_not_what_its_image_says_is_refused() -> None:
    good, bad = tar_of([("a", b"x")]), tar_of([("a", b"evil")])
    archive = docker_archive([good]).replace(good, bad + bytes(len(good) - len(bad)))
    async with store() as images:
        with pytest.raises(Exception, match="digest"):
            await images.load(pieces(archive), progress=nothing)
        assert images.list() == []


async def test_a_list_of_images_that_cannot_be_read_is_put_aside_and_no_blob_is_lost(tmp_path) -> None:
    async with store(str(tmp_path)) as images:
        await images.import_(pieces(tar_of([("a", b"x")])), reference="one:1")
        blobs = set(images.blobs.all())
    (tmp_path / "references.json").write_bytes(b'[{"id":')
    async with store(str(tmp_path)) as images:
        assert images.list() == [] and set(images.blobs.all()) == blobs
        assert [name for name in os.listdir(tmp_path) if "unreadable" in name]
