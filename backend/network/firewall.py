"""libnftables by ctypes: each change is one transaction of the kernel, in 0.1 ms and without a process.

The library's handle belongs to the network namespace in which it was opened, and to one thread at a time (the helper's
loop). Only the table named after the helper's instance is ever touched.
"""

from __future__ import annotations

import ctypes
import functools
import json
import logging
import os
import socket
from collections.abc import Collection, Iterable

from backend.errors import ServerError, Unavailable
from backend.network import legacy
from backend.network.elements import MOST, Elements
from backend.network.ruleset import BridgeRules, Forwarding, Ruleset, name_redirect, published_in

log = logging.getLogger(__name__)

LIBRARY = "libnftables.so.1"
MISSING = (f"networks need nftables, and {LIBRARY} cannot be loaded ({{reason}}). Install it (Debian and Ubuntu: "
           "libnftables1, Fedora and Arch: nftables) and start the helper again. Containers with --network none or "
           "host still work.")
OBSTACLE = (
    "another firewall's table ({0}) drops forwarded packets that it has no rule for, and Slipway does not change it: "
    "containers may not reach other machines, nor be reached by them, before it lets {device} and other bridges pass "
    "(ufw: ufw route allow in on {device}; ufw route allow out on {device}. firewalld: firewall-cmd --zone=trusted "
    "--add-interface={device}. Docker beside it: iptables -I DOCKER-USER -i {device} -j ACCEPT; iptables -I "
    "DOCKER-USER -o {device} -j ACCEPT. Rules of one's own: iptables -I FORWARD -i {device} -j ACCEPT; iptables -I "
    "FORWARD -o {device} -j ACCEPT)")
_OUTPUT_JSON = 1 << 4
_Key = tuple[object, ...]


