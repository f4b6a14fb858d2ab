"""Bridge networks on the real kernel, in a network namespace that plays the machine."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backend.errors import Conflict, Forbidden, InvalidArgument, ServerError
from backend.network.manager import NetworkManager
from backend.network.records import (
    AddressPool,
    Endpoint,
    EndpointWish,
    IpamConfig,
    Network,
    NetworkSpec,
    PortWish,
    from_json,
    to_json,
)
from tests.support.netns import Container, Host, Namespaces, ask_udp, dial, tcp, udp

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def links() -> set[str]:
    return {link["ifname"] for link in json.loads(run("ip", "-j", "link"))} - {"ifb0", "ifb1"}


def tables() -> set[str]:
    return {item["table"]["name"] for item in json.loads(run("nft", "-j", "list", "tables"))["nftables"] if "table" in item}


async def until(condition: object, seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():      # type: ignore[operator]
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not become true in time")


class Rig:
    """A manager with a machine of its own, and containers on it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.ops = Namespaces()
        self.instance = f"slipway-{secrets.token_hex(4)}"
        self.manager = self.new_manager()
        self.containers: list[Container] = []

    def new_manager(self, ahead: int = 0) -> NetworkManager:
        return NetworkManager(ahead=ahead, instance=self.instance, state_dir=self.host.tmp, pools=(AddressPool("10.201.0.0/16", 24),),
                              netns=self.ops)

    async def container(self, network: str = "bridge", **wish: object) -> tuple[Container, Endpoint]:
        made = Container(self.ops, await self.manager.sandbox(self.manager.get(network).id))
        self.containers.append(made)
        wish.setdefault("container_name", f"c{len(self.containers)}")
        endpoint = await self.manager.connect(self.manager.get(network).id, made.id, made.netns, EndpointWish(**wish))  # type: ignore[arg-type]
        return made, endpoint

    async def end(self, made: Container) -> None:
        made.close()
        await self.manager.release(made.id)


@pytest_asyncio.fixture
async def rig(tmp_path: object) -> AsyncIterator[Rig]:
    host = Host(str(tmp_path))
    made = None
    try:
        made = Rig(host)
        await made.manager.open([])
        yield made
    finally:
        if made is not None:
            for one in made.containers:
                await made.end(one)
            await made.manager.close(keep=False)
            assert links() == {"lo"}, "devices were left behind"
            assert tables() == set(), "a firewall table was left behind"
        host.close()


async def test_default_networks_exist_and_survive_as_json(rig: Rig) -> None:
    networks = {network.name: network for network in rig.manager.list()}
    assert {name: network.driver for name, network in networks.items()} == {"bridge": "bridge", "host": "host", "none": "null"}
    bridge = networks["bridge"]
    assert bridge.ipam == (IpamConfig("10.201.0.0/24", "", "10.201.0.1"),)
    assert from_json(Network, to_json(bridge)) == bridge
    assert bridge.bridge.startswith("sw") and len(bridge.bridge) == 8
    assert f"inet {bridge.ipam[0].gateway}/24" in run("ip", "addr", "show", bridge.bridge)


async def test_containers_on_one_network_reach_each_other(rig: Rig) -> None:
    first, one = await rig.container()
    second, two = await rig.container()
    assert (one.ipv4, two.ipv4, one.interface) == ("10.201.0.2", "10.201.0.3", "eth0")
    assert one.mac == "02:42:0a:c9:00:02" and one.gateway == "10.201.0.1"
    await first.serve_tcp(80)
    assert await second.connect(one.ipv4, 80) == two.ipv4


async def test_networks_are_isolated_from_each_other(rig: Rig) -> None:
    await rig.manager.create(NetworkSpec("other"))
    first, one = await rig.container()
    second, _ = await rig.container("other")
    await first.serve_tcp(80)
    with pytest.raises((OSError, TimeoutError)):
        await second.connect(one.ipv4, 80, timeout=0.5)


async def test_outbound_goes_by_masquerade_and_internal_stays_inside(rig: Rig) -> None:
    """A second namespace plays another machine on the wire."""
    outside = rig.ops.make()
    run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "far", "netns", f"/proc/{os.getpid()}/fd/{outside}")
    run("ip", "addr", "add", "10.99.0.1/24", "dev", "wire")
    run("ip", "link", "set", "wire", "up")
    far = Container(rig.ops, outside)
    rig.ops.inside(outside, lambda: run("ip", "addr", "add", "10.99.0.2/24", "dev", "far"))
    rig.ops.inside(outside, lambda: run("ip", "link", "set", "far", "up"))
    await far.serve_tcp(7)
    await rig.manager.create(NetworkSpec("private", internal=True))
    try:
        made, endpoint = await rig.container()
        assert await made.connect("10.99.0.2", 7) == "10.99.0.1", "the other machine must see the host's address"
        kept, inner = await rig.container("private")
        assert inner.gateway == ""
        with pytest.raises(OSError):
            await kept.connect("10.99.0.2", 7, timeout=0.5)
        # and from the wire: a published port answers with the client's own address, an unpublished one not at all
        await made.serve_tcp(80)
        await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
        assert await far.connect("10.99.0.1", 8080) == "10.99.0.2"
        rig.ops.inside(outside, lambda: run("ip", "route", "add", "10.201.0.0/16", "via", "10.99.0.1"))
        with pytest.raises((OSError, TimeoutError)):
            await far.connect(endpoint.ipv4, 80, timeout=0.5)
    finally:
        far.close()
        run("ip", "link", "del", "wire")


