"""The values that the network room takes and gives: all frozen, all plain, so that they can be kept as JSON.

Addresses are written as text without a prefix length ("172.17.0.2"), subnets with one ("172.17.0.0/16"), times as
nanoseconds since the epoch. An empty string or tuple means "not given".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

LANS = ("macvlan", "ipvlan")

OPTION_BRIDGE = "com.docker.network.bridge.name"
OPTION_DEFAULT = "com.docker.network.bridge.default_bridge"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_BINDING = "com.docker.network.bridge.host_binding_ipv4"
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_PREFIX = "com.docker.network.container_iface_prefix"
OPTION_MODE4 = "com.docker.network.bridge.gateway_mode_ipv4"
OPTION_MODE6 = "com.docker.network.bridge.gateway_mode_ipv6"
OPTION_HOST4 = "com.docker.network.host_ipv4"
OPTION_HOST6 = "com.docker.network.host_ipv6"
OPTION_INHIBIT4 = "com.docker.network.bridge.inhibit_ipv4"
OPTION_TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Where subnets for new networks come from: *base* is cut into pieces of prefix length *size*."""

    base: str
    size: int


# Docker's own defaults, so that a machine that knows Docker sees the addresses it expects.
DEFAULT_POOLS: tuple[AddressPool, ...] = (
    *(AddressPool(f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    AddressPool("192.168.0.0/16", 20),
)


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """One subnet of a network; ``auxiliary`` maps a label to an address that is never given to a container."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What a client asks for when it creates a network."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = field(default_factory=dict)
    ipam: tuple[IpamConfig, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    config_only: bool = False
    config_from: str = ""


@dataclass(frozen=True, slots=True)
class Network:
    """A network as it is. ``ipam`` holds the subnets in use; ``user_subnets`` tells whether the user chose them
    (Docker lets a static address be asked for only there). ``bridge`` is the host's device name, "" without one.
    ``config_only``: no network, but a set of values that others are made from (their ``config_from``)."""

    id: str
    name: str
    driver: str
    created: int
    scope: str = "local"
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = field(default_factory=dict)
    ipam: tuple[IpamConfig, ...] = ()
    user_subnets: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    bridge: str = ""
    config_from: str = ""
    pools: tuple[str, ...] = ()      # an address plug-in's names for the subnets

    @property
    def is_default(self) -> bool:
        """One of the three networks that always exist and cannot be removed."""
        return self.name in ("bridge", "host", "none")

    @property
    def has_names(self) -> bool:
        """Containers on it find each other by name (not on Docker's default bridge)."""
        return self.driver not in ("host", "null") and self.options.get(OPTION_DEFAULT) != "true"


@dataclass(frozen=True, slots=True)
class EndpointWish:
    """How a container wants to be on a network. ``container_name`` is without the leading slash."""

    container_name: str = ""
    hostname: str = ""
    aliases: tuple[str, ...] = ()
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    gw_priority: int = 0
    driver_opts: dict[str, str] = field(default_factory=dict)
    link_local: tuple[str, ...] = ()            # more addresses, from 169.254.0.0/16 and fe80::/64
    links: tuple[tuple[str, str], ...] = ()     # (other container's name, alias by which only this container knows it)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on a network. ``dns_names`` are the names by which others on the network find it;
    ``interface`` is the device inside ("" on host and none), ``host_interface`` its peer on the bridge."""

    id: str
    network_id: str
    network_name: str
    container_id: str
    container_name: str = ""
    interface: str = ""
    host_interface: str = ""
    mac: str = ""
    ipv4: str = ""
    ipv4_prefix: int = 0
    gateway: str = ""
    ipv6: str = ""
    ipv6_prefix: int = 0
    gateway6: str = ""
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    gw_priority: int = 0
    driver_opts: dict[str, str] = field(default_factory=dict)
    link_local: tuple[str, ...] = ()
    source: str = ""          # what a plug-in called the device before it was the container's
    direct: bool = False      # it leads out by the device alone, without a gateway (ipvlan's l3 modes)


@dataclass(frozen=True, slots=True)
class PortWish:
    """One port to publish. ``host_port`` 0: any free one. ``host_port_end`` > 0: the first free of a range.
    ``host_ip`` "": all addresses of the host, of both families."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """One bound host port; ``target`` is the container's address that it leads to. ``host_port`` 0: none is bound, the
    container's own port may be reached from outside (gateway mode ``routed``)."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int
    target: str


def to_json(record: object) -> bytes:
    """A record of this room as JSON."""
    return msgspec.json.encode(record)


def from_json(kind: type[Record], data: bytes) -> Record:
    """The record of *kind* that :func:`to_json` wrote; ``msgspec.ValidationError`` where the JSON does not fit."""
    return msgspec.json.decode(data, type=kind)
