"""The other kinds of networks, and the bridge driver's modes, on the real kernel; a second namespace plays another machine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backend.errors import Conflict, Forbidden, InvalidArgument, NotImplemented_
from backend.network.options import ENDPOINT_IFNAME, ENDPOINT_SYSCTLS
from backend.network.records import EndpointWish, IpamConfig, NetworkSpec, PortWish
from tests.engine.test_network_bridge import Rig, links, pytestmark, rig, run  # noqa: F401
from tests.support.netns import Container, dial, tcp

MODE4, MODE6 = "com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"


@pytest_asyncio.fixture
async def far(rig: Rig) -> AsyncIterator[Container]:  # noqa: F811
    """Another machine at 10.99.0.2, on the host's device "wire" (10.99.0.1)."""
    outside = rig.ops.make()
    run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "far", "netns", f"/proc/{os.getpid()}/fd/{outside}")
    run("ip", "addr", "add", "10.99.0.1/24", "dev", "wire")
    run("ip", "-6", "addr", "add", "fd99::1/64", "dev", "wire", "nodad")
    run("ip", "link", "set", "wire", "up")
    made = Container(rig.ops, outside)
    inside(made, "ip", "addr", "add", "10.99.0.2/24", "dev", "far")
    inside(made, "ip", "-6", "addr", "add", "fd99::2/64", "dev", "far", "nodad")
    inside(made, "ip", "link", "set", "far", "up")
    yield made
    run("ip", "link", "del", "wire")
    made.close()


def inside(made: Container, *command: str) -> str:
    return made.ops.inside(made.netns, lambda: run(*command))


async def refused(made: Container, host: str, port: int) -> bool:
    try:
        await made.connect(host, port, timeout=0.5)
    except (OSError, TimeoutError):
        return True
    return False


async def test_a_macvlan_container_is_a_neighbour_on_the_hosts_wire(rig: Rig, far: Container) -> None:  # noqa: F811
    spec = NetworkSpec("lan", driver="macvlan", options={"parent": "wire"}, ipam=(
        IpamConfig("10.99.0.0/24", gateway="10.99.0.2", ip_range="10.99.0.64/26"), IpamConfig("10.98.0.0/24")))
    await rig.manager.create(spec)
    made, endpoint = await rig.container("lan", container_name="web")
    assert (endpoint.ipv4, endpoint.gateway, endpoint.interface, endpoint.host_interface) == ("10.99.0.64", "10.99.0.2", "eth0", "")
    await made.serve_tcp(80)
    await far.serve_tcp(81)
    assert await far.connect(endpoint.ipv4, 80) == "10.99.0.2"
    assert await made.connect("10.99.0.2", 81) == "10.99.0.64", "with its own address, not the host's"
    _, other = await rig.container("lan", ipv4="10.98.0.9")
    assert (other.ipv4, other.gateway) == ("10.98.0.9", "10.98.0.1")
    assert rig.manager.endpoints(endpoint.network_id) == [endpoint, other]
    assert await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)]) == (), "as Docker: nothing is published"
    with pytest.raises(Forbidden, match="has active endpoints"):
        await rig.manager.remove("lan")
    await rig.manager.disconnect(endpoint, made.netns)
    assert "eth0" not in inside(made, "ip", "link")
    _, again = await rig.container("lan")
    assert again.ipv4 == "10.99.0.64"


async def test_macvlan_networks_share_a_parent_unless_one_wants_it_alone(rig: Rig, far: Container) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("one", driver="macvlan", options={"parent": "wire"}))
    await rig.manager.create(NetworkSpec("two", driver="macvlan", options={"parent": "wire", "macvlan_mode": "private"}))
    with pytest.raises(Forbidden, match="already using it and mode passthru"):
        await rig.manager.create(NetworkSpec("three", driver="macvlan", options={"parent": "wire", "macvlan_mode": "passthru"}))
    first, one = await rig.container("two")
    second, _ = await rig.container("two")
    await first.serve_tcp(80)
    assert await refused(second, one.ipv4, 80), "private mode: neighbours do not hear each other"


