"""Carrying a plan out: in order, in parallel where it may, and stopping cleanly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backend.compose.execute import Progress, execute
from backend.compose.plan import Draft, RemoveContainer, StartContainer, StopContainer, WaitCompleted, WaitHealthy
from backend.compose.reconcile import reconcile
from backend.errors import Conflict, NotFound, NotModified, ServerError
from backend.spec import api
from tests.unit.compose.conftest import Load
from tests.unit.compose.world import World


class Recorder:
    """A client that notes its calls; ``answers`` has for "method ref" an error to raise or values to give in turn."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {key.replace("__", " "): value for key, value in answers.items()}
        self.calls: list[str] = []
        self.bodies: list[Any] = []
        self.at_once = self.most_at_once = 0

    def __getattr__(self, method: str) -> Any:
        async def call(ref: Any, *_: Any, name: str = "", **__: Any) -> Any:
            if not isinstance(ref, str):
                self.bodies.append(ref)
                ref = name or ref.name
            self.calls.append(f"{method} {ref}")
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            await asyncio.sleep(0)
            self.at_once -= 1
            answer = self.answers.get(f"{method} {ref}")
            if isinstance(answer, list):
                answer = answer.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    async def pull_image(self, reference: str, *, platform: str = "", auth: str = "") -> Any:
        self.calls.append(f"pull_image {reference} {auth}")
        for line in ("Pulling", "Done"):
            yield line


STACK = "services: {web: {image: a, depends_on: [db]}, db: {image: b}, other: {image: b}}"


async def test_every_step_is_one_call_and_none_comes_before_what_it_needs(load: Load) -> None:
    client = Recorder()
    report = await execute(client, reconcile(load(STACK), World("shop").observed()))  # type: ignore[arg-type]
    assert report.ok and len(report.done) == len(client.calls) == 7
    order = client.calls.index
    assert order("create_network shop_default") == 0
    assert order("start_container shop-db-1") < order("start_container shop-web-1")
    assert client.most_at_once >= 3, "containers that do not depend on each other are made at the same time"


async def test_a_failure_stops_what_has_not_begun_and_the_report_says_all_of_it(load: Load) -> None:
    client = Recorder(**{"start_container__shop-db-1": ServerError("port is already allocated")})
    seen: list[str] = []

    def tell(progress: Progress) -> None:
        seen.append(f"{progress.state} {progress.step.operation} {progress.text}".strip())

    plan = reconcile(load(STACK), World("shop").observed())
    report = await execute(client, plan, tell)  # type: ignore[arg-type]
    assert not report.ok
    assert [str(f) for f in report.failed] == ["start container shop-db-1: port is already allocated"]
    assert "start container shop-web-1" in [str(s.operation) for s in report.not_begun]
    assert "start_container shop-web-1" not in client.calls
    assert len(report.done) + len(report.failed) + len(report.not_begun) == len(plan.steps)
    assert "failed start container shop-db-1 port is already allocated" in seen
    assert "failed: start container shop-db-1: port is already allocated" in str(report)
    assert "not begun: start container shop-web-1" in str(report)


async def test_what_is_in_the_wanted_state_already_is_no_failure() -> None:
    draft = Draft("x")
    draft.add(StartContainer("a", "a"), "")
    draft.add(StopContainer("b", "b"), "")
    draft.add(RemoveContainer("c", "c"), "")
    draft.add(RemoveContainer("d", "d"), "")
    client = Recorder(start_container__a=NotModified(""), stop_container__b=NotModified(""),
                      remove_container__c=NotFound("No such container"),
                      remove_container__d=Conflict("removal of container d is already in progress"))
    assert (await execute(client, draft.done())).ok  # type: ignore[arg-type]


def health(status: str, *, running: bool = True, code: int = 0) -> api.ContainerInspect:
    state = api.ContainerState(running=running, exit_code=code)
    if status:
        state.health = api.Health(status=status, log=[api.HealthResult(output="no route\n")])
    return api.ContainerInspect(id="x", state=state)


@pytest.mark.parametrize(("views", "error"), [
    (["starting", "starting", "healthy"], ""),
    (["starting", "unhealthy"], "db is unhealthy: no route"),
    ([""], "db has no health check, so it can never be healthy; give its service a `healthcheck` or depend on "
           "service_started"),
])
async def test_waiting_for_health(views: list[str], error: str) -> None:
    draft = Draft("x")
    draft.add(WaitHealthy("db", "db"), "")
    report = await execute(Recorder(inspect_container__db=[health(v) for v in views]), draft.done())  # type: ignore[arg-type]
    assert [f.error.message for f in report.failed] == ([error] if error else [])


async def test_waiting_for_the_health_of_a_container_that_has_ended_does_not_hang() -> None:
    draft = Draft("x")
    draft.add(WaitHealthy("db", "db"), "")
    client = Recorder(inspect_container__db=[health("starting", running=False, code=3)])
    report = await execute(client, draft.done())  # type: ignore[arg-type]
    assert report.failed[0].error.message == "db ended with code 3 before it was healthy"


async def test_waiting_for_completion_takes_only_a_good_end() -> None:
    draft = Draft("x")
    draft.add(WaitCompleted("good", "good"), "")
    draft.add(WaitCompleted("bad", "bad"), "")
    client = Recorder(wait_container__good=api.WaitResult(status_code=0), wait_container__bad=api.WaitResult(status_code=2))
    report = await execute(client, draft.done())  # type: ignore[arg-type]
    assert [str(f) for f in report.failed] == ["wait until bad has ended well: bad ended with code 2"]


async def test_pulls_use_the_credentials_and_tell_their_lines(load: Load) -> None:
    async def credentials(reference: str) -> str:
        return f"auth-of-{reference}"

    client = Recorder(inspect_image__zz=api.ImageInspect(id="sha256:1"))
    seen: list[str] = []
    plan = reconcile(load("services: {web: {image: zz}}"), World("shop").observed())
    report = await execute(client, plan, lambda p: seen.append(p.text), credentials=credentials)  # type: ignore[arg-type]
    assert report.ok and "pull_image zz:latest auth-of-zz" in client.calls and {"Pulling", "Done"} <= set(seen)
    made = next(b for b in client.bodies if isinstance(b, api.ContainerCreate))
    assert made.labels["com.docker.compose.image"] == "sha256:1"


async def test_a_wait_is_given_up_when_the_plan_fails_elsewhere() -> None:
    class Starting(Recorder):
        async def inspect_container(self, ref: str) -> api.ContainerInspect:
            return health("starting")

    draft = Draft("x")
    draft.add(WaitHealthy("db", "db"), "")
    draft.add(StartContainer("bad", "bad"), "")
    report = await execute(Starting(start_container__bad=ServerError("no")), draft.done())  # type: ignore[arg-type]
    assert [str(s.operation) for s in report.not_begun] == ["wait until db is healthy"]
    assert [str(f) for f in report.failed] == ["start container bad: no"]
