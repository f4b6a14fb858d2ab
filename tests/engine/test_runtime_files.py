"""Confined children on file trees: what somebody else put there, or sends, reaches nothing outside and harms nobody."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from backend.runtime.client import KeeperError
from backend.runtime.filejob import FileJob, Look
from backend.runtime.plan import Overlay
from tests.support.keeper import Lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = await Lab.open()
    os.makedirs(f"{lab.at}/tree")
    yield lab
    await lab.close()


Member = tuple[str, bytes, bytes | str]


def tar_of(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, body in members:
            one = tarfile.TarInfo(name)
            one.type = kind
            if isinstance(body, bytes):
                one.size = len(body)
                tar.addfile(one, io.BytesIO(body))
            else:
                one.linkname = body
                tar.addfile(one)
    return out.getvalue()


def opened(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


async def extract(lab: Lab, data: bytes, look: Look | None = None, path: str = "/", **task: Any) -> int:
    fd = opened(f"{lab.at}/tree")
    try:
        async with await FileJob.start(lab.keeper, look or Look(directory=fd), {"kind": "extract", "path": path, **task}, "in") as job:
            await job.report("ready")
            await job.write(data)
            job.end_input()
            return int((await job.report("done"))["entries"])
    finally:
        os.close(fd)


async def pack(lab: Lab, look: Look | None = None, path: str = "/.", **task: Any) -> tarfile.TarFile:
    fd = opened(f"{lab.at}/tree")
    try:
        async with await FileJob.start(lab.keeper, look or Look(directory=fd), {"kind": "pack", "path": path, **task}, "out") as job:
            await job.report("stat")
            data = b"".join([piece async for piece in job.pieces()])
            await job.report("done")
            return tarfile.open(fileobj=io.BytesIO(data))
    finally:
        os.close(fd)


FILE, LINK, SYMLINK, DIRECTORY = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize("members", [
    [("../../outside/x", FILE, b"bad")],
    [("l", SYMLINK, "/outside"), ("l/x", FILE, b"bad")],
    [("l", SYMLINK, "../outside"), ("l/x", FILE, b"bad")],
    [("l", SYMLINK, ".."), ("m", LINK, "l"), ("m/x", FILE, b"bad")],
    [("d", DIRECTORY, b""), ("d/l", SYMLINK, "/outside"), ("d/l/deep/x", FILE, b"bad")],
    [("h", LINK, "../../outside/secret")],
    [("h", LINK, "/outside/secret")],
], ids=["dots", "absolute-link", "relative-link", "link-to-link", "deep", "hard-dots", "hard-absolute"])  # fmt: skip
async def test_an_archive_cannot_leave_its_place(lab: Lab, members: list[Member]) -> None:
    os.makedirs(f"{lab.at}/outside")
    Path(lab.at, "outside/secret").write_text("secret")
    with pytest.raises(KeeperError):
        await extract(lab, tar_of(*members))
    assert os.listdir(f"{lab.at}/outside") == ["secret"]
    assert os.stat(f"{lab.at}/outside/secret").st_nlink == 1


async def test_a_link_that_was_there_before_is_followed_inside_the_root(lab: Lab) -> None:
    os.makedirs(f"{lab.at}/tree/run")
    os.makedirs(f"{lab.at}/tree/var")
    os.symlink("/run", f"{lab.at}/tree/var/run")
    assert await extract(lab, tar_of(("run/pid", FILE, b"1"), ("run/new/pid", FILE, b"2")), path="/var") == 2
    assert Path(lab.at, "tree/run/pid").read_text() == "1" and Path(lab.at, "tree/run/new/pid").read_text() == "2"


async def test_what_exists_is_replaced_and_never_written_through(lab: Lab) -> None:
    Path(lab.at, "precious").write_text("precious")
    os.link(f"{lab.at}/precious", f"{lab.at}/tree/f")
    os.symlink("f", f"{lab.at}/tree/g")
    os.mkfifo(f"{lab.at}/tree/p")
    await extract(lab, tar_of(("f", FILE, b"new"), ("g", FILE, b"new"), ("p", FILE, b"new")))
    assert Path(lab.at, "precious").read_text() == "precious"
    assert [Path(lab.at, "tree", name).read_text() for name in "fgp"] == ["new", "new", "new"]
    assert not os.path.islink(f"{lab.at}/tree/g")


async def test_kinds_are_kept_where_that_is_asked_and_replaced_where_not(lab: Lab) -> None:
    os.makedirs(f"{lab.at}/tree/d/deep/er")
    with pytest.raises(KeeperError, match='cannot overwrite directory "d" with non-directory "/"') as refused:
        await extract(lab, tar_of(("d", FILE, b"x")), keep_kinds=True)
    assert refused.value.reason == "refused" and os.path.isdir(f"{lab.at}/tree/d/deep/er")
    await extract(lab, tar_of(("d", FILE, b"x")))
    assert Path(lab.at, "tree/d").read_text() == "x"
    with pytest.raises(KeeperError, match='cannot overwrite non-directory "d" with directory "/"'):
        await extract(lab, tar_of(("d", DIRECTORY, b"")), keep_kinds=True)


@pytest.mark.parametrize("data", [b"x" * 700, tar_of(("f", FILE, b"x" * 5000))[:3000], tar_of(("f", FILE, b""))[:300]],
                         ids=["no-tar", "cut-in-a-file", "cut-in-a-header"])
async def test_a_damaged_archive_is_said_to_be_one(lab: Lab, data: bytes) -> None:
    with pytest.raises(KeeperError) as refused:
        await extract(lab, data)
    assert refused.value.reason == "bad_archive"


async def test_marks_of_overlayfs_cannot_be_sent_in(lab: Lab) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        one = tarfile.TarInfo("d")
        one.type = DIRECTORY
        one.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.fine": "1"}
        tar.addfile(one)
    await extract(lab, out.getvalue())
    assert os.listxattr(f"{lab.at}/tree/d") == ["user.fine"]


async def test_zeros_become_holes_and_holes_come_out_as_zeros(lab: Lab) -> None:
    with open(f"{lab.at}/tree/sparse", "wb") as file:
        file.seek(40 << 20)
        file.write(b"end")
        file.truncate(50 << 20)
    with await pack(lab) as tar:
        member = tar.extractfile("./sparse")
        assert member is not None
        content = member.read()
    assert len(content) == 50 << 20 and content[40 << 20:][:4] == b"end\0" and not content.strip(b"\0end")
    data = tar_of(("copy", FILE, content))
    await extract(lab, data)
    assert Path(lab.at, "tree/copy").read_bytes() == content
    assert os.stat(f"{lab.at}/tree/copy").st_blocks * 512 < 5 << 20


async def test_pipes_devices_and_sockets_hold_nobody_up(lab: Lab) -> None:
    import socket
    import stat

    os.mkfifo(f"{lab.at}/tree/pipe")
    os.mknod(f"{lab.at}/tree/tty", stat.S_IFCHR | 0o600, os.makedev(5, 0))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{lab.at}/tree/sock")
        async with asyncio.timeout(20):
            with await pack(lab) as tar:
                seen = {one.name: one for one in tar}
    assert set(seen) == {".", "./pipe", "./tty"} and (seen["./tty"].devmajor, seen["./tty"].devminor) == (5, 0)


async def test_long_names_large_ids_and_other_alphabets_come_out_and_go_in_as_they_are(lab: Lab) -> None:
    names = ["n" * 255, "d" * 120 + "/" + "e" * 120, "ü\udcff", "new\nline", "a" * 100, "b/" * 60 + "c"]
    for name in names:
        os.makedirs(os.path.dirname(f"{lab.at}/tree/{name}"), exist_ok=True)
        Path(lab.at, "tree", name).write_text(name.encode(errors="replace").decode())
        os.chown(f"{lab.at}/tree/{name}", 4_000_000_000, 3_000_000)
        os.utime(f"{lab.at}/tree/{name}", (1, 1))
    with await pack(lab) as tar:
        out = tar.fileobj.getvalue()  # type: ignore[union-attr]
        assert {f"./{name}" for name in names} <= set(tar.getnames())
    os.rename(f"{lab.at}/tree", f"{lab.at}/first")
    os.mkdir(f"{lab.at}/tree")
    await extract(lab, out)
    for name in names:
        there = os.stat(f"{lab.at}/tree/{name}")
        assert (there.st_uid, there.st_gid, there.st_mtime) == (4_000_000_000, 3_000_000, 1)
        assert Path(lab.at, "tree", name).read_bytes() == Path(lab.at, "first", name).read_bytes()


async def test_a_path_of_a_container_leads_nowhere_else(lab: Lab) -> None:
    """Links to the host's places, to /proc's magic links and above the root are the container's own, or nothing."""
    os.symlink("/etc/hostname-of-nobody", f"{lab.lower}/abs")
    os.symlink("../../../../../../etc/passwd", f"{lab.lower}/up")
    os.symlink("/proc/1/root/etc/shadow", f"{lab.lower}/magic")
    id = await lab.sleeper()
    with await pack(lab, Look(id=id), "/etc/passwd") as tar:
        assert "alice" in tar.extractfile("passwd").read().decode()  # type: ignore[union-attr]
    for path in ("/abs/", "/magic/", "/proc/1/root/etc", "/proc/1/cwd/", "/proc/self/fd/0", "/../../../../../root/.bashrc"):
        with pytest.raises(KeeperError):
            await pack(lab, Look(id=id), path)
    async with await FileJob.start(lab.keeper, Look(id=id), {"kind": "stat", "path": "/up"}) as job:
        assert (await job.report("stat"))["link"] == "/etc/passwd"


