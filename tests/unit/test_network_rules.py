"""The firewall's text: nothing of a client's gets into it unchecked."""

from __future__ import annotations

import pytest

from backend.network.ruleset import BridgeRules, Forwarding, Ruleset, published_in


def test_many_ports_are_one_command_a_map() -> None:
    text = Ruleset("slipway").add_ports([Forwarding("", "tcp", 1000 + number, "10.0.0.2", 80) for number in range(200)]
                                        + [Forwarding("127.0.0.1", "udp", 53, "10.0.0.2", 53),
                                           Forwarding("", "tcp", 80, "fd00::2", 80)])
    assert text.count("\n") == 3 and text.startswith("add element inet slipway any4 { tcp . 1000 : 10.0.0.2 . 80, ")
    assert "add element inet slipway at4 { 127.0.0.1 . udp . 53 : 10.0.0.2 . 53 }\n" in text
    assert "add element inet slipway any6 { tcp . 80 : fd00::2 . 80 }\n" in text


def test_an_internal_bridge_lets_nothing_out_and_is_not_masqueraded() -> None:
    text = Ruleset("slipway").add_bridge(BridgeRules("br-1", ("10.0.0.0/24",), internal=True, icc=False))
    assert 'from-br-1 oifname != "br-1" drop' in text and 'to-br-1 iifname "br-1" drop' in text
    assert "outbound4" not in text


@pytest.mark.parametrize("make", [
    lambda: Ruleset("x; flush ruleset"), lambda: Ruleset("slipway").add_bridge(BridgeRules('a" drop\nflush ruleset', ())),
    lambda: Ruleset("slipway").add_ports([Forwarding("", "tcp . 1", 1, "10.0.0.2", 1)]),
    lambda: Ruleset("slipway").add_ports([Forwarding("", "tcp", 1, "10.0.0.2 }\nflush ruleset", 1)])])
def test_nothing_can_be_smuggled_into_a_rule(make: object) -> None:
    with pytest.raises(ValueError):
        make()      # type: ignore[operator]


def test_published_ports_are_read_back() -> None:
    elements = [[{"concat": ["tcp", 8080]}, {"concat": ["10.0.0.2", 80]}]]
    listing = {"nftables": [{"metainfo": {}}, {"map": {"name": "any4", "elem": elements}}, {"map": {"name": "at6"}}, {"set": {}},
                            {"map": {"name": "at4", "elem": [[{"concat": ["127.0.0.1", "udp", 53]}, {"concat": ["10.0.0.2", 53]}]]}}]}
    assert published_in(listing) == [Forwarding("", "tcp", 8080, "10.0.0.2", 80),
                                     Forwarding("127.0.0.1", "udp", 53, "10.0.0.2", 53)]
