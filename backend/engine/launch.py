"""Brings one container up and takes it down again. Callers hold its lock."""

from __future__ import annotations

from contextlib import AsyncExitStack

import resources
from backend.engine import shm, spec, volumedrivers
from backend.engine.checks import RUNTIMES
from backend.engine.connect import Connector, Sandbox
from backend.engine.container import Container
from backend.engine.core import Core, log
from backend.engine.devices import throttles, wanted
from backend.engine.logchoice import log_limits
from backend.engine.mountsources import sources
from backend.engine.paths import ContainerPaths, write_bundle
from backend.engine.record import ContainerRecord, MountRecord
from backend.errors import Conflict, EngineError, InvalidArgument, ServerError, Unavailable
from backend.runtime.client import KeeperError, LogTarget, Overlay, Stdio

#: What a shell and Docker say of a start that failed.
EXIT_NOT_FOUND, EXIT_NOT_PERMITTED, EXIT_OTHER = 127, 126, 128


class StartFailed(Exception):
    """A start that came to nothing: `error` is for the client, `code` becomes the container's exit code."""

    def __init__(self, error: EngineError, code: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.code = code


def refusal(error: KeeperError) -> StartFailed:
    """The keeper's refusal in the words and kinds that clients know."""
    text = error.message
    if error.reason == "lost":
        return StartFailed(Unavailable(f"the container cannot be started: {text}"), EXIT_OTHER)
    if error.reason == "not_found":
        return StartFailed(InvalidArgument(f"failed to start the container: {text}"), EXIT_NOT_FOUND)
    if error.reason == "not_permitted":
        return StartFailed(InvalidArgument(f"failed to start the container: {text}"), EXIT_NOT_PERMITTED)
    if error.reason in ("not_installed", "no_user", "bad_config", "bad_cwd"):
        return StartFailed(InvalidArgument(text), EXIT_OTHER)
    return StartFailed(ServerError(f"failed to start the container: {text}"), EXIT_OTHER)


class Launcher:
    """The steps of a start, in order, and their undoing."""

    def __init__(self, core: Core, connector: Connector) -> None:
        self._core = core
        self._connector = connector
        self._seccomp = resources.text("seccomp/default.json")

    async def start(self, container: Container) -> int:
        """Run the container; returns when its program runs (ns since the epoch). Raises :class:`StartFailed`.

        Nothing of the attempt is left when it fails.
        """
        container.used = True
        try:
            return await self._steps(container)
        except KeeperError as error:
            await self.down(container)
            raise refusal(error) from error
        except EngineError as error:
            await self.down(container)
            raise StartFailed(error, EXIT_OTHER) from error
        except OSError as error:
            await self.down(container)
            raise StartFailed(ServerError(f"{error.filename or 'start'}: {error.strerror}"), EXIT_OTHER) from error
        except BaseException:
            await self.down(container)
            raise

    async def _steps(self, container: Container) -> int:
        core, record = self._core, container.record
        # Here and not only at the create: the policy may have changed since. Restarts come this way too.
        await core.trust.check(record.image, record.image_name)
        places = core.paths.container(container.id)
        lower = await core.images.lowers(record.image, container.id)
        async with AsyncExitStack() as stack:
            mounts = await sources(core, record.mounts, container.id, stack)
            sandbox = await self._connector.up(container)
            stack.callback(sandbox.close)
            # Its addresses are on disk before its program runs: the helper may be killed the moment after. This goes
            # on beside the keeper's work.
            kept = core.state.put_status(container.id, container.status)
            config = spec.build(self._spec(container, sandbox, mounts))
            write_bundle(places, spec.to_json(config))
            driver, size, files = log_limits(record.host_config.log_config, own=record.own_log)
            rows, columns = (record.host_config.console_size or [0, 0])[:2]
            container.status.pid = await core.keeper.create(
                container.id, places.bundle, overlay=_overlay(record, tuple(lower), places),
                stdio=Stdio(record.config.tty, record.config.open_stdin, record.config.stdin_once, rows, columns),
                log=LogTarget(places.log, driver, size, files),
                netns=sandbox.netns if sandbox.netns >= 0 else None,
                userns=sandbox.userns if sandbox.userns >= 0 else None,
                runtime=RUNTIMES[record.host_config.runtime])
        await self._attach_pending(container)
        self._tell_volumes(container, "mount")
        await kept
        return await core.keeper.start(container.id)

    async def _attach_pending(self, container: Container) -> None:
        pending, container.pending = container.pending, []
        for one in pending:
            try:
                await self._core.keeper.attach(container.id, stdin=one.stdin, stdout=one.stdout, stderr=one.stderr,
                                               peer=one.peer)
            finally:
                one.peer.close()

    def _spec(self, container: Container, sandbox: Sandbox, mounts: tuple[MountRecord, ...]) -> spec.SpecInput:
        record, host, core = container.record, container.record.host_config, self._core
        joined = {"network": sandbox.joined} if sandbox.joined else {}
        shared = ""
        if host.ipc_mode == "shareable":
            shared = shm.provide(core.paths, container.id, host.shm_size)
        elif host.ipc_mode.startswith("container:"):
            shared = self._joined_shm(host.ipc_mode.removeprefix("container:"))
        for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode), ("uts", host.uts_mode),
                           ("cgroup", host.cgroupns_mode)):
            if mode == "host":
                joined[kind] = "host"
            elif mode.startswith("container:"):
                joined[kind] = self._other_namespace(mode.removeprefix("container:"), kind)
        return spec.SpecInput(
            record=record, hostname="" if host.uts_mode == "host" else sandbox.hostname,
            cgroups_path=self.cgroup_path(container), machine=core.machine, kernel=core.kernel,
            seccomp_default=self._seccomp, mounts=mounts, files=sandbox.files, joined=joined, devices=wanted(host),
            throttles=throttles(host), links=tuple(self._connector.link_environment(container)), shm=shared,
            init=bool(host.init))

    def _joined_shm(self, ref: str) -> str:
        """The shared memory of the container whose IPC namespace is joined."""
        other = self._core.table.get(ref)
        if other.record.host_config.ipc_mode != "shareable":
            raise InvalidArgument(f"can't join IPC of container {ref}: non-shareable IPC "
                                  "(hint: use IpcMode:shareable for the donor container)")
        return shm.place(self._core.paths, other.id)

    def _other_namespace(self, ref: str, kind: str) -> str:
        other = self._core.table.get(ref)
        if not other.status.active:
            raise Conflict(f"cannot join {kind.upper()} namespace of a non running container: {ref}: container "
                           f"{other.id} is not running")
        return f"/proc/{other.status.pid}/ns/{kind}"

    def cgroup_path(self, container: Container) -> str:
        """Where the container's processes are counted and limited."""
        parent = container.record.host_config.cgroup_parent.strip("/")
        return f"{parent or self._core.settings.instance}/{container.id}"

    def _tell_volumes(self, container: Container, action: str) -> None:
        for one in container.record.mounts:
            if one.kind == "volume":
                details = {"container": container.id, "driver": one.driver}
                if action == "mount":
                    details |= {"destination": one.target, "propagation": one.propagation,
                                "read/write": "false" if one.read_only else "true"}
                self._core.events.publish("volume", action, one.volume, details)

    async def down(self, container: Container) -> None:
        """Take back whatever a start has made: network, cgroup, bundle, image. May be called again."""
        if not container.used:
            return
        ran = bool(container.status.pid)
        container.used = False
        container.drop_pending()
        await self._connector.down(container)
        try:
            await self._core.keeper.delete(container.id)
        except KeeperError as error:
            if error.reason != "no_such":
                log.warning("container %s: the keeper could not let go of it: %s", container.id[:12], error.message)
        await volumedrivers.unmount(self._core, container.record.mounts, container.id)
        if ran:
            self._tell_volumes(container, "unmount")
        if container.cgroup is not None:
            container.cgroup.close()
            container.cgroup = None
        container.status.pid = 0
        shm.withdraw(self._core.paths, container.id)
        self._remove_bundle(container.id)
        self._core.images.release(container.id)

    def _remove_bundle(self, identity: str) -> None:
        try:
            self._core.paths.remove_bundle(identity)
        except OSError as error:
            log.warning("container %s: %s: %s", identity[:12], error.filename, error.strerror)


def _overlay(record: ContainerRecord, lower: tuple[str, ...], places: ContainerPaths) -> Overlay:
    """One that is removed when it ends leaves nothing to be kept over a crash: its end and its fsyncs need not wait for
    the disk. Unmounting an overlay otherwise writes back all of the file system below it, whoever's the data are."""
    return Overlay(lower, places.upper, places.work, volatile=record.host_config.auto_remove)
