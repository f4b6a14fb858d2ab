"""Wire types of the sections Image and Distribution of the Engine API."""

from __future__ import annotations

from msgspec import Struct

from backend.spec.api.containers import ContainerConfig, Empty, GraphDriver, HealthConfig
from backend.spec.api.wire import UNSET, Maybe, StrSlice, Wire, field


class Platform(Struct, kw_only=True):
    """An operating system and processor."""

    architecture: str = ""
    os: str = ""
    os_version: Maybe[str] = field(name="os.version", default=UNSET)
    os_features: Maybe[list[str]] = field(name="os.features", default=UNSET)
    variant: Maybe[str] = UNSET


class Descriptor(Struct, kw_only=True):
    """What a registry serves under a digest. Size in bytes."""

    media_type: str = field(name="mediaType", default="")
    digest: str = ""
    size: int = 0
    urls: Maybe[list[str]] = UNSET
    annotations: Maybe[dict[str, str]] = UNSET
    platform: Maybe[Platform] = UNSET
    artifact_type: Maybe[str] = field(name="artifactType", default=UNSET)


class ImageManifestSize(Wire):
    """Bytes of a manifest's blobs here, and with its unpacked layers."""

    total: int = 0
    content: int = 0


class ImageManifestUnpacked(Wire):
    """Bytes of the files of an image's layers."""

    unpacked: int = 0


class ImageManifestData(Wire):
    """An image among the manifests of a name."""

    platform: Platform = field(default_factory=Platform)
    containers: list[str] = []
    size: ImageManifestUnpacked = field(default_factory=ImageManifestUnpacked)


class AttestationData(Wire):
    """An attestation among the manifests of a name: the digest of the image that it is about."""

    for_: str = field(name="For", default="")


class ImageManifest(Wire):
    """One manifest of an image's name (`manifests=1`). Kind: image, attestation or unknown."""

    id: str = field(name="ID", default="")
    descriptor: Descriptor = field(default_factory=Descriptor)
    available: bool = False
    size: ImageManifestSize = field(default_factory=ImageManifestSize)
    kind: str = "unknown"
    image_data: Maybe[ImageManifestData] = UNSET
    attestation_data: Maybe[AttestationData] = UNSET


class ImageSummary(Wire):
    """One image in GET /images/json. `created`: seconds since the epoch; sizes in bytes, -1 = not counted."""

    id: str = field(name="Id")
    parent_id: str = field(name="ParentId", default="")
    repo_tags: list[str] = []
    repo_digests: list[str] = []
    created: int = 0
    size: int = 0
    shared_size: int = -1
    labels: dict[str, str] | None = None
    containers: int = -1
    descriptor: Maybe[Descriptor] = UNSET
    manifests: Maybe[list[ImageManifest]] = UNSET


class ImageContainerConfig(Wire):
    """The defaults that an image gives its containers."""

    user: str = ""
    exposed_ports: Maybe[dict[str, Empty]] = UNSET
    env: list[str] = []
    cmd: StrSlice | None = None
    healthcheck: Maybe[HealthConfig] = UNSET
    args_escaped: Maybe[bool] = UNSET
    volumes: dict[str, Empty] | None = None
    working_dir: str = ""
    entrypoint: StrSlice | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: Maybe[str] = UNSET
    shell: Maybe[StrSlice] = UNSET


class RootFs(Wire):
    """The layers of an image by diff ID, lowest first."""

    type: str = "layers"
    layers: list[str] = []


class ImageMetadata(Wire):
    """What the engine knows of an image and its image does not."""

    last_tag_time: str = "0001-01-01T00:00:00Z"


class ImageInspect(Wire):
    """GET /images/{name}/json. Size in bytes."""

    id: str = field(name="Id")
    repo_tags: list[str] = []
    repo_digests: list[str] = []
    parent: str = ""
    comment: str = ""
    created: str | None = None
    docker_version: str = ""
    author: str = ""
    config: ImageContainerConfig = field(default_factory=ImageContainerConfig)
    architecture: str = ""
    variant: Maybe[str] = UNSET
    os: str = "linux"
    os_version: Maybe[str] = UNSET
    size: int = 0
    virtual_size: Maybe[int] = UNSET
    graph_driver: GraphDriver = field(default_factory=GraphDriver)
    root_fs: RootFs = field(name="RootFS", default_factory=RootFs)
    metadata: ImageMetadata = field(default_factory=ImageMetadata)
    descriptor: Maybe[Descriptor] = UNSET
    manifests: Maybe[list[ImageManifest]] = UNSET


class HistoryItem(Wire):
    """One step of an image's history. `created`: seconds since the epoch; size in bytes."""

    id: str = field(name="Id", default="<missing>")
    created: int = 0
    created_by: str = ""
    tags: list[str] | None = None
    size: int = 0
    comment: str = ""


class ImageDeleteItem(Wire):
    """One line of an image removal: a reference that went, or an image."""

    untagged: Maybe[str] = UNSET
    deleted: Maybe[str] = UNSET


class ImagesPruned(Wire):
    """The report of an image prune. Space in bytes."""

    images_deleted: list[ImageDeleteItem] = []
    space_reclaimed: int = 0


class DistributionInspect(Wire):
    """GET /distribution/{name}/json."""

    descriptor: Descriptor = field(default_factory=Descriptor)
    platforms: list[Platform] = []


class CommitConfig(ContainerConfig):
    """The body of POST /commit."""


class SearchResult(Struct, kw_only=True):
    """One repository of GET /images/search."""

    name: str = ""
    description: str = ""
    is_official: bool = False
    is_automated: bool = False
    star_count: int = 0


class ImageProblem(Wire):
    """Something broken in the store. `repaired`: how it was mended, "" = it was not, for the `reason`."""

    image: str = ""
    digest: str = ""
    problem: str = ""
    repaired: str = ""
    reason: str = ""


class ImagesChecked(Wire):
    """The report of POST /slipway/images/check. `size` in bytes."""

    blobs: int = 0
    size: int = 0
    problems: list[ImageProblem] = []
