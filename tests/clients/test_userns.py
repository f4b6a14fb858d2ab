"""Containers with a user namespace, by the docker client: everything works as without, and root is nobody outside."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper("--userns-remap", "default") as made:
        made.docker("import", "-c", "VOLUME /data", "-", "busybox:latest", stdin=busybox_tar())
        yield made


def inspect(helper: PrivateHelper, name: str) -> dict[str, Any]:
    return dict(json.loads(helper.docker("inspect", name).stdout)[0])


def owner(helper: PrivateHelper, name: str) -> int:
    """Who its first process is on the host."""
    return os.stat(f"/proc/{inspect(helper, name)['State']['Pid']}").st_uid


def test_each_container_has_ids_of_its_own_and_a_removed_ones_are_free(helper: PrivateHelper) -> None:
    for name in ("aa", "bb"):
        helper.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    one, two = owner(helper, "aa"), owner(helper, "bb")
    assert one >= 65536 and two >= 65536 and abs(one - two) >= 65536
    helper.leave()
    helper.start()
    helper.docker("run", "-d", "--name", "cc", "busybox", "sleep", "1000")
    assert owner(helper, "cc") not in (one, two), "an engine that was restarted knows what is taken"
    helper.docker("rm", "-f", "aa")
    helper.docker("run", "-d", "--name", "dd", "busybox", "sleep", "1000")
    assert owner(helper, "dd") == one
    helper.docker("rm", "-f", "bb", "cc", "dd")
    assert b"name=userns" in helper.docker("info", "-f", "{{.SecurityOptions}}").stdout


def test_exec_logs_cp_commit_volumes_and_ports_work(helper: PrivateHelper, tmp_path: Path) -> None:
    helper.docker("run", "-d", "--name", "web", "-p", "127.0.0.1::80", "-v", "kept:/kept", "busybox", "sh", "-c",
                  "echo started; mkdir /www; echo hello > /www/index.html; touch /kept/mine /own; chown 1000:1000 /own; "
                  "ls -ln /data /etc/hosts | grep -v ' 0 0 '; echo 127.0.0.9 added >> /etc/hosts; httpd -f -p 80 -h /www")
    port = helper.docker("port", "web", "80").stdout.decode().strip().rpartition(":")[2]
    for _ in range(100):
        try:
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read() == b"hello\n"
            break
        except OSError:
            continue
    assert b"started\n" in helper.docker("logs", "web").stdout
    assert helper.docker("exec", "web", "sh", "-c", "id -u; tail -1 /etc/hosts; ping -c 1 127.0.0.1 > /dev/null && echo pong").stdout.split() == [
        b"0", b"127.0.0.9", b"added", b"pong"]
    (tmp_path / "in").write_text("copied\n")
    helper.docker("cp", str(tmp_path / "in"), "web:/in")
    assert helper.docker("exec", "web", "sh", "-c", "cat /in; stat -c %u:%g /in /own").stdout.split() == [b"copied", b"0:0", b"1000:1000"]
    listing = subprocess.run(["tar", "tvf", "-", "--numeric-owner"], input=helper.docker("cp", "web:/own", "-").stdout, capture_output=True, check=True)
    assert b"1000/1000" in listing.stdout
    mountpoint = json.loads(helper.docker("volume", "inspect", "kept").stdout)[0]["Mountpoint"]
    assert os.stat(f"{mountpoint}/mine").st_uid == 0, "a volume can be shared with containers that have other IDs"
    helper.docker("commit", "web", "made")
    assert helper.docker("run", "--rm", "--userns", "host", "-v", "kept:/kept", "made", "stat", "-c", "%u", "/own", "/kept/mine").stdout.split() == [b"1000", b"0"]
    helper.docker("restart", "-t", "0", "web")
    assert helper.docker("exec", "web", "stat", "-c", "%u", "/own").stdout == b"1000\n"
    helper.docker("rm", "-fv", "web")
    helper.docker("cp", str(tmp_path / "in"), helper.docker("create", "--name", "stopped", "busybox", "cat", "/in").stdout.decode().strip() + ":/in")
    assert helper.docker("start", "-a", "stopped").stdout == b"copied\n"
    helper.docker("rm", "-v", "stopped")


def test_the_hosts_files_are_a_strangers_unless_asked_for(helper: PrivateHelper) -> None:
    os.mkdir(f"{helper.at}/home")
    script = "touch /home/x 2> /dev/null && echo written; stat -c %u /home"
    assert helper.docker("run", "--rm", "-v", f"{helper.at}/home:/home", "busybox", "sh", "-c", script).stdout == b"65534\n"
    assert helper.docker("run", "--rm", "-v", f"{helper.at}/home:/home:idmap", "busybox", "sh", "-c", script).stdout == b"written\n0\n"
    os.chown(f"{helper.at}/home", 4242, 4242)
    done = helper.docker("run", "--rm", "--security-opt", "userns=keep-id:uid=4242", "-u", "4242", "-v", f"{helper.at}/home:/home", "busybox", "sh", "-c",
                         "touch /home/mine; stat -c %u /home")
    assert done.stdout == b"4242\n" and os.stat(f"{helper.at}/home/mine").st_uid == 4242


def test_host_is_the_hosts_and_what_cannot_be_is_refused(helper: PrivateHelper) -> None:
    read = ["cat", "/proc/self/uid_map"]
    assert helper.docker("run", "--rm", "--userns", "host", "busybox", *read).stdout.split() == [b"0", b"0", b"4294967295"]
    assert helper.docker("run", "--rm", "busybox", *read).stdout.split()[1:] != [b"0", b"4294967295"]
    for flags in (["--privileged"], ["--network", "host"], ["--pid", "host"]):
        done = helper.docker("run", "--rm", *flags, "busybox", "true", check=False)
        assert (done.returncode, b"user namespaces" in done.stderr) == (125, True), flags
        assert helper.docker("run", "--rm", "--userns", "host", *flags, "busybox", "true").returncode == 0
    done = helper.docker("run", "--rm", "-u", "70000", "busybox", "true", check=False)
    assert done.returncode != 0 and b"70000" in done.stderr


def test_networks_and_shared_namespaces_work(helper: PrivateHelper) -> None:
    helper.docker("network", "create", "net")
    helper.docker("run", "-d", "--name", "peer", "--network", "net", "busybox", "sleep", "1000")
    assert b"1 packets received" in helper.docker("run", "--rm", "--network", "net", "busybox", "ping", "-c", "1", "peer").stdout
    assert b"lo" in helper.docker("run", "--rm", "--network", "container:peer", "busybox", "ip", "addr").stdout
    assert b"sleep" in helper.docker("run", "--rm", "--pid", "container:peer", "busybox", "ps").stdout
    helper.docker("rm", "-f", "peer")
    helper.docker("network", "rm", "net")
