"""Many clients at the same containers, wrong bodies, hundreds of lives: each answer a documented one, nothing left."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults.test_leftovers import nothing_left
from tests.support.leftovers import settled
from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        for network in ("bridge", "none"):
            made.docker("run", "--rm", "--network", network, "busybox", "true")
        yield made


class Client(http.client.HTTPConnection):
    """One client with a connection of its own."""

    def __init__(self, helper: PrivateHelper) -> None:
        super().__init__("localhost", timeout=60)
        self._path = helper.socket

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)

    def call(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Status and what was answered."""
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        self.request(method, f"/v1.51{target}", data, {"Content-Type": "application/json"} if data is not None else {})
        reply = self.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None

    def create(self, *cmd: str, name: str = "", **body: Any) -> tuple[int, Any]:
        given = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": {"NetworkMode": "none"}, **body}
        return self.call("POST", "/containers/create" + (f"?name={name}" if name else ""), given)


def made(client: Client, *cmd: str, **more: Any) -> str:
    status, answer = client.create(*cmd, **more)
    assert status == 201, answer
    return str(answer["Id"])


def many(count: int, work: Callable[[int], Any]) -> list[Any]:
    """*work* in as many threads at once; a thread that hangs fails the test by its client's timeout."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_of_two_starts_at_once_one_starts_and_one_hears_that_it_runs(helper: PrivateHelper) -> None:
    before = settled(helper)
    for _ in range(10):
        ref = made(Client(helper), "sleep", "60")
        together = threading.Barrier(2)

        def start(_: int, ref: str = ref, together: threading.Barrier = together) -> int:
            client = Client(helper)
            client.connect()
            together.wait()
            return client.call("POST", f"/containers/{ref}/start")[0]

        assert sorted(many(2, start)) == [204, 304]
        assert Client(helper).call("DELETE", f"/containers/{ref}?force=1")[0] == 204
    nothing_left(helper, before)


ALLOWED = {"start": {204, 304, 404, 409}, "stop?t=0": {204, 304, 404}, "restart?t=0": {204, 404, 409}, "kill": {204, 404, 409},
           "pause": {204, 404, 409}, "unpause": {204, 404, 409}, "wait": {200, 404}, "exec": {201, 404, 409}, "remove": {204, 404, 409}, "create": {201, 409}}


def test_twenty_clients_at_one_container_all_get_documented_answers_and_it_is_whole_afterwards(helper: PrivateHelper) -> None:
    before = settled(helper)
    seen: Counter[tuple[str, int]] = Counter()

    def one(number: int) -> None:
        client, chance = Client(helper), random.Random(number)
        for _ in range(25):
            what = chance.choice(["start", "start", "stop?t=0", "restart?t=0", "kill", "pause", "unpause", "exec", "remove", "create", "create"])
            if what == "create":
                status, answer = client.create("sleep", "60", name="fought-over")
            elif what == "remove":
                status, answer = client.call("DELETE", "/containers/fought-over?force=1")
            else:
                body = {"Cmd": ["true"]} if what == "exec" else None
                status, answer = client.call("POST", f"/containers/fought-over/{what}", body)
            seen[what, status] += 1
            assert status in ALLOWED[what], (what, status, answer)

    many(20, one)
    client = Client(helper)
    assert client.call("DELETE", "/containers/fought-over?force=1&v=1")[0] in (204, 404)
    assert {what for what, _ in seen} >= {"start", "remove", "create"} and seen["create", 201] > 1, seen
    assert client.create("true", name="fought-over")[0] == 201, "the name is free again"
    assert client.call("POST", "/containers/fought-over/start")[0] == 204
    assert client.call("POST", "/containers/fought-over/wait")[1]["StatusCode"] == 0
    assert client.call("DELETE", "/containers/fought-over")[0] == 204
    client.close()
    nothing_left(helper, before)


def test_clients_that_leave_in_the_middle_hold_nothing_back(helper: PrivateHelper) -> None:
    before = settled(helper)
    ref = made(Client(helper), "sleep", "60")
    for target in (f"/containers/{ref}/wait", f"/containers/{ref}/attach?stream=1&stdout=1", f"/containers/{ref}/start",
                   f"/containers/{ref}/stop?t=30", f"/containers/{ref}/restart?t=0"):
        client = Client(helper)
        client.connect()
        client.sock.sendall(f"POST /v1.51{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        client.sock.close()
    assert Client(helper).call("DELETE", f"/containers/{ref}?force=1")[0] == 204
    nothing_left(helper, before)


def test_five_hundred_lives_leave_nothing(helper: PrivateHelper) -> None:
    before = settled(helper)

    def lives(number: int) -> None:
        client = Client(helper)
        for turn in range(125):
            network = "bridge" if turn % 5 == 0 else "none"
            host = {"NetworkMode": network, "Binds": ["/anonymous"] if turn % 7 == 0 else [], "AutoRemove": turn % 11 == 0}
            host |= {"IpcMode": "shareable"} if turn % 13 == 0 else {}
            ref = made(client, *(["/no/such"] if turn % 17 == 3 else ["true"]), HostConfig=host)
            status, answer = client.call("POST", f"/containers/{ref}/start")
            assert status == (400 if turn % 17 == 3 else 204), answer
            assert client.call("POST", f"/containers/{ref}/wait?condition=not-running")[0] in (200, 404)
            assert client.call("DELETE", f"/containers/{ref}?v=1&force=1")[0] in (204, 404, 409), "409: it is removing itself"

    many(4, lives)
    assert helper.docker("ps", "-aq").stdout == b"" and helper.docker("volume", "ls", "-q").stdout == b""
    nothing_left(helper, before)


WRONG = [
    ("a limit below the minimum", {"HostConfig": {"Memory": 1}}, 400, "Minimum memory limit allowed is 6MB"),
    ("a CPU that is not there", {"HostConfig": {"CpusetCpus": "7000"}}, 400, "Requested CPUs are not available"),
    ("an unknown capability", {"HostConfig": {"CapAdd": ["NOPE"]}}, 400, "CAP_NOPE"),
    ("a profile that is not JSON", {"HostConfig": {"SecurityOpt": ["seccomp={x"]}}, 400, "Decoding seccomp profile failed"),
    ("a graphics card", {"HostConfig": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}}, 501, "could not select device driver"),
    ("a sysctl of the host", {"HostConfig": {"Sysctls": {"vm.swappiness": "1"}}}, 400, "not in a separate kernel namespace"),
    ("a relative working directory", {"WorkingDir": "x"}, 400, "absolute path"),
    ("an image's name that cannot be", {"Image": "UPPER:x:y"}, 400, "invalid reference format"),
    ("an image that is not there", {"Image": "nosuch:1"}, 404, "No such image: nosuch:1"),
    ("a device rule", {"HostConfig": {"DeviceCgroupRules": ["nope"]}}, 400, "invalid device cgroup rule"),
    ("a runtime that nobody knows", {"HostConfig": {"Runtime": "nope"}}, 400, "unknown or invalid runtime name"),
    ("a field of the wrong kind", {"Tty": "yes"}, 400, "Tty"),
    ("a body that is no JSON", "{x", 400, "invalid JSON"),
    ("no body", "null", 400, "config cannot be empty"),
]


@pytest.mark.parametrize(("body", "status", "says"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_what_cannot_be_is_refused_with_its_documented_status(helper: PrivateHelper, body: Any, status: int, says: str) -> None:
    given = body if isinstance(body, str) else {"Image": "busybox", "Cmd": ["true"], **body}
    code, answer = Client(helper).call("POST", "/containers/create", given)
    assert (code, says in answer["message"]) == (status, True), (code, answer)
    assert helper.docker("ps", "-aq").stdout == b""


def test_fields_that_nobody_knows_are_not_in_the_way(helper: PrivateHelper) -> None:
    client = Client(helper)
    ref = made(client, "true", Unheard={"of": 1}, HostConfig={"NetworkMode": "none", "FromTheFuture": [1, 2]})
    assert client.call("DELETE", f"/containers/{ref}")[0] == 204


@pytest.mark.parametrize(("what", "body", "status", "says"), [
    ("a device that is missing", {"HostConfig": {"NetworkMode": "none", "Devices": [{"PathOnHost": "/dev/nope", "PathInContainer": "/dev/x"}]}}, 500,
     "no such file or directory"),
    ("a working directory that is a file", {"WorkingDir": "/etc/passwd"}, 400, "not a directory"),
    ("a block device that is missing", {"HostConfig": {"NetworkMode": "none", "BlkioDeviceReadBps": [{"Path": "/dev/nope", "Rate": 1}]}}, 500, "stat /dev/nope"),
    ("a sysctl's value", {"HostConfig": {"NetworkMode": "none", "Sysctls": {"net.ipv4.ip_forward": "nope"}}}, 500, "net.ipv4.ip_forward"),
    ("a user who is not there", {"User": "nope"}, 400, "unable to find user nope"),
    ("a user number that cannot be", {"User": "99999999999"}, 400, "must be in range"),
], ids=lambda value: value if isinstance(value, str) and " " in value else "")
def test_a_start_that_cannot_be_says_why_and_leaves_nothing(helper: PrivateHelper, what: str, body: Any, status: int, says: str) -> None:
    before = settled(helper)
    client = Client(helper)
    ref = made(client, "true", **body)
    code, answer = client.call("POST", f"/containers/{ref}/start")
    assert (code, says in answer["message"]) == (status, True), (what, code, answer)
    assert client.call("DELETE", f"/containers/{ref}")[0] == 204
    client.close()
    nothing_left(helper, before)


def test_an_exec_has_no_place_in_a_container_that_does_not_run(helper: PrivateHelper) -> None:
    client = Client(helper)
    ref = made(client, "sleep", "60")
    assert client.call("POST", f"/containers/{ref}/exec", {"Cmd": ["true"]})[0] == 409
    client.call("POST", f"/containers/{ref}/start")
    exec_id = client.call("POST", f"/containers/{ref}/exec", {"Cmd": ["true"]})[1]["Id"]
    assert client.call("POST", f"/containers/{ref}/kill")[0] == 204
    status, answer = client.call("POST", f"/exec/{exec_id}/start", {"Detach": True})
    assert (status, "is not running" in answer["message"]) == (409, True)
    assert client.call("POST", "/exec/nosuch/start", {"Detach": True})[0] == 404
    client.call("POST", f"/containers/{ref}/start")
    for wrong, says in (({"Cmd": []}, "No exec command specified"), ({"Cmd": ["env"], "Env": ["=x"]}, "invalid environment variable"),
                        ({"Cmd": ["pwd"], "WorkingDir": "x"}, "absolute path"), ({"Cmd": ["sh"], "DetachKeys": "nope"}, "detach keys")):
        status, answer = client.call("POST", f"/containers/{ref}/exec", wrong)
        assert (status, says in answer["message"]) == (400, True), answer
    missing = client.call("POST", f"/containers/{ref}/exec", {"Cmd": ["pwd"], "WorkingDir": "/no/such"})[1]["Id"]
    client.call("POST", f"/exec/{missing}/start", {"Detach": True})
    assert client.call("GET", f"/exec/{missing}/json")[1]["ExitCode"] == 127
    assert "has already run" in client.call("POST", f"/exec/{missing}/start", {"Detach": True})[1]["message"]
    assert client.call("POST", f"/containers/{ref}/kill")[0] == 204
    assert client.call("DELETE", f"/containers/{ref}")[0] == 204
