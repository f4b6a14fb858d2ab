"""The page of disk use: what takes room as a picture, sums by kind, and the way to clean each of them up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QDialog, QFrame, QGridLayout, QLabel, QVBoxLayout, QWidget

from app import theme
from app.models.disk import KINDS, Part, parts, totals
from app.models.problems import Problem
from app.models.rows import size_text
from app.widgets.parts import Empty, button, label, row
from app.widgets.treemap import TreeMap
from app.windows.context import Context
from app.windows.page import Page
from app.windows.prune import PruneDialog, Rubbish
from backend.spec import api


class DiskPage(Page):
    """Counted when it is shown: the engine reads every file of volumes and containers for it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Disk use")
        self.map = TreeMap()
        self.home = self.map
        self.map.opened.connect(self._open)
        self.head.addWidget(button("Count again", "restart", "", self.load))
        self.empty = Empty("disk", "Nothing takes room", "There are no images, containers or volumes.")
        self.sums = QGridLayout()
        self.sums.setHorizontalSpacing(12)
        self.hint = label("Hatched: nothing needs it.", "muted")
        sums = QWidget()
        sums.setLayout(self.sums)
        self.sums.setContentsMargins(0, 0, 0, 0)
        self.body.addWidget(sums)
        self.body.addSpacing(12)
        self.body.addWidget(self.map, 1)
        self.body.addWidget(self.empty, 1)
        self.body.addSpacing(6)
        self.body.addWidget(self.hint)
        self.empty.hide()
        self.usage: api.DiskUsage | None = None

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.load()

    def load(self) -> None:
        """Count what takes room."""
        if self.usage is None:
            self.subtitle.setText("counting…")
        self.context.bridge.run("What takes room could not be counted", self.context.client.disk_usage(), owner=self,
                                then=self.show_usage, failed=self._failed)

    def _failed(self, problem: Problem) -> None:
        self.subtitle.setText("")
        self.show_problem(problem, self.load)

    def show_usage(self, usage: api.DiskUsage) -> None:
        """Show what the engine counted."""
        self.usage = usage
        found = parts(usage)
        sums = totals(found)
        free = sum(one for _, one in sums.values())
        total = sum(one for one, _ in sums.values())
        self.subtitle.setText(f"{size_text(total)}, {size_text(free)} of it not needed by anything" if total else "")
        self.map.show_parts(found)
        self.map.setVisible(bool(found))
        self.hint.setVisible(bool(found))
        self.empty.setVisible(not found)
        while (item := self.sums.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        shown = [(kind, words) for kind, words in KINDS if kind in sums]
        for place, (kind, words) in enumerate(shown):
            self.sums.addWidget(self._card(kind, words, *sums[kind]), 0, place)

    def _card(self, kind: str, words: str, size: int, free: int) -> QFrame:
        card = QFrame()
        card.setObjectName("card")
        dot = QLabel("■")
        theme.follow(dot, lambda: dot.setStyleSheet(f"color: {self.map.hue(kind).name()};"))
        box = QVBoxLayout(card)
        box.setContentsMargins(14, 10, 10, 10)
        box.setSpacing(2)
        box.addLayout(row(dot, label(words, "muted"), None, spacing=6))
        box.addWidget(label(size_text(size), "heading"))
        ways: dict[str, Callable[[], object]] = {
            "image": partial(self._page_prune, "images"), "volume": partial(self._page_prune, "volumes"),
            "container": self._prune_containers}
        clean = ways.get(kind)
        if clean is not None and free:
            line = row(label(f"{size_text(free)} free to go", "muted"), None, button("Clean up…", "", "flat", clean))
        else:
            line = row(label("all of it is needed" if not free else f"{size_text(free)} free to go", "muted"), None)
        box.addStretch(1)
        box.addLayout(line)
        return card

    def _page_prune(self, page: str) -> None:
        """The page has what it takes to say what may go."""
        self.context.ways.prune.emit(page)

    def _prune_containers(self) -> None:
        sizes = {one.id: one.size_rw for one in (self.usage.containers if self.usage else [])}
        remove = self.context.client.remove_container
        items = []
        for one in self.context.mirror.containers.rows():
            if not one.running:
                written = sizes.get(one.id, -1)
                items.append(Rubbish(one.name, one.status or one.state, written if isinstance(written, int) else -1,
                                     partial(remove, one.id), wanted=False))
        dialog = PruneDialog(self.context, self.window(), "Clean up containers", "These do not run. What was written "
                             "inside them is gone with them; named volumes stay. Tick what may go.", items)
        dialog.finished.connect(self._later)
        self._show(dialog)

    def _later(self, result: int) -> None:
        if result == QDialog.DialogCode.Accepted and self.context.operations.items:
            self.context.operations.items[-1].finished.connect(self.load)

    @staticmethod
    def _show(dialog: QDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _open(self, part: Part) -> None:
        ways, mirror = self.context.ways, self.context.mirror
        if part.kind == "container":
            for one in mirror.containers.rows():
                if one.name == part.name:
                    ways.container.emit(one.id, "")
        elif part.kind in ("image", "volume"):
            ways.page.emit(f"{part.kind}s")
