"""Plans for a stack as it is: down, stop, start. Without a Compose file: labels say what depends on what. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from backend.compose.model import Dependency, Project
from backend.compose.observed import Observed, ObservedContainer
from backend.compose.plan import (
    Draft,
    Plan,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RestartContainer,
    StartContainer,
    StopContainer,
    WaitCompleted,
    WaitHealthy,
)


def plan_down(
    project: Project | str, observed: Observed, *, volumes: bool = False, remove_orphans: bool = False,
    timeout: int | None = None,
) -> Plan:
    """Stops and removes the stack's containers, then its networks, and with *volumes* its volumes.

    With a project, containers of services that its file does not have stay, unless *remove_orphans*; with only a name,
    everything that carries the stack's label goes. What is external is never touched.
    """
    name = project if isinstance(project, str) else project.name
    draft = Draft(name)
    doomed = list(observed.containers)
    if isinstance(project, Project) and not remove_orphans:
        known = {s.name for s in project.services} | set(project.other_services)
        orphans = [c for c in doomed if c.service not in known]
        doomed = [c for c in doomed if c.service in known]
        if orphans:
            names = ", ".join(sorted(c.name for c in orphans))
            draft.warn(f"containers of services that the file does not have stay: {names} (--remove-orphans removes "
                       "them)")
    last = _stop(draft, doomed, timeout, "the stack goes down")
    removed = {
        draft.add(RemoveContainer(c.id, c.name, volumes), "the stack goes down", last.get(c.id, ())) for c in doomed
    }
    gone = {c.id for c in doomed}
    in_use = {net for c in observed.containers if c.id not in gone for net, _ in c.networks}
    for network in observed.networks:
        if network.project != name:
            continue
        if network.name in in_use:
            draft.warn(f"the network {network.name} stays: a container uses it")
        else:
            draft.add(RemoveNetwork(network.id, network.name), "the stack goes down", removed)
    if volumes:
        _remove_anonymous(draft, doomed, observed, removed)
        for volume in observed.volumes:
            if volume.project == name:
                draft.add(RemoveVolume(volume.name), "volumes were asked to go too", removed)
    return draft.done()


def _remove_anonymous(draft: Draft, doomed: list[ObservedContainer], observed: Observed, after: set[int]) -> None:
    """Anonymous volumes that went over from a container to the one that took its place: engines take them for named
    ones from then on, and leave them when the container goes."""
    known = {v.name for v in observed.volumes}
    for container in doomed:
        for mount in container.mounts:
            if mount.is_anonymous and mount.name in known:
                known.discard(mount.name)
                draft.add(RemoveVolume(mount.name), f"anonymous volume of {container.name}", after)


def plan_stop(name: str, observed: Observed, *, timeout: int | None = None) -> Plan:
    """Stops the stack's containers, those first that nothing depends on."""
    draft = Draft(name)
    _stop(draft, [c for c in observed.containers if not c.one_off], timeout, "the stack stops")
    return draft.done()


def plan_start(name: str, observed: Observed) -> Plan:
    """Starts the stack's stopped containers in the order of what they depend on, and waits where they ask for it."""
    draft = Draft(name)
    containers = [c for c in observed.containers if not c.one_off]
    done: dict[str, set[int]] = {}      # service -> steps until its containers have been started
    waits: dict[tuple[str, str], set[int]] = {}
    by_service = _by_service(containers)

    def awaited(dependency: Dependency) -> set[int]:
        started = done.get(dependency.service, set())
        if dependency.condition == "service_started":
            return started
        key = (dependency.service, dependency.condition)
        if key not in waits:
            wait = WaitHealthy if dependency.condition == "service_healthy" else WaitCompleted
            waits[key] = {
                draft.add(wait(c.id, c.name), "others depend on it", started)
                for c in by_service.get(dependency.service, [])
            }
        return waits[key]

    for service in _in_order(by_service):
        done[service] = set()
        for container in by_service[service]:
            if container.is_up:
                continue
            after = {step for d in container.depends_on for step in awaited(d)}
            start = StartContainer(container.id, container.name)
            done[service].add(draft.add(start, f"it is {container.state}", after))
    return draft.done()


def plan_restart(name: str, observed: Observed) -> Plan:
    """Restarts every container of the stack, in the order of what they depend on."""
    draft = Draft(name)
    by_service = _by_service(c for c in observed.containers if not c.one_off)
    done: dict[str, set[int]] = {}
    for service in _in_order(by_service):
        after = {n for c in by_service[service] for d in c.depends_on for n in done.get(d.service, set())}
        done[service] = {draft.add(RestartContainer(c.id, c.name), "asked for", after) for c in by_service[service]}
    return draft.done()


def _stop(
    draft: Draft, containers: list[ObservedContainer], timeout: int | None, cause: str,
) -> dict[str, tuple[int, ...]]:
    """Adds the stops, dependents first; for each container's ID its step, or nothing if it does not run."""
    by_service = _by_service(containers)
    steps: dict[str, tuple[int, ...]] = {}
    of_service: dict[str, set[int]] = {}
    for service in reversed(_in_order(by_service)):
        dependents = [s for s, cs in by_service.items() if any(d.service == service for c in cs for d in c.depends_on)]
        after = {n for s in dependents for n in of_service.get(s, set())}
        of_service[service] = set()
        for container in by_service[service]:
            if container.is_up:
                number = draft.add(StopContainer(container.id, container.name, timeout), cause, after)
                steps[container.id] = (number,)
                of_service[service].add(number)
    return steps


def _by_service(containers: Iterable[ObservedContainer]) -> dict[str, list[ObservedContainer]]:
    found: dict[str, list[ObservedContainer]] = {}
    for container in sorted(containers, key=lambda c: (c.service, c.number, c.name)):
        found.setdefault(container.service, []).append(container)
    return found


def _in_order(by_service: dict[str, list[ObservedContainer]]) -> list[str]:
    """Services after those they depend on. Labels are anybody's to write: a circle in them is cut, not followed."""
    order: list[str] = []
    visiting: set[str] = set()

    def visit(service: str) -> None:
        if service in order or service in visiting or service not in by_service:
            return
        visiting.add(service)
        for name in sorted({d.service for c in by_service[service] for d in c.depends_on}):
            visit(name)
        order.append(service)

    for name in sorted(by_service):
        visit(name)
    return order

