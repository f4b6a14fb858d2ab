"""Networks with the real docker client: what people type, what they read, and the words of each refusal."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
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
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield made


@pytest.fixture
def docker(helper: PrivateHelper) -> Iterator[Any]:
    def run(*words: str) -> str:
        return helper.docker(*words).stdout.decode().strip()
    yield run
    ids = run("ps", "-aq").split()
    if ids:
        run("rm", "-f", *ids)
    for name in run("network", "ls", "-q", "--filter", "type=custom").split():
        helper.docker("network", "rm", name, check=False)
    for name in run("network", "ls", "-q", "--filter", "type=custom").split():      # what others were made from goes last
        run("network", "rm", name)


def refused(helper: PrivateHelper, *words: str) -> str:
    done = helper.docker(*words, check=False)
    assert done.returncode != 0
    return done.stderr.decode()


def test_a_network_is_shown_as_it_was_asked_for(docker: Any) -> None:
    docker("network", "create", "--subnet", "10.220.0.0/24", "--ip-range", "10.220.0.128/25", "--gateway", "10.220.0.254", "--aux-address", "printer=10.220.0.130",
           "--label", "team=a", "-o", "com.docker.network.driver.mtu=1400", "shop")
    seen = json.loads(docker("network", "inspect", "shop"))[0]
    assert seen["IPAM"]["Config"] == [{"Subnet": "10.220.0.0/24", "IPRange": "10.220.0.128/25", "Gateway": "10.220.0.254", "AuxiliaryAddresses": {"printer": "10.220.0.130"}}]
    assert (seen["Labels"], seen["Options"], seen["Driver"], seen["Scope"]) == ({"team": "a"}, {"com.docker.network.driver.mtu": "1400"}, "bridge", "local")
    inside = docker("run", "--rm", "--network", "shop", "busybox", "sh", "-c", "ip -o -4 addr show eth0; ip link show eth0")
    assert "10.220.0.128/24" in inside and "mtu 1400" in inside


def test_one_container_on_two_networks_by_one_command(docker: Any) -> None:
    docker("network", "create", "--subnet", "10.220.1.0/24", "front")
    docker("network", "create", "--subnet", "10.220.2.0/24", "--ipv6", "--subnet", "fd20:2::/64", "back")
    routes = docker("run", "--rm", "--network", "name=front,ip=10.220.1.9,mac-address=02:00:00:00:00:09", "--network", "name=back,ip6=fd20:2::9,gw-priority=1", "busybox",
                    "sh", "-c", "ip route; ip -6 route; ip -o addr; ip link")
    assert "default via 10.220.2.1" in routes and "10.220.1.9/24" in routes and "fd20:2::9/64" in routes and "02:00:00:00:00:09" in routes


def test_connect_and_disconnect_while_it_runs(docker: Any, helper: PrivateHelper) -> None:
    docker("network", "create", "--subnet", "10.220.3.0/24", "late")
    docker("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    docker("network", "connect", "--ip", "10.220.3.7", "--alias", "www", "--driver-opt", "com.docker.network.endpoint.ifname=late0", "late", "web")
    assert "10.220.3.7/24" in docker("exec", "web", "ip", "-o", "addr", "show", "late0")
    assert docker("run", "--rm", "--network", "late", "busybox", "ping", "-c1", "-W2", "www").count("1 packets received") == 1
    assert "has active endpoints" in refused(helper, "network", "rm", "late")
    assert json.loads(docker("network", "inspect", "-f", "{{json .Containers}}", "late"))[docker("inspect", "-f", "{{.Id}}", "web")]["IPv4Address"] == "10.220.3.7/24"
    docker("network", "disconnect", "late", "web")
    assert "late0" not in docker("exec", "web", "ip", "link")
    assert "is not connected to network late" in refused(helper, "network", "disconnect", "late", "web")


def test_a_port_of_a_network_without_ipv4_answers(docker: Any) -> None:
    docker("network", "create", "--ipv4=false", "--ipv6", "six")
    docker("run", "-d", "--name", "web", "--network", "six", "-p", "80", "busybox", "sh", "-c", "echo page > index.html; exec httpd -f -p 80")
    where = docker("port", "web", "80").partition("]:")
    assert where[0] == "[::"
    with urllib.request.urlopen(f"http://[::1]:{where[2]}/", timeout=10) as page:
        assert page.read() == b"page\n"


def test_names_are_looked_up_as_the_user_said(docker: Any) -> None:
    docker("network", "create", "named")
    wishes = ("--dns", "192.0.2.53", "--dns-search", "corp.example", "--dns-option", "timeout:1")
    assert docker("run", "--rm", *wishes, "busybox", "cat", "/etc/resolv.conf").splitlines() == ["nameserver 192.0.2.53", "search corp.example", "options timeout:1"]
    assert docker("run", "--rm", "--network", "named", *wishes, "busybox", "cat", "/etc/resolv.conf").splitlines() == [
        "nameserver 127.0.0.11", "search corp.example", "options timeout:1 ndots:0"]
    added = docker("run", "--rm", "--add-host", "here:host-gateway", "--add-host", "there=192.0.2.1", "busybox", "cat", "/etc/hosts")
    gateway = docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
    assert f"{gateway}\there" in added and "192.0.2.1\tthere" in added
    assert "Name:\thost.docker.internal" in docker("run", "--rm", "--network", "named", "busybox", "nslookup", "host.docker.internal")


def test_a_configuration_serves_as_a_pattern(docker: Any, helper: PrivateHelper) -> None:
    docker("network", "create", "--config-only", "--subnet", "10.220.4.0/24", "pattern")
    docker("network", "create", "--config-from", "pattern", "made")
    assert json.loads(docker("network", "inspect", "made"))[0]["ConfigFrom"] == {"Network": "pattern"}
    assert 'configuration network "pattern" is in use' in refused(helper, "network", "rm", "pattern")
    assert "cannot create endpoint on configuration-only network" in refused(helper, "run", "--rm", "--network", "pattern", "busybox", "true")


def test_prune_keeps_what_a_stopped_container_needs(docker: Any) -> None:
    for name in ("used", "unused"):
        docker("network", "create", name)
    docker("create", "--name", "later", "--network", "used", "busybox", "true")
    assert "unused" in docker("network", "prune", "-f")
    docker("start", "-a", "later")


@pytest.mark.parametrize(("command", "words"), [
    ("network create --subnet 10.220.9.1/24 x", "invalid subnet 10.220.9.1/24: it should be 10.220.9.0/24"),
    ("network create -o com.docker.network.bridge.gateway_mode_ipv4=isolated x", "gateway mode 'isolated' can only be used for an internal network"),
    ("network create -d macvlan -o parent=nosuch x", "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
    ("network create -d overlay x", "This node is not a swarm manager"), ("network create -d nobody x", 'plugin "nobody" not found'),
    ("network create bridge", "operation is not permitted on predefined bridge network"), ("network rm host", "host is a pre-defined network and cannot be removed"),
    ("run --rm --network bridge --ip 10.1.2.3 busybox true", "user specified IP address is supported on user defined networks only"),
    ("run --rm --network host --ip 10.1.2.3 busybox true", "invalid config for network host"),
    ("run --rm --network nosuch busybox true", "network nosuch not found"),
    ("run --rm --network container:nosuch -p 80:80 busybox true", "conflicting options: port publishing and the container type network mode"),
    ("run --rm --network container:nosuch busybox true", "No such container: nosuch"),
    ("network connect nosuch nobody", "nosuch"), ("network create --scope swarm x", "swarm is not active")])
def test_what_cannot_be_is_refused_in_dockers_words(helper: PrivateHelper, command: str, words: str) -> None:
    assert words in refused(helper, *command.split())
    assert helper.docker("network", "ls", "-q", "--filter", "type=custom").stdout == b"" and helper.docker("ps", "-aq").stdout == b""


def test_a_subnet_that_overlaps_another_or_the_hosts_routes_is_refused(docker: Any, helper: PrivateHelper) -> None:
    docker("network", "create", "--subnet", "10.220.5.0/24", "first")
    assert "Pool overlaps with other one on this address space" in refused(helper, "network", "create", "--subnet", "10.220.0.0/16", "second")


def test_a_range_that_is_used_up_says_so(docker: Any, helper: PrivateHelper) -> None:
    docker("network", "create", "--subnet", "10.220.6.0/29", "small")
    for n in range(5):
        docker("run", "-d", "--name", f"c{n}", "--network", "small", "busybox", "sleep", "1000")
    assert "no available IPv4 addresses on this network's address pools: small" in refused(helper, "run", "--rm", "--network", "small", "busybox", "true")
    docker("rm", "-f", "c2")
    docker("run", "--rm", "--network", "small", "busybox", "true")
