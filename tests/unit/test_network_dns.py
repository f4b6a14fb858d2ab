"""DNS messages, read and written by an independent implementation."""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.network import dnswire, resolvconf
from backend.network.names import Names
from backend.network.records import Endpoint
from backend.network.resolvconf import ResolvConf


def question(name: str, kind: str = "A", **more: object) -> tuple[dns.message.Message, dnswire.Question]:
    query = dns.message.make_query(name, kind, **more)      # type: ignore[arg-type]
    return query, dnswire.parse(query.to_wire())


def test_questions_are_read() -> None:
    query, parsed = question("Web.Example.ORG.", "AAAA")
    assert (parsed.name, parsed.kind, parsed.identity, parsed.limit) == ("web.example.org", dnswire.AAAA, query.id, 512)
    assert parsed.is_plain
    assert question("x", use_edns=0, payload=1400)[1].limit == 1400
    assert question("x", use_edns=0, payload=100)[1].limit == 512


def test_answers_are_understood_by_others() -> None:
    query, parsed = question("web", use_edns=0)
    answer = dns.message.from_wire(dnswire.addresses(parsed, ["10.0.0.2", "fd00::2"]))
    assert query.is_response(answer) and [str(item) for item in answer.answer[0]] == ["10.0.0.2"]
    assert answer.flags & dns.flags.RA and answer.flags & dns.flags.RD and answer.edns == 0
    query, parsed = question("web", "AAAA")
    answer = dns.message.from_wire(dnswire.addresses(parsed, ["10.0.0.2", "fd00::2"]))
    assert [str(item) for item in answer.answer[0]] == ["fd00::2"]
    query, parsed = question("2.0.0.10.in-addr.arpa", "PTR")
    answer = dns.message.from_wire(dnswire.pointer(parsed, "web.back"))
    assert query.is_response(answer) and str(answer.answer[0][0]) == "web.back."
    query, parsed = question("nobody")
    assert dns.message.from_wire(dnswire.failure(parsed, dnswire.NXDOMAIN)).rcode() == dns.rcode.NXDOMAIN


def test_large_answers_are_cut_for_udp_only() -> None:
    _, parsed = question("many")
    found = [f"10.0.{number}.1" for number in range(100)]
    cut = dnswire.addresses(parsed, found)
    assert len(cut) <= 512 and dns.message.from_wire(cut).flags & dns.flags.TC
    whole = dns.message.from_wire(dnswire.addresses(parsed, found, tcp=True))
    assert not whole.flags & dns.flags.TC and len(whole.answer[0]) == 100


@given(st.binary(max_size=600))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        parsed = dnswire.parse(data)
    except dnswire.Malformed:
        dnswire.refusal(data)
        return
    dnswire.failure(parsed, dnswire.REFUSED)
    dnswire.reverse_address(parsed.name)


@pytest.mark.parametrize(("name", "address"), [
    ("2.0.17.172.in-addr.arpa", "172.17.0.2"), ("0.17.172.in-addr.arpa", ""), ("x.0.17.172.in-addr.arpa", ""),
    (f"2.{'0.' * 29}d.f.ip6.arpa", "fd00::2"), ("web", "")])
def test_reverse_names(name: str, address: str) -> None:
    assert dnswire.reverse_address(name) == address


def test_only_the_answer_to_our_question_counts() -> None:
    query, _ = question("example.org")
    wire = query.to_wire()
    good = dns.message.make_response(query).to_wire()
    assert dnswire.is_answer_to(good, wire)
    other, _ = question("evil.org")
    other.id = query.id
    assert not dnswire.is_answer_to(dns.message.make_response(other).to_wire(), wire)
    assert not dnswire.is_answer_to(wire, wire) and not dnswire.is_answer_to(b"", wire)
    assert not dnswire.is_answer_to(b"xx" + good[2:], wire)


def endpoint(number: int, network: str, container: str, *names: str, **more: str) -> Endpoint:
    return Endpoint(f"{network}{container}", network, network, container, ipv4=f"10.0.0.{number}", gateway="10.0.0.1",
                    dns_names=names, **more)      # type: ignore[arg-type]


def test_names_are_seen_only_on_shared_networks() -> None:
    names = Names()
    web, db, other = endpoint(2, "front", "c1", "web"), endpoint(3, "front", "c2", "DB", "db1"), endpoint(4, "back", "c3", "db")
    for one in (web, db, other):
        names.add(one)
    assert names.resolve("c1", "db") == ["10.0.0.3"] and names.resolve("c1", "db.front") == ["10.0.0.3"]
    assert names.resolve("c1", "db.back") is None and names.resolve("c3", "web") is None
    assert names.reverse("c1", "10.0.0.3") == "DB.front" and names.reverse("c1", "10.0.0.4") == ""
    names.remove(db)
    assert names.resolve("c1", "db") is None and names.reverse("c1", "10.0.0.3") == ""
    assert names.resolve("c1", "host.docker.internal") == ["10.0.0.1"]


def test_a_link_is_a_name_for_one_container_only() -> None:
    names = Names()
    linked = Endpoint("e", "n", "n", "c1", ipv4="10.0.0.2", dns_names=("a",), links=(("b", "database"),))
    for one in (linked, endpoint(3, "n", "c2", "b"), endpoint(4, "n", "c3", "c")):
        names.add(one)
    assert names.resolve("c1", "database") == ["10.0.0.3"] and names.resolve("c3", "database") is None


def test_resolv_conf_is_read_and_planned() -> None:
    host = resolvconf.parse("# c\nnameserver 127.0.0.53\nnameserver 192.0.2.1 # x\nnameserver bad\nsearch a b\noptions ndots:2\n")
    assert host == ResolvConf(("127.0.0.53", "192.0.2.1"), ("a", "b"), ("ndots:2",))
    plain = resolvconf.plan(host, embedded=False, isolated=True)
    assert plain.text == "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n" and not plain.serve
    assert resolvconf.plan(host, embedded=False, isolated=False).text.startswith("nameserver 127.0.0.53\n")
    assert resolvconf.plan(host, embedded=True, isolated=True, search=["."]).text == "nameserver 127.0.0.11\noptions ndots:0\n", "the host's ndots are its own"
    assert resolvconf.plan(host, embedded=True, isolated=True, options=("ndots:5",)).text == "nameserver 127.0.0.11\nsearch a b\noptions ndots:5\n"
    named = resolvconf.plan(ResolvConf(("192.0.2.1",)), embedded=True, isolated=True, search=(".",))
    assert named.text == "nameserver 127.0.0.11\noptions ndots:0\n" and named.serve
    only_local = resolvconf.plan(ResolvConf(("127.0.0.1",)), embedded=False, isolated=True)
    assert only_local.serve, "a resolver on the host's loopback is reached through ours"
    assert resolvconf.plan(host, embedded=False, isolated=True, servers=("9.9.9.9",)).text.startswith("nameserver 9.9.9.9\n")
