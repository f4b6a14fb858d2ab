"""The page of images: pull, run, look into, remove."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import QDialog, QFileDialog, QMenu, QStackedWidget

from app import theme
from app.models.images import ACTIONS, CREATED, ID, NAME, USED
from app.models.problems import Problem
from app.models.rows import ImageRow, size_text
from app.widgets.confirm import Confirm
from app.widgets.parts import Empty, button, copy, filter_field, row, say
from app.widgets.tables import Action, CleanTable, Hit, RowDelegate
from app.windows.context import Context
from app.windows.image_archives import load_archive, save_archive
from app.windows.image_forms import PushDialog, TagDialog, pull_image
from app.windows.page import Page
from app.windows.prune import PruneDialog, Rubbish
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
        self.setAcceptDrops(True)
        self.run = button("Run…", "play", "flat", self._run)
        self.push = button("Push…", "push", "flat", self._push)
        more = (button("Load…", "folder", "flat", self._ask_load),
                button("Clean up…", "broom", "flat", self.ask_prune))
        self.remove = button("Remove", "trash", "flat", self._remove)
        self.empty = Empty("images", "No images yet", "Pull one from a registry. What is pulled or built in a terminal "
                           "shows here as well.", button("Pull an image…", "download", "primary",
                                                         lambda: context.ways.pull_form.emit("")))
        self.nothing = Empty("search", "Nothing matches", "No image's name, tag or ID has that text.")
        self.stack = QStackedWidget()
        for widget in (self.table, self.empty, self.nothing):
            self.stack.addWidget(widget)
        self.body.addLayout(row(self.run, self.push, self.remove, None, *more, spacing=2))
        self.body.addSpacing(4)
        self.body.addWidget(self.stack, 1)
        self.table.opened.connect(self._open)
        self.table.acted.connect(self._acted)
        self.table.choice_changed.connect(self._choice)
        self.table.customContextMenuRequested.connect(self._menu)
        QShortcut(QKeySequence("Del"), self.table, self._remove, context=Qt.ShortcutContext.WidgetShortcut)
        model = context.mirror.images
        count = self.soon(self._count)
        for signal in (model.rowsInserted, model.rowsRemoved, model.dataChanged, context.mirror.loaded):
            signal.connect(count)
        self._count()

    def _count(self, *_: Any) -> None:
        rows = self.context.mirror.images.rows()
        total = sum({one.id: one.size for one in rows}.values())
        self.subtitle.setText(f"{len(rows)} image{'s' if len(rows) != 1 else ''}, {size_text(total)}" if rows else "")
        shown = self.table if self.table.proxy.rowCount() else self.nothing
        self.stack.setCurrentWidget(shown if rows else self.empty if self.context.mirror.is_loaded else self.table)
        for one in (self.run, self.push, self.remove):
            one.setVisible(bool(rows))
        self._choice()

    def _filter(self, text: str) -> None:
        self.table.filter(text)
        self._count()

    def _choice(self) -> None:
        count = len(self.table.chosen())
        self.run.setEnabled(count == 1)
        self.push.setEnabled(count == 1)
        self.remove.setEnabled(count > 0)
        say(self.remove, f"Remove {count}" if count > 1 else "Remove")

    def focus_filter(self) -> None:
        self.filter.setFocus()

    def _rows(self, keys: list[str]) -> list[ImageRow]:
        return [one for one in map(self.context.mirror.images.get, keys) if one is not None]

    def _open(self, key: str) -> None:
        if (row := self.context.mirror.images.get(key)) is not None:
            from app.windows.image_details import ImageDetails
            self._show(ImageDetails(self.context, self.window(), row))

    @staticmethod
    def _show(dialog: QDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _push(self) -> None:
        for one in self._rows(self.table.chosen())[:1]:
            self._show(PushDialog(self.context, self.window(), one))

    def _tag(self) -> None:
        for one in self._rows(self.table.chosen())[:1]:
            self._show(TagDialog(self.context, self.window(), one))

    # --- archives ---------------------------------------------------------------------------------------------------

    def _ask_save(self) -> None:
        rows = self._rows(self.table.chosen())
        name = rows[0].name.rsplit("/", 1)[-1] if len(rows) == 1 and rows[0].name else "images"
        dialog = QFileDialog(self, "Save as an archive")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.selectFile(f"{name}.tar")
        dialog.fileSelected.connect(lambda path: save_archive(self.context, [one.reference for one in rows], path))
        self._show(dialog)

    def _ask_load(self) -> None:
        dialog = QFileDialog(self, "Load images from an archive")
        dialog.setNameFilters(["Archives (*.tar *.tar.gz *.tgz *.tar.xz *.tar.zst)", "All files (*)"])
        dialog.fileSelected.connect(partial(load_archive, self.context))
        self._show(dialog)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        for url in event.mimeData().urls():
            if url.isLocalFile():
                load_archive(self.context, url.toLocalFile())

    # --- cleaning up ------------------------------------------------------------------------------------------------

    def ask_prune(self) -> None:
        """Show what may go."""
        self.context.bridge.run("What takes room could not be found out", self.context.client.disk_usage("image"),
                                then=self._prune, failed=self.show_problem, owner=self)

    def _prune(self, usage: api.DiskUsage) -> None:
        """Ticked: what has no name and no user. Offered: what only has no user."""
        own = {one.id: one.size - max(one.shared_size, 0) for one in usage.images}
        rows = [one for one in self.context.mirror.images.rows() if not one.used_by]
        remove = self.context.client.remove_image
        items = [Rubbish(one.reference if one.name else one.id[:19], "no container uses it" if one.name else
                         "has no name, and no container uses it", own.get(one.id, -1), partial(remove, one.reference),
                         wanted=not one.name) for one in sorted(rows, key=lambda one: bool(one.name))]
        text = ("No container, running or not, uses these images. What others share with them is not counted. "
                "Tick what may go.")
        self._show(PruneDialog(self.context, self.window(), "Clean up images", text, items))

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
            menu.addAction(theme.icon("info"), "Layers, history, settings", partial(self._open, rows[0].key))
            menu.addAction(theme.icon("push"), "Push…", self._push)
            menu.addAction(theme.icon("tag"), "Another name…", self._tag)
            if rows[0].name:
                again = partial(pull_image, self.context, rows[0].reference)
                menu.addAction(theme.icon("download"), "Pull again", again)
            menu.addAction(theme.icon("copy"), "Copy the name", partial(copy, rows[0].reference))
            menu.addAction(theme.icon("copy"), "Copy the ID", partial(copy, rows[0].id))
            menu.addSeparator()
        menu.addAction(theme.icon("save"), "Save as an archive…", self._ask_save)
        menu.addAction(theme.icon("trash"), "Remove…", self._remove)
        menu.popup(self.table.viewport().mapToGlobal(point))


def _users(row: ImageRow) -> str:
    return f", used by {', '.join(row.used_by)}" if row.used_by else ""
