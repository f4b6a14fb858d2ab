"""A container that runc or crun started outlives the keeper and the helper like any other."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from backend.runtime import external
from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
RUNTIMES = [pytest.param(name, marks=pytest.mark.skipif(shutil.which(name, path=external.DEFAULT_PATH) is None,
                                                        reason=f"{name} is not installed (./dev setup installs it)"))
            for name in external.PROGRAMS]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield made


def until(done: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_runs_on_its_log_is_whole_and_its_exit_code_is_known(helper: PrivateHelper, runtime: str) -> None:
    count = "i=0; while [ ! -f /end ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 7"
    helper.docker("run", "-d", "--name", runtime, "--runtime", runtime, "--network", "none", "busybox", "sh", "-c", count)

    def lines() -> list[int]:
        return [int(one) for one in helper.docker("logs", runtime, check=False).stdout.split()]

    until(lambda: len(lines()) > 3)
    before = helper.keepers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: bool(helper.keepers()) and helper.keepers() != before)
    until(lambda: helper.docker("exec", runtime, "echo", "here", check=False).stdout == b"here\n")
    helper.leave(signal.SIGKILL)
    helper.start()
    seen = len(lines())
    until(lambda: len(lines()) > seen)
    helper.docker("exec", runtime, "touch", "/end")
    assert helper.docker("wait", runtime).stdout == b"7\n"
    told = lines()
    assert told == list(range(1, len(told) + 1)), "no line is lost and none comes twice"
    helper.docker("rm", runtime)
    assert os.listdir(f"{helper.exec}/runtimes") == []
