"""What must hold before a network is made, and which subnets it gets: pure but for the clock."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from backend.errors import Conflict, Forbidden, InvalidArgument, Unavailable
from backend.network.ipam import Subnet, choose_subnet, complete, parse_subnet, refuse_overlap
from backend.network.options import ISOLATED, bridge_options, check_bridge, lan_options
from backend.network.records import (
    LANS,
    OPTION_BINDING,
    OPTION_BRIDGE,
    OPTION_DEFAULT,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MTU,
    AddressPool,
    IpamConfig,
    Network,
    NetworkSpec,
)

NO_SWARM = ('This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again.")


def check(spec: NetworkSpec, taken: Collection[str]) -> None:
    """Refuse what Docker refuses, in its words; *taken* are the names in use. A driver that is none of ours is left to
    the plug-ins."""
    if not spec.name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if spec.name in ("bridge", "host", "none", "default"):
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
    if spec.name in taken:
        raise Conflict(f"network with name {spec.name} already exists")
    if spec.config_only:
        return
    if spec.driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver == "overlay":
        raise Unavailable(NO_SWARM)
    if not (spec.enable_ipv4 or spec.enable_ipv6):
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if spec.driver == "bridge":
        check_bridge(spec)
    elif spec.driver in LANS:
        lan_options(spec.driver, spec.options)


def configured(spec: NetworkSpec, source: Network) -> NetworkSpec:
    """*spec* with what the configuration-only network *source* says (``--config-from``)."""
    if not source.config_only:
        raise InvalidArgument(f"{source.name} is not a configuration network")
    if spec.options or spec.ipam or spec.ipam_options:
        raise Forbidden("user specified configurations are not supported if the network depends on a configuration "
                        "network")
    return replace(spec, enable_ipv4=source.enable_ipv4, enable_ipv6=source.enable_ipv6,
                   ipam_driver=source.ipam_driver, ipam_options=source.ipam_options, ipam=source.ipam,
                   options=source.options, labels={**source.labels, **spec.labels})


def config_network(identity: str, spec: NetworkSpec) -> Network:
    """The record of a configuration-only network: its values as they were given, checked as far as they go."""
    if spec.internal or spec.attachable:
        raise Forbidden("configuration network can only contain network specific fields. Network operator fields like "
                        "[ ingress | internal | attachable | scope ] are not supported.")
    for config in spec.ipam:
        if config.subnet:
            complete(config, parse_subnet(config.subnet))
    return Network(identity, spec.name, "null", time.time_ns(), enable_ipv4=spec.enable_ipv4,
                   enable_ipv6=spec.enable_ipv6, config_only=True, ipam_driver=spec.ipam_driver or "default",
                   ipam_options=spec.ipam_options, ipam=spec.ipam, user_subnets=bool(spec.ipam), options=spec.options,
                   labels=spec.labels)


def planned(identity: str, spec: NetworkSpec, ipam: tuple[IpamConfig, ...], pools: tuple[str, ...],
            device: str) -> Network:
    """The record of a network with the subnets *ipam* (*pools*: an address plug-in's names for them); *device*: its
    bridge, if it has one."""
    return Network(identity, spec.name, spec.driver, time.time_ns(), enable_ipv4=spec.enable_ipv4,
                   enable_ipv6=spec.enable_ipv6, internal=spec.internal, attachable=spec.attachable,
                   ipam_driver=spec.ipam_driver or "default", ipam_options=spec.ipam_options, ipam=ipam,
                   user_subnets=any(config.subnet for config in spec.ipam), options=spec.options, labels=spec.labels,
                   bridge=device, config_from=spec.config_from, pools=pools)


def wished_subnets(spec: NetworkSpec) -> dict[int, list[IpamConfig]]:
    """The subnets that a client describes, by IP version; several of one only where the driver can."""
    wishes: dict[int, list[IpamConfig]] = {4: [], 6: []}
    for config in spec.ipam:
        if not config.subnet and (config.gateway or config.ip_range or config.auxiliary):
            raise InvalidArgument("invalid network config:\na gateway, ip-range or aux-address needs a subnet")
        version = parse_subnet(config.subnet).version if config.subnet else 4
        if wishes[version] and spec.driver == "bridge":
            raise Forbidden("bridge driver doesn't support multiple subnets")
        wishes[version].append(config)
    return wishes


def versions(spec: NetworkSpec) -> tuple[int, ...]:
    """The IP versions of a network; as with dockerd, an IPv6 subnet counts only where IPv6 is enabled."""
    return tuple(version for version, on in ((4, spec.enable_ipv4), (6, spec.enable_ipv6)) if on)


def plan_subnets(spec: NetworkSpec, pools: Sequence[AddressPool], pools6: Sequence[AddressPool],
                 networks: Sequence[Subnet], routed: Sequence[tuple[Subnet, str]]) -> tuple[IpamConfig, ...]:
    """The subnets of a new network: IPv4 first. *networks* are those in use here, *routed* the host's with devices.

    A macvlan or ipvlan network is a part of the host's own network, so its subnet may well be one that the host routes.
    """
    wishes = wished_subnets(spec)
    plan: list[IpamConfig] = []
    for version in versions(spec):
        for config in wishes[version] or [IpamConfig()]:
            mine = [*networks, *(parse_subnet(done.subnet) for done in plan)]
            if config.subnet:
                subnet = parse_subnet(config.subnet)
                refuse_overlap(subnet, mine, routed if spec.driver not in LANS else ())
            else:
                subnet = choose_subnet(pools if version == 4 else pools6, [*mine, *(one for one, _ in routed)], version)
            plan.append(complete(config, subnet, gateway=_needs_gateway(spec, version)))
    return tuple(plan)


def _needs_gateway(spec: NetworkSpec, version: int) -> bool:
    return spec.driver != "bridge" or bridge_options(spec.options).mode(version) != ISOLATED


def default_bridge(identity: str, device: str, bip: str, pools: Sequence[AddressPool],
                   taken: Sequence[Subnet]) -> Network:
    """Docker's network "bridge", with the options that Docker shows for it."""
    if bip:
        try:
            interface = ipaddress.ip_interface(bip)
        except ValueError:
            raise InvalidArgument(f"invalid --bip {bip}: an address with a prefix length is needed") from None
        config = complete(IpamConfig(gateway=str(interface.ip)), interface.network)
    else:
        config = complete(IpamConfig(), choose_subnet(pools, taken))
    options = {OPTION_DEFAULT: "true", OPTION_ICC: "true", OPTION_MASQUERADE: "true", OPTION_BINDING: "0.0.0.0",
               OPTION_BRIDGE: device, OPTION_MTU: "1500"}
    return Network(identity, "bridge", "bridge", time.time_ns(), ipam=(config,), options=options, bridge=device)


def pools6(pools: Sequence[AddressPool], seed: str) -> list[AddressPool]:
    """The pools for IPv6; without one a unique local prefix (RFC 4193) that follows from *seed*."""
    given = [pool for pool in pools if ":" in pool.base]
    packed = bytes([0xFD]) + hashlib.sha256(seed.encode()).digest()[:5] + bytes(10)
    return given or [AddressPool(f"{ipaddress.IPv6Address(packed)}/48", 64)]
