"""The page of images: pull, run, look into, remove."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtGui import QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import (
    QDialog,
    QLineEdit,
    QMenu,
    QStackedWidget,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.images import ACTIONS, CREATED, ID, NAME, USED
from app.models.operations import Operation
from app.models.problems import Problem
from app.models.pulling import pull
from app.models.rows import ImageRow, size_text, time_text
from app.widgets.confirm import Confirm
from app.widgets.inspect import InspectView
from app.widgets.parts import Empty, button, copy, filter_field, label, row, say
from app.widgets.tables import Action, CleanTable, Hit, RowDelegate
from app.windows.context import Context
from app.windows.page import Page
from backend.spec import api


class ImageDelegate(RowDelegate):
    """Paints an image's row."""

    def special(self, painter: QPainter, area: QRect, row: ImageRow, column: int) -> bool:
        if column == NAME and row.name:
            self.text(painter, area, row.name, strong=True, cut=Qt.TextElideMode.ElideLeft)
        elif column == ACTIONS:
            self.actions(painter, area, self._actions(row))
        else:
            return False
        return True

    def hits(self, area: QRect, row: ImageRow, column: int) -> list[Hit]:
        return self.action_hits(area, self._actions(row)) if column == ACTIONS else []

    def strong(self, row: ImageRow, column: int) -> bool:
        return column == NAME

    def _actions(self, row: ImageRow) -> list[Action]:
        return [Action("run", "play", f"Run {row.reference}"), Action("remove", "trash", f"Remove {row.reference}")]


class PullDialog(QDialog):
    """Asks for a name; the progress shows in the window, where one can go on."""

    def __init__(self, context: Context, parent: QWidget, reference: str = "") -> None:
        super().__init__(parent)
        self.context = context
        self.setWindowTitle("Pull an image")
        self.setMinimumWidth(480)
        self.field = QLineEdit(reference)
        self.field.setPlaceholderText("debian:stable-slim, or registry.example.com/team/app:1.2")
        self.field.setAccessibleName("Image")
        self.go = button("Pull", "download", "primary", self._pull)
        self.go.setDefault(True)
        self.field.textChanged.connect(lambda text: self.go.setEnabled(bool(text.strip())))
        self.go.setEnabled(bool(reference))
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(12)
        box.addWidget(label("Pull an image", "title"))
        box.addWidget(label("Name, with a tag after a colon. Without a registry's name it comes from Docker Hub; "
                            "private ones need a sign-in under Registries.", "muted", wrap=True))
        box.addWidget(self.field)
        box.addLayout(row(None, button("Cancel", clicked=self.reject), self.go, margins=(0, 6, 0, 0)))

    def _pull(self) -> None:
        if reference := self.field.text().strip():
            pull_image(self.context, reference)
            self.accept()


def pull_image(context: Context, reference: str) -> Operation:
    """Pull *reference* as an operation."""
    return context.operate(f"Pull {reference}", partial(pull, context.client, reference))


