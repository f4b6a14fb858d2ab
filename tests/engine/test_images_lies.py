"""Registries that lie, break off, stall and send for ever: each is told apart in words, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from backend.errors import EngineError, NotFound, Unauthorized
from backend.images import ImageStore
from backend.images.types import ProgressLine, RegistryAuth, RegistrySettings
from tests.support.images import docker_archive, nothing, pieces, store, tar_of
from tests.support.liar import INDEX, MANIFEST, Liar, Talk, digest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root")
HASTE = RegistrySettings(pause=0.01, stall=1.0)
SMALL = tar_of([("a", b"x" * 1000)])
BIG = tar_of([("big", random.Random(3).randbytes(1_500_000))])
ANNA = RegistryAuth("anna", "geheim")


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as made:
        yield made


@pytest.fixture
async def images() -> AsyncIterator[ImageStore]:
    async with store(settings=HASTE) as made:
        yield made


async def refused(images: ImageStore, liar: Liar, words: str, *, name: str = "x:1", auth: RegistryAuth | None = None) -> EngineError:
    """The pull fails with *words*, nothing half-made is there, and the next try (of an honest image) succeeds."""
    with pytest.raises(EngineError, match=words) as caught:
        await images.pull(f"{liar.host}/{name}", platform=None, auth=auth, progress=nothing)
    assert images.list() == [] and os.listdir(f"{images.blobs.root}/ingest") == []
    images.garbage.collect()
    assert images.blobs.all() == []
    return caught.value


async def pulled(images: ImageStore, liar: Liar, name: str = "x:1", auth: RegistryAuth | None = None) -> bytes:
    """The file ``big`` or ``a`` of the pulled image."""
    image = await images.pull(f"{liar.host}/{name}", platform=None, auth=auth, progress=nothing)
    where = (await images.lowers(image.id, "h"))[0]
    with open(f"{where}/{os.listdir(where)[0]}", "rb") as file:
        return file.read()


# --- what is promised and not kept ------------------------------------------------------------------------------------
async def test_a_layer_with_another_digest_is_thrown_away(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL])
    other = gzip.compress(tar_of([("a", b"evil" * 250)]), 1)
    liar.lie("GET", "/blobs/", lambda talk: len(liar.blobs[talk.path[-71:]]) < 250 and talk.path.endswith(digest(gzip.compress(SMALL, 1, mtime=0))[7:])
             and talk.say(200, other[: len(gzip.compress(SMALL, 1, mtime=0))].ljust(len(gzip.compress(SMALL, 1, mtime=0)), b"\0")))
    await refused(images, liar, "verification failed|damaged|ends too early")


async def test_a_manifest_with_another_digest_is_thrown_away(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL])
    liar.lie("GET", "/manifests/", lambda talk: talk.say(200, b'{"schemaVersion":2}', {"Docker-Content-Digest": digest(b"another")}))
    await refused(images, liar, "manifest verification failed")
    with pytest.raises(EngineError, match="manifest verification failed"):
        await images.pull(f"{liar.host}/x@{digest(b'wanted')}", platform=None, auth=None, progress=nothing)


async def test_a_layer_that_is_larger_or_smaller_than_promised_is_refused(liar: Liar, images: ImageStore) -> None:
    def smaller(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["size"] -= 1

    def larger(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["size"] += 5

    liar.image("x", "1", [SMALL], change=smaller)
    await refused(images, liar, "more than the")
    liar.image("y", "1", [SMALL], change=larger)
    await refused(images, liar, "fewer than its manifest promises", name="y:1")


async def test_a_layer_with_another_diff_id_than_the_configuration_says_is_refused(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL], diff_ids=[digest(b"other")])
    await refused(images, liar, "verification failed.*not sha256:.* as the image says")


async def test_another_number_of_layers_in_the_configuration_is_refused(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL], diff_ids=[digest(SMALL), digest(b"one more")])
    await refused(images, liar, "its configuration has 2 layers and its manifest 1")


# --- too much ---------------------------------------------------------------------------------------------------------
async def test_a_manifest_that_does_not_end_is_not_read_into_memory(liar: Liar, images: ImageStore) -> None:
    def flood(talk: Talk) -> bool:
        talk.say(200, b"{", {"Content-Type": MANIFEST}, length=50 << 20)
        for _ in range(50):
            talk.write(b" " * (1 << 20))
        return True

    liar.lie("GET", "/manifests/", flood)
    await refused(images, liar, "more than 4 MiB")


async def test_a_layer_that_does_not_end_is_cut_where_it_should_have_ended(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [BIG])

    def flood(talk: Talk) -> bool:
        data = liar.blobs[talk.path[-71:]]
        if len(data) < 10_000:
            return False
        talk.say(200, data, length=len(data) + (1 << 30))
        for _ in range(100):
            talk.write(bytes(1 << 20))
        return True

    liar.lie("GET", "/blobs/", flood)
    await refused(images, liar, "more than the .* bytes")


async def test_indexes_in_indexes_without_end_are_refused(liar: Liar, images: ImageStore) -> None:
    entry = {"mediaType": MANIFEST, "digest": digest(b"x"), "size": 1, "platform": {"os": "linux", "architecture": "amd64"}}
    for _ in range(8):
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}]}
        entry = liar.manifest("x", "1", document)
    from backend.spec.image import Platform
    with pytest.raises(EngineError, match="nested too deeply"):
        await images.pull(f"{liar.host}/x:1", platform=Platform("linux", "amd64"), auth=None, progress=nothing)


async def test_a_bomb_in_a_layer_is_stopped_before_it_fills_the_disk(liar: Liar, images: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.images.inflate.GROWTH_LIMIT", 1 << 24)
    liar.image("x", "1", [bytes(1 << 25)])
    await refused(images, liar, "grows beyond all measure")


# --- what we do not take ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("change", "words"), [
    ({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "schema 1"),
    ({"manifests": []}, "ambiguous"),
    ({"mediaType": "application/vnd.example.thing"}, "no image that can be run"),
])
async def test_manifests_that_cannot_be_verified_are_refused_with_the_reason(liar: Liar, images: ImageStore, change: dict[str, Any], words: str) -> None:
    liar.image("x", "1", [SMALL], change=lambda manifest: manifest.update(change))
    await refused(images, liar, words)


async def test_foreign_layers_are_refused_and_their_addresses_never_asked(liar: Liar, images: ImageStore) -> None:
    def foreign(manifest: dict[str, Any]) -> None:
        manifest["layers"][0].update(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=[f"http://{liar.host}/secret"])

    liar.image("x", "1", [SMALL], change=foreign)
    await refused(images, liar, "foreign layer")
    assert not any(path == "/secret" for _, path, _ in liar.seen)


# --- hostile layers ---------------------------------------------------------------------------------------------------
def member(kind: bytes, link: str = "") -> Any:
    import tarfile
    info = tarfile.TarInfo("x")
    info.type, info.linkname, info.devmajor, info.devminor = kind, link, 1, 3
    return info


@pytest.mark.parametrize(("files", "words"), [
    ([("../../etc/evil", b"x")], "leads out"),
    ([("a/../../evil", b"x")], "leads out"),
    ([("evil", member(b"1", "../../../etc/passwd"))], "leads out|no file of this layer"),
    ([("evil", member(b"1", "/etc/passwd"))], "no file of this layer"),
    ([("a/.wh..", b"")], "whiteout"),
    ([("a/.wh..wh.x", b"")], "whiteout"),
    ([("x" * 300, b"")], "cannot be a file's name"),
])
async def test_a_hostile_layer_is_refused_in_words(liar: Liar, images: ImageStore, files: list[Any], words: str) -> None:
    liar.image("x", "1", [tar_of(files)])
    await refused(images, liar, words)


async def test_absolute_names_links_devices_and_whiteouts_of_nothing_stay_inside_the_layer(liar: Liar, images: ImageStore) -> None:
    layer = tar_of([("/abs", b"inside"), ("out", member(b"2", "/etc")), ("out/passwd", b"mine"), ("dev", member(b"3")), (".wh.nothing", b"")])
    liar.image("x", "1", [layer])
    image = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    where = (await images.lowers(image.id, "h"))[0]
    assert open(f"{where}/abs").read() == "inside" and os.readlink(f"{where}/out") == "/etc"
    assert open(f"{where}/etc/passwd").read() == "mine"  # below the layer's own root, where unpacking would have put it
    with pytest.raises(PermissionError):
        open(f"{where}/dev")  # the mount allows no devices


async def test_a_layer_of_many_files_is_ready_in_one_pass(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [tar_of((f"d{n % 100}/f{n}", b"") for n in range(30_000))])
    image = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    where = (await images.lowers(image.id, "h"))[0]
    assert len(os.listdir(where)) == 100 and len(os.listdir(f"{where}/d7")) == 300


# --- breaking off -----------------------------------------------------------------------------------------------------
async def test_a_download_that_breaks_off_goes_on_where_it_broke(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [BIG])
    ranges: list[str] = []

    def break_off(talk: Talk) -> bool:
        data = liar.blobs[talk.path[-71:]]
        ranges.append(talk.headers.get("Range", ""))
        if len(data) < 10_000:
            return False
        start = int((talk.headers.get("Range") or "bytes=0-")[6:-1])
        talk.say(206 if start else 200, data[start : start + 400_000],
                 {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}, length=len(data) - start)
        return talk.hang_up()

    liar.lie("GET", "/blobs/", break_off)
    lines: list[ProgressLine] = []
    image = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=lines.append)
    assert "Retrying in 1 second" in [one.status for one in lines]
    with open(f"{(await images.lowers(image.id, 'h'))[0]}/big", "rb") as file:
        assert file.read() == random.Random(3).randbytes(1_500_000)
    assert len([one for one in ranges if one.startswith("bytes=")]) >= 3


async def test_a_registry_that_knows_no_ranges_is_read_again_from_the_beginning(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [BIG])

    def once(talk: Talk) -> bool:
        data = liar.blobs[talk.path[-71:]]
        if len(data) < 10_000:
            return False
        talk.say(200, data[:700_000], length=len(data))
        return talk.hang_up()

    liar.lie("GET", "/blobs/", once, times=2)
    liar.lie("GET", "/blobs/", lambda talk: talk.say(200, liar.blobs[talk.path[-71:]]))
    assert await pulled(images, liar) == random.Random(3).randbytes(1_500_000)


async def test_another_part_than_was_asked_for_is_refused(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [BIG])

    def wrong(talk: Talk) -> bool:
        data = liar.blobs[talk.path[-71:]]
        if len(data) < 10_000:
            return False
        if "Range" in talk.headers:
            return talk.say(206, data[10:], {"Content-Range": f"bytes 10-{len(data) - 1}/{len(data)}"})
        talk.say(200, data[:500_000], length=len(data))
        return talk.hang_up()

    liar.lie("GET", "/blobs/", wrong)
    await refused(images, liar, "another part")


async def test_a_registry_that_stalls_is_given_up(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [BIG])

    def stall(talk: Talk) -> bool:
        data = liar.blobs[talk.path[-71:]]
        if len(data) < 10_000:
            return False
        if "Range" not in talk.headers:
            talk.say(200, data[:100_000], length=len(data))
        liar.released.wait(20)
        return talk.hang_up()

    liar.lie("GET", "/blobs/", stall)
    await refused(images, liar, "i/o timeout|broke off")


async def test_a_pull_from_a_registry_that_stalls_can_be_cancelled(liar: Liar) -> None:
    async with store(settings=RegistrySettings(pause=0.01, stall=2.0)) as images:
        liar.image("x", "1", [BIG])
        stalls = threading.Event()

        def stall(talk: Talk) -> bool:
            talk.say(200, b"x", length=100)
            stalls.set()
            liar.released.wait(20)
            return talk.hang_up()

        liar.lie("GET", "/blobs/", stall)
        task = asyncio.ensure_future(images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing))
        await asyncio.to_thread(stalls.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert images.list() == [] and os.listdir(f"{images.blobs.root}/ingest") == []


async def test_a_registry_that_dies_in_the_middle_is_named(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [BIG])
    liar.lie("GET", "/blobs/", lambda talk: talk.hang_up())
    await refused(images, liar, liar.host)


# --- refusals ---------------------------------------------------------------------------------------------------------
async def test_patience_is_had_with_a_busy_registry_as_long_as_it_asks_for(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL])
    liar.lie("GET", "/manifests/", lambda talk: talk.fail(429, "TOOMANYREQUESTS", {"Retry-After": "0"}), times=2)
    liar.lie("GET", "/blobs/", lambda talk: talk.fail(503, "UNAVAILABLE"), times=2)
    assert await pulled(images, liar) == b"x" * 1000
    liar.lie("*", "/manifests/2", lambda talk: talk.fail(429, "TOOMANYREQUESTS", {"Retry-After": "0"}))
    with pytest.raises(EngineError, match="toomanyrequests"):
        await images.pull(f"{liar.host}/x:2", platform=None, auth=None, progress=nothing)


async def test_an_image_that_is_not_at_docker_hub_is_missing_in_dockers_words(liar: Liar, images: ImageStore) -> None:
    bearer = f'Bearer realm="http://{liar.host}/token",service="s",scope="repository:x:pull",error="insufficient_scope"'
    liar.lie("GET", "/token", lambda talk: talk.say(200, b'{"token":"for anonymous"}'))
    liar.lie("*", "/v2/x/", lambda talk: talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": bearer}))
    with pytest.raises(NotFound) as caught:
        await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    assert caught.value.message == (f"pull access denied for {liar.host}/x, repository does not exist or may require 'docker login': "
                                    "denied: requested access to the resource is denied")


@pytest.mark.parametrize(("status", "code", "kind", "words"), [
    (401, "UNAUTHORIZED", Unauthorized, "^unauthorized: authentication required$"),
    (403, "DENIED", NotFound, "^pull access denied for HOST/x, repository does not exist or may require 'docker login': denied: "),
    (404, "NAME_UNKNOWN", NotFound, "^repository HOST/x not found: name unknown: "),
    (404, "MANIFEST_UNKNOWN", NotFound, "^manifest for HOST/x:1 not found: manifest unknown: "),
])
async def test_a_pull_that_is_refused_has_dockers_words_and_kind(
        liar: Liar, images: ImageStore, status: int, code: str, kind: type[EngineError], words: str) -> None:
    liar.lie("*", "/v2/x/", lambda talk: talk.fail(status, code))
    with pytest.raises(kind, match=words.replace("HOST", liar.host)):
        await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)


@pytest.mark.parametrize("challenge", ['Basic realm="x"', "Negotiate", ""])
async def test_a_registry_that_answers_401_for_ever_is_told_from_a_missing_password(liar: Liar, images: ImageStore, challenge: str) -> None:
    liar.lie("*", "/v2/x/", lambda talk: talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge}))
    error = await refused(images, liar, "unauthorized|no basic auth credentials", auth=ANNA)
    assert "geheim" not in error.message and len([one for one in liar.seen if "/v2/x/" in one[1]]) <= 4


async def test_a_token_server_that_gives_bad_tokens_for_ever_is_asked_a_few_times_only(liar: Liar, images: ImageStore) -> None:
    bearer = f'Bearer realm="http://{liar.host}/token",service="s"'
    liar.lie("GET", "/token", lambda talk: talk.say(200, b'{"token":"bad"}'))
    liar.lie("*", "/v2/x/", lambda talk: talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": bearer}))
    await refused(images, liar, "unauthorized")
    assert len([one for one in liar.seen if one[1] == "/token"]) <= 4
    liar.lie("GET", "/token", lambda talk: talk.say(200, b"[" * 100_000))


@pytest.mark.parametrize("answer", [b"", b"null", b'{"token":5}', b'{"token":"a\\nb"}', b"[" * 100_000])
async def test_a_token_server_that_gives_no_token_is_said(liar: Liar, images: ImageStore, answer: bytes) -> None:
    liar.lie("GET", "/token", lambda talk: talk.say(200, answer))
    liar.lie("*", "/v2/x/", lambda talk: talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token"'}))
    await refused(images, liar, "gave no token")


async def test_a_token_that_ends_in_the_middle_of_a_pull_is_renewed(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL, BIG])
    given = [0]

    def token(talk: Talk) -> bool:
        given[0] += 1
        return talk.say(200, f'{{"token":"t{given[0]}"}}'.encode())

    def door(talk: Talk) -> bool:
        uses = len([one for one in liar.seen if one[2] == f"Bearer t{given[0]}"])
        if given[0] and talk.headers.get("Authorization") == f"Bearer t{given[0]}" and uses <= 2:
            return False
        return talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": f'Bearer realm="http://{liar.host}/token",scope="repository:x:pull"'})

    liar.lie("GET", "/token", token)
    liar.lie("*", "/v2/x/", door)
    await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    assert given[0] >= 2


# --- credentials go to no other host ----------------------------------------------------------------------------------
async def test_credentials_do_not_follow_a_redirect_to_another_host(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL])
    with Liar() as other:
        other.blobs = liar.blobs

        def door(talk: Talk) -> bool:
            if not talk.headers.get("Authorization"):
                return talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="x"'})
            return False

        liar.lie("*", "/v2/x/", door)
        liar.lie("GET", "/v2/x/blobs/", lambda talk: talk.say(307, b"", {"Location": f"http://{other.host}{talk.path}"}))
        assert await pulled(images, liar, auth=ANNA) == b"x" * 1000
        assert other.seen and all(authorization == "" for _, _, authorization in other.seen)
        assert any(authorization.startswith("Basic") for _, _, authorization in liar.seen)


async def test_a_redirect_to_what_is_not_encrypted_or_without_end_is_refused(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL])
    liar.lie("GET", "/v2/x/blobs/", lambda talk: talk.say(302, b"", {"Location": "http://198.51.100.1/blob"}))
    await refused(images, liar, "not encrypted; refused")
    liar.image("y", "1", [SMALL])
    liar.lie("GET", "/v2/y/blobs/", lambda talk: talk.say(302, b"", {"Location": talk.path}))
    await refused(images, liar, "redirects without end", name="y:1")


# --- push -------------------------------------------------------------------------------------------------------------
async def loaded(images: ImageStore, liar: Liar, layer: bytes = BIG) -> None:
    await images.load(pieces(docker_archive([layer], tag=f"{liar.host}/up:1")), progress=nothing)


async def test_an_upload_that_breaks_off_goes_on_where_it_broke(liar: Liar, images: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.images.registry._WHOLE", 100_000)
    monkeypatch.setattr("backend.images.registry._CHUNK", 600_000)
    await loaded(images, liar)

    def cut(talk: Talk) -> bool:
        session = liar.uploads[talk.path.rpartition("/")[2]]
        session += talk._handler.rfile.read(250_000)
        return talk.hang_up()

    liar.lie("PATCH", "/uploads/", cut, times=2)
    await images.push(f"{liar.host}/up", "1", auth=None, progress=nothing)
    async with store(settings=HASTE) as other:
        assert await pulled(other, liar, "up:1") == random.Random(3).randbytes(1_500_000)


async def test_an_upload_that_the_registry_forgets_is_begun_anew(liar: Liar, images: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.images.registry._WHOLE", 100_000)
    await loaded(images, liar)
    liar.lie("PATCH", "/uploads/", lambda talk: talk.fail(404, "BLOB_UPLOAD_UNKNOWN"), times=2)
    liar.lie("PUT", "/uploads/", lambda talk: talk.fail(404, "BLOB_UPLOAD_UNKNOWN"), times=1)
    liar.lie("PATCH", "/uploads/", lambda talk: talk.fail(416, "RANGE_INVALID"), times=1)
    await images.push(f"{liar.host}/up", "1", auth=None, progress=nothing)
    assert "up:1" in liar.manifests


@pytest.mark.parametrize(("method", "path", "status", "code", "words"), [
    ("POST", "/uploads/", 401, "UNAUTHORIZED", "unauthorized"),
    ("POST", "/uploads/", 403, "DENIED", "denied"),
    ("POST", "/uploads/", 404, "NAME_UNKNOWN", "denied"),
    ("POST", "/uploads/", 405, "UNSUPPORTED", "may be read-only"),
    ("PUT", "/uploads/", 400, "DIGEST_INVALID", "digest invalid"),
    ("PUT", "/uploads/", 413, "SIZE_INVALID", "so large"),
    ("PUT", "/manifests/", 400, "MANIFEST_INVALID", "manifest invalid"),
    ("PUT", "/manifests/", 404, "NAME_UNKNOWN", "denied"),
    ("PUT", "/manifests/", 413, "SIZE_INVALID", "so large"),
    ("*", "/up/", 429, "TOOMANYREQUESTS", "toomanyrequests"),
    ("*", "/up/", 500, "UNKNOWN", "500|unknown"),
])
async def test_every_refusal_of_a_push_is_told_and_the_next_try_succeeds(liar: Liar, images: ImageStore, method: str, path: str, status: int, code: str, words: str) -> None:
    await loaded(images, liar, SMALL)
    lying = [True]
    liar.lie(method, path, lambda talk: lying[0] and talk.fail(status, code, {"Retry-After": "0"}))
    with pytest.raises(EngineError, match=words):
        await images.push(f"{liar.host}/up", "1", auth=None, progress=nothing)
    assert images.get(f"{liar.host}/up:1").digests == ()
    lying[0] = False
    await images.push(f"{liar.host}/up", "1", auth=None, progress=nothing)
    assert "up:1" in liar.manifests


async def test_a_refused_mount_is_an_upload_and_a_granted_one_is_none(liar: Liar, images: ImageStore) -> None:
    await loaded(images, liar, SMALL)
    await images.push(f"{liar.host}/up", "1", auth=None, progress=nothing)
    await images.tag(f"{liar.host}/up:1", f"{liar.host}/other", "1")
    liar.lie("HEAD", "/other/blobs/", lambda talk: talk.fail(404, "BLOB_UNKNOWN"))
    before = len(liar.seen)
    await images.push(f"{liar.host}/other", "1", auth=None, progress=nothing)
    assert [one for one in liar.seen[before:] if one[0] == "PUT" and "/uploads/" in one[1]]


# --- companions -------------------------------------------------------------------------------------------------------
async def test_a_signature_that_refers_to_an_image_comes_and_goes_with_it(liar: Liar, images: ImageStore) -> None:
    image = liar.image("x", "1", [SMALL])
    signature = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.signature",
                 "config": {"mediaType": "application/vnd.oci.empty.v1+json", **liar.blob(b"{}")},
                 "layers": [{"mediaType": "text/plain", **liar.blob(b"signed")}], "subject": image}
    entry = liar.manifest("x", "unused", signature)
    liar.manifest("x", image["digest"].replace(":", "-"), {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
    found = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    images.garbage.collect()
    assert images.record(found.id).referrers == (entry["digest"],) and images.blobs.has(digest(b"signed"))
    with Liar() as other:
        await images.tag(f"{liar.host}/x:1", f"{other.host}/copy", "1")
        await images.push(f"{other.host}/copy", "1", auth=None, progress=nothing)
        assert other.blobs[digest(b"signed")] == b"signed"
        assert entry["digest"].encode() in other.manifests[f"copy:{image['digest'].replace(':', '-')}"][1]
    await images.remove(found.id, force=True, prune=True, users=lambda _: [])
    assert images.blobs.all() == []


async def test_an_index_with_its_attestation_is_pushed_whole_with_the_digest_it_had(liar: Liar, images: ImageStore) -> None:
    image = liar.image("x", "amd", [SMALL])
    statement = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **liar.blob(b"{ }")},
                 "layers": [{"mediaType": "application/vnd.in-toto+json", **liar.blob(b'{"_type":"x"}')}]}
    attestation = liar.manifest("x", "att", statement)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
    top = liar.manifest("x", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {**image, "platform": {"os": "linux", "architecture": architecture}},
        {**attestation, "platform": {"os": "unknown", "architecture": "unknown"},
         "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"]}}]})
    found = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    assert [(one.kind, one.available) for one in images.parts(found.id)] == [("image", True), ("attestation", True)]
    with Liar() as other:
        await images.tag(f"{liar.host}/x:1", f"{other.host}/copy", "1")
        await images.push(f"{other.host}/copy", "1", auth=None, progress=nothing)
        assert digest(other.manifests["copy:1"][1]) == top["digest"]


async def test_a_pull_mends_what_the_disk_has_spoiled(liar: Liar, images: ImageStore) -> None:
    liar.image("x", "1", [SMALL])
    image = await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    record = images.record(image.id)
    await images.remove(f"{liar.host}/x:1", force=True, prune=True, users=lambda _: [])
    kept = dict(liar.blobs) | {one: data for name, (_, data) in liar.manifests.items() if (one := name.partition(":")[2]).startswith("sha256:")}
    for blob, data in kept.items():  # of an earlier pull that was broken off, and then a bad disk
        with open(images.blobs.path(blob), "wb") as file:
            file.write(data[:-1] + b"!")
    assert await pulled(images, liar) == b"x" * 1000
    assert (await images.check(repair=False, progress=nothing))[2] == [] and images.get(record.id).id == record.id
