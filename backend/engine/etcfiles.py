"""The three files of /etc that the engine writes for each container: resolv.conf, hosts, hostname. Pure text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from backend.errors import InvalidArgument

DNS_SERVER = "127.0.0.11"
#: Where nothing but the host's own loopback resolver is known: public resolvers, as Docker falls back to.
FALLBACK = ("8.8.8.8", "8.8.4.4")
_HOSTS = (("127.0.0.1", "localhost"), ("::1", "localhost ip6-localhost ip6-loopback"), ("fe00::", "ip6-localnet"),
          ("ff00::", "ip6-mcastprefix"), ("ff02::1", "ip6-allnodes"), ("ff02::2", "ip6-allrouters"))
_LOCAL = re.compile(r"127\.|::1$")


@dataclass(frozen=True, slots=True)
class Resolver:
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolver(text: str) -> Resolver:
    """The resolv.conf *text* (resolv.conf(5)); the last search line counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), search, tuple(options))


def outside(host: Resolver) -> tuple[str, ...]:
    """The host's name servers that a container can reach: not those on the host's own loopback."""
    reachable = tuple(one for one in host.servers if not _LOCAL.match(one) and "%" not in one)
    return reachable or FALLBACK


def resolv_conf(host: Resolver, *, dns: Sequence[str], search: Sequence[str], options: Sequence[str],
                names: bool) -> str:
    """A container's resolv.conf. *names*: it is on a network with names, so our server answers first."""
    servers = (DNS_SERVER,) if names else tuple(dns) or outside(host)
    chosen = tuple(search) or host.search
    if tuple(search) == (".",):
        chosen = ()
    wanted = list(options) or [one for one in host.options if not one.startswith("ndots")]
    if names and not any(one.startswith("ndots:") for one in wanted):
        wanted.append("ndots:0")
    lines = [f"nameserver {one}" for one in servers]
    if chosen:
        lines.append("search " + " ".join(chosen))
    if wanted:
        lines.append("options " + " ".join(wanted))
    return "\n".join(lines) + "\n"


def extra_hosts(entries: Sequence[str], gateway: str) -> list[tuple[str, str]]:
    """`--add-host` entries (NAME:ADDRESS or NAME=ADDRESS) as (address, name); `host-gateway` is the host's address."""
    made = []
    for entry in entries:
        name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
        address = address.strip("[]")
        if not name or not separator or not address or any(one.isspace() for one in entry):
            raise InvalidArgument(f"bad format for add-host: {entry!r}")
        if address == "host-gateway":
            if not gateway:
                raise InvalidArgument('unable to derive the IP value for host-gateway')
            address = gateway
        made.append((address, name))
    return made


def hosts(own: Sequence[tuple[str, str]], extra: Sequence[tuple[str, str]], base: str = "") -> str:
    """A container's hosts file. *own*: its addresses and names; *base*: the host's file, for the host's network."""
    lines = [base.rstrip("\n")] if base else [f"{address}\t{names}" for address, names in _HOSTS]
    lines += [f"{address}\t{names}" for address, names in (*extra, *own)]
    return "\n".join(lines) + "\n"


def own_names(hostname: str, domainname: str) -> str:
    """What a container's address is called in its hosts file."""
    if domainname:
        return f"{hostname}.{domainname} {hostname}"
    short = hostname.partition(".")[0]
    return f"{hostname} {short}" if short != hostname else hostname
