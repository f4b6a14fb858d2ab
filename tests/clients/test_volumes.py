"""Volumes by the real client: every way to say one, what the local driver can mount, and that data in use stays."""

from __future__ import annotations

import json
import os
import subprocess
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
        helper.docker("import", "-c", "VOLUME /etc", "-", "withvolume:1", stdin=busybox_tar())
        helper.docker("import", "-c", "CMD sh", "-", "bb:1", stdin=busybox_tar())
        yield helper


def run(helper: PrivateHelper, *flags: str, script: str) -> str:
    return helper.docker("run", "--rm", *flags, "bb:1", "sh", "-c", script).stdout.decode()


def refused(helper: PrivateHelper, *arguments: str) -> str:
    done = helper.docker(*arguments, check=False)
    assert done.returncode != 0, done.stdout
    return done.stderr.decode()


def names(helper: PrivateHelper, *flags: str) -> set[str]:
    return set(helper.docker("volume", "ls", "-q", *flags).stdout.decode().split())


def mounts_below(path: str) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path}" in line]


# --- ways to say it -------------------------------------------------------------------------------------------------
def test_a_named_volume_keeps_its_data_and_takes_over_what_the_image_has(helper: PrivateHelper) -> None:
    run(helper, "-v", "kept:/etc", script="echo mine > /etc/mine")
    assert "mine" in run(helper, "--mount", "type=volume,src=kept,dst=/x", script="ls /x; cat /x/passwd")
    assert run(helper, "-v", "bare:/etc:nocopy", script="ls /etc | grep -v -e resolv -e host || true") == ""
    assert run(helper, "--mount", "type=volume,src=bare2,dst=/etc,volume-nocopy", script="ls /etc | grep passwd || true") == ""


def test_an_anonymous_volume_goes_with_its_container(helper: PrivateHelper) -> None:
    before = names(helper)
    helper.docker("run", "--rm", "-v", "/anon", "withvolume:1", "true")
    assert names(helper) == before
    helper.docker("run", "--name", "stays", "-v", "/anon", "bb:1", "true")
    (made,) = names(helper) - before
    assert names(helper, "--filter", "dangling=true") & {made} == set()
    helper.docker("rm", "stays")
    assert made in names(helper, "--filter", "dangling=true")
    assert made in helper.docker("volume", "prune", "-f").stdout.decode()


def test_what_is_no_volume_is_refused_in_dockers_words(helper: PrivateHelper) -> None:
    def create(*flags: str) -> str:
        return refused(helper, "create", *flags, "bb:1")

    assert "includes invalid characters for a local volume name" in create("-v", "b@d:/x")
    assert "invalid mode: bad" in create("-v", "vol:/x:bad")
    assert "invalid mode: ro,rw" in create("-v", "vol:/x:ro,rw")
    assert "invalid volume specification: '/x:ro'" in create("-v", "/x:ro")
    assert "destination can't be '/'" in create("-v", "vol:/")
    assert "Duplicate mount point: /x" in create("-v", "a1:/x", "-v", "b1:/x")
    assert "bind source path does not exist: /no/such" in create("--mount", "type=bind,src=/no/such,dst=/x")
    assert "must not set Subpath when using anonymous volumes" in create("--mount", "type=volume,dst=/x,volume-subpath=a")
    assert "subpath must be a relative path within the volume" in create("--mount", "type=volume,src=v1,dst=/x,volume-subpath=../a")
    assert 'invalid tmpfs option "wrong"' in create("--tmpfs", "/x:wrong")
    assert 'plugin "nobody" not found' in create("--mount", "type=volume,src=v2,dst=/x,volume-driver=nobody")
    assert {"vol", "v1", "v2", "a1", "b1"} & names(helper) == set()


