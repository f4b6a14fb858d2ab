"""The network room on the machine's own namespace, with IPv6, on uvloop, and where nftables is missing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from pathlib import Path

import pytest
import uvloop

import backend.network.firewall
from backend.errors import ServerError, Unavailable
from backend.network.manager import NetworkManager
from backend.network.records import AddressPool, EndpointWish, IpamConfig, NetworkSpec, PortWish
from backend.network.ruleset import Forwarding, published_in
from tests.engine.test_network_bridge import Rig, links, pytestmark, rig, run, tables, until  # noqa: F401
from tests.engine.test_network_names import ask, values
from tests.support.netns import Container, Host, Namespaces, dial, tcp
from tests.support.subnets import free_octet


async def test_a_published_port_answers_on_the_real_machine_and_leaves_nothing(tmp_path: Path) -> None:
    instance, ops = f"slipway-{secrets.token_hex(4)}", Namespaces()
    octet = free_octet(64, 60)
    manager = NetworkManager(instance=instance, state_dir=str(tmp_path), netns=ops, ahead=2,
                             pools=(AddressPool(f"10.{octet}.{secrets.randbelow(16) * 16}.0/20", 24),))
    await manager.open([])
    await manager.restored()
    bridge = manager.get("bridge").bridge
    made = Container(ops, await manager.sandbox(manager.get("bridge").id))
    try:
        endpoint = await manager.connect(manager.get("bridge").id, made.id, made.netns, EndpointWish("web"))
        await made.serve_tcp(80)
        published = await manager.publish(made.id, endpoint, [PortWish(80)])
        for port in published:
            loopback = "127.0.0.1" if port.host_ip == "0.0.0.0" else "::1"
            family = socket.AF_INET if port.host_ip == "0.0.0.0" else socket.AF_INET6
            assert await dial(tcp(family), loopback, port.host_port) == endpoint.gateway
        assert {bridge, endpoint.host_interface} <= links() and instance in tables()
    finally:
        made.close()
        await manager.release(made.id)
        await manager.close(keep=False)
    assert bridge not in links() and instance not in tables()
    assert endpoint.host_interface not in links()


async def test_what_is_published_is_what_nft_reads(rig: Rig) -> None:  # noqa: F811
    """The elements are packed by hand; nft's own listing is the witness."""
    def listed() -> set[Forwarding]:
        return set(published_in(json.loads(run("nft", "-j", "list", "table", "inet", rig.instance))))
    kinds = {Forwarding("", "tcp", 8080, "10.201.0.2", 80), Forwarding("127.0.0.1", "udp", 53, "10.201.0.2", 5353),
             Forwarding("", "sctp", 9, "fd00::2", 65535), Forwarding("fd00::1", "tcp", 65535, "fd00::2", 1),
             Forwarding("", "tcp", 0, "10.201.0.3", 443), Forwarding("", "udp", 0, "fd00::3", 443)}
    many = {Forwarding("", "tcp", 20000 + number, "10.201.0.4", 1 + number) for number in range(900)}
    more = {Forwarding("", "udp", 20000 + number, "10.201.0.4", 1 + number) for number in range(1500)}
    firewall = rig.manager._firewall
    assert firewall is not None
    for ports in (kinds, many, more):
        firewall.publish(ports)
    assert listed() == kinds | many | more
    moved = Forwarding("", "tcp", 8080, "10.201.0.9", 81)
    firewall.publish([moved])
    assert moved in listed() and len(listed()) == len(kinds | many | more)
    run("nft", "delete", "element", "inet", rig.instance, "any4", "{ tcp . 8080 }")
    with pytest.raises(ServerError, match="the firewall refused a change: No such file"):
        firewall.withdraw([moved, *many])
    assert many <= listed(), "all or nothing"
    run("nft", "add", "element", "inet", rig.instance, "any4", "{ tcp . 8080 : 10.201.0.9 . 81 }")
    firewall.withdraw([moved, *kinds, *many, *more])
    assert listed() == set()


