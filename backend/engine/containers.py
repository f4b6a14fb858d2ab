"""Containers, as the helper asks for them: names in, wire types out. What changes a life is in life.py."""

from __future__ import annotations

import asyncio
import builtins
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from backend.engine import checks, health, links, listing, spec, stats, userns, views, volumedrivers
from backend.engine.clock import parse_time
from backend.engine.connect import network_mode, wish_for
from backend.engine.container import CONDITIONS, Container, PendingAttach, Waiter
from backend.engine.core import Core
from backend.engine.create import build_record
from backend.engine.execs import Execs
from backend.engine.history import COARSE, FINE, Row
from backend.engine.life import Life
from backend.engine.logchoice import log_limits
from backend.engine.mountsources import check_bind, propagation_warning
from backend.engine.names import check_name, new_id
from backend.engine.record import ContainerRecord, MountRecord, Status
from backend.engine.rootview import directory_inside, root_of
from backend.engine.streams import AttachWish, Growth, LogStream, LogWish, Session
from backend.engine.top import top
from backend.engine.update import update
from backend.errors import Conflict, EngineError, InvalidArgument, NotFound, NotImplemented_, ServerError, Unavailable
from backend.runtime.client import KeeperError
from backend.spec import api, reference
from backend.spec.filters import Filters
from backend.spec.image import parse_platform
from backend.volumes import tree

if TYPE_CHECKING:
    from backend.images.types import Image

_NO_PROFILE = '{"errno":1,"always":[],"conditional":[]}'
PRUNE_KEYS = frozenset({"label", "label!", "until"})