def test_a_part_of_a_volume_is_mounted_alone(helper: PrivateHelper) -> None:
    run(helper, "-v", "parts:/v", script="mkdir -p /v/a/b; echo deep > /v/a/b/f; echo top > /v/top; ln -s /etc /v/out; ln -s a /v/in")
    assert run(helper, "--mount", "type=volume,src=parts,dst=/x,volume-subpath=a/b", script="ls /x; cat /x/f") == "f\ndeep\n"
    assert run(helper, "--mount", "type=volume,src=parts,dst=/x/file,volume-subpath=top,readonly", script="cat /x/file") == "top\n"
    assert run(helper, "--mount", "type=volume,src=parts,dst=/x,volume-subpath=in/b", script="ls /x") == "f\n"
    run(helper, "--mount", "type=volume,src=parts,dst=/x,volume-subpath=a", script="echo new > /x/new")
    assert run(helper, "-v", "parts:/v", script="cat /v/a/new") == "new\n"
    for bad, why in (("missing", "no such file or directory"), ("out", "leads out of the volume")):
        assert why in refused(helper, "run", "--rm", "--mount", f"type=volume,src=parts,dst=/x,volume-subpath={bad}", "bb:1", "true")
    assert os.listdir(f"{helper.exec}/parts") == [] and mounts_below(f"{helper.exec}/parts") == []


def test_volumes_from_another_container_come_as_they_are_or_read_only(helper: PrivateHelper) -> None:
    helper.docker("create", "--name", "source", "-v", "from:/data", "--tmpfs", "/t", "bb:1")
    assert run(helper, "--volumes-from", "source", script="echo x > /data/f; cat /data/f") == "x\n"
    assert "Read-only" in refused(helper, "run", "--rm", "--volumes-from", "source:ro", "bb:1", "sh", "-c", "echo y > /data/f")
    assert "No such container: nobody" in refused(helper, "create", "--volumes-from", "nobody", "bb:1")
    helper.docker("rm", "source")


def test_a_bind_is_made_propagated_and_read_only_as_asked(helper: PrivateHelper, tmp_path: Path) -> None:
    run(helper, "-v", f"{tmp_path}/made:/x", script="echo y > /x/f")
    assert (tmp_path / "made" / "f").read_text() == "y\n"
    assert run(helper, "--mount", f"type=bind,src={tmp_path}/made/f,dst=/file,readonly,consistency=cached", script="cat /file") == "y\n"
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    os.system(f"mount -t tmpfs none {tmp_path}/outer/inner")
    try:
        write = "touch /x/inner/f 2>/dev/null && echo written || echo refused"
        source = f"type=bind,src={tmp_path}/outer,dst=/x"
        assert run(helper, "--mount", f"{source},readonly", script=write) == "refused\n"
        assert run(helper, "--mount", f"{source},readonly,bind-recursive=readonly,bind-propagation=rprivate", script=write) == "refused\n"
        assert run(helper, "--mount", f"{source},readonly,bind-recursive=writable", script=write) == "written\n"
        assert run(helper, "--mount", f"{source},bind-recursive=disabled", script="ls /x/inner") == ""
    finally:
        os.system(f"umount {tmp_path}/outer/inner")


def test_a_tmpfs_has_the_size_and_mode_that_were_asked_for(helper: PrivateHelper) -> None:
    seen = run(helper, "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", script="stat -c %a /t; df -k /t | tail -1")
    assert seen.split()[0] == "1770" and seen.split()[2] == "1024"
    assert "noexec" in run(helper, "--tmpfs", "/t:size=64k", script="grep ' /t ' /proc/mounts")
    assert "noexec" not in run(helper, "--tmpfs", "/t:exec,size=64k", script="grep ' /t ' /proc/mounts")


# --- the local driver's mounts --------------------------------------------------------------------------------------
def test_a_tmpfs_volume_is_shared_while_it_is_used_and_gone_afterwards(helper: PrivateHelper) -> None:
    helper.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=33", "memory")
    helper.docker("run", "-d", "--name", "one", "-v", "memory:/m", "bb:1", "sleep", "1000")
    helper.docker("exec", "one", "sh", "-c", "echo shared > /m/f")
    assert run(helper, "-v", "memory:/m", script="cat /m/f; stat -c %u /m") == "shared\n33\n"
    helper.docker("cp", "one:/m/f", "-")
    place = f"{helper.data}/volumes/memory/_data"
    assert len(mounts_below(place)) == 1
    helper.docker("rm", "-f", "one")
    assert mounts_below(place) == []
    assert run(helper, "-v", "memory:/m", script="ls /m") == ""


