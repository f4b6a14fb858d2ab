"""kill -9 in the middle: containers run on, and nothing that was known is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


def eventually(what: str, holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


@pytest.fixture
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield made


def state(helper: PrivateHelper, name: str) -> dict[str, object]:
    return dict(json.loads(helper.docker("inspect", name).stdout)[0]["State"])


def kill_and_restart(helper: PrivateHelper) -> None:
    helper.leave(signal.SIGKILL)
    helper.start()


def test_a_container_runs_on_while_the_helper_is_killed_and_loses_no_line(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "count", "busybox", "sh", "-c", "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; sleep 1000")
    before = state(helper, "count")
    kill_and_restart(helper)
    after = state(helper, "count")
    assert (after["Running"], after["Pid"], after["StartedAt"]) == (True, before["Pid"], before["StartedAt"])
    eventually("all lines are there", lambda: b"line 59\n" in helper.docker("logs", "count").stdout)
    assert helper.docker("logs", "count").stdout.decode().splitlines() == [f"line {i}" for i in range(60)]
    assert helper.docker("exec", "count", "echo", "inside").stdout == b"inside\n", "exec works after the restart"
    helper.docker("stop", "-t", "1", "count")
    assert state(helper, "count")["ExitCode"] == 137


def test_an_exit_while_the_helper_was_away_is_known_afterwards(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 1; exit 7")
    helper.leave(signal.SIGKILL)
    time.sleep(1.5)
    helper.start()
    after = state(helper, "brief")
    assert (after["Status"], after["ExitCode"]) == ("exited", 7)


def test_a_published_port_and_a_restart_policy_go_on_after_the_helper_is_back(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "--restart", "always", "busybox", "sh", "-c",
                  "mkdir -p /www; echo hello > /www/index.html; httpd -f -p 80 -h /www")
    kill_and_restart(helper)
    port = helper.docker("port", "web", "80").stdout.decode().strip().rpartition(":")[2]
    import urllib.request

    def answers() -> bool:
        try:
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2).read() == b"hello\n")
        except OSError:
            return False

    eventually("the published port answers", answers)
    pid = state(helper, "web")["Pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    eventually("the policy started it again", lambda: state(helper, "web")["Running"] is True and state(helper, "web")["Pid"] != pid)
    eventually("its port answers again", answers)


def test_an_orderly_stop_of_the_helper_leaves_containers_running(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "stay", "busybox", "sleep", "1000")
    pid = state(helper, "stay")["Pid"]
    assert helper.leave(signal.SIGTERM) == 0
    assert isinstance(pid, int)
    os.kill(pid, 0)
    helper.start()
    assert state(helper, "stay")["Pid"] == pid
