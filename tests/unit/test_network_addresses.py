"""Address management without a kernel: nothing is given twice, nothing is lost."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import Forbidden, InvalidArgument, ServerError, Unavailable
from backend.network.endpoints import check_wish, dns_names, free_interface, mac_for, parse_mac, ways_out
from backend.network.ipam import Leases, choose_subnet, complete, parse_subnet, refuse_overlap
from backend.network.options import ENDPOINT_IFNAME, ENDPOINT_SYSCTLS
from backend.network.planning import check, config_network, configured, default_bridge, plan_subnets, pools6
from backend.network.ports import parse_wish
from backend.network.records import (
    DEFAULT_POOLS,
    AddressPool,
    Endpoint,
    EndpointWish,
    IpamConfig,
    Network,
    NetworkSpec,
    PortWish,
    PublishedPort,
    from_json,
    to_json,
)

NET = ipaddress.ip_network


def test_default_networks_get_dockers_addresses() -> None:
    assert default_bridge("i", "slipway0", "", DEFAULT_POOLS, []).ipam == (IpamConfig("172.17.0.0/16", "", "172.17.0.1"),)
    assert choose_subnet(DEFAULT_POOLS, [NET("172.17.0.0/16")]) == NET("172.18.0.0/16")
    assert default_bridge("i", "sw1", "10.9.1.7/24", (), []).ipam == (IpamConfig("10.9.1.0/24", "", "10.9.1.7"),)
    with pytest.raises(InvalidArgument, match="--bip"):
        default_bridge("i", "sw1", "ten", (), [])


def test_subnets_avoid_what_the_host_routes_and_say_when_none_is_left() -> None:
    pool = [AddressPool("10.0.0.0/8", 24)]
    assert choose_subnet(pool, [NET("10.0.0.0/9"), NET("0.0.0.0/0")]) == NET("10.128.0.0/24")
    assert choose_subnet(pool, [NET("10.0.0.128/25"), NET("10.0.2.0/31")]) == NET("10.0.1.0/24")
    with pytest.raises(ServerError, match="all predefined address pools have been fully subnetted"):
        choose_subnet(pool, [NET("10.0.0.0/8")])
    assert choose_subnet(pools6((), "me"), [], 6).prefixlen == 64
    assert choose_subnet(pools6((), "me"), [], 6) != choose_subnet(pools6((), "you"), [], 6)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(9, 30)), max_size=30))
def test_a_chosen_subnet_never_overlaps_one_in_use(taken: list[tuple[int, int]]) -> None:
    used = [ipaddress.ip_network((f"10.{second}.0.0", prefix), strict=False) for second, prefix in taken]
    try:
        chosen = choose_subnet([AddressPool("10.0.0.0/8", 20)], used)
    except ServerError:
        return
    assert not any(chosen.overlaps(other) for other in used)


@pytest.mark.parametrize(("text", "words"), [
    ("10.1.2.3/24", "it should be 10.1.2.0/24"), ("10.1.2.0/244", "invalid CIDR"), ("10.1.2.0", "invalid CIDR"),
    ("x", "invalid CIDR"), ("", "invalid CIDR"), ("10.1.2.0/-1", "invalid CIDR")])
def test_wrong_subnets_are_refused_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_subnet(text)


def test_gateways_ranges_and_reserved_addresses_lie_in_the_subnet() -> None:
    subnet = parse_subnet("10.1.0.0/24")
    assert complete(IpamConfig(), subnet).gateway == "10.1.0.1"
    assert complete(IpamConfig(auxiliary={"router": "10.1.0.1"}), subnet).gateway == "10.1.0.2"
    for config in (IpamConfig(gateway="10.2.0.1"), IpamConfig(ip_range="10.2.0.0/25"), IpamConfig(auxiliary={"a": "1.1.1.1"}),
                   IpamConfig(gateway="::1"), IpamConfig(gateway="x")):
        with pytest.raises(InvalidArgument):
            complete(config, subnet)


def test_overlap_with_networks_and_routes_is_refused() -> None:
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        refuse_overlap(NET("10.1.0.0/24"), [NET("10.1.0.0/16")], [])
    with pytest.raises(Forbidden, match=r"the host already routes 10\.1\.0\.0/16 through wg0"):
        refuse_overlap(NET("10.1.0.0/24"), [], [(NET("10.1.0.0/16"), "wg0")])
    refuse_overlap(NET("10.1.0.0/24"), [NET("10.2.0.0/16")], [(NET("0.0.0.0/0"), "eth0")])


def test_leases_skip_gateway_broadcast_and_reserved() -> None:
    leases = Leases(IpamConfig("10.1.0.0/29", "", "10.1.0.3", {"nas": "10.1.0.4"}))
    assert [leases.lease() for _ in range(5)] == ["10.1.0.1", "10.1.0.2", "10.1.0.5", "10.1.0.6", ""]
    ranged = Leases(IpamConfig("10.1.0.0/24", "10.1.0.128/30", "10.1.0.1"))
    assert ranged.lease() == "10.1.0.128"
    ranged.take("10.1.0.5")      # a static address may lie outside the range
    with pytest.raises(Forbidden, match="Address already in use"):
        ranged.take("10.1.0.1")
    with pytest.raises(InvalidArgument, match="no configured subnet"):
        ranged.take("10.2.0.1")


def test_an_address_that_cools_waits_unless_nothing_else_is_free_or_it_is_asked_for() -> None:
    leases = Leases(IpamConfig("10.1.0.0/29", "", "10.1.0.1"))
    first, second = leases.lease(), leases.lease()
    leases.release(first, cool=True)
    assert leases.lease() == "10.1.0.4"
    leases.settle(first)
    assert leases.lease() == first
    leases.release(second, cool=True)
    leases.take(second)
    leases.release(second, cool=True)
    assert [leases.lease() for _ in range(3)] == ["10.1.0.5", "10.1.0.6", second]


@given(st.lists(st.tuples(st.sampled_from(["lease", "free", "cool", "settle"]), st.integers(0, 20)), max_size=200))
def test_no_address_is_ever_held_twice(steps: list[tuple[str, int]]) -> None:
    leases = Leases(IpamConfig("10.1.0.0/28", "", "10.1.0.1"))
    held: list[str] = []
    cooling: list[str] = []
    for what, pick in steps:
        if what == "lease":
            address = leases.lease()
            assert bool(address) == (len(held) < 13)
            if address:
                assert address not in held
                held.append(address)
                cooling = [other for other in cooling if other != address]
        elif what in ("free", "cool") and held:
            address = held.pop(pick % len(held))
            leases.release(address, cool=what == "cool")
            if what == "cool":
                cooling.append(address)
        elif what == "settle" and cooling:
            leases.settle(cooling.pop(pick % len(cooling)))
    assert leases.used() == len(held)


def test_a_plan_has_one_subnet_a_family() -> None:
    pools, v6 = [AddressPool("10.0.0.0/8", 24)], pools6((), "me")
    plan = plan_subnets(NetworkSpec("n", enable_ipv6=True), pools, v6, [NET("10.0.0.0/24")], [])
    assert [config.subnet.rpartition("/")[2] for config in plan] == ["24", "64"] and plan[0].subnet == "10.0.1.0/24"
    both = (IpamConfig("10.5.0.0/24"), IpamConfig("fd01::/64"))
    assert len(plan_subnets(NetworkSpec("n", ipam=both), pools, v6, [], [])) == 1, "IPv6 only when it is switched on"
    assert len(plan_subnets(NetworkSpec("n", ipam=both, enable_ipv6=True), pools, v6, [], [])) == 2
    with pytest.raises(Forbidden):
        plan_subnets(NetworkSpec("n", ipam=(IpamConfig("10.5.0.0/24"), IpamConfig("10.6.0.0/24"))), pools, v6, [], [])


@pytest.mark.parametrize(("spec", "kind", "words"), [
    (NetworkSpec("n", enable_ipv4=False), InvalidArgument, "IPv4 or IPv6 must be enabled"),
    (NetworkSpec("n", options={"com.docker.network.bridge.gateway_mode_ipv4": "bogus"}), InvalidArgument, "unknown gateway mode bogus"),
    (NetworkSpec("n", options={"com.docker.network.bridge.gateway_mode_ipv6": "isolated"}), InvalidArgument, "only be used for an internal"),
    (NetworkSpec("n", options={"com.docker.network.bridge.enable_icc": "maybe"}), InvalidArgument, 'parsing "maybe": invalid syntax'),
    (NetworkSpec("n", options={"com.docker.network.driver.mtu": "abc"}), InvalidArgument, 'parsing "abc": invalid syntax'),
    (NetworkSpec("n", options={"com.docker.network.host_ipv4": "fd00::1"}), InvalidArgument, "nil ip"),
    (NetworkSpec("n", options={"com.docker.network.bridge.trusted_host_interfaces": "eth0:a/b"}), InvalidArgument, "a/b"),
    (NetworkSpec("n", driver="macvlan", options={"macvlan_mode": "foo"}), InvalidArgument, "requested macvlan mode 'foo' is not valid"),
    (NetworkSpec("n", driver="ipvlan", options={"ipvlan_mode": "l4"}), InvalidArgument, "requested ipvlan mode 'l4' is not valid"),
    (NetworkSpec("n", driver="macvlan", options={"parent": "../x"}), InvalidArgument, "invalid parent"),
    (NetworkSpec("n", driver="overlay"), Unavailable, "not a swarm manager")])
def test_options_without_sense_are_refused_in_dockers_words(spec: NetworkSpec, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        check(spec, ())


def test_a_lan_may_have_several_subnets_and_the_hosts_own() -> None:
    spec = NetworkSpec("n", driver="macvlan", ipam=(IpamConfig("10.5.0.0/24"), IpamConfig("10.6.0.0/24")))
    routed = [(NET("10.5.0.0/24"), "eth0")]
    assert [one.subnet for one in plan_subnets(spec, [], [], [], routed)] == ["10.5.0.0/24", "10.6.0.0/24"]
    twice = NetworkSpec("n", driver="macvlan", ipam=(IpamConfig("10.5.0.0/24"), IpamConfig("10.5.0.0/25")))
    with pytest.raises(Forbidden, match="Pool overlaps"):
        plan_subnets(twice, [], [], [], [])


def test_an_isolated_gateway_takes_no_address() -> None:
    options = {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}
    plan = plan_subnets(NetworkSpec("n", internal=True, options=options), [AddressPool("10.0.0.0/8", 24)], [], [], [])
    assert plan == (IpamConfig("10.0.0.0/24"),) and Leases(plan[0]).lease() == "10.0.0.1"


def test_a_configuration_is_taken_over_whole_or_refused() -> None:
    source = config_network("i", NetworkSpec("cfg", config_only=True, ipam=(IpamConfig("10.5.0.0/24"),), options={"a": "b"}, labels={"l": "1"}))
    made = configured(NetworkSpec("n", config_from="cfg", labels={"m": "2"}), source)
    assert (made.ipam, made.options, made.labels) == (source.ipam, {"a": "b"}, {"l": "1", "m": "2"})
    with pytest.raises(Forbidden, match="user specified configurations are not supported"):
        configured(NetworkSpec("n", ipam=(IpamConfig("10.6.0.0/24"),)), source)
    with pytest.raises(Forbidden, match="network specific fields"):
        config_network("i", NetworkSpec("cfg", config_only=True, internal=True))


@pytest.mark.parametrize(("name", "wish", "words"), [
    ("mine", EndpointWish(ipv4="10.9.0.5"), "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.9.0.5"),
    ("mine", EndpointWish(ipv6="10.5.0.5"), "invalid IPv6 address: 10.5.0.5"),
    ("auto", EndpointWish(ipv4="10.6.0.5"), "only when connecting to networks with user configured subnets"),
    ("bridge", EndpointWish(ipv4="10.6.0.5"), "\n* user specified IP address is supported on user defined networks only\n* "),
    ("bridge", EndpointWish(aliases=("x",)), "network-scoped alias is supported only for containers in user defined"),
    ("mine", EndpointWish(driver_opts={ENDPOINT_SYSCTLS: "kernel.x=1"}), "unrecognised network interface sysctl 'kernel.x=1'"),
    ("mine", EndpointWish(driver_opts={ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME./../x=1"}), "unrecognised network interface sysctl"),
    ("mine", EndpointWish(driver_opts={ENDPOINT_IFNAME: "a/b"}), "invalid interface name")])
def test_a_wish_that_cannot_be_is_refused_before_anything_is_made(name: str, wish: EndpointWish, words: str) -> None:
    network = Network("i", name, "bridge", 0, ipam=(IpamConfig("10.5.0.0/24" if name == "mine" else "10.6.0.0/24"),), user_subnets=name == "mine")
    with pytest.raises(InvalidArgument) as problem:
        check_wish(network, name, wish)
    assert words in problem.value.message
    check_wish(network, name, EndpointWish(driver_opts={ENDPOINT_SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.mtu=1400"}))


def test_records_survive_json() -> None:
    for record in (Network("i", "n", "bridge", 5, ipam=(IpamConfig("10.0.0.0/24"),), labels={"a": "b"}),
                   Endpoint("e", "n", "net", "c", dns_names=("a", "b"), links=(("x", "y"),)),
                   PublishedPort(80, "tcp", "::", 8080, "10.0.0.2")):
        assert from_json(type(record), to_json(record)) == record


@pytest.mark.parametrize(("entry", "wish"), [
    (("80/tcp", "", "8080"), PortWish(80, "tcp", "", 8080)),
    (("53/UDP", "127.0.0.1", ""), PortWish(53, "udp", "127.0.0.1")),
    (("80", "::1", "8000-8010"), PortWish(80, "tcp", "::1", 8000, 8010)),
    (("80/tcp", "", "8000-8000"), PortWish(80, "tcp", "", 8000))])
def test_port_bindings_are_understood(entry: tuple[str, str, str], wish: PortWish) -> None:
    assert parse_wish(*entry) == wish


@pytest.mark.parametrize("entry", [
    ("80/icmp", "", ""), ("0/tcp", "", ""), ("70000/tcp", "", ""), ("8_0/tcp", "", ""), ("٨/tcp", "", ""), ("80/tcp", "x", ""),
    ("80/tcp", "", "90-80"), ("80/tcp", "", "-80"), ("80/tcp", "", " 80"), ("80/tcp", "fe80::1%eth0", "")])
def test_wrong_port_bindings_are_refused(entry: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidArgument):
        parse_wish(*entry)


def test_macs_names_devices_and_the_ways_out() -> None:
    assert mac_for("172.17.0.2") == "02:42:ac:11:00:02"
    assert parse_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"
    for wrong in ("01:00:00:00:00:00", "02:42", "02:42:ac:11:00:0g"):
        with pytest.raises(InvalidArgument):
            parse_mac(wrong)
    assert free_interface("eth", {"eth0", "eth2"}) == "eth1"
    named = Network("i", "n", "bridge", 0)
    wish = EndpointWish("web", "host", aliases=("www", "web"))
    assert dns_names(named, "0123456789abcdef", wish) == ("web", "www", "0123456789ab", "host")
    a, b = Endpoint("1", "a", "a", "c", gateway="10.0.0.1"), Endpoint("2", "b", "b", "c", gateway="10.1.0.1")
    assert ways_out([b, a])[0] is a
    preferred = Endpoint("3", "z", "z", "c", gateway="10.2.0.1", gw_priority=5)
    assert ways_out([a, preferred, b])[0] is preferred
    assert ways_out([Endpoint("4", "i", "internal", "c")]) == (None, None)
    both = Endpoint("5", "z", "z", "c", gateway="10.3.0.1", gateway6="fd00::1")
    assert ways_out([a, both, b]) == (both, both), "one that leads out for both families goes first"
    assert ways_out([preferred, both, a]) == (preferred, both), "each family has a way out of its own"