async def test_two_helpers_side_by_side_do_not_disturb_each_other(rig: Rig) -> None:  # noqa: F811
    other = NetworkManager(instance=f"slipway-{secrets.token_hex(4)}", state_dir="", netns=rig.ops, ahead=0,
                           pools=(AddressPool("10.201.0.0/16", 24),))
    await other.open([])
    assert other.get("bridge").ipam[0].subnet == "10.201.1.0/24", "the other's subnet is a route of the host"
    made, endpoint = await rig.container()
    await made.serve_tcp(80)
    await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
    await other.close(keep=False)
    assert await dial(tcp(), "127.0.0.1", 8080)


async def test_a_dead_helpers_bridges_and_rules_are_replaced(rig: Rig) -> None:  # noqa: F811
    """Nothing of the first manager is closed in order; only its ears are, as kill -9 closes all descriptors."""
    network = await rig.manager.create(NetworkSpec("gone"))
    await rig.container("gone")
    killed = rig.manager
    assert killed._watched is not None
    killed._watched.close()
    rig.manager = rig.new_manager()
    await rig.manager.open([one for one in killed.list() if one.name != "gone"])
    await rig.manager.restored()
    await until(lambda: network.bridge not in links())
    fresh, endpoint = await rig.container()
    await fresh.serve_tcp(80)
    await rig.manager.publish(fresh.id, endpoint, [PortWish(80, host_port=8080)])
    assert await dial(tcp(), "127.0.0.1", 8080)
    assert run("nft", "list", "ruleset").count("table inet") == 1


async def test_a_flushed_firewall_comes_back_by_itself(rig: Rig) -> None:  # noqa: F811
    """`systemctl restart nftables` flushes every table on the machine."""
    made, endpoint = await rig.container()
    await made.serve_tcp(80)
    await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
    run("nft", "flush", "ruleset")
    await until(lambda: rig.instance in tables())
    assert await dial(tcp(), "127.0.0.1", 8080)
    run("nft", "flush", "ruleset")
    await rig.manager.create(NetworkSpec("meanwhile"))      # before the loop could hear of it
    assert await dial(tcp(), "127.0.0.1", 8080)


async def test_one_network_that_cannot_come_up_leaves_the_others_working(rig: Rig) -> None:  # noqa: F811
    broken = await rig.manager.create(NetworkSpec("broken", options={"com.docker.network.bridge.name": "taken"}))
    saved = rig.manager.list()
    await rig.manager.close(keep=False)
    run("ip", "link", "add", "taken", "type", "veth", "peer", "name", "peer")
    rig.manager = rig.new_manager()
    await rig.manager.open(saved)
    assert any("broken could not be brought up" in note for note in rig.manager.notes)
    await rig.container()
    with pytest.raises(Unavailable, match="taken is a device of kind veth"):
        await rig.container("broken")
    run("ip", "link", "del", "taken")
    made, endpoint = await rig.container("broken")
    await made.serve_tcp(80)
    assert await dial(tcp(), endpoint.ipv4, 80) == endpoint.gateway, "it works once the cause is gone"
    assert rig.manager.notes == []
    await rig.end(made)
    rig.containers.remove(made)
    await rig.manager.remove(broken.id)


async def test_a_subnet_can_be_used_again_at_once(rig: Rig) -> None:  # noqa: F811
    spec = NetworkSpec("again", ipam=(IpamConfig("10.66.0.0/24"),),
                       options={"com.docker.network.bridge.name": "samename"})
    for _ in range(3):
        await rig.manager.create(spec)
        made, endpoint = await rig.container("again")
        assert endpoint.ipv4 == "10.66.0.2"
        await made.serve_tcp(80)
        assert await dial(tcp(), "10.66.0.2", 80) == "10.66.0.1"
        await rig.end(made)
        await rig.manager.remove("again")