async def test_published_port_answers_on_loopback_host_address_hairpin_and_ipv6(rig: Rig) -> None:
    made, endpoint = await rig.container()
    other, _ = await rig.container()
    await made.serve_tcp(80)
    published = await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
    assert [(port.host_ip, port.host_port, port.container_port) for port in published] == [
        ("0.0.0.0", 8080, 80), ("::", 8080, 80)]
    assert await dial(tcp(), "127.0.0.1", 8080) == "10.201.0.1"
    assert await dial(tcp(), "10.201.0.1", 8080) == "10.201.0.1"
    assert await dial(tcp(socket.AF_INET6), "::1", 8080) == "10.201.0.1"
    assert await other.connect("10.201.0.1", 8080) == "10.201.0.1", "from another container by the host's address"
    assert await made.connect("10.201.0.1", 8080) == "10.201.0.1", "from the container itself by the host's address"
    await rig.manager.release(made.id)
    with pytest.raises(ConnectionRefusedError):
        await dial(tcp(), "127.0.0.1", 8080)


async def test_udp_ports_answer_on_both_families(rig: Rig) -> None:
    made, endpoint = await rig.container()
    await made.serve_udp(53)
    await rig.manager.publish(made.id, endpoint, [PortWish(53, "udp", host_port=5353)])
    assert await ask_udp(udp(), "127.0.0.1", 5353) == "10.201.0.1 ping"
    assert await ask_udp(udp(socket.AF_INET6), "::1", 5353) == "10.201.0.1 ping"


async def test_a_udp_sender_that_never_stops_follows_the_container(rig: Rig) -> None:
    """Without forgetting, the kernel would lead its flow past the published port for as long as it sends."""
    sender = udp()
    sender.setblocking(False)
    sender.connect(("127.0.0.1", 5514))
    loop = asyncio.get_running_loop()

    async def heard() -> str:
        for _ in range(20):
            try:
                sender.send(b"line")
                return (await asyncio.wait_for(loop.sock_recv(sender, 100), 0.2)).decode()
            except (ConnectionRefusedError, TimeoutError):
                continue
        return "nobody"
    with sender:
        assert await heard() == "nobody"
        for _ in range(2):
            made, endpoint = await rig.container()
            await made.serve_udp(514)
            await rig.manager.publish(made.id, endpoint, [PortWish(514, "udp", host_port=5514)])
            assert await heard() == "10.201.0.1 line"
            await rig.end(made)


async def test_port_on_one_address_is_closed_on_others(rig: Rig) -> None:
    made, endpoint = await rig.container()
    await made.serve_tcp(80)
    await rig.manager.publish(made.id, endpoint, [PortWish(80, host_ip="127.0.0.1", host_port=8080)])
    assert await dial(tcp(), "127.0.0.1", 8080)
    with pytest.raises(OSError):
        await dial(tcp(), "10.201.0.1", 8080, timeout=0.5)


async def test_taken_ports_are_refused_and_leave_nothing(rig: Rig) -> None:
    first, one = await rig.container()
    second, two = await rig.container()
    await rig.manager.publish(first.id, one, [PortWish(80, host_port=8080)])
    with pytest.raises(ServerError, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated \(to the container c1\)"):
        await rig.manager.publish(second.id, two, [PortWish(81, host_port=8081), PortWish(80, host_port=8080)])
    with tcp() as foreign:
        foreign.bind(("0.0.0.0", 8082))
        foreign.listen()
        with pytest.raises(ServerError, match=r"failed to bind host port for 0\.0\.0\.0:8082:.*: address already in use \(held by .*, process \d+\)"):
            await rig.manager.publish(second.id, two, [PortWish(80, host_port=8082)])
    await rig.manager.publish(second.id, two, [PortWish(81, host_port=8081)])     # free again after the failure


async def test_no_other_program_can_take_a_published_port(rig: Rig) -> None:
    made, endpoint = await rig.container()
    await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080), PortWish(80, "udp", host_port=8080)])
    for thief in (tcp(), udp()):
        with thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError):
                thief.bind(("0.0.0.0", 8080))