async def test_a_parent_that_is_not_there_is_named_and_nothing_stays(rig: Rig) -> None:  # noqa: F811
    before = links()
    with pytest.raises(InvalidArgument, match=r"nosuch, example formatting is eth0\.10"):
        await rig.manager.create(NetworkSpec("lan", driver="macvlan", options={"parent": "nosuch"}))
    with pytest.raises(InvalidArgument, match="parent interface nosuch is not there"):
        await rig.manager.create(NetworkSpec("lan", driver="macvlan", options={"parent": "nosuch.5"}))
    assert links() == before
    assert "lan" not in {network.name for network in rig.manager.list()}


async def test_what_this_kernel_lacks_is_said_or_works(rig: Rig, far: Container) -> None:  # noqa: F811
    """VLANs, devices that lead nowhere and ipvlan: modules that a kernel may have or not."""
    before = links()
    for spec in (NetworkSpec("vlan", driver="macvlan", options={"parent": "wire.5"}), NetworkSpec("alone", driver="macvlan"),
                 NetworkSpec("inner", driver="macvlan", internal=True, options={"parent": "wire"})):
        try:
            await rig.manager.create(spec)
        except NotImplemented_ as missing:
            assert "this kernel has no" in missing.message and links() == before
            continue
        _, endpoint = await rig.container(spec.name)
        assert endpoint.ipv4
        await rig.end(rig.containers.pop())
        await rig.manager.remove(spec.name)
        assert links() == before
    await rig.manager.create(NetworkSpec("ip", driver="ipvlan", options={"parent": "wire", "ipvlan_mode": "l3"}))
    with pytest.raises(InvalidArgument, match="ipvlan interfaces do not support custom mac"):
        await rig.container("ip", mac="02:00:00:00:00:07")
    try:
        made, endpoint = await rig.container("ip")
    except NotImplemented_ as missing:
        assert "this kernel has no ipvlan devices" in missing.message
    else:
        assert endpoint.direct and "default dev eth0" in inside(made, "ip", "route")
    assert rig.manager._addresses._leases[rig.manager.get("ip").id][0].used() == sum(1 for c in rig.manager.endpoints(rig.manager.get("ip").id))


async def test_a_network_without_ipv4_works_and_publishes(rig: Rig, far: Container) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("six", enable_ipv4=False, enable_ipv6=True))
    first, one = await rig.container("six", container_name="web")
    second, two = await rig.container("six")
    assert (one.ipv4, one.gateway) == ("", "") and one.ipv6.endswith("::2") and one.mac.startswith("02:42:")
    await first.serve_tcp(80, family=socket.AF_INET6)
    assert await dial(second.open(family=socket.AF_INET6), one.ipv6, 80) == two.ipv6
    published = await rig.manager.publish(first.id, one, [PortWish(80, host_port=8080)])
    assert [(port.host_ip, port.target) for port in published] == [("::", one.ipv6)]
    assert await dial(far.open(family=socket.AF_INET6), "fd99::1", 8080) == "fd99::2"
    assert await dial(tcp(socket.AF_INET6), "::1", 8080)
    with pytest.raises(InvalidArgument, match="has no IPv4 address"):
        await rig.manager.publish(first.id, one, [PortWish(81, host_ip="127.0.0.1", host_port=8081)])


async def test_routed_ports_are_reached_at_the_containers_own_address(rig: Rig, far: Container) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("routed", options={MODE4: "routed"}, ipam=(IpamConfig("10.77.0.0/24"),)))
    made, endpoint = await rig.container("routed")
    for port in (80, 81):
        await made.serve_tcp(port)
    published = await rig.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
    assert (published[0].host_ip, published[0].host_port, published[0].target) == ("0.0.0.0", 0, endpoint.ipv4)
    inside(far, "ip", "route", "add", "10.77.0.0/24", "via", "10.99.0.1")
    assert await far.connect(endpoint.ipv4, 80) == "10.99.0.2"
    assert await refused(far, endpoint.ipv4, 81), "what is not published stays closed"
    await far.serve_tcp(7)
    assert await made.connect("10.99.0.2", 7) == endpoint.ipv4, "nothing is translated on the way out"
    saved = rig.manager.list()
    await rig.manager.close(keep=True)
    rig.manager = rig.new_manager()
    await rig.manager.open(saved)
    await rig.manager.restore(made.id, made.netns, [endpoint], published)
    await rig.manager.restored()
    assert await far.connect(endpoint.ipv4, 80) == "10.99.0.2", "also after a restart of the helper"
    await rig.manager.release(made.id)
    assert await refused(far, endpoint.ipv4, 80)


