"""`slipway cp`, `diff`, `export`, `commit`, `update`, `push`, `prune`: beside the docker client, and safe from what a container sends."""

from __future__ import annotations

import io
import json
import os
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.copytar import Unpacker
from app.cli.errors import Failure
from tests.support.private import PrivateHelper, docker_client
from tests.support.registry import registry
from tests.support.roots import busybox_tar
from tests.support.slipway import slipway

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
MAKES = "mkdir -p /d/e; echo x > /d/e/f; chmod 751 /d/e/f; ln -s /d/e /lnk; ln -s f /d/e/g; ln /d/e/f /d/h; echo y > /one; rm /etc/group; touch -d 2020-01-01 /d/e/f"


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-c", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())
        made.docker("run", "--name", "has", "busybox", "sh", "-c", MAKES)
        yield made


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    out = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        said = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        out[str(path.relative_to(root))] = (oct(about.st_mode), said, int(about.st_mtime))
    return out


OUT = ["has:/d OUT", "has:/d OUT/new", "has:/d/. OUT/new", "has:/d/. OUT", "has:/one OUT", "has:/one OUT/other", "has:/one OUT/no/", "has:/nope OUT",
       "-L has:/lnk OUT/l", "has:/lnk OUT", "nosuch:/x OUT", "has:/d OUT/file", "has:/one OUT/file", "has:/one OUT/no/x", "has:one OUT", "a b"]


@pytest.mark.parametrize("line", OUT)
def test_files_come_out_as_with_docker(helper: PrivateHelper, tmp_path: Path, line: str) -> None:
    ended = {}
    for name, run in (("docker", helper.docker), ("slipway", lambda *words, check: slipway(helper, *words, check=check))):
        place = tmp_path / name
        place.mkdir()
        (place / "file").write_text("before")
        os.utime(place / "file", (1, 1))
        done = run("cp", *shlex.split(line.replace("OUT", str(place))), check=False)
        ended[name] = (done.returncode, done.stdout, tree(place))
    assert ended["slipway"] == ended["docker"]


IN = ["HERE/dir CON:/in", "HERE/dir CON:/", "HERE/dir/. CON:/tmp", "HERE/file CON:/tmp", "HERE/file CON:/tmp/renamed", "HERE/file CON:/tmp/no/", "HERE/nope CON:/",
      "HERE/dir CON:/one", "HERE/file CON:/no/where", "-L HERE/link CON:/tmp/linked", "HERE/link CON:/tmp", "HERE/file CON:/lnk", "HERE/file CON:tmp/relative"]


@pytest.mark.parametrize("line", IN)
def test_files_go_in_as_with_docker(helper: PrivateHelper, tmp_path: Path, line: str) -> None:
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "dir/sub/a").write_text("a")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    ended = {}
    for name, run in (("docker", helper.docker), ("slipway", lambda *words, check: slipway(helper, *words, check=check))):
        helper.docker("create", "--name", "target", "busybox", "true")
        helper.docker("cp", "has:/d", "-")
        for made in ("one", "lnk", "d"):
            helper.docker("cp", "-", "target:/", stdin=helper.docker("cp", f"has:/{made}", "-").stdout)
        done = run("cp", *shlex.split(line.replace("HERE", str(tmp_path)).replace("CON", "target")), check=False)
        with tarfile.open(fileobj=io.BytesIO(helper.docker("export", "target").stdout)) as tar:
            names = sorted((m.name, m.type, m.mode, m.size, m.linkname) for m in tar if not m.name.startswith(("bin", "dev", "usr", "proc", "sys", "etc")))
        ended[name] = (done.returncode, names)
        helper.docker("rm", "target")
    assert ended["slipway"] == ended["docker"]


def test_a_tar_comes_out_and_goes_in_through_a_pipe(helper: PrivateHelper) -> None:
    out = slipway(helper, "cp", "has:/d", "-").stdout
    helper.docker("create", "--name", "piped", "busybox", "true")
    slipway(helper, "cp", "-", "piped:/tmp", stdin=out)
    with tarfile.open(fileobj=io.BytesIO(slipway(helper, "export", "piped").stdout)) as tar:
        inside = tar.extractfile("tmp/d/e/f")
        assert inside is not None and inside.read() == b"x\n"
    helper.docker("rm", "piped")


