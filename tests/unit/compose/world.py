"""An engine in memory that carries out plans one step at a time, by their bodies: what it has is an `Observed`."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from backend.compose import bodies, labels, plan
from backend.compose.observed import (
    Observed,
    ObservedContainer,
    ObservedMount,
    ObservedNetwork,
    ObservedVolume,
    short_reference,
)


def identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class World:
    """``done`` has the text of each operation in the order in which it was carried out."""

    def __init__(self, project: str, *, images: tuple[str, ...] = ("a", "b")) -> None:
        self.project = project
        self.images = {short_reference(i): f"sha256:{identity(i)}" for i in images}
        self.networks: dict[str, ObservedNetwork] = {}
        self.volumes: dict[str, ObservedVolume] = {}
        self.containers: dict[str, ObservedContainer] = {}
        self.done: list[str] = []
        self.births = 0

    def observed(self) -> Observed:
        return Observed(self.project, tuple(self.containers.values()), tuple(self.networks.values()),
                        tuple(self.volumes.values()), tuple(self.images.items()))

    def carry_out(self, todo: plan.Plan) -> None:
        finished: set[int] = set()
        for step in todo.steps:
            assert set(step.after) <= finished, f"{step} comes before what it needs"
            self.do(step.operation)
            self.done.append(str(step.operation))
            finished.add(step.number)

    def find(self, ref: str) -> ObservedContainer:
        return next(c for c in self.containers.values() if ref in (c.id, c.name))

    def change(self, ref: str, **fields: object) -> None:
        container = self.find(ref)
        self.containers[container.id] = replace(container, **fields)  # type: ignore[arg-type]

    def do(self, operation: plan.Operation) -> None:
        match operation:
            case plan.PullImage():
                self.images[short_reference(operation.reference)] = f"sha256:{identity(operation.reference)}"
            case plan.CreateNetwork():
                made = bodies.network_body(operation.project, operation.network)
                assert made.name not in self.networks
                tags = made.labels
                self.networks[made.name] = ObservedNetwork(
                    identity(made.name + str(self.births)), made.name, tags[labels.PROJECT], tags[labels.NETWORK],
                    tags[labels.OWN_HASH])
            case plan.RemoveNetwork():
                assert not any(n == operation.name for c in self.containers.values() for n, _ in c.networks)
                del self.networks[operation.name]
            case plan.CreateVolume():
                volume = bodies.volume_body(operation.project, operation.volume)
                tags = volume.labels
                self.volumes[volume.name] = ObservedVolume(
                    volume.name, tags[labels.PROJECT], tags[labels.VOLUME], tags[labels.OWN_HASH])
            case plan.RemoveVolume():
                del self.volumes[operation.name]
            case plan.CreateContainer():
                self.create(operation)
            case plan.StartContainer() | plan.RestartContainer():
                self.change(operation.ref, state="running")
            case plan.StopContainer():
                self.change(operation.ref, state="exited")
            case plan.RemoveContainer():
                assert self.find(operation.ref).state != "running"
                del self.containers[self.find(operation.ref).id]
            case plan.RenameContainer():
                assert operation.name not in {c.name for c in self.containers.values()}
                self.change(operation.ref, name=operation.name)
            case plan.WaitHealthy() | plan.WaitCompleted():
                self.find(operation.ref)

    def create(self, operation: plan.CreateContainer) -> None:
        body = bodies.container_body(operation.project, operation.service, operation.number, operation.image_id,
                                     operation.inherited)
        assert operation.name not in {c.name for c in self.containers.values()}
        self.births += 1
        tags = body.labels
        container_id = identity(f"{operation.name} {self.births}")
        mounts = tuple(_mount(bind, container_id) for bind in body.host_config.binds or ())
        mounts += tuple(ObservedMount(m.type, m.source or identity(container_id + m.target), m.target)
                        for m in body.host_config.mounts)
        ends = body.networking_config.endpoints_config
        self.containers[container_id] = ObservedContainer(
            id=container_id, name=operation.name, service=tags[labels.SERVICE], number=labels.number_of(tags),
            state="created", status="", image=body.image, image_id=self.images[short_reference(body.image)],
            own_hash=tags[labels.OWN_HASH], their_hash=tags[labels.CONFIG_HASH],
            depends_on=labels.parse_depends_on(tags[labels.DEPENDS_ON]),
            networks=tuple((name, self.networks[name].id if name in self.networks else "") for name in ends), mounts=mounts,
        )


def _mount(bind: str, container_id: str) -> ObservedMount:
    source, target, *_ = bind.split(":")
    return ObservedMount("bind" if source.startswith("/") else "volume", source, target)
