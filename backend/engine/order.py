"""In which order containers stop when the machine goes down: who depends on others first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.engine.record import ContainerRecord

_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_DEPENDS_ON = "com.docker.compose.depends_on"


def waves(records: Sequence[ContainerRecord]) -> list[list[str]]:
    """IDs in groups: the containers of one group stop at the same time, and a group when the one before it has ended.

    One that others depend on (by a shared namespace, a link, its volumes, Compose's depends_on) stops after them.
    Those in a circle stop together, last.
    """
    needs = {one.id: _needs(one, records) for one in records}
    made: list[list[str]] = []
    left = dict(needs)
    while left:
        needed = set().union(*left.values())
        free = [identity for identity in left if identity not in needed] or list(left)
        made.append(free)
        for identity in free:
            del left[identity]
    return made


def _needs(one: ContainerRecord, records: Sequence[ContainerRecord]) -> set[str]:
    host = one.host_config
    names = {mode.removeprefix("container:") for mode in (host.network_mode, host.pid_mode, host.ipc_mode)
             if mode.startswith("container:")}
    names |= {link.partition(":")[0].removeprefix("/") for link in host.links or ()}
    names |= {entry.partition(":")[0] for entry in host.volumes_from or ()}
    found = {other.id for other in records if other.name in names or other.id in names
             or any(len(name) >= 12 and other.id.startswith(name) for name in names)}
    services = _services(one.config.labels)
    found |= {other.id for other in records if services and _service(other.config.labels) in services}
    return found - {one.id}


def _service(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get(_PROJECT, ""), labels.get(_SERVICE, "")


def _services(labels: Mapping[str, str]) -> set[tuple[str, str]]:
    """What Compose wrote of its dependencies: NAME:CONDITION:RESTART, separated by commas."""
    project = labels.get(_PROJECT, "")
    entries = labels.get(_DEPENDS_ON, "").split(",")
    return {(project, entry.partition(":")[0]) for entry in entries if project and entry}
