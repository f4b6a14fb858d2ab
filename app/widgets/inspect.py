"""Any JSON of the engine as a tree with a filter and a copy button."""

from __future__ import annotations

import json
from typing import Any

from PySide6.QtCore import QSortFilterProxyModel, Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QTreeView, QVBoxLayout, QWidget

from app.models.tree import tree_model
from app.widgets.parts import button, copy, filter_field, row

_OPEN_AT_FIRST = ("State", "Config", "NetworkSettings")


class InspectView(QWidget):
    """Shows one value. The open branches stay open when the value changes."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Any = None
        self.filter = filter_field("Filter keys and values")
        self.filter.textChanged.connect(self._filter)
        self.tree = QTreeView()
        self.tree.setAccessibleName("Inspect")
        self.tree.setUniformRowHeights(True)
        self.tree.setEditTriggers(QTreeView.EditTrigger.NoEditTriggers)
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setRecursiveFilteringEnabled(True)
        self.proxy.setAutoAcceptChildRows(True)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.tree.setModel(self.proxy)
        copy_all = button("Copy as JSON", "copy", "flat", lambda: copy(json.dumps(self.value, indent=2)))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 6, 0, 0)
        box.setSpacing(8)
        box.addLayout(row(self.filter, None, copy_all))
        box.addWidget(self.tree, 1)
        QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), self.tree, self._copy,
                  context=Qt.ShortcutContext.WidgetShortcut)

    def show_value(self, value: Any) -> None:
        """Show *value*; nothing moves when it is what is shown."""
        if value == self.value:
            return
        fresh = self.value is None
        opened = self._opened()
        self.value = value
        old = self.proxy.sourceModel()
        self.proxy.setSourceModel(tree_model(value))
        if old is not None:
            old.deleteLater()
        self.tree.setColumnWidth(0, 300)
        for place in range(self.proxy.rowCount()):
            index = self.proxy.index(place, 0)
            if str(index.data()) in (_OPEN_AT_FIRST if fresh else opened):
                self.tree.setExpanded(index, True)

    def _opened(self) -> set[str]:
        indexes = (self.proxy.index(place, 0) for place in range(self.proxy.rowCount()))
        return {str(index.data()) for index in indexes if self.tree.isExpanded(index)}

    def _filter(self, text: str) -> None:
        self.proxy.setFilterFixedString(text)
        if text:
            self.tree.expandAll()

    def _copy(self) -> None:
        index = self.tree.currentIndex()
        if index.isValid():
            copy(str(index.siblingAtColumn(1).data() or index.siblingAtColumn(0).data() or ""))