async def test_an_isolated_network_has_no_address_of_the_hosts(rig: Rig) -> None:  # noqa: F811
    network = await rig.manager.create(NetworkSpec("alone", internal=True, options={MODE4: "isolated"}))
    first, one = await rig.container("alone")
    second, two = await rig.container("alone")
    assert (one.gateway, network.ipam[0].gateway) == ("", "") and "inet " not in run("ip", "addr", "show", network.bridge)
    await first.serve_tcp(80)
    assert await second.connect(one.ipv4, 80) == two.ipv4


async def test_unprotected_and_trusted_ways_in(rig: Rig, far: Container) -> None:  # noqa: F811
    trusted = {"com.docker.network.bridge.trusted_host_interfaces": "wire:nosuch"}
    for number, options in enumerate(({MODE4: "nat-unprotected"}, trusted)):
        await rig.manager.create(NetworkSpec(f"n{number}", options=options, ipam=(IpamConfig(f"10.7{number}.0.0/24"),)))
        made, endpoint = await rig.container(f"n{number}")
        await made.serve_tcp(80)
        inside(far, "ip", "route", "add", f"10.7{number}.0.0/24", "via", "10.99.0.1")
        assert await far.connect(endpoint.ipv4, 80) == "10.99.0.2"


async def test_containers_have_the_outside_address_that_the_user_chose(rig: Rig, far: Container) -> None:  # noqa: F811
    run("ip", "addr", "add", "10.99.0.77/24", "dev", "wire")
    await rig.manager.create(NetworkSpec("out", options={"com.docker.network.host_ipv4": "10.99.0.77"}))
    made, _ = await rig.container("out")
    await far.serve_tcp(7)
    assert await made.connect("10.99.0.2", 7) == "10.99.0.77"


async def test_a_bridge_without_the_gateways_address(rig: Rig) -> None:  # noqa: F811
    network = await rig.manager.create(NetworkSpec("inh", options={"com.docker.network.bridge.inhibit_ipv4": "true"}))
    _, endpoint = await rig.container("inh")
    assert endpoint.gateway == network.ipam[0].gateway and "inet " not in run("ip", "addr", "show", network.bridge)


