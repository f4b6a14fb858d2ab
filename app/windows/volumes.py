"""The page of volumes: how large they are, who uses them, what is in them; backup, restore, clone, clean-up."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtGui import QKeySequence, QPainter, QShortcut, QShowEvent
from PySide6.QtWidgets import QDialog, QFileDialog, QMenu, QStackedWidget

from app import theme
from app.models.operations import Operation
from app.models.problems import Problem
from app.models.rows import size_text
from app.models.transfers import of_file, to_file
from app.models.volumes import ACTIONS, CREATED, DRIVER, NAME, VolumeRow
from app.widgets.ask_name import AskName
from app.widgets.confirm import Confirm
from app.widgets.parts import Empty, button, copy, filter_field, row, say
from app.widgets.tables import Action, CleanTable, Hit, RowDelegate
from app.windows.context import Context
from app.windows.page import Page
from app.windows.prune import PruneDialog, Rubbish
from app.windows.volume_browser import VolumeBrowser
from backend.spec import api


class VolumeDelegate(RowDelegate):
    """Paints a volume's row."""

    def special(self, painter: QPainter, area: QRect, row: VolumeRow, column: int) -> bool:
        if column == NAME:
            width = self.text(painter, area, row.short, strong=True)
            if row.stack or row.anonymous:
                self.text(painter, area.adjusted(width + 10, 0, 0, 0), row.stack or "without a name")
        elif column == ACTIONS:
            self.actions(painter, area, self._actions(row))
        else:
            return False
        return True

    def hits(self, area: QRect, row: VolumeRow, column: int) -> list[Hit]:
        return self.action_hits(area, self._actions(row)) if column == ACTIONS else []

    def strong(self, row: VolumeRow, column: int) -> bool:
        return column == NAME

    def _actions(self, row: VolumeRow) -> list[Action]:
        return [Action("browse", "folder", f"Files of {row.name}"), Action("remove", "trash", f"Remove {row.name}")]


