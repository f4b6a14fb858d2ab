"""What our firewall table says, in nft's language: pure, so that it can be read and tested without a kernel.

Text, not libnftables' JSON: the JSON reader of version 1.0.6 (Debian 12) crashes the process on maps of concatenated
values, which published ports are. Nothing of a client's gets into the text unchecked: addresses come out of
``ipaddress``, device names are matched, the rest are numbers and words of ours.

One table of family inet a helper, nothing outside it. Its chains:

``guard``        before connection tracking: packets *from* our bridges to 127.0.0.0/8 are forged. They must be dropped
                 because route_localnet, which published ports on 127.0.0.1 need, would let containers reach services
                 that the host offers to itself only.
``prerouting``,  send what comes for a published port to its container; maps, so that a thousand ports cost one look-up.
``output``       From outside never for 127.0.0.0/8: a neighbour on the wire could send such packets by hand. ::1 cannot
                 leave by a bridge (IPv6 has no route_localnet): our own relay serves it.
``forward``      decides what may reach a bridge's containers; one small chain a bridge.
``postrouting``  containers leave with the host's address; hairpin and loopback connections come from the bridge's
                 address, because the container would otherwise answer past the host.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backend.network.options import NAT, ROUTED, UNPROTECTED

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)

_FRAME = """
table inet {table} {{
 map any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
 map any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
 map at4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
 map at6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
 set bridges {{ type ifname; }}
 set open4 {{ type ipv4_addr . inet_proto . inet_service; }}
 set open6 {{ type ipv6_addr . inet_proto . inet_service; }}
 map outside4 {{ type ipv4_addr : ipv4_addr; flags interval; }}
 map outside6 {{ type ipv6_addr : ipv6_addr; flags interval; }}
 set outbound4 {{ type ipv4_addr; flags interval; }}
 set outbound6 {{ type ipv6_addr; flags interval; }}
 set inside4 {{ type ifname . ipv4_addr; flags interval; }}
 set inside6 {{ type ifname . ipv6_addr; flags interval; }}
 map to {{ type ifname : verdict; }}
 map from {{ type ifname : verdict; }}
 chain guard {{ type filter hook prerouting priority -300; policy accept;
  iifname @bridges ip daddr 127.0.0.0/8 drop
 }}
 chain publish {{
  dnat ip to ip daddr . meta l4proto . th dport map @at4
  dnat ip to meta l4proto . th dport map @any4
  dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6
  dnat ip6 to meta l4proto . th dport map @any6
 }}
 chain prerouting {{ type nat hook prerouting priority -100; policy accept;
  ip daddr != 127.0.0.0/8 fib daddr type local jump publish
  meta nfproto ipv6 fib daddr type local jump publish
 }}
 chain output {{ type nat hook output priority -100; policy accept;
  meta nfproto ipv4 fib daddr type local jump publish
  ip6 daddr != ::1 fib daddr type local jump publish
 }}
 chain forward {{ type filter hook forward priority 0; policy accept;
  ct state established,related accept
  iifname vmap @from
  oifname vmap @to
 }}
 chain postrouting {{ type nat hook postrouting priority 100; policy accept;
  ip saddr 127.0.0.0/8 oifname @bridges ct status dnat masquerade
  oifname . ip saddr @inside4 ct status dnat masquerade
  oifname . ip6 saddr @inside6 ct status dnat masquerade
  oifname != @bridges snat ip to ip saddr map @outside4
  oifname != @bridges snat ip6 to ip6 saddr map @outside6
  ip saddr @outbound4 oifname != @bridges masquerade
  ip6 saddr @outbound6 oifname != @bridges masquerade
 }}
}}
"""


@dataclass(frozen=True, slots=True)
class BridgeRules:
    """What the firewall must know of one bridge. ``modes``: Docker's gateway modes of IPv4 and IPv6
    (``nat-unprotected``: unpublished ports may be reached from outside too; ``routed``: published ones are reached
    without translation).
    ``trusted``: devices from which all may be reached. ``outside``: (subnet, its containers' address outside)."""

    bridge: str
    subnets: tuple[str, ...]
    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    modes: tuple[str, str] = (NAT, NAT)
    trusted: tuple[str, ...] = ()
    outside: tuple[tuple[str, str], ...] = ()

    def mode(self, version: int) -> str:
        """The gateway mode of a family."""
        return self.modes[0] if version == 4 else self.modes[1]


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A published port as the kernel does it; ``host_ip`` "" stands for every address of the host. ``host_port`` 0:
    nothing is translated, the target's own port is opened."""

    host_ip: str
    protocol: str
    host_port: int
    target: str
    container_port: int


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"not a name for a firewall rule: {text!r}")
    return text


