"""The machine goes down: containers stop in order with their own signal, and come back as their policies say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.private import ROOT, PrivateHelper, command_line, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
LAST_WORDS = "trap 'echo %s >> /marks/order; exit 0' %s; while :; do sleep 0.05; done"


@pytest.fixture
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        os.mkdir(f"{made.at}/marks")
        yield made


def state(helper: PrivateHelper, name: str) -> dict[str, Any]:
    return dict(json.loads(helper.docker("inspect", name).stdout)[0]["State"])


def shutdown(helper: PrivateHelper) -> subprocess.CompletedProcess[bytes]:
    """As the systemd unit does it."""
    return subprocess.run([sys.executable, "-m", "helper", "--shutdown", "--data-root", helper.data], cwd=ROOT,
                          capture_output=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})


def eventually(what: str, holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


def test_containers_stop_in_order_and_come_back_after_the_boot(helper: PrivateHelper) -> None:
    prefix = "com.docker.compose."
    labels = {"db": "", "web": "db:service_started:false"}
    for name, stop_signal in (("db", "INT"), ("web", "TERM")):
        helper.docker("run", "-d", "--name", name, "--restart", "unless-stopped", "--stop-signal", stop_signal, "-v", f"{helper.at}/marks:/marks",
                      "-l", f"{prefix}project=shop", "-l", f"{prefix}service={name}", "-l", f"{prefix}depends_on={labels[name]}",
                      "busybox", "sh", "-c", f"touch /marks/{name}; " + LAST_WORDS % (name, stop_signal))
    helper.docker("run", "-d", "--name", "plain", "--stop-timeout", "1", "busybox", "sleep", "1000")
    eventually("both have set their traps", lambda: {"db", "web"} <= set(os.listdir(f"{helper.at}/marks")))
    assert helper.process is not None
    begun = time.monotonic()
    assert shutdown(helper).returncode == 0
    assert helper.process.wait(10) == 0, "the helper has ended by itself"
    assert time.monotonic() - begun < 30
    assert Path(helper.at, "marks/order").read_text().split() == ["web", "db"]
    eventually("nothing runs any more", lambda: helper.processes() == [])
    helper.start()
    eventually("policies bring them back", lambda: state(helper, "db")["Running"] and state(helper, "web")["Running"])
    assert (state(helper, "plain")["Running"], state(helper, "plain")["ExitCode"]) == (False, 137)


def test_a_shutdown_without_a_helper_says_so(helper: PrivateHelper) -> None:
    helper.leave()
    done = shutdown(helper)
    assert (done.returncode, b"no helper works on" in done.stderr) == (1, True)
    helper.start()


def test_a_hangup_has_the_keeper_executed_anew_under_running_containers(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    pid = state(helper, "stays")["Pid"]
    assert helper.process is not None
    helper.process.send_signal(signal.SIGHUP)

    def renewed() -> bool:
        return any(b"--inherit" in command_line(one) for one in helper.processes())

    eventually("the keeper is another", renewed)
    assert helper.docker("exec", "stays", "echo", "in").stdout == b"in\n"
    assert state(helper, "stays")["Pid"] == pid
