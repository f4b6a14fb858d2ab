"""`credsStore: slipway` with the real docker client, a real gnome-keyring and a registry that wants a password."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import docker_archive, tar_of
from tests.support.keyring import gnome_keyring
from tests.support.private import PrivateHelper, docker_client
from tests.support.programs import install
from tests.support.registry import PASSWORD, USER, registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the helper needs root"),
    pytest.mark.skipif(docker_client() is None, reason="no docker client here"),
    *(pytest.mark.skipif(shutil.which(one) is None, reason=f"{one} is not installed")
      for one in ("docker-registry", "skopeo", "gnome-keyring-daemon", "dbus-run-session")),
]
SECRET = PASSWORD


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    at = tmp_path_factory.mktemp("world")
    with gnome_keyring() as session, registry(password=True) as host, PrivateHelper() as helper:
        archive = at / "image.tar"
        archive.write_bytes(docker_archive([tar_of([("etc/a", b"one")])]))
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", f"{USER}:{SECRET}",
                        f"docker-archive:{archive}", f"docker://{host}/private/app:1"], check=True)
        env = {**os.environ, **session, "PATH": install(at / "bin", "docker-credential-slipway", "slipway"), "DOCKER_CONFIG": str(at / "docker")}
        (at / "docker").mkdir()
        (at / "docker/config.json").write_text('{"credsStore": "slipway"}')
        yield World(at, host, helper, env)


class World:
    def __init__(self, at: Path, host: str, helper: PrivateHelper, env: dict[str, str]) -> None:
        self.at, self.host, self.helper, self.env = at, host, helper, env

    def run(self, *words: str, said: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, input=said, capture_output=True, text=True, env=self.env, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def docker(self, *words: str, said: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(docker_client() or "", "-H", f"unix://{self.helper.socket}", *words, said=said, check=check)

    def credentials(self, verb: str, said: str = "") -> str:
        return self.run("docker-credential-slipway", verb, said=said).stdout.strip()

    def files(self) -> Iterator[Path]:
        """Everything that was written on the way: docker's and our settings, the helper's store and log."""
        for root in (self.at, Path(self.env["XDG_CONFIG_HOME"]), Path(self.helper.at)):
            yield from (one for one in root.rglob("*") if one.is_file() and not one.is_symlink())


def test_docker_signs_in_pulls_and_signs_out_with_the_password_in_gnome_keyring(world: World) -> None:
    image = f"{world.host}/private/app:1"
    assert "no basic auth credentials" in world.docker("pull", image, check=False).stderr
    said = world.docker("login", "-u", USER, "--password-stdin", world.host, said=SECRET)
    assert "Login Succeeded" in said.stdout and "unencrypted" not in said.stderr
    assert json.loads(world.credentials("get", world.host)) == {"ServerURL": world.host, "Username": USER, "Secret": SECRET}
    assert "new passwords are kept in the keyring" in world.credentials("status").lower()
    world.docker("pull", image)
    holding = [one for one in world.files() if SECRET.encode() in one.read_bytes()]
    assert holding == [], "the password was written to a file"
    world.docker("logout", world.host)
    assert json.loads(world.credentials("list")) == {}
    world.docker("rmi", image)
    assert "no basic auth credentials" in world.docker("pull", image, check=False).stderr


def test_a_wrong_password_is_neither_kept_nor_told(world: World) -> None:
    done = world.docker("login", "-u", USER, "--password-stdin", world.host, said="wr0ng-word", check=False)
    assert done.returncode != 0 and "unauthorized" in done.stderr and "wr0ng" not in done.stderr + done.stdout
    assert json.loads(world.credentials("list")) == {}


def test_a_locked_out_keyring_is_an_error_and_no_password_in_a_file(world: World) -> None:
    env = {**world.env, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}
    done = subprocess.run(["docker-credential-slipway", "store"], input=json.dumps({"ServerURL": "x.example", "Username": "a", "Secret": SECRET}),
                          capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 1 and "create-file" in done.stdout and SECRET not in done.stdout + done.stderr
