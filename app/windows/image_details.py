"""One image: its layers with the files of each, how it was made, its settings, its names and digests."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QDialog,
    QHeaderView,
    QPlainTextEdit,
    QSplitter,
    QTabWidget,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.models.image_details import made_by
from app.models.problems import Problem
from app.models.rows import ImageRow, size_text, time_text
from app.widgets.inspect import InspectView
from app.widgets.layer_files import LayerTree
from app.widgets.parts import Banner, button, label, row
from app.windows.context import Context
from app.windows.signatures_tab import SignaturesTab
from backend.spec import api
from backend.spec.api.layers import ImageLayer

_NUMBER = Qt.ItemDataRole.UserRole
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class ImageDetails(QDialog):
    """Closes by itself into the run form, when that is asked for."""

    def __init__(self, context: Context, parent: QWidget, image: ImageRow) -> None:
        super().__init__(parent)
        self.context, self.image = context, image
        self.setWindowTitle(image.reference)
        self.resize(min(1040, max(parent.width() - 40, 760)), min(680, max(parent.height() - 40, 520)))
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setDrawBase(False)
        self.banner = Banner()
        self.layers = self._table(["#", "Made by", "Size"], "Layers", 1)
        self.files = LayerTree(context.bridge)
        self.command = QPlainTextEdit(readOnly=True)
        self.command.setObjectName("code")
        self.command.setFixedHeight(64)
        self.command.setAccessibleName("The step that made the layer")
        self.steps = self._table(["Step, the newest first", "Size", "When"], "History", 0)
        self.inspect = InspectView()
        self.names = self._table(["What", "Name"], "Names and digests", 1)
        self.tabs.addTab(self._layers_tab(), "Layers")
        self.tabs.addTab(self._padded(self.steps), "History")
        self.tabs.addTab(self.inspect, "Settings")
        self.tabs.addTab(self._padded(self.names), "Names and digests")
        self.tabs.addTab(SignaturesTab(context, image), "Signatures")
        run = button("Run…", "play", "primary", self.accept)
        self.accepted.connect(lambda: context.ways.run_form.emit(image.reference))
        self.about = label(f"{image.id[:19]}  ·  {size_text(image.size)}", "muted", select=True)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(8)
        box.addWidget(label(image.reference, "title", select=True))
        box.addWidget(self.about)
        box.addWidget(self.banner)
        box.addWidget(self.tabs, 1)
        box.addLayout(row(None, button("Close", clicked=self.reject), run))
        self.layers.itemSelectionChanged.connect(self._chosen)
        self._load()

    @staticmethod
    def _table(heads: list[str], name: str, wide: int) -> QTreeWidget:
        made = QTreeWidget()
        made.setHeaderLabels(heads)
        made.setRootIsDecorated(False)
        made.setUniformRowHeights(True)
        made.setAccessibleName(name)
        made.header().setStretchLastSection(False)
        for column in range(len(heads)):
            made.header().setSectionResizeMode(
                column, QHeaderView.ResizeMode.Stretch if column == wide else QHeaderView.ResizeMode.ResizeToContents)
        return made

    @staticmethod
    def _padded(widget: QWidget) -> QWidget:
        made = QWidget()
        box = QVBoxLayout(made)
        box.setContentsMargins(0, 10, 0, 0)
        box.addWidget(widget)
        return made

    def _layers_tab(self) -> QWidget:
        left, right = QWidget(), QWidget()
        for side, title, *widgets in ((left, "Layers, the lowest first", self.layers, self.command),
                                      (right, "What the layer did", self.files)):
            box = QVBoxLayout(side)
            box.setContentsMargins(0, 10, 0, 0)
            box.setSpacing(6)
            box.addWidget(label(title, "muted"))
            for widget in widgets:
                box.addWidget(widget)
        split = QSplitter()
        split.addWidget(left)
        split.addWidget(right)
        split.setHandleWidth(14)
        split.setChildrenCollapsible(False)
        split.setStyleSheet("QSplitter::handle { background: transparent; }")
        split.setSizes([460, 520])
        return split

    # --- what comes ------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        client, identity = self.context.client, self.image.id
        run = partial(self.context.bridge.run, owner=self, failed=self._failed)
        run("The layers could not be read", client.image_layers(identity), then=self._show_layers)
        run("The history could not be read", client.image_history(identity), then=self._show_steps)
        run("The image could not be inspected", client.inspect_raw("images", identity), then=self.inspect.show_value)
        run("The image could not be inspected", client.inspect_image(identity), then=self._show_names)

    def _failed(self, problem: Problem) -> None:
        self.banner.show_problem(problem)

    def _show_layers(self, found: list[ImageLayer]) -> None:
        for number, layer in enumerate(found):
            item = QTreeWidgetItem([str(number + 1), made_by(layer.created_by, layer.comment), size_text(layer.size)])
            item.setToolTip(1, layer.created_by or layer.comment)
            item.setToolTip(0, layer.diff_id)
            item.setTextAlignment(2, _RIGHT)
            item.setData(0, _NUMBER, number)
            self.layers.addTopLevelItem(item)
        if (top := self.layers.topLevelItem(len(found) - 1)) is not None:
            self.layers.setCurrentItem(top)
        count = f"{len(found)} layer{'s' if len(found) != 1 else ''}"
        self.about.setText(f"{self.image.id[:19]}  ·  {size_text(self.image.size)}  ·  {count}")

    def _chosen(self) -> None:
        for item in self.layers.selectedItems()[:1]:
            number = int(item.data(0, _NUMBER))
            self.command.setPlainText(item.toolTip(1) or "no step was noted")
            self.files.show_layer(partial(self.context.client.layer_files, self.image.id, number))

    def _show_steps(self, steps: list[api.HistoryItem]) -> None:
        for step in steps:
            made = made_by(step.created_by, step.comment)
            item = QTreeWidgetItem([made, size_text(step.size) if step.size else "–", time_text(step.created)[:16]])
            item.setToolTip(0, step.created_by or made)
            item.setTextAlignment(1, _RIGHT)
            self.steps.addTopLevelItem(item)

    def _show_names(self, found: api.ImageInspect) -> None:
        rows = [("Tag", one) for one in found.repo_tags or ()]
        rows += [("Digest at its registry", one) for one in found.repo_digests or ()]
        rows.append(("ID (digest of its settings)", found.id))
        rows.append(("Platform", f"{found.os}/{found.architecture}"))
        for pair in rows:
            item = QTreeWidgetItem(list(pair))
            item.setToolTip(1, pair[1])
            self.names.addTopLevelItem(item)