async def test_random_ports_and_ranges(rig: Rig) -> None:
    made, endpoint = await rig.container()
    first, _, second, _ = await rig.manager.publish(
        made.id, endpoint, [PortWish(80), PortWish(81, host_port=9000, host_port_end=9001)])
    assert first.host_port >= 32768 and second.host_port == 9000
    third, _ = await rig.manager.publish(made.id, endpoint, [PortWish(82, host_port=9000, host_port_end=9001)])
    assert third.host_port == 9001
    with pytest.raises(ServerError, match="already allocated"):
        await rig.manager.publish(made.id, endpoint, [PortWish(83, host_port=9000, host_port_end=9001)])


async def test_containers_cannot_reach_the_hosts_loopback_services(rig: Rig) -> None:
    made, _ = await rig.container()
    with tcp() as secret:
        secret.bind(("127.0.0.1", 7777))
        secret.listen()
        rig.ops.inside(made.netns, lambda: run("ip", "route", "add", "table", "local", "127.0.0.2/32", "dev", "lo"))
        rig.ops.inside(made.netns, lambda: run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo"))
        rig.ops.inside(made.netns, lambda: run("ip", "route", "add", "127.0.0.1/32", "via", "10.201.0.1"))
        rig.ops.inside(made.netns, lambda: run("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"))
        with pytest.raises((OSError, TimeoutError)):
            await made.connect("127.0.0.1", 7777, timeout=0.5)


async def test_second_network_connect_and_disconnect_while_running(rig: Rig) -> None:
    await rig.manager.create(NetworkSpec("back", ipam=(IpamConfig("10.77.0.0/24"),)))
    made, first = await rig.container(container_name="web")
    peer, other = await rig.container("back")
    await peer.serve_tcp(80)
    endpoint = await rig.manager.connect(rig.manager.get("back").id, made.id, made.netns,
                                         EndpointWish("web", ipv4="10.77.0.50", aliases=("www",)))
    assert (endpoint.interface, endpoint.ipv4) == ("eth1", "10.77.0.50")
    assert endpoint.dns_names == ("web", "www", made.id[:12])
    assert await made.connect(other.ipv4, 80) == "10.77.0.50"
    with pytest.raises(Forbidden, match="already exists in network back"):
        await rig.manager.connect(rig.manager.get("back").id, made.id, made.netns, EndpointWish("web"))
    with pytest.raises(Forbidden, match="has active endpoints"):
        await rig.manager.remove("back")
    # "back" < "bridge": Docker's rule gives it the way out; without it the first network has it again
    routes = rig.ops.inside(made.netns, lambda: run("ip", "route", "show", "default"))
    assert "10.77.0.1" in routes
    await rig.manager.disconnect(endpoint, made.netns)
    assert first.gateway in rig.ops.inside(made.netns, lambda: run("ip", "route", "show", "default"))
    assert "eth1" not in rig.ops.inside(made.netns, lambda: run("ip", "link"))
    await rig.end(peer)
    await rig.manager.remove("back")
    assert {network.name for network in rig.manager.list()} == {"bridge", "host", "none"}


async def test_addresses_are_given_once_and_come_back(rig: Rig) -> None:
    await rig.manager.create(NetworkSpec("small", ipam=(IpamConfig("10.78.0.0/29"),)))
    made = [await rig.container("small") for _ in range(5)]
    assert [endpoint.ipv4 for _, endpoint in made] == [f"10.78.0.{number}" for number in range(2, 7)]
    with pytest.raises(ServerError, match="no available IPv4 addresses"):
        await rig.container("small")
    with pytest.raises(Forbidden, match="Address already in use"):
        await rig.container("small", ipv4="10.78.0.3")
    await rig.end(made[1][0])
    _, again = await rig.container("small", ipv4="10.78.0.3")
    assert again.ipv4 == "10.78.0.3"


async def test_wrong_wishes_are_refused_and_leave_no_device(rig: Rig) -> None:
    before = links()
    for spec, kind in ((NetworkSpec("a", ipam=(IpamConfig("10.201.0.0/25"),)), Forbidden),
                       (NetworkSpec("b", ipam=(IpamConfig("10.5.0.1/24"),)), InvalidArgument),
                       (NetworkSpec("c", ipam=(IpamConfig("10.5.0.0/24", gateway="10.6.0.1"),)), InvalidArgument),
                       (NetworkSpec("d", options={"com.docker.network.bridge.name": "../x"}), InvalidArgument),
                       (NetworkSpec("bridge"), Forbidden)):
        with pytest.raises(kind):
            await rig.manager.create(spec)
    await rig.manager.create(NetworkSpec("e"))
    with pytest.raises(Conflict, match="network with name e already exists"):
        await rig.manager.create(NetworkSpec("e"))
    with pytest.raises(InvalidArgument, match="user configured subnets"):
        await rig.container("e", ipv4="10.201.1.9")
    await rig.manager.remove("e")
    assert links() == before


async def test_devices_vanish_when_containers_end(rig: Rig) -> None:
    before = links()
    made = [await rig.container() for _ in range(3)]
    assert len(links()) == len(before) + 3
    for one, _ in made:
        await rig.end(one)
    await until(lambda: links() == before)
    _, endpoint = await rig.container()
    assert endpoint.ipv4 in {f"10.201.0.{number}" for number in range(2, 6)}


async def test_a_namespace_that_somebody_holds_open_loses_its_device_all_the_same(rig: Rig) -> None:
    made, endpoint = await rig.container()
    held = os.dup(made.netns)
    await rig.end(made)
    await asyncio.sleep(0.2)
    assert endpoint.host_interface in links()
    _, other = await rig.container()
    assert other.ipv4 != endpoint.ipv4, "the address is still answered for"
    await until(lambda: endpoint.host_interface not in links())
    os.close(held)


async def test_running_containers_survive_a_restart_of_the_helper(rig: Rig) -> None:
    made, endpoint = await rig.container()
    await made.serve_tcp(80)
    published = await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
    lost, stale = await rig.container()
    await rig.manager.publish(lost.id, stale, [PortWish(80, host_port=8081)])
    saved = rig.manager.list()
    await rig.manager.close(keep=True)
    assert await dial(tcp(), "127.0.0.1", 8080), "the port must answer while no helper is there"
    rig.manager = rig.new_manager()
    await rig.manager.open(saved)
    assert await dial(tcp(), "127.0.0.1", 8080)
    await rig.manager.restore(made.id, made.netns, [endpoint], published)
    await rig.manager.restored()
    assert await dial(tcp(), "127.0.0.1", 8080) and await dial(tcp(socket.AF_INET6), "::1", 8080)
    assert rig.manager.list() == saved
    _, fresh = await rig.container()
    assert fresh.ipv4 != endpoint.ipv4
    await until(lambda: stale.host_interface not in links())
    with pytest.raises(ConnectionRefusedError):
        await dial(tcp(), "127.0.0.1", 8081)


async def test_other_tables_are_left_alone(rig: Rig) -> None:
    run("nft", "add table inet firewalld; add chain inet firewalld x; add rule inet firewalld x counter")
    before = run("nft", "list", "table", "inet", "firewalld")
    await rig.manager.create(NetworkSpec("n"))
    await rig.manager.remove("n")
    assert run("nft", "list", "table", "inet", "firewalld") == before
    run("nft", "delete", "table", "inet", "firewalld")


async def test_a_firewall_beside_that_would_drop_our_packets_is_named_and_left_alone(rig: Rig) -> None:
    run("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip filter FORWARD ct state established accept")
    try:
        before = run("nft", "list", "table", "ip", "filter")
        saved = rig.manager.list()
        assert rig.manager.notes == [] or not any("FORWARD" in note for note in rig.manager.notes)
        await rig.manager.close(keep=False)
        rig.manager = rig.new_manager()
        await rig.manager.open(saved)
        device = rig.manager.get("bridge").bridge
        assert any("(ip filter, chain FORWARD) drops forwarded packets" in note and f"ufw route allow in on {device}" in note for note in rig.manager.notes)
        assert run("nft", "list", "table", "ip", "filter") == before
    finally:
        run("nft", "delete", "table", "ip", "filter")


@pytest.mark.skipif(shutil.which("iptables-legacy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None, reason="iptables-legacy is not on this machine")
async def test_an_old_iptables_firewall_that_would_drop_our_packets_is_named_too(rig: Rig) -> None:
    async def notes() -> list[str]:
        saved = rig.manager.list()
        await rig.manager.close(keep=False)
        rig.manager = rig.new_manager()
        await rig.manager.open(saved)
        return [note for note in rig.manager.notes if "iptables-legacy" in note]
    try:
        run("iptables-legacy", "-L")
    except subprocess.CalledProcessError as problem:
        pytest.skip(f"this kernel has no such tables any more: {problem.stderr}")
    assert await notes() == [], "a table that lets packets pass is no obstacle"
    for command, family in (("iptables-legacy", "ip"), ("ip6tables-legacy", "ip6")):
        run(command, "-A", "FORWARD", "-s", "::1" if family == "ip6" else "192.0.2.1", "-j", "ACCEPT")
        run(command, "-P", "FORWARD", "DROP")
        before = run(command, "-S")
        found = await notes()
        device = rig.manager.get("bridge").bridge
        assert len(found) == 1 and f"({family} filter of iptables-legacy, chain FORWARD) drops forwarded packets" in found[0] and f"iptables -I FORWARD -i {device}" in found[0]
        assert run(command, "-S") == before
        run(command, "-P", "FORWARD", "ACCEPT")
        run(command, "-F", "FORWARD")
