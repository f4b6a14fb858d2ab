"""The mounts of a container with the host's paths filled in: volumes found, sources of binds made or checked."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec

from backend.engine import volumedrivers
from backend.engine.core import Core
from backend.engine.launch import check_bind
from backend.engine.record import MountRecord


async def sources(core: Core, mounts: Sequence[MountRecord], stack: AsyncExitStack) -> tuple[MountRecord, ...]:
    """*mounts* with their sources, for a look at a container that does not run; what that takes goes with *stack*."""
    made = []
    holder = f"look-{secrets.token_hex(8)}"
    stack.push_async_callback(volumedrivers.unmount, core, mounts, holder)
    for one in await volumedrivers.mount(core, mounts, holder):
        if one.kind == "volume" and one.driver in volumedrivers.LOCAL:
            made.append(msgspec.structs.replace(one, source=core.volumes.create(one.volume).mountpoint))
        else:
            if one.kind == "bind":
                check_bind(one, make=True)
            made.append(one)
    return tuple(made)