class Containers:
    """All containers of the engine. `ref` is an ID, a unique beginning of one, or a name."""

    def __init__(self, core: Core, life: Life, execs: Execs) -> None:
        self._core = core
        self._life = life
        self._execs = execs
        self._growth = Growth(core.keeper)

    # --- create -----------------------------------------------------------------------------------------------------
    async def create(self, body: api.ContainerCreate, *, name: str = "", platform: str = "") -> api.ContainerCreated:
        """Make a container; nothing of it is left when that fails."""
        core = self._core
        if core.closing:
            raise Unavailable("the engine is stopping")
        if not body.image:
            raise InvalidArgument("config cannot be empty in order to create a container: no image was given")
        image = self._image(body.image)
        await core.trust.check(image.id, body.image)
        self._check_platform(body.image, image.details.os, image.details.architecture, platform)
        identity = new_id()
        name = core.table.claim(name, identity)
        try:
            record, told = build_record(
                body, image, identity=identity, name=name, cpus=core.cpus, facts=core.facts,
                log_driver=core.settings.log_driver, log_opts=core.settings.log_opts, others=self._mounts_of)
            if network_mode(record.host_config.network_mode) == "host" and not record.config.hostname:
                record.config.hostname = os.uname().nodename
            chosen = userns.wish(record.host_config, core.settings.userns)
            userns.check(record.host_config, chosen, builtin=not checks.RUNTIMES[record.host_config.runtime])
            self._rehearse(record)
            with core.ids.claim(chosen, [one.record.ids for one in core.table if one.record.ids is not None]) as ids:
                record.ids = ids
                container = await self._make(record)
        except BaseException:
            core.table.unclaim(name)
            raise
        self._life.tell(container, "create")
        alone = [said for one in record.mounts if (said := propagation_warning(one))]
        return api.ContainerCreated(id=identity, warnings=[*told, *alone])

    def _image(self, name: str) -> Image:
        try:
            return self._core.images.get(name)
        except NotFound:
            if not name.startswith("sha256:"):
                reference.parse(name)              # what is no name can never be pulled, and says so
            raise

    def _mounts_of(self, ref: str) -> Sequence[MountRecord]:
        try:
            return self._core.table.mounts_of(ref)
        except NotFound as error:
            raise InvalidArgument(error.message) from error

    @staticmethod
    def _check_platform(name: str, system: str, machine: str, platform: str) -> None:
        """The CLI reads this refusal as "pull it for that platform"."""
        if not platform:
            return
        wanted = parse_platform(platform)
        if (wanted.os, wanted.architecture) != (system or "linux", machine or wanted.architecture):
            raise NotFound(f"image with reference {name} was found but its platform ({system}/{machine}) does not "
                           f"match the specified platform ({platform})")

    def _rehearse(self, record: ContainerRecord) -> None:
        """What would be refused at the start for what the client wrote is refused now."""
        for one in record.mounts:
            if one.kind == "bind":
                check_bind(one, make=False)
            elif one.kind == "volume":
                volumedrivers.check_driver(self._core, one.driver)
        for name, settings in record.networks.items():
            self._core.networks.check(name, wish_for(record, settings))
        host = record.host_config
        for _, ref in checks.references(host):
            try:
                self._core.table.get(ref)
            except NotFound as error:
                raise InvalidArgument(error.message) from error
        if host.security_opt or host.device_cgroup_rules:
            spec.build(spec.SpecInput(record=record, hostname="", cgroups_path="", machine=self._core.machine,
                                      kernel=self._core.kernel, seccomp_default=_NO_PROFILE))

    def _mounted_image(self, name: str) -> str:
        """The ID of an image that is to be mounted. Raises :class:`InvalidArgument`: clients read a "not found" of a
        create as one of the container's own image."""
        try:
            return self._core.images.get(name).id
        except NotFound as error:
            raise InvalidArgument(f'invalid mount config for type "image": {error.message}: pull it first') from error

    async def _make(self, record: ContainerRecord) -> Container:
        core = self._core
        fresh: list[str] = []
        mounts = []
        try:
            for one in record.mounts:
                if one.kind == "volume":
                    volume, is_new = await volumedrivers.obtain(core, one.volume, one.driver, labels=one.labels,
                                                                options=one.driver_options)
                    if is_new:
                        fresh.append(volume.name)
                        core.events.publish("volume", "create", volume.name, {"driver": volume.driver})
                    one = msgspec.structs.replace(one, volume=volume.name, driver=volume.driver)
                elif one.kind == "image":
                    one = msgspec.structs.replace(one, image=self._mounted_image(one.source))
                mounts.append(one)
            record.mounts = tuple(mounts)
            core.paths.make_container(record.id)
            await self._fill_volumes(record)
            container = self.adopt(record, Status())
            await core.state.put_container(record, container.status)
        except BaseException:
            for name in fresh:
                await volumedrivers.remove(core, name, force=True)
            doomed = core.paths.discard(core.paths.container(record.id).home)
            if doomed:
                await asyncio.to_thread(core.paths.empty_trash, doomed)
            raise
        core.table.add(container)
        return container

    async def _fill_volumes(self, record: ContainerRecord) -> None:
        """Empty volumes take over what the image has in their place."""
        wanted = [one for one in record.mounts if one.kind == "volume" and one.copy]
        if not wanted:
            return
        holder = f"copy-{record.id}"
        lower = await self._core.images.lowers(record.image, holder)
        try:
            with root_of(lower) as root:
                for one in wanted:
                    with directory_inside(root, one.target) as source:
                        if source is not None:
                            await self._populate(one.volume, source, holder)
        except OSError as error:
            raise ServerError(f"the image's files could not be read: {error.strerror}") from error
        finally:
            self._core.images.release(holder)

    async def _populate(self, name: str, source: int, holder: str) -> None:
        core = self._core
        if core.plugged.knows(name):
            await core.plugged.populate(name, source, holder)
            return
        try:
            await core.volumes.acquire(name, holder)
            await core.volumes.populate(core.volumes.get(name), source)
        finally:
            core.volumes.release(holder)

    def adopt(self, record: ContainerRecord, status: Status) -> Container:
        """A container object for a record, with its health checks."""
        made = Container(record, status)
        if not status.active:
            made.ended.set()
        if record.config.healthcheck is not None and health.wanted(record.config.healthcheck):
            made.health = health.Monitor(self._core, made, record.config.healthcheck)
        return made

    # --- views ------------------------------------------------------------------------------------------------------
    def list(self, *, all: bool = False, limit: int = 0, size: bool = False,
             filters: Filters | None = None) -> builtins.list[api.ContainerSummary]:
        """Rows of a list, newest first. *size* reads every file of every container before it returns: a server that
        has other things to do leaves it out and awaits :meth:`add_sizes`."""
        chosen = listing.select(self._core.table, all_=all, limit=limit, filters=filters or Filters(),
                                is_ancestor=self._is_ancestor)
        now = time.time_ns()
        ids, paths = self._network_ids(), self._volume_paths()
        images: dict[tuple[str, str], str] = {}       # most containers share a few images
        rows = []
        for one in chosen:
            key = (one.record.image_name, one.record.image)
            if key not in images:
                images[key] = self._image_name(one)
            rows.append(views.summary(one, image=images[key], now=now, networks=views.endpoint_views(one, ids),
                                      volume_path=paths))
        for row, one in zip(rows, chosen, strict=True) if size else ():
            row.size_rw, row.size_root_fs = self._sizes(one)
        return rows

    async def add_sizes(self, rows: Sequence[api.ContainerSummary]) -> None:
        """Fill the sizes of rows (`size=1`): it reads every file, in a thread."""
        for row in rows:
            row.size_rw, row.size_root_fs = await asyncio.to_thread(self._sizes, self._core.table.get(row.id))

    def _sizes(self, container: Container) -> tuple[int, int]:
        own = _tree_size(self._core.paths.container(container.id).upper)
        try:
            image = self._core.images.get(container.record.image).size
        except NotFound:
            image = 0
        return own, own + image

    def _is_ancestor(self, name: str, image: str) -> bool:
        try:
            wanted = self._core.images.get(name).id
        except EngineError:
            return False
        seen = image
        while seen:
            if seen == wanted:
                return True
            try:
                seen = self._core.images.get(seen).parent
            except EngineError:
                return False
        return False

    def _image_name(self, container: Container) -> str:
        """The name that it was made from, or the image's ID once that name means another image."""
        name = container.record.image_name
        try:
            same = self._core.images.get(name).id == container.record.image
        except EngineError:
            same = name.startswith("sha256:")
        return name if same else container.record.image

    def _network_ids(self) -> dict[str, str]:
        made: dict[str, str] = {}
        for network in self._core.networks.list():
            made[network.name] = made[network.id] = network.id
        return made

    def _volume_paths(self) -> Mapping[str, str]:
        return volumedrivers.paths(self._core)

    async def inspect(self, ref: str, *, size: bool = False) -> api.ContainerInspect:
        """Everything about a container."""
        container = self._core.table.get(ref)
        places = self._core.paths.container(container.id)
        driver = log_limits(container.record.host_config.log_config, own=container.record.own_log)[0]
        made = views.inspect(
            container, places=places, networks=views.endpoint_views(container, self._network_ids()),
            volume_path=self._volume_paths(), log_path=f"{places.log}/json.log" if driver == "json-file" else "")
        if size:
            made.size_rw, made.size_root_fs = await asyncio.to_thread(self._sizes, container)
        return made

    async def top(self, ref: str, ps_args: str = "") -> api.Top:
        """Its processes as ps shows them."""
        container = self._core.table.get(ref)
        if not container.status.active:
            raise Conflict(f"container {container.id} is not running")
        made = top(self._life.cgroup(container).pids(), ps_args, self._core.memory)
        self._life.tell(container, "top")
        return made

    def stats(self, ref: str, before: api.Stats | None = None) -> api.Stats:
        """One sample of its resource usage; zeros when it does not run. *before*: the one before it in a series; the
        first is compared with what the engine saw for itself in the last seconds."""
        container = self._core.table.get(ref)
        if not container.status.active:
            return stats.empty(container)
        try:
            return stats.sample(container, self._life.cgroup(container), before or self._life.meter.past(container),
                                cpus=self._core.cpus, memory=self._core.memory)
        except FileNotFoundError:
            return stats.empty(container)      # it ended between two lines

    async def history(self, ref: str, *, step: int, since: float) -> builtins.list[Row]:
        """What it used, a row each *step* seconds (1: ten minutes, 10: a day), from *since* (seconds) on."""
        container = self._core.table.get(ref)
        if step not in (FINE, COARSE):
            raise InvalidArgument(f"the step {step} is not kept: usage is kept each {FINE} s (for ten minutes) and "
                                  f"each {COARSE} s (for a day)")
        try:
            return await asyncio.to_thread(self._life.meter.look(container).rows, step, since)
        except OSError as error:
            raise ServerError(f"the usage history of {container.name} cannot be read: {error.strerror}") from error

    # --- life -------------------------------------------------------------------------------------------------------
    async def start(self, ref: str) -> None:
        """Start it. :class:`NotModified` when it runs."""
        await self._life.start(self._core.table.get(ref))

    async def stop(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> None:
        """Signal it, wait *timeout* seconds (None: its own, else 10; negative: for ever), then kill it."""
        await self._life.stop(self._core.table.get(ref), signal, timeout)

    async def restart(self, ref: str, *, signal: str | None = None, timeout: int | None = None) -> None:
        """Stop and start it."""
        await self._life.restart(self._core.table.get(ref), signal, timeout)

    async def kill(self, ref: str, signal: str = "SIGKILL") -> None:
        """Send a signal."""
        try:
            await self._life.kill(self._core.table.get(ref), signal)
        except (Conflict, InvalidArgument, NotFound) as error:
            raise type(error)(f"cannot kill container: {ref}: {error.message}") from error

    async def pause(self, ref: str) -> None:
        """Freeze its processes."""
        await self._life.pause(self._core.table.get(ref))

    async def unpause(self, ref: str) -> None:
        """Thaw them."""
        await self._life.unpause(self._core.table.get(ref))

    def wait(self, ref: str, condition: str = "") -> Waiter:
        """Wait for its end. It is registered when this returns; `await waiter.result()` gives the answer."""
        container = self._core.table.get(ref)
        if condition not in CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        return Waiter(container, condition)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; with *volumes* its anonymous volumes too."""
        container = self._core.table.get(ref)
        await self._life.remove(container, force=force, volumes=volumes)
        self._execs.drop_container(container)

    async def remove_link(self, ref: str, alias: str) -> None:
        """Take away what a container calls another one (`docker rm --link`)."""
        container = self._core.table.get(ref)
        async with container.lock:
            host = container.record.host_config
            kept = [text for text in host.links or () if links.parse(text)[1] != alias]
            if len(kept) == len(host.links or ()):
                raise NotFound(f"No such link: /{container.name}/{alias}")
            container.record.host_config = msgspec.structs.replace(host, links=kept)
            await self._core.state.put_container(container.record, container.status)
            if container.status.active:
                self._life.connector.write_files(container)

    async def rename(self, ref: str, name: str) -> None:
        """Give it another name."""
        container = self._core.table.get(ref)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        try:
            name = check_name(f"/{name.removeprefix('/')}")
        except InvalidArgument as error:
            raise InvalidArgument(f"Error when allocating new name: {error.message}") from error
        async with container.lock:
            old = container.name
            if name == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            try:
                self._core.table.claim(name, container.id)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error.message}") from error
            container.record.name = name
            try:
                await self._core.state.put_container(container.record, container.status)
            except BaseException:
                container.record.name = old
                self._core.table.unclaim(name)
                raise
            self._core.table.unclaim(old)
            renamed = tuple(self._core.networks.rename(container.id, name))
            if renamed:
                container.status.endpoints = renamed
                self._life.keep(container)
        self._life.tell(container, "rename", oldName=f"/{old}")

    async def update(self, ref: str, body: api.ContainerUpdate) -> api.ContainerUpdated:
        """Change its limits and restart policy, at once if it runs."""
        return api.ContainerUpdated(
            warnings=await update(self._core, self._life, self._core.table.get(ref), body))

    async def prune(self, filters: Filters | None = None) -> api.ContainersPruned:
        """Remove all that do not run."""
        chosen = filters or Filters()
        chosen.check(PRUNE_KEYS)
        until = min((parse_time(text, time.time_ns()) for text in chosen.get("until")), default=0)
        report = api.ContainersPruned(containers_deleted=[])
        for one in self._core.table:
            labels = one.record.config.labels
            if one.status.active or one.status.state == "restarting" or (until and one.record.created > until) or not (
                    chosen.labels(labels) and chosen.no_labels(labels)):
                continue
            size = (await asyncio.to_thread(self._sizes, one))[0]
            try:
                await self.remove(one.id)
            except Conflict:
                continue                      # it has been started meanwhile, or somebody else removes it
            report.containers_deleted.append(one.id)
            report.space_reclaimed += size
        self._core.events.publish("container", "prune", "", {"reclaimed": str(report.space_reclaimed)})
        return report

    # --- streams ----------------------------------------------------------------------------------------------------
    async def attach(self, ref: str, wish: AttachWish) -> Session:
        """A session with its streams. Before a start it waits for it, with what the client sends kept."""
        container = self._core.table.get(ref)
        if container.status.state == "paused":
            raise Conflict(f"container {container.id} is paused, unpause the container before attach")
        if container.status.state == "restarting":
            raise Conflict(f"container {container.id} is restarting, wait until the container is running")
        tty = container.record.config.tty
        history = None
        if wish.logs:
            history = self.logs(ref, LogWish(stdout=wish.stdout, stderr=wish.stderr))
        if not wish.stream:
            return Session(tty, None, history)
        stdin = wish.stdin and container.record.config.open_stdin
        self._life.tell(container, "attach")
        if container.status.active and not container.starting:
            try:
                sock = await self._core.keeper.attach(container.id, stdin=stdin, stdout=wish.stdout, stderr=wish.stderr)
                return Session(tty, sock, history)
            except KeeperError as error:
                if error.reason not in ("not_running", "no_such"):
                    raise ServerError(f"cannot attach to container {container.id}: {error.message}") from error
        return self._attach_later(container, wish, stdin=stdin, history=history)

    def detached(self, ref: str) -> None:
        """A client has left it by the detach keys; it runs on."""
        self._life.tell(self._core.table.get(ref), "detach")

    def _attach_later(self, container: Container, wish: AttachWish, *, stdin: bool,
                      history: LogStream | None) -> Session:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        pending = PendingAttach(theirs, stdin, wish.stdout, wish.stderr)
        container.pending.append(pending)

        def forget() -> None:
            if pending in container.pending:
                container.pending.remove(pending)
                theirs.close()

        session = Session(container.record.config.tty, ours, history)
        session.on_close(forget)
        return session

    def logs(self, ref: str, wish: LogWish) -> LogStream:
        """Its log. Raises :class:`NotImplemented_` for a container that keeps none."""
        container = self._core.table.get(ref)
        if not (wish.stdout or wish.stderr):
            raise InvalidArgument("Bad parameters: you must choose at least one stream")
        if container.record.host_config.log_config.type == "none":
            raise NotImplemented_("configured logging driver does not support reading")
        return LogStream(container, self._core.paths.container(container.id).log, wish, self._growth)

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Set its terminal's size."""
        container = self._core.table.get(ref)
        if not container.status.active:
            raise Conflict(f"container {container.id} is not running")
        try:
            if container.record.config.tty:                  # without a terminal there is nothing to do, as for dockerd
                await self._core.keeper.resize(container.id, rows, columns)
        except KeeperError as error:
            if error.reason in ("not_running", "no_such"):
                raise Conflict(f"container {container.id} is not running") from error
            raise ServerError(f"cannot resize container {container.id}: {error.message}") from error
        self._life.tell(container, "resize", height=str(rows), width=str(columns))


def _tree_size(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return tree.size(fd)
    finally:
        os.close(fd)
