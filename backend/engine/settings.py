"""What an engine is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.network.records import AddressPool

if TYPE_CHECKING:
    from backend.images.types import RegistrySettings


@dataclass(frozen=True, slots=True)
class Settings:
    """Set once by the helper. `instance`: "slipway" for the installed one, "slipway-<8 hex>" for private ones; it names
    the firewall table and the cgroups. `bip`: address of the default bridge ("10.1.2.1/24"), "" = chosen.
    `userns`: the user namespace of containers that ask for none ("" = the host's, "auto" = one of their own);
    `subid_user`: whose ranges in /etc/subuid and /etc/subgid they get.
    `shutdown_timeout`: seconds that a container gets when the machine goes down, unless it says so itself.
    `plugin_dirs`: where plug-ins are looked for; `authorization`: those that are asked about every request.
    `lazy_pull`: every pull is done as soon as the image can be run, where its form allows that; `trust_policy`: the
    file that says which images may run; where it is not there, all may.
    `log_driver`, `log_opts`: of containers that name no driver; "" is our own store, which is called json-file."""

    data_root: str
    exec_root: str
    instance: str
    registry: RegistrySettings | None = None
    lazy_pull: bool = False
    trust_policy: str = "/etc/slipway/policy.json"
    address_pools: tuple[AddressPool, ...] = ()
    bip: str = ""
    labels: tuple[str, ...] = ()
    log_driver: str = ""
    log_opts: dict[str, str] = field(default_factory=dict)
    debug: bool = False
    plugin_dirs: tuple[str, ...] = ()
    authorization: tuple[str, ...] = ()
    shutdown_timeout: int = 10
    userns: str = ""
    subid_user: str = "slipway"
    version: str = ""
