"""Third-party network and address drivers with the real docker client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.network_plugin import prefix
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHelper]:
    folder = tmp_path_factory.mktemp("plug")
    with subprocess.Popen([sys.executable, "-m", "tests.support.network_plugin", str(folder / "wires.sock"), str(folder)],
                          cwd=ROOT, stdout=subprocess.PIPE) as plugin:
        (folder / "prefix").write_text(prefix(plugin.pid))
        assert plugin.stdout is not None and plugin.stdout.readline() == b"ready\n"
        try:
            with PrivateHelper("--plugin-dir", str(folder)) as made:
                made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
                yield made
        finally:
            plugin.kill()
            for name in devices(folder):
                subprocess.run(["ip", "link", "del", name], check=False)


@pytest.fixture
def folder(helper: PrivateHelper) -> Iterator[Path]:
    at = Path(helper.flags[helper.flags.index("--plugin-dir") + 1])
    (at / "calls").write_text("")
    yield at
    (at / "fault").write_text("")


def calls(folder: Path, method: str) -> list[dict[str, Any]]:
    return [body for name, body in map(json.loads, (folder / "calls").read_text().splitlines()) if name.endswith(f".{method}")]


def devices(folder: Path) -> set[str]:
    """The plug-in's devices on the host."""
    return {name for name in os.listdir("/sys/class/net") if name.startswith((folder / "prefix").read_text())}


def test_containers_meet_on_a_plugins_network_and_nothing_is_left(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "-d", "wires", "-o", "colour=red", "--subnet", "10.221.3.0/24", "theirs")
    made = calls(folder, "CreateNetwork")[0]
    assert made["Options"]["com.docker.network.generic"] == {"colour": "red"}
    assert (made["IPv4Data"][0]["Pool"], made["IPv4Data"][0]["Gateway"]) == ("10.221.3.0/24", "10.221.3.1/24")
    helper.docker("run", "-d", "--name", "web", "--network", "theirs", "--ip", "10.221.3.9", "busybox", "sleep", "1000")
    seen = helper.docker("run", "--rm", "--network", "theirs", "busybox", "sh", "-c", "ping -c1 -W2 web && ip -o addr && ip route").stdout.decode()
    assert "1 packets received" in seen and "net0" in seen and "198.51.100.0/24 dev net0" in seen and "default via 10.221.3.1" in seen
    view = json.loads(helper.docker("inspect", "-f", "{{json .NetworkSettings.Networks.theirs}}", "web").stdout)
    assert (view["IPAddress"], view["MacAddress"][:5], view["Gateway"]) == ("10.221.3.9", "02:aa", "10.221.3.1")
    assert "wires" in json.loads(helper.docker("info", "-f", "{{json .Plugins.Network}}").stdout)
    assert b"has active endpoints" in helper.docker("network", "rm", "theirs", check=False).stderr
    helper.docker("rm", "-f", "web")
    assert len(calls(folder, "Leave")) == len(calls(folder, "DeleteEndpoint")) == 2
    helper.docker("network", "rm", "theirs")
    assert devices(folder) == set()


