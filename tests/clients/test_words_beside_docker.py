"""Refusals as docker's own client shows them: the words that dockerd 28.5 says in the same case, compared side by side once."""

from __future__ import annotations

import os
import re
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
    with PrivateHelper("--log-driver", "local", "--log-opt", "max-size=3m") as made:
        made.docker("import", "-", "busybox", stdin=busybox_tar())
        made.docker("run", "-d", "--name", "up", "busybox", "sleep", "600")
        made.docker("run", "--name", "ended", "busybox", "sh", "-c", "echo said; exit 3", check=False)
        made.docker("run", "--name", "mute", "--log-driver", "none", "busybox", "echo", "x")
        yield made


@pytest.mark.parametrize(("words", "says"), [
    ("attach ended", "cannot attach to a stopped container, start it first"),
    ("logs mute", "configured logging driver does not support reading"),
    ("rename up ended", 'Error when allocating new name: Conflict. The container name "/ended" is already in use by container "ID".'),
    ("rename up a", "Error when allocating new name: Invalid container name (/a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("rm up", 'cannot remove container "up": container is running: stop the container before removing or force remove'),
    ("start nosuch", "No such container: nosuch"),
    ("wait ended nosuch", "No such container: nosuch"),
    ("kill nosuch", "cannot kill container: nosuch: No such container: nosuch"),
    ("kill ended", "cannot kill container: ended: container ID is not running"),
    ("kill -s NOPE up", "cannot kill container: up: invalid signal: NOPE"),
    ("exec -u nobody2 up true", "unable to find user nobody2: no matching entries in passwd file"),
    ("inspect --type image nosuch", "No such image: nosuch:latest"),
    ("inspect --type network nosuch", "network nosuch not found"),
    ("inspect --type volume nosuch", "get nosuch: no such volume"),
    ("image inspect BAD", "invalid reference format: repository name (library/BAD) must be lowercase"),
    ("image rm busybox", 'unable to remove repository reference "busybox" (must force) - container'),
    ("run --network container:ended busybox true", "cannot join network namespace of a non running container: container ended is exited"),
    ("run -v /x:/ busybox true", "invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
    ("ps --filter status=bogus", "invalid filter 'status=bogus': invalid value for state (bogus): must be one of created, running, paused, "
                                 "restarting, removing, exited, dead"),
    ("ps --filter health=bogus", "invalid filter 'health=bogus': invalid value for health (bogus): must be one of none, starting, healthy, unhealthy"),
    ("ps --filter is-task=x", "invalid filter 'is-task=[x]'"),
    ("ps --filter before=nosuch", "No such container: nosuch"),
    ("images --filter since=nosuch", "No such image: nosuch:latest"),
    ("images --filter until=x", 'failed to parse value as time or duration: "x"'),
    ("events --since 2099-01-01 --until 0s", "`since` time (4070908800.000000000) cannot be after `until` time ("),
])
def test_a_refusal_has_the_words_that_programs_look_for(helper: PrivateHelper, words: str, says: str) -> None:
    done = helper.docker(*words.split(), check=False)
    said = re.sub(r"\b[0-9a-f]{64}\b", "ID", (done.stderr + done.stdout).decode())
    assert done.returncode and says in said, said


def test_lists_take_dates_as_docker_does(helper: PrivateHelper) -> None:
    assert helper.docker("images", "-q", "--filter", "until=2020-01-01").stdout == b""
    assert helper.docker("images", "-q", "--filter", "until=2090-01-01T10").stdout


def test_containers_that_ask_for_no_log_driver_get_the_engines_with_its_options(helper: PrivateHelper) -> None:
    shown = helper.docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", "ended", "mute").stdout.decode().split()
    assert shown == ['{"Type":"local","Config":{"max-size":"3m"}}', '{"Type":"none","Config":{}}']
    assert helper.docker("logs", "ended").stdout == b"said\n"
    assert helper.docker("info", "-f", "{{.LoggingDriver}}").stdout == b"local\n"


def test_an_imported_image_says_where_it_came_from(helper: PrivateHelper) -> None:
    assert helper.docker("inspect", "-f", "{{.Comment}}", "busybox").stdout == b"Imported from -\n"
