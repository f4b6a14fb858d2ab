"""`slipway login`: tried at the registry first, kept where it is said, used by pulls, and gone after `logout`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.keyring import gnome_keyring
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.registry import PASSWORD as WORD
from tests.support.registry import USER, registry
from tests.support.roots import busybox_tar
from tests.support.slipway import command, environment, slipway
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
    *(pytest.mark.skipif(shutil.which(one) is None, reason=f"{one} is not installed") for one in ("docker-registry", "skopeo")),
]


@dataclass
class Place:
    helper: PrivateHelper
    registry: str

    @property
    def image(self) -> str:
        return f"{self.registry}/team/box:1"

    @property
    def config(self) -> Path:
        return Path(self.helper.at, "docker/config.json")

    def log_in(self, *, password: str = WORD) -> subprocess.CompletedProcess[bytes]:
        return slipway(self.helper, "login", "-u", USER, "--password-stdin", self.registry, stdin=password.encode() + b"\n", check=False)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with registry(password=True) as at, PrivateHelper() as helper:
        helper.docker("import", "-c", 'CMD ["sh"]', "-", "box:1", stdin=busybox_tar())
        helper.docker("save", "-o", f"{helper.at}/box.tar", "box:1")
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", f"{USER}:{WORD}",
                        f"docker-archive:{helper.at}/box.tar", f"docker://{at}/team/box:1"], check=True, timeout=60)
        helper.docker("rmi", "box:1")
        yield Place(helper, at)


@pytest.fixture(autouse=True)
def signed_out(place: Place) -> Iterator[None]:
    yield
    slipway(place.helper, "logout", place.registry)
    slipway(place.helper, "rmi", "-f", place.image)


def test_a_login_is_tried_kept_and_used_by_pull_and_run(place: Place) -> None:
    refused = slipway(place.helper, "pull", place.image, check=False)
    assert refused.returncode == 1 and b"unauthorized" in refused.stderr.lower() + b"unauthorized" * (b"no basic auth" in refused.stderr)
    done = place.log_in()
    assert done.returncode == 0 and done.stdout == b"Login Succeeded\n", done.stderr
    assert WORD.encode() not in done.stdout + done.stderr
    pulled = slipway(place.helper, "pull", place.image).stdout.decode()
    assert pulled.splitlines()[-1] == place.image and "Status: Downloaded newer image" in pulled
    slipway(place.helper, "rmi", place.image)
    ran = slipway(place.helper, "run", "--rm", place.image, "echo", "ran")
    assert ran.stdout == b"ran\n" and ran.stderr.startswith(b"Unable to find image"), "progress does not mix with the output"
    assert slipway(place.helper, "pull", "-q", place.image).stdout.decode() == f"{place.image}\n"
    assert WORD.encode() not in Path(place.helper.log).read_bytes(), "the helper's log has no password"


def test_without_a_keyring_the_file_is_used_with_a_warning_and_shared_with_docker(place: Place) -> None:
    done = place.log_in()
    assert b"WARNING" in done.stderr and str(place.config).encode() in done.stderr and b"slipway logout" in done.stderr
    kept = json.loads(place.config.read_text())["auths"][place.registry]["auth"]
    assert base64.b64decode(kept).decode() == f"{USER}:{WORD}"
    assert stat.S_IMODE(place.config.stat().st_mode) == 0o600
    place.helper.docker("pull", place.image)
    out = slipway(place.helper, "logout", place.registry)
    assert out.stdout.decode() == f"Removing login credentials for {place.registry}\n"
    assert place.registry not in json.loads(place.config.read_text()).get("auths", {})
    assert slipway(place.helper, "logout", place.registry).stdout.decode() == f"Not logged in to {place.registry}\n"


@pytest.mark.skipif(shutil.which("gnome-keyring-daemon") is None or shutil.which("dbus-run-session") is None, reason="there is no keyring to test with")
def test_with_a_keyring_the_password_is_in_no_file(place: Place) -> None:
    with gnome_keyring() as session:
        def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
            done = subprocess.run(command(place.helper, *words), input=stdin, capture_output=True, cwd=ROOT, timeout=60,
                                  env={**environment(place.helper), **session})
            assert done.returncode == 0, done.stderr
            return done

        done = run("login", "-u", USER, "--password-stdin", place.registry, stdin=WORD.encode())
        assert (done.stdout, done.stderr) == (b"Login Succeeded\n", b"")
        run("pull", "-q", place.image)
        kept = b"".join(path.read_bytes() for path in (*Path(session["XDG_CONFIG_HOME"]).rglob("*"), place.config) if path.is_file())
        assert place.registry.encode() in kept and WORD.encode() not in kept and base64.b64encode(f"{USER}:{WORD}".encode()) not in kept
        assert run("logout", place.registry).stdout.startswith(b"Removing login credentials")
        assert run("logout", place.registry).stdout.startswith(b"Not logged in")


def test_with_an_encrypted_file_the_password_is_in_there_alone(place: Place) -> None:
    env = {**environment(place.helper), "SLIPWAY_CREDENTIALS_PASSPHRASE": "a phrase"}
    folder = Path(env["XDG_CONFIG_HOME"], "slipway")

    def run(*words: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(words, input=stdin, capture_output=True, cwd=ROOT, timeout=60, env=env)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    run(sys.executable, "-m", "app.credential_helper", "create-file")
    try:
        assert run(*command(place.helper, "login", "-u", USER, "--password-stdin", place.registry), stdin=WORD.encode()) == b"Login Succeeded\n"
        assert not place.config.exists() or WORD.encode() not in place.config.read_bytes()
        for other in (folder / "logins.json", place.config):
            other.unlink(missing_ok=True)
        run(*command(place.helper, "pull", "-q", place.image))
    finally:
        shutil.rmtree(folder)


def test_a_wrong_password_is_refused_and_not_kept(place: Place) -> None:
    done = place.log_in(password="wrong")
    assert done.returncode == 1 and b"does not take this user and password" in done.stderr and b"Nothing was kept" in done.stderr
    assert not place.config.exists() or place.registry not in place.config.read_text()


def test_the_password_is_asked_for_at_the_terminal_and_not_shown(place: Place) -> None:
    asked = Terminal(command(place.helper, "login", place.registry), environment(place.helper), cwd=str(ROOT))
    asked.expect(r"Username: ")
    asked.type(f"{USER}\n")
    asked.expect(r"Password: ")
    asked.type(f"{WORD}\n")
    before = asked.expect(r"Login Succeeded")
    assert WORD not in before.string
    assert asked.end() == 0


def test_what_cannot_be_asked_for_is_said(place: Place) -> None:
    for words, told in ((("login", place.registry), "--password-stdin"), (("login", "--password-stdin", place.registry), "--username"),
                        (("login", "-u", "a", "-p", "b", "--password-stdin", place.registry), "contradict")):
        done = slipway(place.helper, *words, check=False)
        assert done.returncode == 1 and told in done.stderr.decode()
    away = slipway(place.helper, "login", "-u", "a", "--password-stdin", "127.0.0.1:1", stdin=b"x", check=False)
    assert away.returncode == 1 and b"127.0.0.1:1" in away.stderr
