"""The operations of the Engine API, one method each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from backend.client.connection import Connection, Filters
from backend.client.container_calls import ContainerCalls
from backend.client.hijack import Stream, hijack
from backend.client.slipway import SlipwayCalls
from backend.client.volume_files import VolumeFiles
from backend.errors import InvalidArgument, ServerError
from backend.spec import api
from backend.spec.api.usage import Usage
from backend.spec.api.wire import decode
from backend.spec.reference import parse


def _enc(ref: str) -> str:
    return quote(ref, safe="")


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a pull, push, load or import, as the engine tells it. *id* is the layer's short ID or empty."""

    id: str = ""
    status: str = ""
    current: int = 0
    total: int = 0
    text: str = ""

    def __str__(self) -> str:
        said = " ".join(part for part in (f"{self.id}:" if self.id else "", self.status or self.text.rstrip()) if part)
        return f"{said} {100 * self.current // self.total} %" if self.total else said


class _Detail(msgspec.Struct):
    current: int | None = None
    total: int | None = None


class _Line(msgspec.Struct):
    id: str = ""
    status: str = ""
    stream: str = ""
    error: str = ""
    progressDetail: _Detail | None = None


def progress(line: bytes) -> Progress:
    """One JSON line of a progress stream. Raises :class:`ServerError` where the line tells of a failure."""
    raw = decode(line, _Line)
    if raw.error:
        raise ServerError(raw.error)
    detail = raw.progressDetail or _Detail()
    return Progress(raw.id, raw.status, detail.current or 0, detail.total or 0, raw.stream)


