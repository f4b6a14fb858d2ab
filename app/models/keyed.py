"""The base of all tables: rows with stable keys that come, change and go one by one, never by a reset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt

Row = TypeVar("Row")
Index = QModelIndex | QPersistentModelIndex

# Cached as plain numbers: comparing enum members in `data` costs more than the rest of it (views ask often).
DISPLAY = Qt.ItemDataRole.DisplayRole.value
TOOLTIP = Qt.ItemDataRole.ToolTipRole.value
ALIGNMENT = Qt.ItemDataRole.TextAlignmentRole.value
ACCESSIBLE = Qt.ItemDataRole.AccessibleTextRole.value
SORT = Qt.ItemDataRole.UserRole.value
ROW = Qt.ItemDataRole.UserRole.value + 1
_RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and whether its text stands at the right (numbers)."""

    title: str
    right: bool = False


class KeyedTable(QAbstractTableModel, Generic[Row]):
    """Rows by key, in order of arrival; sorting is the proxy's business."""

    columns: Sequence[Column] = ()

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[str] = []
        self._rows: dict[str, Row] = {}
        self._places: dict[str, int] = {}

    # --- what a table says ---------------------------------------------------------------------------------------

    def text(self, row: Row, column: int) -> str:
        """What the cell shows."""
        raise NotImplementedError

    def sort_value(self, row: Row, column: int) -> Any:
        """What the cell sorts by."""
        return self.text(row, column).lower()

    def tip(self, row: Row, column: int) -> str:
        """The cell's tool tip."""
        return self.text(row, column)

    # --- rows ------------------------------------------------------------------------------------------------------

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def keys(self) -> list[str]:
        """The keys in order."""
        return list(self._keys)

    def rows(self) -> list[Row]:
        """The rows in order."""
        return [self._rows[key] for key in self._keys]

    def get(self, key: str) -> Row | None:
        """The row of *key*."""
        return self._rows.get(key)

    def at(self, index: Index) -> Row:
        """The row at *index*."""
        return self._rows[self._keys[index.row()]]

    def upsert(self, key: str, row: Row) -> None:
        """Add or change one row; nothing is told when nothing changed."""
        if key not in self._rows:
            place = len(self._keys)
            self.beginInsertRows(QModelIndex(), place, place)
            self._keys.append(key)
            self._places[key] = place
            self._rows[key] = row
            self.endInsertRows()
        elif self._rows[key] != row:
            self._rows[key] = row
            self.touch(key)

    def touch(self, key: str, first: int = 0, last: int = -1) -> None:
        """Tell the views that columns *first* to *last* of a row show something new."""
        place = self._places.get(key)
        if place is not None:
            end = last if last >= 0 else len(self.columns) - 1
            self.dataChanged.emit(self.index(place, first), self.index(place, end))

    def remove(self, key: str) -> None:
        """Take one row away; unknown keys are ignored."""
        place = self._places.get(key)
        if place is None:
            return
        self.beginRemoveRows(QModelIndex(), place, place)
        del self._keys[place], self._rows[key]
        self._places = {one: number for number, one in enumerate(self._keys)}
        self.endRemoveRows()

    def sync(self, wanted: Iterable[tuple[str, Row]]) -> None:
        """Make the rows those of *wanted*, by the fewest changes."""
        pairs = list(wanted)
        keep = {key for key, _ in pairs}
        for key in [key for key in self._keys if key not in keep]:
            self.remove(key)
        for key, row in pairs:
            self.upsert(key, row)

    # --- Qt --------------------------------------------------------------------------------------------------------

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._keys)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: Index, role: int = DISPLAY) -> Any:
        if not index.isValid():
            return None
        row = self._rows[self._keys[index.row()]]
        if role in (DISPLAY, ACCESSIBLE):
            return self.text(row, index.column())
        if role == SORT:
            return self.sort_value(row, index.column())
        if role == ROW:
            return row
        if role == TOOLTIP:
            return self.tip(row, index.column())
        if role == ALIGNMENT:
            return _RIGHT if self.columns[index.column()].right else _LEFT
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = DISPLAY) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self.columns):
            return None
        if role == DISPLAY:
            return self.columns[section].title
        if role == ALIGNMENT:
            return _RIGHT if self.columns[section].right else _LEFT
        return None
