"""The tables' look: calm rows, a dot with a word for the state, ports as links, actions at the end of the row.

Everything is painted from the row itself by one delegate, because asking the model cell by cell and role by role costs
more than painting. What can be hit with the mouse is in the context menu and has a key as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import (
    QPoint,
    QPointF,
    QRect,
    QRectF,
    QSize,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from PySide6.QtGui import QColor, QFontMetrics, QKeyEvent, QMouseEvent, QPainter, QPen, QPolygonF, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QToolTip,
    QWidget,
)

from app import theme
from app.models.keyed import DISPLAY, ROW, SORT, TOOLTIP, Index, KeyedTable

ROW_HEIGHT = 42
_PAD = 8
_ICON = 18
_STEP = 30
#: The least width of a column that takes what is left.
_LEAST = 115


@dataclass(frozen=True, slots=True)
class Hit:
    """Something in a cell that a click does something with. `kind`: "link" or "action"; `value`: URL or action."""

    area: QRect
    kind: str
    value: str
    tip: str


@dataclass(frozen=True, slots=True)
class Action:
    """An icon at the end of a row."""

    name: str
    icon: str
    tip: str
    tone: str = "muted"


class RowDelegate(QStyledItemDelegate):
    """Paints plain cells; pages override `special` for the columns that are more than text."""

    def __init__(self, table: CleanTable) -> None:
        super().__init__(table)
        self.table = table

    # --- what subclasses say ---------------------------------------------------------------------------------------

    def special(self, painter: QPainter, area: QRect, row: Any, column: int) -> bool:
        """Paint a cell that is more than text; False leaves it to the base."""
        return False

    def hits(self, area: QRect, row: Any, column: int) -> list[Hit]:
        """What can be clicked in a cell."""
        return []

    def strong(self, row: Any, column: int) -> bool:
        """Whether the text is the row's name."""
        return column == 1

    # --- painting --------------------------------------------------------------------------------

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(80, ROW_HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        colours = theme.current()
        area: QRect = option.rect
        state: QStyle.StateFlag = option.state
        chosen = bool(state & QStyle.StateFlag.State_Selected)
        if chosen or index.row() == self.table.hovered:
            painter.fillRect(area, QColor(colours.chosen if chosen else colours.hover))
        painter.setPen(QColor(colours.line))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        if index.row() == self.table.currentIndex().row() and self.table.hasFocus() and index.column() == 0:
            painter.fillRect(area.left(), area.top(), 3, area.height() - 1, QColor(colours.accentText))
        inner = area.adjusted(_PAD, 0, -_PAD, -1)
        row = index.data(ROW)
        painter.save()
        if not self.special(painter, inner, row, index.column()):
            self.text(painter, inner, str(index.data(DISPLAY) or ""), strong=self.strong(row, index.column()),
                      right=self.table.right_column(index.column()))
        painter.restore()

    def text(self, painter: QPainter, area: QRect, text: str, *, strong: bool = False, right: bool = False,
             tone: str = "", cut: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> int:
        """One line of text, cut with dots where it is too long; its width."""
        font = self.table.font()
        font.setWeight(font.Weight.DemiBold if strong else font.Weight.Normal)
        painter.setFont(font)
        painter.setPen(QColor(getattr(theme.current(), tone or ("text" if strong or right else "muted"))))
        metrics = QFontMetrics(font)
        shown = metrics.elidedText(text, cut, area.width())
        side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        painter.drawText(area, int(side | Qt.AlignmentFlag.AlignVCenter), shown)
        return metrics.horizontalAdvance(shown)

    def state(self, painter: QPainter, area: QRect, word: str, tone: str) -> None:
        """A dot and a word. Stopped things have a hollow dot, so that the shape tells it as well as the colour."""
        colour = QColor(getattr(theme.current(), tone))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(colour, 1.6))
        painter.setBrush(colour if tone != "idle" else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(QRectF(area.left() + 3, area.center().y() - 3.5, 8, 8))
        self.text(painter, area.adjusted(20, 0, 0, 0), word, tone="muted" if tone == "idle" else tone)

    def links(self, painter: QPainter, area: QRect, texts: Sequence[tuple[str, str]]) -> None:
        """Texts with addresses; those without an address are plain."""
        for (text, url), hit in zip(texts, self.link_hits(area, texts), strict=False):
            font = self.table.font()
            font.setUnderline(bool(url) and self.table.over is not None and self.table.over.area == hit.area)
            painter.setFont(font)
            painter.setPen(QColor(theme.current().accentText if url else theme.current().muted))
            painter.drawText(hit.area, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter),
                             QFontMetrics(font).elidedText(text, Qt.TextElideMode.ElideRight, hit.area.width()))

    def link_hits(self, area: QRect, texts: Sequence[tuple[str, str]]) -> list[Hit]:
        """Where the links of a cell are."""
        metrics = QFontMetrics(self.table.font())
        left, found = area.left(), []
        for text, url in texts:
            width = min(metrics.horizontalAdvance(text) + 2, area.right() - left + 1)
            if width <= 12:
                break
            place = QRect(left, area.top() + 6, width, area.height() - 12)
            found.append(Hit(place, "link", url, f"Open {url}" if url else text))
            left += width + 14
        return found

    def spark(self, painter: QPainter, area: QRect, values: Sequence[float]) -> None:
        """A small line of the last minute."""
        if len(values) < 2:
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        top = max(*values, 5.0)
        step = area.width() / 59
        start = area.right() - step * (len(values) - 1)
        line = QPolygonF([QPointF(start + step * n, area.bottom() - v / top * area.height())
                          for n, v in enumerate(values)])
        colour = QColor(theme.current().accentText)
        colour.setAlpha(150)
        painter.setPen(QPen(colour, 1.2))
        painter.drawPolyline(line)

    def actions(self, painter: QPainter, area: QRect, actions: Sequence[Action]) -> None:
        """The icons at the end of a row."""
        for action, hit in zip(actions, self.action_hits(area, actions), strict=True):
            over = self.table.over is not None and self.table.over.area == hit.area
            if over:
                painter.setRenderHint(QPainter.RenderHint.Antialiasing)
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(theme.current().line))
                painter.drawRoundedRect(hit.area, 6, 6)
            tone = action.tone if not over or action.tone != "muted" else "text"
            picture = theme.pixmap(action.icon, getattr(theme.current(), tone), _ICON)
            painter.drawPixmap(hit.area.center() - QPoint(_ICON // 2 - 1, _ICON // 2 - 1), picture)

    def action_hits(self, area: QRect, actions: Sequence[Action]) -> list[Hit]:
        """Where the icons are: from the right edge, so that they stand in columns."""
        left = area.right() - _STEP * len(actions) + 1
        top = area.center().y() - _STEP // 2 + 1
        return [Hit(QRect(left + _STEP * place, top, _STEP, _STEP), "action", one.name, one.tip)
                for place, one in enumerate(actions)]


class CleanTable(QTableView):
    """A table of rows: whole rows chosen, a filter, clicks on links and actions, keys as everywhere in the window."""

    opened = Signal(str)
    acted = Signal(str, str)
    linked = Signal(str)
    choice_changed = Signal()

    def __init__(self, model: KeyedTable[Any], name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.source = model
        self.hovered = -1
        self.over: Hit | None = None
        self._spare: tuple[int, ...] = ()
        self._widths: dict[int, int] = {}
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(model)
        self.proxy.setSortRole(SORT)
        self.proxy.setFilterKeyColumn(-1)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self.proxy)
        self.setAccessibleName(name)
        self.setShowGrid(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setTabKeyNavigation(False)
        self.setMouseTracking(True)
        self.setCornerButtonEnabled(False)
        self.setWordWrap(False)
        rows = self.verticalHeader()
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(ROW_HEIGHT)
        head = self.horizontalHeader()
        head.setHighlightSections(False)
        head.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        head.setMinimumSectionSize(40)
        self.setSortingEnabled(True)
        head.setSortIndicatorClearable(False)
        self.selectionModel().selectionChanged.connect(lambda *_: self.choice_changed.emit())
        self.doubleClicked.connect(lambda index: self.opened.emit(self.key_at(index)))
        theme.state().changed.connect(self.viewport().update)

    def dress(self, widths: Sequence[int], delegate: RowDelegate, sort: int, spare: Sequence[int] = ()) -> None:
        """Column widths (0 takes what is left), how rows are painted, and the column sorted by at first.

        *spare*: columns that make room, in this order, where the window is too narrow for all.
        """
        self.setItemDelegate(delegate)
        self._spare = tuple(spare)
        head = self.horizontalHeader()
        for column, width in enumerate(widths):
            if width:
                head.setSectionResizeMode(column, QHeaderView.ResizeMode.Interactive)
                self.setColumnWidth(column, width)
            else:
                head.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.sortByColumn(sort, Qt.SortOrder.AscendingOrder)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._make_room(event.size().width())
        super().resizeEvent(event)

    def _make_room(self, room: int) -> None:
        """Hide spare columns until what is left has its width."""
        head = self.horizontalHeader()
        need = {column: _LEAST if head.sectionResizeMode(column) == QHeaderView.ResizeMode.Stretch
                else self._widths.get(column, head.sectionSize(column)) for column in range(head.count())}
        for column in self._spare:
            hide = sum(need.values()) > room
            if hide != self.isColumnHidden(column):
                if hide and head.sectionSize(column):
                    self._widths[column] = head.sectionSize(column)
                self.setColumnHidden(column, hide)
            if hide:
                del need[column]

    def right_column(self, column: int) -> bool:
        """Whether a column's text stands at the right."""
        return self.source.columns[column].right

    def filter(self, text: str) -> None:
        """Show only rows in which a cell contains *text*."""
        self.proxy.setFilterFixedString(text)

    def key_at(self, index: Index) -> str:
        """The key of the row at a view's index."""
        source = self.proxy.mapToSource(index)
        return self.source.keys()[source.row()] if source.isValid() else ""

    def chosen(self) -> list[str]:
        """The keys of the chosen rows, from top to bottom."""
        indexes = sorted(self.selectionModel().selectedRows(), key=lambda index: index.row())
        return [self.key_at(index) for index in indexes]

    def in_sight(self) -> list[str]:
        """The keys of the rows that can be seen now."""
        first, last = self.rowAt(0), self.rowAt(self.viewport().height() - 1)
        end = last + 1 if last >= 0 else self.proxy.rowCount()
        return [self.key_at(self.proxy.index(row, 0)) for row in range(max(first, 0), end)]

    def choose(self, key: str) -> None:
        """Choose one row and make it current."""
        if key in self.source:
            index = self.proxy.mapFromSource(self.source.index(self.source.keys().index(key), 0))
            if index.isValid():
                self.setCurrentIndex(index)
                self.selectRow(index.row())

    # --- mouse and keys --------------------------------------------------------------------------------

    def _hit(self, point: QPoint) -> Hit | None:
        index = self.indexAt(point)
        delegate = self.itemDelegate()
        if not index.isValid() or not isinstance(delegate, RowDelegate):
            return None
        area = self.visualRect(index).adjusted(_PAD, 0, -_PAD, -1)
        found = delegate.hits(area, index.data(ROW), index.column())
        return next((one for one in found if one.area.contains(point)), None)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        point = event.position().toPoint()
        hovered, over = self.indexAt(point).row(), self._hit(point)
        if over and over.kind == "link" and not over.value:
            over = None
        if (hovered, over) != (self.hovered, self.over):
            self.hovered, self.over = hovered, over
            self.viewport().setCursor(Qt.CursorShape.PointingHandCursor if over else Qt.CursorShape.ArrowCursor)
            self.viewport().update()
            if over:
                QToolTip.showText(event.globalPosition().toPoint(), over.tip, self)
        super().mouseMoveEvent(event)

    def leaveEvent(self, event: Any) -> None:
        self.hovered, self.over = -1, None
        self.viewport().update()
        super().leaveEvent(event)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        hit = self._hit(event.position().toPoint())
        if event.button() == Qt.MouseButton.LeftButton and hit is not None and hit.value:
            event.accept()
            return
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        point = event.position().toPoint()
        hit = self._hit(point)
        if event.button() == Qt.MouseButton.LeftButton and hit is not None and hit.value:
            if hit.kind == "link":
                self.linked.emit(hit.value)
            else:
                self.acted.emit(hit.value, self.key_at(self.indexAt(point)))
            return
        super().mouseReleaseEvent(event)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if self._hit(event.position().toPoint()) is None:
            super().mouseDoubleClickEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.opened.emit(self.key_at(self.currentIndex()))
            return
        super().keyPressEvent(event)

    def viewportEvent(self, event: Any) -> bool:
        # The model's tool tips only where the text may be cut; the delegate's hits have their own.
        if event.type() == event.Type.ToolTip and self.over is not None:
            return True
        if event.type() == event.Type.ToolTip:
            index = self.indexAt(event.pos())
            QToolTip.showText(event.globalPos(), str(index.data(TOOLTIP) or "") if index.isValid() else "", self)
            return True
        return super().viewportEvent(event)
