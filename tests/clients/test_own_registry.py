"""`slipway registry`: a team's registry with TLS, users and a volume, used by docker and skopeo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.own_registry import certificates
from tests.support.images import docker_archive, tar_of
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.registry import free_port

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the helper needs root"),
    pytest.mark.skipif(docker_client() is None, reason="no docker client here"),
    *(pytest.mark.skipif(shutil.which(one) is None, reason=f"{one} is not installed") for one in ("docker-registry", "skopeo")),
]
SECRET = "p4ss-w0rd-of-alice"


class Team:
    def __init__(self, at: Path, helper: PrivateHelper) -> None:
        self.at, self.helper, self.port = at, helper, free_port()
        self.place = f"localhost:{self.port}"
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(at / "share"), "SLIPWAY_CERTS_D": str(at / "certs.d"),
                    "SLIPWAY_HOST": f"unix://{helper.socket}"}

    def slipway(self, *words: str, said: str = "", code: int = 0) -> str:
        done = subprocess.run([sys.executable, "-m", "app", "registry", *words], input=said, capture_output=True, text=True, env=self.env, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def push(self, name: str, at: Path, password: str = SECRET) -> subprocess.CompletedProcess[str]:
        archive = at / "push.tar"
        archive.write_bytes(docker_archive([tar_of([("etc/a", b"one")])]))
        return subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-cert-dir", str(self.at / "certs.d" / self.place), "--dest-creds",
                               f"alice:{password}", f"docker-archive:{archive}", f"docker://{self.place}/{name}"], capture_output=True, text=True)

    def pull(self, name: str) -> str:
        done = self.helper.docker("pull", f"{self.place}/{name}", check=False)
        return (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    at = tmp_path_factory.mktemp("team")
    with PrivateHelper("--registry-certs", f"{at}/certs.d") as helper:
        made = Team(at, helper)
        said = made.slipway("run", "-p", str(made.port), "--user", "alice", "--password-stdin", said=f"{SECRET}\n")
        assert f"https://{made.place}" in said and SECRET not in said
        helper.docker("login", "-u", "alice", "--password-stdin", made.place, stdin=SECRET.encode())
        yield made


def test_a_team_signs_in_pushes_and_pulls_over_tls_that_is_checked(team: Team, tmp_path: Path) -> None:
    done = team.push("team/app:1", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Downloaded newer image" in team.pull("team/app:1")
    # Another root in its place: what answers on this port is not our registry any more.
    mine = team.at / "certs.d" / team.place / "ca.crt"
    good = mine.read_bytes()
    mine.write_bytes(certificates.make_root("somebody else").certificate)
    try:
        team.helper.docker("rmi", f"{team.place}/team/app:1")
        assert "certificate" in team.pull("team/app:1")
    finally:
        mine.write_bytes(good)


def test_who_is_not_a_user_gets_nothing(team: Team, tmp_path: Path) -> None:
    assert "unauthorized" in team.push("team/app:2", tmp_path, "another-word").stderr.lower()
    done = team.helper.docker("login", "-u", "alice", "--password-stdin", team.place, stdin=b"another-word", check=False)
    assert done.returncode != 0 and b"another-word" not in done.stderr


def test_a_user_comes_and_goes_while_it_runs(team: Team) -> None:
    team.slipway("user", "bob", "--password-stdin", said="a-word-of-bob\n")
    login = ("login", "-u", "bob", "--password-stdin", team.place)
    team.helper.docker(*login, stdin=b"a-word-of-bob")
    assert "alice, bob" in team.slipway("status")
    team.slipway("user", "--remove", "bob")
    assert team.helper.docker(*login, stdin=b"a-word-of-bob", check=False).returncode != 0
    team.helper.docker("login", "-u", "alice", "--password-stdin", team.place, stdin=SECRET.encode())


def test_images_and_certificate_outlive_the_container(team: Team, tmp_path: Path) -> None:
    assert team.push("team/kept:1", tmp_path).returncode == 0
    root = team.slipway("ca")
    team.slipway("stop")
    assert "Exited" in team.slipway("status")
    team.slipway("rm")
    team.slipway("run", "-p", str(team.port))
    assert team.slipway("ca") == root and "Downloaded newer image" in team.pull("team/kept:1")


def test_no_secret_is_in_what_the_engine_shows_and_the_process_has_few_rights(team: Team) -> None:
    shown = team.helper.docker("inspect", "slipway-registry-registry").stdout.decode()
    hashed = (team.at / "share/slipway/registries/registry/serve/htpasswd").read_text().split(":")[1].strip()
    assert hashed.startswith("$2b$") and hashed not in shown and SECRET not in shown
    pid = team.helper.docker("inspect", "-f", "{{.State.Pid}}", "slipway-registry-registry").stdout.decode().strip()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1"
    assert not Path(f"/proc/{pid}/root/run/registry/root.key").exists(), "the root's key is not for the container"


@pytest.mark.parametrize(("words", "said"), [
    (("run", "other", "--bind", "0.0.0.0"), "everybody could push"),
    (("run", "other", "--bind", "0.0.0.0", "--plain-http", "--anonymous"), "loopback only"),
    (("run", "../other"), "cannot be the name"),
    (("stop", "other"), "there is no registry other"),
])
def test_what_would_be_open_or_is_not_there_is_refused(team: Team, words: tuple[str, ...], said: str) -> None:
    assert said in team.slipway(*words, code=1)
