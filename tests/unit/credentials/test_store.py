"""Where a login is looked for and kept: keyring, helpers that config.json names, config.json itself."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.errors
import pytest

from backend import credentials
from backend.credentials import HUB_KEY, Credential
from backend.errors import ServerError, Unavailable

_HELPER = """#!/bin/sh
# A credential helper that keeps what it has in a folder, as others do in their own way.
said=$(cat)
case $1 in
get) case "$said" in
    known.example) echo '{"ServerURL":"known.example","Username":"carol","Secret":"from the helper"}' ;;
    token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"identity"}' ;;
    broken.example) echo 'the vault is on fire'; exit 1 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
    esac ;;
list) echo '{"https://known.example":"carol","token.example":"<token>"}' ;;
store) echo "$said" >"$HELPER_LOG" ;;
erase) echo "erased $said" >"$HELPER_LOG" ;;
esac
"""


class Memory(keyring.backend.KeyringBackend):
    """Some other back end of `keyring` than the desktop's."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError("not there")


class Home:
    def __init__(self, at: Path) -> None:
        self.config = at / "docker/config.json"
        self.log = at / "helper.log"

    def write(self, **document: object) -> None:
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(json.dumps(document))

    def read(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.config.read_text())
        return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/docker-credential-other"
    program.write_text(_HELPER)
    program.chmod(0o755)
    made = Home(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("HELPER_LOG", str(made.log))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("SLIPWAY_CREDENTIALS", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    yield made
    keyring.set_keyring(before)


@pytest.fixture
def memory(home: Home) -> Memory:
    made = Memory()
    keyring.set_keyring(made)
    return made


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


async def test_a_login_is_kept_in_whatever_back_end_keyring_has(memory: Memory, home: Home) -> None:
    login = await credentials.save(Credential("r.example", "alice", "word"))
    assert login.place == "keyring" and not home.config.exists()
    assert await credentials.load("https://r.example/v2/") == Credential("r.example", "alice", "word")
    await credentials.save(Credential("r.example", "bob", "other"))
    assert [user for _, user in memory.kept] == ["bob"], "the login of another user was left behind"
    assert await credentials.erase("r.example") and memory.kept == {} and await credentials.load("r.example") is None


async def test_the_helper_of_a_registry_goes_before_the_one_for_all(home: Home) -> None:
    home.write(credsStore="missing", credHelpers={"known.example": "other"})
    assert await credentials.load("known.example") == Credential("known.example", "carol", "from the helper")
    with pytest.raises(Unavailable, match="docker-credential-missing"):
        await credentials.load("elsewhere.example")


async def test_an_identity_token_of_a_helper_or_of_the_file_is_one_in_the_header(home: Home) -> None:
    home.write(credsStore="other", auths={"file.example": {**auth("dave", ""), "identitytoken": "filed"}})
    for name, token in (("token.example", "identity"), ("file.example", "filed")):
        header = await credentials.header_for(f"{name}/app:1")
        said = json.loads(base64.urlsafe_b64decode(header))
        assert said == {"serveraddress": name, "identitytoken": token}


async def test_a_failing_helper_is_named_with_its_own_words(home: Home) -> None:
    home.write(credsStore="other")
    with pytest.raises(ServerError, match="docker-credential-other get failed: the vault is on fire"):
        await credentials.load("broken.example")


async def test_without_a_keyring_a_login_goes_to_the_helper_that_docker_uses(home: Home) -> None:
    home.write(credsStore="other")
    login = await credentials.save(Credential("new.example", "erin", "word"))
    assert login.where == "docker-credential-other"
    assert json.loads(home.log.read_text()) == {"ServerURL": "new.example", "Username": "erin", "Secret": "word"}


async def test_without_keyring_and_helper_it_is_dockers_file_and_that_is_said(home: Home) -> None:
    home.write(detachKeys="ctrl-x")
    login = await credentials.save(Credential("docker.io", "erin", "word"))
    assert login.place == "file" and home.read() == {"detachKeys": "ctrl-x", "auths": {HUB_KEY: auth("erin", "word")}}
    assert stat.S_IMODE(home.config.stat().st_mode) == 0o600
    assert HUB_KEY in credentials.plain_warning() and "word" not in credentials.plain_warning().replace("password", "")


async def test_the_warning_before_a_pull_is_about_the_login_that_it_uses(memory: Memory, home: Home) -> None:
    home.write(auths={"a.example": auth("alice", "one"), "b.example": auth("bob", "two")})
    assert "a.example" in credentials.plain_warning("a.example/app:1") and "b.example" not in credentials.plain_warning("a.example/app:1")
    assert credentials.plain_warning("c.example/app:1") == ""
    await credentials.save(Credential("a.example", "alice", "new"))
    assert credentials.plain_warning("a.example/app:1") == ""


async def test_our_own_helper_with_nothing_to_keep_in_writes_no_plain_password(home: Home) -> None:
    home.write(credsStore="slipway")
    with pytest.raises(Unavailable, match="create-file"):
        await credentials.save(Credential("r.example", "alice", "word"))
    assert home.read() == {"credsStore": "slipway"}


async def test_plain_passwords_move_into_the_keyring_and_out_of_the_file(memory: Memory, home: Home) -> None:
    home.write(auths={"a.example": auth("alice", "one"), HUB_KEY: auth("bob", "two")}, proxies={"default": {}})
    assert [login.place for login in await credentials.move_plain()] == ["keyring", "keyring"]
    assert home.read() == {"auths": {"a.example": {}, HUB_KEY: {}}, "proxies": {"default": {}},
                           "credHelpers": {"a.example": "slipway", HUB_KEY: "slipway"}}
    found = await credentials.load("docker.io")
    assert found is not None and found.password == "two" and credentials.plain_warning() == ""


async def test_what_cannot_move_stays_where_it_is(home: Home) -> None:
    home.write(auths={"a.example": auth("alice", "one")})
    with pytest.raises(Unavailable):
        await credentials.move_plain()
    assert home.read() == {"auths": {"a.example": auth("alice", "one")}}


async def test_the_list_names_every_login_once_and_asks_for_no_secret(memory: Memory, home: Home) -> None:
    home.write(credsStore="other", auths={"known.example": auth("x", "y"), "plain.example": auth("frank", "z")})
    await credentials.save(Credential("own.example", "alice", "word"))
    rows = {login.registry: (login.username, login.place) for login in await credentials.list()}
    assert rows == {"own.example": ("alice", "keyring"), "known.example": ("carol", "helper"), "token.example": ("", "helper"),
                    "plain.example": ("frank", "file")}
