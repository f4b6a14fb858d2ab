"""Published ports: the three places where the API speaks of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backend.errors import InvalidArgument
from backend.network.ports import parse_wish
from backend.network.records import PortWish, PublishedPort
from backend.spec import api


def normalise(port: str) -> str:
    """A key of ExposedPorts or PortBindings with its protocol: "80" is "80/tcp". Raises :class:`InvalidArgument`."""
    wish = parse_wish(port, "", "")
    return f"{wish.container_port}/{wish.protocol}"


def expand(port: str) -> list[str]:
    """The ports of a range such as "8000-8003/tcp", each with its protocol."""
    numbers, slash, protocol = port.partition("/")
    first, dash, last = numbers.partition("-")
    if not dash:
        return [normalise(port)]
    start, end = normalise(first + slash + protocol), normalise(last + slash + protocol)
    low, high = int(start.partition("/")[0]), int(end.partition("/")[0])
    if low > high:
        raise InvalidArgument(f"invalid range specified for port: {port}")
    return [f"{number}/{start.partition('/')[2]}" for number in range(low, high + 1)]


def exposed(config: api.ContainerConfig, host: api.HostConfig) -> dict[str, api.Empty]:
    """The exposed ports of a container: its image's and its own, and each that is bound."""
    made = {one: api.Empty() for port in config.exposed_ports for one in expand(port)}
    made.update({normalise(port): api.Empty() for port in host.port_bindings})
    return made


def wishes(config: api.ContainerConfig, host: api.HostConfig) -> list[PortWish]:
    """What a start has to publish. Raises :class:`InvalidArgument`."""
    made: list[PortWish] = []
    for port, bindings in host.port_bindings.items():
        made += [parse_wish(port, one.host_ip, one.host_port) for one in bindings or [api.PortBinding()]]
    if host.publish_all_ports:
        bound = {normalise(port) for port in host.port_bindings}
        made += [parse_wish(port, "", "") for port in config.exposed_ports if port not in bound]
    return made


def port_map(exposed_ports: Iterable[str],
             published: Sequence[PublishedPort]) -> dict[str, list[api.PortBinding] | None]:
    """NetworkSettings.Ports: null for a port that is only exposed."""
    made: dict[str, list[api.PortBinding] | None] = dict.fromkeys(exposed_ports)
    for one in published:
        key = f"{one.container_port}/{one.protocol}"
        bindings = made.get(key) or []
        bindings.append(api.PortBinding(host_ip=one.host_ip, host_port=str(one.host_port or "")))
        made[key] = bindings
    return made


def port_list(exposed_ports: Mapping[str, api.Empty], published: Sequence[PublishedPort]) -> list[api.Port]:
    """The ports of a container in a list."""
    made = [api.Port(ip=one.host_ip, private_port=one.container_port, public_port=one.host_port, type=one.protocol)
            for one in published]
    bound = {f"{one.container_port}/{one.protocol}" for one in published}
    for port in exposed_ports:
        if port not in bound:
            number, _, protocol = port.partition("/")
            made.append(api.Port(private_port=int(number), type=protocol or "tcp"))
    return made
