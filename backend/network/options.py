"""What a network's driver options and an endpoint's say, in Docker's names and with its refusals: pure.

Labels that no driver of ours knows are kept and mean nothing, as with Docker; a known one with a value that makes no
sense is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from backend.errors import InvalidArgument
from backend.network.records import (
    OPTION_BINDING,
    OPTION_BRIDGE,
    OPTION_HOST4,
    OPTION_HOST6,
    OPTION_ICC,
    OPTION_INHIBIT4,
    OPTION_MASQUERADE,
    OPTION_MODE4,
    OPTION_MODE6,
    OPTION_MTU,
    OPTION_PREFIX,
    OPTION_TRUSTED,
    NetworkSpec,
)

NAT, UNPROTECTED, ROUTED, ISOLATED = "nat", "nat-unprotected", "routed", "isolated"
MODES = (NAT, UNPROTECTED, ROUTED, ISOLATED)
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
ENDPOINT_IFNAME = "com.docker.network.endpoint.ifname"
MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
IPVLAN_MODES = ("l2", "l3", "l3s")
IPVLAN_FLAGS = ("bridge", "private", "vepa")

_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,12}", re.ASCII)
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.([a-z0-9_-]{1,32})\.(?:IFNAME|ifname)\.([a-z0-9_-]{1,64})"
                     r"=([\x20-\x7e]{1,64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """The options of Docker's bridge driver. ``mtu`` in bytes, 0: the kernel's; ``binding``: the address for ports that
    name none; ``host4`` and ``host6``: the address that containers have outside; ``trusted``: devices from which
    unpublished ports may be reached too."""

    icc: bool = True
    masquerade: bool = True
    mtu: int = 0
    binding: str = ""
    prefix: str = "eth"
    mode4: str = NAT
    mode6: str = NAT
    host4: str = ""
    host6: str = ""
    inhibit4: bool = False
    trusted: tuple[str, ...] = ()

    def mode(self, version: int) -> str:
        """The gateway mode of a family."""
        return self.mode4 if version == 4 else self.mode6


@dataclass(frozen=True, slots=True)
class LanOptions:
    """The options of macvlan and ipvlan networks. ``parent`` "": a device of our own that leads nowhere."""

    parent: str = ""
    mode: str = ""
    flag: str = "bridge"
    mtu: int = 0
    prefix: str = "eth"


def bridge_options(options: Mapping[str, str]) -> BridgeOptions:
    """*options* as the bridge driver reads them. InvalidArgument in Docker's words."""
    return BridgeOptions(
        icc=_flag(options, OPTION_ICC, default=True), masquerade=_flag(options, OPTION_MASQUERADE, default=True),
        mtu=_mtu(options), binding=_address(options, OPTION_BINDING), prefix=_prefix(options),
        mode4=_mode(options, OPTION_MODE4), mode6=_mode(options, OPTION_MODE6),
        host4=_address(options, OPTION_HOST4, 4), host6=_address(options, OPTION_HOST6, 6),
        inhibit4=_flag(options, OPTION_INHIBIT4, default=False), trusted=_devices(options, OPTION_TRUSTED))


def check_bridge(spec: NetworkSpec) -> None:
    """Refuse options of a new bridge network that make no sense."""
    found = bridge_options(spec.options)
    bridge_device(spec.options)
    if ISOLATED in (found.mode4, found.mode6) and not spec.internal:
        raise InvalidArgument("gateway mode 'isolated' can only be used for an internal network")


def bridge_device(options: Mapping[str, str]) -> str:
    """The bridge's name if the user chose one, "" otherwise."""
    name = options.get(OPTION_BRIDGE, "")
    if name and not is_device(name):
        raise InvalidArgument(f"invalid bridge name {name!r}: at most 15 letters, digits, '.', '_' or '-'")
    return name


