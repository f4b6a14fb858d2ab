"""docker cp, diff, export and commit by the real client: what people carry into and out of their containers arrives as it was."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as helper:
        helper.docker("import", "-", "bb:1", stdin=busybox_tar())
        helper.docker("run", "-d", "--name", "live", "--tmpfs", "/memory", "-v", "store:/data", "-v", "store:/readonly:ro", "bb:1",
                      "sleep", "1000")
        helper.docker("create", "--name", "still", "-v", "store:/data", "bb:1", "true")
        yield helper


def sh(helper: PrivateHelper, script: str, name: str = "live") -> str:
    return helper.docker("exec", name, "sh", "-c", script).stdout.decode()


def refused(helper: PrivateHelper, *arguments: str) -> str:
    done = helper.docker(*arguments, check=False)
    assert done.returncode != 0
    return done.stderr.decode()


def tar_of(helper: PrivateHelper, source: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(helper.docker("cp", source, "-").stdout))


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("x", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(helper: PrivateHelper, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = Connection(helper.socket)
    connection.request(method, path, body)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data, answer.headers


# --- out ------------------------------------------------------------------------------------------------------------
def test_a_directory_comes_out_with_its_links_modes_and_odd_names(helper: PrivateHelper, tmp_path: Path) -> None:
    sh(helper, "mkdir -p /o/d; echo one > '/o/a\nb'; chmod 640 /o/a*; ln -s d /o/l; ln -s /gone /o/dead; echo h > /o/h1; ln /o/h1 /o/h2; "
               "mkfifo /o/pipe; chown 12:34 /o/d; chmod 1777 /o/d")
    with tar_of(helper, "live:/o") as tar:
        seen = {one.name: one for one in tar}
    assert set(seen) == {"o", "o/d", "o/a\nb", "o/l", "o/dead", "o/h1", "o/h2", "o/pipe"}
    assert seen["o/a\nb"].mode == 0o640 and (seen["o/d"].uid, seen["o/d"].gid, seen["o/d"].mode) == (12, 34, 0o1777)
    assert seen["o/l"].linkname == "d" and seen["o/dead"].linkname == "/gone" and seen["o/pipe"].isfifo()
    assert {seen["o/h1"].type, seen["o/h2"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    helper.docker("cp", "live:/o", str(tmp_path / "out"))
    assert (tmp_path / "out" / "a\nb").read_text() == "one\n" and os.readlink(tmp_path / "out" / "l") == "d"


def test_one_file_comes_out_under_a_new_name(helper: PrivateHelper, tmp_path: Path) -> None:
    sh(helper, "echo content > /single")
    helper.docker("cp", "live:/single", str(tmp_path / "other"))
    assert (tmp_path / "other").read_text() == "content\n"


def test_contents_alone_come_out_with_a_dot(helper: PrivateHelper, tmp_path: Path) -> None:
    sh(helper, "mkdir -p /dot/sub; echo x > /dot/sub/f")
    helper.docker("cp", "live:/dot/.", str(tmp_path))
    assert (tmp_path / "sub" / "f").read_text() == "x\n"


def test_a_link_is_copied_as_a_link_or_followed_when_asked(helper: PrivateHelper, tmp_path: Path) -> None:
    sh(helper, "echo real > /target; ln -sf /target /alias")
    helper.docker("cp", "live:/alias", str(tmp_path / "as-link"))
    assert os.readlink(tmp_path / "as-link") == "/target"
    helper.docker("cp", "-L", "live:/alias", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "real\n" and not (tmp_path / "followed").is_symlink()


def test_tmpfs_and_volumes_are_seen_as_the_container_sees_them(helper: PrivateHelper, tmp_path: Path) -> None:
    sh(helper, "echo m > /memory/f; echo v > /data/f")
    for source, text in (("live:/memory/f", "m\n"), ("live:/data/f", "v\n"), ("still:/data/f", "v\n")):
        helper.docker("cp", source, str(tmp_path / "f"))
        assert (tmp_path / "f").read_text() == text, source


def test_a_stopped_container_gives_and_takes(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("carried\n")
    helper.docker("cp", str(tmp_path / "in"), "still:/etc/carried")
    helper.docker("cp", "still:/etc/carried", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "carried\n"
    assert "A /etc/carried" in helper.docker("diff", "still").stdout.decode()
    helper.docker("cp", str(tmp_path / "in"), "still:/data/through")
    assert sh(helper, "cat /data/through") == "carried\n"


def test_looking_at_a_stopped_container_changes_nothing_in_it(helper: PrivateHelper) -> None:
    helper.docker("create", "--name", "untouched", "-v", "store:/not/in/the/image", "bb:1", "true")
    tar_of(helper, "untouched:/not/in/the/image").close()
    assert helper.docker("diff", "untouched").stdout == b""
    helper.docker("rm", "untouched")


def test_the_stat_header_is_dockers(helper: PrivateHelper) -> None:
    sh(helper, "mkdir -p /s; echo 12345 > /s/f; ln -sf ../s/f /s/l; ln -sfn /s /viaroot; chmod 4755 /s/f")
    status, _, headers = ask(helper, "HEAD", "/v1.51/containers/live/archive?path=/viaroot/l")
    assert status == 200
    stat = json.loads(base64.b64decode(headers["X-Docker-Container-Path-Stat"]))
    assert (stat["name"], stat["linkTarget"]) == ("l", "/s/f") and stat["mode"] & 1 << 27
    stat = json.loads(base64.b64decode(ask(helper, "HEAD", "/containers/live/archive?path=/s/f")[2]["X-Docker-Container-Path-Stat"]))
    assert (stat["size"], stat["mode"]) == (6, 0o755 | 1 << 23)
    stat = json.loads(base64.b64decode(ask(helper, "HEAD", "/containers/live/archive?path=/s")[2]["X-Docker-Container-Path-Stat"]))
    assert stat["mode"] == 0o755 | 1 << 31 and stat["name"] == "s"


# --- in -------------------------------------------------------------------------------------------------------------
def test_a_directory_goes_in_and_is_merged_with_what_is_there(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "f").write_text("f\n")
    (tmp_path / "tree" / "l").symlink_to("sub/f")
    os.chmod(tmp_path / "tree" / "sub" / "f", 0o751)
    os.chown(tmp_path / "tree" / "sub" / "f", 77, 78)
    os.utime(tmp_path / "tree" / "sub" / "f", (1_600_000_000, 1_600_000_000))
    sh(helper, "mkdir -p /m/tree/sub; echo kept > /m/tree/sub/old")
    helper.docker("cp", str(tmp_path / "tree"), "live:/m")
    assert sh(helper, "cat /m/tree/sub/old /m/tree/l; stat -c '%u %g %a %Y' /m/tree/sub/f") == "kept\nf\n77 78 751 1600000000\n"


def test_a_tar_from_standard_input_goes_in_compressed_too(helper: PrivateHelper) -> None:
    for mode in ("w", "w:gz", "w:xz"):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode=mode) as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo(f"piped-{mode.replace(':', '-')}")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        helper.docker("cp", "-", "live:/memory", stdin=data.getvalue())
        assert sh(helper, f"cat /memory/piped-{mode.replace(':', '-')}") == "abc"


def test_the_archive_flag_gives_files_to_the_containers_own_user(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 55, 56)
    helper.docker("run", "-d", "--name", "bob", "-u", "1234:4321", "bb:1", "sleep", "1000")
    helper.docker("cp", str(tmp_path / "f"), "bob:/tmp/plain")
    helper.docker("cp", "-a", str(tmp_path / "f"), "bob:/tmp/archive")
    assert sh(helper, "stat -c '%u %g' /tmp/plain /tmp/archive", "bob") == "55 56\n1234 4321\n"
    helper.docker("rm", "-f", "bob")


def test_attributes_and_capabilities_survive_the_way_in_and_out(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.setxattr(tmp_path / "f", "user.note", b"line\nline")
    os.setxattr(tmp_path / "f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tar.gettarinfo(str(tmp_path / "f"), "f")
        member.pax_headers = {f"SCHILY.xattr.{name}": os.getxattr(tmp_path / "f", name).decode("latin-1")
                              for name in ("user.note", "security.capability")}
        tar.addfile(member, io.BytesIO(b"x"))
    helper.docker("cp", "-", "live:/etc", stdin=data.getvalue())
    with tar_of(helper, "live:/etc/f") as tar:
        headers = tar.getmember("f").pax_headers
    assert headers["SCHILY.xattr.user.note"] == "line\nline"
    assert headers["SCHILY.xattr.security.capability"].encode() == bytes.fromhex("0100000200200000000000000000000000000000")


def test_what_cannot_be_is_refused_in_dockers_words(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "d").mkdir()
    sh(helper, "mkdir -p /k/f; echo x > /k/d")
    assert "Could not find the file /nowhere in container live" in refused(helper, "cp", "live:/nowhere", str(tmp_path))
    assert "Could not find the file /no/where in container live" in refused(helper, "cp", str(tmp_path / "f"), "live:/no/where/f")
    assert "No such container: nobody" in refused(helper, "cp", "nobody:/etc", str(tmp_path))
    assert "cannot overwrite" in refused(helper, "cp", str(tmp_path / "d"), "live:/k")
    assert "mounted volume is marked read-only" in refused(helper, "cp", str(tmp_path / "f"), "live:/readonly/f")
    helper.docker("run", "-d", "--name", "ro", "--read-only", "--tmpfs", "/w", "bb:1", "sleep", "1000")
    helper.docker("create", "--name", "ro-still", "--read-only", "bb:1", "true")
    for name in ("ro", "ro-still"):
        assert "container rootfs is marked read-only" in refused(helper, "cp", str(tmp_path / "f"), f"{name}:/etc/f")
    helper.docker("cp", str(tmp_path / "f"), "ro:/w/f")
    status, body, _ = ask(helper, "PUT", "/containers/live/archive?path=/etc/passwd", b"")
    assert (status, json.loads(body)["message"]) == (400, "extraction point is not a directory")
    status, body, _ = ask(helper, "GET", "/containers/live/archive?path=")
    assert (status, json.loads(body)["message"]) == (400, "bad parameter: path cannot be empty")
    status, body, _ = ask(helper, "PUT", "/containers/live/archive?path=/tmp", b"this is no tar" * 100)
    assert status == 400 and "no tar archive" in json.loads(body)["message"]


def test_files_of_the_kernel_are_not_copied_to(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert "of the kernel" in refused(helper, "cp", str(tmp_path / "f"), "live:/proc/f") + refused(
        helper, "cp", str(tmp_path / "f"), "live:/proc/sys/kernel/f")


def small_tar(name: str, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def chunks(data: bytes, size: int) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(data[at:at + size]), data[at:at + size]) for at in range(0, len(data), size)] + [b"0\r\n\r\n"]


@pytest.mark.parametrize("way", ["length", "chunked", "tiny-chunks", "late-body", "continue", "gzip", "cut-head"])
def test_an_upload_arrives_whole_however_its_bytes_come(helper: PrivateHelper, way: str) -> None:
    data = small_tar(f"way-{way}", os.urandom(100_000))
    head = b"PUT /v1.51/containers/live/archive?path=/memory HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
    body = gzip.compress(data) if way == "gzip" else data
    by_chunks = way in ("chunked", "tiny-chunks", "gzip")
    head += b"Transfer-Encoding: chunked\r\n" if by_chunks else b"Content-Length: %d\r\n" % len(body)
    head += b"Expect: 100-continue\r\n\r\n" if way == "continue" else b"\r\n"
    pieces = chunks(body, 3 if way == "tiny-chunks" else 32768) if by_chunks else [body]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(helper.socket)
        if way == "cut-head":
            sock.sendall(head[:40])
            helper.docker("version")
            sock.sendall(head[40:] + body)
        elif way in ("late-body", "continue"):
            sock.sendall(head)
            if way == "continue":
                assert sock.recv(100).startswith(b"HTTP/1.1 100")
            helper.docker("version")
            for at in range(0, len(body), 5000):
                sock.sendall(body[at:at + 5000])
        else:
            sock.sendall(head + pieces[0])
            for piece in pieces[1:]:
                sock.sendall(piece)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    member = io.BytesIO(data)
    with tarfile.open(fileobj=member) as tar, tar_of(helper, f"live:/memory/way-{way}") as back:
        sent, got = tar.extractfile(f"way-{way}"), back.extractfile(f"way-{way}")
        assert sent is not None and got is not None and sent.read() == got.read()


def test_a_refused_upload_is_answered_after_its_client_has_sent_all(helper: PrivateHelper) -> None:
    body = b"this is no tar " * 300_000
    status, answer, _ = ask(helper, "PUT", "/containers/live/archive?path=/memory", body)
    assert status == 400 and "no tar archive" in json.loads(answer)["message"]
    status, answer, _ = ask(helper, "PUT", "/containers/nobody/archive?path=/memory", small_tar("x"))
    assert status == 404


def test_a_client_that_breaks_an_upload_off_holds_nothing_up(helper: PrivateHelper) -> None:
    data = small_tar("broken", os.urandom(500_000))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(helper.socket)
        sock.sendall(b"PUT /containers/still/archive?path=/etc HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data))
        sock.sendall(data[:300_000])
    assert ask(helper, "PUT", "/containers/still/archive?path=/etc", small_tar("after"))[0] == 200


def test_bytes_of_another_upload_that_look_like_one_are_only_its_bytes(helper: PrivateHelper) -> None:
    """A tar whose body begins a packet with the head of such a request goes to its own place."""
    disguised = b"PUT /containers/live/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    data = small_tar("disguise", disguised)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(helper.socket)
        sock.sendall(b"POST /slipway/volumes/disguised/restore HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data))
        sock.sendall(data[:512])
        helper.docker("version")
        sock.sendall(data[512:])
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        sock.sendall(b"GET /slipway/volumes/disguised/file?path=/disguise HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = b""
        while piece := sock.recv(65536):
            got += piece
    assert got.endswith(disguised)


# --- the whole ------------------------------------------------------------------------------------------------------
def test_a_large_file_goes_round_unchanged(helper: PrivateHelper, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 24 + bytes(3 << 20) + b"end"
    (tmp_path / "big").write_bytes(data)
    helper.docker("cp", str(tmp_path / "big"), "live:/big")
    helper.docker("cp", "live:/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


def test_diff_shows_what_was_added_changed_and_removed_and_nothing_of_the_runtimes(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "changed", "bb:1", "sh", "-c", "rm /etc/group; echo >> /etc/passwd; mkdir /new; touch /new/f")
    assert helper.docker("diff", "changed").stdout.decode().splitlines() == [
        "C /etc", "D /etc/group", "C /etc/passwd", "A /new", "A /new/f"]
    helper.docker("rm", "changed")
    helper.docker("run", "--name", "same", "bb:1", "true")
    assert helper.docker("diff", "same").stdout == b""
    helper.docker("rm", "same")


def test_diff_knows_a_directory_that_was_replaced(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "replaced", "bb:1", "sh", "-c", "rm -r /etc; mkdir /etc; touch /etc/mine")
    lines = helper.docker("diff", "replaced").stdout.decode().splitlines()
    assert "D /etc/passwd" in lines and "A /etc/mine" in lines and "C /etc" in lines
    helper.docker("rm", "replaced")


def test_an_export_has_the_root_file_system_and_none_of_its_mounts(helper: PrivateHelper) -> None:
    sh(helper, "echo e > /exported; echo v > /data/inside; echo t > /memory/inside")
    for name in ("live", "still"):
        with tarfile.open(fileobj=io.BytesIO(helper.docker("export", name).stdout)) as tar:
            names = set(tar.getnames())
        assert {"bin/busybox", "etc/passwd"} <= names
        assert not [one for one in names if one.startswith(("proc/", "sys/", "dev/", "data/", "memory/"))]
        assert ("exported" in names) == (name == "live")


def test_a_commit_is_an_image_with_the_changes_in_it(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "work", "-e", "A=1", "bb:1", "sh", "-c",
                  "echo mine > /mine; rm /etc/group; rm -r /usr; mkdir /usr; touch /usr/only; ln /mine /again")
    identity = helper.docker("commit", "-a", "Me <me@x>", "-m", "a note", "-c", 'CMD ["cat", "/mine"]', "-c", "ENV B=2", "work",
                             "made:1").stdout.decode().strip()
    assert helper.docker("run", "--rm", "made:1").stdout == b"mine\n"
    seen = helper.docker("run", "--rm", "made:1", "sh", "-c", "cat /again; ls /usr; ls /etc/group; echo $A$B", check=False).stdout.decode()
    assert seen == "mine\nonly\n12\n"
    inspected = json.loads(helper.docker("inspect", identity).stdout)[0]
    assert (inspected["Author"], inspected["Comment"], inspected["Config"]["Cmd"]) == ("Me <me@x>", "a note", ["cat", "/mine"])
    assert inspected["Parent"] == json.loads(helper.docker("inspect", "bb:1").stdout)[0]["Id"]
    assert helper.docker("history", "-q", "made:1").stdout.split()[0].decode() == identity[7:19]
    helper.docker("rm", "work")
    helper.docker("rmi", "made:1")


def test_a_commit_of_nothing_changed_adds_no_layer(helper: PrivateHelper) -> None:
    helper.docker("create", "--name", "idle", "bb:1", "true")
    identity = helper.docker("commit", "idle").stdout.decode().strip()
    layers = [json.loads(helper.docker("inspect", one).stdout)[0]["RootFS"]["Layers"] for one in ("bb:1", identity)]
    assert layers[0] == layers[1]
    helper.docker("rm", "idle")
    helper.docker("rmi", identity)


def test_a_commit_holds_the_container_still_and_lets_it_go_on(helper: PrivateHelper) -> None:
    before = time.time()
    helper.docker("commit", "live", "running:1")
    assert json.loads(helper.docker("inspect", "live").stdout)[0]["State"]["Status"] == "running"
    data = ask(helper, "GET", f"/events?since={before}&until={time.time()}")[1]
    assert [one["Action"] for one in map(json.loads, data.splitlines()) if one["Type"] == "container"] == ["pause", "unpause", "commit"]
    helper.docker("rmi", "running:1")


def test_a_client_that_goes_away_leaves_no_process_behind(helper: PrivateHelper) -> None:
    sh(helper, "dd if=/dev/zero of=/huge bs=1M count=64 2>/dev/null")
    connection = Connection(helper.socket)
    connection.request("GET", "/containers/live/archive?path=/huge")
    assert connection.getresponse().read(1000)
    confined = lambda: [one for one in os.listdir("/proc") if one.isdigit() and _is_confined(one, helper)]  # noqa: E731
    assert confined()
    connection.close()
    for _ in range(400):
        if not confined():
            break
        helper.docker("version")
    assert not confined()


def _is_confined(pid: str, helper: PrivateHelper) -> bool:
    try:
        return helper.exec.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and Path(f"/proc/{pid}/comm").read_text() == "slipway-confine"[:15] + "\n"
    except OSError:
        return False


def test_a_container_with_ids_of_its_own_gives_and_takes_files_by_its_own_numbers(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    os.chown(tmp_path / "in", 7, 8)
    helper.docker("run", "-d", "--name", "mapped", "--security-opt", "userns=auto", "-v", "mapped:/data", "--tmpfs", "/memory", "bb:1",
                  "sh", "-c", "touch /f; chown 5:6 /f; sleep 1000")
    for place in ("/", "/data/", "/memory/"):
        helper.docker("cp", str(tmp_path / "in"), f"mapped:{place}in")
        assert sh(helper, f"stat -c '%u %g' {place}in", "mapped") == "7 8\n"
    with tar_of(helper, "mapped:/f") as tar:
        assert (tar.getmember("f").uid, tar.getmember("f").gid) == (5, 6)
    with tarfile.open(fileobj=io.BytesIO(helper.docker("export", "mapped").stdout)) as tar:
        assert (tar.getmember("f").uid, tar.getmember("in").gid) == (5, 8)
    helper.docker("commit", "mapped", "unmapped:1")
    assert helper.docker("run", "--rm", "unmapped:1", "stat", "-c", "%u %g", "/f", "/in").stdout == b"5 6\n7 8\n"
    helper.docker("stop", "-t", "0", "mapped")
    helper.docker("cp", str(tmp_path / "in"), "mapped:/later")
    helper.docker("start", "mapped")
    assert sh(helper, "stat -c '%u %g' /later", "mapped") == "7 8\n"
    helper.docker("rm", "-f", "mapped")