async def test_directories_exchanged_for_links_during_a_copy_do_not_lead_out(lab: Lab) -> None:
    """A container swaps a directory and a link to the host's /etc as fast as it can, while copies go in and out."""
    script = "cd /; mkdir -p a b/d; ln -s /etc l; while :; do mv a/x y 2>/dev/null; mv l a/x; mv a/x l; mkdir -p a/x; rmdir a/x; done"
    id = await lab.create(lab.config("sh", "-c", script))
    await lab.keeper.start(id)
    before = sorted(os.listdir("/etc"))
    for _ in range(30):
        try:
            await extract(lab, tar_of(("x/swapped", FILE, b"bad"), ("x/d/swapped", FILE, b"bad")), Look(id=id), "/a")
            with await pack(lab, Look(id=id), "/a/x/.") as tar:
                assert "shadow" not in "".join(tar.getnames()) or os.path.exists(f"{lab.lower}/etc/shadow")
        except KeeperError as error:
            assert error.reason in ("no_such", "bad_archive", "refused", "not_directory", "other"), error
    assert sorted(os.listdir("/etc")) == before


async def test_a_file_that_shrinks_while_it_is_sent_is_filled_up(lab: Lab) -> None:
    path = f"{lab.at}/tree/log"
    with open(path, "wb") as file:
        file.truncate(64 << 20)
        for at in range(0, 64 << 20, 4096):
            os.pwrite(file.fileno(), b"x", at)
    fd = opened(f"{lab.at}/tree")
    async with await FileJob.start(lab.keeper, Look(directory=fd), {"kind": "pack", "path": "/log"}, "out") as job:
        os.close(fd)
        await job.report("stat")
        pieces = job.pieces()
        data = await anext(pieces)
        os.truncate(path, 1 << 20)
        data += b"".join([piece async for piece in pieces])
        await job.report("done")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmember("log").size == 64 << 20


