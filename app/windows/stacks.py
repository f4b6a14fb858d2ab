"""The page of stacks: open or drop a Compose file, see what it means, start, stop and remove it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent, QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import QDialog, QFileDialog, QFrame, QMenu, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.models.operations import Operation
from app.models.problems import Problem
from app.models.rows import StackRow
from app.models.stacks import FILES, NAME, STATE
from app.widgets.confirm import Confirm
from app.widgets.parts import Empty, button, row
from app.widgets.tables import CleanTable, RowDelegate
from app.windows.context import Context
from app.windows.page import Page
from app.windows.stack_preview import StackPreview, carry_out
from backend.compose import observe, plan_down, plan_start, plan_stop


class StackDelegate(RowDelegate):
    """Paints a stack's row."""

    def special(self, painter: QPainter, area: QRect, row: StackRow, column: int) -> bool:
        if column != STATE:
            return False
        tone = "good" if row.running == row.total else "warn" if row.running else "idle"
        self.state(painter, area, self.table.source.text(row, STATE), tone)
        return True

    def strong(self, row: StackRow, column: int) -> bool:
        return column == NAME


class DropZone(QFrame):
    """A frame that says where to drop a file."""

    def __init__(self, inner: QWidget) -> None:
        super().__init__()
        self.setObjectName("drop")
        box = QVBoxLayout(self)
        box.addWidget(inner)

    def set_over(self, over: bool) -> None:
        """Highlight it while a file hangs above it."""
        self.setProperty("over", "true" if over else "false")
        self.style().unpolish(self)
        self.style().polish(self)


