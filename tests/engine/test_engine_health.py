"""Health checks as Docker has them: start period and interval, retries, a time-out that kills, what list, inspect and events say."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backend.engine.engine import Engine
from backend.spec import api
from backend.spec.filters import Filters
from tests.engine.support_engine import Place, create, exec_in, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and real namespaces")]
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.destroy()


@pytest.fixture
async def engine(place: Place) -> AsyncIterator[Engine]:
    async with place.engine() as made:
        yield made
    assert place.leftovers() == []


async def started(engine: Engine, *test: str, interval: float = 0.1, **more: int) -> str:
    times = {name: int(value * SECOND) if name != "retries" else value for name, value in more.items()}
    ref = await create(engine, "sleep", "100", healthcheck=api.HealthConfig(test=list(test), interval=int(interval * SECOND), **times))
    await engine.containers.start(ref)
    return ref


async def health(engine: Engine, ref: str) -> api.Health:
    found = (await engine.containers.inspect(ref)).state.health
    assert isinstance(found, api.Health)
    return found


async def comes_to(engine: Engine, ref: str, status: str) -> api.Health:
    monitor = engine.containers._core.table.get(ref).health
    assert monitor is not None
    await until(lambda: monitor.status == status, status)
    return await health(engine, ref)


async def test_failures_in_the_start_period_do_not_count_and_a_success_ends_it(engine: Engine) -> None:
    ref = await started(engine, "CMD-SHELL", "[ -f /ok ]", retries=1, start_period=60, start_interval=0.05, interval=30)
    await until(lambda: len(engine.containers._core.table.get(ref).health.view().log) >= 3, "checks come at the start interval")
    found = await health(engine, ref)
    assert (found.status, found.failing_streak) == ("starting", 0)
    assert "(health: starting)" in engine.containers.list()[0].status
    await exec_in(engine, ref, "touch", "/ok")
    assert (await comes_to(engine, ref, "healthy")).failing_streak == 0


async def test_a_check_that_takes_too_long_is_killed_and_says_what_it_had_written(engine: Engine) -> None:
    ref = await started(engine, "CMD-SHELL", "echo begun; exec sleep 4321", retries=1, timeout=0.2)
    found = await comes_to(engine, ref, "unhealthy")
    assert (found.log[-1].exit_code, found.log[-1].output) == (-1, "Health check exceeded timeout (0.2s): begun\n")
    await engine.containers.pause(ref)        # no further check from here on
    pids = engine.containers._life.cgroup(engine.containers._core.table.get(ref)).pids()
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    assert sum(b"4321" in one for one in commands) <= 1, "those that took too long are gone"


async def test_the_log_keeps_five_results_and_a_long_output_is_cut(engine: Engine) -> None:
    ref = await started(engine, "CMD-SHELL", "head -c 9000 /dev/zero | tr '\\0' x", interval=0.02)
    monitor = engine.containers._core.table.get(ref).health
    await until(lambda: len(monitor.view().log) == 5, "five results")
    first = monitor.view().log[0].start
    await until(lambda: monitor.view().log[0].start != first, "the oldest goes")
    found = await health(engine, ref)
    assert len(found.log) == 5 and found.log[0].output == "x" * 4096 + "..."


@pytest.mark.parametrize(("test", "code", "says"), [
    (("CMD", "/no/such"), -1, 'OCI runtime exec failed: exec failed: unable to start container process: exec: "/no/such"'), (("CMD-SHELL", "echo why; exit 9"), 9, "why\n"),
    (("CMD", "sh", "-c", "echo $0 two; exit 2"), 2, "sh two\n"),
])
async def test_a_failure_is_kept_with_its_code_and_words(engine: Engine, test: tuple[str, ...], code: int, says: str) -> None:
    ref = await started(engine, *test, retries=1)
    found = await comes_to(engine, ref, "unhealthy")
    assert found.log[-1].exit_code == code and found.log[-1].output.startswith(says)


async def test_changes_are_told_as_events_and_filters_find_them(engine: Engine) -> None:
    since = time.time_ns()
    ref = await started(engine, "CMD-SHELL", "[ ! -f /bad ]", retries=1)
    await comes_to(engine, ref, "healthy")
    await exec_in(engine, ref, "touch", "/bad")
    await comes_to(engine, ref, "unhealthy")
    wanted = Filters.parse(f'{{"event": ["health_status"], "container": ["{ref}"]}}')
    told = [event.action async for event in engine.events.subscribe(since, time.time_ns(), wanted)]
    assert told == ["health_status: healthy", "health_status: unhealthy"]
    assert [row.id for row in engine.containers.list(filters=Filters.parse('{"health": ["unhealthy"]}'))] == [ref]


async def test_a_restart_begins_anew_and_an_ended_container_is_checked_no_more(engine: Engine) -> None:
    ref = await started(engine, "CMD", "true")
    await comes_to(engine, ref, "healthy")
    await engine.containers.kill(ref)
    assert "healthy" not in engine.containers.list(all=True)[0].status
    await engine.containers.start(ref)
    assert (await health(engine, ref)).status in ("starting", "healthy")
    await comes_to(engine, ref, "healthy")


async def test_none_switches_the_images_check_off(engine: Engine) -> None:
    ref = await started(engine, "NONE")
    assert (await engine.containers.inspect(ref)).state.health is api.UNSET
