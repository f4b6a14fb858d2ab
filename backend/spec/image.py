"""Images as data: descriptors, manifests, indexes and configurations of the OCI image-spec and Docker's schema 2. Pure.

Decoding is bounded by the caller (4 MiB) and strict about types; unknown fields are ignored, as the specs ask.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct, field

from backend.errors import InvalidArgument
from backend.spec.api.images import ImageContainerConfig
from backend.spec.api.wire import convert
from backend.spec.reference import is_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = ("application/vnd.docker.distribution.manifest.v1+json",
                  "application/vnd.docker.distribution.manifest.v1+prettyjws")
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
#: Manifests and configurations beyond this are refused (safety: a registry may send without end).
DOCUMENT_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Platform:
    """What a program runs on, as images name it."""

    os: str
    architecture: str
    variant: str = ""

    def fits(self, other: Platform) -> bool:
        """Whether what is for *other* is what was asked for; what either leaves open fits."""
        return all(not mine or not theirs or mine == theirs for mine, theirs in (
            (self.os, other.os), (self.architecture, other.architecture), (self.variant, other.variant)))

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def parse_platform(text: str) -> Platform:
    """``linux/arm64/v8`` (the os may be left out). Raises :class:`InvalidArgument`."""
    parts = text.lower().split("/")
    if len(parts) == 1 and parts[0] != "linux":
        parts.insert(0, "linux")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InvalidArgument(f"{text!r} is no platform; write it as linux/amd64 or linux/arm64/v8")
    names = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "i386": "386"}
    return Platform(parts[0], names.get(parts[1], parts[1]), parts[2] if len(parts) == 3 else "")


class _PlatformField(Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(Struct, frozen=True, omit_defaults=True):
    """What a blob is: OCI image-spec, descriptor.md. *size* in bytes."""

    media_type: str = field(name="mediaType", default="")
    digest: str = ""
    size: int = -1
    platform: _PlatformField | None = None
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None


class Manifest(Struct, omit_defaults=True):
    """One image for one platform."""

    config: Descriptor
    layers: list[Descriptor]
    media_type: str = field(name="mediaType", default="")
    # By a factory, so that it is written although it is the default: registries refuse a manifest without it.
    schema_version: int = field(name="schemaVersion", default_factory=lambda: 2)
    artifact_type: str | None = field(name="artifactType", default=None)
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(Struct):
    """A list of manifests, one a platform."""

    manifests: list[Descriptor]
    media_type: str = field(name="mediaType", default="")


class History(Struct, omit_defaults=True):
    """One step of how the image was made."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class RootFs(Struct):
    """The layers by the digest of their uncompressed tar (diff ID), lowest first."""

    diff_ids: list[str] = []
    type: str = "layers"


class ImageConfig(Struct):
    """The image's configuration: OCI image-spec, config.md."""

    architecture: str = ""
    os: str = "linux"
    created: str | None = None
    author: str | None = None
    variant: str | None = None
    comment: str | None = None
    docker_version: str | None = None
    config: ImageContainerConfig = field(default_factory=ImageContainerConfig)
    rootfs: RootFs = field(default_factory=RootFs)
    history: list[History] = []


def digest_of(data: bytes) -> str:
    """The digest that *data* has as a blob."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _load(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidArgument(f"the {what} is larger than {DOCUMENT_LIMIT >> 20} MiB and is refused")
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the {what} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidArgument(f"the {what} is not a JSON object")
    return raw


def _checked(descriptor: Descriptor, what: str) -> None:
    if not is_digest(descriptor.digest):
        raise InvalidArgument(f"the {what} has the digest {descriptor.digest[:80]!r}; only sha256 is supported")
    if descriptor.size < 0:
        raise InvalidArgument(f"the {what} {descriptor.digest} has no valid size")


def decode_config(data: bytes) -> ImageConfig:
    """Raises :class:`InvalidArgument` where *data* is no image configuration that can be run here."""
    made = convert(_load(data, "image configuration"), ImageConfig)
    for diff_id in made.rootfs.diff_ids:
        if not is_digest(diff_id):
            raise InvalidArgument(f"the image configuration names the layer {diff_id[:80]!r}; only sha256 is supported")
    return made


def decode_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index, told by its own media type, the registry's (*media_type*), or its fields.

    Raises:
        InvalidArgument: neither, or one of Docker's schema 1, which has no configuration to verify.
    """
    raw = _load(data, "manifest")
    kind = raw.get("mediaType") or media_type.partition(";")[0].strip()
    if kind in DOCKER_SCHEMA1 or raw.get("schemaVersion") == 1:
        raise InvalidArgument("this image is in Docker's schema 1, which newer tools neither make nor can verify; "
                              "push it again with a current client")
    # A document that is both could be read as one thing by a scanner and as another by us (CVE-2021-41190).
    if "manifests" in raw and ("layers" in raw or "config" in raw):
        raise InvalidArgument("the manifest is ambiguous: it has both manifests and layers")
    if kind in INDEXES or "manifests" in raw:
        index = convert(raw, Index)
        index.manifests = [one for one in index.manifests if is_digest(one.digest) and one.size >= 0]
        return index
    if kind and kind not in MANIFESTS:
        raise InvalidArgument(f"the media type {kind[:100]!r} is no image that can be run")
    manifest = convert(raw, Manifest)
    _checked(manifest.config, "configuration")
    for layer in manifest.layers:
        _checked(layer, "layer")
        if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
            raise InvalidArgument(f"the layer {layer.digest} must be fetched from elsewhere by its licence "
                                  "(a foreign layer, as Windows images have); such layers are not supported")
    return manifest


def choose(index: Index, wish: Platform) -> Descriptor | None:
    """The entry of *index* for *wish*: the exact variant, else the same architecture. Attestations are passed over."""
    fitting = [one for one in index.manifests if one.platform is not None and one.platform.os == wish.os
               and one.platform.architecture == wish.architecture]
    exact = [one for one in fitting if one.platform is not None and one.platform.variant == wish.variant]
    if exact:
        return exact[0]
    if not wish.variant and fitting:
        # linux/arm64 means v8 and linux/arm the newest that is there, as Docker chooses.
        return max(fitting, key=lambda one: one.platform.variant if one.platform else "")
    plain = [one for one in index.manifests if one.platform is None or not one.platform.architecture]
    return fitting[0] if fitting and wish.architecture != "arm" else plain[0] if plain else None


def encode(document: Any) -> bytes:
    """A document in the one form that we write: compact, keys as given."""
    return json.dumps(msgspec.to_builtins(document), separators=(",", ":")).encode()