def hostile(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, 0o6755
            tar.addfile(entry, io.BytesIO())
    out.seek(0)
    return out


@pytest.mark.parametrize("entries", [
    [("../out", tarfile.REGTYPE, "")], [("/out", tarfile.REGTYPE, "")], [("x/../../out", tarfile.REGTYPE, "")],
    [("x", tarfile.SYMTYPE, ".."), ("x/out", tarfile.REGTYPE, "")], [("x", tarfile.SYMTYPE, "/"), ("x/out", tarfile.DIRTYPE, "")],
    [("x", tarfile.LNKTYPE, "../secret")], [("l", tarfile.SYMTYPE, ".."), ("x", tarfile.LNKTYPE, "l/secret")],
], ids=str)
def test_an_archive_that_leads_out_of_the_directory_writes_nothing_there(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in").mkdir()
    with pytest.raises(Failure):
        Unpacker(str(tmp_path / "in"), "", "", owners=False).unpack(hostile(*entries))
    assert sorted(os.listdir(tmp_path)) == ["in", "secret"] and os.stat(tmp_path / "secret").st_nlink == 1


def test_a_link_of_here_is_replaced_and_never_written_through_and_no_set_user_id_comes_along(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").symlink_to("../victim")
    Unpacker(str(tmp_path / "in"), "", "", owners=False).unpack(hostile(("x", tarfile.REGTYPE, ""), ("dev", tarfile.CHRTYPE, "")))
    assert (tmp_path / "victim").read_text() == "mine"
    assert os.listdir(tmp_path / "in") == ["x"] and oct((tmp_path / "in/x").lstat().st_mode) == "0o100755"


def test_changes_exports_and_commits_are_dockers(helper: PrivateHelper) -> None:
    assert slipway(helper, "diff", "has").stdout == helper.docker("diff", "has").stdout != b""
    file = f"{helper.at}/exported.tar"
    slipway(helper, "export", "-o", file, "has")
    assert Path(file).read_bytes() == helper.docker("export", "has").stdout
    words = ("commit", "-a", "me", "-m", "why", "-c", "CMD echo hi", "-c", "ENV A=1", "has")
    made = [json.loads(helper.docker("inspect", run(*words, f"made:{at}").stdout.decode().strip()).stdout)[0]
            for at, run in enumerate((helper.docker, lambda *words: slipway(helper, *words)))]
    for image in made:
        for own in ("Id", "Created", "RepoTags", "Metadata", "Descriptor", "RepoDigests"):
            image.pop(own, None)
    assert made[0] == made[1] and made[0]["Config"]["Env"][-1] == "A=1"
    helper.docker("rmi", "made:0", "made:1")


def test_limits_of_a_container_that_is_there_are_changed(helper: PrivateHelper) -> None:
    helper.docker("create", "--name", "limits", "busybox", "true")
    assert slipway(helper, "update", "-m", "64m", "--memory-swap", "-1", "--cpus", "0.5", "--restart", "on-failure:2", "limits").stdout == b"limits\n"
    host = json.loads(helper.docker("inspect", "limits").stdout)[0]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["RestartPolicy"]["MaximumRetryCount"]) == (64 << 20, -1, 500_000_000, 2)
    nothing = slipway(helper, "update", "limits", check=False)
    assert nothing.returncode == 1 and b"nothing to change" in nothing.stderr
    helper.docker("rm", "limits")


def test_an_image_is_pushed_and_can_be_pulled_again(helper: PrivateHelper) -> None:
    with registry() as at:
        helper.docker("tag", "busybox", f"{at}/team/box:2")
        said = slipway(helper, "push", f"{at}/team/box:2").stdout.decode()
        assert f"The push refers to repository [{at}/team/box]" in said and "2: digest: sha256:" in said
        assert slipway(helper, "push", "-q", f"{at}/team/box:2").stdout.decode() == f"{at}/team/box:2\n"
        helper.docker("rmi", f"{at}/team/box:2")
        slipway(helper, "pull", f"{at}/team/box:2")
        helper.docker("rmi", f"{at}/team/box:2")
        missing = slipway(helper, "push", f"{at}/no/such:1", check=False)
        assert missing.returncode == 1 and b"does not exist locally" in missing.stderr


def test_prune_asks_first_and_removes_what_is_not_used(helper: PrivateHelper) -> None:
    helper.docker("network", "create", "idle")
    helper.docker("create", "--label", "prune=me", "busybox", "true")
    no = slipway(helper, "system", "prune", stdin=b"n\n", check=False)
    assert no.returncode == 1 and b"all stopped containers" in no.stdout and b"idle" in helper.docker("network", "ls").stdout
    gone = slipway(helper, "container", "prune", "-f", "--filter", "label=prune=me").stdout.decode()
    assert gone.startswith("Deleted Containers:\n") and "Total reclaimed space: 0B" in gone
    assert slipway(helper, "network", "prune", stdin=b"y\n").stdout.decode().endswith("Deleted Networks:\nidle\n\n")
    helper.docker("volume", "create", "named")
    assert b"named" not in slipway(helper, "volume", "prune", "-f").stdout
    assert b"named" in slipway(helper, "volume", "prune", "-af").stdout
    assert slipway(helper, "image", "prune", "-f").stdout == helper.docker("image", "prune", "-f").stdout
