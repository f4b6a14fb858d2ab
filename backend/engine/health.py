"""Health checks: a command that runs in the container again and again, and what follows from how it ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from backend.engine import spec
from backend.engine.clock import SECOND, rfc3339
from backend.engine.core import Core
from backend.engine.execs import Exec
from backend.engine.names import new_id
from backend.runtime.client import KeeperError, Stdio
from backend.spec import api

if TYPE_CHECKING:
    from backend.engine.container import Container

_INTERVAL, _TIMEOUT, _RETRIES, _START_INTERVAL = 30 * SECOND, 30 * SECOND, 3, 5 * SECOND
_OUTPUT = 4096
_RESULTS = 5


def wanted(config: api.HealthConfig | None) -> bool:
    """Whether there is a check to run."""
    return config is not None and bool(config.test) and config.test[0] != "NONE"


class Monitor:
    """The checks of one container, from each start to its end."""

    def __init__(self, core: Core, container: Container, config: api.HealthConfig) -> None:
        self._core = core
        self._container = container
        self._config = config
        self._task: asyncio.Task[None] | None = None
        self._log: deque[api.HealthResult] = deque(maxlen=_RESULTS)
        self.status = "starting"
        self.streak = 0

    def begin(self) -> None:
        """The container runs: check it from now on."""
        self.end()
        self.status, self.streak = "starting", 0
        self._log.clear()
        self._task = self._core.spawn(self._run(), f"health of {self._container.name}")

    def end(self) -> None:
        """The container has ended."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def text(self) -> str:
        """What the status column says."""
        return "health: starting" if self.status == "starting" else self.status

    def view(self) -> api.Health:
        """What inspect says."""
        return api.Health(status=self.status, failing_streak=self.streak, log=list(self._log))

    async def _run(self) -> None:
        config = self._config
        begun = time.monotonic_ns()
        interval = config.interval or _INTERVAL
        while True:
            settling = self.status == "starting" and time.monotonic_ns() - begun < config.start_period
            pause = min(config.start_interval or _START_INTERVAL, interval) if settling else interval
            await asyncio.sleep(pause / SECOND)
            if self._container.status.state != "running":
                continue
            self._take(await self._probe(), in_start=time.monotonic_ns() - begun < config.start_period)

    def _take(self, result: api.HealthResult, *, in_start: bool) -> None:
        self._log.append(result)
        before = self.status
        if result.exit_code == 0:
            self.status, self.streak = "healthy", 0
        elif not (in_start and self.status == "starting"):
            self.streak += 1
            if self.streak >= (self._config.retries or _RETRIES):
                self.status = "unhealthy"
        if self.status != before:
            container = self._container
            self._core.events.publish("container", f"health_status: {self.status}", container.id,
                                      container.attributes(), image=container.record.image_name)

    def _command(self) -> list[str]:
        kind, *rest = self._config.test
        if kind == "CMD":
            return rest
        shell = self._container.record.config.shell or ["/bin/sh", "-c"]
        return [*shell, " ".join(rest)] if kind == "CMD-SHELL" else list(self._config.test)

    async def _probe(self) -> api.HealthResult:
        start = time.time_ns()
        timeout = (self._config.timeout or _TIMEOUT) / SECOND
        try:
            code, output = await self._execute(timeout)
        except KeeperError as error:
            code, output = -1, ("OCI runtime exec failed: exec failed: unable to start container process: "
                                f"{error.message}").encode()
        return api.HealthResult(start=rfc3339(start), end=rfc3339(time.time_ns()), exit_code=code,
                                output=output.decode(errors="replace"))

    async def _execute(self, timeout: float) -> tuple[int, bytes]:
        """Run the check once: its exit code and the beginning of its output."""
        container, keeper = self._container, self._core.keeper
        body = api.ExecCreate(cmd=self._command(), attach_stdout=True, attach_stderr=True, tty=True)
        one = Exec(new_id(), container, body, tty=True, state="starting")
        container.execs[one.id] = one
        process = spec.exec_process(container.record, body, container.hostname)
        try:
            # A terminal would turn newlines into CR LF; plain pipes need frames taken apart, which is done here.
            process["terminal"] = False
            await keeper.exec_prepare(container.id, one.id, process, Stdio(False, False, False))
            sock = await keeper.attach(container.id, one.id, stdin=False, stdout=True, stderr=True)
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            output = _Beginning()
            try:
                await keeper.exec_start(container.id, one.id)
                async with asyncio.timeout(timeout):
                    await _read_frames(reader, output)
                    await one.ended.wait()
                return (0 if one.exit_code == 0 else one.exit_code or 1), output.text()
            except TimeoutError:
                await keeper.kill(container.id, 9, one.id)
                said = b": " + output.text() if output.data else b""
                return -1, f"Health check exceeded timeout ({timeout:g}s)".encode() + said
            finally:
                writer.close()
        finally:
            container.execs.pop(one.id, None)


class _Beginning:
    """The beginning of an output; what is beyond the limit is dropped."""

    def __init__(self) -> None:
        self.data = b""
        self._more = False

    def add(self, part: bytes) -> None:
        """More of it."""
        self._more = self._more or len(self.data) + len(part) > _OUTPUT
        self.data = (self.data + part)[:_OUTPUT]

    def text(self) -> bytes:
        """What was kept, with a sign where something is missing."""
        return self.data + (b"..." if self._more else b"")


async def _read_frames(reader: asyncio.StreamReader, output: _Beginning) -> None:
    """The content of Docker's frames until they end."""
    while True:
        try:
            head = await reader.readexactly(8)
            left = int.from_bytes(head[4:], "big")
            while left:
                part = await reader.readexactly(min(left, 1 << 16))
                left -= len(part)
                output.add(part)
        except asyncio.IncompleteReadError:
            return
