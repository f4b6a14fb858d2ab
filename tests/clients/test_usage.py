"""What containers use: docker stats right away, and a curve that is there when one looks."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.bench.wire import Failed, Wire
from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        Wire(made.socket).upload("/images/create?fromSrc=-&repo=busybox&tag=latest", busybox_tar())
        made.docker("run", "-d", "--name", "busy", "busybox", "sh", "-c", "while :; do :; done")
        made.docker("run", "-d", "--name", "idle", "busybox", "sleep", "1000")
        yield made


def usage(helper: PrivateHelper, name: str, step: int = 1, rows: int = 1) -> dict[str, list[float]]:
    deadline = time.monotonic() + 20
    while True:
        found = Wire(helper.socket).call("GET", f"/slipway/containers/{name}/usage?step={step}")
        if len(found["Time"]) >= rows or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_a_busy_container_has_a_curve_and_an_idle_one_a_flat_line(helper: PrivateHelper) -> None:
    busy, idle = usage(helper, "busy", rows=3), usage(helper, "idle", rows=3)
    assert all(len(column) == len(busy["Time"]) for key, column in busy.items() if key != "Step")
    assert max(busy["Cpu"]) > 5 > max(idle["Cpu"])
    assert all(0 < value < 1 << 30 for value in busy["Memory"]) and set(busy["Pids"]) == {1}
    assert busy["Time"] == sorted(busy["Time"]) and abs(busy["Time"][-1] - time.time()) < 5


def test_the_curve_goes_on_after_the_helper_was_killed(helper: PrivateHelper) -> None:
    assert usage(helper, "busy", step=10)["Time"]
    assert helper.process is not None
    helper.process.send_signal(signal.SIGKILL)
    helper.process.wait()
    helper.start()
    assert len(usage(helper, "busy", rows=2)["Time"]) >= 2


def test_docker_stats_shows_the_load_at_once(helper: PrivateHelper) -> None:
    usage(helper, "busy", rows=1)
    shown = json.loads(helper.docker("stats", "--no-stream", "--format", "json", "busy").stdout)
    assert float(shown["CPUPerc"].rstrip("%")) > 5


def test_a_step_that_is_not_kept_and_a_container_that_is_not_there_are_refused(helper: PrivateHelper) -> None:
    with pytest.raises(Failed, match=r"400 .*each 10 s"):
        Wire(helper.socket).call("GET", "/slipway/containers/busy/usage?step=7")
    with pytest.raises(Failed, match=r"404 .*No such container"):
        Wire(helper.socket).call("GET", "/slipway/containers/nobody/usage")
