"""The old links between containers of the default bridge (`--link`): how they are written, and what they put into the
environment. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.errors import InvalidArgument

#: Set by every image; of no use to a neighbour.
_NOT_TOLD = frozenset({"HOME", "PATH"})


def parse(text: str) -> tuple[str, str]:
    """The other container and the name it goes by here: "db:database", "db", or as Docker's inspect shows it,
    "/db:/me/database".

    Raises :class:`InvalidArgument`.
    """
    name, _, alias = text.partition(":")
    name, alias = name.removeprefix("/"), alias.rpartition("/")[2] or name.removeprefix("/")
    if not name or ":" in alias:
        raise InvalidArgument(f"bad format for links: {text}")
    return name, alias


def environment(me: str, alias: str, address: str, ports: Iterable[str], env: Sequence[str]) -> list[str]:
    """What a link tells a container: the other's address, exposed ports and environment, under the link's name."""
    prefix = alias.upper().replace("-", "_")
    made: list[str] = []
    sorted_ports = sorted(ports, key=lambda one: (one.partition("/")[2], int(one.partition("/")[0])))
    for port in sorted_ports:
        number, _, protocol = port.partition("/")
        whole = f"{protocol}://{address}:{number}"
        if not made:
            made.append(f"{prefix}_PORT={whole}")
        base = f"{prefix}_PORT_{number}_{protocol.upper()}"
        made += [f"{base}={whole}", f"{base}_ADDR={address}", f"{base}_PORT={number}", f"{base}_PROTO={protocol}"]
    made.append(f"{prefix}_NAME=/{me}/{alias}")
    for entry in env:
        name, found, value = entry.partition("=")
        if found and name not in _NOT_TOLD:
            made.append(f"{prefix}_ENV_{name}={value}")
    return made
