"""What the window's tests share: a fake engine, a context on it, one loop for Qt and asyncio."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication

from app import theme
from app.bridge import Bridge
from app.models.mirror import Mirror
from app.models.operations import Operations
from app.settings import Preferences
from app.windows.context import Context, Ways
from tests.fakes.engine import FakeEngine

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(autouse=True)
def collected_here() -> Iterator[None]:
    """As in the application (see app.collector), Python collects no Qt object in a worker thread: not while a test
    runs, and not afterwards, when another test's thread would collect what this one has left. Set up first, it ends
    last, when the test's windows and models have been let go of."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture
def run(qapp: QApplication) -> Iterator[Run]:
    """Run a coroutine in the loop that Qt and asyncio share."""
    import qasync

    qapp.setQuitOnLastWindowClosed(False)
    loop = qasync.QEventLoop(qapp, already_running=False)
    asyncio.set_event_loop(loop)
    try:
        yield lambda work: loop.run_until_complete(asyncio.wait_for(work, 20))
    finally:
        loop.close()
        asyncio.set_event_loop(None)


@pytest.fixture
def preferences(tmp_path: Path) -> Preferences:
    return Preferences(str(tmp_path / "window.ini"))


@pytest.fixture
def context(qapp: QApplication, engine: FakeEngine, preferences: Preferences) -> Context:
    qapp.setStyle("Fusion")
    theme.apply("light")
    client: Any = engine
    return Context(client, Mirror(client, "unix:///nowhere/slipway.sock"), Bridge(), Operations(), preferences, Ways())


async def until(true: Callable[[], object], patience: float = 5.0) -> None:
    """Wait for what events will bring about; the patience is only for the case that it never comes."""
    waited = 0.0
    while not true():
        await asyncio.sleep(0.01)
        waited += 0.01
        assert waited < patience, "it did not come about"
