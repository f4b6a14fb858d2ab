"""The contents of volumes through our own client: what is browsed, edited, backed up, restored and cloned is the user's data."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from backend.client import Client
from backend.client.volume_files import VolumeFiles
from backend.errors import Conflict, EngineError, InvalidArgument, NotFound
from backend.spec import api
from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as helper:
        helper.docker("import", "-c", "CMD sh", "-", "bb:1", stdin=busybox_tar())
        yield helper


@pytest_asyncio.fixture
async def client(helper: PrivateHelper) -> AsyncIterator[Client]:
    async with Client(f"unix://{helper.socket}") as client:
        yield client


async def fresh(client: Client, name: str) -> tuple[VolumeFiles, Path]:
    """A new volume's files, by the API and on the disk."""
    made = await client.create_volume(api.VolumeCreate(name=name))
    return client.volume_files(name), Path(made.mountpoint)


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def sent(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 65536):
        yield data[at : at + 65536]


# --- browse ---------------------------------------------------------------------------------------------------------
async def test_a_directory_is_listed_in_pages_with_what_is_in_it(client: Client) -> None:
    files, disk = await fresh(client, "listed")
    for number in range(25):
        (disk / f"f{number:02}").write_text("x" * number)
    (disk / "dir").mkdir(mode=0o750)
    os.chown(disk / "dir", 7, 8)
    (disk / "link").symlink_to("/etc/passwd")
    os.mkfifo(disk / "pipe")
    (disk / "new\nline ü").touch()
    os.close(os.open(os.fsencode(disk) + b"/odd\xff", os.O_CREAT))
    first = await files.list("/", limit=20)
    assert first.more and len(first.entries) == 20
    rest = await files.list("/", after=first.entries[-1].name, limit=20)
    seen = {one.name: one for one in (*first.entries, *rest.entries)}
    assert not rest.more and len(seen) == 30
    assert (seen["dir"].kind, seen["dir"].mode, seen["dir"].uid, seen["dir"].gid) == ("directory", 0o750, 7, 8)
    assert (seen["link"].kind, seen["link"].target) == ("link", "/etc/passwd")
    assert seen["pipe"].kind == "pipe" and seen["f24"].size == 24 and seen["new\nline ü"].kind == "file"
    assert [one.name for one in seen.values() if one.odd] == ["odd\ufffd"]
    assert (await files.stat("/dir")).kind == "directory" and (await files.stat("/")).kind == "directory"


async def test_a_file_is_read_whole_or_in_part(client: Client) -> None:
    files, disk = await fresh(client, "read")
    data = os.urandom(1 << 20)
    (disk / "f").write_bytes(data)
    assert await whole(files.read("/f")) == data
    assert await whole(files.read("/f", offset=100, length=50)) == data[100:150]
    assert await whole(files.read("/f", offset=len(data) - 5)) == data[-5:]
    head, version, all_of_it = await files.load("/f", limit=1000)
    assert head == data[:1000] and version and not all_of_it


