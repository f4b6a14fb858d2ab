"""What can be done to containers, from wherever: the table, its menu, the details. One row shows it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QDialog, QWidget

from app.models.problems import Problem
from app.models.rows import ContainerRow
from app.widgets.confirm import Confirm
from app.windows.context import Context

_WORDS = {"start": "Starting…", "stop": "Stopping…", "restart": "Restarting…", "remove": "Removing…",
          "pause": "Pausing…", "unpause": "Resuming…"}


class ContainerActions(QObject):
    """Start, stop, restart, pause and remove one or many. `failed`: a problem and how to do it again."""

    failed = Signal(object, object)
    worked = Signal()

    def __init__(self, context: Context, parent: QWidget) -> None:
        super().__init__(parent)
        self.context = context
        self.window = parent
        client = context.client
        self._verbs: dict[str, Callable[[str], Awaitable[None]]] = {
            "start": client.start_container, "stop": client.stop_container, "restart": client.restart_container,
            "pause": client.pause_container, "unpause": client.unpause_container}

    def rows(self, ids: Sequence[str]) -> list[ContainerRow]:
        """The rows of those of *ids* that are there."""
        found = (self.context.mirror.containers.get(one) for one in ids)
        return [one for one in found if one is not None]

    def possible(self, verb: str, ids: Sequence[str]) -> list[str]:
        """Those of *ids* for which *verb* makes sense now."""
        busy = self.context.mirror.containers.busy
        wanted: dict[str, Callable[[ContainerRow], bool]] = {
            "start": lambda row: not row.running, "stop": lambda row: row.running, "restart": lambda row: True,
            "pause": lambda row: row.state == "running", "unpause": lambda row: row.state == "paused",
            "remove": lambda row: True}
        return [row.id for row in self.rows(ids) if row.id not in busy and wanted[verb](row)]

    def do(self, verb: str, ids: Sequence[str]) -> None:
        """Do *verb* to all of *ids* side by side; removing asks first."""
        ids = self.possible(verb, ids)
        if verb == "remove":
            self._ask_remove(ids)
        else:
            for one in ids:
                self._one(verb, one, self._verbs[verb])

    def _ask_remove(self, ids: Sequence[str]) -> None:
        rows = self.rows(ids)
        if not rows:
            return
        title = f"Remove {rows[0].name}?" if len(rows) == 1 else f"Remove {len(rows)} containers?"
        one = len(rows) == 1
        text = (f"{'It' if one else 'They'} and all that was written inside {'it' if one else 'them'} will be gone. "
                "Images and named volumes stay.")
        things = [f"{row.name} ({row.image}{', running: it will be killed' if row.running else ''})" for row in rows]
        dialog = Confirm(self.window, title, text, things, verb="Remove",
                         option=f"Remove {'its' if one else 'their'} anonymous volumes, too")

        def answered(result: int) -> None:
            dialog.deleteLater()
            if result == QDialog.DialogCode.Accepted:
                volumes = dialog.option
                for key in ids:
                    self._one("remove", key, lambda ref: self.context.client.remove_container(
                        ref, force=True, volumes=volumes))
        dialog.finished.connect(answered)
        dialog.open()

    def _one(self, verb: str, key: str, call: Callable[[str], Awaitable[None]]) -> None:
        table = self.context.mirror.containers
        row = table.get(key)
        name = row.name if row else key[:12]
        table.set_busy(key, _WORDS[verb])

        async def work() -> None:
            try:
                await call(key)
                # The event that tells of it is at most a moment behind: the old state must not flash up before it.
                await asyncio.sleep(0.06)
            finally:
                table.set_busy(key, "")

        def failed(problem: Problem) -> None:
            self.failed.emit(problem, lambda: self._one(verb, key, call))
        self.context.bridge.run(f"{verb.capitalize()} of {name} failed", work(), failed=failed,
                                then=lambda _: self.worked.emit())
