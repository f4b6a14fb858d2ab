"""The program docker-credential-slipway as clients call it, on the encrypted file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SECRET = "s3cret-pass"


class Program:
    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "DOCKER_CONFIG": str(home / "docker"),
                    "SLIPWAY_CREDENTIALS": "file"}
        assert self("create-file", "--key-file", str(home / "key"))[0] == 0

    def __call__(self, *words: str, said: str = "") -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "app.credential_helper", *words], input=said, capture_output=True, text=True, env=self.env, timeout=60)
        assert done.stderr == ""
        return done.returncode, done.stdout.strip()

    def store(self, server: str, user: str, secret: str = SECRET) -> None:
        assert self("store", said=json.dumps({"ServerURL": server, "Username": user, "Secret": secret})) == (0, "")

    def get(self, server: str) -> dict[str, str]:
        code, out = self("get", said=server + "\n")
        assert code == 0, out
        found: dict[str, str] = json.loads(out)
        return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("home"))


def test_what_docker_stores_it_gets_back_and_sees_in_the_list(program: Program) -> None:
    program.store("r.example:5000", "alice")
    program.store("https://index.docker.io/v1/", "bob")
    program.store("https://index.docker.io/v1/refresh-token", "bob", "a refresh token")
    assert program.get("r.example:5000") == {"ServerURL": "r.example:5000", "Username": "alice", "Secret": SECRET}
    assert program.get("https://index.docker.io/v1/")["Secret"] == SECRET
    assert program.get("https://index.docker.io/v1/refresh-token")["Secret"] == "a refresh token"
    assert json.loads(program("list")[1]) == {"r.example:5000": "alice", "https://index.docker.io/v1/": "bob", "https://index.docker.io/v1/refresh-token": "bob"}
    assert program("erase", said="r.example:5000") == (0, "")
    assert program("get", said="r.example:5000") == (1, "credentials not found in native keychain")


def test_an_identity_token_stays_one(program: Program) -> None:
    program.store("token.example", "<token>", "the token")
    assert program.get("token.example") == {"ServerURL": "token.example", "Username": "<token>", "Secret": "the token"}


@pytest.mark.parametrize(("words", "said", "message"), [
    (("get",), "", "no credentials server URL"),
    (("store",), '{"ServerURL":"","Username":"a","Secret":"s3cret-pass"}', "no credentials server URL"),
    (("store",), '{"ServerURL":"x","Username":"","Secret":"s3cret-pass"}', "no credentials username"),
    (("store",), '{"ServerURL":"x","Secret":"s3cret-pass"', "what is to be stored is no JSON object with ServerURL, Username and Secret"),
])
def test_what_cannot_be_done_is_said_in_the_protocols_words_without_the_secret(program: Program, words: tuple[str, ...], said: str, message: str) -> None:
    code, out = program(*words, said=said)
    assert (code, out) == (1, message) and SECRET not in out


def test_docker_finds_what_was_moved_out_of_its_file(tmp_path: Path) -> None:
    program = Program(tmp_path)
    config = tmp_path / "docker/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {"old.example": {"auth": "YWxpY2U6czNjcmV0LXBhc3M="}}, "detachKeys": "ctrl-x"}))
    assert "old.example unencrypted" in program("status")[1]
    assert program("move")[0] == 0
    after = json.loads(config.read_text())
    assert after == {"auths": {"old.example": {}}, "credHelpers": {"old.example": "slipway"}, "detachKeys": "ctrl-x"}
    assert program.get("old.example")["Secret"] == SECRET and "unencrypted" not in program("status")[1]


def test_no_core_dump_and_no_stranger_in_the_memory_of_a_process_that_holds_a_password() -> None:
    script = ("from backend.credentials.undumpable import protect_memory\nimport ctypes, resource\ndumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
              "print(dumpable())\nprotect_memory()\nprint(dumpable(), resource.getrlimit(resource.RLIMIT_CORE)[0])\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.split() == ["1", "0", "0"], done.stderr
