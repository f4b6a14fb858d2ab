"""The options of a volume that is a mount: what the kernel is told, what is refused, what is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import InvalidArgument, ServerError
from backend.runtime import syscalls as sc
from backend.volumes import mounting


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
        made.append((source, target, kind, flags, data))

    monkeypatch.setattr(sc, "mount", mount)
    return made


def test_words_of_mount_become_flags_and_the_rest_is_the_file_systems(calls: list[tuple[Any, ...]]) -> None:
    mounting.mount({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid,ro,noatime,uid=3,defaults"}, "/v")
    assert calls == [("tmpfs", "/v", "tmpfs", sc.MS_NOSUID | sc.MS_RDONLY | 1 << 10, "size=1m,uid=3")]


def test_a_later_word_undoes_an_earlier_one(calls: list[tuple[Any, ...]]) -> None:
    mounting.mount({"type": "tmpfs", "device": "tmpfs", "o": "ro,noexec,rw"}, "/v")
    assert calls[0][3] == sc.MS_NOEXEC


def test_a_read_only_bind_is_made_so_in_a_second_step_and_then_propagates(calls: list[tuple[Any, ...]]) -> None:
    mounting.mount({"type": "none", "device": "/src", "o": "bind,ro,rslave"}, "/v")
    assert [one[3] for one in calls] == [sc.MS_BIND | sc.MS_RDONLY, sc.MS_BIND | sc.MS_RDONLY | sc.MS_REMOUNT, sc.MS_SLAVE | sc.MS_REC]


def test_a_servers_name_becomes_its_address(calls: list[tuple[Any, ...]]) -> None:
    mounting.mount({"type": "nfs", "device": ":/path", "o": "addr=localhost,vers=4"}, "/v")
    assert calls[0][4] in ("addr=127.0.0.1,vers=4", "addr=::1,vers=4")


@pytest.mark.parametrize("text", ["user=me,password=hunter2,vers=3", "password=hunter2", "pass=hunter2,x"])
def test_a_failure_tells_no_password(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(13, "Permission denied", "mount")

    monkeypatch.setattr(sc, "mount", fails)
    with pytest.raises(ServerError) as refused:
        mounting.mount({"type": "cifs", "device": "//host/share", "o": text}, "/v")
    assert "hunter2" not in refused.value.message and "permission denied" in refused.value.message


def test_options_that_need_others_or_are_unknown_are_refused() -> None:
    for options in ({"x": "y"}, {"type": "nfs"}, {"device": "/x"}, {"o": "ro"}, {"size": "1g"}):
        with pytest.raises(InvalidArgument):
            mounting.check("name", options)
    mounting.check("name", {"type": "nfs", "device": ":/x", "o": "addr=h"})
    assert mounting.wanted({"type": "nfs", "device": ":/x"}) and not mounting.wanted({})
