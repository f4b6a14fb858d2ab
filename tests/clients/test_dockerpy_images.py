"""Images as programs that use docker-py and the docker client see them, with a registry beside."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ImageLoadError, NotFound

from tests.support.images import docker_archive, tar_of
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.registry import registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
]
SHARED, OWN = tar_of([("shared", b"s" * 100_000)]), tar_of([("own", b"o" * 50_000)])


def slipway(helper: PrivateHelper, *words: str) -> subprocess.CompletedProcess[str]:
    """Our own command line on the helper."""
    return subprocess.run([sys.executable, "-m", "app", "--host", f"unix://{helper.socket}", *words], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with registry() as address:
        yield address


@pytest.fixture(scope="module")
def helper(host: str) -> Iterator[PrivateHelper]:
    with PrivateHelper("--registry-mirror", f"http://{host}") as made:
        yield made


@pytest.fixture
def client(helper: PrivateHelper) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{helper.socket}", version="auto", timeout=60)
    yield made
    for image in made.images.list(all=True):
        made.images.remove(image.id, force=True)
    made.close()


def put(client: docker.DockerClient, name: str, layers: list[bytes], **config: object) -> docker.models.images.Image:
    return client.images.load(docker_archive(layers, tag=name, config=dict(config)))[0]


def test_an_image_pushed_and_removed_comes_back_by_tag_digest_and_all_tags(client: docker.DockerClient, host: str) -> None:
    image = put(client, f"{host}/py/app:1", [SHARED, OWN])
    image.tag(f"{host}/py/app", "2")
    lines = [line for tag in ("1", "2") for line in client.images.push(f"{host}/py/app", tag=tag, stream=True, decode=True)]
    assert not [line for line in lines if "error" in line]
    digest = [line["aux"]["Digest"] for line in lines if "aux" in line][-1]
    client.images.remove(image.id, force=True)
    assert [one.tags for one in client.images.pull(f"{host}/py/app", all_tags=True)] == [[f"{host}/py/app:1", f"{host}/py/app:2"]]
    client.images.remove(image.id, force=True)
    pulled = client.images.pull(f"{host}/py/app@{digest}")
    assert pulled.id == image.id and pulled.attrs["RepoDigests"] == [f"{host}/py/app@{digest}"] and pulled.tags == []
    data = client.images.get_registry_data(f"{host}/py/app:1")
    assert data.id == digest and data.has_platform("linux/amd64" if os.uname().machine == "x86_64" else "linux/arm64")


def test_a_bare_name_is_pulled_from_the_mirror(client: docker.DockerClient, host: str) -> None:
    put(client, f"{host}/library/bare:latest", [OWN])
    client.images.push(f"{host}/library/bare", tag="latest")
    client.images.remove(f"{host}/library/bare:latest")
    assert client.images.pull("bare").tags == ["bare:latest"]


def test_errors_of_load_and_push_are_in_the_stream_where_clients_look(client: docker.DockerClient, host: str) -> None:
    with pytest.raises(ImageLoadError):
        client.images.load(b"abc")
    said = client.images.push(f"{host}/none/at-all", tag="1", stream=True, decode=True)
    assert [line["error"] for line in said if "error" in line] == [f"An image does not exist locally with the tag: {host}/none/at-all"]
    with pytest.raises(NotFound, match="manifest unknown"):
        client.images.pull(f"{host}/none/at-all", tag="1")
    with pytest.raises(APIError, match="has no search"):
        client.images.search(f"{host}/x")


def test_disk_use_tells_shared_from_own_and_prune_says_what_it_freed(client: docker.DockerClient, helper: PrivateHelper) -> None:
    both, one = put(client, "df/both:1", [SHARED, OWN]), put(client, "df/one:1", [SHARED])
    found = client.df()
    assert found["LayersSize"] == len(SHARED) + len(OWN)
    assert {row["Id"]: row["SharedSize"] for row in found["Images"]} == {both.id: len(SHARED), one.id: len(SHARED)}
    assert b"df/both" in helper.docker("system", "df", "-v").stdout
    container = client.containers.create("df/one:1", "x")
    assert client.images.prune(filters={"label": "none"})["SpaceReclaimed"] == 0
    report = client.images.prune(filters={"dangling": False})
    assert report["SpaceReclaimed"] == len(OWN) and {"Untagged": "df/both:1"} in report["ImagesDeleted"]
    container.remove()
    assert [image.id for image in client.images.list()] == [one.id]


def test_prune_keeps_to_its_filters(client: docker.DockerClient) -> None:
    put(client, "old:1", [OWN], created="2020-01-01T00:00:00Z", config={"Labels": {"keep": "no"}})
    put(client, "new:1", [SHARED], created="2030-01-01T00:00:00Z", config={"Labels": {"keep": "yes"}})
    client.images.prune(filters={"dangling": True})
    assert len(client.images.list()) == 2
    client.images.prune(filters={"dangling": False, "label!": "keep=no", "until": "2025-01-01T00:00:00Z"})
    assert len(client.images.list()) == 2
    client.images.prune(filters={"dangling": False, "until": "2025-01-01T00:00:00Z"})
    assert [image.tags for image in client.images.list()] == [["new:1"]]
    with pytest.raises(APIError, match="invalid filter"):
        client.images.prune(filters={"colour": "red"})


def test_save_and_load_of_many_keep_names_and_digests(client: docker.DockerClient, helper: PrivateHelper) -> None:
    put(client, "many/a:1", [SHARED])
    put(client, "many/b:1", [SHARED, OWN])
    data = helper.docker("save", "many/a:1", "many/b:1").stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        rows = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert sorted(row["RepoTags"][0] for row in rows) == ["many/a:1", "many/b:1"]
    before = sorted(image.id for image in client.images.list())
    for identity in before:
        client.images.remove(identity, force=True)
    assert helper.docker("load", stdin=data).stdout.decode().splitlines()[-2:] == ["Loaded image: many/a:1", "Loaded image: many/b:1"]
    assert sorted(image.id for image in client.images.list()) == before


def test_a_store_is_verified_from_the_command_line(client: docker.DockerClient, helper: PrivateHelper) -> None:
    image = put(client, "sound:1", [OWN])
    layer = image.attrs["RootFS"]["Layers"][0].partition(":")[2]
    path = f"{helper.data}/images/blobs/sha256/{layer}"

    done = slipway(helper, "images", "--check")
    assert done.returncode == 0 and "all are whole" in done.stdout, done.stderr
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"broken")
    done = slipway(helper, "images", "--check")
    assert done.returncode == 1 and "NOT REPAIRED: the image came from no registry; load or build it again" in done.stdout


def test_all_tags_come_with_one_pull_of_the_command_line(client: docker.DockerClient, helper: PrivateHelper, host: str) -> None:
    image = put(client, f"{host}/every/tag:1", [OWN])
    image.tag(f"{host}/every/tag", "2")
    helper.docker("push", "-a", f"{host}/every/tag")
    client.images.remove(image.id, force=True)
    done = slipway(helper, "pull", "-a", f"{host}/every/tag")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"{host}/every/tag", done.stderr
    assert client.images.get(image.id).tags == [f"{host}/every/tag:1", f"{host}/every/tag:2"]
    assert "tag can't be used with --all-tags" in slipway(helper, "pull", "-a", f"{host}/every/tag:1").stderr