def test_a_bind_volume_shows_its_device_and_removal_leaves_it(helper: PrivateHelper, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    helper.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "bound")
    assert run(helper, "-v", "bound:/b", script="cat /b/precious; echo new > /b/new") == "precious"
    helper.docker("volume", "rm", "bound")
    assert (tmp_path / "precious").read_text() == "precious" and (tmp_path / "new").read_text() == "new\n"


def test_a_volume_is_made_with_its_container_with_labels_and_options(helper: PrivateHelper, tmp_path: Path) -> None:
    mount = (f"type=volume,src=inline,dst=/x,volume-label=a=b,volume-opt=type=none,volume-opt=device={tmp_path},volume-opt=o=bind")
    run(helper, "--mount", mount, script="echo x > /x/f")
    seen = json.loads(helper.docker("volume", "inspect", "inline").stdout)[0]
    assert seen["Labels"] == {"a": "b"} and seen["Options"]["device"] == str(tmp_path) and (tmp_path / "f").exists()
    helper.docker("volume", "rm", "inline")


def test_a_mount_that_fails_says_so_without_its_password(helper: PrivateHelper) -> None:
    helper.docker("volume", "create", "-o", "type=cifs", "-o", "device=//192.0.2.1/x", "-o", "o=addr=192.0.2.1,password=hunter2", "remote")
    said = refused(helper, "run", "--rm", "-v", "remote:/x:nocopy", "bb:1", "true")
    assert "failed to mount local volume" in said and "hunter2" not in said and "password=********" in said
    assert "hunter2" not in Path(helper.log).read_text()
    helper.docker("volume", "rm", "remote")
    assert 'missing required option: "device"' in refused(helper, "volume", "create", "-o", "type=nfs", "half")
    assert 'invalid option: "colour"' in refused(helper, "volume", "create", "-o", "colour=red", "half")


def test_a_mounted_volume_stays_through_a_restart_of_the_helper(helper: PrivateHelper) -> None:
    helper.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "lasting")
    helper.docker("run", "-d", "--name", "two", "-v", "lasting:/m", "bb:1", "sleep", "1000")
    helper.docker("exec", "two", "sh", "-c", "echo kept > /m/f")
    helper.leave()
    helper.start()
    assert run(helper, "-v", "lasting:/m", script="cat /m/f") == "kept\n"
    helper.docker("rm", "-f", "two")
    assert mounts_below(f"{helper.data}/volumes/lasting/_data") == []


# --- keeping --------------------------------------------------------------------------------------------------------
def test_a_volume_in_use_is_never_removed(helper: PrivateHelper) -> None:
    identity = helper.docker("create", "-v", "used:/x", "bb:1").stdout.decode().strip()
    said = refused(helper, "volume", "rm", "-f", "used")
    assert f"remove used: volume is in use - [{identity}]" in said
    assert "used" not in helper.docker("volume", "prune", "-af").stdout.decode().split()
    helper.docker("rm", "-v", identity)
    assert "used" in names(helper), "rm -v takes anonymous volumes only"
    assert "used" in helper.docker("volume", "prune", "-af").stdout.decode().split()


def test_filters_choose_and_df_counts(helper: PrivateHelper) -> None:
    helper.docker("volume", "create", "--label", "team=a", "labelled")
    run(helper, "-v", "labelled:/x", script="dd if=/dev/zero of=/x/f bs=1k count=100 2>/dev/null")
    helper.docker("create", "--name", "user", "-v", "labelled:/x", "bb:1")
    assert names(helper, "--filter", "label=team=a") == {"labelled"} == names(helper, "--filter", "name=labelled")
    assert "labelled" not in names(helper, "--filter", "dangling=true")
    rows = json.loads(helper.docker("system", "df", "-v", "--format", "{{json .Volumes}}").stdout)
    (row,) = [one for one in rows if one["Name"] == "labelled"]
    assert (row["Links"], row["Size"]) == ("1", "102.4kB")
    helper.docker("rm", "user")
    assert "labelled" in helper.docker("volume", "prune", "-af", "--filter", "label=team=a").stdout.decode()


