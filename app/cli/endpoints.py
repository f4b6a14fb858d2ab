"""`--network` and the flags that belong to it, as the endpoints that a container is created with. Pure."""

from __future__ import annotations

from app.cli.errors import Usage
from app.cli.units import pair

TYPING = False
if TYPING:
    from typing import Any

    from app.cli.flags import Options

_OWN = ("default", "bridge", "host", "none", "")
_ONE = {"ip": "ip", "ip6": "ip6", "mac-address": "mac_address"}
_MANY = {"alias": "network_alias", "link-local-ip": "link_local_ip"}


def endpoints(given: Options) -> dict[str, dict[str, Any] | None]:
    """Network -> its endpoint, in the order given; None where nothing is said of one (it is the mode only)."""
    said = [_read(word) for word in given.network] or [{"name": "default"}]
    _add_container_flags(said[0], given)
    names = [str(one["name"]) for one in said]
    if len(set(names)) < len(names):
        raise Usage("a network is named twice.", 125)
    users = [is_user_defined(name) for name in names]
    if any(users) and not all(users):
        raise Usage("networks of one's own do not go together with bridge, host, none or container:NAME.", 125)
    made = {name: _endpoint(one) for name, one in zip(names, said, strict=True)}
    if len(made) == 1 and given.network and not made[names[0]]:
        return {names[0]: None}
    return dict(made)


def is_user_defined(name: str) -> bool:
    """Whether *name* is a network that somebody made, and no mode."""
    return name not in _OWN and not name.startswith("container:")


def _read(word: str) -> dict[str, Any]:
    """``NAME`` or ``name=N,alias=A,ip=...``."""
    if "=" not in word:
        if not word:
            raise Usage("--network needs a name.", 125)
        return {"name": word}
    out: dict[str, Any] = {}
    for part in word.split(","):
        key, value = pair(part.strip(), "network")
        if key in _MANY:
            out.setdefault(key, []).append(value)
        elif key == "driver-opt":
            name, content = pair(value, "network driver-opt")
            out.setdefault(key, {})[name] = content
        elif key in (*_ONE, "name", "gw-priority"):
            out[key] = value
        else:
            raise Usage(f"--network {word!r}: {key!r} is none of name, alias, ip, ip6, link-local-ip, mac-address, "
                        "driver-opt, gw-priority.", 125)
    if not out.get("name"):
        raise Usage(f"--network {word!r}: name= is missing.", 125)
    return out


def _add_container_flags(one: dict[str, Any], given: Options) -> None:
    """The flags without a network's name (``--ip``, ``--network-alias`` ...) belong to the first network."""
    for key, attribute in (_ONE | _MANY).items():
        value = getattr(given, attribute)
        if not value:
            continue
        if one.get(key):
            raise Usage(f"--{attribute.replace('_', '-')} and {key}= of --network contradict each other.", 125)
        one[key] = value
    if given.link and is_user_defined(one["name"]):
        one["links"] = given.link


def _endpoint(one: dict[str, Any]) -> dict[str, Any]:
    if one.get("alias") and not is_user_defined(one["name"]):
        raise Usage("aliases work on networks of one's own only. Make one with `slipway network create NAME`.", 125)
    addresses = {"IPv4Address": one.get("ip"), "IPv6Address": one.get("ip6"),
                 "LinkLocalIPs": one.get("link-local-ip")}
    priority = one.get("gw-priority", "0")
    if not priority.lstrip("-").isdigit():
        raise Usage(f"gw-priority takes a whole number, not {priority!r}.", 125)
    made = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value}, "Links": one.get("links"),
        "Aliases": one.get("alias"), "MacAddress": one.get("mac-address"), "DriverOpts": one.get("driver-opt"),
        "GwPriority": int(priority),
    }
    return {key: value for key, value in made.items() if value}
