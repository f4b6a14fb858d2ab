"""Compose's small languages: sizes, durations, port mappings, mounts, command lines. Pure.

Every function takes the text of one value and raises ValueError with a sentence that names it; whoever knows the place
in the file adds that.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re

from backend.compose.model import Mount, PortMapping

_SIZE = re.compile(r"(?P<number>\d{1,30}(\.\d{1,30})?)\s*(?P<unit>[kmgtp]?)(i?b)?\Z", re.I)
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_PART = re.compile(r"(\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(ns|us|µs|μs|ms|s|m|h|d|w)")
_NANOSECONDS = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
    "d": 86400 * 10**9, "w": 7 * 86400 * 10**9,
}
_PORT = re.compile(r"(\d+)(?:-(\d+))?\Z")
PROTOCOLS = ("tcp", "udp", "sctp")
_PROPAGATION = ("rprivate", "private", "rshared", "shared", "rslave", "slave")
_CONSISTENCY = ("consistent", "cached", "delegated")   # Docker Desktop's; without meaning on Linux


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1.5gb`, `100`. Units are powers of 1024. -1 (no limit) is passed through."""
    if text == "-1":
        return -1
    match = _SIZE.match(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size such as 64m, 1.5g or 1048576")
    return int(float(match["number"]) * 1024 ** _UNITS[match["unit"].lower()])


def parse_duration(text: str) -> int:
    """Nanoseconds of `1m30s`, `90s`, `1.5h`."""
    stripped = text.strip()
    if stripped == "0":
        return 0
    total, at = 0.0, 0
    for match in _PART.finditer(stripped):
        if match.start() != at:
            break
        total += float(match[1]) * _NANOSECONDS[match[2]]
        at = match.end()
    if not stripped or at != len(stripped):
        raise ValueError(f"{text!r} is not a duration such as 90s or 1m30s")
    return round(total)


def parse_command(text: str) -> tuple[str, ...]:
    """A command line split into words at blanks, by quotes and backslashes; nothing is expanded.

    Unlike a shell's, a backslash in double quotes takes itself away before every character: docker compose's rule, by
    which today's files were written.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    chars = iter(text)
    for char in chars:
        if char == "\\" and quote != "'":
            word = (word or "") + next(chars, "\\")
        elif quote:
            quote, word = ("", word) if char == quote else (quote, (word or "") + char)
        elif char in "'\"":
            quote, word = char, word or ""
        elif char in " \t\r\n":
            words, word = ([*words, word], None) if word is not None else (words, None)
        else:
            word = (word or "") + char
    if quote:
        raise ValueError(f"{text!r} cannot be split into words: the quote {quote} is never closed")
    return tuple(words if word is None else [*words, word])


def _port_range(text: str, whole: str) -> range:
    match = _PORT.match(text)
    if not match:
        raise ValueError(f"{whole!r} is not a port mapping: {text!r} is no port or range of ports")
    first, last = int(match[1]), int(match[2] or match[1])
    if not (first <= last <= 65535) or (last > 0 and first == 0):
        raise ValueError(f"{whole!r} is not a port mapping: {text!r} is outside 1-65535 or runs backwards")
    return range(first, last + 1)


def _split_address(text: str, whole: str) -> tuple[str, str, str]:
    """`[ip:][published:]target` as (ip, published, target)."""
    if text.startswith("["):
        ip, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"{whole!r} is not a port mapping: write [address]:published:target")
        published, _, target = rest[1:].rpartition(":")
    else:
        left, _, target = text.rpartition(":")
        ip, _, published = left.rpartition(":")
    if ip:
        try:
            ipaddress.ip_address(ip)
        except ValueError:
            raise ValueError(f"{whole!r} is not a port mapping: {ip!r} is no IP address") from None
    return ip, published, target


def parse_ports(text: str) -> tuple[PortMapping, ...]:
    """The mappings of the short syntax: `80`, `8080:80`, `127.0.0.1:9000-9001:90-91/udp`, `[::1]:80:80`."""
    address, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise ValueError(f"{text!r} is not a port mapping: the protocol is {', '.join(PROTOCOLS)}, not {protocol!r}")
    ip, published, target = _split_address(address, text)
    targets = _port_range(target, text)
    if targets[0] == 0:
        raise ValueError(f"{text!r} is not a port mapping: a container has no port 0")
    if not published:
        return tuple(PortMapping(t, "", ip, protocol) for t in targets)
    sources = _port_range(published, text)
    if len(targets) == 1:
        # One port of the container, any free one of a range of the host: the engine chooses.
        return (PortMapping(targets[0], published, ip, protocol),)
    if len(sources) != len(targets):
        counts = f"{len(sources)} published ports for {len(targets)} of the container"
        raise ValueError(f"{text!r} is not a port mapping: {counts}")
    return tuple(PortMapping(t, str(s), ip, protocol) for s, t in zip(sources, targets, strict=True))


def parse_expose(text: str) -> tuple[str, ...]:
    """`80`, `90/udp`, `100-102` as `port/protocol`."""
    ports, _, protocol = text.partition("/")
    if (protocol or "tcp") not in PROTOCOLS:
        raise ValueError(f"{text!r}: the protocol is {', '.join(PROTOCOLS)}, not {protocol!r}")
    return tuple(f"{p}/{protocol or 'tcp'}" for p in _port_range(ports, text))


def is_path(source: str) -> bool:
    """Whether a mount's source names a path of the host; anything else names a volume."""
    return source.startswith((".", "/", "~"))


def parse_volume(text: str) -> Mount:
    """The short syntax `[source:]target[:options]`. A source path is left as it is written, relative or with `~`."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"{text!r} is not a mount: write [source:]target[:options]")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    if not target.startswith("/"):
        raise ValueError(f"{text!r} is not a mount: the path in the container, {target!r}, must be absolute")
    kind = "bind" if source and is_path(source) else "volume"
    options = parts[2].split(",") if len(parts) == 3 else []
    return Mount(
        kind, source, posixpath.normpath(target),
        read_only=_read_only(options, text),
        create_host_path=kind == "bind",
        propagation=next((o for o in options if o in _PROPAGATION), ""),
        selinux=next((o for o in options if o in ("z", "Z")), ""),
        nocopy="nocopy" in options,
        stated=True,
    )


def _read_only(options: list[str], text: str) -> bool:
    known = ("ro", "rw", "z", "Z", "nocopy", *_PROPAGATION, *_CONSISTENCY)
    for option in options:
        if option not in known:
            raise ValueError(f"{text!r} is not a mount: {option!r} is no option of a mount ({', '.join(known)})")
    return "ro" in options


def parse_device(text: str) -> tuple[str, str, str]:
    """`source[:target[:permissions]]` as (source, target, permissions)."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"{text!r} is not a device: write /dev/source[:/dev/target[:rwm]]")
    source = parts[0]
    target = parts[1] if len(parts) > 1 else source
    permissions = parts[2] if len(parts) > 2 else "rwm"
    if not set(permissions) <= set("rwm"):
        raise ValueError(f"{text!r} is not a device: permissions are of r, w and m")
    return source, target, permissions


def parse_extra_host(text: str) -> tuple[str, str]:
    """`host:address` or `host=address`, the address possibly in brackets."""
    host, separator, address = text.partition("=") if "=" in text else text.partition(":")
    address = address.strip().removeprefix("[").removesuffix("]")
    if not host or not separator or not address:
        raise ValueError(f"{text!r} is not an extra host: write name=address")
    if address != "host-gateway":
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(f"{text!r} is not an extra host: {address!r} is no IP address") from None
    return host.strip(), address
