"""The labels by which stacks are known. They are docker compose's, so that either program finds the other's stacks; the
one of our own keeps the hash of what we made: our model's, which tells more apart than docker compose's. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from backend.compose.model import CONDITIONS, Dependency, Network, Project, Service, Volume
from backend.compose.theirs import their_hash

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
CONFIG_HASH = "com.docker.compose.config-hash"
NUMBER = "com.docker.compose.container-number"
ONE_OFF = "com.docker.compose.oneoff"
CONFIG_FILES = "com.docker.compose.project.config_files"
WORKING_DIR = "com.docker.compose.project.working_dir"
ENVIRONMENT_FILE = "com.docker.compose.project.environment_file"
VERSION = "com.docker.compose.version"
NETWORK = "com.docker.compose.network"
VOLUME = "com.docker.compose.volume"
DEPENDS_ON = "com.docker.compose.depends_on"
IMAGE = "com.docker.compose.image"
OWN_HASH = "io.slipway.compose.hash"

# The release of docker compose whose labels these are; it writes its own release there.
COMPATIBLE_VERSION = "2.40.3"


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def service_hash(project: Project, service: Service) -> str:
    """What a container of *service* is made from, as one hash: a container with another hash has to be made anew.

    What changes nothing inside a container is left out: the order of starting, the number of containers, how images are
    pulled. The names of networks and volumes in the engine are in it, for a container is tied to those.
    """
    fields = dataclasses.asdict(service)
    for key in ("depends_on", "scale", "pull_policy", "profiles", "attach", "deploy"):
        del fields[key]
    fields["networks"] = {project.network(u.network).name: dataclasses.asdict(u) for u in service.networks}
    fields["volumes"] = {
        m.source: project.volume(m.source).name for m in service.mounts if m.kind == "volume" and m.source
    }
    return _digest(fields)


def network_hash(network: Network) -> str:
    return _digest(dataclasses.asdict(network))


def volume_hash(volume: Volume) -> str:
    return _digest(dataclasses.asdict(volume))


def container_labels(project: Project, service: Service, number: int, image_id: str) -> dict[str, str]:
    labels = {
        **dict(service.labels),
        PROJECT: project.name,
        SERVICE: service.name,
        NUMBER: str(number),
        ONE_OFF: "False",
        CONFIG_HASH: their_hash(service),
        OWN_HASH: service_hash(project, service),
        CONFIG_FILES: ",".join(project.files),
        WORKING_DIR: project.directory,
        VERSION: COMPATIBLE_VERSION,
        DEPENDS_ON: depends_on_text(service.depends_on),
    }
    if image_id:
        labels[IMAGE] = image_id
    return labels


def network_labels(project: Project, network: Network) -> dict[str, str]:
    # Without CONFIG_HASH: docker compose takes one that differs from its own as a reason to make the network anew.
    return {**dict(network.labels), PROJECT: project.name, NETWORK: network.key, VERSION: COMPATIBLE_VERSION,
            OWN_HASH: network_hash(network)}


def volume_labels(project: Project, volume: Volume) -> dict[str, str]:
    return {**dict(volume.labels), PROJECT: project.name, VOLUME: volume.key, VERSION: COMPATIBLE_VERSION,
            OWN_HASH: volume_hash(volume)}


def depends_on_text(dependencies: tuple[Dependency, ...]) -> str:
    """`db:service_started:false,cache:service_healthy:true`: name, condition, whether to restart along."""
    return ",".join(f"{d.service}:{d.condition}:{'true' if d.restart else 'false'}" for d in dependencies)


def parse_depends_on(text: str) -> tuple[Dependency, ...]:
    """The dependencies of a container's label. What some other program wrote there and makes no sense is left out."""
    found = []
    for part in text.split(","):
        name, _, rest = part.partition(":")
        condition, _, restart = rest.partition(":")
        typed = next((c for c in CONDITIONS if c == (condition or "service_started")), None)
        if name and typed:
            found.append(Dependency(name, typed, restart == "true"))
    return tuple(found)


def number_of(labels: Mapping[str, str]) -> int:
    text = labels.get(NUMBER, "")
    return int(text) if text.isdigit() else 1
