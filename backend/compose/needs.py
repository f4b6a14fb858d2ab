"""What this room needs of an engine's client: `backend.client` has it, and so has anything that a test makes up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from backend.spec import api

Filters = Mapping[str, Sequence[str]]


class ComposeClient(Protocol):
    """The calls of the Engine API that a stack takes. A ref is an ID or a name; refusals are `backend.errors`."""

    async def list_containers(self, *, all: bool = False, filters: Filters | None = None) -> list[api.ContainerSummary]:
        """GET /containers/json."""

    async def list_networks(self, *, filters: Filters | None = None) -> list[api.Network]:
        """GET /networks."""

    async def list_volumes(self, *, filters: Filters | None = None) -> api.VolumeList:
        """GET /volumes."""

    async def list_images(self) -> list[api.ImageSummary]:
        """GET /images/json."""

    async def inspect_image(self, ref: str) -> api.ImageInspect:
        """GET /images/{ref}/json."""

    def pull_image(self, reference: str, *, platform: str = "", auth: str = "") -> AsyncIterator[object]:
        """POST /images/create; what it yields says by `str` how far it is."""

    async def create_container(self, body: api.ContainerCreate, *, name: str, platform: str) -> api.ContainerCreated:
        """POST /containers/create."""

    async def inspect_container(self, ref: str) -> api.ContainerInspect:
        """GET /containers/{ref}/json."""

    async def start_container(self, ref: str) -> None:
        """POST /containers/{ref}/start."""

    async def stop_container(self, ref: str, *, timeout: int | None = None) -> None:
        """POST /containers/{ref}/stop; *timeout* in seconds."""

    async def restart_container(self, ref: str) -> None:
        """POST /containers/{ref}/restart."""

    async def rename_container(self, ref: str, name: str) -> None:
        """POST /containers/{ref}/rename."""

    async def remove_container(self, ref: str, *, volumes: bool = False) -> None:
        """DELETE /containers/{ref}."""

    async def wait_container(self, ref: str) -> api.WaitResult:
        """POST /containers/{ref}/wait."""

    async def create_network(self, body: api.NetworkCreate) -> api.NetworkCreated:
        """POST /networks/create."""

    async def remove_network(self, ref: str) -> None:
        """DELETE /networks/{ref}."""

    async def create_volume(self, body: api.VolumeCreate) -> api.Volume:
        """POST /volumes/create."""

    async def remove_volume(self, name: str) -> None:
        """DELETE /volumes/{name}."""