class Client(ContainerCalls, SlipwayCalls):
    """An engine, by its socket (``unix:///path`` or a path). A ref is a name, an ID or a unique prefix of one."""

    def __init__(self, address: str) -> None:
        self.connection = Connection(address)

    @property
    def path(self) -> str:
        """The socket's path."""
        return self.connection.path

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections."""
        await self.connection.close()

    # -- system --------------------------------------------------------------------------------------------------
    async def ping(self) -> None:
        """Raises if no engine answers."""
        await self.connection.send("GET", "/_ping")

    async def version(self) -> api.Version:
        return await self.connection.call("GET", "/version", api.Version)

    async def info(self) -> api.Info:
        return await self.connection.call("GET", "/info", api.Info)

    async def disk_usage(self, *kinds: str) -> api.DiskUsage:
        """What takes room. *kinds*: container, image, volume, build-cache; none = all (volumes are read whole)."""
        wanted = "?" + "&".join(f"type={one}" for one in kinds) if kinds else ""
        return await self.connection.call("GET", f"/system/df{wanted}", api.DiskUsage)

    async def events(
        self, *, filters: Filters | None = None, since: str | None = None, until: str | None = None
    ) -> AsyncIterator[api.Event]:
        """Everything that happens, as it happens, until the iterator is closed."""
        async for line in self.connection.lines(
            "GET", "/events", query={"since": since, "until": until}, filters=filters
        ):
            yield decode(line, api.Event)

    async def check_auth(self, auth: api.AuthConfig) -> api.AuthResult:
        """Asks the registry through the engine whether these credentials are good. Raises Unauthorized if not."""
        return await self.connection.call("POST", "/auth", api.AuthResult, body=auth)

    # -- containers ----------------------------------------------------------------------------------------------
    async def list_containers(
        self, *, all: bool = False, limit: int | None = None, size: bool = False, filters: Filters | None = None
    ) -> list[api.ContainerSummary]:
        return await self.connection.call(
            "GET",
            "/containers/json",
            list[api.ContainerSummary],
            query={"all": all, "limit": limit, "size": size or None},
            filters=filters,
        )

    async def create_container(
        self, body: api.ContainerCreate, *, name: str = "", platform: str = ""
    ) -> api.ContainerCreated:
        return await self.connection.call(
            "POST",
            "/containers/create",
            api.ContainerCreated,
            body=body,
            query={"name": name or None, "platform": platform or None},
        )

    async def inspect_container(self, ref: str, *, size: bool = False) -> api.ContainerInspect:
        return await self.connection.call(
            "GET", f"/containers/{_enc(ref)}/json", api.ContainerInspect, query={"size": size or None}
        )

    async def inspect_raw(self, kind: str, ref: str) -> Any:
        """The answer of inspect as plain JSON, for showing whole. *kind*: containers, images, networks, volumes."""
        suffix = "/json" if kind in ("containers", "images") else ""
        async with self.connection.open("GET", f"/{kind}/{_enc(ref)}{suffix}") as answer:
            return msgspec.json.decode(await answer.read())

    async def start_container(self, ref: str) -> None:
        """Raises NotModified if it runs already."""
        await self.connection.send("POST", f"/containers/{_enc(ref)}/start")

    async def stop_container(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        """*timeout* in seconds. Raises NotModified if it does not run."""
        await self.connection.send("POST", f"/containers/{_enc(ref)}/stop", query={"t": timeout, "signal": signal})

    async def restart_container(self, ref: str, *, timeout: int | None = None, signal: str | None = None) -> None:
        await self.connection.send("POST", f"/containers/{_enc(ref)}/restart", query={"t": timeout, "signal": signal})

    async def kill_container(self, ref: str, *, signal: str | None = None) -> None:
        await self.connection.send("POST", f"/containers/{_enc(ref)}/kill", query={"signal": signal})

    async def pause_container(self, ref: str) -> None:
        await self.connection.send("POST", f"/containers/{_enc(ref)}/pause")

    async def unpause_container(self, ref: str) -> None:
        await self.connection.send("POST", f"/containers/{_enc(ref)}/unpause")

    async def rename_container(self, ref: str, name: str) -> None:
        await self.connection.send("POST", f"/containers/{_enc(ref)}/rename", query={"name": name})

    async def wait_container(self, ref: str, *, condition: str = "not-running") -> api.WaitResult:
        """Waits for *condition* (not-running, next-exit or removed)."""
        return await self.connection.call(
            "POST", f"/containers/{_enc(ref)}/wait", api.WaitResult, query={"condition": condition}
        )

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        await self.connection.send("DELETE", f"/containers/{_enc(ref)}", query={"force": force, "v": volumes})

    async def top(self, ref: str, *, ps_args: str | None = None) -> api.Top:
        return await self.connection.call("GET", f"/containers/{_enc(ref)}/top", api.Top, query={"ps_args": ps_args})

    async def stats(self, ref: str) -> AsyncIterator[api.Stats]:
        """A sample a second until the iterator is closed."""
        async for line in self.connection.lines("GET", f"/containers/{_enc(ref)}/stats", query={"stream": True}):
            yield decode(line, api.Stats)

    async def usage(self, ref: str, *, step: int = 1, since: float = 0.0) -> Usage:
        """What it used over time (Slipway only): *step* 1 for ten minutes by the second, 10 for a day."""
        return await self.connection.call("GET", f"/slipway/containers/{_enc(ref)}/usage", Usage,
                                          query={"step": step, "since": f"{since:.3f}"})

    async def stats_once(self, ref: str) -> api.Stats:
        """One sample, at once."""
        return await self.connection.call(
            "GET", f"/containers/{_enc(ref)}/stats", api.Stats, query={"stream": False, "one-shot": True}
        )

    async def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        timestamps: bool = False,
        tail: int | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> AsyncIterator[tuple[int, bytes]]:
        """The log as (1: stdout or 2: stderr, bytes). *follow*: until the container ends or the iterator is closed."""
        query = {
            "follow": follow,
            "stdout": stdout,
            "stderr": stderr,
            "timestamps": timestamps,
            "since": since,
            "until": until,
            "tail": "all" if tail is None else tail,
        }
        async with self.connection.open("GET", f"/containers/{_enc(ref)}/logs", query=query) as answer:
            multiplexed = answer.content_type == "application/vnd.docker.multiplexed-stream"
            rest = b""
            async for piece in answer.content.iter_any():
                if not multiplexed:
                    yield 1, piece
                    continue
                rest += piece
                start = 0
                while len(rest) - start >= 8:
                    end = start + 8 + int.from_bytes(rest[start + 4 : start + 8], "big")
                    if end > len(rest):
                        break
                    yield rest[start], rest[start + 8 : end]
                    start = end
                rest = rest[start:]

    async def attach(
        self,
        ref: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        logs: bool = False,
        detach_keys: str = "",
    ) -> Stream:
        """The container's streams from now on (*logs*: and what was). May be called before it starts."""
        keys = f"&detachKeys={quote(detach_keys)}" if detach_keys else ""
        return await hijack(
            self.path,
            f"/containers/{_enc(ref)}/attach?stream=1&stdin={int(stdin)}&stdout={int(stdout)}"
            f"&stderr={int(stderr)}&logs={int(logs)}{keys}",
        )

    async def resize_container(self, ref: str, *, rows: int, columns: int) -> None:
        await self.connection.send("POST", f"/containers/{_enc(ref)}/resize", query={"h": rows, "w": columns})

    async def prune_containers(self, *, filters: Filters | None = None) -> api.ContainersPruned:
        return await self.connection.call("POST", "/containers/prune", api.ContainersPruned, filters=filters)

    # -- exec ----------------------------------------------------------------------------------------------------
    async def create_exec(self, ref: str, body: api.ExecCreate) -> str:
        """Its ID."""
        return (await self.connection.call("POST", f"/containers/{_enc(ref)}/exec", api.IdResponse, body=body)).id

    async def start_exec(self, exec_id: str, *, tty: bool = False) -> Stream:
        """Runs it and takes its streams."""
        return await hijack(self.path, f"/exec/{exec_id}/start", body={"Detach": False, "Tty": tty}, tty=tty)

    async def start_exec_detached(self, exec_id: str) -> None:
        await self.connection.send("POST", f"/exec/{exec_id}/start", body={"Detach": True})

    async def resize_exec(self, exec_id: str, *, rows: int, columns: int) -> None:
        await self.connection.send("POST", f"/exec/{exec_id}/resize", query={"h": rows, "w": columns})

    async def inspect_exec(self, exec_id: str) -> api.ExecInspect:
        return await self.connection.call("GET", f"/exec/{exec_id}/json", api.ExecInspect)

    # -- images --------------------------------------------------------------------------------------------------
    async def list_images(self, *, all: bool = False, filters: Filters | None = None) -> list[api.ImageSummary]:
        return await self.connection.call(
            "GET", "/images/json", list[api.ImageSummary], query={"all": all}, filters=filters
        )

    async def inspect_image(self, ref: str) -> api.ImageInspect:
        return await self.connection.call("GET", f"/images/{_enc(ref)}/json", api.ImageInspect)

    async def image_history(self, ref: str) -> list[api.HistoryItem]:
        return await self.connection.call("GET", f"/images/{_enc(ref)}/history", list[api.HistoryItem])

    async def pull_image(self, reference: str, *, platform: str = "", auth: str = "") -> AsyncIterator[Progress]:
        """Pulls; *auth* is the value of X-Registry-Auth. Closing the iterator cancels. A failure is raised."""
        headers = {"X-Registry-Auth": auth} if auth else None
        reference = _one_tag(reference)
        lines = self.connection.lines(
            "POST", "/images/create", headers=headers, query={"fromImage": reference, "platform": platform or None}
        )
        async for line in lines:
            yield progress(line)

    async def push_image(self, repository: str, tag: str, *, auth: str = "") -> AsyncIterator[Progress]:
        """Pushes; no *tag*: all tags of the repository. Closing the iterator cancels. A failure is raised."""
        lines = self.connection.lines(
            "POST", f"/images/{_enc(repository)}/push", query={"tag": tag or None},
            # The header is asked for even where nobody has signed in.
            headers={"X-Registry-Auth": auth or "e30="},
        )
        async for line in lines:
            yield progress(line)

    async def tag_image(self, ref: str, repository: str, tag: str) -> None:
        await self.connection.send("POST", f"/images/{_enc(ref)}/tag", query={"repo": repository, "tag": tag})

    async def remove_image(self, ref: str, *, force: bool = False, prune: bool = True) -> list[api.ImageDeleteItem]:
        return await self.connection.call(
            "DELETE", f"/images/{_enc(ref)}", list[api.ImageDeleteItem], query={"force": force, "noprune": not prune}
        )

    async def save_images(self, refs: list[str]) -> AsyncIterator[bytes]:
        """A tar of the images."""
        target = "/images/get?" + "&".join(f"names={_enc(ref)}" for ref in refs)
        async for piece in self.connection.pieces("GET", target):
            yield piece

    async def load_images(self, source: AsyncIterator[bytes]) -> AsyncIterator[Progress]:
        """Loads a tar of images."""
        lines = self.connection.lines(
            "POST", "/images/load", data=source, headers={"Content-Type": "application/x-tar"}
        )
        async for line in lines:
            yield progress(line)

    async def import_image(
        self, source: AsyncIterator[bytes], *, repository: str = "", tag: str = "", message: str = ""
    ) -> AsyncIterator[Progress]:
        """Makes an image of a root file system's tar."""
        query = {"fromSrc": "-", "repo": repository or None, "tag": tag or None, "message": message or None}
        lines = self.connection.lines(
            "POST", "/images/create", query=query, data=source, headers={"Content-Type": "application/x-tar"}
        )
        async for line in lines:
            yield progress(line)

    async def prune_images(self, *, filters: Filters | None = None) -> api.ImagesPruned:
        return await self.connection.call("POST", "/images/prune", api.ImagesPruned, filters=filters)

    # -- networks ------------------------------------------------------------------------------------------------
    async def list_networks(self, *, filters: Filters | None = None) -> list[api.Network]:
        return await self.connection.call("GET", "/networks", list[api.Network], filters=filters)

    async def inspect_network(self, ref: str) -> api.Network:
        return await self.connection.call("GET", f"/networks/{_enc(ref)}", api.Network)

    async def create_network(self, body: api.NetworkCreate) -> api.NetworkCreated:
        return await self.connection.call("POST", "/networks/create", api.NetworkCreated, body=body)

    async def remove_network(self, ref: str) -> None:
        await self.connection.send("DELETE", f"/networks/{_enc(ref)}")

    async def connect_network(self, ref: str, body: api.NetworkConnect) -> None:
        await self.connection.send("POST", f"/networks/{_enc(ref)}/connect", body=body)

    async def disconnect_network(self, ref: str, body: api.NetworkDisconnect) -> None:
        await self.connection.send("POST", f"/networks/{_enc(ref)}/disconnect", body=body)

    # -- volumes -------------------------------------------------------------------------------------------------
    async def list_volumes(self, *, filters: Filters | None = None) -> api.VolumeList:
        return await self.connection.call("GET", "/volumes", api.VolumeList, filters=filters)

    async def inspect_volume(self, name: str) -> api.Volume:
        return await self.connection.call("GET", f"/volumes/{_enc(name)}", api.Volume)

    async def create_volume(self, body: api.VolumeCreate) -> api.Volume:
        return await self.connection.call("POST", "/volumes/create", api.Volume, body=body)

    def volume_files(self, name: str) -> VolumeFiles:
        """What is in a volume."""
        return VolumeFiles(self.connection, name)

    async def remove_volume(self, name: str, *, force: bool = False) -> None:
        await self.connection.send("DELETE", f"/volumes/{_enc(name)}", query={"force": force})


def _one_tag(reference: str) -> str:
    """*reference* with ``latest`` where it names neither tag nor digest: to an engine that would mean all tags."""
    try:
        named = parse(reference)
    except InvalidArgument:
        return reference  # the engine says what is wrong with it
    return reference if named.tag or named.digest else f"{reference}:latest"