class StacksPage(Page):
    """All Compose projects of the engine, and the preview of a file."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Stacks")
        self.setAcceptDrops(True)
        self.table = CleanTable(context.mirror.stacks, "Stacks")
        self.table.dress((170, 0, 0, 0), StackDelegate(self.table), NAME, spare=(FILES,))
        self.home = self.table
        self.open_button = button("Open a Compose file…", "folder", "primary", self.ask_file)
        self.head.addWidget(self.open_button)
        self.start_button = button("Start", "play", "flat", partial(self._each, "start"))
        self.stop_button = button("Stop", "stop", "flat", partial(self._each, "stop"))
        self.remove_button = button("Remove…", "trash", "flat", self._ask_remove)
        bar = row(self.start_button, self.stop_button, self.remove_button, None, spacing=2)
        listing = QWidget()
        box = QVBoxLayout(listing)
        box.setContentsMargins(0, 0, 0, 0)
        box.addLayout(bar)
        box.addWidget(self.table, 1)
        self.zone = DropZone(Empty(
            "stacks", "Drop a Compose file here", "You will see what it creates before anything starts. Stacks of "
            "docker compose show here as well.", button("Open a Compose file…", "folder", "primary", self.ask_file)))
        self.preview = StackPreview(context)
        self.preview.closed.connect(self._show_list)
        self.preview.started.connect(self._show_list)
        self.stack = QStackedWidget()
        for widget in (listing, self.zone, self.preview):
            self.stack.addWidget(widget)
        self.listing = listing
        self.body.addWidget(self.stack, 1)
        self.table.opened.connect(self._open)
        self.table.choice_changed.connect(self._choice)
        self.table.customContextMenuRequested.connect(self._menu)
        QShortcut(QKeySequence("Del"), self.table, self._ask_remove, context=Qt.ShortcutContext.WidgetShortcut)
        QShortcut(QKeySequence("Ctrl+O"), self, self.ask_file, context=Qt.ShortcutContext.WidgetWithChildrenShortcut)
        model = context.mirror.stacks
        count = self.soon(self._count)
        for signal in (model.rowsInserted, model.rowsRemoved, model.dataChanged):
            signal.connect(count)
        self._count()
        self._show_list()

    # --- what is shown --------------------------------------------------------------------------------

    def _count(self, *_: Any) -> None:
        rows = self.context.mirror.stacks.rows()
        self.subtitle.setText(f"{sum(one.running > 0 for one in rows)} running, {len(rows)} in all" if rows else "")
        if self.stack.currentWidget() is not self.preview:
            self._show_list()
        self._choice()

    def _show_list(self) -> None:
        rows = self.context.mirror.stacks.rows()
        self.stack.setCurrentWidget(self.listing if rows else self.zone)
        self.open_button.setVisible(bool(rows))

    def _rows(self) -> list[StackRow]:
        return [one for one in map(self.context.mirror.stacks.get, self.table.chosen()) if one is not None]

    def _choice(self) -> None:
        rows = self._rows()
        self.start_button.setEnabled(any(one.running < one.total for one in rows))
        self.stop_button.setEnabled(any(one.running for one in rows))
        self.remove_button.setEnabled(bool(rows))

    # --- files --------------------------------------------------------------------------------

    def ask_file(self) -> None:
        """Choose a Compose file."""
        dialog = QFileDialog(self, "Open a Compose file")
        dialog.setNameFilters(["Compose files (*.yaml *.yml)", "All files (*)"])
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.filesSelected.connect(self.open_files)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def open_files(self, paths: list[str]) -> None:
        """Show what the files would create."""
        if paths:
            self.stack.setCurrentWidget(self.preview)
            self.open_button.hide()
            self.preview.open(paths)

    def _open(self, key: str) -> None:
        row = self.context.mirror.stacks.get(key)
        files = [one for one in row.config_files.split(",") if os.path.isfile(one)] if row else []
        if files:
            self.open_files(files)
        elif row is not None:
            self.show_problem(Problem(
                f"The Compose file of {row.name} is not on this machine",
                row.config_files or "Its containers do not say where it is.",
                "The stack can be started, stopped and removed here all the same."))

    def _menu(self, point: QPoint) -> None:
        rows = self._rows()
        if not rows:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if len(rows) == 1:
            name = rows[0].name
            menu.addAction(theme.icon("stacks"), "What its file would change", partial(self._open, name))
            menu.addAction(theme.icon("containers"), "Its containers", partial(self.context.ways.stack.emit, name))
            for key in rows[0].containers:
                if (one := self.context.mirror.containers.get(key)) is not None:
                    go = partial(self.context.ways.log_window.emit, key)
                    menu.addAction(theme.icon("logs"), f"Log of {one.service or one.name}", go)
            menu.addSeparator()
        for verb, words, picture, button_ in (("start", "Start", "play", self.start_button),
                                              ("stop", "Stop", "stop", self.stop_button)):
            if button_.isEnabled():
                menu.addAction(theme.icon(picture), words, partial(self._each, verb))
        menu.addAction(theme.icon("trash"), "Remove…", self._ask_remove)
        menu.popup(self.table.viewport().mapToGlobal(point))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()
            self.zone.set_over(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.zone.set_over(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self.zone.set_over(False)
        self.open_files([url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()])

    # --- what is done --------------------------------------------------------------------------------

    def _each(self, verb: str) -> None:
        for one in self._rows():
            self._one(verb, one.name)

    def _one(self, verb: str, name: str, volumes: bool = False) -> None:
        async def work(operation: Operation) -> None:
            observed = await observe(self.context.client, name)
            plan = (plan_start(name, observed) if verb == "start" else plan_stop(name, observed) if verb == "stop" else
                    plan_down(name, observed, volumes=volumes))
            await carry_out(self.context, plan, operation)
        self.context.operate(f"{verb.capitalize()} the stack {name}", work)

    def _ask_remove(self) -> None:
        rows = self._rows()
        if not rows:
            return
        title = f"Remove the stack {rows[0].name}?" if len(rows) == 1 else f"Remove {len(rows)} stacks?"
        things = [f"{one.name}: {one.total} container{'s' if one.total != 1 else ''} ({', '.join(one.services)})"
                  for one in rows]
        dialog = Confirm(self.window(), title, "These are stopped and removed, with their networks. Images stay.",
                         things, verb="Remove", option="Remove its named volumes and what is in them, too")

        def answered(result: int) -> None:
            volumes = dialog.option
            dialog.deleteLater()
            if result == QDialog.DialogCode.Accepted:
                for one in rows:
                    self._one("remove", one.name, volumes)
        dialog.finished.connect(answered)
        dialog.open()
