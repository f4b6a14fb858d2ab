"""One look at an engine: its lists of containers, networks, volumes and images, as an `Observed`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from backend.compose import labels
from backend.compose.model import Project
from backend.compose.needs import ComposeClient
from backend.compose.observed import (
    Observed,
    ObservedContainer,
    ObservedMount,
    ObservedNetwork,
    ObservedVolume,
    short_reference,
)
from backend.spec import api


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as a list shows it: how many of its containers are in which state, and the files that it came from."""

    name: str
    states: tuple[tuple[str, int], ...]
    services: tuple[str, ...]
    files: tuple[str, ...]
    directory: str


async def observe(client: ComposeClient, project: Project | str) -> Observed:
    """What of *project* (or of the stack of that name) is there.

    Networks and volumes are listed without a filter, for a name may be taken by what is not the stack's.
    """
    name = project if isinstance(project, str) else project.name
    containers, networks, volumes, images = await asyncio.gather(
        client.list_containers(all=True, filters={"label": [f"{labels.PROJECT}={name}"]}),
        client.list_networks(),
        client.list_volumes(),
        client.list_images(),
    )
    return Observed(
        project=name,
        containers=tuple(sorted((_container(c) for c in containers), key=lambda c: (c.service, c.number, c.name))),
        networks=tuple(sorted((_network(n) for n in networks), key=lambda n: n.name)),
        volumes=tuple(sorted((_volume(v) for v in volumes.volumes), key=lambda v: v.name)),
        images=tuple(_references(images)),
    )


async def list_stacks(client: ComposeClient) -> tuple[Stack, ...]:
    """Every stack of the engine that has containers, by name; those of docker compose too."""
    found: dict[str, list[ObservedContainer]] = {}
    for summary in await client.list_containers(all=True, filters={"label": [labels.PROJECT]}):
        found.setdefault(summary.labels[labels.PROJECT], []).append(_container(summary))
    return tuple(_stack(name, containers) for name, containers in sorted(found.items()))


def _stack(name: str, containers: list[ObservedContainer]) -> Stack:
    states: dict[str, int] = {}
    for container in containers:
        states[container.state] = states.get(container.state, 0) + 1
    return Stack(
        name=name,
        states=tuple(sorted(states.items(), key=lambda s: (s[0] != "running", s[0]))),
        services=tuple(sorted({c.service for c in containers})),
        files=tuple(f for f in containers[0].files.split(",") if f),
        directory=containers[0].directory,
    )


def _container(summary: api.ContainerSummary) -> ObservedContainer:
    tags = summary.labels
    return ObservedContainer(
        id=summary.id,
        name=_own_name(summary.names),
        service=tags.get(labels.SERVICE, ""),
        number=labels.number_of(tags),
        state=summary.state,
        status=summary.status,
        image=summary.image,
        image_id=summary.image_id,
        own_hash=tags.get(labels.OWN_HASH, ""),
        their_hash=tags.get(labels.CONFIG_HASH, ""),
        one_off=tags.get(labels.ONE_OFF, "").lower() == "true",
        depends_on=labels.parse_depends_on(tags.get(labels.DEPENDS_ON, "")),
        networks=tuple(sorted((n, e.network_id) for n, e in summary.network_settings.networks.items())),
        mounts=tuple(ObservedMount(m.type, m.name or "", m.destination) for m in summary.mounts),
        ports=tuple(sorted({_port(p) for p in summary.ports})),
        files=tags.get(labels.CONFIG_FILES, ""),
        directory=tags.get(labels.WORKING_DIR, ""),
    )


def _own_name(names: list[str]) -> str:
    """The container's own name: a link makes further ones, of the form /other/alias."""
    return next((n[1:] for n in names if n.count("/") == 1), names[0].lstrip("/") if names else "")


def _port(port: api.Port) -> str:
    inside = f"{port.private_port}/{port.type}"
    if not port.public_port:
        return inside
    ip = port.ip or ""
    return f"{f'[{ip}]' if ':' in ip else ip}:{port.public_port}->{inside}"


def _network(network: api.Network) -> ObservedNetwork:
    tags = network.labels
    return ObservedNetwork(network.id, network.name, tags.get(labels.PROJECT, ""), tags.get(labels.NETWORK, ""),
                           tags.get(labels.OWN_HASH, ""))


def _volume(volume: api.Volume) -> ObservedVolume:
    tags = volume.labels or {}
    return ObservedVolume(volume.name, tags.get(labels.PROJECT, ""), tags.get(labels.VOLUME, ""),
                          tags.get(labels.OWN_HASH, ""))


def _references(images: Iterable[api.ImageSummary]) -> Iterable[tuple[str, str]]:
    for image in images:
        names = [n for n in (*(image.repo_tags or ()), *(image.repo_digests or ())) if not n.startswith("<none>")]
        for name in names or [image.id]:
            yield (name if name == image.id else short_reference(name)), image.id
