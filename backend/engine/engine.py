"""Opens everything in its order, takes over what runs, and closes it again."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from backend.engine.authorization import Authorizer
from backend.engine.connect import Connector, host_file
from backend.engine.container import Table
from backend.engine.containers import Containers
from backend.engine.core import Core, log
from backend.engine.events import EventBus
from backend.engine.execs import Execs
from backend.engine.files import Files
from backend.engine.images import Images, make_store
from backend.engine.keeping import Keeping
from backend.engine.launch import Launcher
from backend.engine.life import Life
from backend.engine.names import new_id
from backend.engine.networks import Networks
from backend.engine.paths import Paths
from backend.engine.restore import restore
from backend.engine.settings import Settings
from backend.engine.state import State
from backend.engine.system import System
from backend.engine.trust import Trust
from backend.engine.userns import IdRanges, pool
from backend.engine.volumefiles import VolumeFiles
from backend.engine.volumes import Volumes
from backend.errors import Conflict, Unavailable
from backend.network.manager import NetworkManager
from backend.plugins import Plugins
from backend.runtime import syscalls as sc
from backend.runtime.client import Exit, Keeper, KeeperError
from backend.volumes.local import VolumeStore
from backend.volumes.remote import RemoteVolumes

T = TypeVar("T")
_CONNECTS = 4
_CONNECTS = 4              # keepers that may be lost while the engine opens
_POOL = 4                  # network namespaces made ahead
_PAUSE = 0.03              # seconds after a take, so that the start that took does not wait behind the refill
_AFTERMATH = 10.0                  # seconds for what follows from the containers' ends


class Namespaces:
    """What the network room is lent: namespaces made ahead by the keeper, and a way into them."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._ready: list[int] = []
        self._refill: asyncio.Task[None] | None = None
        self._closed = False

    async def fresh(self, count: int) -> list[int]:
        """Descriptors of *count* namespaces with lo up; the caller's to close."""
        made = [self._ready.pop() for _ in range(min(count, len(self._ready)))]
        while len(made) < count:
            made += await self._keeper.netns(count - len(made))
        if self._refill is None or self._refill.done():
            self._refill = asyncio.get_running_loop().create_task(self._fill())
        return made

    async def _fill(self) -> None:
        await asyncio.sleep(_PAUSE)
        while len(self._ready) < _POOL and not self._closed:
            try:
                found = await self._keeper.netns(1)
            except KeeperError as error:           # whoever needs one is told; this only made them ahead
                log.warning("no network namespace could be made ahead: %s", error.message)
                return
            if self._closed:
                for fd in found:
                    os.close(fd)
                return
            self._ready += found

    def inside(self, netns: int, work: Callable[[], T]) -> T:
        """Run *work* in this thread inside the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            sc.setns(netns, sc.CLONE_NEWNET)
            try:
                return work()
            finally:
                sc.setns(home, sc.CLONE_NEWNET)
        finally:
            os.close(home)

    async def close(self) -> None:
        """Let go of the namespaces made ahead."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait([self._refill])
        for fd in self._ready:
            os.close(fd)
        self._ready.clear()


