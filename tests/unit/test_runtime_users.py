"""Who a process runs as: Docker's rules, on files that nobody vouches for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.runtime.users import Identity, NoSuchUser, group_id, number, resolve

PASSWD = "# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1001::/home/alice:/bin/sh\n42:x:7:8::/seven:\nneg:x:-1:0::/:\n"
GROUP = "root:x:0:root\nwheel:x:10:alice,root\nalice:x:1001:\naudio:x:63:alice\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(("text", "expected"), [
    ("", Identity(0, 0, (0, 10), "/root")), ("root", Identity(0, 0, (0, 10), "/root")), ("alice", Identity(1000, 1001, (10, 63), "/home/alice")),
    ("1000", Identity(1000, 1001, (10, 63), "/home/alice")), ("alice:wheel", Identity(1000, 10, (), "/home/alice")),
    ("alice:0", Identity(1000, 0, (), "/home/alice")), ("555", Identity(555, 0, (), "/")), ("555:666", Identity(555, 666, (), "/")),
    ("42", Identity(42, 0, (), "/")), (":audio", Identity(0, 63, (), "/root")),
])  # fmt: skip
def test_names_and_numbers(root: int, text: str, expected: Identity) -> None:
    assert resolve(root, text) == expected


@pytest.mark.parametrize(("text", "message"), [
    ("bob", "unable to find user bob: no matching entries in passwd file"), ("alice:staff", "unable to find group staff: no matching"),
    ("neg", "unable to find user neg"), ("4294967296", "range 0-2147483647"), ("2147483648", "range"), ("0:4294967296", "range"),
    ("1_0", "unable to find user 1_0"), ("-1", "unable to find user -1"), ("١", "unable to find user"),
])  # fmt: skip
def test_what_is_not_there_is_refused_and_never_becomes_root(root: int, text: str, message: str) -> None:
    with pytest.raises(NoSuchUser, match=message):
        resolve(root, text)


def test_an_image_without_the_files_knows_numbers_only(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert resolve(fd, "5:6") == Identity(5, 6, (), "/")
        with pytest.raises(NoSuchUser):
            resolve(fd, "root")
    finally:
        os.close(fd)


def test_links_stay_inside_and_pipes_and_endless_lines_do_no_harm(tmp_path: Path, root: int) -> None:
    passwd = tmp_path / "etc/passwd"
    passwd.unlink()
    passwd.symlink_to("/../../../../../../etc/passwd")
    with pytest.raises(NoSuchUser):
        resolve(root, "root")
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(NoSuchUser):
        resolve(root, "root")
    passwd.unlink()
    passwd.write_text("x" * 300_000 + ":x:1:1::/:\nlate:x:12:13::/late:\n")
    assert resolve(root, "late") == Identity(12, 13, (), "/late")
    with passwd.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(NoSuchUser):
        resolve(root, "late")


def test_groups_by_name_and_number(root: int) -> None:
    assert (group_id(root, "audio"), group_id(root, "63"), group_id(root, "777")) == (63, 63, 777)
    with pytest.raises(NoSuchUser):
        group_id(root, "nope")


@pytest.mark.parametrize("text", ["", "+1", " 1", "1 ", "0x1", "1e3", "12345678901", "²"])
def test_only_plain_numbers_are_numbers(text: str) -> None:
    assert number(text) is None
