"""A container that is removed when it ends waits for no disk; whoever keeps one keeps its data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

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
        yield made


def root_options(helper: PrivateHelper, *flags: str) -> list[str]:
    line = helper.docker("run", *flags, "busybox", "grep", " / ", "/proc/mounts").stdout.decode()
    return line.split()[3].split(",")


def test_only_a_container_that_is_removed_at_its_end_may_lose_writes_to_a_crash(helper: PrivateHelper) -> None:
    names = {"volatile", "fsync=volatile"}        # kernels of 2025 and later show the second
    assert names & set(root_options(helper, "--rm"))
    assert not names & set(root_options(helper, "--name", "kept"))
    helper.docker("rm", "kept")


def test_such_a_container_can_be_restarted_copied_to_and_committed(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--rm", "--name", "goes", "busybox", "sh", "-c", "echo x >> /file; sync; sleep 1000")
    helper.docker("restart", "-t", "0", "goes")
    helper.docker("restart", "-t", "0", "goes")
    assert json.loads(helper.docker("inspect", "goes").stdout)[0]["State"]["Running"]
    helper.docker("commit", "goes", "taken")
    assert helper.docker("run", "--rm", "taken", "cat", "/file").stdout == b"x\nx\nx\n"
    helper.docker("rm", "-f", "goes")