class Engine:
    """An open engine; one attribute a subsystem. Made by :meth:`open`."""

    containers: Containers
    execs: Execs
    files: Files
    images: Images
    networks: Networks
    volumes: Volumes
    volume_files: VolumeFiles
    events: EventBus
    system: System
    trust: Trust

    def __init__(self, core: Core, life: Life, connector: Connector, namespaces: Namespaces, identity: str) -> None:
        self._core = core
        self._life = life
        self._namespaces = namespaces
        self.settings = core.settings
        self.authorizer = Authorizer(core.plugins, core.settings.authorization)
        self.events = core.events
        self.execs = Execs(core)
        self.trust = core.trust
        self.containers = Containers(core, life, self.execs)
        self.files = Files(core, life)
        self.images = Images(core)
        self.networks = Networks(core, connector)
        self.volumes = Volumes(core)
        self.volume_files = VolumeFiles(core, life)
        self.system = System(core, self.containers, self.images, self.volumes, identity)

    @classmethod
    async def open(cls, settings: Settings, keeper: socket.socket) -> Engine:
        """Open the state, connect the keeper, take over what runs. *keeper*: from `Keeper.find_or_start`."""
        paths = Paths(settings.data_root, settings.exec_root)
        paths.make()
        state = State(paths.state)
        loaded = state.open()
        for line in loaded.damaged:
            log.error("%s", line)
        exits, losses = _Exits(), _Losses()
        connection = await _connect(settings.exec_root, keeper, exits, losses)
        namespaces = Namespaces(connection)
        plugins = Plugins(settings.plugin_dirs)
        manager = NetworkManager(instance=settings.instance, state_dir=paths.data_root, pools=settings.address_pools,
                                 netns=namespaces, bip=settings.bip, plugins=plugins)
        volumes = VolumeStore(paths.data_root)
        await volumes.open()
        plugged = RemoteVolumes(f"{paths.data_root}/plugged-volumes.json", plugins)
        plugged.open()
        store = await make_store(paths.images, connection, settings.registry)
        await manager.open(loaded.networks)
        core = Core(
            settings=settings, paths=paths, state=state, events=EventBus(), table=Table(), keeper=connection,
            images=store, trust=Trust(settings.trust_policy, f"{paths.images}/trust", store), networks=manager,
            volumes=volumes, plugins=plugins, plugged=plugged, machine=platform.machine(), kernel=_kernel(),
            cpus=len(os.sched_getaffinity(0)), memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            ids=IdRanges(*pool(settings.subid_user, host_file("/etc/subuid"), host_file("/etc/subgid"))))
        connector = Connector(core)
        life = Life(core, Launcher(core, connector), connector)
        keeping = Keeping(core, life)
        losses.deliver(keeping.lost)
        if connection.outdated:
            log.error("the keeper runs older code than this helper: %s", connection.outdated)
        identity = loaded.meta.get("id", b"").decode() or new_id()[:32]
        made = cls(core, life, connector, namespaces, identity)
        await made._settle(loaded.meta, identity, {one.id for one in loaded.networks})
        await restore(core, life, made.containers, loaded.containers)
        await keeping.settle()
        exits.deliver(life.exited)
        core.spawn(made._end_those_of_lost_images(), "end containers whose image was lost")
        return made

    async def _settle(self, meta: dict[str, bytes], identity: str, kept: set[str]) -> None:
        """Write down what was made for the first time."""
        core = self._core
        if "id" not in meta:
            core.state.put_meta("id", identity.encode())
        for network in core.networks.list():
            if network.id not in kept:
                await core.state.put_network(network)

    def renew_keeper(self) -> None:
        """Have the keeper execute its program anew, as it is on disk now, under running containers."""
        self._core.spawn(self._renew_keeper(), "upgrade of the keeper")

    async def _renew_keeper(self) -> None:
        try:
            await self._core.keeper.upgrade()
        except KeeperError as error:
            log.error("the keeper could not be upgraded: %s", error.message)
            return
        log.warning("the keeper (process %d) has been executed anew", self._core.keeper.pid)

    async def _end_those_of_lost_images(self) -> None:
        """Containers whose image had not arrived when helper and keeper died together would read zeros for files."""
        lost = self._core.images.early.lost if self._core.images.early is not None else ()
        for container in [one for one in self._core.table if one.status.active and one.record.image in lost]:
            log.error("the container %s is ended: its image had not arrived yet, and what brought it is gone",
                      container.name)
            try:
                await self._life.kill(container, "SIGKILL")
            except Conflict:
                continue                       # it has ended by itself

    async def close(self) -> None:
        """The helper leaves; containers run on."""
        core = self._core
        core.closing = True
        core.events.close()
        for task in list(core.tasks):
            task.cancel()
        if core.tasks:
            await asyncio.wait(core.tasks, timeout=5)
        for container in core.table:
            container.drop_pending()
        await core.networks.close(keep=any(one.status.active for one in core.table))
        await self._namespaces.close()
        await core.images.close()
        await core.volumes.close()
        await self._leave_keeper()
        await asyncio.to_thread(core.state.close)

    async def _leave_keeper(self) -> None:
        """A keeper that holds no running container has nothing to outlive us for."""
        keeper = self._core.keeper
        if not any(one.status.active for one in self._core.table):
            try:
                await keeper.stop()
            except KeeperError as error:
                log.info("the keeper stays: %s", error.message)
        keeper.close()

    async def shutdown(self) -> None:
        """An orderly end: containers stop too, then the keeper leaves."""
        await self._life.shutdown(self.settings.shutdown_timeout)
        deadline = time.monotonic() + _AFTERMATH
        while self._core.tasks and time.monotonic() < deadline:      # what follows from their ends
            await asyncio.wait(self._core.tasks, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        await self.close()


async def _connect(exec_root: str, sock: socket.socket, exits: _Exits, losses: _Losses) -> Keeper:
    """Speak with the keeper. One that is lost in this moment is replaced by the next."""
    for attempt in range(_CONNECTS):
        try:
            return await Keeper.connect(sock, on_exit=exits.take, on_lost=losses.take)
        except KeeperError as error:
            if error.reason != "lost" or attempt == _CONNECTS - 1:
                raise Unavailable(f"the keeper cannot be spoken with: {error.message}") from error
        log.warning("the keeper was lost before it could be spoken with")
        losses.forget()
        sock = await asyncio.to_thread(Keeper.find_or_start, exec_root)
    raise AssertionError("unreachable")


class _Exits:
    """Holds ends back until the containers are there that they are about."""

    def __init__(self) -> None:
        self._early: list[Exit] = []
        self._call: Callable[[Exit], None] | None = None

    def take(self, one: Exit) -> None:
        """The keeper's news."""
        if self._call is None:
            self._early.append(one)
        else:
            self._call(one)

    def deliver(self, call: Callable[[Exit], None]) -> None:
        """Hand them to *call* from now on."""
        self._call = call
        for one in self._early:
            call(one)
        self._early.clear()


class _Losses:
    """Holds the news of a lost keeper back until there is somebody to replace it."""

    def __init__(self) -> None:
        self._lost = False
        self._call: Callable[[], None] | None = None

    def take(self) -> None:
        """The keeper is gone."""
        self._lost = True
        if self._call is not None:
            self._call()

    def forget(self) -> None:
        """That one is of no account any more."""
        self._lost = False

    def deliver(self, call: Callable[[], None]) -> None:
        """Have *call* hear it from now on."""
        self._call = call
        if self._lost:
            call()


def _kernel() -> tuple[int, int]:
    major, _, rest = platform.release().partition(".")
    minor = "".join(letter for letter in rest.partition(".")[0] if letter.isdigit())
    return int(major), int(minor or 0)