def test_a_running_container_is_connected_and_disconnected(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "-d", "wires", "theirs")
    helper.docker("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    helper.docker("network", "connect", "theirs", "web")
    assert b"net0" in helper.docker("exec", "web", "ip", "-o", "link").stdout
    helper.docker("network", "disconnect", "theirs", "web")
    assert b"net0" not in helper.docker("exec", "web", "ip", "-o", "link").stdout
    assert b"default via" in helper.docker("exec", "web", "ip", "route").stdout
    helper.docker("rm", "-f", "web")
    helper.docker("network", "rm", "theirs")
    assert devices(folder) == set()


def test_a_plugin_hears_of_containers_that_ended_while_the_helper_was_away(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "-d", "wires", "--ipam-driver", "wires", "theirs")
    helper.docker("run", "-d", "--name", "web", "--network", "theirs", "busybox", "sleep", "1000")
    pid = int(helper.docker("inspect", "-f", "{{.State.Pid}}", "web").stdout)
    helper.leave(9)
    os.kill(pid, 9)
    helper.start()
    helper.docker("wait", "web")
    helper.docker("rm", "-f", "web")
    helper.docker("network", "rm", "theirs")
    assert len(calls(folder, "DeleteEndpoint")) == 1 and len(calls(folder, "ReleasePool")) == 1 and devices(folder) == set()
    assert len(calls(folder, "ReleaseAddress")) == 2, "the container's and the gateway's"


def test_an_end_is_told_once_and_an_ended_container_shows_no_ports_after_a_restart(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "-d", "wires", "theirs")
    helper.docker("run", "--name", "one", "--network", "theirs", "busybox", "true")
    helper.docker("run", "--name", "two", "-p", "127.0.0.1::80", "busybox", "true")
    helper.leave(9)
    helper.start()
    assert len(calls(folder, "DeleteEndpoint")) == 1
    assert helper.docker("ps", "-a", "--format", "{{.Ports}}").stdout.split() == []
    helper.docker("rm", "one", "two")
    helper.docker("network", "rm", "theirs")


def test_addresses_come_from_an_address_plugin_also_on_a_bridge(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "--ipam-driver", "wires", "--ipam-opt", "a=b", "given")
    assert calls(folder, "RequestPool")[0] | {"Pool": "", "Options": {"a": "b"}, "V6": False, "AddressSpace": "here"} == calls(folder, "RequestPool")[0]
    view = json.loads(helper.docker("network", "inspect", "-f", "{{json .IPAM}}", "given").stdout)
    assert view == {"Driver": "wires", "Options": {"a": "b"}, "Config": [{"Subnet": "10.222.7.0/24", "Gateway": "10.222.7.254"}]}
    seen = helper.docker("run", "--rm", "--network", "given", "busybox", "sh", "-c", "ip -o -4 addr; ping -c1 -W2 10.222.7.254").stdout.decode()
    assert "10.222.7.253/24" in seen and "1 packets received" in seen
    helper.docker("network", "rm", "given")
    assert len(calls(folder, "ReleaseAddress")) == 2 and len(calls(folder, "ReleasePool")) == 1


def test_ports_that_a_plugin_publishes_are_shown(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "-d", "wires", "theirs")

    def ports(name: str) -> str:
        return helper.docker("ps", "--filter", f"name={name}", "--format", "{{.Ports}}").stdout.decode().strip()
    wishes = ("-p", "127.0.0.1:8080:80", "-p", "53/udp", "busybox", "sleep", "1000")
    helper.docker("run", "-d", "--name", "told", "--network", "theirs", *wishes)
    assert sorted(ports("told").split(", ")) == ["0.0.0.0:4053->53/udp", "127.0.0.1:8080->80/tcp"]
    assert helper.docker("port", "told", "53/udp").stdout == b"0.0.0.0:4053\n"
    for fault in ("ProgramExternalConnectivity silent", "EndpointOperInfo error", "EndpointOperInfo wrong"):
        (folder / "fault").write_text(fault)
        helper.docker("run", "-d", "--name", "asked", "--network", "theirs", *wishes)
        assert ports("asked") == "53/udp, 127.0.0.1:8080->80/tcp", fault
        helper.docker("rm", "-f", "asked")
    (folder / "fault").write_text("")
    helper.leave(9)
    helper.start()
    assert "127.0.0.1:8080->80/tcp" in ports("told"), "and after a restart of the helper"
    helper.docker("rm", "-f", "told")
    helper.docker("network", "rm", "theirs")
    assert devices(folder) == set()


@pytest.mark.parametrize(("fault", "words"), [
    ("CreateEndpoint error", b"as the test wished"), ("Join error", b"as the test wished"), ("Join nonsense", b"nonsense"),
    ("Join nodevice", b"the device nosuchdev is not there"), ("RequestAddress error", b"as the test wished")])
def test_a_plugin_that_fails_fails_that_start_and_loses_nothing(helper: PrivateHelper, folder: Path, fault: str, words: bytes) -> None:
    helper.docker("network", "create", "-d", "wires", "--ipam-driver", "wires", "theirs")
    (folder / "fault").write_text(fault)
    done = helper.docker("run", "--rm", "--network", "theirs", "busybox", "true", check=False)
    assert done.returncode == 125 and words in done.stderr, done.stderr
    (folder / "fault").write_text("")
    helper.docker("run", "--rm", "--network", "theirs", "busybox", "true")
    helper.docker("network", "rm", "theirs")
    assert len(calls(folder, "ReleasePool")) == 1 and devices(folder) == set()


def test_a_network_that_a_plugin_refuses_does_not_exist(helper: PrivateHelper, folder: Path) -> None:
    (folder / "fault").write_text("CreateNetwork error")
    done = helper.docker("network", "create", "-d", "wires", "--ipam-driver", "wires", "no", check=False)
    assert b"as the test wished" in done.stderr and len(calls(folder, "ReleasePool")) == 1
    assert b"no\n" not in helper.docker("network", "ls", "--format", "{{.Name}}").stdout.replace(b"none\n", b"")
    for option in ("-d", "--ipam-driver"):
        assert b'plugin "nobody" not found' in helper.docker("network", "create", option, "nobody", "no", check=False).stderr


def test_a_network_without_addresses_has_a_wire_alone(helper: PrivateHelper, folder: Path) -> None:
    helper.docker("network", "create", "--ipam-driver", "null", "bare")
    seen = helper.docker("run", "--rm", "--network", "bare", "busybox", "sh", "-c", "ip -o link; ip -o -4 addr show eth0").stdout
    assert b"eth0" in seen and b"inet " not in seen
    helper.docker("network", "rm", "bare")
