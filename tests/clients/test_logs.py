"""`docker logs` with each of its flags: what the client shows is what dockerd would show."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
PRINT = "for i in 1 2 3; do echo $i; sleep 0.05; echo e$i >&2; sleep 0.05; done; printf last"
STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z "


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield made


@pytest.fixture(scope="module", params=["local", "json-file"])
def printed(request: pytest.FixtureRequest, helper: PrivateHelper) -> str:
    """A container of that log driver that has printed and ended."""
    name = f"printed-{request.param}"
    helper.docker("run", "-d", "--name", name, "--network", "none", "--log-driver", request.param, "--log-opt", "labels=a,none",
                  "--log-opt", "env=E", "--log-opt", "tag={{.Name}}", "-l", "a=1 2", "-e", "E=v&", "busybox", "sh", "-c", PRINT)
    helper.docker("wait", name)
    return name


@pytest.mark.parametrize(("flags", "out", "err"), [
    ((), b"1\n2\n3\nlast", b"e1\ne2\ne3\n"),
    (("--tail", "3"), b"3\nlast", b"e3\n"),
    (("--tail", "0"), b"", b""),
    (("--tail", "-1"), b"1\n2\n3\nlast", b"e1\ne2\ne3\n"),
    (("--since", "10m"), b"1\n2\n3\nlast", b"e1\ne2\ne3\n"),
    (("--since", "2099-01-01"), b"", b""),
    (("--until", "2001-01-01T00:00:00", "--follow"), b"", b""),
    (("--follow", "--tail", "2"), b"last", b"e3\n"),
])
def test_the_flags_choose_the_lines(helper: PrivateHelper, printed: str, flags: tuple[str, ...], out: bytes, err: bytes) -> None:
    done = helper.docker("logs", *flags, printed)
    assert (done.stdout, done.stderr) == (out, err)


def test_details_and_times_stand_before_each_line(helper: PrivateHelper, printed: str) -> None:
    details = re.escape(f"E=v%26,a=1+2,tag={printed} ").encode()
    plain, both = (helper.docker("logs", *flags, printed).stdout.splitlines() for flags in (("--details",), ("-t", "--details")))
    assert [re.fullmatch(details + rb"(.*)", line)[1] for line in plain] == [b"1", b"2", b"3", b"last"]    # type: ignore[index]
    assert all(re.fullmatch(STAMP + details + rb".*", line) for line in both)


def test_a_time_that_was_shown_is_where_reading_goes_on(helper: PrivateHelper, printed: str) -> None:
    second = helper.docker("logs", "-t", printed).stdout.splitlines()[1].split()[0].decode()
    assert helper.docker("logs", "--since", second, printed).stdout == b"2\n3\nlast"
    assert helper.docker("logs", "--until", second, printed).stdout == b"1\n2\n"


def test_following_ends_at_until_although_nothing_is_printed(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "quiet", "--network", "none", "busybox", "sh", "-c", "echo once; sleep 1000")
    assert helper.docker("logs", "-f", "--until", str(int(time.time()) + 2), "quiet", timeout=20).stdout == b"once\n"
    helper.docker("rm", "-f", "quiet")


def test_the_unfinished_line_of_a_life_has_its_own_time(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "twice", "--network", "none", "busybox", "printf", "foo")
    helper.docker("start", "-a", "twice")
    assert helper.docker("logs", "twice").stdout == b"foofoo"
    assert re.fullmatch(STAMP + b"foo" + STAMP + b"foo", helper.docker("logs", "-t", "twice").stdout)


@pytest.mark.parametrize(("option", "words"), [
    ("max-size=0", "max-size must be a positive number"), ("max-file=0", "max-file cannot be less than 1"),
    ("mode=x", "logger: logging mode not supported: x"), ("tag={{.Nope}}", "no field Nope"), ("labels-regex=^a", "not supported"),
    ("max-buffer-size=1m", "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
    ("foo=1", "unknown log opt 'foo' for json-file log driver"), ("compress=perhaps", "must be true or false"),
])
def test_an_option_that_cannot_be_is_refused_at_create(helper: PrivateHelper, option: str, words: str) -> None:
    done = helper.docker("create", "--log-driver", "json-file", "--log-opt", option, "busybox", check=False)
    assert done.returncode == 1 and words in done.stderr.decode()


def test_a_container_without_a_log_says_so(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "silent", "--network", "none", "--log-driver", "none", "busybox", "echo", "x")
    done = helper.docker("logs", "silent", check=False)
    assert b"configured logging driver does not support reading" in done.stderr
