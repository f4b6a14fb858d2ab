"""`slipway network`."""

from __future__ import annotations

import sys

from app.cli.errors import Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.life import each
from app.cli.output import filters, labelled, short_id, show
from app.cli.units import pair

TYPING = False
if TYPING:
    from typing import Any

_FILTER = Flag("filter", "list", short="f", about="KEY=VALUE")
_LIST = Parser("network ls [FLAGS]", "List networks.", _FILTER, Flag("quiet", short="q", about="IDs only"),
               Flag("no-trunc", about="nothing shortened"), Flag("format", "text", about="table, json, or a template"),
               most=0)
_CREATE = Parser(
    "network create [FLAGS] NAME", "Make a network.",
    Flag("driver", "text", short="d", about="bridge, macvlan, ipvlan, ...", default="bridge"),
    Flag("subnet", "list", about="its addresses: 10.9.0.0/24"), Flag("gateway", "list", about="its gateway"),
    Flag("ip-range", "list", about="the part that containers get addresses from"),
    Flag("aux-address", "list", about="an address in use: NAME=ADDRESS"),
    Flag("ipam-driver", "text", about="who manages its addresses", default="default"),
    Flag("ipam-opt", "list", about="an option of that: NAME=VALUE"),
    Flag("internal", about="without a way out"), Flag("attachable", about="for containers that are made by hand"),
    Flag("ipv4", about="with IPv4 addresses", default=True), Flag("ipv6", about="with IPv6 addresses"),
    Flag("label", "list", about="NAME=VALUE"), Flag("opt", "list", short="o", about="an option of the driver"),
    Flag("ingress", about="of a swarm"), Flag("scope", "text", about="local"),
    Flag("config-only", about="only settings, for networks made from it"),
    Flag("config-from", "text", about="the network that has the settings"), least=1, most=1)
_REMOVE = Parser("network rm [FLAGS] NETWORK...", "Remove networks.",
                 Flag("force", short="f", about="one that is not there is no error"), least=1)
_CONNECT = Parser(
    "network connect [FLAGS] NETWORK CONTAINER", "Connect a container to a network.",
    Flag("ip", "text", about="its address"), Flag("ip6", "text", about="its IPv6 address"),
    Flag("alias", "list", about="a further name"), Flag("link", "list", about="NAME[:ALIAS] of another container"),
    Flag("link-local-ip", "list", about="a link-local address"), Flag("driver-opt", "list", about="NAME=VALUE"),
    Flag("gw-priority", "number", about="which network has the way out: the highest"), least=2, most=2)
_DISCONNECT = Parser("network disconnect [FLAGS] NETWORK CONTAINER", "Take a container off a network.",
                     Flag("force", short="f", about="in any case"), least=2, most=2)
_COLUMNS = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")]


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb = words[1] if len(words) > 1 else ""
    engine = Engine(address)
    if verb in ("ls", "list"):
        return _list(_LIST.parse(words[2:]), engine)
    if verb == "create":
        made = engine.json("POST", "/networks/create", body=network_body(_CREATE.parse(words[2:])))
        if made.get("Warning"):
            print(f"WARNING: {made['Warning']}", file=sys.stderr)
        print(made["Id"])
        return 0
    if verb in ("rm", "remove"):
        given = _REMOVE.parse(words[2:])
        return each(given.words, lambda name: _remove(engine, name), absent=given.force)
    if verb == "inspect":
        from app.cli.inspect import main as inspect

        return inspect(["inspect", *words[2:]], address, "network")
    if verb == "connect":
        given = _CONNECT.parse(words[2:])
        engine.json("POST", f"/networks/{quote(given.words[0])}/connect", body=connect_body(given))
        return 0
    if verb == "disconnect":
        given = _DISCONNECT.parse(words[2:])
        engine.json("POST", f"/networks/{quote(given.words[0])}/disconnect",
                    body={"Container": given.words[1], "Force": given.force})
        return 0
    if verb == "prune":
        from app.cli.prune import main as prune

        return prune(["prune", "networks", *words[2:]], address)
    raise Usage("`slipway network` has ls, create, rm, inspect, connect, disconnect, prune; each shows its flags with "
                "--help.")


