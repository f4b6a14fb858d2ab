"""The window shows what the engine does, at once and without asking again; it survives the helper."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from app.models.mirror import Mirror
from app.windows.context import Context
from backend.client import Client
from backend.spec import api
from tests.app.conftest import Run, until
from tests.fakes.engine import FakeEngine


def test_the_fake_engine_has_the_clients_face() -> None:
    for name, method in inspect.getmembers(FakeEngine, inspect.isfunction):
        real = getattr(Client, name, None)
        if name.startswith("_") or real is None:
            continue
        assert list(inspect.signature(method).parameters) == list(inspect.signature(real).parameters), name
    for name in ("list_containers", "list_images", "events", "stats", "logs", "start_container", "remove_container", "pull_image"):
        assert hasattr(Client, name) and hasattr(FakeEngine, name)


async def connected(mirror: Mirror) -> None:
    mirror.start()
    await until(lambda: mirror.state == "connected")


def test_what_others_do_shows_without_a_reload(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        mirror = context.mirror
        engine.add("a" * 64, "first")
        await connected(mirror)
        assert [row.name for row in mirror.containers.rows()] == ["first"]
        engine.add("b" * 64, "second", "created")
        await until(lambda: len(mirror.containers.rows()) == 2)
        engine.set_state("b" * 64, "running", "start")
        await until(lambda: mirror.containers.get("b" * 64).state == "running")
        engine.drop("a" * 64)
        await until(lambda: [row.name for row in mirror.containers.rows()] == ["second"])
        await mirror.stop()
    run(story())


def test_an_idle_engine_is_asked_nothing(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        await connected(context.mirror)
        before = dict(engine.asked)
        await asyncio.sleep(0.5)
        assert engine.asked == before
        assert engine.listeners == 1
        await context.mirror.stop()
        assert engine.listeners == 0
    run(story())


def test_a_burst_of_events_is_one_question(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        await connected(context.mirror)
        before = engine.asked["list_containers"]
        for number in range(50):
            engine.add(f"{number:064x}", f"box-{number}")
        await until(lambda: len(context.mirror.containers.rows()) == 50)
        assert engine.asked["list_containers"] - before <= 2
        await context.mirror.stop()
    run(story())


def test_the_window_comes_back_when_the_helper_does(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        mirror = context.mirror
        engine.add("a" * 64, "first")
        await connected(mirror)
        engine.go_away()
        await until(lambda: mirror.state == "lost")
        assert mirror.problem is not None and "socket" in mirror.problem.why and mirror.problem.command
        assert [row.name for row in mirror.containers.rows()] == ["first"], "what is known stays in sight"
        engine.containers.clear()
        engine.add("b" * 64, "after")
        engine.come_back()
        await until(lambda: mirror.state == "connected")
        assert [row.name for row in mirror.containers.rows()] == ["after"]
        await mirror.stop()
    run(story())


def sample(cpu: int) -> api.Stats:
    return api.Stats(cpu_stats=api.CpuStats(cpu_usage=api.CpuUsage(total_usage=cpu), system_cpu_usage=2000, online_cpus=1),
                     precpu_stats=api.CpuStats(system_cpu_usage=1000), memory_stats=api.MemoryStats(usage=1, limit=2))


def test_usage_is_followed_only_while_somebody_looks_and_only_for_what_runs(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        mirror = context.mirror
        engine.add("a" * 64, "runs")
        engine.add("b" * 64, "sleeps", "exited")
        await connected(mirror)
        assert engine.streams == set()
        mirror.watch_stats(True)
        await until(lambda: engine.streams == {"a" * 64})
        batches: list[dict] = []
        mirror.usage_batch.connect(batches.append)
        for _ in range(5):
            engine.samples["a" * 64].put_nowait(sample(500))
        await until(lambda: batches)
        assert len(batches) == 1, "samples of one second are one update of the table"
        engine.set_state("b" * 64, "running", "start")
        await until(lambda: engine.streams == {"a" * 64, "b" * 64})
        mirror.watch_stats(False)
        await until(lambda: engine.streams == set())
        await mirror.stop()
    run(story())


@pytest.mark.parametrize("action", ["exec_create: sh", "exec_start: sh", "exec_die", "attach", "resize", "top"])
def test_events_that_change_no_list_ask_nothing(context: Context, engine: FakeEngine, run: Run, action: str) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        await connected(context.mirror)
        before = dict(engine.asked)
        engine.tell("container", action, "a" * 64)
        await asyncio.sleep(0.1)
        assert engine.asked == before
        await context.mirror.stop()
    run(story())
