"""JSON as a tree of keys and values, for the inspect views."""

from __future__ import annotations

import json
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel

PATH = Qt.ItemDataRole.UserRole.value


def tree_model(value: Any) -> QStandardItemModel:
    """Two columns, key and value; each row knows its path (`.Config.Env[0]`) and its JSON."""
    model = QStandardItemModel(0, 2)
    model.setHorizontalHeaderLabels(["Key", "Value"])
    _fill(model.invisibleRootItem(), value, "")
    return model


def _fill(parent: QStandardItem, value: Any, path: str) -> None:
    pairs = (list(value.items()) if isinstance(value, dict) else
             [(str(number), one) for number, one in enumerate(value)])
    for key, one in pairs:
        place = f"{path}.{key}" if isinstance(value, dict) else f"{path}[{key}]"
        nested = isinstance(one, dict | list)
        first, second = QStandardItem(str(key)), QStandardItem(_word(one))
        for item in (first, second):
            item.setEditable(False)
            item.setData(place, PATH)
            item.setToolTip(place)
        if nested and one:
            _fill(first, one, place)
        parent.appendRow([first, second])


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return "" if value else "{}"
    if isinstance(value, list):
        return f"{len(value)} item{'s' if len(value) != 1 else ''}" if value else "[]"
    return value if isinstance(value, str) else json.dumps(value)