def _remove(engine: Engine, name: str) -> str:
    engine.json("DELETE", f"/networks/{quote(name)}")
    return name


def _list(given: Options, engine: Engine) -> int:
    found = engine.json("GET", "/networks", {"filters": filters(given.filter)})
    found.sort(key=lambda network: network["Name"])
    if given.quiet and not given.format:
        for network in found:
            print(network["Id"] if given.no_trunc else short_id(network["Id"]))
        return 0
    show([_row(network, given.no_trunc) for network in found], _COLUMNS, given.format)
    return 0


def _row(network: dict[str, Any], whole: bool) -> dict[str, Any]:
    return {
        "ID": network["Id"] if whole else short_id(network["Id"]), "Name": network["Name"],
        "Driver": network["Driver"], "Scope": network["Scope"], "Internal": str(network["Internal"]).lower(),
        "IPv4": str(network.get("EnableIPv4", True)).lower(), "IPv6": str(network.get("EnableIPv6", False)).lower(),
        **labelled(network.get("Labels")),
        "CreatedAt": _when(network.get("Created", ""))}


def _when(text: str) -> str:
    """RFC 3339 as Go prints a time: ``2026-11-24 21:10:40.5 +0000 UTC``."""
    day, _, clock = text.partition("T")
    if not clock.endswith("Z"):
        return text
    return f"{day} {clock[:-1]} +0000 UTC"


def network_body(given: Options) -> dict[str, Any]:
    """The body of POST /networks/create."""
    return {
        "Name": given.words[0], "Driver": given.driver, "Internal": given.internal, "Attachable": given.attachable,
        "EnableIPv4": given.ipv4 if "ipv4" in given.given else None,
        "EnableIPv6": given.ipv6 if "ipv6" in given.given else None, "Scope": given.scope, "Ingress": given.ingress,
        "ConfigOnly": given.config_only,
        "ConfigFrom": {"Network": given.config_from} if given.config_from else None,
        "Options": dict(pair(word, "opt") for word in given.opt), "Labels": labels(given.label),
        "IPAM": {"Driver": given.ipam_driver, "Options": dict(pair(word, "ipam-opt") for word in given.ipam_opt),
                 "Config": _pools(given)},
    }


def labels(words: list[str]) -> dict[str, str]:
    """``--label NAME[=VALUE]``."""
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _pools(given: Options) -> list[dict[str, Any]]:
    """Each subnet with the gateway, range and addresses in use that lie in it."""
    import ipaddress

    try:
        subnets = {word: ipaddress.ip_network(word, strict=False) for word in given.subnet}
        inside: list[tuple[str, str, Any]] = [("Gateway", word, ipaddress.ip_address(word)) for word in given.gateway]
        inside += [("IPRange", word, ipaddress.ip_network(word, strict=False).network_address)
                   for word in given.ip_range]
        in_use = [(*pair(word, "aux-address"),) for word in given.aux_address]
        inside += [(name, value, ipaddress.ip_address(value)) for name, value in in_use]
    except ValueError as error:
        raise Usage(f"the network's addresses make no sense: {error}.") from None
    pools: dict[str, dict[str, Any]] = {word: {"Subnet": word} for word in given.subnet}
    for key, word, place in inside:
        home = next((pools[name] for name, subnet in subnets.items() if place in subnet), None)
        if home is None:
            raise Usage(f"{word} lies in none of the subnets. Name the one that it belongs to with --subnet.")
        if key in ("Gateway", "IPRange"):
            if key in home:
                raise Usage(f"{word}: its subnet has {home[key]} already.")
            home[key] = word
        else:
            home.setdefault("AuxiliaryAddresses", {})[key] = word
    return list(pools.values())


def connect_body(given: Options) -> dict[str, Any]:
    """The body of POST /networks/{id}/connect."""
    addresses = {"IPv4Address": given.ip, "IPv6Address": given.ip6, "LinkLocalIPs": given.link_local_ip}
    endpoint = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value}, "Aliases": given.alias,
        "Links": given.link, "DriverOpts": dict(pair(word, "driver-opt") for word in given.driver_opt),
        "GwPriority": given.gw_priority or 0}
    return {"Container": given.words[1], "EndpointConfig": {key: value for key, value in endpoint.items() if value}}
