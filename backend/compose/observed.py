"""What is there: an engine's containers, networks, volumes and images, as far as a stack is concerned. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.compose.model import Dependency

_ANONYMOUS = re.compile(r"[0-9a-f]{64}\Z")
_HEX_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}\Z")


@dataclass(frozen=True, slots=True)
class ObservedMount:
    kind: str
    name: str
    destination: str

    @property
    def is_anonymous(self) -> bool:
        """A volume that the engine named itself: its data is found only through its container."""
        return self.kind == "volume" and bool(_ANONYMOUS.match(self.name))


@dataclass(frozen=True, slots=True)
class ObservedContainer:
    """A container of the stack. ``own_hash`` is empty if another program made it; ``networks`` are (name, ID or "")."""

    id: str
    name: str
    service: str
    number: int
    state: str
    status: str
    image: str
    image_id: str
    own_hash: str = ""
    their_hash: str = ""
    one_off: bool = False
    depends_on: tuple[Dependency, ...] = ()
    networks: tuple[tuple[str, str], ...] = ()
    mounts: tuple[ObservedMount, ...] = ()
    ports: tuple[str, ...] = ()
    files: str = ""
    directory: str = ""

    @property
    def is_up(self) -> bool:
        return self.state in ("running", "restarting", "paused")


@dataclass(frozen=True, slots=True)
class ObservedNetwork:
    """``project`` and ``key`` are empty for a network that belongs to no stack."""

    id: str
    name: str
    project: str
    key: str
    own_hash: str = ""


@dataclass(frozen=True, slots=True)
class ObservedVolume:
    name: str
    project: str
    key: str
    own_hash: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at an engine. Networks and volumes are all of the engine's, containers only the stack's."""

    project: str
    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()
    images: tuple[tuple[str, str], ...] = ()    # (reference in its short form, image ID)

    def of_service(self, name: str) -> tuple[ObservedContainer, ...]:
        """The service's containers by number, without one-off ones."""
        return tuple(sorted((c for c in self.containers if c.service == name and not c.one_off),
                            key=lambda c: (c.number, c.name)))

    def network(self, name: str) -> ObservedNetwork | None:
        return next((n for n in self.networks if n.name == name), None)

    def volume(self, name: str) -> ObservedVolume | None:
        return next((v for v in self.volumes if v.name == name), None)

    def image_id(self, reference: str) -> str:
        """The ID of the local image *reference*, or "" if there is none."""
        short = short_reference(reference)
        for known, image_id in self.images:
            if known == short:
                return image_id
        if _HEX_ID.match(reference):
            wanted = reference.removeprefix("sha256:")
            return next((i for _, i in self.images if i.removeprefix("sha256:").startswith(wanted)), "")
        return ""


def short_reference(reference: str) -> str:
    """A reference as an engine lists it: without Docker Hub's name, with a tag or digest."""
    text = reference
    for prefix in ("docker.io/", "index.docker.io/"):
        text = text.removeprefix(prefix)
    text = text.removeprefix("library/")
    name, at, digest = text.partition("@")
    if at:
        return f"{name.rpartition(':')[0] if _is_tagged(name) else name}@{digest}"
    return with_tag(name)


def with_tag(reference: str) -> str:
    """*reference* with `:latest` where it has neither tag nor digest."""
    return reference if "@" in reference or _is_tagged(reference) else f"{reference}:latest"


def _is_tagged(name: str) -> bool:
    return ":" in name.rpartition("/")[2]
