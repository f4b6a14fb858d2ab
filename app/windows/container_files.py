"""Files of a container: what it changed of its image, and copies in and out."""

from __future__ import annotations

import asyncio
import os
import posixpath
import tarfile
from collections.abc import AsyncIterator
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QBrush, QColor, QDragEnterEvent, QDropEvent, QShowEvent
from PySide6.QtWidgets import QFileDialog, QHeaderView, QLineEdit, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app import theme
from app.models.container_changes import Node, tree
from app.models.image_details import CHANGES
from app.models.operations import Operation
from app.models.transfers import PIECE, to_file
from app.widgets.parts import Banner, button, label, row
from app.windows.context import Context
from backend.spec import api

_PATH = Qt.ItemDataRole.UserRole


class FilesTab(QWidget):
    """The tree of changes; a path to copy from, a folder to copy into. Files dropped here are copied into it."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.context, self.key = context, key
        self.setAcceptDrops(True)
        self.changes = QTreeWidget()
        self.changes.setHeaderLabels(["What differs from the image", ""])
        self.changes.setAccessibleName("Changes")
        self.changes.setUniformRowHeights(True)
        self.changes.header().setStretchLastSection(False)
        self.changes.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.changes.itemSelectionChanged.connect(self._chosen)
        self.path = QLineEdit("/")
        self.path.setAccessibleName("Path in the container")
        self.path.setPlaceholderText("/etc/hosts, or a folder")
        self.banner = Banner()
        self.count = label("", "muted")
        self.again = button("Compare again", "restart", "flat", self.load)
        out = button("Copy out…", "download", "", self._ask_out)
        into = button("Copy in…", "push", "", self._ask_in)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 10, 0, 0)
        box.setSpacing(8)
        path_label = label("Path in the container", "muted")
        path_label.setBuddy(self.path)
        box.addWidget(self.banner)
        line = row(path_label, self.path, out, into)
        line.setStretch(1, 1)
        box.addLayout(line)
        box.addWidget(self.changes, 1)
        box.addLayout(row(self.count, None, self.again))

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.load()

    def load(self) -> None:
        """Compare with the image."""
        self.context.bridge.run("The container could not be compared with its image",
                                self.context.client.container_changes(self.key), owner=self, then=self.show_changes,
                                failed=self.banner.show_problem)

    def show_changes(self, found: list[api.FilesystemChange]) -> None:
        """Show what differs."""
        self.banner.hide()
        self.changes.clear()
        self._fill(self.changes.invisibleRootItem(), tree(found), "")
        self.changes.expandToDepth(1)
        self.count.setText(f"{len(found)} path{'s' if len(found) != 1 else ''} differ from the image" if found else
                           "Nothing differs from the image.")

    def _fill(self, parent: QTreeWidgetItem, node: Node, path: str) -> None:
        for name, child in sorted(node.below.items()):
            word, mark, tone = CHANGES[child.change]
            item = QTreeWidgetItem([name, f"{mark} {word}".strip()])
            item.setData(0, _PATH, f"{path}/{name}")
            item.setIcon(0, theme.icon("folder" if child.below else "file", theme.current().muted))
            item.setForeground(1, QBrush(QColor(getattr(theme.current(), tone))))
            parent.addChild(item)
            self._fill(item, child, f"{path}/{name}")

    def _chosen(self) -> None:
        for item in self.changes.selectedItems()[:1]:
            self.path.setText(item.data(0, _PATH))

    # --- copies -----------------------------------------------------------------------------------------------------

    def _ask_out(self) -> None:
        dialog = QFileDialog(self, "Copy to")
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(partial(self.copy_out, self.path.text().strip() or "/"))
        dialog.open()

    def copy_out(self, path: str, folder: str) -> Operation:
        """Copy a file of the container into *folder*; a directory becomes a tar there."""
        async def work(operation: Operation) -> None:
            name = posixpath.basename(path.rstrip("/")) or "root"
            tar = os.path.join(folder, f"{name}.tar")
            await to_file(self.context.client.read_archive(self.key, path), tar, operation)
            await asyncio.to_thread(_single, tar, os.path.join(folder, name))
        return self.context.operate(f"Copy {path} out", work)

    def _ask_in(self) -> None:
        dialog = QFileDialog(self, "Copy into the container")
        dialog.setFileMode(QFileDialog.FileMode.ExistingFiles)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.filesSelected.connect(lambda paths: self.copy_in(paths, self.path.text().strip() or "/"))
        dialog.open()

    def copy_in(self, paths: list[str], folder: str) -> Operation:
        """Copy files of this machine into the directory *folder* of the container."""
        async def work(operation: Operation) -> None:
            await self.context.client.write_archive(self.key, folder, _tar_of(paths, operation))
            self.load()
        names = ", ".join(os.path.basename(one) for one in paths)
        return self.context.operate(f"Copy {names[:60]} to {folder}", work)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(os.path.isfile(url.toLocalFile()) for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        files = [url.toLocalFile() for url in event.mimeData().urls() if os.path.isfile(url.toLocalFile())]
        self.copy_in(files, self.path.text().strip() or "/")


def _single(tar: str, target: str) -> None:
    """A tar that holds one regular file becomes that file, under a name of ours: what the tar says is not trusted."""
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
        if len(members) != 1 or not members[0].isreg():
            return
        source = archive.extractfile(members[0])
        assert source is not None
        with open(f"{target}.part", "wb") as out:
            while piece := source.read(PIECE):
                out.write(piece)
    os.replace(f"{target}.part", target)
    os.unlink(tar)


async def _tar_of(paths: list[str], operation: Operation) -> AsyncIterator[bytes]:
    """The files as a tar, owned by root as docker cp makes them."""
    total, done = sum(os.path.getsize(one) for one in paths), 0
    for one in paths:
        head = tarfile.TarInfo(os.path.basename(one))
        seen = os.stat(one)
        head.size, head.mode, head.mtime = seen.st_size, seen.st_mode & 0o777, int(seen.st_mtime)
        yield head.tobuf(tarfile.PAX_FORMAT)
        left = head.size
        with await asyncio.to_thread(open, one, "rb") as file:
            while left:
                piece = (await asyncio.to_thread(file.read, min(PIECE, left))).ljust(min(PIECE, left), b"\0")
                left -= len(piece)
                done += len(piece)
                operation.report(f"{os.path.basename(one)}", done, total)
                yield piece
        yield bytes(-head.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