class VolumesPage(Page):
    """All volumes of the engine."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Volumes")
        mirror = context.mirror
        self.table = CleanTable(mirror.volumes, "Volumes")
        self.table.dress((0, 0, 100, 100, 122, 84), VolumeDelegate(self.table), NAME, spare=(DRIVER, CREATED))
        self.home = self.table
        self.filter = filter_field("Filter volumes")
        self.filter.textChanged.connect(self._filter)
        self.head.addWidget(self.filter)
        self.head.addWidget(button("New volume…", "plus", "primary", self._ask_new))
        self.one = [button("Files…", "folder", "flat", self._browse),
                    button("Back up…", "save", "flat", self._ask_backup),
                    button("Clone…", "copy", "flat", self._ask_clone)]
        self.remove = button("Remove", "trash", "flat", self._ask_remove)
        more = (button("Restore…", "push", "flat", self._ask_restore),
                button("Clean up…", "broom", "flat", self.ask_prune))
        self.empty = Empty("volumes", "No volumes yet", "Containers and Compose files make them by naming them. What "
                           "is in a volume stays when its container goes.",
                           button("New volume…", "plus", "primary", self._ask_new))
        self.nothing = Empty("search", "Nothing matches", "No volume's name has that text, and no user of one.")
        self.stack = QStackedWidget()
        for widget in (self.table, self.empty, self.nothing):
            self.stack.addWidget(widget)
        self.body.addLayout(row(*self.one, self.remove, None, *more, spacing=2))
        self.body.addSpacing(4)
        self.body.addWidget(self.stack, 1)
        self._connect()
        mirror.follow("volume")
        self._count()

    def _connect(self) -> None:
        mirror = self.context.mirror
        self.table.opened.connect(self.browse)
        self.table.acted.connect(lambda action, key: self.browse(key) if action == "browse" else self._ask([key]))
        self.table.choice_changed.connect(self._choice)
        self.table.customContextMenuRequested.connect(self._menu)
        QShortcut(QKeySequence("Del"), self.table, self._ask_remove, context=Qt.ShortcutContext.WidgetShortcut)
        count, users = self.soon(self._count), self.soon(self._users)
        for signal in (mirror.volumes.rowsInserted, mirror.volumes.rowsRemoved, mirror.volumes.dataChanged):
            signal.connect(count)
        for signal in (mirror.containers.rowsInserted, mirror.containers.rowsRemoved):
            signal.connect(users)
        mirror.volumes.rowsInserted.connect(self.soon(self._measure))
        mirror.lists_known.connect(count)
        self._users()

    # --- what is shown ----------------------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._measure()

    def _measure(self, *_: Any) -> None:
        """Count sizes: the engine reads every volume for it, so only while somebody looks."""
        if self.isVisible():
            self.context.bridge.run("The sizes of the volumes could not be counted",
                                    self.context.client.disk_usage("volume"), owner=self, then=self._sizes,
                                    failed=self.show_problem)

    def _sizes(self, usage: api.DiskUsage) -> None:
        found = {one.name: one.usage_data.size for one in usage.volumes if one.usage_data}
        self.context.mirror.volumes.tell_sizes(found)
        self._count()

    def _users(self, *_: Any) -> None:
        users: dict[str, list[str]] = {}
        for one in self.context.mirror.containers.rows():
            for volume in one.volumes:
                users.setdefault(volume, []).append(one.name)
        self.context.mirror.volumes.tell_users(users)

    def _count(self, *_: Any) -> None:
        model = self.context.mirror.volumes
        rows = model.rows()
        total = sum(max(model.sizes.get(one.name, 0), 0) for one in rows)
        words = f"{len(rows)} volume{'s' if len(rows) != 1 else ''}, {size_text(total)}"
        self.subtitle.setText(words if rows else "")
        shown = self.table if self.table.proxy.rowCount() else self.nothing
        known = "volume" in self.context.mirror.known
        self.stack.setCurrentWidget(shown if rows else self.empty if known else self.table)
        for widget in (*self.one, self.remove):
            widget.setVisible(bool(rows))
        self._choice()

    def _filter(self, text: str) -> None:
        self.table.filter(text)
        self._count()

    def _choice(self) -> None:
        count = len(self.table.chosen())
        for widget in self.one:
            widget.setEnabled(count == 1)
        self.remove.setEnabled(count > 0)
        say(self.remove, f"Remove {count}" if count > 1 else "Remove")

    def focus_filter(self) -> None:
        self.filter.setFocus()

    def _chosen(self) -> str:
        return next(iter(self.table.chosen()), "")

    # --- what is done -----------------------------------------------------------------------------------------------

    def _browse(self) -> None:
        self.browse(self._chosen())

    def browse(self, name: str) -> None:
        """Show a volume's files."""
        self._show(VolumeBrowser(self.context, self.window(), name))

    @staticmethod
    def _show(dialog: QDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _ask_new(self) -> None:
        def make(name: str) -> None:
            self.context.bridge.run(f"The volume {name} could not be made",
                                    self.context.client.create_volume(api.VolumeCreate(name=name)),
                                    failed=self.show_problem)
        AskName(self.window(), "New volume", "Its name is what containers mount it by.", "", verb="Create",
                then=make).open()

    def _ask_clone(self) -> None:
        name = self._chosen()

        def clone(other: str) -> None:
            async def work(operation: Operation) -> None:
                operation.report("Copying: containers that write to it are paused for a moment")
                await self.context.client.volume_files(name).clone(other)
            self.context.operate(f"Clone {name} to {other}", work)
        AskName(self.window(), f"Clone {name[:40]}", "A new volume with the same contents, as it is at one moment.",
                f"{name[:40]}-copy", verb="Clone", then=clone).open()

    def _ask_backup(self) -> None:
        name = self._chosen()
        dialog = QFileDialog(self, f"Back up {name} to")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setNameFilters(["Archives (*.tar *.tar.gz *.tar.zst)", "All files (*)"])
        dialog.selectFile(f"{name[:40]}.tar.gz")
        dialog.fileSelected.connect(partial(self.back_up, name))
        self._show(dialog)

    def back_up(self, name: str, path: str) -> Operation:
        """A tar of a volume as it is at one moment; the end of *path* says how it is compressed."""
        async def work(operation: Operation) -> None:
            files = self.context.client.volume_files(name)
            await to_file(files.backup(compression="gzip" if path.endswith(("gz", "tgz")) else
                                       "zstd" if path.endswith("zst") else "none"), path, operation)
        return self.context.operate(f"Back up {name[:40]} to {os.path.basename(path)}", work)

    def _ask_restore(self) -> None:
        dialog = QFileDialog(self, "Restore from")
        dialog.setNameFilters(["Archives (*.tar *.tar.gz *.tgz *.tar.zst *.tar.xz)", "All files (*)"])
        dialog.fileSelected.connect(self._ask_target)
        self._show(dialog)

    def _ask_target(self, path: str) -> None:
        proposed = self._chosen() or os.path.basename(path).split(".tar")[0]
        AskName(self.window(), f"Restore {os.path.basename(path)}", "Into which volume? It is made if it is not there.",
                proposed, verb="Restore", then=partial(self._confirm_restore, path)).open()

    def _confirm_restore(self, path: str, name: str) -> None:
        if name not in self.context.mirror.volumes:
            self.restore(name, path)
            return
        dialog = Confirm(self.window(), f"Replace what is in {name[:40]}?", "All files that are in the volume now are "
                         "gone for good.", [], verb="Replace")
        dialog.accepted.connect(partial(self.restore, name, path))
        dialog.open()

    def restore(self, name: str, path: str) -> Operation:
        """Fill a volume from a tar; what was in it goes."""
        async def work(operation: Operation) -> None:
            await self.context.client.volume_files(name).restore(of_file(path, operation), replace=True)
            self._measure()
        return self.context.operate(f"Restore {os.path.basename(path)} into {name[:40]}", work)

    def _ask_remove(self) -> None:
        self._ask(self.table.chosen())

    def _ask(self, names: list[str]) -> None:
        model = self.context.mirror.volumes
        rows = [one for one in map(model.get, names) if one is not None]
        if not rows:
            return
        title = f"Remove {rows[0].short}?" if len(rows) == 1 else f"Remove {len(rows)} volumes?"
        things = [f"{one.short}  ({size_text(max(model.sizes.get(one.name, 0), 0))}"
                  f"{', used by ' + ', '.join(users) if (users := model.users.get(one.name)) else ''})" for one in rows]
        dialog = Confirm(self.window(), title, "All files in it are gone for good. Volumes that a container uses stay.",
                         things, verb="Remove")
        dialog.accepted.connect(partial(self._remove_all, [one.name for one in rows]))
        dialog.open()

    def _remove_all(self, names: list[str]) -> None:
        for name in names:
            self._remove(name)

    def _remove(self, name: str) -> None:
        def failed(problem: Problem) -> None:
            self.show_problem(problem, partial(self._remove, name))
        self.context.bridge.run(f"{name[:40]} could not be removed", self.context.client.remove_volume(name),
                                failed=failed)

    def ask_prune(self) -> None:
        """Show what may go."""
        self.context.bridge.run("What takes room could not be found out", self.context.client.disk_usage("volume"),
                                then=self._prune, failed=self.show_problem, owner=self)

    def _prune(self, usage: api.DiskUsage) -> None:
        """Ticked: volumes without a name that no container uses. Offered: named ones."""
        self._sizes(usage)
        model = self.context.mirror.volumes
        remove = self.context.client.remove_volume
        free = sorted((one for one in model.rows() if not model.users.get(one.name)), key=lambda one: not one.anonymous)
        items = [Rubbish(one.short, "its container is gone" if one.anonymous else "no container uses it",
                         model.sizes.get(one.name, -1), partial(remove, one.name), wanted=one.anonymous)
                 for one in free]
        text = "No container, running or not, uses these volumes. All files in what you remove are gone for good."
        self._show(PruneDialog(self.context, self.window(), "Clean up volumes", text, items))

    def _menu(self, point: QPoint) -> None:
        chosen = self.table.chosen()
        if not chosen:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if len(chosen) == 1:
            menu.addAction(theme.icon("folder"), "Files…", self._browse)
            menu.addAction(theme.icon("save"), "Back up…", self._ask_backup)
            menu.addAction(theme.icon("push"), "Restore…", self._ask_restore)
            menu.addAction(theme.icon("copy"), "Clone…", self._ask_clone)
            menu.addSeparator()
            menu.addAction(theme.icon("copy"), "Copy the name", partial(copy, chosen[0]))
            for one in self.context.mirror.containers.rows():
                if chosen[0] in one.volumes:
                    go = partial(self.context.ways.container.emit, one.id, "")
                    menu.addAction(theme.icon("containers"), f"Go to {one.name}", go)
            menu.addSeparator()
        menu.addAction(theme.icon("trash"), "Remove…", self._ask_remove)
        menu.popup(self.table.viewport().mapToGlobal(point))
