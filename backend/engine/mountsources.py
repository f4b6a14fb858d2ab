"""The mounts of a container with the host's paths filled in: volumes found, sources of binds made or checked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from backend.engine.core import Core
from backend.engine.launch import check_bind
from backend.engine.record import MountRecord


async def sources(core: Core, mounts: Sequence[MountRecord], stack: AsyncExitStack) -> tuple[MountRecord, ...]:
    """*mounts* with their sources, for a look at a container that does not run; what that takes goes with *stack*."""
    made = []
    for one in mounts:
        if one.kind == "volume":
            made.append(msgspec.structs.replace(one, source=core.volumes.create(one.volume).mountpoint))
        else:
            if one.kind == "bind":
                check_bind(one, make=True)
            made.append(one)
    return tuple(made)
