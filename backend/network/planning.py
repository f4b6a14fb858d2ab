"""What must hold before a network is made, and which subnets it gets: pure but for the clock."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Collection, Sequence

from backend.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplemented_
from backend.network.ipam import Subnet, choose_subnet, complete, parse_subnet, refuse_overlap
from backend.network.records import (
    OPTION_BINDING,
    OPTION_BRIDGE,
    OPTION_DEFAULT,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MODE4,
    OPTION_MODE6,
    OPTION_MTU,
    OPTION_PREFIX,
    AddressPool,
    IpamConfig,
    Network,
    NetworkSpec,
)

_MISSING_DRIVERS = ("macvlan", "ipvlan", "overlay")


def check(spec: NetworkSpec, taken: Collection[str]) -> None:
    """Refuse what Docker refuses (in its words) and what is not here yet; *taken* are the names in use."""
    if not spec.name.strip():
        raise InvalidArgument("invalid name: a network needs a name")
    if spec.name in ("bridge", "host", "none", "default"):
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
    if spec.name in taken:
        raise Conflict(f"network with name {spec.name} already exists")
    if spec.driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver in _MISSING_DRIVERS:
        raise NotImplemented_(f"the network driver {spec.driver} is not available yet; use bridge")
    if spec.driver != "bridge":
        raise NotFound(f"could not find plugin {spec.driver} in v1 plugin registry: "
                       f'plugin "{spec.driver}" not found')
    if spec.ipam_driver not in ("", "default"):
        raise NotImplemented_(f"the address driver {spec.ipam_driver} is not available yet; use default")
    if not spec.enable_ipv4:
        raise NotImplemented_("networks without IPv4 are not available yet")
    _check_options(spec.options)


def _check_options(options: dict[str, str]) -> None:
    for option in (OPTION_MODE4, OPTION_MODE6):
        mode = options.get(option, "nat")
        if mode not in ("nat", "nat-unprotected"):
            raise NotImplemented_(f"{option}={mode} is not available yet; use nat or nat-unprotected")
    mtu = options.get(OPTION_MTU, "")
    if mtu and not (mtu.isascii() and mtu.isdigit() and 68 <= int(mtu[:6]) <= 65535):
        raise InvalidArgument(f"invalid value for {OPTION_MTU}: {mtu}")
    prefix = options.get(OPTION_PREFIX, "")
    if len(prefix) > 12 or not all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in prefix):
        raise InvalidArgument(f"invalid value for {OPTION_PREFIX}: {prefix}")


def plan_subnets(spec: NetworkSpec, pools: Sequence[AddressPool], pools6: Sequence[AddressPool],
                 networks: Sequence[Subnet], routed: Sequence[tuple[Subnet, str]]) -> tuple[IpamConfig, ...]:
    """The subnets of a new network: IPv4 first. *networks* are those in use here, *routed* the host's with devices."""
    wishes: dict[int, IpamConfig] = {}
    for config in spec.ipam:
        if not config.subnet and (config.gateway or config.ip_range or config.auxiliary):
            raise InvalidArgument("invalid network config:\na gateway, ip-range or aux-address needs a subnet")
        version = parse_subnet(config.subnet).version if config.subnet else 4
        if version in wishes:
            raise Forbidden("bridge driver doesn't support multiple subnets")
        wishes[version] = config
    plan = []
    for version in (4, 6) if spec.enable_ipv6 else (4,):     # as dockerd: an IPv6 subnet counts only with EnableIPv6
        config = wishes.get(version, IpamConfig())
        if config.subnet:
            subnet = parse_subnet(config.subnet)
            refuse_overlap(subnet, networks, routed)
        else:
            taken = [*networks, *(route for route, _ in routed)]
            subnet = choose_subnet(pools if version == 4 else pools6, taken, version)
        plan.append(complete(config, subnet))
    return tuple(plan)


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