def test_a_prune_by_an_old_client_takes_named_volumes_too(helper: PrivateHelper, tmp_path: Path) -> None:
    helper.docker("volume", "create", "named")
    helper.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "elsewhere")
    (tmp_path / "f").write_text("stays")
    asked = ["curl", "-s", "--unix-socket", helper.socket, "-X", "POST"]
    assert json.loads(subprocess.run([*asked, "http://x/v1.51/volumes/prune"], capture_output=True, check=True).stdout)["VolumesDeleted"] == []
    report = json.loads(subprocess.run([*asked, "http://x/v1.40/volumes/prune"], capture_output=True, check=True).stdout)
    assert {"named", "elsewhere"} <= set(report["VolumesDeleted"]) and report["SpaceReclaimed"] >= 0
    assert (tmp_path / "f").read_text() == "stays"


def test_an_image_is_mounted_read_only_and_stays_while_it_is(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "layer", "bb:1", "sh", "-c", "mkdir -p /models/a; echo m > /models/a/f; rm /etc/group")
    identity = helper.docker("commit", "layer", "layered:1").stdout.decode().strip()
    mount = "type=image,src=layered:1,dst=/x"
    assert run(helper, "--mount", mount, script="cat /x/models/a/f; ls /x/bin/busybox; ls /x/etc/group 2>&1 || true").splitlines()[:2] == [
        "m", "/x/bin/busybox"]
    assert run(helper, "--mount", f"{mount},image-subpath=models/a", script="ls /x") == "f\n"
    assert run(helper, "--mount", "type=image,src=bb:1,dst=/x,image-subpath=etc", script="ls /x/passwd") == "/x/passwd\n"
    assert "Read-only" in refused(helper, "run", "--rm", "--mount", mount, "bb:1", "sh", "-c", "echo x > /x/new")
    helper.docker("run", "-d", "--name", "mounter", "--mount", mount, "bb:1", "sleep", "1000")
    helper.docker("rm", "layer")
    assert "is being used by running container" in refused(helper, "rmi", identity)
    helper.leave()
    helper.start()
    assert helper.docker("exec", "mounter", "cat", "/x/models/a/f").stdout == b"m\n"
    assert helper.docker("cp", "mounter:/x/models/a/f", "-").stdout[:1] == b"f"
    seen = json.loads(helper.docker("inspect", "mounter").stdout)[0]["Mounts"]
    assert [(one["Type"], one["Name"], one["Destination"], one["RW"]) for one in seen] == [("image", "layered:1", "/x", False)]
    helper.docker("stop", "-t", "0", "mounter")
    assert helper.docker("cp", "mounter:/x/models/a/f", "-").stdout[:1] == b"f"
    helper.docker("rm", "-f", "mounter")
    helper.docker("rmi", "layered:1")
    assert "No such image" in refused(helper, "create", "--mount", "type=image,src=nowhere:1,dst=/x", "bb:1")
    assert os.listdir(f"{helper.exec}/parts") == []


def test_a_bind_shares_mounts_with_the_host_and_says_where_the_host_does_not(helper: PrivateHelper, tmp_path: Path) -> None:
    os.system(f"mount --bind {tmp_path} {tmp_path} && mount --make-private {tmp_path}")
    try:
        said = helper.docker("run", "--rm", "-v", f"{tmp_path}:/x:rshared", "bb:1", "true").stderr.decode()
        assert f"path {tmp_path} is mounted on {tmp_path} but it is not a shared mount" in said
        os.system(f"mount --make-shared {tmp_path}")
        helper.docker("run", "-d", "--name", "sharing", "-v", f"{tmp_path}:/x:rslave", "bb:1", "sleep", "1000")
        (tmp_path / "later").mkdir()
        os.system(f"mount -t tmpfs none {tmp_path}/later && touch {tmp_path}/later/f")
        assert helper.docker("exec", "sharing", "ls", "/x/later").stdout == b"f\n"
        helper.docker("rm", "-f", "sharing")
    finally:
        os.system(f"umount {tmp_path}/later; umount {tmp_path}")
