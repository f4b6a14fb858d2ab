"""Archives in all forms, and a store that is broken and mended."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from backend.errors import EngineError, InvalidArgument
from backend.images import ImageStore
from backend.images.types import ImageUser, Problem, RegistrySettings
from tests.support.images import digest, docker_archive, nothing, pieces, store, tar_of
from tests.support.liar import INDEX, MANIFEST, Liar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root")
LAYERS = [tar_of([("a", random.Random(1).randbytes(300_000))]), tar_of([("b", b"x" * 100_000)])]
SQUEEZES: list[Callable[[bytes], bytes]] = [gzip.compress, lzma.compress, zstandard.compress, bz2.compress, bytes]


@pytest.fixture
async def images() -> AsyncIterator[ImageStore]:
    async with store(settings=RegistrySettings(pause=0.01, stall=2.0)) as made:
        yield made


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as made:
        yield made


async def saved(images: ImageStore, *names: str) -> bytes:
    return b"".join([piece async for piece in images.save(names)])


@pytest.mark.parametrize("squeeze", SQUEEZES)
async def test_an_archive_loads_from_any_compression(images: ImageStore, squeeze: Callable[[bytes], bytes]) -> None:
    assert await images.load(pieces(squeeze(docker_archive(LAYERS))), progress=nothing) == ["made:1"]
    top, bottom = await images.lowers(images.get("made:1").id, "h")
    assert Path(bottom, "a").read_bytes() == random.Random(1).randbytes(300_000) and os.listdir(top) == ["b"]


async def test_layers_that_are_links_to_one_member_load_as_older_dockers_wrote_them(images: ImageStore) -> None:
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "../first/layer.tar"
    config = json.dumps({"os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(LAYERS[0])] * 2}}).encode()
    rows = [{"Config": "c.json", "RepoTags": ["linked:1"], "Layers": ["first/layer.tar", "second/layer.tar"]}]
    data = tar_of([("second/layer.tar", link), ("first/layer.tar", LAYERS[0]), ("c.json", config), ("manifest.json", json.dumps(rows).encode())])
    assert await images.load(pieces(data), progress=nothing) == ["linked:1"]


async def test_many_images_are_saved_together_and_their_layers_once(images: ImageStore) -> None:
    for n in range(3):
        await images.load(pieces(docker_archive([LAYERS[0]], tag=f"many:{n}", config={"author": str(n)})), progress=nothing)
    data = await saved(images, "many")
    assert data.count(LAYERS[0][512:200_000]) == 1
    async with store() as other:
        assert sorted(await other.load(pieces(data), progress=nothing)) == ["many:0", "many:1", "many:2"]


async def test_an_image_saved_by_its_id_has_no_name_after_loading(images: ImageStore) -> None:
    await images.load(pieces(docker_archive(LAYERS)), progress=nothing)
    identity = images.get("made:1").id
    data = await saved(images, identity)
    async with store() as other:
        assert await other.load(pieces(data), progress=nothing) == [identity]
        assert other.get(identity).references == ()


async def test_a_saved_image_has_the_digests_attestations_and_signatures_that_were_pulled(liar: Liar, images: ImageStore) -> None:
    image = liar.image("x", "amd", LAYERS)
    statement = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **liar.blob(b"{ }")},
                 "layers": [{"mediaType": "application/vnd.in-toto+json", **liar.blob(b'{"_type":"x"}')}]}
    attestation = liar.manifest("x", "att", statement)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
    top = liar.manifest("x", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {**image, "platform": {"os": "linux", "architecture": architecture}},
        {**attestation, "platform": {"os": "unknown", "architecture": "unknown"},
         "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}},
        {**image, "digest": digest(b"not here"), "platform": {"os": "linux", "architecture": "s390x"}}]})
    signature = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "application/vnd.oci.empty.v1+json", **liar.blob(b"{}")},
                 "layers": [{"mediaType": "text/plain", **liar.blob(b"signed")}], "subject": image}
    entry = liar.manifest("x", "unused", signature)
    liar.manifest("x", image["digest"].replace(":", "-"), {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    name = f"{liar.host}/x:1"
    await images.pull(name, platform=None, auth=None, progress=nothing)
    data = await saved(images, name)
    async with store() as other:
        assert await other.load(pieces(data), progress=nothing) == [name]
        record = other.record(other.get(name).id)
        assert record.tops[name] == top["digest"] and record.referrers == (entry["digest"],)
        assert other.blobs.has(digest(b"signed")) and other.blobs.has(digest(b'{"_type":"x"}'))
        assert sorted((one.kind, one.available) for one in other.parts(record.id)) == [("attestation", True), ("image", False), ("image", True)]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
async def test_what_we_save_skopeo_reads_and_what_skopeo_writes_we_load(images: ImageStore, tmp_path: Path) -> None:
    await images.load(pieces(docker_archive(LAYERS)), progress=nothing)
    (tmp_path / "ours.tar").write_bytes(await saved(images, "made:1"))
    for kind in ("oci-archive", "docker-archive"):
        done = subprocess.run(["skopeo", "inspect", "--config", f"{kind}:{tmp_path}/ours.tar"], capture_output=True, text=True)
        assert done.returncode == 0 and json.loads(done.stdout)["rootfs"]["diff_ids"] == [digest(one) for one in LAYERS], done.stderr
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", f"oci-archive:{tmp_path}/ours.tar", f"oci-archive:{tmp_path}/theirs.tar:named/it:7"], check=True)
    async with store() as other:
        assert await other.load(pieces((tmp_path / "theirs.tar").read_bytes()), progress=nothing) == ["named/it:7"]
        assert other.get("named/it:7").id == images.get("made:1").id


async def test_an_upload_that_breaks_off_leaves_nothing(images: ImageStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield docker_archive(LAYERS)[:200_000]
        raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await images.load(broken(), progress=nothing)
    with pytest.raises(ConnectionResetError):
        await images.import_(broken(), reference="x:1")
    assert images.list() == [] and os.listdir(f"{images.blobs.root}/ingest") == [] and images.blobs.all() == []


async def test_hostile_members_of_an_archive_are_refused(images: ImageStore) -> None:
    device = tarfile.TarInfo()
    device.type = tarfile.CHRTYPE
    for data in (tar_of([("x", device)]), tar_of([("../../x", b"y")]), docker_archive(LAYERS)[:300_000], tar_of([("manifest.json", b"[1]")])):
        with pytest.raises(InvalidArgument):
            await images.load(pieces(data), progress=nothing)
    assert images.blobs.all() == [] and os.listdir(f"{images.blobs.root}/ingest") == []


# --- what is in use stays ---------------------------------------------------------------------------------------------
def nobody(_: str) -> list[ImageUser]:
    return []


async def test_an_image_that_is_being_saved_stays_whole_although_it_is_removed(images: ImageStore) -> None:
    await images.load(pieces(docker_archive(LAYERS)), progress=nothing)
    stream = images.save(["made:1"])
    data = [await anext(stream)]
    await images.remove("made:1", force=True, prune=True, users=nobody)
    assert images.blobs.all() != []
    data += [piece async for piece in stream]
    assert images.blobs.all() == []
    async with store() as other:
        assert await other.load(pieces(b"".join(data)), progress=nothing) == ["made:1"]


async def test_sizes_say_what_is_shared_and_what_is_an_images_own(images: ImageStore) -> None:
    await images.load(pieces(docker_archive(LAYERS, tag="both:1")), progress=nothing)
    await images.load(pieces(docker_archive(LAYERS[:1], tag="one:1")), progress=nothing)
    both, one = images.get("both:1"), images.get("one:1")
    sizes = images.usage.sizes()
    assert sizes.total == both.size == len(LAYERS[0]) + len(LAYERS[1])
    assert sizes.shared == {both.id: len(LAYERS[0]), one.id: len(LAYERS[0])}
    assert images.usage.freed_by(images.record(both.id)) == len(LAYERS[1])


# --- verify -----------------------------------------------------------------------------------------------------------
def spoil(images: ImageStore, blob: str) -> None:
    path = images.blobs.path(blob)
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 0xFF
    Path(path).write_bytes(data)


async def mended(images: ImageStore) -> list[Problem]:
    _, _, found = await images.check(repair=True, progress=nothing)
    assert (await images.check(repair=True, progress=nothing))[2] == [] or not all(one.done for one in found)
    return found


async def test_a_whole_store_has_no_problems(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", LAYERS)
    await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    blobs, size, problems = await images.check(repair=False, progress=nothing)
    assert problems == [] and blobs == len(images.blobs.all()) and size > 400_000


async def test_broken_blobs_of_a_pulled_image_are_made_or_fetched_again(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", LAYERS)
    image = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    record = images.record(image.id)
    compressed = next(one for one in images.garbage.named_by(record.manifests[0]) if one not in (record.id, *record.layers))
    spoil(images, record.layers[0])
    found = await mended(images)
    assert [(one.what, one.done) for one in found] == [("damaged", "made again from its compressed form")]
    for blob in (compressed, record.id, record.manifests[0]):
        spoil(images, blob)
        assert [one.done for one in await mended(images)] == [f"fetched again from {liar.host}"]
    for layer in (record.layers[0], compressed):
        spoil(images, layer)
    assert {one.done for one in await mended(images)} <= {f"fetched again from {liar.host}", "made again from its compressed form"}
    os.unlink(images.blobs.path(record.layers[1]))
    assert [one.what for one in await mended(images)] == ["missing"]
    where = (await images.lowers(image.id, "h"))[1]
    assert Path(where, "a").read_bytes() == random.Random(1).randbytes(300_000)


async def test_a_damaged_index_is_made_again(images: ImageStore) -> None:
    await images.load(pieces(docker_archive(LAYERS)), progress=nothing)
    if images.layers.form == "directory":
        pytest.skip("layers are unpacked here: there is no index")
    path = Path(images.layers.folder(images.get("made:1").layers[0]), "index")
    data = bytearray(path.read_bytes())
    data[2100] ^= 0xFF
    path.write_bytes(data)
    assert [one.done for one in await mended(images)] == ["indexed again"]


async def test_what_cannot_be_had_again_is_said(images: ImageStore) -> None:
    await images.load(pieces(docker_archive(LAYERS)), progress=nothing)
    spoil(images, images.get("made:1").layers[0])
    found = await mended(images)
    assert [(one.done, one.why) for one in found if one.what == "damaged"] == [("", "the image came from no registry; load or build it again")]


async def test_a_layer_that_was_not_synced_when_the_machine_went_down_is_made_again(liar: Liar, tmp_path: Path) -> None:
    liar.image("x", "1", LAYERS)
    async with store(str(tmp_path)) as images:
        image = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    assert os.listdir(tmp_path / "unsynced") == []
    for layer in image.layers:
        spoil(images, layer)
        (tmp_path / "unsynced" / layer[7:]).write_text("another boot")
    async with store(str(tmp_path)) as images:
        assert (await images.check(repair=False, progress=nothing))[2] == []
        assert os.listdir(tmp_path / "unsynced") == []
        assert os.listdir((await images.lowers(image.id, "h"))[0]) == ["b"]


# --- a disk that is full ----------------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


async def test_a_disk_that_fills_up_is_said_and_the_next_try_with_room_succeeds(liar: Liar, small_disk: Path) -> None:
    big = tar_of([("big", random.Random(5).randbytes(8_000_000))])
    liar.image("x", "1", [big])
    liar.image("y", "1", LAYERS)
    async with store(str(small_disk), settings=RegistrySettings(pause=0.01, stall=2.0)) as images:
        for work in (images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing),
                     images.load(pieces(docker_archive([big])), progress=nothing)):
            with pytest.raises(EngineError, match="No space left on device"):
                await work
            assert images.list() == [] and os.listdir(small_disk / "ingest") == []
        image = await images.pull(f"{liar.host}/y:1", platform=None, auth=None, progress=nothing)
        assert os.listdir((await images.lowers(image.id, "h"))[0]) == ["b"]


async def test_an_image_can_be_removed_on_a_full_disk(liar: Liar, small_disk: Path) -> None:
    liar.image("y", "1", LAYERS)
    async with store(str(small_disk), settings=RegistrySettings(pause=0.01, stall=2.0)) as images:
        await images.pull(f"{liar.host}/y:1", platform=None, auth=None, progress=nothing)
        with open(small_disk / "filler", "wb") as filler:
            with pytest.raises(OSError, match="No space"):
                while True:
                    filler.write(bytes(1 << 16))
                    filler.flush()
        await images.remove(f"{liar.host}/y:1", force=True, prune=True, users=nobody)
        assert images.list() == [] and images.blobs.all() == []


def test_the_tar_helper_of_the_tests_makes_what_it_says() -> None:
    with tarfile.open(fileobj=io.BytesIO(LAYERS[1])) as tar:
        assert tar.getnames() == ["b"]
