"""Carries a plan out: each step is one call of the Engine API, in parallel where the plan's edges allow.

Nothing is decided here. When a step fails, the calls under way are let finish, waits are given up, nothing new begins,
and the report says what was done, what failed and what was not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from backend.compose import bodies
from backend.compose.needs import ComposeClient
from backend.compose.observed import with_tag
from backend.compose.plan import (
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    Operation,
    Plan,
    PullImage,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RenameContainer,
    RestartContainer,
    StartContainer,
    Step,
    StopContainer,
    WaitCompleted,
    WaitHealthy,
)
from backend.errors import Conflict, EngineError, NotFound, NotModified
from backend.spec import api

PARALLEL = 8
_HEALTH_INTERVAL = 0.2      # seconds between two looks at a container's health
_LAST_OUTPUT = 200          # characters of a failed health check's output in the error

State = Literal["begun", "detail", "done", "failed"]
# Gives the X-Registry-Auth header for an image's reference, or "" for none; backend.credentials knows how.
Credentials = Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Progress:
    """``text``: the error of a failed step, a line of progress ("detail"), else empty."""

    step: Step
    state: State
    text: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    step: Step
    error: EngineError

    def __str__(self) -> str:
        return f"{self.step.operation}: {self.error.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a plan's steps. ``not_begun`` (and waits given up) is empty unless something failed."""

    done: tuple[Step, ...] = ()
    failed: tuple[Failure, ...] = ()
    not_begun: tuple[Step, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        lines = [f"failed: {failure}" for failure in self.failed]
        if self.failed:
            lines += [f"done: {step.operation}" for step in self.done]
            lines += [f"not begun: {step.operation}" for step in self.not_begun]
        return "\n".join(lines)


class StepFailed(EngineError):
    """The engine did what it was asked, and what was waited for did not come about."""


async def _no_credentials(_: str) -> str:
    return ""


def _nobody(_: Progress) -> None:
    """The progress of who does not want to know."""


async def execute(
    client: ComposeClient, plan: Plan, on_progress: Callable[[Progress], None] = _nobody, *,
    credentials: Credentials = _no_credentials,
) -> Report:
    """Carries *plan* out.

    Args:
        on_progress: called in the loop whenever a step begins, has news, is done or fails.
        credentials: for pulls.

    Returns:
        What was done and what was not. An engine's refusal is in the report and is not raised.
    """
    return await _Run(client, plan, on_progress, credentials).run()


@dataclass(slots=True)
class _Run:
    client: ComposeClient
    plan: Plan
    tell: Callable[[Progress], None]
    credentials: Credentials
    done: list[Step] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    not_begun: list[Step] = field(default_factory=list)
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> Report:
        finished = {step.number: asyncio.Event() for step in self.plan.steps}
        room = asyncio.Semaphore(PARALLEL)

        async def one(step: Step) -> None:
            for number in step.after:
                await finished[number].wait()
            # Waits take no room: what they wait for may need it.
            if isinstance(step.operation, WaitHealthy | WaitCompleted):
                await self.wait(step)
            else:
                async with room:
                    await self.step(step)
            finished[step.number].set()

        async with asyncio.TaskGroup() as group:
            for step in self.plan.steps:
                group.create_task(one(step))
        return Report(tuple(self.done), tuple(self.failed), tuple(sorted(self.not_begun, key=lambda s: s.number)))

    async def step(self, step: Step) -> None:
        if self.failed:
            self.not_begun.append(step)
            return
        self.tell(Progress(step, "begun"))
        try:
            await self.do(step, step.operation)
        except EngineError as error:
            self.failed.append(Failure(step, error))
            self.broken.set()
            self.tell(Progress(step, "failed", error.message))
        else:
            self.done.append(step)
            self.tell(Progress(step, "done"))

    async def wait(self, step: Step) -> None:
        """A wait changes nothing, so it ends at once when the plan fails elsewhere."""
        work = asyncio.ensure_future(self.step(step))
        broken = asyncio.ensure_future(self.broken.wait())
        try:
            await asyncio.wait((work, broken), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.not_begun.append(step)
            else:
                await work
        finally:
            for task in (work, broken):
                task.cancel()
            await asyncio.gather(work, broken, return_exceptions=True)

    async def do(self, step: Step, operation: Operation) -> None:
        client = self.client
        match operation:
            case PullImage():
                await self.pull(step, operation)
            case CreateNetwork():
                await client.create_network(bodies.network_body(operation.project, operation.network))
            case CreateVolume():
                await client.create_volume(bodies.volume_body(operation.project, operation.volume))
            case CreateContainer():
                await self.create(operation)
            case RenameContainer():
                await client.rename_container(operation.ref, operation.name)
            case WaitHealthy():
                await self.wait_healthy(operation)
            case WaitCompleted():
                await self.wait_completed(operation)
            case StartContainer() | RestartContainer() | StopContainer():
                await self.set_running(operation)
            case RemoveContainer() | RemoveNetwork() | RemoveVolume():
                await self.remove(operation)

    async def pull(self, step: Step, operation: PullImage) -> None:
        auth = await self.credentials(operation.reference)
        # Without a tag the API means all of them.
        reference = with_tag(operation.reference)
        async for line in self.client.pull_image(reference, platform=operation.platform, auth=auth):
            self.tell(Progress(step, "detail", str(line)))

    async def create(self, operation: CreateContainer) -> None:
        image_id = operation.image_id
        if not image_id:
            # The image came with this plan; docker compose compares this label with the image that is there.
            image_id = (await self.client.inspect_image(operation.service.image)).id
        body = bodies.container_body(
            operation.project, operation.service, operation.number, image_id, operation.inherited)
        await self.client.create_container(body, name=operation.name, platform=operation.service.platform)

    async def set_running(self, operation: StartContainer | RestartContainer | StopContainer) -> None:
        try:
            if isinstance(operation, StartContainer):
                await self.client.start_container(operation.ref)
            elif isinstance(operation, RestartContainer):
                await self.client.restart_container(operation.ref)
            else:
                await self.client.stop_container(operation.ref, timeout=operation.timeout)
        except NotModified:
            return      # it is in that state already

    async def remove(self, operation: RemoveContainer | RemoveNetwork | RemoveVolume) -> None:
        try:
            if isinstance(operation, RemoveContainer):
                await self.client.remove_container(operation.ref, volumes=operation.volumes)
            elif isinstance(operation, RemoveNetwork):
                await self.client.remove_network(operation.id)
            else:
                await self.client.remove_volume(operation.name)
        except NotFound:
            return      # somebody else, or the container's own --rm, was faster
        except Conflict as error:
            if "already in progress" not in error.message:
                raise

    async def wait_healthy(self, operation: WaitHealthy) -> None:
        while True:
            state = (await self.client.inspect_container(operation.ref)).state
            if not state.running:
                raise StepFailed(f"{operation.name} ended with code {state.exit_code} before it was healthy")
            health = state.health
            if not isinstance(health, api.Health) or health.status in ("", "none"):
                raise StepFailed(f"{operation.name} has no health check, so it can never be healthy; give its service "
                                 "a `healthcheck` or depend on service_started")
            if health.status == "healthy":
                return
            if health.status == "unhealthy":
                last = health.log[-1].output.strip() if health.log else ""
                raise StepFailed(f"{operation.name} is unhealthy" + (f": {last[:_LAST_OUTPUT]}" if last else ""))
            await asyncio.sleep(_HEALTH_INTERVAL)

    async def wait_completed(self, operation: WaitCompleted) -> None:
        code = (await self.client.wait_container(operation.ref)).status_code
        if code != 0:
            raise StepFailed(f"{operation.name} ended with code {code}")
