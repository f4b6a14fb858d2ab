"""The plug-ins that this engine knows: found by name, asked once what they are, called with retries and time-outs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from backend.errors import EngineError, NotFound, ServerError, Unavailable
from backend.plugins.discovery import Address, find, names
from backend.plugins.http import PluginFault, post

log = logging.getLogger(__name__)
T = TypeVar("T")

VOLUME, NETWORK, IPAM, AUTHZ = "VolumeDriver", "NetworkDriver", "IpamDriver", "authz"
# Seconds for one call. A mount may well wait for a network; a list stands between the user and his table.
_TIMES = {"VolumeDriver.Create": 120.0, "VolumeDriver.Mount": 120.0, "VolumeDriver.Remove": 120.0,
          "VolumeDriver.Unmount": 60.0}
_USUAL = 20.0
_LISTING = 3.0
_FIRST_PAUSE = 0.25


class _Manifest(msgspec.Struct, rename="pascal"):
    implements: list[str]


class _Failure(msgspec.Struct, rename="pascal"):
    err: str | None = None


class Plugins:
    """Plug-ins in *folders*, searched in that order. *patience*: seconds during which a plug-in that does not listen
    yet is tried again. *scale* multiplies all times (tests)."""

    def __init__(self, folders: Sequence[str], *, patience: float = 15.0, scale: float = 1.0) -> None:
        self._folders = tuple(folders)
        self._patience, self._scale = patience * scale, scale
        self._active: dict[str, frozenset[str]] = {}
        self._asking: dict[str, asyncio.Task[frozenset[str]]] = {}

    def found(self) -> list[str]:
        """The names of the plug-ins that are there, active or not."""
        return names(self._folders)

    def active(self, kind: str) -> list[str]:
        """The plug-ins of a kind that have been used since the start."""
        return sorted(name for name, kinds in self._active.items() if kind in kinds)

    async def of_kind(self, kind: str) -> list[str]:
        """All plug-ins of a kind; one that cannot be asked is passed over and logged."""
        async def has(name: str) -> bool:
            try:
                async with asyncio.timeout(_LISTING * self._scale):
                    return kind in await self._kinds(name)
            except (EngineError, TimeoutError) as problem:
                log.warning("plug-in %s is passed over: %s", name, problem or "it does not answer")
                return False
        found = self.found()
        answers = await asyncio.gather(*(has(name) for name in found))
        return [name for name, yes in zip(found, answers, strict=True) if yes]

    async def require(self, name: str, kind: str) -> None:
        """NotFound in Docker's words unless the plug-in *name* is there and of that kind."""
        if kind not in await self._kinds(name):
            raise NotFound(f'plugin "{name}" not found: the plug-in of this name does not implement {kind}')

    async def call(self, name: str, method: str, body: Mapping[str, Any], answer: type[T], *, kind: str = "") -> T:
        """Call ``method`` of the plug-in *name* (of *kind*, "": what stands before the method's dot).

        NotFound: there is no such plug-in. Unavailable: nobody listens. ServerError: its own refusal, or nonsense.
        """
        await self.require(name, kind or method.partition(".")[0])
        status, data = await self._post(name, method, body)
        failure = _read(data, _Failure)
        if failure is not None and failure.err:
            raise ServerError(failure.err)
        if status != 200:
            raise ServerError(f"plugin {name} answered {method} with status {status}: {_shown(data)}")
        try:
            return msgspec.json.decode(data or b"{}", type=answer)
        except msgspec.DecodeError as problem:
            raise ServerError(f"plugin {name} answered {method} with nonsense ({problem}): {_shown(data)}") from None

    async def _kinds(self, name: str) -> frozenset[str]:
        if name in self._active:
            return self._active[name]
        task = self._asking.get(name)
        if task is None:      # several may ask at once for the same
            task = asyncio.get_running_loop().create_task(self._activate(name))
            self._asking[name] = task
            task.add_done_callback(lambda done: self._asked(name, done))
        return await asyncio.shield(task)

    def _asked(self, name: str, task: asyncio.Task[frozenset[str]]) -> None:
        self._asking.pop(name, None)
        if not task.cancelled():
            task.exception()      # whoever waits has it; a list that did not wait to the end has logged that

    async def _activate(self, name: str) -> frozenset[str]:
        status, data = await self._post(name, "Plugin.Activate", {})
        manifest = _read(data, _Manifest) if status == 200 else None
        if manifest is None:
            raise ServerError(f"plugin {name} does not speak the plug-in protocol: its activation was answered with "
                              f"status {status}: {_shown(data)}")
        self._active[name] = frozenset(manifest.implements)
        return self._active[name]

    async def _post(self, name: str, method: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Try again while nobody listens, in longer and longer steps: a plug-in may be starting. A call that was heard
        is never repeated: it may have had its effect."""
        seconds = _TIMES.get(method, _USUAL) * self._scale
        data = msgspec.json.encode(body)
        pause, waited = _FIRST_PAUSE * self._scale, 0.0
        while True:
            address = self._address(name)
            try:
                return await post(address, method, data, seconds)
            except PluginFault as fault:
                if not fault.refused:
                    raise ServerError(f"plugin {name} failed: {fault}") from fault
                if waited >= self._patience:
                    self._active.pop(name, None)      # another program may come up under its name
                    raise Unavailable(f"plugin {name} cannot be reached: {fault}. Is it running?") from fault
            await asyncio.sleep(pause)
            waited += pause
            pause *= 2

    def _address(self, name: str) -> Address:
        try:
            return find(name, self._folders)
        except NotFound:
            self._active.pop(name, None)
            raise


def _read(data: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except msgspec.DecodeError:
        return None


def _shown(data: bytes) -> str:
    return repr(data[:200].decode("utf-8", "replace"))