@functools.cache
def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    for name, result, arguments in (
        ("nft_ctx_new", ctypes.c_void_p, (ctypes.c_uint32,)),
        ("nft_ctx_free", None, (ctypes.c_void_p,)),
        ("nft_ctx_output_set_flags", None, (ctypes.c_void_p, ctypes.c_uint)),
        ("nft_ctx_buffer_output", ctypes.c_int, (ctypes.c_void_p,)),
        ("nft_ctx_buffer_error", ctypes.c_int, (ctypes.c_void_p,)),
        ("nft_ctx_get_output_buffer", ctypes.c_char_p, (ctypes.c_void_p,)),
        ("nft_ctx_get_error_buffer", ctypes.c_char_p, (ctypes.c_void_p,)),
        ("nft_run_cmd_from_buffer", ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Nftables:
    """The library. ServerError with nft's own words when a transaction is refused; nothing has changed then."""

    def __init__(self) -> None:
        try:
            self._library = _load()
        except OSError as problem:
            raise Unavailable(MISSING.format(reason=problem)) from None
        self._handle: int | None = self._library.nft_ctx_new(0)
        if not self._handle:
            raise Unavailable(MISSING.format(reason="nft_ctx_new failed"))
        self._library.nft_ctx_buffer_output(self._handle)
        self._library.nft_ctx_buffer_error(self._handle)

    def run(self, commands: str, *, json_output: bool = False) -> str:
        """Run *commands* as one transaction; what it printed."""
        if self._handle is None:
            raise ServerError("the firewall has been closed")
        self._library.nft_ctx_output_set_flags(self._handle, _OUTPUT_JSON if json_output else 0)
        status = self._library.nft_run_cmd_from_buffer(self._handle, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._handle) or b""
        words = (self._library.nft_ctx_get_error_buffer(self._handle) or b"").decode("utf-8", "replace").strip()
        if status != 0:
            raise ServerError(f"the firewall refused a change: {words or 'no reason given'}")
        return output.decode("utf-8", "replace")

    def close(self) -> None:
        """Free the library's handle."""
        if self._handle is not None:
            self._library.nft_ctx_free(self._handle)
            self._handle = None


def _sockopt(made: socket.socket, level: int, option: int, buffer: bytearray) -> None:
    """getsockopt with something in the buffer, which Python's own cannot; the answer is in the buffer."""
    length = ctypes.c_uint32(len(buffer))
    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if ctypes.CDLL(None, use_errno=True).getsockopt(made.fileno(), level, option, view, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def redirect_names(udp: int, tcp: int) -> None:
    """For the calling thread's network namespace, a container's: see :func:`ruleset.name_redirect`. 0.3 ms."""
    nft = Nftables()
    try:
        nft.run(name_redirect(udp, tcp))
    finally:
        nft.close()


class Firewall:
    """Our table. It remembers what it published so that a repeated release harms nothing."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._rules = Ruleset(table)
        self._nft = Nftables()
        self._elements = Elements(table)
        self._bridges: dict[str, BridgeRules] = {}
        self._ports: dict[_Key, Forwarding] = {}
        self._claimed: set[_Key] = set()

    def open(self, bridges: Iterable[BridgeRules]) -> None:
        """Write the table for *bridges*. Ports that an earlier life of this instance published stay until
        :meth:`sweep`, so that a restart of the helper interrupts nobody."""
        self._bridges = {rules.bridge: rules for rules in bridges}
        self._ports = {_key(port): port for port in self._read()}
        self._nft.run(self._rules.rebuild(self._bridges.values(), self._ports.values()))

    def _read(self) -> list[Forwarding]:
        try:
            return published_in(json.loads(self._nft.run(self._rules.listing(), json_output=True)))
        except ServerError:      # there is no such table: the usual case
            return []

    def _change(self, commands: str) -> None:
        try:
            self._nft.run(commands)
        except ServerError:
            if not self.heal():
                raise
            self._nft.run(commands)

    def heal(self) -> bool:
        """Write the table anew if somebody deleted it (``nft flush ruleset``, a restart of nftables.service); whether
        that was so."""
        try:
            self._nft.run(self._rules.listing())
        except ServerError:
            log.warning("the firewall table was deleted by another program; it has been written anew")
            self._nft.run(self._rules.rebuild(self._bridges.values(), self._ports.values()))
            return True
        return False

    def obstacles(self, device: str) -> list[str]:
        """What to do about other tables that drop what is forwarded unless a rule of theirs lets it pass: an accept of
        ours does not overrule them, and they are not ours to change. *device*: a bridge, for the examples."""
        listing = json.loads(self._nft.run("list chains", json_output=True))
        chains = [item["chain"] for item in listing.get("nftables", ()) if "chain" in item]
        found = [f"{chain['family']} {chain['table']}, chain {chain['name']}" for chain in chains
                 if chain.get("hook") == "forward" and chain["table"] != self._table
                 and (chain.get("policy") == "drop" or chain["table"] == "firewalld")]
        found += [f"{family} filter of iptables-legacy, chain FORWARD" for family in legacy.dropping(_sockopt)]
        return [OBSTACLE.format(one, device=device) for one in found]

    def add_bridge(self, rules: BridgeRules) -> None:
        """Start to serve a bridge."""
        self._change(self._rules.add_bridge(rules))
        self._bridges[rules.bridge] = rules

    def remove_bridge(self, bridge: str) -> None:
        """Stop to serve a bridge."""
        rules = self._bridges.get(bridge)
        if rules is not None:
            self._change(self._rules.remove_bridge(rules))
            del self._bridges[bridge]

    def publish(self, ports: Iterable[Forwarding]) -> None:
        """Forward *ports*, in one transaction. What leads elsewhere from an earlier life is replaced."""
        wanted = {_key(port): port for port in ports}
        new = {key: port for key, port in wanted.items() if self._ports.get(key) != port}
        stale = [self._ports[key] for key in new if key in self._ports]
        if new:
            self._exchange(stale, new.values())
        self._ports.update(new)
        self._claimed.update(wanted)

    def withdraw(self, ports: Iterable[Forwarding]) -> None:
        """Forward *ports* no longer."""
        gone = {_key(port): port for port in ports if self._ports.get(_key(port)) == port}
        if gone:
            self._exchange(gone.values(), ())
        for key in gone:
            del self._ports[key]
        self._claimed.difference_update(gone)

    def _exchange(self, gone: Collection[Forwarding], new: Collection[Forwarding]) -> None:
        if len(gone) + len(new) <= MOST:
            try:
                self._elements.change(gone, new)
                return
            except OSError as problem:
                if not self.heal():
                    raise ServerError(f"the firewall refused a change: {problem.strerror}") from problem
        self._change(self._rules.remove_ports(gone) + self._rules.add_ports(new))

    def sweep(self) -> int:
        """Withdraw what an earlier life published and nobody claimed since; how many."""
        stale = [port for key, port in self._ports.items() if key not in self._claimed]
        self.withdraw(stale)
        return len(stale)

    def close(self, *, keep: bool) -> None:
        """Let go; without *keep* the table goes."""
        if not keep:
            self._nft.run(self._rules.delete())
        self._elements.close()
        self._nft.close()


def _key(port: Forwarding) -> _Key:
    """What two published ports cannot share."""
    if not port.host_port:
        return port.target, port.protocol, port.container_port
    return ":" in port.target, port.host_ip, port.protocol, port.host_port