def lan_options(driver: str, options: Mapping[str, str]) -> LanOptions:
    """*options* as macvlan and ipvlan read them. InvalidArgument in Docker's words."""
    parent = options.get("parent", "")
    if parent and not is_device(parent):
        raise InvalidArgument(f"invalid parent interface {parent!r}")
    modes = MACVLAN_MODES if driver == "macvlan" else IPVLAN_MODES
    mode = options.get(f"{driver}_mode", "") or modes[0]
    if mode not in modes:
        raise InvalidArgument(f"requested {driver} mode '{mode}' is not valid, '{modes[0]}' mode is the {driver} "
                              "driver default")
    flag = options.get("ipvlan_flag", "") or IPVLAN_FLAGS[0]
    if flag not in IPVLAN_FLAGS:
        raise InvalidArgument(f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default")
    return LanOptions(parent, mode, flag, _mtu(options), _prefix(options))


def is_device(name: str) -> bool:
    """*name* can be a network device's."""
    return bool(_DEVICE.fullmatch(name))


def _flag(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is None or value in _TRUE or value in _FALSE:
        return default if value is None else value in _TRUE
    raise InvalidArgument(f'failed to parse {name} value: {value} (strconv.ParseBool: parsing "{value}": '
                          "invalid syntax)")


def _mtu(options: Mapping[str, str]) -> int:
    value = options.get(OPTION_MTU, "") or "0"
    if not (value.isascii() and value.isdigit()):
        raise InvalidArgument(f'failed to parse {OPTION_MTU} value: {value} (strconv.Atoi: parsing "{value}": '
                              "invalid syntax)")
    if value != "0" and not 68 <= int(value[:6]) <= 65535:
        raise InvalidArgument(f"invalid value for {OPTION_MTU}: {value} (68 to 65535 bytes)")
    return int(value)


def _address(options: Mapping[str, str], name: str, version: int = 0) -> str:
    value = options.get(name, "")
    try:
        found = ipaddress.ip_address(value) if value else None
    except ValueError:
        found = None
    if value and (found is None or version not in (0, found.version)):
        raise InvalidArgument(f"failed to parse {name} value: {value} (nil ip)")
    return str(found or "")


def _prefix(options: Mapping[str, str]) -> str:
    value = options.get(OPTION_PREFIX, "")
    if not _PREFIX.fullmatch(value):
        raise InvalidArgument(f"invalid value for {OPTION_PREFIX}: {value}")
    return value or "eth"


def _mode(options: Mapping[str, str], name: str) -> str:
    mode = options.get(name, "") or NAT
    if mode not in MODES:
        raise InvalidArgument(f"failed to parse {name} value: {mode} (unknown gateway mode {mode})")
    return mode


def _devices(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    found = tuple(filter(None, options.get(name, "").split(":")))
    for one in found:
        if not is_device(one):
            raise InvalidArgument(f"failed to parse {name} value: {one} is no name of a network device")
    return found


# -- endpoints -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """``sysctls``: (path below /proc/sys/net with IFNAME for the device, value); ``interface``: "" = the next free."""

    sysctls: tuple[tuple[str, str], ...] = ()
    interface: str = ""


def endpoint_problems(options: Mapping[str, str]) -> list[str]:
    """What is wrong with an endpoint's options, in Docker's words."""
    found = [f"unrecognised network interface sysctl '{one}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', "
             "'X' must be 'ipv4', 'ipv6' or 'mpls'" for one in _sysctls(options) if not _SYSCTL.fullmatch(one)]
    name = options.get(ENDPOINT_IFNAME, "")
    if name and (not is_device(name) or name == "lo"):
        found.append(f"invalid interface name {name!r}: at most 15 letters, digits, '.', '_' or '-'")
    return found


def _sysctls(options: Mapping[str, str]) -> list[str]:
    return [one for one in options.get(ENDPOINT_SYSCTLS, "").split(",") if one]


def endpoint_options(options: Mapping[str, str]) -> EndpointOptions:
    """*options*, which :func:`endpoint_problems` found nothing against."""
    sysctls = tuple((f"{found[1]}/{found[2]}/IFNAME/{found[3]}", found[4])
                    for found in map(_SYSCTL.fullmatch, _sysctls(options)) if found)
    return EndpointOptions(sysctls, options.get(ENDPOINT_IFNAME, ""))
