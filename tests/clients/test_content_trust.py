"""Docker Content Trust with the real client and Debian's notary server: what the engine answers is what gets signed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.images import tar_of
from tests.support.notary import notary
from tests.support.private import PrivateHelper, docker_client
from tests.support.registry import registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the helper needs root"),
    pytest.mark.skipif(docker_client() is None, reason="no docker client here"),
    *(pytest.mark.skipif(shutil.which(one) is None, reason=f"{one} is not installed") for one in ("docker-registry", "notary-server")),
]


class World:
    def __init__(self, host: str, helper: PrivateHelper, env: dict[str, str]) -> None:
        self.host, self.helper, self.env = host, helper, {**os.environ, **env}

    def trusting(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The docker client with DOCKER_CONTENT_TRUST=1."""
        return subprocess.run([docker_client() or "", "-H", f"unix://{self.helper.socket}", *words], capture_output=True, text=True, env=self.env, timeout=60)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with registry() as host, PrivateHelper() as helper, notary(tmp_path_factory.mktemp("notary")) as env:
        helper.docker("pull", "slipway/welcome")
        yield World(host, helper, env)


def test_a_push_is_signed_and_a_pull_takes_what_was_signed_and_no_newer_image_under_the_tag(world: World) -> None:
    image = f"{world.host}/team/app:1"
    world.helper.docker("tag", "slipway/welcome", image)
    pushed = world.trusting("push", image)
    assert pushed.returncode == 0 and f"Successfully signed {image}" in pushed.stdout + pushed.stderr, pushed.stderr
    digest = world.helper.docker("inspect", "-f", "{{index .RepoDigests 0}}", image).stdout.decode().strip().partition("@")[2]
    shown = json.loads(world.trusting("trust", "inspect", image).stdout)
    assert f"sha256:{shown[0]['SignedTags'][0]['Digest']}" == digest, "what was signed is not what was pushed"
    # Somebody moves the tag in the registry: a trusting client still gets the image that was signed.
    other = subprocess.run([docker_client() or "", "-H", f"unix://{world.helper.socket}", "import", "-", image], input=tar_of([("a", b"x")]), capture_output=True)
    assert other.returncode == 0, other.stderr
    world.helper.docker("push", image)
    world.helper.docker("rmi", "-f", image)
    pulled = world.trusting("pull", image)
    assert pulled.returncode == 0 and digest in pulled.stdout, pulled.stderr
    ran = world.trusting("run", "--rm", image, "/bin/busybox", "echo", "signed")
    assert ran.stdout == "signed\n", ran.stderr


def test_what_nobody_signed_is_not_pulled_by_a_trusting_client(world: World) -> None:
    image = f"{world.host}/team/unsigned:1"
    world.helper.docker("tag", "slipway/welcome", image)
    world.helper.docker("push", image)
    pulled = world.trusting("pull", image)
    assert pulled.returncode != 0 and "does not have trust data" in pulled.stderr