async def test_whoever_leaves_early_ends_the_child(lab: Lab) -> None:
    with open(f"{lab.at}/tree/f", "wb") as file:
        file.truncate(1 << 40)
    before = lab.census()
    fd = opened(f"{lab.at}/tree")
    for kind, way in (("pack", "out"), ("extract", "in")):
        job = await FileJob.start(lab.keeper, Look(directory=fd), {"kind": kind, "path": "/"}, way)  # type: ignore[arg-type]
        await job.report("stat" if way == "out" else "ready")
        job.close()
    os.close(fd)
    for _ in range(200):
        if lab.census() == before:
            break
        await asyncio.sleep(0.01)
    assert lab.census() == before


async def test_many_entries_do_not_fill_the_memory_of_the_child(lab: Lab) -> None:
    """30,000 files, packed and extracted, in a child that must not grow beyond some 60 MB."""
    count = 30_000
    base = opened(f"{lab.at}/tree")
    for number in range(count):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=base))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    async with await FileJob.start(lab.keeper, Look(directory=base), {"kind": "pack", "path": "/."}, "out") as job:
        await job.report("stat")
        size, peak = 0, 0
        child = job._child
        async for piece in job.pieces():
            size += len(piece)
            peak = max(peak, _memory(child))
        assert (await job.report("done"))["entries"] == count + 1
    os.close(base)
    assert size >= count * 512 and 0 < peak < 60 << 20, (peak, before)


def _memory(pidfd: int) -> int:
    """Resident bytes of the process behind a pidfd; 0 once it has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:") and (pid := int(line.split()[1])) > 0:
            try:
                return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
            except (FileNotFoundError, ProcessLookupError, IndexError):
                return 0
    return 0


# --- a stopped container's layers ---------------------------------------------------------------------------------
async def test_a_look_at_layers_leaves_no_trace_and_a_mount_shows_its_source(lab: Lab) -> None:
    Path(lab.at, "tree/f").write_text("mounted")
    os.makedirs(f"{lab.at}/upper")
    mount = {"destination": "/not/there", "type": "bind", "source": f"{lab.at}/tree", "options": ["rbind", "rprivate"]}
    before = lab.census()
    with await pack(lab, Look(overlay=Overlay((f"{lab.at}/upper", lab.lower), "", ""), mounts=[mount]), "/not/there") as tar:
        assert tar.getnames() == ["there", "there/f"]
    assert os.listdir(f"{lab.at}/upper") == [] and not os.path.exists(f"{lab.lower}/not")
    assert lab.census()["mounts"] == before["mounts"] == []


async def test_a_layer_is_packed_with_its_removals(lab: Lab) -> None:
    for name in ("upper", "work"):
        os.makedirs(f"{lab.at}/{name}")
    id = await lab.create(lab.config("sh", "-c", "rm /etc/group; rm -r /usr; mkdir /usr; echo x > /usr/y; mkdir -p /etc/empty"))
    await lab.keeper.start(id)
    await lab.exit(id)
    fd = opened(f"{lab.at}/{id}/upper")
    task = {"kind": "export", "layer": True, "placeholders": ["/dev", "/proc", "/sys"]}
    async with await FileJob.start(lab.keeper, Look(directory=fd), task, "out") as job:
        await job.report("ready")
        data = b"".join([piece async for piece in job.pieces()])
        await job.report("done")
    os.close(fd)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == ["etc", "etc/.wh.group", "etc/empty", "usr", "usr/.wh..wh..opq", "usr/y"]
