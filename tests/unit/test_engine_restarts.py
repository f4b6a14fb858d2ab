"""Restart policies: when a container is started again, and after how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from backend.engine.container import Container
from backend.engine.life import Life
from backend.engine.record import Status
from backend.runtime.protocol import Exit
from backend.spec import api
from tests.unit.test_engine_words import SECOND, record


def restarting(policy: str = "always", maximum: int = 0) -> Container:
    made = record()
    made.host_config = api.HostConfig(restart_policy=api.RestartPolicy(name=policy, maximum_retry_count=maximum))
    return Container(made, Status(state="running"))


def delays_after(*runs: float) -> list[float]:
    """The pauses before each restart of a container whose runs last these seconds."""
    chosen: list[float] = []

    async def later(self: Life, container: Container, delay: float) -> None:
        chosen.append(delay)

    async def work() -> None:
        core: Any = SimpleNamespace(spawn=lambda coroutine, what: asyncio.ensure_future(coroutine), closing=False)
        life, container = Life(core, mock.Mock(), mock.Mock()), restarting()
        for seconds in runs:
            container.status.started_at = 0
            assert life._restarts(container, Exit(container.id, "", 1, 0, int(seconds * SECOND), oom=False))
            life._schedule_restart(container)
            await asyncio.sleep(0)

    with mock.patch.object(Life, "_restart_later", later):
        asyncio.run(work())
    return chosen


def test_pauses_double_from_a_tenth_of_a_second_to_a_minute() -> None:
    assert delays_after(*[0.5] * 12) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]


def test_a_run_of_ten_seconds_makes_the_next_pause_short_again() -> None:
    assert delays_after(0.5, 0.5, 0.5, 10, 9.9, 30) == [0.1, 0.2, 0.4, 0.1, 0.2, 0.1]


@pytest.mark.parametrize(("policy", "maximum", "code", "count", "again"), [
    ("no", 0, 1, 0, False), ("always", 0, 0, 50, True), ("unless-stopped", 0, 3, 0, True), ("on-failure", 0, 0, 0, False),
    ("on-failure", 0, 1, 99, True), ("on-failure", 2, 1, 1, True), ("on-failure", 2, 1, 2, False),
])
def test_who_is_started_again(policy: str, maximum: int, code: int, count: int, again: bool) -> None:
    async def asked() -> bool:
        container = restarting(policy, maximum)
        container.status.restart_count = count
        core: Any = SimpleNamespace(closing=False)
        return Life(core, mock.Mock(), mock.Mock())._restarts(container, Exit(container.id, "", code, 0, SECOND, oom=False))

    assert asyncio.run(asked()) is again


@pytest.mark.parametrize("why", ["hushed", "stopping"])
def test_nobody_is_started_again_who_was_told_to_stop(why: str) -> None:
    async def asked() -> bool:
        container = restarting()
        setattr(container, why, True)
        core: Any = SimpleNamespace(closing=False)
        return Life(core, mock.Mock(), mock.Mock())._restarts(container, Exit(container.id, "", 1, 0, SECOND, oom=False))

    assert asyncio.run(asked()) is False
