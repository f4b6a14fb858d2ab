"""What the tables show: small frozen rows made from the engine's views. No widgets, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec import UNSET

from backend.spec import api

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
FILES_LABEL = "com.docker.compose.project.config_files"
WELCOME_IMAGE = "slipway/welcome"
#: Container ports that carry https by convention, so that their link opens as such.
_TLS_PORTS = frozenset({443, 8443, 9443})


@dataclass(frozen=True, slots=True)
class PortLink:
    """A published port. `host` is "" for all addresses."""

    host: str
    public: int
    private: int
    protocol: str

    @property
    def text(self) -> str:
        """As shown: 8080 → 80."""
        where = f"{self.host}:" if self.host else ""
        suffix = "" if self.protocol == "tcp" else f"/{self.protocol}"
        return f"{where}{self.public} → {self.private}{suffix}"

    @property
    def url(self) -> str:
        """Where a browser finds it; empty when it is not TCP."""
        if self.protocol != "tcp":
            return ""
        scheme = "https" if self.private in _TLS_PORTS else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host or 'localhost'}:{self.public}"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's place on a network. `address`: "" while it does not run."""

    network: str
    network_id: str
    address: str


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """One container. `created`: seconds since the epoch; `state` as the engine's word; `health` "" when unchecked."""

    id: str
    name: str
    image: str
    image_id: str
    command: str
    state: str
    status: str
    health: str
    ports: tuple[PortLink, ...]
    created: int
    project: str
    service: str
    config_files: str
    networks: tuple[Attachment, ...]
    volumes: tuple[str, ...]

    @property
    def running(self) -> bool:
        """It has a process now (paused or restarting ones included)."""
        return self.state in ("running", "paused", "restarting")


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One reference of an image, or one image without any. Key: ID and name. Size in bytes."""

    id: str
    name: str
    tag: str
    size: int
    created: int
    used_by: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Stable over changes of what the row shows."""
        return f"{self.id} {self.name}:{self.tag}"

    @property
    def reference(self) -> str:
        """What to give the engine: name and tag, or the ID of an image without a name."""
        return f"{self.name}:{self.tag}" if self.name else self.id


@dataclass(frozen=True, slots=True)
class Usage:
    """One second of a container. CPU in percent of one processor, memory and its limit in bytes."""

    cpu: float
    memory: int
    limit: int


@dataclass(frozen=True, slots=True)
class StackRow:
    """A Compose project, as its containers' labels tell."""

    name: str
    services: tuple[str, ...]
    running: int
    total: int
    config_files: str
    containers: tuple[str, ...]


def container_row(view: api.ContainerSummary) -> ContainerRow:
    """The row of a container in the engine's list."""
    health = re.search(r"\((healthy|unhealthy|health: starting)\)", view.status)
    return ContainerRow(
        id=view.id, name=view.names[0].lstrip("/") if view.names else view.id[:12], image=_short_image(view.image),
        image_id=view.image_id, command=view.command, state=view.state, status=view.status,
        health=health.group(1).removeprefix("health: ") if health else "", ports=port_links(view.ports),
        created=view.created, project=view.labels.get(PROJECT_LABEL, ""), service=view.labels.get(SERVICE_LABEL, ""),
        config_files=view.labels.get(FILES_LABEL, ""), networks=_attachments(view),
        volumes=tuple(sorted({str(one.name) for one in view.mounts if one.type == "volume" and one.name})))


def _attachments(view: api.ContainerSummary) -> tuple[Attachment, ...]:
    found = view.network_settings.networks
    return tuple(Attachment(name, found[name].network_id, found[name].ip_address) for name in sorted(found))


def port_links(ports: list[api.Port]) -> tuple[PortLink, ...]:
    """Published ports; the pair of wildcard addresses (IPv4 and IPv6) counts as one."""
    found: dict[tuple[int, int, str, str], PortLink] = {}
    for port in ports:
        if port.public_port is UNSET or not port.public_port:
            continue
        address = "" if port.ip is UNSET or port.ip in ("0.0.0.0", "::") else port.ip
        key = (port.public_port, port.private_port, port.type, address)
        found.setdefault(key, PortLink(address, port.public_port, port.private_port, port.type))
    return tuple(sorted(found.values(), key=lambda link: (link.private, link.public)))


