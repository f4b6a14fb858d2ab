"""resolv.conf: what the host's says, and what a container's must say. Pure text."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

EMBEDDED = "127.0.0.11"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """A resolver configuration."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """As a file."""
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class ResolverPlan:
    """What a container's /etc/resolv.conf says, and whether :meth:`NetworkManager.serve_names` must serve it."""

    text: str
    serve: bool


def parse(text: str) -> ResolvConf:
    """The meaning of a resolv.conf; what is not understood is left out, as libc does."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])      # the last one wins
        elif words[0] == "options":
            options += tuple(words[1:])
    return ResolvConf(tuple(servers), search, options)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(server: str) -> bool:
    """Reachable only from the host itself."""
    return ipaddress.ip_address(server.partition("%")[0]).is_loopback or "%" in server


def plan(host: ResolvConf, *, embedded: bool, isolated: bool, servers: Sequence[str] = (), search: Sequence[str] = (),
         options: Sequence[str] = ()) -> ResolverPlan:
    """A container's configuration. *servers*, *search* (``("." ,)``: none) and *options* are the user's and go before
    the host's. *embedded*: it is on a network with names. *isolated*: it has a network namespace of its own, in which
    servers on the host's loopback cannot be reached; where only such exist, our own server stands in for them."""
    wanted_search = tuple(search) if search else host.search
    if wanted_search == (".",):
        wanted_search = ()
    wanted_options = tuple(options) or host.options
    reachable = tuple(servers) or tuple(server for server in host.servers if not (isolated and is_loopback(server)))
    if not embedded and (reachable or not isolated):
        return ResolverPlan(ResolvConf(reachable, wanted_search, wanted_options).text(), serve=False)
    if not options:      # the host's ndots are for the host's search domains
        wanted_options = tuple(option for option in wanted_options if not option.startswith("ndots:"))
    if not any(option.startswith("ndots:") for option in wanted_options):
        wanted_options += ("ndots:0",)     # a bare name is asked for as it is: that is what names here look like
    return ResolverPlan(ResolvConf((EMBEDDED,), wanted_search, wanted_options).text(), serve=True)
