"""What to do so that what is there becomes what shall be. Pure: a project and an observation in, a plan out.

A container is kept as long as it was made from the same description (its hash), runs the image that the reference names
now, and is on the networks that it should be on. One that is not is replaced: the new one is made beside it under a
temporary name, and only when that has worked is the old one stopped and removed. Anonymous volumes go over to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from backend.compose.bodies import container_name
from backend.compose.errors import ComposeError
from backend.compose.labels import network_hash, service_hash, volume_hash
from backend.compose.model import Condition, Dependency, Network, Project, Service, Volume
from backend.compose.observed import Observed, ObservedContainer
from backend.compose.plan import (
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    Draft,
    Plan,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RenameContainer,
    RestartContainer,
    StartContainer,
    StopContainer,
    WaitCompleted,
    WaitHealthy,
)
from backend.compose.theirs import their_hash

# The name of a new container until the one that it replaces has gone.
_TEMPORARY = re.compile(r"[0-9a-f]{12}_")


@dataclass(frozen=True, slots=True)
class UpOptions:
    """``timeout``: seconds to wait before a container that is being replaced is killed; None: what it says itself."""

    force_recreate: bool = False
    no_recreate: bool = False
    remove_orphans: bool = False
    start: bool = True
    timeout: int | None = None


@dataclass(slots=True)
class _Fate:
    """What becomes of one container of a service: its ref and name afterwards, and the steps until it is started."""

    ref: str
    name: str
    steps: set[int] = field(default_factory=set)
    starts: bool = False
    replaced: bool = False


def reconcile(project: Project, observed: Observed, options: UpOptions | None = None) -> Plan:
    """The plan that makes *observed* into *project*. With nothing to change it is empty.

    Raises:
        ComposeError: the engine lacks something that only the user can give (an external network, an image that must
            not be pulled), or has something of that name which is not the stack's.
    """
    return _Up(project, observed, options or UpOptions()).plan()


def plan_pull(project: Project, observed: Observed, *, every: bool = False) -> Plan:
    """Pulls for the services whose `pull_policy` is `always` (*every*: for all but `never`), whether there or not.

    What comes decides what must be made anew, so this plan is carried out before the engine is observed for `up`.
    """
    draft = Draft(project.name)
    for reference, service in {s.image: s for s in project.services}.items():
        if service.pull_policy == "always" or (every and service.pull_policy != "never"):
            cause = "pull_policy is always" if service.pull_policy == "always" else "asked for"
            draft.add(PullImage(reference, service.platform), cause)
    return draft.done()


def in_order(services: Iterable[Service]) -> list[Service]:
    """Services so that each comes after those that it depends on; among equals by name."""
    left = sorted(services, key=lambda s: s.name)
    known = {s.name for s in left}
    placed: dict[str, Service] = {}
    while left:
        ready = [s for s in left if all(d.service in placed or d.service not in known for d in s.depends_on)]
        assert ready, "the reading of the project refuses circles"
        for service in ready:
            placed[service.name] = service
        left = [s for s in left if s.name not in placed]
    return list(placed.values())


class _Up:
    def __init__(self, project: Project, observed: Observed, options: UpOptions) -> None:
        self.project = project
        self.observed = observed
        self.options = options
        self.draft = Draft(project.name)
        self.networks: dict[str, int] = {}          # key -> the step that makes it
        self.anew: dict[str, Network] = {}          # networks that exist otherwise than they should
        self.volumes: dict[str, int] = {}
        self.pulls: dict[str, int] = {}             # reference -> step
        self.renames: dict[str, int] = {}           # container ID -> step
        self.leftovers: dict[tuple[str, int], set[int]] = {}    # (service, number) -> steps that remove them
        self.fates: dict[str, list[_Fate]] = {}     # service -> its containers afterwards
        self.waits: dict[tuple[str, Condition], set[int]] = {}

    def plan(self) -> Plan:
        for network in self.project.networks:
            self.plan_network(network)
        if self.anew:
            self.replace_networks()
        for volume in self.project.volumes:
            self.plan_volume(volume)
        for service in in_order(self.project.services):
            self.plan_service(service)
        self.restart_along()
        self.plan_orphans()
        return self.draft.done()

    # Networks and volumes

    def plan_network(self, network: Network) -> None:
        there = self.observed.network(network.name)
        if network.external:
            # The engine's own networks are always there, and some engines list them under other names.
            if there is None and network.name not in ("host", "none", "bridge"):
                raise ComposeError(f"the external network {network.name!r} does not exist; create it first "
                                   f"(docker network create {network.name})")
            return
        if there is None:
            self.networks[network.key] = self.draft.add(CreateNetwork(self.project, network), "not there yet")
        elif there.project != self.project.name:
            owner = f"belongs to the stack {there.project!r}" if there.project else "was not made by a stack"
            raise ComposeError(f"the network {network.name!r} is there already and {owner}; say `external: true` to "
                               "use it, or give it another name")
        elif there.own_hash and there.own_hash != network_hash(network):
            self.anew[network.key] = network

    def replace_networks(self) -> None:
        """A network cannot be changed: its containers go first, then it, and everything is made anew."""
        names = {n.name for n in self.anew.values()}
        gone: set[int] = set()
        for container in self.observed.containers:
            if names & {name for name, _ in container.networks}:
                gone.add(self.remove(container, "its network changed"))
        for network in self.anew.values():
            there = self.observed.network(network.name)
            assert there is not None
            removed = self.draft.add(RemoveNetwork(there.id, there.name), "its configuration changed", gone)
            made = self.draft.add(CreateNetwork(self.project, network), "its configuration changed", {removed})
            self.networks[network.key] = made

    def plan_volume(self, volume: Volume) -> None:
        there = self.observed.volume(volume.name)
        if volume.external:
            if there is None:
                raise ComposeError(f"the external volume {volume.name!r} does not exist; create it first "
                                   f"(docker volume create {volume.name})")
            return
        if there is None:
            self.volumes[volume.key] = self.draft.add(CreateVolume(self.project, volume), "not there yet")
        elif there.project != self.project.name:
            self.draft.warn(f"the volume {volume.name!r} is used as it is: it was not made for this stack; say "
                            "`external: true` if that is meant")
        elif there.own_hash and there.own_hash != volume_hash(volume):
            self.draft.warn(f"the volume {volume.name!r} is kept as it is although its description changed: only "
                            "removing it, with its data, would change it")

    # Services

    def plan_service(self, service: Service) -> None:
        there = [c for c in self.settled(service) if not self.is_gone(c)]
        lost = [c for c in self.observed.of_service(service.name) if self.is_gone(c)]
        keep, surplus = there[: service.scale], there[service.scale:]
        for container in surplus:
            self.remove(container, f"the service {service.name} has a scale of {service.scale}")
        fates = self.fates[service.name] = []
        for container in keep:
            reason = self.why_replace(service, container)
            if reason:
                fates.append(self.replace(service, container, reason))
            else:
                fates.append(self.keep(service, container))
        numbers = [c.number for c in lost] + list(self.free_numbers(there, lost, service.scale))
        for number in numbers[: service.scale - len(keep)]:
            fates.append(self.create(service, number, lost))

    def settled(self, service: Service) -> list[ObservedContainer]:
        """The service's containers, without those that an `up` left half-way when it was broken off."""
        there = []
        everyone = self.observed.of_service(service.name)
        for container in everyone:
            others = [c for c in everyone if c.number == container.number and c is not container]
            if not _TEMPORARY.match(container.name) or self.is_gone(container):
                there.append(container)
            elif others:
                gone = self.remove(container, "it was left by an up that was broken off")
                self.leftovers.setdefault((service.name, container.number), set()).add(gone)
            else:
                name = container_name(self.project, service, container.number)
                cause = "its name was left by an up that was broken off"
                self.renames[container.id] = self.draft.add(RenameContainer(container.id, name), cause)
                there.append(replace(container, name=name))
        return there

    def is_gone(self, container: ObservedContainer) -> bool:
        """Whether the container goes with a network that is made anew."""
        names = {n.name for n in self.anew.values()}
        return bool(names & {name for name, _ in container.networks})

    @staticmethod
    def free_numbers(there: list[ObservedContainer], lost: list[ObservedContainer], count: int) -> range:
        first = max((c.number for c in (*there, *lost)), default=0) + 1
        return range(first, first + count)

    def why_replace(self, service: Service, container: ObservedContainer) -> str:
        """Why the container cannot stay, or "" if it can."""
        if self.options.no_recreate:
            return ""
        if self.options.force_recreate:
            return "asked for"
        if container.state in ("dead", "removing"):
            return f"it is {container.state}"
        if container.own_hash:
            if container.own_hash != service_hash(self.project, service):
                return "its configuration changed"
        elif container.their_hash != their_hash(service):
            return "its configuration changed since docker compose made it"
        current = self.observed.image_id(service.image)
        if current and current != container.image_id:
            return f"{service.image} is another image now"
        return self.missing_network(service, container)

    def missing_network(self, service: Service, container: ObservedContainer) -> str:
        known = dict(container.networks)
        for use in service.networks:
            name = self.project.network(use.network).name
            there = self.observed.network(name)
            if name not in known:
                return f"it is not connected to {name}"
            # A network of that name that was removed and made again is another network.
            if there is None or (known[name] and known[name] != there.id):
                return f"the network {name} is another one now"
        return ""

    def keep(self, service: Service, container: ObservedContainer) -> _Fate:
        fate = _Fate(container.id, container.name)
        renamed = {self.renames[container.id]} if container.id in self.renames else set[int]()
        if container.state in ("running", "restarting", "paused") or not self.options.start:
            return fate
        fate.starts = True
        fate.steps = {self.draft.add(StartContainer(container.id, container.name), f"it is {container.state}",
                                     self.prerequisites(service) | renamed)}
        return fate

    def create(self, service: Service, number: int, lost: list[ObservedContainer]) -> _Fate:
        name = container_name(self.project, service, number)
        old = next((c for c in lost if c.number == number), None)
        inherited = tuple(m for m in old.mounts if m.is_anonymous) if old else ()
        needs = self.materials(service)
        made = CreateContainer(self.project, service, number, name, self.observed.image_id(service.image), inherited)
        cause = "its network changed" if old else f"the service {service.name} has no container {number}"
        return self.started(service, _Fate(name, name, {self.draft.add(made, cause, needs)}, replaced=old is not None))

    def replace(self, service: Service, old: ObservedContainer, reason: str) -> _Fate:
        name = container_name(self.project, service, old.number)
        temporary = f"{old.id[:12]}_{name}"
        inherited = tuple(m for m in old.mounts if m.is_anonymous)
        # A new container would get the very name of one that was left.
        needs = self.materials(service) | self.leftovers.get((service.name, old.number), set())
        image_id = self.observed.image_id(service.image)
        made = self.draft.add(
            CreateContainer(self.project, service, old.number, temporary, image_id, inherited), reason, needs)
        removed = self.remove(old, reason, {made})
        renamed = self.draft.add(RenameContainer(temporary, name), reason, {removed})
        return self.started(service, _Fate(name, name, {renamed}, replaced=True))

    def started(self, service: Service, fate: _Fate) -> _Fate:
        if self.options.start:
            fate.starts = True
            after = fate.steps | self.prerequisites(service)
            fate.steps = {self.draft.add(StartContainer(fate.ref, fate.name), "it is new", after)}
        return fate

    def remove(self, container: ObservedContainer, reason: str, after: set[int] | None = None) -> int:
        """Stops the container if it runs, and removes it; the number of the last step."""
        before = after or set()
        if container.is_up:
            before = {self.draft.add(StopContainer(container.id, container.name, self.options.timeout), reason, before)}
        return self.draft.add(RemoveContainer(container.id, container.name), reason, before)

    def materials(self, service: Service) -> set[int]:
        """The steps before a container of *service* can be made: its image, networks and volumes."""
        steps = {self.networks[u.network] for u in service.networks if u.network in self.networks}
        steps |= {self.volumes[m.source] for m in service.mounts if m.kind == "volume" and m.source in self.volumes}
        return steps | self.image(service)

    def image(self, service: Service) -> set[int]:
        if self.observed.image_id(service.image):
            return set()
        if service.pull_policy == "never":
            raise ComposeError(f"the image {service.image!r} of the service {service.name!r} is not there, and its "
                               "pull_policy is never")
        if service.image not in self.pulls:
            self.pulls[service.image] = self.draft.add(PullImage(service.image, service.platform), "not there yet")
        return {self.pulls[service.image]}

    def prerequisites(self, service: Service) -> set[int]:
        """The steps before a container of *service* may start: what it depends on, started, healthy or completed."""
        steps: set[int] = set()
        for dependency in service.depends_on:
            steps |= self.awaited(dependency)
        return steps

    def awaited(self, dependency: Dependency) -> set[int]:
        fates = self.fates.get(dependency.service, [])
        if dependency.condition == "service_started":
            return {step for fate in fates for step in fate.steps}
        key = (dependency.service, dependency.condition)
        if key not in self.waits:
            wait = WaitHealthy if dependency.condition == "service_healthy" else WaitCompleted
            self.waits[key] = {
                self.draft.add(wait(fate.ref, fate.name), "others depend on it", fate.steps) for fate in fates
            }
        return self.waits[key]

    def restart_along(self) -> None:
        """`depends_on: restart: true`: who stays is restarted when what it depends on has been replaced."""
        for service in in_order(self.project.services):
            for dependency in service.depends_on:
                replaced = [f for f in self.fates.get(dependency.service, []) if f.replaced]
                if not dependency.restart or not replaced:
                    continue
                for fate in self.fates[service.name]:
                    if not fate.starts:
                        fate.starts = True
                        restart = RestartContainer(fate.ref, fate.name)
                        self.draft.add(restart, f"{dependency.service} was replaced", self.awaited(dependency))

    def plan_orphans(self) -> None:
        known = {s.name for s in self.project.services} | set(self.project.other_services)
        orphans = [c for c in self.observed.containers if c.service not in known and not c.one_off]
        if self.options.remove_orphans:
            for container in orphans:
                if not self.is_gone(container):
                    self.remove(container, f"there is no service {container.service} any more")
        elif orphans:
            names = ", ".join(sorted(c.name for c in orphans))
            self.draft.warn(f"containers of services that the file does not have: {names} (--remove-orphans removes "
                            "them)")
