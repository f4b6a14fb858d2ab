"""Ports as `-p` and `--expose` write them: ``[IP:][HOST[-HOST]:]PORT[-PORT][/PROTOCOL]``. Pure."""

from __future__ import annotations

from app.cli.errors import Usage

TYPING = False
if TYPING:
    from collections.abc import Sequence

_PROTOCOLS = ("tcp", "udp", "sctp")


def published(words: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """The API's PortBindings of all *words* of ``-p``."""
    out: dict[str, list[dict[str, str]]] = {}
    for word in words:
        for port, binding in _one(_from_long(word) if "=" in word else word):
            out.setdefault(port, []).append(binding)
    return out


def exposed(words: Sequence[str]) -> list[str]:
    """``80/tcp`` and so on, of ``--expose``."""
    out = []
    for word in words:
        ports, protocol = _protocol(word, word)
        out += [f"{port}/{protocol}" for port in _range(ports, word)]
    return out


def _from_long(word: str) -> str:
    """``target=80,published=8080,protocol=tcp`` in the short form."""
    fields = {}
    for part in word.split(","):
        key, _, value = part.partition("=")
        if key not in ("target", "published", "protocol", "mode"):
            raise _wrong(word, f"{key!r} is none of target, published, protocol, mode")
        fields[key] = value
    if "target" not in fields:
        raise _wrong(word, "target= is missing")
    return f"{fields.get('published', '')}:{fields['target']}/{fields.get('protocol', 'tcp')}"


def _one(word: str) -> list[tuple[str, dict[str, str]]]:
    rest, protocol = _protocol(word, word)
    address = ""
    if rest.startswith("["):
        address, _, rest = rest[1:].partition("]")
        rest = rest.removeprefix(":")
    parts = rest.split(":")
    if len(parts) > 3 or (address and len(parts) > 2):
        raise _wrong(word, "an IPv6 address stands in [brackets]")
    if len(parts) == 3:
        address, parts = parts[0], parts[1:]
    host, target = parts if len(parts) == 2 else ("", parts[0])
    targets, hosts = _range(target, word), _range(host, word) if host else []
    if hosts and len(targets) == 1 and len(hosts) > 1:
        # One port, and a range of the host to choose a free one from: the engine chooses.
        return [(f"{targets[0]}/{protocol}", {"HostIp": address, "HostPort": host})]
    if hosts and len(hosts) != len(targets):
        raise _wrong(word, f"the ranges have {len(hosts)} and {len(targets)} ports")
    return [(f"{port}/{protocol}", {"HostIp": address, "HostPort": str(hosts[at]) if hosts else ""})
            for at, port in enumerate(targets)]


def _protocol(text: str, word: str) -> tuple[str, str]:
    ports, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise _wrong(word, f"{protocol!r} is none of tcp, udp, sctp")
    return ports, protocol


def _range(text: str, word: str) -> list[int]:
    low, dash, high = text.partition("-")
    ends = (low, high) if dash else (low, low)
    if not all(end.isascii() and end.isdigit() and int(end) < 1 << 16 for end in ends):
        raise _wrong(word, f"{text!r} is no port from 1 to 65535 and no range of them")
    first, last = int(ends[0]), int(ends[1])
    if last < first:
        raise _wrong(word, f"the range {text!r} ends before it begins")
    return list(range(first, last + 1))


def _wrong(word: str, why: str) -> Usage:
    return Usage(f"the port {word!r} makes no sense: {why}. Write [ADDRESS:][HOST:]CONTAINER[/tcp|udp|sctp].", 125)
