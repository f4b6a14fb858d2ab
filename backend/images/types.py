"""What the images room hands out and takes in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from backend.spec.api.images import ImageContainerConfig
from backend.spec.image import Descriptor, ImageConfig, Platform


class Counted(Protocol):
    """What a confined child tells of its work."""

    @property
    def entries(self) -> int:
        """Number of entries."""

    @property
    def size(self) -> int:
        """Bytes written."""


class Confined(Protocol):
    """Work on untrusted archives in a child that can reach nothing else; given by the engine, served by the keeper."""

    async def unpack(self, tar: int, target: int) -> Counted:
        """The uncompressed tar (descriptor) into the directory (descriptor)."""

    async def index(self, tar: int, index: int) -> Counted:
        """An EROFS index of the tar (descriptor) into the file (descriptor)."""


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one request. Its repr shows nothing of them."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """As dockerd's flags: *mirrors* for docker.io (URLs), registries that may be reached without TLS (host[:port], or a
    network of literal addresses), proxies (the environment's where none is said). *certificates*: folders with
    ``HOST:PORT/`` folders of certificates. *pause*: seconds before the first retry; *stall*: seconds of silence after
    which a connection is given up."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    certificates: tuple[str, ...] = ("/etc/slipway/certs.d", "/etc/docker/certs.d")
    pause: float = 0.25
    stall: float = 60.0


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """One line of a progress stream, in the shape that docker's client draws."""

    status: str = ""
    id: str = ""
    current: int = 0
    total: int = 0
    stream: str = ""
    aux: dict[str, Any] | None = None

    def wire(self) -> dict[str, Any]:
        """As JSON on the wire."""
        out: dict[str, Any] = {}
        if self.aux is not None:
            return {"progressDetail": {}, "aux": self.aux}
        if self.stream:
            out["stream"] = self.stream
        if self.status:
            out["status"] = self.status
        if self.current or self.total:
            out["progressDetail"] = {"current": self.current, "total": self.total}
        elif self.id:
            out["progressDetail"] = {}
        if self.id:
            out["id"] = self.id
        return out


def retrying(seconds: float) -> str:
    """What a broken transfer is said to do, as docker says it."""
    whole = max(1, round(seconds))
    return f"Retrying in {whole} second{'s' if whole > 1 else ''}"


Progress = Callable[[ProgressLine], None]
#: Called with the action (pull, tag, untag, delete, load, import, save), the image's ID or name, and attributes.
OnEvent = Callable[[str, str, dict[str, str]], None]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the store. *size*: bytes of its layers, uncompressed. *references*: familiar names with tags;
    *digests*: familiar names with digests; *tagged*: ns of the last tag or pull."""

    id: str
    details: ImageConfig
    references: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    tagged: int
    manifest: Descriptor | None
    parent: str = ""

    @property
    def config(self) -> ImageContainerConfig:
        """The defaults that it gives its containers."""
        return self.details.config

    @property
    def layers(self) -> tuple[str, ...]:
        """Diff IDs, lowest first."""
        return tuple(self.details.rootfs.diff_ids)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit says of its image. *defaults*: its configuration for containers; *name*: its reference or ""."""

    defaults: dict[str, Any]
    name: str = ""
    author: str = ""
    comment: str = ""
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container that uses an image."""

    id: str
    running: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """One step of a removal; one of the two is empty."""

    untagged: str = ""
    deleted: str = ""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step of how an image was made, newest first. *size* in bytes; *created* as the image says it."""

    id: str
    created: str
    created_by: str
    comment: str
    size: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest that an image's name stands for. *kind*: image, attestation or unknown; *available*: all of it is
    here; *content*: bytes of its blobs here, *unpacked*: of its layers' files; *own*: the one that containers run."""

    digest: str
    media_type: str
    size: int
    kind: str
    available: bool
    content: int = 0
    unpacked: int = 0
    platform: Platform | None = None
    subject: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A repository that a search found."""

    name: str
    description: str
    official: bool
    automated: bool
    stars: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something broken that a check found. *done*: how it was mended, "" = it was not; *why*: why it could not be."""

    image: str
    digest: str
    what: str
    done: str
    why: str = ""
