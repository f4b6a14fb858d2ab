"""A plan: what will be done, why, and in which order, before anything is done. Pure.

Each operation is one call of the Engine API (a wait may ask several times); it says nothing about *whether* to do it,
which reconcile.py has decided, nor about *how*, which execute.py knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.compose.model import Network, Project, Service, Volume
from backend.compose.observed import ObservedMount


@dataclass(frozen=True, slots=True)
class PullImage:
    reference: str
    platform: str = ""

    def __str__(self) -> str:
        return f"pull image {self.reference}" + (f" for {self.platform}" if self.platform else "")


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    project: Project
    network: Network

    def __str__(self) -> str:
        return f"create network {self.network.name}"


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    id: str
    name: str

    def __str__(self) -> str:
        return f"remove network {self.name}"


@dataclass(frozen=True, slots=True)
class CreateVolume:
    project: Project
    volume: Volume

    def __str__(self) -> str:
        return f"create volume {self.volume.name}"


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    name: str

    def __str__(self) -> str:
        return f"remove volume {self.name}"


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """``name`` is the one to create it under, which is temporary while the container that it replaces has its name."""

    project: Project
    service: Service
    number: int
    name: str
    image_id: str = ""
    inherited: tuple[ObservedMount, ...] = ()

    def __str__(self) -> str:
        return f"create container {self.name}"


@dataclass(frozen=True, slots=True)
class StartContainer:
    """``ref`` is an ID, or the name of a container that the same plan creates."""

    ref: str
    name: str

    def __str__(self) -> str:
        return f"start container {self.name}"


@dataclass(frozen=True, slots=True)
class RestartContainer:
    ref: str
    name: str

    def __str__(self) -> str:
        return f"restart container {self.name}"


@dataclass(frozen=True, slots=True)
class StopContainer:
    ref: str
    name: str
    timeout: int | None = None      # seconds; None: what the container itself says

    def __str__(self) -> str:
        return f"stop container {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    ref: str
    name: str
    volumes: bool = False           # its anonymous volumes too

    def __str__(self) -> str:
        return f"remove container {self.name}"


@dataclass(frozen=True, slots=True)
class RenameContainer:
    ref: str
    name: str

    def __str__(self) -> str:
        return f"rename container {self.ref} to {self.name}"


@dataclass(frozen=True, slots=True)
class WaitHealthy:
    ref: str
    name: str

    def __str__(self) -> str:
        return f"wait until {self.name} is healthy"


@dataclass(frozen=True, slots=True)
class WaitCompleted:
    ref: str
    name: str

    def __str__(self) -> str:
        return f"wait until {self.name} has ended well"


Operation = (
    PullImage | CreateNetwork | RemoveNetwork | CreateVolume | RemoveVolume | CreateContainer | StartContainer
    | RestartContainer | StopContainer | RemoveContainer | RenameContainer | WaitHealthy | WaitCompleted
)


@dataclass(frozen=True, slots=True)
class Step:
    """``number`` counts from 1; ``after`` are the steps that must have been done before, always lower numbers."""

    number: int
    operation: Operation
    cause: str
    after: tuple[int, ...] = ()

    def __str__(self) -> str:
        order = f"  after {', '.join(map(str, self.after))}" if self.after else ""
        return f"{self.number:>3}  {self.operation}  ({self.cause}){order}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in an order in which they may be done one by one; the edges allow more. Prints as text."""

    project: str
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.steps

    def __str__(self) -> str:
        lines = [f"warning: {w}" for w in self.warnings]
        lines += [str(step) for step in self.steps] or [f"{self.project}: nothing to do"]
        return "\n".join(lines)


class Draft:
    """A plan that is being made."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.steps: list[Step] = []
        self.warnings: list[str] = []

    def add(self, operation: Operation, cause: str, after: set[int] | tuple[int, ...] = ()) -> int:
        """Adds a step behind the steps *after*; its number."""
        number = len(self.steps) + 1
        self.steps.append(Step(number, operation, cause, tuple(sorted(after))))
        return number

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def done(self) -> Plan:
        return Plan(self.project, tuple(self.steps), tuple(self.warnings))
