"""A text file of a volume in an editor. What somebody else wrote meanwhile is not overwritten."""

from __future__ import annotations

from PySide6.QtGui import QCloseEvent, QKeySequence, QShortcut
from PySide6.QtWidgets import QDialog, QPlainTextEdit, QVBoxLayout, QWidget

from app import theme
from app.models.problems import Problem
from app.widgets.confirm import Confirm
from app.widgets.parts import Banner, button, label, row
from app.windows.context import Context
from backend.client import VolumeFiles
from backend.errors import InvalidArgument

#: Larger files are for another editor.
LIMIT = 1 << 20


class TextEditor(QDialog):
    """Loads *path*, saves it with Ctrl+S."""

    def __init__(self, context: Context, parent: QWidget, files: VolumeFiles, path: str) -> None:
        super().__init__(parent)
        self.context, self.files, self.path = context, files, path
        self.version = ""
        self.setWindowTitle(path)
        self.resize(760, 560)
        self.text = QPlainTextEdit()
        self.text.setObjectName("code")
        self.text.setAccessibleName(path)
        self.text.setReadOnly(True)
        self.text.setTabStopDistance(32)
        theme.follow(self, lambda: self.text.document().setDefaultFont(theme.mono()))
        self.banner = Banner()
        self.banner.retried.connect(self._load)
        self.save = button("Save", "save", "primary", self._save)
        self.save.setEnabled(False)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(10)
        box.addWidget(label(path, "heading", select=True))
        box.addWidget(self.banner)
        box.addWidget(self.text, 1)
        box.addLayout(row(None, button("Close", clicked=self.close), self.save))
        self.text.document().modificationChanged.connect(self.save.setEnabled)
        QShortcut(QKeySequence(QKeySequence.StandardKey.Save), self, self._save)
        self._load()

    def _load(self) -> None:
        self.banner.hide()
        self.context.bridge.run(f"{self.path} could not be opened", self._read(), owner=self, then=self._show,
                                failed=lambda problem: self.banner.show_problem(problem, retry=True))

    async def _read(self) -> tuple[str, str]:
        data, version, whole = await self.files.load(self.path, limit=LIMIT)
        if not whole:
            raise InvalidArgument("it is larger than a megabyte: download it, and edit it with another program")
        try:
            return data.decode(), version
        except UnicodeDecodeError:
            raise InvalidArgument("it is no text: download it instead") from None

    def _show(self, found: tuple[str, str]) -> None:
        text, self.version = found
        self.text.setReadOnly(False)
        self.text.setPlainText(text)
        self.text.document().setModified(False)
        self.text.setFocus()

    def _save(self) -> None:
        if not self.save.isEnabled():
            return
        self.banner.hide()
        self.save.setEnabled(False)
        self.context.bridge.run(
            f"{self.path} could not be saved",
            self.files.write(self.path, self.text.toPlainText().encode(), expected=self.version), owner=self,
            then=self._saved, failed=self._refused)

    def _saved(self, version: str) -> None:
        self.version = version
        self.text.document().setModified(False)

    def _refused(self, problem: Problem) -> None:
        self.save.setEnabled(True)
        self.banner.show_problem(problem)

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.text.document().isModified():
            super().closeEvent(event)
            return
        event.ignore()
        dialog = Confirm(self, "Close without saving?", "What you changed in this file is lost.", [],
                         verb="Do not save")
        dialog.accepted.connect(self._drop)
        dialog.open()

    def _drop(self) -> None:
        self.text.document().setModified(False)
        self.close()
