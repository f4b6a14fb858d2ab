"""Pushes to real registries (Debian's docker-registry), seen by skopeo: digests stay, credentials are asked for right."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import EngineError, NotFound
from backend.images.types import ProgressLine, RegistryAuth, RegistrySettings
from tests.support.certificates import Authority
from tests.support.images import docker_archive, nothing, pieces, store, tar_of
from tests.support.registry import PASSWORD, USER, TokenServer, registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (it looks at the registry)"),
]
ANNA = RegistryAuth(USER, PASSWORD)
LAYERS = [tar_of([("a", random.Random(1).randbytes(6_000_000))]), tar_of([("b", b"x" * 100_000)])]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with registry() as address:
        yield address


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest_there(name: str) -> str:
    return skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}").strip()


def two_platforms(host: str, name: str, folder: Path) -> str:
    """An index of two platforms at the registry; its digest."""
    rows = []
    for architecture in ("amd64", "s390x"):
        (folder / "a.tar").write_bytes(docker_archive([LAYERS[1]], config={"architecture": architecture}))
        skopeo("copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--format", "oci",
               f"docker-archive:{folder}/a.tar", f"docker://{host}/{name}:{architecture}")
        raw = skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{host}/{name}:{architecture}")
        rows.append({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": len(raw.encode()),
                     "digest": digest_there(f"{host}/{name}:{architecture}"),
                     "platform": {"os": "linux", "architecture": architecture}})
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": rows}
    return put_manifest(host, name, "both", index)


def put_manifest(host: str, name: str, tag: str, document: dict[str, object]) -> str:
    import http.client

    wire = http.client.HTTPConnection(host)
    body = json.dumps(document).encode()
    wire.request("PUT", f"/v2/{name}/manifests/{tag}", body, {"Content-Type": str(document["mediaType"])})
    answer = wire.getresponse()
    answer.read()
    wire.close()
    assert answer.status == 201, answer.status
    return answer.headers["Docker-Content-Digest"]


async def test_a_pushed_image_is_what_other_tools_find_and_pull_gives_it_back(host: str) -> None:
    lines: list[ProgressLine] = []
    async with store() as images:
        await images.load(pieces(docker_archive(LAYERS, tag=f"{host}/my/app:1")), progress=nothing)
        identity = images.get(f"{host}/my/app:1").id
        await images.push(f"{host}/my/app", "1", auth=None, progress=lines.append)
        digest = digest_there(f"{host}/my/app:1")
        assert lines[0].status == f"The push refers to repository [{host}/my/app]"
        assert [one.status for one in lines].count("Pushed") == 2
        assert lines[-2].status.startswith(f"1: digest: {digest} size: ")
        assert lines[-1].aux == {"Tag": "1", "Digest": digest, "Size": int(lines[-2].status.rpartition(" ")[2])}
        assert images.get(identity).digests == (f"{host}/my/app@{digest}",)
        lines.clear()
        await images.push(f"{host}/my/app", "1", auth=None, progress=lines.append)
        assert [one.status for one in lines].count("Layer already exists") == 2
    async with store() as images:
        image = await images.pull(f"{host}/my/app:1", platform=None, auth=None, progress=nothing)
        assert image.id == identity and image.digests == (f"{host}/my/app@{digest}",)


async def test_layers_are_taken_over_from_another_repository_of_the_registry(host: str) -> None:
    lines: list[ProgressLine] = []
    async with store() as images:
        await images.load(pieces(docker_archive(LAYERS, tag=f"{host}/first/app:1")), progress=nothing)
        await images.push(f"{host}/first/app", "1", auth=None, progress=nothing)
        await images.tag(f"{host}/first/app:1", f"{host}/second/app", "2")
        await images.push(f"{host}/second/app", "2", auth=None, progress=lines.append)
        assert [one.status for one in lines].count(f"Mounted from {host}/first/app") == 2
    assert digest_there(f"{host}/second/app:2") == digest_there(f"{host}/first/app:1")


async def test_a_pulled_image_is_pushed_with_the_digest_it_had(host: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive([LAYERS[1]]))
    skopeo("copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--dest-compress-format", "zstd", "--format", "oci",
           f"docker-archive:{tmp_path}/a.tar", f"docker://{host}/zstd/app:1")
    async with store() as images:
        await images.pull(f"{host}/zstd/app:1", platform=None, auth=None, progress=nothing)
        await images.tag(f"{host}/zstd/app:1", f"{host}/zstd/copy", "1")
        await images.push(f"{host}/zstd/copy", "1", auth=None, progress=nothing)
    assert digest_there(f"{host}/zstd/copy:1") == digest_there(f"{host}/zstd/app:1")


async def test_of_many_platforms_the_one_that_is_here_is_pushed_with_its_own_digest(host: str, tmp_path: Path) -> None:
    two_platforms(host, "many/app", tmp_path)
    lines: list[ProgressLine] = []
    async with store() as images:
        await images.pull(f"{host}/many/app:both", platform=None, auth=None, progress=nothing)
        await images.tag(f"{host}/many/app:both", f"{host}/many/copy", "1")
        await images.push(f"{host}/many/copy", "1", auth=None, progress=lines.append)
        assert any("Only linux/" in one.status for one in lines)
        with pytest.raises(NotFound, match="does not match the specified platform"):
            from backend.spec.image import Platform
            await images.push(f"{host}/many/copy", "1", auth=None, progress=nothing, platform=Platform("linux", "s390x"))
    architecture = {"x86_64": "amd64"}.get(os.uname().machine, os.uname().machine)
    if architecture == "amd64":
        assert digest_there(f"{host}/many/copy:1") == digest_there(f"{host}/many/app:amd64")


async def test_all_tags_go_out_at_once_and_an_unknown_name_is_told_in_dockers_words(host: str) -> None:
    async with store() as images:
        await images.load(pieces(docker_archive([LAYERS[1]], tag=f"{host}/tags/app:1")), progress=nothing)
        await images.tag(f"{host}/tags/app:1", f"{host}/tags/app", "2")
        await images.push(f"{host}/tags/app", "", auth=None, progress=nothing)
        assert sorted(json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{host}/tags/app"))["Tags"]) == ["1", "2"]
        with pytest.raises(NotFound, match=f"An image does not exist locally with the tag: {host}/none/app"):
            await images.push(f"{host}/none/app", "1", auth=None, progress=nothing)


async def test_a_registry_with_passwords_takes_the_right_one_and_says_what_is_wrong_otherwise() -> None:
    with registry(password=True) as host:
        async with store() as images:
            await images.load(pieces(docker_archive([LAYERS[1]], tag=f"{host}/my/app:1")), progress=nothing)
            with pytest.raises(EngineError, match="no basic auth credentials"):
                await images.push(f"{host}/my/app", "1", auth=None, progress=nothing)
            with pytest.raises(EngineError, match="unauthorized") as caught:
                await images.push(f"{host}/my/app", "1", auth=RegistryAuth(USER, "falsch"), progress=nothing)
            assert "falsch" not in caught.value.message
            await images.push(f"{host}/my/app", "1", auth=ANNA, progress=nothing)
            with pytest.raises(EngineError, match="no basic auth credentials"):
                await images.pull(f"{host}/my/app:1", platform=None, auth=None, progress=nothing)
            await images.pull(f"{host}/my/app:1", platform=None, auth=ANNA, progress=nothing)


async def test_tokens_are_asked_for_with_the_scopes_that_are_needed() -> None:
    with tempfile.TemporaryDirectory() as folder, TokenServer(folder) as tokens, registry(tokens=tokens) as host:
        async with store() as images:
            await images.load(pieces(docker_archive(LAYERS, tag=f"{host}/my/app:1")), progress=nothing)
            with pytest.raises(EngineError, match=r"denied|unauthorized"):
                await images.push(f"{host}/my/app", "1", auth=None, progress=nothing)
            with pytest.raises(EngineError, match="unauthorized: incorrect username or password"):
                await images.push(f"{host}/my/app", "1", auth=RegistryAuth(USER, "falsch"), progress=nothing)
            tokens.asked.clear()
            await images.push(f"{host}/my/app", "1", auth=ANNA, progress=nothing)
            assert tokens.asked[0] == ("repository:my/app:pull,push",)
            await images.tag(f"{host}/my/app:1", f"{host}/your/app", "1")
            await images.push(f"{host}/your/app", "1", auth=ANNA, progress=nothing)
            assert "repository:my/app:pull" in tokens.asked[-1]
            assert (await images.pull(f"{host}/my/app:1", platform=None, auth=None, progress=nothing)).references


async def test_a_registry_with_a_private_root_is_trusted_by_certs_d_and_by_nothing_else(tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    with registry(tls=authority.issue("server")) as host:
        folder = tmp_path / "certs.d" / host
        folder.mkdir(parents=True)
        shutil.copy(authority.root, folder / "ca.crt")
        trusting = RegistrySettings(certificates=(str(tmp_path / "certs.d"),))
        async with store(settings=trusting) as images:
            await images.load(pieces(docker_archive([LAYERS[1]], tag=f"{host}/my/app:1")), progress=nothing)
            await images.push(f"{host}/my/app", "1", auth=None, progress=nothing)
        other = Authority(str(tmp_path))
        shutil.copy(other.root, folder / "ca.crt")
        async with store(settings=trusting) as images:
            with pytest.raises(EngineError, match="tls: failed to verify certificate"):
                await images.pull(f"{host}/my/app:1", platform=None, auth=None, progress=nothing)