async def test_an_edit_keeps_owner_and_mode_and_does_not_overwrite_somebody_elses(client: Client) -> None:
    files, disk = await fresh(client, "edited")
    (disk / "f").write_text("old")
    os.chmod(disk / "f", 0o640)
    os.chown(disk / "f", 33, 34)
    (disk / "l").symlink_to("/f")
    _, version, _ = await files.load("/f", limit=100)
    newer = await files.write("/l", b"new", expected=version)
    seen = os.stat(disk / "f")
    assert (disk / "f").read_text() == "new" and (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (0o640, 33, 34)
    assert (disk / "l").is_symlink() and newer != version
    with pytest.raises(Conflict, match="has changed since it was read"):
        await files.write("/f", b"newest", expected=version)
    assert (disk / "f").read_text() == "new" and sorted(os.listdir(disk)) == ["f", "l"]
    await files.write("/made", b"", mode=0o600)
    assert os.stat(disk / "made").st_mode & 0o7777 == 0o600


async def test_directories_are_made_moved_and_removed(client: Client) -> None:
    files, disk = await fresh(client, "moved")
    await files.make_directory("/a/b/c")
    await files.write("/a/b/c/f", b"x")
    await files.rename("/a/b", "/z")
    assert (disk / "z/c/f").read_text() == "x"
    with pytest.raises(Conflict):
        await files.rename("/a", "/z")
    with pytest.raises(Conflict):
        await files.make_directory("/z")
    (disk / "z/out").symlink_to("/a")
    await files.remove("/z/out")
    await files.remove("/z")
    assert os.listdir(disk) == ["a"]
    for path in ("/", "/z", "/a/../../x"):
        with pytest.raises((NotFound, InvalidArgument)):
            await files.remove(path)


async def test_no_link_of_a_volume_leads_out_of_it(client: Client, tmp_path: Path) -> None:
    files, disk = await fresh(client, "links")
    (tmp_path / "secret").write_text("secret")
    (disk / "abs").symlink_to(tmp_path)
    (disk / "up").symlink_to("../../../../../../../../../../" + str(tmp_path))
    (disk / "proc").symlink_to("/proc/self/root")
    os.mkfifo(disk / "pipe")
    for path in ("/abs/secret", "/up/secret", f"/proc{tmp_path}/secret", f"/../../..{tmp_path}/secret"):
        with pytest.raises(NotFound):
            await whole(files.read(path))
        with pytest.raises(EngineError):
            await files.write(path, b"bad")
        with pytest.raises(EngineError):
            await files.remove(path)
    with pytest.raises(InvalidArgument, match="this is a pipe"):
        await whole(files.read("/pipe"))
    assert (tmp_path / "secret").read_text() == "secret" and os.listdir(tmp_path) == ["secret"]
    with pytest.raises(NotFound, match="no such volume"):
        await client.volume_files("nobody").list("/")


# --- backup, restore, clone -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_a_backup_restored_elsewhere_is_the_same_volume(client: Client, compression: str) -> None:
    files, disk = await fresh(client, f"backed-{compression}")
    (disk / "d").mkdir(mode=0o700)
    (disk / "d" / "f").write_bytes(os.urandom(300_000))
    os.link(disk / "d" / "f", disk / "hard")
    (disk / "l").symlink_to("d/f")
    os.setxattr(disk / "d" / "f", "user.note", b"kept")
    os.chown(disk, 999, 998)
    os.chmod(disk, 0o1770)
    data = await whole(files.backup(compression=compression))  # type: ignore[arg-type]
    other = client.volume_files(f"restored-{compression}")
    assert (await other.restore(sent(data))).entries == 5
    there = Path((await client.inspect_volume(f"restored-{compression}")).mountpoint)
    assert (there / "d" / "f").read_bytes() == (disk / "d" / "f").read_bytes()
    assert os.stat(there / "hard").st_ino == os.stat(there / "d" / "f").st_ino and os.readlink(there / "l") == "d/f"
    assert os.getxattr(there / "d" / "f", "user.note") == b"kept"
    assert (os.stat(there).st_uid, os.stat(there).st_gid, os.stat(there).st_mode & 0o7777) == (999, 998, 0o1770)


async def test_a_restore_into_what_is_not_empty_must_be_meant(client: Client) -> None:
    files, disk = await fresh(client, "full")
    (disk / "old").write_text("old")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("new")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"new"))
    with pytest.raises(Conflict, match="is not empty"):
        await files.restore(sent(out.getvalue()))
    with pytest.raises(InvalidArgument):
        await files.restore(sent(b"no tar at all" * 100), replace=True)
    assert os.listdir(disk) == ["old"]
    await files.restore(sent(out.getvalue()), replace=True)
    assert os.listdir(disk) == ["new"] and os.stat(disk).st_mode & 0o7777 == 0o755
    assert [one for one in os.listdir(disk.parent.parent) if one.startswith(".scratch")] == []


async def test_a_failed_restore_makes_no_volume(client: Client) -> None:
    with pytest.raises(InvalidArgument):
        await client.volume_files("never").restore(sent(b"no tar" * 200))
    with pytest.raises(NotFound):
        await client.inspect_volume("never")


async def test_a_clone_is_a_volume_of_its_own(client: Client) -> None:
    files, disk = await fresh(client, "original")
    (disk / "f").write_text("same")
    with open(disk / "sparse", "wb") as file:
        file.truncate(64 << 20)
    made = await files.clone("copy", labels={"of": "original"})
    assert made.labels == {"of": "original"} and Path(made.mountpoint, "f").read_text() == "same"
    seen = os.stat(Path(made.mountpoint, "sparse"))
    assert seen.st_size == 64 << 20 and seen.st_blocks == 0
    (disk / "f").write_text("changed")
    assert Path(made.mountpoint, "f").read_text() == "same"
    with pytest.raises(Conflict, match="already"):
        await files.clone("copy")