def image_rows(view: api.ImageSummary, used_by: tuple[str, ...] = ()) -> list[ImageRow]:
    """One row for each name of an image; one without a name for a dangling one."""
    names = [tag for tag in view.repo_tags if tag != "<none>:<none>"]
    rows = []
    for full in names or [""]:
        name, _, tag = full.rpartition(":") if full else ("", "", "")
        rows.append(ImageRow(view.id, name, tag, view.size, view.created, used_by))
    return rows


def stack_rows(containers: list[ContainerRow]) -> list[StackRow]:
    """The Compose projects among *containers*, by name."""
    groups: dict[str, list[ContainerRow]] = {}
    for row in containers:
        if row.project:
            groups.setdefault(row.project, []).append(row)
    return [StackRow(name=name, services=tuple(sorted({r.service for r in rows if r.service})),
                     running=sum(r.state == "running" for r in rows), total=len(rows),
                     config_files=next((r.config_files for r in rows if r.config_files), ""),
                     containers=tuple(r.id for r in rows))
            for name, rows in sorted(groups.items())]


def usage(sample: api.Stats) -> Usage | None:
    """Processor and memory of one sample, as `docker stats` counts; None for the first sample, which has no past."""
    now, before = sample.cpu_stats, sample.precpu_stats
    if before.system_cpu_usage is UNSET or now.system_cpu_usage is UNSET or not before.system_cpu_usage:
        return None
    spent = now.cpu_usage.total_usage - before.cpu_usage.total_usage
    span = now.system_cpu_usage - before.system_cpu_usage
    processors = now.online_cpus if now.online_cpus is not UNSET and now.online_cpus else 1
    cpu = spent / span * processors * 100 if span > 0 and spent > 0 else 0.0
    # The page cache that the kernel gives back at once is no use of memory (what docker's own client subtracts).
    memory = sample.memory_stats
    cache = memory.stats.get("total_inactive_file", memory.stats.get("inactive_file", 0))
    used = memory.usage - cache if cache < memory.usage else memory.usage
    return Usage(cpu, used, memory.limit)


def _short_image(name: str) -> str:
    return name[7:19] if name.startswith("sha256:") else name.removeprefix("docker.io/library/")


def size_text(count: float) -> str:
    """Bytes for people, in powers of 1000 as docker shows sizes of images."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the loop ends at TB")


def memory_text(count: float) -> str:
    """Bytes for people, in powers of 1024 as memory is bought."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the loop ends at GiB")


def age_text(created: int, now: float) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(now - created, 0)
    for size, unit in ((86400 * 365, "year"), (86400 * 30, "month"), (86400 * 7, "week"), (86400, "day"),
                       (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def time_text(created: int) -> str:
    """The moment in full, for tool tips."""
    return datetime.fromtimestamp(created, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


#: The engine's words and ours; the tone picks the colour of the dot.
STATES = {"running": ("Running", "good"), "paused": ("Paused", "warn"), "restarting": ("Restarting", "warn"),
          "exited": ("Exited", "idle"), "created": ("Created", "idle"), "removing": ("Removing", "warn"),
          "dead": ("Dead", "bad")}


def state_text(row: ContainerRow) -> tuple[str, str]:
    """The word for a container's state and its tone: good, warn, bad or idle."""
    word, tone = STATES.get(row.state, (row.state.capitalize(), "idle"))
    if row.state == "running" and row.health == "unhealthy":
        return "Unhealthy", "bad"
    if row.state == "running" and row.health == "starting":
        return "Starting", "warn"
    code = re.match(r"Exited \((\d+)\)", row.status)
    if row.state == "exited" and code and code.group(1) not in ("0", "143", "137"):
        return f"Exited ({code.group(1)})", "bad"
    return word, tone
