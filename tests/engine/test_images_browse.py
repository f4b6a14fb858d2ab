"""What a layer did can be seen, file by file, and nothing in it leads anywhere else. Needs root for the mounts."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from backend.errors import InvalidArgument, NotFound
from backend.images import browse
from tests.support.images import docker_archive, nothing, pieces, store, tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root")


def link(name: str, target: str) -> tuple[str, tarfile.TarInfo]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return name, entry


LOWER = [("etc", None), ("etc/kept", b"1"), ("etc/edited", b"old"), ("etc/gone", b"1"), ("var", None), ("var/a", b"1"), ("var/b", b"2"),
         link("out", "/etc")]
UPPER = [("etc", None), ("etc/edited", b"newer"), ("etc/fresh", b"1"), ("etc/.wh.gone", b""), ("etc/.wh.never", b""), ("var", None),
         ("var/.wh..wh..opq", b""), ("var/c", b"3"), ("opt", None), ("opt/x", b"1")]


@pytest.mark.parametrize("form", [None, "directory"])
async def test_a_layer_tells_what_it_added_changed_and_removed(form: str | None, tmp_path: Path) -> None:
    async with store(str(tmp_path), form=form) as images:
        await images.load(pieces(docker_archive([tar_of(LOWER), tar_of(UPPER)])), progress=nothing)
        top, bottom = await images.lowers(images.get("made:1").id, "test")

        def seen(path: str) -> dict[str, str]:
            return {one.name: one.change for one in browse.list_directory(top, [bottom], path).entries}
        assert seen("/") == {"etc": "", "opt": "added", "var": ""}
        assert seen("/etc") == {"edited": "changed", "fresh": "added", "gone": "removed"}
        assert seen("/var") == {"a": "removed", "b": "removed", "c": "added"}
        assert seen("opt/") == {"x": "added"}
        rows = browse.list_directory(bottom, [], "/").entries
        assert [(one.name, one.kind, one.target) for one in rows] == [("etc", "directory", ""), ("var", "directory", ""), ("out", "link", "/etc")]
        assert browse.list_directory(top, [bottom], "/etc").entries[0].size == 5


async def test_a_path_leads_nowhere_but_into_the_layer(tmp_path: Path) -> None:
    async with store(str(tmp_path)) as images:
        await images.load(pieces(docker_archive([tar_of(LOWER)])), progress=nothing)
        bottom, = await images.lowers(images.get("made:1").id, "test")
        for path in ("/out", "/etc/kept", "/nothing"):
            with pytest.raises(NotFound):
                browse.list_directory(bottom, [], path)
        with pytest.raises(InvalidArgument):
            browse.list_directory(bottom, [], "/etc/../..")


async def test_a_huge_directory_is_told_in_part_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "LIMIT", 10)
    async with store(str(tmp_path)) as images:
        await images.load(pieces(docker_archive([tar_of([(f"f{number}", b"") for number in range(30)])])), progress=nothing)
        bottom, = await images.lowers(images.get("made:1").id, "test")
        found = browse.list_directory(bottom, [], "/")
        assert len(found.entries) == 10 and found.more