class ImageDetails(QDialog):
    """An image's steps and settings."""

    def __init__(self, context: Context, parent: QWidget, image: ImageRow) -> None:
        super().__init__(parent)
        self.setWindowTitle(image.reference)
        self.resize(860, 600)
        self.steps = QTreeWidget()
        self.steps.setHeaderLabels(["Made by", "Size", "When"])
        self.steps.setRootIsDecorated(False)
        self.steps.setAccessibleName("History")
        self.steps.setColumnWidth(0, 560)
        self.inspect = InspectView()
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(10)
        box.addWidget(label(image.reference, "title", select=True))
        box.addWidget(label(f"{image.id}  ·  {size_text(image.size)}", "muted", select=True))
        box.addWidget(label("History, newest step first", "heading"))
        box.addWidget(self.steps, 2)
        box.addWidget(label("Settings", "heading"))
        box.addWidget(self.inspect, 3)
        run = button("Run…", "play", "primary", self.accept)
        self.accepted.connect(lambda: context.ways.run_form.emit(image.reference))
        box.addLayout(row(None, button("Close", clicked=self.reject), run))
        client, bridge = context.client, context.bridge
        bridge.run("The history could not be read", client.image_history(image.id), then=self._history, owner=self)
        bridge.run("The image could not be inspected", client.inspect_raw("images", image.id),
                   then=self.inspect.show_value, owner=self)

    def _history(self, steps: list[api.HistoryItem]) -> None:
        for step in steps:
            made = step.created_by.removeprefix("/bin/sh -c ").removeprefix("#(nop) ").strip() or step.comment
            item = QTreeWidgetItem([made, size_text(step.size) if step.size else "–", time_text(step.created)[:16]])
            item.setToolTip(0, made)
            item.setTextAlignment(1, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.steps.addTopLevelItem(item)


class ImagesPage(Page):
    """All images of the engine."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Images")
        self.table = CleanTable(context.mirror.images, "Images")
        self.table.dress((0, 120, 130, 0, 96, 122, 84), ImageDelegate(self.table), NAME, spare=(ID, CREATED, USED))
        self.home = self.table
        self.filter = filter_field("Filter images")
        self.filter.textChanged.connect(self._filter)
        self.head.addWidget(self.filter)
        self.head.addWidget(button("Pull…", "download", "primary", lambda: context.ways.pull_form.emit("")))
        self.run = button("Run…", "play", "flat", self._run)
        self.remove = button("Remove", "trash", "flat", self._remove)
        self.empty = Empty("images", "No images yet", "Pull one from a registry. What is pulled or built in a terminal "
                           "shows here as well.", button("Pull an image…", "download", "primary",
                                                         lambda: context.ways.pull_form.emit("")))
        self.nothing = Empty("search", "Nothing matches", "No image's name, tag or ID has that text.")
        self.stack = QStackedWidget()
        for widget in (self.table, self.empty, self.nothing):
            self.stack.addWidget(widget)
        self.body.addLayout(row(self.run, self.remove, None, spacing=2))
        self.body.addSpacing(4)
        self.body.addWidget(self.stack, 1)
        self.table.opened.connect(self._open)
        self.table.acted.connect(self._acted)
        self.table.choice_changed.connect(self._choice)
        self.table.customContextMenuRequested.connect(self._menu)
        QShortcut(QKeySequence("Del"), self.table, self._remove, context=Qt.ShortcutContext.WidgetShortcut)
        model = context.mirror.images
        for signal in (model.rowsInserted, model.rowsRemoved, model.dataChanged, context.mirror.loaded):
            signal.connect(self._count)
        self._count()

    def _count(self, *_: Any) -> None:
        rows = self.context.mirror.images.rows()
        total = sum({one.id: one.size for one in rows}.values())
        self.subtitle.setText(f"{len(rows)} image{'s' if len(rows) != 1 else ''}, {size_text(total)}" if rows else "")
        shown = self.table if self.table.proxy.rowCount() else self.nothing
        self.stack.setCurrentWidget(shown if rows else self.empty if self.context.mirror.is_loaded else self.table)
        for one in (self.run, self.remove):
            one.setVisible(bool(rows))
        self._choice()

    def _filter(self, text: str) -> None:
        self.table.filter(text)
        self._count()

    def _choice(self) -> None:
        count = len(self.table.chosen())
        self.run.setEnabled(count == 1)
        self.remove.setEnabled(count > 0)
        say(self.remove, f"Remove {count}" if count > 1 else "Remove")

    def focus_filter(self) -> None:
        self.filter.setFocus()

    def _rows(self, keys: list[str]) -> list[ImageRow]:
        return [one for one in map(self.context.mirror.images.get, keys) if one is not None]

    def _open(self, key: str) -> None:
        if (row := self.context.mirror.images.get(key)) is not None:
            dialog = ImageDetails(self.context, self.window(), row)
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.open()

    def _run(self) -> None:
        for one in self._rows(self.table.chosen())[:1]:
            self.context.ways.run_form.emit(one.reference)

    def _acted(self, action: str, key: str) -> None:
        if action == "remove":
            self._ask(self._rows([key]))
        elif (row := self.context.mirror.images.get(key)) is not None:
            self.context.ways.run_form.emit(row.reference)

    def _remove(self) -> None:
        self._ask(self._rows(self.table.chosen()))

    def _ask(self, rows: list[ImageRow]) -> None:
        if not rows:
            return
        title = f"Remove {rows[0].reference[:60]}?" if len(rows) == 1 else f"Remove {len(rows)} images?"
        things = [f"{one.reference}  ({size_text(one.size)}{_users(one)})" for one in rows]
        dialog = Confirm(self.window(), title, "It has to be pulled or built again when it is needed.", things,
                         verb="Remove", option="Even if stopped containers use it")

        def answered(result: int) -> None:
            force = dialog.option
            dialog.deleteLater()
            if result == QDialog.DialogCode.Accepted:
                for one in rows:
                    self._remove_one(one, force)
        dialog.finished.connect(answered)
        dialog.open()

    def _remove_one(self, row: ImageRow, force: bool) -> None:
        def failed(problem: Problem) -> None:
            self.show_problem(problem, lambda: self._remove_one(row, force))
        self.context.bridge.run(f"{row.reference} could not be removed",
                                self.context.client.remove_image(row.reference, force=force), failed=failed)

    def _menu(self, point: QPoint) -> None:
        rows = self._rows(self.table.chosen())
        if not rows:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if len(rows) == 1:
            menu.addAction(theme.icon("play"), "Run…", self._run)
            menu.addAction(theme.icon("info"), "History and settings", partial(self._open, rows[0].key))
            if rows[0].name:
                again = partial(pull_image, self.context, rows[0].reference)
                menu.addAction(theme.icon("download"), "Pull again", again)
            menu.addAction(theme.icon("copy"), "Copy the name", partial(copy, rows[0].reference))
            menu.addAction(theme.icon("copy"), "Copy the ID", partial(copy, rows[0].id))
            menu.addSeparator()
        menu.addAction(theme.icon("trash"), "Remove…", self._remove)
        menu.popup(self.table.viewport().mapToGlobal(point))


def _users(row: ImageRow) -> str:
    return f", used by {', '.join(row.used_by)}" if row.used_by else ""
