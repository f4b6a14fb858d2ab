"""A small engine in memory with the face of `backend.client.Client`; a test checks that the faces agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from backend.client import Progress
from backend.errors import EngineError, NotFound, Unavailable
from backend.spec import api


class FakeEngine:
    """Containers and images that a test changes, each change told by an event. `asked` counts requests by method."""

    def __init__(self) -> None:
        self.containers: dict[str, api.ContainerSummary] = {}
        self.images: dict[str, api.ImageSummary] = {}
        self.networks: dict[str, api.Network] = {}
        self.volumes: dict[str, api.Volume] = {}
        self.attached: dict[str, dict[str, str]] = {}
        self.asked: dict[str, int] = {}
        self.away = False
        self.refuse: dict[str, EngineError] = {}
        self.streams: set[str] = set()
        self.samples: dict[str, asyncio.Queue[api.Stats]] = {}
        self.pulls: list[Progress] = []
        self._listeners: set[asyncio.Queue[api.Event | None]] = set()

    # --- what a test does --------------------------------------------------------------------------------------------

    def add(self, key: str, name: str, state: str = "running", *, image: str = "busybox", labels: dict[str, str] | None = None,
            ports: list[api.Port] | None = None) -> str:
        """A container appears, as if somebody else had made it."""
        known = key in self.containers
        self.containers[key] = api.ContainerSummary(
            id=key, names=[f"/{name}"], image=image, image_id="sha256:1", command="sleep", created=1_700_000_000, state=state,
            status="Up 1 second" if state == "running" else "Exited (0) 1 second ago", labels=labels or {}, ports=ports or [])
        self.tell("container", "rename" if known else "create", key)
        return key

    def set_state(self, key: str, state: str, action: str) -> None:
        """A container starts or ends."""
        old = self.containers[key]
        self.containers[key] = api.ContainerSummary(
            id=old.id, names=old.names, image=old.image, image_id=old.image_id, command=old.command, created=old.created,
            state=state, status="Up" if state == "running" else "Exited (0) now", labels=old.labels, ports=old.ports)
        self.tell("container", action, key)

    def drop(self, key: str) -> None:
        """A container goes."""
        del self.containers[key]
        self.tell("container", "destroy", key)

    def tell(self, kind: str, action: str, key: str) -> None:
        """Send an event to who listens."""
        for one in self._listeners:
            one.put_nowait(api.Event(type=kind, action=action, actor=api.Actor(id=key)))

    def go_away(self) -> None:
        """The helper stops: streams end, requests fail."""
        self.away = True
        for one in self._listeners:
            one.put_nowait(None)

    def come_back(self) -> None:
        """The helper is there again."""
        self.away = False

    @property
    def listeners(self) -> int:
        """How many follow the events."""
        return len(self._listeners)

    # --- the client's face -------------------------------------------------------------------------------------------

    def _count(self, method: str) -> None:
        self.asked[method] = self.asked.get(method, 0) + 1
        if self.away:
            raise Unavailable("the engine is away")
        if method in self.refuse:
            raise self.refuse[method]

    async def close(self) -> None:
        return None

    async def version(self) -> api.Version:
        self._count("version")
        return api.Version(version="0.1", platform=api.PlatformName(name="Slipway"))

    async def events(self, *, filters: Mapping[str, Sequence[str]] | None = None, since: str | None = None,
                     until: str | None = None) -> AsyncIterator[api.Event]:
        self._count("events")
        mine: asyncio.Queue[api.Event | None] = asyncio.Queue()
        self._listeners.add(mine)
        try:
            while (event := await mine.get()) is not None:
                yield event
        finally:
            self._listeners.discard(mine)

    async def list_containers(self, *, all: bool = False, limit: int | None = None, size: bool = False,
                              filters: Any = None) -> list[api.ContainerSummary]:
        self._count("list_containers")
        wanted = (filters or {}).get("id")
        return [one for one in self.containers.values() if not wanted or one.id in wanted]

    async def list_images(self, *, all: bool = False, filters: Any = None) -> list[api.ImageSummary]:
        self._count("list_images")
        return list(self.images.values())

    async def inspect_image(self, ref: str) -> api.ImageInspect:
        self._count("inspect_image")
        raise NotFound(f"No such image: {ref}")

    async def list_networks(self, *, filters: Any = None) -> list[api.Network]:
        self._count("list_networks")
        return list(self.networks.values())

    async def connect_network(self, ref: str, body: api.NetworkConnect) -> None:
        self._count("connect_network")
        self.attached.setdefault(body.container, {})[self.networks[ref].name] = "10.0.0.9"
        self._tell_network("connect", ref, body.container)

    async def disconnect_network(self, ref: str, body: api.NetworkDisconnect) -> None:
        self._count("disconnect_network")
        self.attached[body.container].pop(self.networks[ref].name)
        self._tell_network("disconnect", ref, body.container)

    async def remove_network(self, ref: str) -> None:
        self._count("remove_network")
        del self.networks[ref]
        self.tell("network", "destroy", ref)

    def _tell_network(self, action: str, ref: str, container: str) -> None:
        old = self.containers[container]
        found = {name: api.EndpointSettings(ip_address=address) for name, address in self.attached[container].items()}
        self.containers[container] = msgspec.structs.replace(old, network_settings=api.SummaryNetworks(networks=found))
        for one in self._listeners:
            one.put_nowait(api.Event(type="network", action=action, actor=api.Actor(id=ref, attributes={"container": container})))

    async def list_volumes(self, *, filters: Any = None) -> api.VolumeList:
        self._count("list_volumes")
        return api.VolumeList(volumes=list(self.volumes.values()))

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        self._count("remove_volume")
        del self.volumes[name]
        self.tell("volume", "destroy", name)

    async def stats(self, ref: str) -> AsyncIterator[api.Stats]:
        self._count("stats")
        self.streams.add(ref)
        queue = self.samples.setdefault(ref, asyncio.Queue())
        try:
            while True:
                yield await queue.get()
        finally:
            self.streams.discard(ref)

    async def start_container(self, ref: str) -> None:
        self._count("start_container")
        self.set_state(ref, "running", "start")

    async def stop_container(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        self._count("stop_container")
        self.set_state(ref, "exited", "die")

    async def restart_container(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        self._count("restart_container")
        self.set_state(ref, "running", "restart")

    async def pause_container(self, ref: str) -> None:
        self._count("pause_container")
        self.set_state(ref, "paused", "pause")

    async def unpause_container(self, ref: str) -> None:
        self._count("unpause_container")
        self.set_state(ref, "running", "unpause")

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        self._count("remove_container")
        if ref not in self.containers:
            raise NotFound(f"No such container: {ref}")
        self.drop(ref)

    async def logs(self, ref: str, *, follow: bool = False, stdout: bool = True, stderr: bool = True, timestamps: bool = False,
                   tail: int | None = None, since: str | None = None, until: str | None = None) -> AsyncIterator[tuple[int, bytes]]:
        self._count("logs")
        yield 1, b"2026-01-01T00:00:00.000000001Z hello\n"
        if follow:
            await asyncio.Event().wait()

    async def inspect_raw(self, kind: str, ref: str) -> Any:
        self._count("inspect_raw")
        return {"Id": ref, "State": {"Running": True}}

    async def pull_image(self, reference: str, *, platform: str = "", auth: str = "") -> AsyncIterator[Progress]:
        self._count("pull_image")
        for one in self.pulls:
            yield one
