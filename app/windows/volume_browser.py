"""The files of a volume: look, open, edit, download, upload, rename, remove."""

from __future__ import annotations

import functools
import os
import posixpath
import tempfile
from collections.abc import Coroutine
from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, Qt, QUrl
from PySide6.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QDialog,
    QFileDialog,
    QHeaderView,
    QMenu,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.operations import Operation
from app.models.problems import Problem
from app.models.rows import size_text, time_text
from app.models.transfers import of_file, to_file
from app.widgets.ask_name import AskName
from app.widgets.confirm import Confirm
from app.widgets.parts import Banner, button, icon_button, label, row
from app.windows.context import Context
from app.windows.text_editor import LIMIT, TextEditor
from backend.spec import api

_ENTRY = Qt.ItemDataRole.UserRole
PAGE = 1000


@functools.cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """Where copies for other programs lie, until the window ends."""
    return tempfile.TemporaryDirectory(prefix="slipway-open-")


class VolumeBrowser(QDialog):
    """One directory at a time. Files dropped on it are uploaded."""

    def __init__(self, context: Context, parent: QWidget, name: str, path: str = "/") -> None:
        super().__init__(parent)
        self.context, self.name, self.path = context, name, path
        self.files = context.client.volume_files(name)
        self.setWindowTitle(f"Files of {name}")
        self.setAcceptDrops(True)
        self.resize(min(860, max(parent.width() - 60, 720)), min(580, max(parent.height() - 60, 460)))
        self.up = icon_button("up", "Up", "Alt+Up")
        self.up.clicked.connect(lambda: self.go(posixpath.dirname(self.path)))
        self.where = label("/", "mono", select=True)
        self.banner = Banner()
        self.tree = self._listing()
        self.note = label("", "muted")
        self.more = button("More…", "down", "flat", self._more)
        self.open_button = button("Open", "file", "flat", self._open)
        self.download = button("Download…", "download", "flat", self._ask_download)
        self.remove = button("Remove…", "trash", "flat", self._ask_remove)
        self._lay_out()
        QShortcut(QKeySequence("F2"), self.tree, self._ask_rename, context=Qt.ShortcutContext.WidgetShortcut)
        QShortcut(QKeySequence("Del"), self.tree, self._ask_remove, context=Qt.ShortcutContext.WidgetShortcut)
        self.go(path)

    def _listing(self) -> QTreeWidget:
        made = QTreeWidget()
        made.setHeaderLabels(["Name", "Size", "Changed", "Mode", "Owner"])
        made.setRootIsDecorated(False)
        made.setUniformRowHeights(True)
        made.setAccessibleName("Files")
        made.setSelectionMode(QTreeWidget.SelectionMode.ExtendedSelection)
        made.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        made.header().setStretchLastSection(False)
        made.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        made.itemActivated.connect(lambda _item: self._open())
        made.itemSelectionChanged.connect(self._choice)
        made.customContextMenuRequested.connect(self._menu)
        return made

    def _lay_out(self) -> None:
        upload = button("Upload…", "push", "flat", self._ask_upload)
        folder = button("New folder…", "plus", "flat", self._ask_folder)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(8)
        box.addWidget(label(f"Files of {self.name}", "title"))
        box.addLayout(row(self.up, self.where, None))
        box.addWidget(self.banner)
        box.addLayout(row(self.open_button, self.download, self.remove, None, upload, folder, spacing=2))
        box.addWidget(self.tree, 1)
        box.addLayout(row(self.note, self.more, None, button("Close", clicked=self.reject)))

    # --- what is shown ----------------------------------------------------------------------------------------------

    def go(self, path: str) -> None:
        """Show a directory."""
        self._run(f"{path} could not be listed", self.files.list(path, limit=PAGE), self._show)

    def reload(self, *_: object) -> None:
        """Show the directory as it is now."""
        self.go(self.path)

    def _run(self, what: str, work: Coroutine[Any, Any, Any], then: Any) -> None:
        self.context.bridge.run(what, work, owner=self, then=then, failed=self._failed)

    def _failed(self, problem: Problem) -> None:
        self.banner.show_problem(problem)

    def _show(self, found: api.FileList) -> None:
        self.banner.hide()
        self.path = found.path
        self.where.setText(found.path)
        self.up.setEnabled(found.path != "/")
        self.tree.clear()
        self._add(found)
        self.tree.setFocus()

    def _add(self, found: api.FileList) -> None:
        for entry in sorted(found.entries, key=lambda one: one.kind != "directory"):
            size = size_text(entry.size) if entry.kind == "file" else f"→ {entry.target}" if entry.target else ""
            item = QTreeWidgetItem([entry.name, size, time_text(entry.modified // 1_000_000_000)[:16],
                                    f"{entry.mode:04o}", f"{entry.uid}:{entry.gid}"])
            item.setIcon(0, theme.icon("folder" if entry.kind == "directory" else "file", theme.current().muted))
            item.setToolTip(0, f"{entry.name}\n{entry.kind}")
            item.setToolTip(1, entry.target)
            item.setData(0, _ENTRY, entry)
            self.tree.addTopLevelItem(item)
        count = self.tree.topLevelItemCount()
        self.note.setText("Nothing is in here." if not count else f"{count} name{'s' if count != 1 else ''}"
                          f"{' so far' if found.more else ''}")
        self.more.setVisible(found.more)
        for column in range(1, 5):
            self.tree.resizeColumnToContents(column)
        self._choice()

    def _more(self) -> None:
        last = max((one.name for one in self._entries(all_of_them=True)), default="")
        self._run(f"{self.path} could not be listed", self.files.list(self.path, after=last, limit=PAGE), self._add)

    def _entries(self, all_of_them: bool = False) -> list[api.FileEntry]:
        items = [self.tree.topLevelItem(place) for place in range(self.tree.topLevelItemCount())]
        return [one.data(0, _ENTRY) for one in items if one is not None and (all_of_them or one.isSelected())]

    def _full(self, entry: api.FileEntry) -> str:
        return posixpath.join(self.path, entry.name)

    def _choice(self) -> None:
        chosen = self._entries()
        usable = bool(chosen) and not any(one.odd for one in chosen)
        self.open_button.setEnabled(usable and len(chosen) == 1)
        self.download.setEnabled(usable)
        self.remove.setEnabled(usable)

    def _menu(self, point: QPoint) -> None:
        chosen = self._entries()
        if not chosen:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if len(chosen) == 1:
            menu.addAction(theme.icon("file"), "Open", self._open)
            if chosen[0].kind == "file":
                menu.addAction(theme.icon("window"), "Open with another program", partial(self._outside, chosen[0]))
            menu.addAction(theme.icon("edit"), "Rename…", self._ask_rename)
        menu.addAction(theme.icon("download"), "Download…", self._ask_download)
        menu.addSeparator()
        menu.addAction(theme.icon("trash"), "Remove…", self._ask_remove)
        menu.popup(self.tree.viewport().mapToGlobal(point))

    # --- what is done -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Into a directory, or a file into the editor."""
        for entry in self._entries()[:1]:
            if entry.kind in ("directory", "link"):
                self.go(self._full(entry)) if entry.kind == "directory" else self._follow(entry)
            elif entry.kind == "file" and entry.size > LIMIT:
                self._outside(entry)
            elif entry.kind == "file":
                editor = TextEditor(self.context, self, self.files, self._full(entry))
                editor.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
                editor.finished.connect(self.reload)
                editor.open()

    def _follow(self, entry: api.FileEntry) -> None:
        """A link may lead to a directory of the volume."""
        self.go(posixpath.normpath(posixpath.join(self.path, entry.target)))

    def _outside(self, entry: api.FileEntry) -> None:
        """A copy of the file in the program that the desktop has for it."""
        path = os.path.join(_copies().name, os.path.basename(entry.name))

        async def work(operation: Operation) -> None:
            await to_file(self.files.read(self._full(entry)), path, operation, entry.size)
            QDesktopServices.openUrl(QUrl.fromLocalFile(path))
        self.context.operate(f"Open {entry.name}", work)

    def _ask_download(self) -> None:
        chosen = self._entries()
        dialog = QFileDialog(self, "Download to")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(lambda folder: [self.fetch(one, folder) for one in chosen])
        dialog.open()

    def fetch(self, entry: api.FileEntry, folder: str) -> Operation:
        """Download a file into *folder*; a directory becomes a tar there."""
        name, full = os.path.basename(entry.name), self._full(entry)

        async def work(operation: Operation) -> None:
            if entry.kind == "directory":
                await to_file(self.files.backup(path=full, pause=False), os.path.join(folder, f"{name}.tar"), operation)
            else:
                await to_file(self.files.read(full), os.path.join(folder, name), operation, entry.size)
        return self.context.operate(f"Download {entry.name}", work)

    def _ask_upload(self) -> None:
        dialog = QFileDialog(self, "Upload")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.filesSelected.connect(self.upload)
        dialog.open()

    def upload(self, paths: list[str]) -> None:
        """Put files of this machine into the directory that is shown; what is there is replaced, if that is wanted."""
        there = {one.name for one in self._entries(all_of_them=True)}
        old = [os.path.basename(one) for one in paths if os.path.basename(one) in there]
        if not old:
            self._send(paths)
            return
        dialog = Confirm(self, "Replace what is there?", "Files of these names are in the volume already.", old,
                         verb="Replace")
        dialog.accepted.connect(partial(self._send, paths))
        dialog.open()

    def _send(self, paths: list[str]) -> None:
        target = self.path

        async def work(operation: Operation) -> None:
            for one in paths:
                await self.files.write(posixpath.join(target, os.path.basename(one)), of_file(one, operation))
            self.reload()
        self.context.operate(f"Upload {', '.join(os.path.basename(one) for one in paths)[:60]}", work)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(os.path.isfile(url.toLocalFile()) for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        self.upload([url.toLocalFile() for url in event.mimeData().urls() if os.path.isfile(url.toLocalFile())])

    def _ask_folder(self) -> None:
        def make(name: str) -> None:
            work = self.files.make_directory(posixpath.join(self.path, name))
            self._run(f"{name} could not be made", work, self.reload)
        AskName(self, "New folder", "", "", verb="Create", then=make).open()

    def _ask_rename(self) -> None:
        for entry in self._entries()[:1]:
            AskName(self, f"Rename {entry.name}", "", entry.name, verb="Rename",
                    then=partial(self._rename, entry)).open()

    def _rename(self, entry: api.FileEntry, name: str) -> None:
        self._run(f"{entry.name} could not be renamed",
                  self.files.rename(self._full(entry), posixpath.join(self.path, name)), self.reload)

    def _ask_remove(self) -> None:
        chosen = self._entries()
        if not chosen:
            return
        title = f"Remove {chosen[0].name}?" if len(chosen) == 1 else f"Remove {len(chosen)} files and folders?"
        things = [f"{one.name}{' and all that is in it' if one.kind == 'directory' else ''}" for one in chosen]
        dialog = Confirm(self, title, "It is gone for good.", things, verb="Remove")

        def remove() -> None:
            for one in chosen:
                self._run(f"{one.name} could not be removed", self.files.remove(self._full(one)), self.reload)
        dialog.accepted.connect(remove)
        dialog.open()
