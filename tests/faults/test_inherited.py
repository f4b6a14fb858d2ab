"""A helper started from a pipe line or by a careless program keeps nothing of its starter."""

from __future__ import annotations

import os

import pytest

from tests.support.private import PrivateHelper

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own")


def test_the_reader_of_the_starters_pipe_sees_its_end_while_the_helper_runs() -> None:
    read, write = os.pipe()
    helper = PrivateHelper()
    try:
        helper.start(pass_fds=(write,))
        os.close(write)
        os.set_blocking(read, False)
        assert os.read(read, 1) == b""          # the end, and not "nothing yet"
    finally:
        os.close(read)
        helper.__exit__()
