"""The life of containers: start, stop, kill, pause, restart, the end, removal. Each change goes through here.

States: created → running ⇄ paused → exited → running ...; `restarting` waits for the next try; removal ends it. What
changes a life holds the container's lock; waiting for a process to end never does, so that a kill can come during a
stop. The exit itself is taken in at once, without the lock; what follows from it is done under it.
"""

from __future__ import annotations

import asyncio
import errno
import time
from contextlib import AsyncExitStack

from backend.engine import order, volumedrivers
from backend.engine.clock import SECOND
from backend.engine.connect import Connector
from backend.engine.container import Container
from backend.engine.core import Core, log
from backend.engine.launch import Launcher, StartFailed
from backend.engine.meter import Meter
from backend.engine.signals import signal_number
from backend.errors import Conflict, EngineError, NotModified, ServerError
from backend.runtime.cgroups import Cgroup, CgroupError
from backend.runtime.client import Exit, KeeperError

SIGKILL, SIGTERM = 9, 15
DEFAULT_GRACE = 10                     # seconds between a stop's signal and the kill
KILL_PATIENCE = 10                     # seconds that a killed process may take to be gone
_FIRST_DELAY, _LONGEST_DELAY, _STEADY = 0.1, 60.0, 10 * SECOND


class Life:
    """Everything that changes what a container is doing."""

    def __init__(self, core: Core, launcher: Launcher, connector: Connector) -> None:
        self._core = core
        self._launcher = launcher
        self.connector = connector
        self.meter = Meter(core, self.cgroup)

    # --- start ------------------------------------------------------------------------------------------------------
    async def start(self, container: Container) -> None:
        """Start it. Raises :class:`NotModified` when it runs, and the reason when it cannot."""
        async with container.lock:
            if container.removed or container.status.removing:
                raise Conflict("container is marked for removal and cannot be started")
            if container.status.state == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.status.active:
                raise NotModified("container already running")
            self._cancel_restart(container)
            container.failures = 0
            container.status.restart_count = 0
            container.status.stopped_by_user = False
            await self._launch(container)

    async def _launch(self, container: Container) -> None:
        """Start it, with its lock held."""
        status = container.status
        await self._launcher.down(container)              # what is left of the last run
        container.starting, container.early_exit, container.hushed = True, None, False
        container.ended.clear()
        try:
            at = await self._launcher.start(container)
        except StartFailed as failure:
            self._start_failed(container, failure)
            raise failure.error from failure
        finally:
            container.starting = False
        status.state, status.started_at, status.finished_at = "running", at, status.finished_at
        status.exit_code, status.error, status.oom, status.ever_started = 0, "", False, True
        self.keep(container)
        self.tell(container, "start")
        self.meter.began(container)
        if container.health is not None:
            container.health.begin()
        if container.early_exit is not None:
            self._ended(container, container.early_exit)

    def _start_failed(self, container: Container, failure: StartFailed) -> None:
        status = container.status
        status.error, status.exit_code, status.pid = failure.error.message, failure.code, 0
        status.state = "exited" if status.ever_started else "created"
        container.ended.set()
        self.keep(container)
        container.answer_waiters("", "not-running", "next-exit")
        if container.record.host_config.auto_remove:
            self._core.spawn(self.remove(container, force=True, volumes=True), f"remove {container.name}")

    # --- the end ----------------------------------------------------------------------------------------------------
    def exited(self, exit_: Exit) -> None:
        """The keeper's news of an end. Called in the loop."""
        container = self._core.table.by_id(exit_.id)
        if container is None:
            if not exit_.exec_id:
                self._core.spawn(self._let_go(exit_.id), f"end of {exit_.id[:12]}")
            return
        if exit_.exec_id:
            ended = container.execs.get(exit_.exec_id)
            if ended is not None:
                ended.exited(exit_.code)
        elif container.starting:
            container.early_exit = exit_
        elif container.status.active:
            self._ended(container, exit_)

    async def _let_go(self, identity: str) -> None:
        """A container that no record speaks of has ended: the keeper need not remember it."""
        try:
            await self._core.keeper.delete(identity)
        except KeeperError as error:
            if error.reason != "no_such":
                log.warning("container %s: %s", identity[:12], error.message)

    def _ended(self, container: Container, exit_: Exit) -> None:
        status = container.status
        status.state, status.exit_code, status.oom = "exited", exit_.code, exit_.oom
        status.finished_at = exit_.at
        if not exit_.known:
            status.error = "the engine was not there when it ended: its exit code is not known"
        self.meter.ended(container)
        if container.health is not None:
            container.health.end()
        for one in list(container.execs.values()):
            one.container_ended(exit_.code)
        if exit_.oom:
            self.tell(container, "oom")
        duration = max(0, exit_.at - status.started_at) // SECOND
        self.tell(container, "die", exitCode=str(exit_.code), execDuration=str(duration))
        again = self._restarts(container, exit_)
        if again:
            status.state = "restarting"
            status.restart_count += 1
        kept = self.keep(container)
        # Asked now: by the time that it is done, a restart may have started it again.
        removes = not again and container.record.host_config.auto_remove and not container.hushed
        container.ended.set()
        self._core.spawn(self._after_exit(container, again, removes, kept), f"aftermath of {container.name}")

    async def _after_exit(self, container: Container, again: bool, removes: bool,
                          kept: asyncio.Future[None] | None) -> None:
        """Free what it held, tell those who wait, then restart or remove it as asked.

        Its end is on disk before anybody is told and before the keeper, which has it too, is let forget it: what was
        said stays true when helper and keeper are killed the next moment.
        """
        async with container.lock:
            if not container.status.active:
                told = any(one.source for one in container.status.endpoints)
                await self.connector.down(container)       # ports are free when the end is told
                if told:                                   # a plug-in has heard of it: once is enough
                    kept = self.keep(container)
                if kept is not None:
                    await asyncio.wait([kept])             # a failure is in the log; the end is told all the same
                container.answer_waiters("", "not-running", "next-exit")
                await self._launcher.down(container)
        if again:
            self._schedule_restart(container)
        elif removes:
            try:
                await self.remove(container, force=True, volumes=True)
            except Conflict:
                return                                     # somebody else is removing it

    def ended_meanwhile(self, container: Container, exit_: Exit) -> None:
        """It ended while no engine was there."""
        self._ended(container, exit_)

    async def tidy(self, container: Container) -> None:
        """Free what a run that was cut short still holds."""
        async with container.lock:
            if not container.status.active:
                await self._launcher.down(container)

    # --- restart policies -------------------------------------------------------------------------------------------
    def _restarts(self, container: Container, exit_: Exit) -> bool:
        policy, status = container.record.host_config.restart_policy, container.status
        if container.hushed or container.stopping or status.stopped_by_user or self._core.closing or status.removing:
            return False
        if exit_.at - status.started_at >= _STEADY:
            container.failures = 0
        if policy.name in ("always", "unless-stopped"):
            return True
        if policy.name == "on-failure" and exit_.code != 0:
            return not policy.maximum_retry_count or status.restart_count < policy.maximum_retry_count
        return False

    def _schedule_restart(self, container: Container) -> None:
        delay = min(_FIRST_DELAY * 2 ** container.failures, _LONGEST_DELAY)
        container.failures = min(container.failures + 1, 16)
        container.restart_timer = self._core.spawn(self._restart_later(container, delay), f"restart {container.name}")

    async def _restart_later(self, container: Container, delay: float) -> None:
        await asyncio.sleep(delay)
        async with container.lock:
            if container.status.state != "restarting" or container.removed:
                return
            container.restart_timer = None
            try:
                await self._launch(container)
            except EngineError as error:
                log.warning("container %s could not be restarted: %s", container.name, error.message)

    def resume_restart(self, container: Container) -> None:
        """Go on waiting for the next try, after a restart of the engine."""
        if container.restart_timer is None:
            self._schedule_restart(container)

    async def start_again(self, container: Container) -> None:
        """Start it because its policy says so when the engine comes up."""
        async with container.lock:
            if container.status.active or container.removed:
                return
            try:
                await self._launch(container)
            except EngineError as error:
                log.warning("container %s could not be started: %s", container.name, error.message)

    def _cancel_restart(self, container: Container) -> bool:
        """Give up waiting for the next try. True if there was one to wait for."""
        if container.restart_timer is not None:
            container.restart_timer.cancel()
            container.restart_timer = None
        if container.status.state != "restarting":
            return False
        container.status.state = "exited"
        self.keep(container)
        return True

    # --- stop, kill, restart ----------------------------------------------------------------------------------------
    async def stop(self, container: Container, signal: str | None, timeout: int | None, *,
                   by_user: bool = True) -> None:
        """Signal it, wait, kill it. Raises :class:`NotModified` when it does not run."""
        number = signal_number(signal or container.record.config.stop_signal or "SIGTERM")
        if by_user:
            container.status.stopped_by_user = True
        if self._cancel_restart(container):
            return
        if not container.status.active:
            raise NotModified("container already stopped")
        grace = self._grace(container, timeout)
        container.stopping = True
        try:
            await self._signal(container, number)
            if not await self._wait_end(container, grace):
                await self._kill_and_wait(container)
        finally:
            container.stopping = False
        self.keep(container)
        self.tell(container, "stop")

    @staticmethod
    def _grace(container: Container, timeout: int | None) -> float | None:
        chosen = timeout if timeout is not None else container.record.config.stop_timeout
        if chosen is None:
            chosen = DEFAULT_GRACE
        return None if chosen < 0 else float(chosen)

    async def _signal(self, container: Container, number: int) -> None:
        """Send a signal; a frozen container is thawed, or it could never follow it."""
        try:
            await self._core.keeper.kill(container.id, number)
        except KeeperError as error:
            if error.reason in ("not_running", "no_such"):
                return
            raise ServerError(f"cannot signal container {container.id}: {error.message}") from error
        self.tell(container, "kill", signal=str(number))
        if container.status.state == "paused":
            await self._thaw(container)

    async def _wait_end(self, container: Container, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await container.ended.wait()
        except TimeoutError:
            return False
        return True

    async def _kill_and_wait(self, container: Container) -> None:
        await self._signal(container, SIGKILL)
        if not await self._wait_end(container, KILL_PATIENCE):
            raise ServerError(f"container {container.id[:12]} was killed but has not ended: one of its processes is "
                              "stuck in the kernel")

    async def kill(self, container: Container, signal: str) -> None:
        """Send a signal; after SIGKILL it returns when the container has ended."""
        number = signal_number(signal or "SIGKILL")
        if container.status.state == "restarting" and number == SIGKILL:
            container.status.stopped_by_user = True
            self._cancel_restart(container)
            return
        if not container.status.active:
            raise Conflict(f"container {container.id} is not running")
        if number == SIGKILL:
            container.status.stopped_by_user = True
            await self._kill_and_wait(container)
            return
        stop_signal = container.record.config.stop_signal
        if number == (signal_number(stop_signal) if stop_signal else SIGTERM):
            container.status.stopped_by_user = True       # as Docker: that signal means "end", so no restart follows
        try:
            await self._core.keeper.kill(container.id, number)
        except KeeperError as error:
            raise Conflict(error.message) from error
        self.tell(container, "kill", signal=str(number))

    async def restart(self, container: Container, signal: str | None, timeout: int | None) -> None:
        """Stop it if it runs, and start it."""
        container.hushed = True                            # no restart policy and no auto-removal in between
        try:
            await self.stop(container, signal, timeout, by_user=False)
        except NotModified:
            pass
        except BaseException:
            container.hushed = False
            raise
        try:
            await self.start(container)
        except NotModified:
            pass
        self.tell(container, "restart")

    # --- pause ------------------------------------------------------------------------------------------------------
    async def pause(self, container: Container) -> None:
        """Freeze its processes."""
        async with container.lock:
            if container.status.state == "paused":
                raise Conflict(f"Container {container.id} is already paused")
            if container.status.state == "restarting":
                raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
            if container.status.state != "running":
                raise Conflict(f"container {container.id} is not running")
            try:
                await asyncio.to_thread(self.cgroup(container).freeze)
            except (CgroupError, OSError) as error:
                if await self._still_there(container):
                    raise ServerError(f"cannot pause container {container.id}: {error}") from error
                raise Conflict(f"container {container.id} is not running") from error
            if not container.status.active:                # it ended meanwhile
                raise Conflict(f"container {container.id} is not running")
            container.status.state = "paused"
            self.keep(container)
            self.tell(container, "pause")

    async def _still_there(self, container: Container) -> bool:
        """After a pause that failed: let what is left of it go on. False: it has ended, its exit is on its way."""
        try:
            await asyncio.to_thread(self.cgroup(container).thaw)
        except (CgroupError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENODEV):
                return False
            log.warning("container %s could not be thawed: %s", container.name, error)
        return container.status.active

    async def hold(self, container: Container) -> bool:
        """Pause it for work of the engine's own, until :meth:`let_go` or, should the helper be killed, its next start.
        False: it is not running, or ends or is paused by somebody else this very moment."""
        if container.holds:                        # by another copy, whose pause may be under way
            container.holds += 1
            async with container.lock:
                return True
        if container.status.state != "running":
            return False
        container.holds = 1
        container.status.held = True
        try:
            # On the disk before the pause: a helper that is killed now must know whose pause it was.
            await self._core.state.put_status(container.id, container.status)
            await self.pause(container)
        except BaseException as error:
            await self.let_go(container)
            if isinstance(error, Conflict):
                return False
            raise
        return True

    async def hold_for(self, container: Container, stack: AsyncExitStack) -> None:
        """:meth:`hold` until *stack* ends."""
        if await self.hold(container):
            stack.push_async_callback(self.let_go, container)

    async def let_go(self, container: Container) -> None:
        """The end of :meth:`hold`; of no effect if others hold it still, or it has ended or been unpaused meanwhile."""
        container.holds = max(0, container.holds - 1)
        if container.holds:
            return
        container.status.held = False
        try:
            await self.unpause(container)
        except Conflict:
            self.keep(container)

    async def unpause(self, container: Container) -> None:
        """Let them go on."""
        async with container.lock:
            if container.status.state != "paused":
                raise Conflict(f"Container {container.id} is not paused")
            await self._thaw(container)

    async def _thaw(self, container: Container) -> None:
        try:
            await asyncio.to_thread(self.cgroup(container).thaw)
        except (CgroupError, OSError) as error:
            if container.status.active and not isinstance(error, FileNotFoundError):
                raise ServerError(f"cannot unpause container {container.id}: {error}") from error
            return
        if container.status.state == "paused":
            container.status.state = "running"
            self.keep(container)
            self.tell(container, "unpause")

    def cgroup(self, container: Container) -> Cgroup:
        """Its cgroup, with descriptors kept open for repeated samples."""
        if container.cgroup is None:
            container.cgroup = Cgroup(self._launcher.cgroup_path(container))
        return container.cgroup

    # --- removal ----------------------------------------------------------------------------------------------------
    async def remove(self, container: Container, *, force: bool, volumes: bool) -> None:
        """Remove it. Raises :class:`Conflict` for one that runs (unless *force*) or is being removed already."""
        status = container.status
        if status.removing or container.removed:
            raise Conflict(f"removal of container {container.id} is already in progress")
        if (status.active or status.state == "restarting") and not force:
            what = ("paused and must be unpaused first" if status.state == "paused" else
                    f"{status.state}: stop the container before removing or force remove")
            raise Conflict(f'cannot remove container "{container.name}": container is {what}')
        status.removing = True
        try:
            self._cancel_restart(container)
            if status.active:
                await self._kill_and_wait(container)
            async with container.lock:
                if status.active:                          # a start got in between
                    await self._kill_and_wait(container)
                await self._launcher.down(container)
                await self._forget(container, volumes=volumes)
        finally:
            status.removing = False

    async def _forget(self, container: Container, *, volumes: bool) -> None:
        """Its record goes, then its anonymous volumes; whoever waits for its removal is told after that."""
        core = self._core
        await core.state.drop_container(container.id)
        container.removed = True
        core.table.drop(container)
        doomed = core.paths.discard(core.paths.container(container.id).home)
        if doomed:
            core.spawn(asyncio.to_thread(core.paths.empty_trash, doomed), f"remove files of {container.name}")
        container.drop_pending()
        container.ended.set()
        try:
            if volumes:
                await self._remove_anonymous(container)
        finally:
            self.tell(container, "destroy")
            container.answer_waiters("", "not-running", "next-exit", "removed")

    async def _remove_anonymous(self, container: Container) -> None:
        core = self._core
        for one in container.record.mounts:
            if one.kind == "volume" and one.anonymous and not core.table.users_of_volume(one.volume):
                driver = await volumedrivers.remove(core, one.volume, force=True)
                core.events.publish("volume", "destroy", one.volume, {"driver": driver or one.driver})

    # --- shared -----------------------------------------------------------------------------------------------------
    def keep(self, container: Container) -> asyncio.Future[None] | None:
        """Write down how it is; the result is done once that is on disk. None: it is removed, nothing is written."""
        if container.removed:
            return None
        return self._core.state.put_status(container.id, container.status)

    def tell(self, container: Container, action: str, **more: str) -> None:
        """Publish an event of it."""
        self._core.events.publish("container", action, container.id, container.attributes(**more),
                                  image=container.record.image_name)

    def now_running(self) -> list[Container]:
        """All that have a process."""
        return [one for one in self._core.table if one.status.active]

    async def shutdown(self, grace: int) -> None:
        """Stop all in order, for the end of the machine; their restart policies apply at the next start.

        *grace*: seconds for those that say nothing of it themselves.
        """
        self._core.closing = True
        for one in self._core.table:          # those that wait for their next try go on waiting at the next start
            if one.restart_timer is not None:
                one.restart_timer.cancel()
        for wave in order.waves([one.record for one in self.now_running()]):
            await asyncio.gather(*(self._end(identity, grace) for identity in wave))

    async def _end(self, identity: str, grace: int) -> None:
        container = self._core.table.by_id(identity)
        if container is None:
            return
        own = container.record.config.stop_timeout
        try:
            await self.stop(container, None, grace if own is None or own < 0 else own, by_user=False)
        except EngineError as error:          # it has ended by itself, or cannot be ended: the others shall be
            log.warning("container %s: %s", container.name, error)

    def since_start(self, container: Container) -> int:
        """Seconds that it has been running."""
        return max(0, time.time_ns() - container.status.started_at) // SECOND
