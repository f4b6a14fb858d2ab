"""Settings from a file in Docker's form: they are the flags that they stand for, or the start is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helper.__main__ import parse
from helper.configfile import Wrong, flags


def written(folder: Path, value: Any) -> str:
    path = folder / "daemon.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_the_keys_of_dockers_file_are_the_flags_that_they_stand_for(tmp_path: Path) -> None:
    path = written(tmp_path, {
        "registry-mirrors": ["http://127.0.0.1:5000"], "insecure-registries": ["10.0.0.0/8", "lab:5000"], "debug": True,
        "proxies": {"https-proxy": "http://proxy:3128", "no-proxy": "lab"}, "labels": ["a=b"], "shutdown-timeout": 7,
        "default-address-pools": [{"base": "10.201.0.0/16", "size": 24}], "data-root": "/srv/slipway"})
    found = parse(["--config-file", path, "--exec-root", "/tmp/x"])
    assert found.mirrors == ("http://127.0.0.1:5000",) and found.insecure == ("10.0.0.0/8", "lab:5000") and found.debug
    assert found.proxies == ("", "http://proxy:3128", "lab") and found.labels == ("a=b",) and found.shutdown_timeout == 7
    assert found.pools == (("10.201.0.0/16", 24),) and found.data_root == "/srv/slipway"


@pytest.mark.parametrize(("value", "words"), [
    ({"storage-driver": "zfs"}, "don't match any configuration option: storage-driver"),
    ({"proxies": {"ftp-proxy": "x"}}, "don't match any configuration option: proxies"),
    ({"registry-mirrors": "http://x"}, "registry-mirrors must be a list"),
    ({"registry-mirrors": [5]}, "registry-mirrors must be text"),
    ({"debug": "yes"}, "debug must be true or false"),
    ({"shutdown-timeout": True}, "shutdown-timeout must be a number"),
    ({"default-address-pools": [{"base": "10.0.0.0/8"}]}, "size must be a number"),
    ({"log-opts": {"max-size": 5}}, "max-size must be text"), ({"log-opts": ["max-size=1m"]}, "log-opts must be an object"),
    ("[" * 100_000, "is not JSON"), ("[]", "no JSON object"), ("{", "is not JSON"),
])
def test_a_file_that_cannot_be_meant_is_refused_with_its_name_and_key(tmp_path: Path, value: Any, words: str) -> None:
    path = written(tmp_path, value)
    with pytest.raises(Wrong, match=words) as caught:
        flags(path, [], needed=True)
    assert path in str(caught.value)


def test_the_log_driver_of_containers_that_ask_for_none_can_be_chosen_in_the_file_and_by_flags(tmp_path: Path) -> None:
    path = written(tmp_path, {"log-driver": "local", "log-opts": {"max-size": "10m", "labels": "a,b=c"}})
    for words in (["--config-file", path], ["--log-driver", "local", "--log-opt", "max-size=10m", "--log-opt", "labels=a,b=c"]):
        found = parse([*words, "--exec-root", "/tmp/x"])
        assert found.log_driver == "local" and found.log_opts == {"max-size": "10m", "labels": "a,b=c"}
    assert parse(["--exec-root", "/tmp/x"]).log_driver == ""


@pytest.mark.parametrize(("words", "says"), [
    (["--log-driver", "splunk"], "failed to set log opts: error looking up logging plugin splunk"),
    (["--log-opt", "max-sise=1m"], "failed to set log opts: unknown log opt 'max-sise' for json-file log driver"),
    (["--log-opt", "max-size=much"], "failed to set log opts: invalid size: 'much'"),
    (["--log-opt", "max-size"], "--log-opt max-size: write it as NAME=VALUE"),
])
def test_a_log_driver_that_could_not_work_is_refused_at_the_start_and_not_at_each_create(
        words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([*words, "--exec-root", "/tmp/x"])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--bip", "10.1.1.1/24"], ["--bip=10.1.1.1/24"]])
def test_what_is_said_twice_is_refused(tmp_path: Path, given: list[str]) -> None:
    with pytest.raises(Wrong, match="both as a flag and in the configuration file: bip"):
        flags(written(tmp_path, {"bip": "10.2.2.1/24"}), given, needed=True)


def test_a_file_that_is_not_there_matters_only_to_who_named_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flags(f"{tmp_path}/none", [], needed=False) == []
    assert flags(written(tmp_path, " "), [], needed=True) == []
    with pytest.raises(SystemExit):
        parse(["--config-file", f"{tmp_path}/none"])
    assert "is not there" in capsys.readouterr().err
