"""Takes over what an earlier engine left: running containers, ends that nobody heard of, half-made things."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from backend.engine import shm, volumedrivers
from backend.engine.container import Container
from backend.engine.core import Core, log
from backend.engine.life import Life
from backend.engine.mountsources import sweep_parts
from backend.engine.record import ContainerRecord, Status
from backend.errors import EngineError, NotFound
from backend.runtime.cgroups import Cgroup, below
from backend.runtime.client import Exit, KeeperContainer, KeeperError

if TYPE_CHECKING:
    from backend.engine.containers import Containers

#: What is said of an end that nobody saw: no program ends with it by itself.
UNKNOWN_EXIT = 255


async def restore(core: Core, life: Life, containers: Containers,
                  loaded: Sequence[tuple[ContainerRecord, Status]]) -> None:
    """Bring memory, keeper, networks and disk to agree. A container that cannot be taken over is reported, and the
    rest goes on."""
    known = {one.id: one for one in await core.keeper.list()}
    for record, status in loaded:
        status.removing = False
        container = containers.adopt(record, status)
        core.table.add(container)
        try:
            await _take_over(core, life, container, known.pop(record.id, None))
        except (EngineError, OSError) as error:
            log.error("container %s could not be taken over: %s", record.name, error)
    for orphan in known.values():
        await end_orphan(core, orphan)
    await core.networks.restored()
    core.volumes.settle()
    sweep_parts(core)
    _sweep(core)
    for container in core.table:
        _policy(core, life, container)


async def _take_over(core: Core, life: Life, container: Container, seen: KeeperContainer | None) -> None:
    status = container.status
    if seen is not None and seen.status == "running":
        await _adopt_running(core, life, container, seen)
    elif status.active:
        container.used = True
        end = seen.exit if seen is not None else None
        # The networks are not restored: their parts are swept with everything else that nobody claims.
        container.ended.clear()
        life.ended_meanwhile(container, end or Exit(container.id, "", UNKNOWN_EXIT, 0, time.time_ns(), oom=False,
                                                    known=False))
    elif seen is not None:
        container.used = True              # a start or an end was cut short: let the next step tidy up
        await life.tidy(container)
    elif status.endpoints or status.ports:
        # It was written down as ended before its networks were let go of; a plug-in may not have heard of that.
        await core.networks.release(container.id, status.endpoints)
        status.endpoints, status.ports = (), ()
        life.keep(container)


async def _adopt_running(core: Core, life: Life, container: Container, seen: KeeperContainer) -> None:
    status = container.status
    container.used = True
    container.ended.clear()
    status.pid = seen.pid
    if not status.active:                  # the engine died between the start and its note of it
        status.state, status.started_at, status.ever_started = "running", seen.started_at, True
        status.exit_code, status.error = 0, ""
    if seen.terminal_lost:
        status.error = ("its terminal was lost when the helper and the keeper ended at once; restart it to have one "
                        "again")
        log.warning("container %s: %s", container.name, status.error)
    status.state = "paused" if life.cgroup(container).frozen() else "running"
    if status.held:                        # the engine died during a copy of its files
        await life.let_go(container)
    try:
        await core.images.lowers(container.record.image, container.id)
    except NotFound:                       # one that ran before it had arrived, and was refused when it had
        log.warning("the container %s runs on, but its image %s is not here", container.name, container.record.image)
    for one in container.record.mounts:
        if one.kind == "volume" and volumedrivers.is_local(core, one.volume):
            await core.volumes.acquire(one.volume, container.id)
        elif one.kind == "image":
            await core.images.lowers(one.image, volumedrivers.image_holder(container.id, one))
    await life.connector.restore(container)
    life.keep(container)
    life.meter.began(container)
    if container.health is not None:
        container.health.begin()


async def end_orphan(core: Core, orphan: KeeperContainer) -> None:
    """A container that the keeper holds and no record speaks of: its removal or its creation was cut short."""
    log.warning("container %s is run by nobody and is ended", orphan.id[:12])
    try:
        if orphan.status == "running":
            await core.keeper.kill(orphan.id, 9, every=True)
            return                         # its exit makes the engine let go of it
        await core.keeper.delete(orphan.id)
    except KeeperError as error:
        log.warning("container %s: %s", orphan.id[:12], error.message)


def sweep_cgroups(core: Core) -> None:
    """Cgroups of starts that were cut short before the keeper had written anything down."""
    parents = {core.settings.instance, *(
        one.record.host_config.cgroup_parent.strip("/") for one in core.table if one.record.host_config.cgroup_parent)}
    for parent in parents:
        for identity in below(parent):
            container = core.table.by_id(identity)
            ours = parent == core.settings.instance or container is not None
            if ours and (container is None or not (container.used or container.starting or container.status.active)):
                doomed = Cgroup(f"{parent}/{identity}")
                doomed.kill()
                if not doomed.remove():
                    log.warning("cgroup %s/%s is still in use", parent, identity)


def _sweep(core: Core) -> None:
    """Directories of containers that are no more, and what was on its way out."""
    for identity in core.paths.known_containers():
        if core.table.by_id(identity) is None:
            core.paths.discard(core.paths.container(identity).home)
    for identity in core.paths.known_bundles():
        container = core.table.by_id(identity)
        if container is None or not container.used:
            core.paths.remove_bundle(identity)
    for identity in shm.known(core.paths):
        container = core.table.by_id(identity)
        if container is None or not container.used:
            shm.withdraw(core.paths, identity)
    core.spawn_thread(core.paths.empty_trash, "empty the trash")
    core.spawn_thread(lambda: sweep_cgroups(core), "sweep of cgroups")


def _policy(core: Core, life: Life, container: Container) -> None:
    """What a restart policy says at the start of an engine."""
    status, policy = container.status, container.record.host_config.restart_policy
    if status.active or container.used:    # what follows from an end that is just being taken in is under way
        return
    if status.state == "restarting":
        life.resume_restart(container)
    elif container.record.host_config.auto_remove and status.state != "created":
        core.spawn(life.remove(container, force=True, volumes=True), f"remove {container.name}")
    elif status.ever_started and (
            policy.name == "always" or (policy.name == "unless-stopped" and not status.stopped_by_user)
            or (policy.name == "on-failure" and status.exit_code != 0 and not status.stopped_by_user)):
        core.spawn(life.start_again(container), f"start {container.name}")
