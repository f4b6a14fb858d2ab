"""docker diff: what differs between an image and what a container made of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.engine.changes import ADDED, DELETED, MODIFIED, changes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: whiteouts are device nodes")
PLACES = frozenset({"/etc/hosts", "/proc", "/dev"})
Diff = Callable[[], list[tuple[str, int]]]


@pytest.fixture
def diff(tmp_path: Path) -> Diff:
    for name in ("upper", "lower"):
        (tmp_path / name).mkdir()

    def run() -> list[tuple[str, int]]:
        upper, lower = (os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("upper", "lower"))
        try:
            return list(changes(upper, lower, PLACES))
        finally:
            os.close(upper)
            os.close(lower)

    return run


def both(at: Path, name: str) -> None:
    """A directory in image and container, alike."""
    for side in ("upper", "lower"):
        (at / side / name).mkdir(parents=True)
        os.utime(at / side / name, (1, 1))


def test_added_changed_and_removed_files_are_told_behind_their_directories(diff: Diff, tmp_path: Path) -> None:
    both(tmp_path, "d")
    (tmp_path / "lower/d/old").write_text("x")
    (tmp_path / "lower/d/gone").write_text("x")
    (tmp_path / "upper/d/old").write_text("y")
    (tmp_path / "upper/d/new").mkdir()
    (tmp_path / "upper/d/new/f").touch()
    os.mknod(tmp_path / "upper/d/gone", stat.S_IFCHR, 0)
    assert diff() == [("/d", MODIFIED), ("/d/gone", DELETED), ("/d/new", ADDED), ("/d/new/f", ADDED), ("/d/old", MODIFIED)]


def test_a_directory_that_is_only_on_the_way_says_nothing_unless_something_below_changed(diff: Diff, tmp_path: Path) -> None:
    both(tmp_path, "same")
    both(tmp_path, "a/b")
    (tmp_path / "upper/a/b/f").touch()
    for side in ("upper", "lower"):
        os.utime(tmp_path / side / "a", (1, 1))
    assert diff() == [("/a", MODIFIED), ("/a/b", MODIFIED), ("/a/b/f", ADDED)]
    os.chmod(tmp_path / "upper/same", 0o700)
    assert ("/same", MODIFIED) in diff()


def test_what_the_runtime_made_to_mount_on_is_not_the_containers(diff: Diff, tmp_path: Path) -> None:
    both(tmp_path, "etc")
    (tmp_path / "upper/etc/hosts").touch()
    (tmp_path / "upper/proc").mkdir()
    assert diff() == []
    (tmp_path / "upper/etc/hosts").write_text("the user's own")
    (tmp_path / "upper/proc/mine").touch()
    assert diff() == [("/etc", MODIFIED), ("/etc/hosts", ADDED), ("/proc", ADDED), ("/proc/mine", ADDED)]


def test_an_emptied_and_remade_directory_tells_what_is_no_longer_there(diff: Diff, tmp_path: Path) -> None:
    both(tmp_path, "d")
    (tmp_path / "lower/d/one").touch()
    (tmp_path / "upper/d/two").touch()
    os.setxattr(tmp_path / "upper/d", "trusted.overlay.opaque", b"y")
    assert diff() == [("/d", MODIFIED), ("/d/one", DELETED), ("/d/two", ADDED)]


def test_a_file_in_the_place_of_a_directory_is_a_change(diff: Diff, tmp_path: Path) -> None:
    (tmp_path / "lower/x").mkdir()
    (tmp_path / "upper/x").touch()
    (tmp_path / "lower/y").touch()
    (tmp_path / "upper/y").mkdir()
    assert diff() == [("/x", MODIFIED), ("/y", MODIFIED)]
