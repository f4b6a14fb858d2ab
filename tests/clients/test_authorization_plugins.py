"""An administrator's rules hold for every way to say a request: none gets past the plug-in by its form or size."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHelper]:
    folder = tmp_path_factory.mktemp("authz")
    with subprocess.Popen([sys.executable, "-m", "tests.support.authz_plugin", str(folder / "rules.sock"), str(folder)],
                          cwd=ROOT, stdout=subprocess.PIPE) as plugin:
        assert plugin.stdout is not None and plugin.stdout.readline() == b"ready\n"
        try:
            with PrivateHelper("--plugin-dir", str(folder), "--authorization-plugin", "rules") as made:
                made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
                yield made
                rules(folder)
        finally:
            plugin.kill()


@pytest.fixture
def folder(helper: PrivateHelper) -> Iterator[Path]:
    at = Path(helper.flags[helper.flags.index("--plugin-dir") + 1])
    rules(at)
    yield at
    rules(at)


def rules(folder: Path, deny: str = "", answer: str = "", fault: str = "") -> None:
    for name, text in (("deny", deny), ("deny-answer", answer), ("fault", fault), ("calls", "")):
        (folder / name).write_text(text)


def calls(folder: Path) -> list[list[object]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def raw(helper: PrivateHelper, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request as it stands, written by hand."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(helper.socket)
        sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


def test_everything_works_under_rules_that_allow_it(helper: PrivateHelper, folder: Path) -> None:
    assert helper.docker("run", "--rm", "-i", "busybox", "cat", stdin=b"through").stdout == b"through"
    made = next(call for call in calls(folder) if "/containers/create" in call[1]["RequestUri"])  # type: ignore[index]
    asked, body = made[1], json.loads(made[2])  # type: ignore[arg-type]
    assert (asked["User"], asked["UserAuthNMethod"], asked["RequestMethod"]) == ("root", "PEERCRED", "POST")  # type: ignore[index]
    assert body["Image"] == "busybox" and json.loads(helper.docker("info", "-f", "{{json .Plugins.Authorization}}").stdout) == ["rules"]
    answered = [call[1] for call in calls(folder) if call[0] == "AuthZPlugin.AuthZRes"]
    assert any(call["ResponseStatusCode"] == 201 for call in answered)  # type: ignore[index]


def test_a_refused_request_has_no_effect_and_says_whose_rule_it_was(helper: PrivateHelper, folder: Path) -> None:
    rules(folder, deny='"Privileged":true')
    done = helper.docker("run", "--name", "evil", "--privileged", "busybox", "true", check=False)
    assert done.returncode == 125 and b"authorization denied by plugin rules: the test's rule" in done.stderr
    rules(folder)
    assert helper.docker("ps", "-aq").stdout == b""


def test_an_answer_can_be_refused(helper: PrivateHelper, folder: Path) -> None:
    rules(folder, answer='"RepoTags"')
    done = helper.docker("images", check=False)
    assert b"authorization denied by plugin rules" in done.stderr


@pytest.mark.parametrize("form", ["large", "chunked", "text", "encoded", "no version", "spaced"])
def test_no_form_of_a_request_gets_past_the_rules(helper: PrivateHelper, folder: Path, form: str) -> None:
    rules(folder, deny=r'POST /v1\.\d+/containers/create.*"Privileged":\s*true')
    wish = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Privileged": True}}
    if form == "large":
        wish = {"Labels": {"x": "y" * (3 << 20)}, **wish}
    body = json.dumps(wish, separators=(",", ": " if form == "spaced" else ":")).encode()
    path = "/containers%2Fcreate" if form == "encoded" else "/containers/create"
    head = (f"POST {'' if form == 'no version' else '/v1.47'}{path}?name=evil HTTP/1.1\nHost: x\nConnection: close\n"
            f"Content-Type: {'text/plain' if form == 'text' else 'application/json'}\n")
    if form == "chunked":
        status, answer = raw(helper, head + "Transfer-Encoding: chunked", f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
    else:
        status, answer = raw(helper, head + f"Content-Length: {len(body)}", body)
    assert (status, json.loads(answer)["message"]) == (403, "authorization denied by plugin rules: the test's rule")
    rules(folder)
    assert helper.docker("ps", "-aq").stdout == b""


def test_passwords_are_not_shown_to_plugins(helper: PrivateHelper, folder: Path) -> None:
    secret = "c2VjcmV0LWF1dGg="
    raw(helper, f"GET /v1.47/images/json HTTP/1.1\nHost: x\nConnection: close\nX-Registry-Auth: {secret}")
    body = b'{"username":"u","password":"topsecret","serveraddress":"127.0.0.1:1"}'
    raw(helper, f"POST /v1.47/auth HTTP/1.1\nHost: x\nConnection: close\nContent-Type: application/json\nContent-Length: {len(body)}", body)
    seen = (folder / "calls").read_text()
    assert len(calls(folder)) >= 3 and secret not in seen and "topsecret" not in json.dumps([call[2] for call in calls(folder)])
    assert "/auth" in seen


@pytest.mark.parametrize(("fault", "words"), [("error", b"plugin rules failed with error: as the test wished"), ("nonsense", b"plugin rules failed with error")])
def test_a_plugin_that_fails_refuses(helper: PrivateHelper, folder: Path, fault: str, words: bytes) -> None:
    rules(folder, fault=fault)
    done = helper.docker("volume", "create", "no", check=False)
    assert done.returncode == 1 and words in done.stderr
    rules(folder)
    assert helper.docker("volume", "ls", "-q").stdout == b""


def test_archives_stream_past_a_plugin_and_are_judged_by_their_request(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("import", "-", "other:latest", stdin=busybox_tar())
    rules(folder, deny=r"POST /v1\.\d+/images/create")
    assert b"authorization denied" in helper.docker("import", "-", "never:latest", stdin=busybox_tar(), check=False).stderr
    rules(folder)
    assert b"never" not in helper.docker("images").stdout