async def test_settings_and_the_device_name_are_the_users(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("mine"))
    options = {ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.gc_stale_time=77", ENDPOINT_IFNAME: "uplink0"}
    made, endpoint = await rig.container("mine", driver_opts=options)
    assert endpoint.interface == "uplink0" and "uplink0" in inside(made, "ip", "link")
    assert inside(made, "cat", "/proc/sys/net/ipv4/conf/uplink0/log_martians", "/proc/sys/net/ipv4/neigh/uplink0/gc_stale_time").split() == ["1", "77"]
    before = links()
    with pytest.raises(InvalidArgument, match="nosuch cannot be set"):
        await rig.container("mine", driver_opts={ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME.nosuch=1"})
    with pytest.raises(InvalidArgument, match="already in use in this container"):
        await rig.manager.connect(rig.manager.get("bridge").id, made.id, made.netns, EndpointWish("x", driver_opts=options))
    await rig.manager._bridges.unplug("")     # what is deleted in the background is gone after this
    assert links() == before
    assert rig.manager._addresses._leases[rig.manager.get("mine").id][0].used() == 1


async def test_link_local_addresses_come_beside_the_leased_one(rig: Rig) -> None:  # noqa: F811
    made, endpoint = await rig.container(link_local=("169.254.8.8", "fe80::8"))
    shown = inside(made, "ip", "-o", "addr", "show", "eth0")
    assert f"{endpoint.ipv4}/24" in shown and "169.254.8.8/16" in shown and "fe80::8/64" in shown
    with pytest.raises(InvalidArgument, match=r"invalid link local IP address: 10\.0\.0\.1"):
        await rig.container(link_local=("10.0.0.1",))


async def test_each_family_has_a_way_out_of_its_own(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("both", enable_ipv6=True, ipam=(IpamConfig("10.77.0.0/24"), IpamConfig("fd77::/64"))))
    made, first = await rig.container(gw_priority=1)
    endpoint = await rig.manager.connect(rig.manager.get("both").id, made.id, made.netns, EndpointWish("x"))
    assert first.gateway in inside(made, "ip", "route", "show", "default")
    assert "fd77::1" in inside(made, "ip", "-6", "route", "show", "default")
    await rig.manager.disconnect(first, made.netns)
    assert "10.77.0.1" in inside(made, "ip", "route", "show", "default")
    assert endpoint.gateway6 == "fd77::1"


async def test_a_configuration_makes_networks_and_stays_while_they_do(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("cfg", config_only=True, ipam=(IpamConfig("10.77.0.0/24"),)))
    network = await rig.manager.create(NetworkSpec("real", config_from="cfg"))
    assert (network.ipam[0].subnet, network.config_from, network.driver) == ("10.77.0.0/24", "cfg", "bridge")
    with pytest.raises(Forbidden, match='configuration network "cfg" is in use'):
        await rig.manager.remove("cfg")
    with pytest.raises(Forbidden, match="cannot create endpoint on configuration-only network"):
        await rig.container("cfg")
    rig.containers.pop().close()
    await rig.manager.remove("real")
    await rig.manager.remove("cfg")


async def test_a_network_is_not_removed_under_a_container_that_is_being_connected(rig: Rig) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("slow"))
    rig.manager._joining[rig.manager.get("slow").id] = 1
    with pytest.raises(Forbidden, match="a container is being connected"):
        await rig.manager.remove("slow")
    rig.manager._joining.clear()
    await rig.manager.remove("slow")


async def test_a_macvlan_container_keeps_its_address_over_a_restart_of_the_helper(rig: Rig, far: Container) -> None:  # noqa: F811
    await rig.manager.create(NetworkSpec("lan", driver="macvlan", options={"parent": "wire"}, ipam=(
        IpamConfig("10.99.0.0/24", gateway="10.99.0.2", ip_range="10.99.0.64/26"),)))
    made, endpoint = await rig.container("lan", container_name="web")
    await made.serve_tcp(80)
    saved = rig.manager.list()
    await rig.manager.close(keep=True)
    rig.manager = rig.new_manager()
    await rig.manager.open(saved)
    await rig.manager.restore(made.id, made.netns, [endpoint], ())
    await rig.manager.restored()
    assert await far.connect(endpoint.ipv4, 80) == "10.99.0.2"
    _, other = await rig.container("lan")
    assert other.ipv4 != endpoint.ipv4


async def test_changes_at_the_same_moment_give_nothing_twice(rig: Rig) -> None:  # noqa: F811
    made = await asyncio.gather(*(rig.manager.create(NetworkSpec("same")) for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in made) == 1
    assert all(isinstance(one, Conflict) for one in made if isinstance(one, BaseException))
    several = await asyncio.gather(*(rig.manager.create(NetworkSpec(f"n{number}")) for number in range(8)))
    assert len({network.ipam[0].subnet for network in several}) == 8
    found = await asyncio.gather(*(rig.container("same") for _ in range(12)))
    assert len({endpoint.ipv4 for _, endpoint in found}) == 12
    ports = await asyncio.gather(*(rig.manager.publish(one.id, endpoint, [PortWish(80)]) for one, endpoint in found))
    assert len({bound.host_port for published in ports for bound in published}) == 12