async def test_ipv6_networks_reach_each_other_and_publish(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("six", enable_ipv6=True, ipam=(IpamConfig("fd12:3456::/64"),)))
    first, one = await rig.container("six", ipv6="fd12:3456::aa")
    second, two = await rig.container("six")
    assert one.ipv6 == "fd12:3456::aa" and two.ipv6 == "fd12:3456::2" and one.gateway6 == "fd12:3456::1"
    await first.serve_tcp(80, family=socket.AF_INET6)
    assert await dial(second.open(family=socket.AF_INET6), one.ipv6, 80) == two.ipv6
    await rig.manager.publish(first.id, one, [PortWish(80, host_port=8080)])
    assert await dial(tcp(socket.AF_INET6), "fd12:3456::1", 8080) == "fd12:3456::1"
    assert await dial(second.open(family=socket.AF_INET6), "fd12:3456::1", 8080) == "fd12:3456::1", "hairpin"
    assert await dial(tcp(socket.AF_INET6), "::1", 8080)
    await rig.manager.serve_names(second.id, second.netns)
    assert values(await ask(second, one.container_name, "AAAA")) == ["fd12:3456::aa"]


async def test_containers_without_inter_container_traffic_cannot_reach_each_other(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("quiet", options={"com.docker.network.bridge.enable_icc": "false"}))
    first, one = await rig.container("quiet")
    second, _ = await rig.container("quiet")
    await first.serve_tcp(80)
    with pytest.raises((OSError, TimeoutError)):
        await second.connect(one.ipv4, 80, timeout=0.5)
    await rig.manager.publish(first.id, one, [PortWish(80, host_port=8080)])
    assert await dial(tcp(), "127.0.0.1", 8080)


async def test_mtu_and_bridge_name_are_the_users(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("opt", options={
        "com.docker.network.bridge.name": "mybridge", "com.docker.network.driver.mtu": "1400",
        "com.docker.network.container_iface_prefix": "net"}))
    made, endpoint = await rig.container("opt")
    assert endpoint.interface == "net0" and "mybridge" in links()
    assert "mtu 1400" in rig.ops.inside(made.netns, lambda: run("ip", "link", "show", "net0"))
    assert "mtu 1400" in run("ip", "link", "show", endpoint.host_interface)


def test_all_of_it_runs_on_uvloop_too(tmp_path: Path) -> None:
    """The helper uses uvloop, which has its own opinions about sockets and transports."""
    async def story() -> None:
        made = Rig(Host(str(tmp_path)))
        made.manager = made.new_manager(ahead=2)
        await made.manager.open([])
        await made.manager.restored()
        try:
            await made.manager.create(NetworkSpec("back"))
            web, endpoint = await made.container("back", container_name="web")
            await web.serve_tcp(80)
            await made.manager.publish(web.id, endpoint, [PortWish(80, host_port=8080)])
            assert await dial(tcp(socket.AF_INET6), "::1", 8080) == endpoint.gateway
            await made.manager.serve_names(web.id, web.netns, servers=("127.0.0.99",))
            assert values(await ask(web, "web")) == [endpoint.ipv4]
            assert values(await ask(web, "web", tcp=True)) == [endpoint.ipv4]
            assert (await ask(web, "example.org")).rcode() == 2, "a refused question to the world's server is an answer"
        finally:
            for one in made.containers:
                await made.end(one)
            await made.manager.close(keep=False)
            assert links() == {"lo"}
            made.host.close()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


async def test_without_nftables_host_and_none_still_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.network.firewall, "LIBRARY", "libnftables.so.does-not-exist")
    backend.network.firewall._load.cache_clear()
    host = Host(str(tmp_path))
    try:
        manager = NetworkManager(instance="slipway-none", state_dir="", pools=(AddressPool("10.201.0.0/16", 24),),
                                 netns=Namespaces())
        await manager.open([])
        assert any("Install it" in note for note in manager.notes)
        for name in ("host", "none"):
            endpoint = await manager.connect(manager.get(name).id, "c" * 64, -1, EndpointWish("c"))
            assert endpoint.ipv4 == ""
        with pytest.raises(Unavailable, match="libnftables1"):
            await manager.connect(manager.get("bridge").id, "d" * 64, -1, EndpointWish("d"))
        with pytest.raises(Unavailable, match="libnftables1"):
            await manager.create(NetworkSpec("n"))
        await manager.release("c" * 64)
        await manager.close(keep=False)
        assert links() == {"lo"} and os.path.exists("/proc/sys/net/ipv4/ip_forward")
    finally:
        host.close()
