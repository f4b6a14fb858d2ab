"""Between Qt's slots and asyncio: the one place of the window where every exception ends, as a problem in words.

Slots are plain functions and the engine's client is asynchronous. A page hands a coroutine to `run`, says what it is
for, and gets either the result or a problem; the task ends with the page that asked.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from PySide6.QtCore import QObject, Signal
from shiboken6 import isValid

from app import collector
from app.models.operations import Operation
from app.models.problems import Problem, describe
from backend.errors import NotModified

T = TypeVar("T")
log = logging.getLogger(__name__)


def _end_with(task: asyncio.Task[Any], owner: QObject) -> None:
    """Cancel *task* when *owner* goes; forget the two again when the task is over, as pages ask often."""
    link = owner.destroyed.connect(lambda: task.cancel())  # noqa: PLW0108 - the signal's argument must not get through

    def over(_task: asyncio.Task[Any]) -> None:
        if isValid(owner):
            QObject.disconnect(link)
    task.add_done_callback(over)


class Bridge(QObject):
    """Runs coroutines on behalf of widgets. `problem`: failures that nobody asked to hear of."""

    problem = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, what: str, work: Coroutine[Any, Any, T], *, then: Callable[[T], object] | None = None,
            failed: Callable[[Problem], object] | None = None, owner: QObject | None = None) -> asyncio.Task[None]:
        """Run *work*; *what* says what failed, should it fail. *owner*: the task ends when this object does."""
        task = asyncio.ensure_future(self._guard(what, work, then, failed or self.problem.emit))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if owner is not None:
            _end_with(task, owner)
        return task

    async def _guard(self, what: str, work: Coroutine[Any, Any, T], then: Callable[[T], object] | None,
                     failed: Callable[[Problem], object]) -> None:
        try:
            result = await work
            if then is not None:
                then(result)
        except NotModified:
            # It is as was asked for: somebody else was faster.
            if then is not None:
                then(None)  # type: ignore[arg-type]
        except Exception as error:
            log.info("%s: %r", what, error)
            failed(describe(error, what))
        finally:
            collector.tidy()

    def operate(self, operation: Operation) -> None:
        """Run a long action; its end is told by the operation itself."""
        operation.task = asyncio.ensure_future(self._operate(operation))

    async def _operate(self, operation: Operation) -> None:
        try:
            await operation.work(operation)
            operation.end("done")
        except asyncio.CancelledError:
            operation.end("cancelled")
        except NotModified:
            operation.end("done")
        except Exception as error:
            log.info("%s: %r", operation.title, error)
            operation.end("failed", describe(error, operation.title))
        finally:
            collector.tidy()

    def retry(self, operation: Operation) -> None:
        """Do a failed or cancelled action again."""
        operation.restart()
        self.operate(operation)

    def catch_strays(self, loop: asyncio.AbstractEventLoop) -> None:
        """Exceptions of slots and of tasks that nobody awaits come here too."""
        loop.set_exception_handler(self._stray_task)
        sys.excepthook = self._stray_slot

    def _stray_task(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception):
            log.error("%s", context.get("message"), exc_info=error)
            self.problem.emit(describe(error, "Something went wrong in the background"))

    def _stray_slot(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        log.error("in a slot", exc_info=(kind, error, trace))
        self.problem.emit(describe(error, "That did not work"))

    async def close(self) -> None:
        """End what still runs."""
        sys.excepthook = sys.__excepthook__
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
