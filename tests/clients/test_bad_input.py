"""What makes no sense gets a clear answer, costs the helper nothing, and leaves everything as it was: by hand and by the docker client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.registry import free_port
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
CREATE = "/v1.51/containers/create"


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox", stdin=busybox_tar())
        yield made


def exchange(helper: PrivateHelper, raw: bytes) -> tuple[int, str]:
    """The status and the message that the helper answers to *raw* bytes with."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(helper.socket)
        try:
            sock.sendall(raw)
        except BrokenPipeError:
            """It has said no before it had heard all."""
        said = b""
        while b"\r\n\r\n" not in said or not said.endswith(b"}"):
            piece = sock.recv(1 << 16)
            if not piece:
                break
            said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), str(json.loads(body)["message"])


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def memory(helper: PrivateHelper) -> int:
    """The helper's own memory in kB."""
    assert helper.process is not None
    lines = Path(f"/proc/{helper.process.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_50_megabytes_is_refused_and_none_of_it_stays_in_memory(helper: PrivateHelper, chunked: bool) -> None:
    raw = request("POST", CREATE, b'{"Image":"' + b"x" * 50_000_000 + b'"}')
    if chunked:
        head = f"POST {CREATE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw = head.encode() + (b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 50 + b"0\r\n\r\n"
    assert exchange(helper, raw)[0] == 413
    before = memory(helper)
    for _ in range(3):
        status, message = exchange(helper, raw)
        assert status == 413 and "16777216" in message
    assert memory(helper) - before < 8_000
    assert helper.docker("ps", "-aq").stdout == b""


@pytest.mark.parametrize(("body", "says"), [
    (b"{", "invalid JSON: "), (b'{"Image":"busybox",}', "invalid JSON: "), (b'{"Image":"busybox"} x', "invalid JSON: "),
    (b"[" * 100_000, "invalid JSON: "), (b'{"Image":"busybox","Labels":' + b'{"a":' * 50_000, "invalid JSON: "),
    (b'{"Image":"\xff"}', "invalid JSON: "), (b"[]", "Expected object, got array"), (b'"x"', "Expected object, got str"),
    (b'{"Image":5}', "Image: expected str, got int"), (b'{"Image":"busybox","Env":"a=b"}', "Env: expected array, got str"),
    (b"", ""), (b"null", "config cannot be empty in order to create a container"), (b"{}", "config cannot be empty in order to create a container"),
])
def test_a_create_that_is_not_what_the_api_describes_is_a_400_that_says_where(helper: PrivateHelper, body: bytes, says: str) -> None:
    status, message = exchange(helper, request("POST", CREATE, body))
    assert status == 400 and message and says in message, message
    assert helper.docker("ps", "-aq").stdout == b""


@pytest.mark.parametrize("path", ["/v1.51/networks/create", "/v1.51/volumes/create", "/v1.51/exec/nosuch/start", "/v1.51/containers/x/exec",
                                  "/v1.51/containers/x/update", "/v1.51/auth", "/v1.51/networks/bridge/connect"])
def test_every_call_with_a_body_refuses_malformed_json(helper: PrivateHelper, path: str) -> None:
    status, message = exchange(helper, request("POST", path, b"{"))
    assert status == 400 and message.startswith("invalid JSON: ")


def test_a_form_is_not_taken_for_json(helper: PrivateHelper) -> None:
    found = exchange(helper, request("POST", CREATE, b"Image=busybox", "application/x-www-form-urlencoded"))
    assert found == (400, "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'")


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/v1.51/nosuch"), ("POST", "/nosuch"), ("GET", "/"), ("DELETE", "/v1.51/version"), ("PUT", "/v1.51/containers/json"),
    ("GET", CREATE), ("POST", "/v1.51/containers/json"), ("GET", "/vx/version"), ("GET", "/v1.51/containers/../version"), ("GET", "/v1.51//version"),
])
def test_what_no_engine_has_and_a_wrong_method_are_page_not_found(helper: PrivateHelper, method: str, path: str) -> None:
    assert exchange(helper, request(method, path)) == (404, "page not found")


@pytest.mark.parametrize("version", ["1.52", "1.99", "2.0"])
def test_a_version_above_ours_is_refused_in_words_that_clients_show(helper: PrivateHelper, version: str) -> None:
    said = f"client version {version} is too new. Maximum supported API version is 1.51"
    assert exchange(helper, request("GET", f"/v{version}/version")) == (400, said)
    assert exchange(helper, request("GET", f"/v{version}/containers/json")) == (400, said)


@pytest.mark.parametrize("version", ["1.12", "1.21", "1.23"])
def test_old_clients_that_dockerd_has_left_behind_are_still_served(helper: PrivateHelper, version: str) -> None:
    assert exchange(helper, request("GET", f"/v{version}/containers/nosuch/json")) == (404, "No such container: nosuch")


@pytest.mark.parametrize("query", ["containers/json?limit=x", "containers/json?filters=x", "containers/json?filters=%5B%5D",
                                   "images/json?filters=%7B%22a%22%3A1%7D", "containers/json?filters=%7B%22bogus%22%3A%5B%22a%22%5D%7D",
                                   "events?since=x&until=1"])
def test_a_query_that_makes_no_sense_is_a_400(helper: PrivateHelper, query: str) -> None:
    status, message = exchange(helper, request("GET", f"/v1.51/{query}"))
    assert status == 400 and message


@pytest.mark.parametrize("raw", [
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"BREW /version HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /version HTTP/1.1\r\n\r\n",
    b"POST " + CREATE.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST " + CREATE.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /version HTTP/1.1\r\nHost: x\r\nX-Registry-Auth: " + b"geheim" * 20_000 + b"\r\n\r\n",
])
def test_what_is_not_http_is_answered_and_never_written_to_the_log(helper: PrivateHelper, raw: bytes) -> None:
    status, message = exchange(helper, raw)
    assert status == 400 and message.startswith("the request is not understood as HTTP: ")
    assert "geheim" not in message
    logged = Path(helper.log).read_text()
    assert "geheim" not in logged and "Traceback" not in logged
    assert helper.docker("version").returncode == 0


def test_what_a_run_cannot_have_ends_it_with_dockers_status_and_leaves_no_container(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "holder", "-p", "127.0.0.1::80", "busybox", "sleep", "600")
    try:
        port = helper.docker("port", "holder", "80").stdout.decode().strip()
        down = f"127.0.0.1:{free_port()}/x"
        for status, says, words in (
            (125, 'The container name "/holder" is already in use by container', ["--name", "holder", "busybox", "true"]),
            (125, "port is already allocated", ["--name", "other", "-p", f"{port}:80", "busybox", "true"]),
            (127, "executable file not found", ["--name", "other", "busybox", "nosuch"]),
            (126, "permission denied", ["--name", "other", "busybox", "/etc/passwd"]),
            (125, "connection refused", ["--name", "other", down]),
        ):
            done = helper.docker("run", *words, check=False)
            assert done.returncode == status and says in done.stderr.decode(), (words, done.stderr)
            helper.docker("rm", "other", check=False)
        assert helper.docker("ps", "-a", "--format", "{{.Names}}").stdout == b"holder\n"
    finally:
        helper.docker("rm", "-f", "holder")


def test_who_may_not_open_the_socket_is_told_so(helper: PrivateHelper) -> None:
    os.chmod(helper.at, 0o755)
    done = subprocess.run([str(docker_client()), "-H", f"unix://{helper.socket}", "ps"], capture_output=True, user=65534, group=65534, extra_groups=[],
                          env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
    assert done.returncode == 1 and b"permission denied" in done.stderr