async def test_a_backup_under_a_writing_container_is_of_one_moment(client: Client, helper: PrivateHelper) -> None:
    """The container writes the same number into two files, one after the other: in a consistent copy they differ by one
    at most, and what came later is not there before what came earlier."""
    await client.create_volume(api.VolumeCreate(name="busy"))
    helper.docker("run", "-d", "--name", "writer", "-v", "busy:/v", "bb:1", "sh", "-c",
                  "i=0; while :; do i=$((i+1)); echo $i > /v/a; for f in 1 2 3 4 5 6 7 8; do echo $i > /v/m$f; done; echo $i > /v/z; done")
    files = client.volume_files("busy")
    async with asyncio.timeout(30):
        while not any(one.name == "z" for one in (await files.list()).entries):
            await asyncio.sleep(0.01)
    for _ in range(4):
        data = await whole(files.backup())
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            values = {one.name: (tar.extractfile(one) or io.BytesIO()).read() for one in tar if one.isfile()}
        first, last = int(values["./a"] or 0), int(values["./z"] or 0)
        assert first - last in (0, 1) or b"" in (values["./a"], values["./z"])
    state = json.loads(helper.docker("inspect", "writer").stdout)[0]["State"]["Status"]
    assert state == "running", "it goes on afterwards"
    with pytest.raises(Conflict, match=r"in use by running containers \(writer\)"):
        await files.restore(sent(b""), replace=True)
    helper.docker("rm", "-f", "writer")


async def test_a_volume_is_not_removed_under_a_backup(client: Client, helper: PrivateHelper) -> None:
    files, disk = await fresh(client, "slow")
    (disk / "f").write_bytes(os.urandom(32 << 20))
    pieces = files.backup()
    await anext(pieces)
    assert "volume is in use" in helper.docker("volume", "rm", "slow", check=False).stderr.decode()
    await pieces.aclose()  # type: ignore[attr-defined]
    for _ in range(100):
        if helper.docker("volume", "rm", "slow", check=False).returncode == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the backup that its client left goes on holding the volume")


async def test_a_volume_of_the_local_drivers_mounts_is_backed_up_and_restored_too(client: Client) -> None:
    options = {"type": "tmpfs", "device": "tmpfs"}
    await client.create_volume(api.VolumeCreate(name="mounted", driver_opts=options))
    files = client.volume_files("mounted")
    assert (await files.list()).entries == []
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("f"))
    assert (await files.restore(sent(out.getvalue()))).entries == 1


async def test_a_container_held_for_a_backup_goes_on_when_the_helper_is_killed(client: Client, helper: PrivateHelper) -> None:
    files, disk = await fresh(client, "held")
    (disk / "large").write_bytes(os.urandom(1 << 20) * 300)
    helper.docker("run", "-d", "--name", "held", "-v", "held:/v", "bb:1", "sleep", "1000")
    backup = asyncio.ensure_future(whole(files.backup()))
    while not backup.done() and (await client.inspect_container("held")).state.status != "paused":
        pass
    assert not backup.done(), "it was never seen paused"
    helper.leave(signal.SIGKILL)
    with pytest.raises(EngineError):
        await backup
    helper.start()
    assert (await client.inspect_container("held")).state.status == "running"
    assert [one for one in os.listdir(disk.parent.parent) if one.startswith(".scratch")] == []
    helper.docker("rm", "-f", "held")


async def test_a_client_that_leaves_during_the_pause_leaves_nobody_paused(client: Client, helper: PrivateHelper) -> None:
    files, disk = await fresh(client, "left")
    (disk / "large").write_bytes(os.urandom(1 << 20) * 200)
    helper.docker("run", "-d", "--name", "left", "-v", "left:/v", "bb:1", "sleep", "1000")
    for _ in range(3):
        backup = asyncio.ensure_future(whole(files.backup()))
        while not backup.done() and (await client.inspect_container("left")).state.status != "paused":
            pass
        backup.cancel()
        await asyncio.wait([backup])
        async with asyncio.timeout(30):
            while (await client.inspect_container("left")).state.status != "running":
                await asyncio.sleep(0.01)
    helper.docker("rm", "-f", "left")
    async with asyncio.timeout(30):
        while [one for one in os.listdir(disk.parent.parent) if one.startswith(".")]:
            await asyncio.sleep(0.01)
