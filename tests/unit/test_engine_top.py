"""`docker top` with the options of ps: what people and scripts read off its columns."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from backend.engine.top import top
from backend.errors import InvalidArgument, NotImplemented_

MEMORY = 1 << 34


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize("options", ["-ef", "aux", "-e", "-eF", "-el", "-ely", "axj", "-j", "ax", "axl"])
def test_the_columns_of_the_usual_options_are_those_of_ps(sleeper: int, options: str) -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps on this machine to compare with")
    done = subprocess.run(["ps", *options.split()], capture_output=True, text=True, check=True).stdout
    assert top([sleeper], options, MEMORY).titles == done.splitlines()[0].split()


NAMES = ("pid", "ppid", "pgid", "sid", "tpgid", "user", "euser", "ruser", "uid", "gid", "group", "rgroup", "nlwp", "ni", "cls", "pri", "stat", "s", "sz", "vsz",
         "f", "tty", "comm", "args")


def test_every_column_says_what_ps_says(sleeper: int) -> None:
    if shutil.which("ps") is None:
        pytest.skip("there is no ps on this machine to compare with")
    wanted = subprocess.run(["ps", "-ww", "-p", str(sleeper), *(word for name in NAMES for word in ("-o", name + "="))],
                            capture_output=True, text=True, check=True).stdout.split()
    found = top([sleeper], "-eo " + ",".join(NAMES), MEMORY).processes[0]
    assert " ".join(found).split() == wanted


def test_titles_and_widths_of_ones_own_are_understood() -> None:
    shown = top([os.getpid()], "-o pid=NUMBER,wchan:20,comm", MEMORY)
    assert shown.titles == ["NUMBER", "WCHAN", "COMMAND"] and shown.processes[0][0] == str(os.getpid())


@pytest.mark.parametrize(("options", "error"), [
    ("-o comm", "Couldn't find PID field"), ("-o pid,nope", "unknown user-defined format specifier 'nope'"), ("-eo", "format specification must follow"),
])
def test_options_that_make_no_table_are_refused(options: str, error: str) -> None:
    with pytest.raises(InvalidArgument, match=error):
        top([os.getpid()], options, MEMORY)


@pytest.mark.parametrize("options", ["-T", "nope", "--no-headers", "-C sh", "axf"])
def test_options_that_would_mean_something_else_are_not_ignored(options: str) -> None:
    with pytest.raises(NotImplemented_, match="is not supported"):
        top([os.getpid()], options, MEMORY)


def test_a_process_that_has_just_ended_is_left_out(sleeper: int) -> None:
    assert len(top([sleeper, 2 ** 22 + 1], "-ef", MEMORY).processes) == 1