class Ruleset:
    """Builds the commands for one table. Commands that are given to nft together are one transaction."""

    def __init__(self, table: str) -> None:
        self._table = f"inet {_word(table)}"

    def delete(self) -> str:
        """Remove the table; added first because deleting a missing one is an error."""
        return f"add table {self._table}\ndelete table {self._table}\n"

    def listing(self) -> str:
        """Ask for the table's contents."""
        return f"list table {self._table}\n"

    def rebuild(self, bridges: Iterable[BridgeRules], ports: Iterable[Forwarding]) -> str:
        """The whole table anew, in place of an old one."""
        frame = _FRAME.format(table=self._table.partition(" ")[2])
        return self.delete() + frame + "".join(map(self.add_bridge, bridges)) + self.add_ports(ports)

    def add_bridge(self, rules: BridgeRules) -> str:
        """A bridge's chains and its elements in the sets."""
        name, table = _word(rules.bridge), self._table
        to = ["ct status dnat accept", f'iifname "{name}" {"accept" if rules.icc else "drop"}']
        to += [line for version in (4, 6) if rules.mode(version) == ROUTED for line in _routed(version)]
        to.append("iifname @bridges drop")
        if not rules.internal:
            to += [f'iifname "{_word(device)}" accept' for device in rules.trusted]
            to += [f"meta nfproto ipv{version} accept" for version in (4, 6) if rules.mode(version) == UNPROTECTED]
        to.append("drop")
        lines = [f"add chain {table} to-{name}", f"add chain {table} from-{name}",
                 *(f"add rule {table} to-{name} {line}" for line in to)]
        if rules.internal:
            lines.append(f'add rule {table} from-{name} oifname != "{name}" drop')
        return "\n".join(lines) + "\n" + self._elements("add", rules)

    def remove_bridge(self, rules: BridgeRules) -> str:
        """What :meth:`add_bridge` added."""
        chains = "".join(f"flush chain {self._table} {chain}\ndelete chain {self._table} {chain}\n"
                         for chain in (f"to-{_word(rules.bridge)}", f"from-{_word(rules.bridge)}"))
        return self._elements("delete", rules) + chains

    def _elements(self, verb: str, rules: BridgeRules) -> str:
        name = _word(rules.bridge)
        lines = [f'{verb} element {self._table} bridges {{ "{name}" }}']
        for way in ("to", "from"):
            lines.append(f'{verb} element {self._table} {way} {{ "{name}" : jump {way}-{name} }}')
        for text in rules.subnets:
            subnet = ipaddress.ip_network(text)
            lines.append(f'{verb} element {self._table} inside{subnet.version} {{ "{name}" . {subnet} }}')
            if rules.masquerade and not rules.internal and rules.mode(subnet.version) != ROUTED:
                lines.append(f"{verb} element {self._table} outbound{subnet.version} {{ {subnet} }}")
        for text, address in rules.outside if rules.masquerade and not rules.internal else ():
            subnet, outside = ipaddress.ip_network(text), ipaddress.ip_address(address)
            lines.append(f"{verb} element {self._table} outside{subnet.version} {{ {subnet} : {outside} }}")
        return "\n".join(lines) + "\n"

    def add_ports(self, ports: Iterable[Forwarding]) -> str:
        """Publish: one command a map, however many ports."""
        return self._port_commands("add", ports)

    def remove_ports(self, ports: Iterable[Forwarding]) -> str:
        """The reverse of :meth:`add_ports`."""
        return self._port_commands("delete", ports)

    def _port_commands(self, verb: str, ports: Iterable[Forwarding]) -> str:
        maps: dict[str, list[str]] = {}
        for port in ports:
            target, version = _checked(port.target)
            if not port.host_port:
                name, element = "open", f"{target} . {_word(port.protocol)} . {port.container_port:d}"
            else:
                host = f"{_checked(port.host_ip)[0]} . " if port.host_ip else ""
                name = "at" if host else "any"
                element = f"{host}{_word(port.protocol)} . {port.host_port:d} : {target} . {port.container_port:d}"
            maps.setdefault(f"{name}{version}", []).append(element)
        return "".join(f"{verb} element {self._table} {name} {{ {', '.join(elements)} }}\n"
                       for name, elements in maps.items())


@functools.lru_cache(maxsize=1024)
def _checked(address: str) -> tuple[str, int]:
    """An address in its one form, and its IP version: two hundred ports have the same few."""
    parsed = ipaddress.ip_address(address)
    return str(parsed), parsed.version


def _routed(version: int) -> list[str]:
    ip, icmp = ("ip", "icmp") if version == 4 else ("ip6", "ipv6-icmp")
    return [f"{ip} daddr . meta l4proto . th dport @open{version} accept",
            f"meta nfproto ipv{version} meta l4proto {icmp} accept"]


def name_redirect(udp: int, tcp: int) -> str:
    """Inside a container: what it asks at 127.0.0.11:53 goes to our sockets on other ports of that address."""
    return ("add table ip slipway-names\ndelete table ip slipway-names\n"
            "table ip slipway-names {\n chain output { type nat hook output priority -100; policy accept;\n"
            f"  ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{udp:d}\n"
            f"  ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:{tcp:d}\n }}\n}}\n")


def published_in(listing: dict[str, Any]) -> list[Forwarding]:
    """The ports that a table listed as JSON publishes, to carry them over a restart."""
    found: list[Forwarding] = []
    for item in listing.get("nftables", ()):
        described = item.get("map", {})
        if described.get("name") in ("any4", "any6", "at4", "at6"):
            for key, value in described.get("elem", ()):
                *address, protocol, port = key["concat"]
                target, inner = value["concat"]
                found.append(Forwarding(address[0] if address else "", str(protocol), int(port), target, int(inner)))
        described = item.get("set", {})
        if described.get("name") in ("open4", "open6"):
            for key in described.get("elem", ()):
                target, protocol, inner = key["concat"]
                found.append(Forwarding("", str(protocol), 0, target, int(inner)))
    return found
