"""Wire types of the sections Network and Volume of the Engine API."""

from __future__ import annotations

from msgspec import Struct

from backend.spec.api.wire import UNSET, Maybe, Wire, field


class Address(Wire):
    """An additional address of a container."""

    addr: str = ""
    prefix_len: int = 0


class EndpointIpam(Wire):
    """The addresses that an endpoint wishes for."""

    ipv4_address: Maybe[str] = field(name="IPv4Address", default=UNSET)
    ipv6_address: Maybe[str] = field(name="IPv6Address", default=UNSET)
    link_local_ips: Maybe[list[str]] = field(name="LinkLocalIPs", default=UNSET)


class EndpointSettings(Wire):
    """A container's connection to a network: what was wished (in requests) and what it got (in views)."""

    ipam_config: EndpointIpam | None = field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = ""
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: list[str] | None = field(name="DNSNames", default=None)


class IpamConfig(Wire):
    """One address range of a network."""

    subnet: Maybe[str] = UNSET
    ip_range: Maybe[str] = UNSET
    gateway: Maybe[str] = UNSET
    auxiliary_addresses: Maybe[dict[str, str]] = UNSET


class Ipam(Wire):
    """How a network gives out addresses."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IpamConfig] = []


class ConfigReference(Wire):
    """The network whose configuration is used."""

    network: str = ""


class NetworkContainer(Wire):
    """A container on a network. Addresses with their prefix length."""

    name: str = ""
    endpoint_id: str = ""
    mac_address: str = ""
    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")


class Network(Wire):
    """A network in list and inspect (a list leaves `containers` empty)."""

    name: str
    id: str = field(name="Id")
    created: str = ""
    scope: str = "local"
    driver: str = "bridge"
    enable_ipv4: bool = field(name="EnableIPv4", default=True)
    enable_ipv6: bool = field(name="EnableIPv6", default=False)
    ipam: Ipam = field(default_factory=Ipam)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference = field(default_factory=ConfigReference)
    config_only: bool = False
    containers: dict[str, NetworkContainer] = {}
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class NetworkCreate(Wire):
    """The body of POST /networks/create."""

    name: str = ""
    check_duplicate: bool | None = None
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: Ipam | None = None
    enable_ipv4: bool | None = field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = field(name="EnableIPv6", default=None)
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class NetworkCreated(Wire):
    """The answer to a network create."""

    id: str = field(name="Id")
    warning: str = ""


class NetworkConnect(Wire):
    """The body of POST /networks/{id}/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(Wire):
    """The body of POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class NetworksPruned(Wire):
    """The report of a network prune."""

    networks_deleted: list[str] = []


class UsageData(Wire):
    """Size in bytes and number of containers of a volume; -1 = not known."""

    size: int = -1
    ref_count: int = -1


class Volume(Wire):
    """A volume in list and inspect."""

    name: str
    driver: str = "local"
    mountpoint: str = ""
    created_at: str = ""
    status: Maybe[dict[str, str]] = UNSET
    labels: dict[str, str] | None = None
    scope: str = "local"
    options: dict[str, str] | None = None
    usage_data: Maybe[UsageData] = UNSET


class ClusterVolumeSpec(Struct):
    """Swarm's volumes, which this engine does not have: its presence is an error."""


class VolumeCreate(Wire):
    """The body of POST /volumes/create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}
    cluster_volume_spec: ClusterVolumeSpec | None = None


class VolumeList(Wire):
    """GET /volumes."""

    volumes: list[Volume] = []
    warnings: list[str] | None = None


class VolumesPruned(Wire):
    """The report of a volume prune. Space in bytes."""

    volumes_deleted: list[str] = []
    space_reclaimed: int = 0
