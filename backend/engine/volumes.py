"""Volumes, as the helper asks for them."""

from __future__ import annotations

import builtins

from backend.engine import volumedrivers
from backend.engine.clock import rfc3339_seconds
from backend.engine.core import Core
from backend.errors import Conflict, NotFound, NotImplemented_
from backend.spec import api
from backend.spec.filters import Filters
from backend.volumes.local import Volume

LIST_KEYS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_KEYS = frozenset({"all", "label", "label!"})


def view(volume: Volume) -> api.Volume:
    """A volume as the API shows it."""
    return api.Volume(name=volume.name, driver=volume.driver, mountpoint=volume.mountpoint,
                      created_at=rfc3339_seconds(volume.created_at), labels=volume.labels or None,
                      options=volume.options or None, scope=volume.scope)


class Volumes:
    """The volumes of the engine, and who uses them."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def _users(self, name: str) -> builtins.list[str]:
        return [one.id for one in self._core.table.users_of_volume(name)]

    async def list(self, filters: Filters | None = None) -> api.VolumeList:
        """All volumes that the filters let through."""
        chosen = filters or Filters()
        chosen.check(LIST_KEYS)
        dangling = chosen.flag("dangling")
        return api.VolumeList(volumes=[
            view(one) for one in await volumedrivers.every(self._core)
            if chosen.exact("driver", one.driver) and chosen.labels(one.labels) and chosen.fuzzy("name", one.name)
            and (dangling is None or dangling == (not self._users(one.name)))])

    async def inspect(self, name: str) -> api.Volume:
        """One volume."""
        return view(await volumedrivers.describe(self._core, name))

    async def create(self, body: api.VolumeCreate) -> api.Volume:
        """Make a volume; an existing name is answered with that volume."""
        if body.cluster_volume_spec is not None:
            raise NotImplemented_("cluster volumes need a swarm, which this engine has not")
        made, is_new = await volumedrivers.obtain(self._core, body.name, body.driver, labels=body.labels,
                                                  options=body.driver_opts)
        if is_new:
            self._core.events.publish("volume", "create", made.name, {"driver": made.driver})
        return view(made)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume that no container uses."""
        driver = await volumedrivers.remove(self._core, name, force=force)
        if driver:
            self._core.events.publish("volume", "destroy", name, {"driver": driver})

    async def prune(self, filters: Filters | None = None, *, everything: bool = False) -> api.VolumesPruned:
        """Remove unused volumes: the anonymous ones, with *everything* or the filter `all=true` the named ones too."""
        chosen = filters or Filters()
        chosen.check(PRUNE_KEYS)
        everything = everything or chosen.flag("all") is True
        report = api.VolumesPruned(volumes_deleted=[])
        for one in self._core.volumes.list():
            if not (one.anonymous or everything) or self._users(one.name) or not (
                    chosen.labels(one.labels) and chosen.no_labels(one.labels)):
                continue
            try:
                size = await self._core.volumes.usage(one.name)
                await self.remove(one.name)
            except (Conflict, NotFound):
                continue                     # a container has taken it meanwhile, or somebody else removed it
            report.volumes_deleted.append(one.name)
            report.space_reclaimed += max(0, size)
        self._core.events.publish("volume", "prune", "", {"reclaimed": str(report.space_reclaimed)})
        return report

    async def usage(self) -> builtins.list[api.Volume]:
        """All volumes with size and number of users, for `system df`."""
        made = []
        for one in self._core.volumes.list():
            row = view(one)
            try:
                size = await self._core.volumes.usage(one.name)
            except NotFound:                 # removed meanwhile
                continue
            row.usage_data = api.UsageData(size=size, ref_count=len(self._users(one.name)))
            made.append(row)
        return made
