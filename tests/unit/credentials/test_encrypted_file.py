"""The encrypted file: what it keeps, what it shows to whom, and what it says when the key is not the right one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from backend.credentials import Credential, encrypted_file
from backend.errors import Conflict, EngineError, Unauthorized, Unavailable

SECRET = "correct horse battery"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv(encrypted_file.PASSPHRASE, raising=False)
    # The real cost of a guess is 128 MiB; the tests' is not what they are about.
    monkeypatch.setattr(encrypted_file, "_N", 1 << 10)
    return tmp_path


def with_key_file(home: Path) -> Path:
    encrypted_file.create(key_file=str(home / "key"))
    return home / "key"


def test_a_login_comes_back_with_a_key_file_that_only_its_user_reads(home: Path) -> None:
    key = with_key_file(home)
    encrypted_file.save(Credential("r.example:5000", "alice", SECRET))
    encrypted_file.save(Credential("t.example", "<token>", "", "an identity token"))
    assert encrypted_file.load("r.example:5000") == Credential("r.example:5000", "alice", SECRET)
    assert encrypted_file.load("t.example") == Credential("t.example", "<token>", "", "an identity token")
    assert encrypted_file.load("other.example") is None
    assert [stat.S_IMODE(os.stat(one).st_mode) for one in (key, encrypted_file.path())] == [0o600, 0o600]


def test_the_file_shows_who_and_where_but_no_secret(home: Path) -> None:
    with_key_file(home)
    encrypted_file.save(Credential("r.example", "alice", SECRET))
    text = Path(encrypted_file.path()).read_text()
    assert "r.example" in text and "alice" in text and SECRET not in text and "horse" not in text


def test_a_passphrase_opens_it_and_another_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted_file.create(passphrase="one two three")
    monkeypatch.setenv(encrypted_file.PASSPHRASE, "one two three")
    encrypted_file.save(Credential("r.example", "alice", SECRET))
    found = encrypted_file.load("r.example")
    assert found is not None and found.password == SECRET
    monkeypatch.setenv(encrypted_file.PASSPHRASE, "one two four")
    with pytest.raises(Unauthorized, match="not the passphrase") as caught:
        encrypted_file.load("r.example")
    assert "one two" not in caught.value.message


def test_a_registry_without_a_login_asks_for_no_passphrase() -> None:
    encrypted_file.create(passphrase="one two three")
    assert encrypted_file.names() == {} and encrypted_file.load("r.example") is None


def test_a_key_file_that_others_can_read_is_refused(home: Path) -> None:
    key = with_key_file(home)
    encrypted_file.save(Credential("r.example", "alice", SECRET))
    key.chmod(0o644)
    with pytest.raises(Unavailable, match="chmod 600"):
        encrypted_file.load("r.example")
    key.unlink()
    with pytest.raises(Unavailable, match="cannot be opened"):
        encrypted_file.load("r.example")


def test_a_password_is_not_given_to_a_registry_whose_name_was_written_over_another(home: Path) -> None:
    with_key_file(home)
    encrypted_file.save(Credential("good.example", "alice", SECRET))
    document = json.loads(Path(encrypted_file.path()).read_text())
    document["entries"]["evil.example"] = document["entries"]["good.example"]
    Path(encrypted_file.path()).write_text(json.dumps(document))
    with pytest.raises(Unavailable, match="Sign in again"):
        encrypted_file.load("evil.example")


def test_a_file_that_is_there_is_not_made_anew(home: Path) -> None:
    with_key_file(home)
    with pytest.raises(Conflict):
        encrypted_file.create(passphrase="x")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1, "key": 1, "check": "", "entries": {}}',
                                  '{"version":1,"key":{"kind":"passphrase","salt":"AA==","n":1099511627776,"r":8,"p":1},"check":"","entries":{"r":{"username":"a","box":""}}}'])
def test_a_damaged_file_is_an_error_with_a_way_on(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(encrypted_file.PASSPHRASE, "x")
    Path(encrypted_file.path()).parent.mkdir(parents=True)
    Path(encrypted_file.path()).write_text(text)
    with pytest.raises(EngineError):
        encrypted_file.load("r")


def test_erased_is_erased(home: Path) -> None:
    with_key_file(home)
    encrypted_file.save(Credential("r.example", "alice", SECRET))
    assert encrypted_file.erase("r.example") and not encrypted_file.erase("r.example")
    assert encrypted_file.load("r.example") is None
