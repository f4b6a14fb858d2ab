"""Pulls from a real registry (Debian's docker-registry, filled by skopeo) and what a pull survives."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import NotFound, ServerError
from backend.images.types import ProgressLine, RegistrySettings
from backend.spec.image import Platform
from tests.support.images import docker_archive, nothing, store, tar_of
from tests.support.registry import free_port, registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (it fills the registry)"),
]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with registry() as address:
        yield address


def push(host: str, name: str, layers: list[bytes], at: Path, *flags: str) -> None:
    archive = at / "push.tar"
    archive.write_bytes(docker_archive(layers))
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *flags,
                    f"docker-archive:{archive}", f"docker://{host}/{name}"], check=True)


def skopeo_digest(host: str, name: str) -> str:
    return subprocess.run(["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{host}/{name}"],
                          check=True, capture_output=True, text=True).stdout.strip()


LAYERS = [tar_of([("etc", None), ("etc/a", b"one"), ("big", random.Random(1).randbytes(3_000_000))]),
          tar_of([("etc/.wh.a", b""), ("etc/b", b"two")]), tar_of([("c", b"three" * 5000)])]


@pytest.mark.parametrize("flags", [(), ("--dest-compress-format", "zstd", "--format", "oci"), ("--format", "v2s2")])
async def test_an_image_is_pulled_with_the_digest_that_the_registry_says(host: str, tmp_path: Path, flags: tuple[str, ...]) -> None:
    name = f"team/app{abs(hash(flags))}:1"
    push(host, name, LAYERS, tmp_path, *flags)
    lines: list[ProgressLine] = []
    async with store() as images:
        image = await images.pull(f"{host}/{name}", platform=None, auth=None, progress=lines.append)
        said = [one.status for one in lines]
        assert said[0] == f"Pulling from {name.partition(':')[0]}" and lines[0].id == "1"
        assert said.count("Pulling fs layer") == said.count("Download complete") == said.count("Pull complete") == 3
        assert said[-2] == f"Digest: {skopeo_digest(host, name)}"
        assert said[-1] == f"Status: Downloaded newer image for {host}/{name}"
        assert image.digests == (f"{host}/{name.partition(':')[0]}@{skopeo_digest(host, name)}",)
        top, middle, bottom = await images.lowers(image.id, "h")
        assert Path(top, "c").read_bytes() == b"three" * 5000 and Path(middle, "etc/b").read_bytes() == b"two"
        assert Path(bottom, "etc/a").read_bytes() == b"one"
        lines.clear()
        again = await images.pull(f"{host}/{name}", platform=None, auth=None, progress=lines.append)
        assert again.id == image.id and len(lines) == 3
        assert lines[-1].status == f"Status: Image is up to date for {host}/{name}"
        by_digest = image.digests[0]
        assert (await images.pull(by_digest, platform=None, auth=None, progress=nothing)).id == image.id
        assert images.get(by_digest).id == image.id


async def test_a_bare_name_comes_from_the_mirror_of_docker_hub(host: str, tmp_path: Path) -> None:
    push(host, "library/thing:latest", [tar_of([("a", b"x")])], tmp_path)
    async with store(settings=RegistrySettings(mirrors=(f"http://{host}",))) as images:
        lines: list[ProgressLine] = []
        await images.pull("thing", platform=None, auth=None, progress=lines.append)
        assert lines[0].status == "Pulling from library/thing" and images.get("thing").references == ("thing:latest",)
        assert lines[-1].status == "Status: Downloaded newer image for thing:latest"


async def test_an_unknown_image_is_told_in_dockers_words(host: str) -> None:
    async with store() as images:
        with pytest.raises(NotFound, match=f"manifest for {host}/nothing:1 not found: manifest unknown: manifest unknown"):
            await images.pull(f"{host}/nothing:1", platform=None, auth=None, progress=nothing)
        assert images.blobs.all() == []


async def test_a_registry_that_is_down_is_named_with_the_reason() -> None:
    port = free_port()
    async with store() as images:
        with pytest.raises(ServerError, match=f"127.0.0.1:{port}/v2/.*dial tcp 127.0.0.1:{port}: connect: connection refused"):
            await images.pull(f"127.0.0.1:{port}/x", platform=None, auth=None, progress=nothing)


async def test_another_platform_than_the_image_has_is_refused(host: str, tmp_path: Path) -> None:
    push(host, "one/arch:1", [tar_of([("a", b"x")])], tmp_path)
    async with store() as images:
        with pytest.raises(NotFound, match="does not match the specified platform"):
            await images.pull(f"{host}/one/arch:1", platform=Platform("linux", "s390x"), auth=None, progress=nothing)


_PULL = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.support.images import store, nothing
async def main():
    async with store(sys.argv[2]) as images:
        print("open", flush=True)
        await images.pull(sys.argv[3], platform=None, auth=None, progress=lambda line: print(line.status, flush=True))
asyncio.run(main())
"""


@pytest.mark.parametrize("after", ["Pulling fs layer", "Downloading", "Download complete", "Extracting", "Digest"])
async def test_a_helper_killed_in_a_pull_leaves_a_store_that_opens_and_pulls(host: str, tmp_path: Path, after: str) -> None:
    name = "kill/me:1"
    push(host, name, LAYERS, tmp_path)
    at = tmp_path / "store"
    at.mkdir()
    child = subprocess.Popen([sys.executable, "-c", _PULL, str(ROOT), str(at), f"{host}/{name}"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(after):
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    async with store(str(at)) as images:
        assert os.listdir(at / "ingest") == [] and all(len(one.layers) == 3 for one in images.list())
        image = await images.pull(f"{host}/{name}", platform=None, auth=None, progress=nothing)
        assert len(await images.lowers(image.id, "h")) == 3
    assert str(at) not in Path("/proc/self/mountinfo").read_text()


async def test_a_cancelled_pull_leaves_nothing_visible(host: str, tmp_path: Path) -> None:
    push(host, "cancel/me:1", [tar_of([("big", random.Random(2).randbytes(30_000_000))])], tmp_path)
    async with store(str(tmp_path)) as images:
        seen = asyncio.Event()
        task = asyncio.ensure_future(images.pull(f"{host}/cancel/me:1", platform=None, auth=None, progress=lambda line: seen.set() if line.status == "Pulling fs layer" else None))
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert images.list() == [] and os.listdir(tmp_path / "ingest") == []
