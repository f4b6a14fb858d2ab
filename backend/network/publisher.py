"""Published ports of the helper: the holder, the kernel's rule and the relay of each, made and ended together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from backend.errors import InvalidArgument, ServerError
from backend.network.conntrack import Conntrack
from backend.network.firewall import Firewall
from backend.network.forwarder import Forwarder, forward
from backend.network.options import ROUTED, BridgeOptions
from backend.network.ports import Held, PortAllocator
from backend.network.records import Endpoint, PortWish, PublishedPort
from backend.network.ruleset import Forwarding


@dataclass(frozen=True, slots=True)
class Publication:
    """One published port with all that serves it; ``endpoint`` is the ID of the endpoint that it leads to. Without
    ``held`` no host port is taken: the container's own may be reached (gateway mode ``routed``)."""

    held: Held | None
    wish: PortWish
    rule: Forwarding | None
    relay: Forwarder | None
    endpoint: str
    target: str

    @property
    def record(self) -> PublishedPort:
        """As the engine keeps it."""
        if self.held is None:
            anywhere = "::" if ":" in self.target else "0.0.0.0"
            return PublishedPort(self.wish.container_port, self.wish.protocol, self.wish.host_ip or anywhere, 0,
                                 self.target)
        held = self.held
        return PublishedPort(self.wish.container_port, held.protocol, held.host_ip, held.host_port, self.target)


class Publisher:
    """Publishes ports. Calls take about 0.5 ms and 0.1 ms more a port. *local* gives the host's own addresses."""

    def __init__(self, firewall: Firewall, ephemeral: tuple[int, int], local: Callable[[], Collection[str]]) -> None:
        self._firewall = firewall
        self._allocator = PortAllocator(ephemeral)
        self._flows = Conntrack()
        self._local = local

    def publish(self, endpoint: Endpoint, wishes: Sequence[PortWish], options: BridgeOptions) -> list[Publication]:
        """Publish all of *wishes* or none. ServerError in dockerd's words if a port is taken."""
        done: list[Publication] = []
        try:
            for wish in wishes:
                opened, addresses = _split(wish, endpoint, options)
                done += [_open(wish, endpoint, target) for target in opened]
                if addresses:
                    held = self._allocator.hold(wish, addresses, endpoint.ipv4 or endpoint.ipv6,
                                                endpoint.container_name)
                    done += [_serve(one, wish, endpoint) for one in held]
            self._firewall.publish(_rules(done))
            self._forget_old_flows(done)
        except BaseException as problem:
            self.end(done)
            if isinstance(problem, ServerError):
                raise ServerError("driver failed programming external connectivity on endpoint "
                                  f"{endpoint.container_name} ({endpoint.id}): {problem.message}") from problem
            raise
        return done

    def end(self, publications: Iterable[Publication], *, withdraw: bool = True) -> None:
        """Take ports back. Without *withdraw* the kernel goes on to serve them (the helper restarts)."""
        ended = list(publications)
        if withdraw:
            self._firewall.withdraw(_rules(ended))
        for publication in ended:
            if publication.relay is not None:
                publication.relay.close()
        self._allocator.release([publication.held for publication in ended if publication.held is not None])
        if withdraw:
            for target in {rule.target for rule in _rules(ended) if rule.protocol == "udp"}:
                self._flows.forget_container(target)

    def _forget_old_flows(self, publications: Iterable[Publication]) -> None:
        rules = [rule for rule in _rules(publications) if rule.protocol == "udp" and rule.host_port]
        local = self._local() if rules else ()
        for rule in rules:
            self._flows.forget_local(rule.host_port, local, 6 if ":" in rule.target else 4)

    def close(self) -> None:
        """Close what it holds besides ports."""
        self._flows.close()

    def count(self) -> int:
        """How many host ports are held."""
        return self._allocator.count()


def _rules(publications: Iterable[Publication]) -> list[Forwarding]:
    return [publication.rule for publication in publications if publication.rule is not None]


def _split(wish: PortWish, endpoint: Endpoint, options: BridgeOptions) -> tuple[list[str], list[str]]:
    """(addresses of the container whose own port is opened, host addresses to publish on), by the gateway modes.
    InvalidArgument where the container has no address for the host's that was asked for."""
    if not wish.host_ip and options.binding in ("", "0.0.0.0"):
        asked = ["0.0.0.0", "::"]
    else:
        asked = [wish.host_ip or options.binding]
    if not endpoint.ipv4 and not wish.host_ip:
        asked = [address for address in asked if ":" in address]
    if not endpoint.ipv4 and any(":" not in address for address in asked):
        raise InvalidArgument(f"port {wish.container_port}/{wish.protocol} cannot be published on {wish.host_ip}: the "
                              "container has no IPv4 address")
    opened = [target for target, version in ((endpoint.ipv4, 4), (endpoint.ipv6, 6))
              if target and options.mode(version) == ROUTED
              and any((":" in address) == (version == 6) for address in asked)]
    return opened, [address for address in asked if options.mode(6 if ":" in address else 4) != ROUTED]


def _open(wish: PortWish, endpoint: Endpoint, target: str) -> Publication:
    rule = Forwarding("", wish.protocol, 0, target, wish.container_port)
    return Publication(None, wish, rule, None, endpoint.id, target)


def _serve(held: Held, wish: PortWish, endpoint: Endpoint) -> Publication:
    """How a held port is served: by the kernel within one family, by a relay from IPv6 to IPv4 and for ::1."""
    target = endpoint.ipv6 if held.is_v6 else endpoint.ipv4
    rule = None
    if target and held.host_ip != "::1":
        everywhere = held.host_ip in ("0.0.0.0", "::")
        rule = Forwarding("" if everywhere else held.host_ip, held.protocol, held.host_port, target,
                          wish.container_port)
    relay = None
    if held.is_v6 and held.protocol != "sctp":
        relay = forward(held.protocol, held.socket, endpoint.ipv4 or endpoint.ipv6, wish.container_port)
    return Publication(held, wish, rule, relay, endpoint.id, endpoint.ipv4 or endpoint.ipv6)
