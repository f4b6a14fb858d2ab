"""What the engine keeps of a container: what was meant (`ContainerRecord`, written once) and how it is (`Status`)."""

from __future__ import annotations

from msgspec import Struct

from backend.network.records import Endpoint, PublishedPort
from backend.spec import api

RUNNING_STATES = frozenset({"running", "paused", "restarting"})


class MountRecord(Struct, kw_only=True, frozen=True):
    """One resolved mount. `kind`: bind, volume, tmpfs or image. `source`: a path of the host, "" for tmpfs."""

    kind: str
    target: str
    source: str = ""
    volume: str = ""                    # name of the volume, for kind "volume"
    driver: str = ""
    driver_options: dict[str, str] = {}
    labels: dict[str, str] = {}         # of a volume that is made for it
    mode: str = ""                      # as the user wrote it, shown in inspect
    read_only: bool = False
    propagation: str = ""
    options: tuple[str, ...] = ()       # of a tmpfs
    recursive: bool = True
    recursive_read_only: str = ""       # "", "never", "force"
    anonymous: bool = False
    copy: bool = True                   # an empty volume takes over what the image has at its target
    create_source: bool = False         # a missing source of a bind is made (the -v form)
    subpath: str = ""                   # of a volume or image: only this part of it is mounted
    image: str = ""                     # ID of the image, for kind "image"; `source` is its name as asked for


class IdRange(Struct, kw_only=True, frozen=True):
    """IDs of the host that are a container's, from `start` on. `keep_uid`, `keep_gid`: the one that is the same inside
    and outside, -1 for none."""

    start: int
    size: int
    keep_uid: int = -1
    keep_gid: int = -1


class ContainerRecord(Struct, kw_only=True):
    """A container as its user asked for it, completed from its image. Only rename, update and connect change it."""

    id: str
    name: str
    created: int
    image: str                          # ID: sha256:...
    image_name: str                     # as asked for
    path: str
    args: list[str]
    config: api.ContainerConfig
    host_config: api.HostConfig
    networks: dict[str, api.EndpointSettings]
    mounts: tuple[MountRecord, ...] = ()
    platform: str = "linux"
    own_log: bool = False               # its log is in our own store, although its driver is called json-file
    ids: IdRange | None = None          # of its user namespace; None: it has the host's


class Status(Struct, kw_only=True):
    """How a container is. Times in nanoseconds since the epoch, 0 = never."""

    state: str = "created"              # created running paused restarting exited dead
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    ever_started: bool = False
    stopped_by_user: bool = False       # a stop or kill that unless-stopped and always respect
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    removing: bool = False
    held: bool = False                  # paused by the engine for a copy of its files, which lets it go on afterwards

    @property
    def active(self) -> bool:
        """There is a process (paused too)."""
        return self.state in ("running", "paused")
