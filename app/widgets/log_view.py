"""The log as a view that paints only what is visible.

A ring of lines below, batches of 100 ms above: a container that prints 10,000 lines a second costs ten repaints a
second of some fifty lines. The scroll bar counts lines, wrapped or not, so nothing has to be measured but what shows.
"""

from __future__ import annotations

from PySide6.QtCore import QPoint, QRect, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QGuiApplication,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QWidget

from app import collector, theme
from app.models.lines import Line, LineRing

BATCH_MS = 100
_MARGIN = 10


class LogView(QAbstractScrollArea):
    """Shows a LineRing. `following` keeps the end in sight; scrolling up leaves it, scrolling to the end resumes."""

    following_changed = Signal(bool)
    lines_came = Signal()

    def __init__(self, ring: LineRing, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.ring = ring
        self.following = True
        self.wrap = True
        self.stamps = False
        self.current = -1
        self.paints = 0
        self._selected: tuple[int, int] | None = None
        self._anchor = -1
        self._zoom = 0
        self._moving = False
        self._known_first = ring.first
        self._batch = QTimer(self)
        self._batch.setSingleShot(True)
        self._batch.setInterval(BATCH_MS)
        self._batch.timeout.connect(self._show_batch)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setAccessibleName("Log")
        self.viewport().setCursor(Qt.CursorShape.IBeamCursor)
        self.verticalScrollBar().valueChanged.connect(self._scrolled)
        theme.state().changed.connect(self._restyle)
        self._restyle()

    # --- what comes in ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes, stderr: bool = False) -> None:
        """Take a chunk of the log; it shows with the next batch."""
        if self.ring.feed(data, stderr) and not self._batch.isActive():
            self._batch.start()

    def _show_batch(self) -> None:
        self._update_range()
        self.lines_came.emit()
        self.viewport().update()
        collector.tidy()

    def clear(self) -> None:
        """Empty the view; the engine's log stays."""
        self.ring.clear()
        self.current = -1
        self._selected = None
        self._show_batch()

    # --- settings --------------------------------------------------------------------------------------------------

    def set_wrap(self, on: bool) -> None:
        """Break long lines at the edge, or scroll sideways."""
        self.wrap = on
        self._update_range()
        self.viewport().update()

    def set_stamps(self, on: bool) -> None:
        """Show the engine's time before each line."""
        self.stamps = on
        self._update_range()
        self.viewport().update()

    def set_following(self, on: bool) -> None:
        """Stay at the end, or stay where it is."""
        if on != self.following:
            self.following = on
            self.following_changed.emit(on)
        if on:
            self._update_range()
        self.viewport().update()

    def go_to(self, number: int) -> None:
        """Bring a line into the middle and mark it as the current find."""
        self.set_following(False)
        self.current = number
        self._update_range()
        self.verticalScrollBar().setValue(max(number - self.ring.first - self._page_rows() // 2, 0))
        self.viewport().update()
        if self.ring.first <= number < self.ring.end:
            self.setAccessibleDescription(self.ring.line(number).text)

    def zoom(self, steps: int) -> None:
        """Larger or smaller letters; 0 goes back."""
        self._zoom = 0 if steps == 0 else max(-4, min(self._zoom + steps, 12))
        self._restyle()

    # --- geometry --------------------------------------------------------------------------------------------------

    def _restyle(self) -> None:
        font = theme.mono()
        font.setPointSizeF(font.pointSizeF() + self._zoom)
        # Kept apart from the widget's own font, which the style sheet decides.
        self._font = font
        metrics = QFontMetricsF(font)
        self._cell = metrics.horizontalAdvance("M")
        self._row = max(int(metrics.height() * 1.22), 12)
        self._ascent = int(metrics.ascent() + metrics.height() * 0.11)
        self._update_range()
        self.viewport().update()

    def _page_rows(self) -> int:
        return max((self.viewport().height() - _MARGIN) // self._row, 1)

    def _columns(self) -> int:
        return max(int((self.viewport().width() - 2 * _MARGIN) / self._cell), 8)

    def _prefix(self, line: Line) -> str:
        return f"{line.stamp[:23].replace('T', ' '):<23}  " if self.stamps and line.stamp else ""

    def _height(self, number: int) -> int:
        """Rows that a line takes."""
        if not self.wrap:
            return 1
        line = self.ring.line(number)
        length = len(line.text) + (25 if self.stamps and line.stamp else 0)
        return max(-(-length // self._columns()), 1)

    def _last_top(self) -> int:
        """The line that is on top when the end is in sight."""
        room, number = self._page_rows(), self.ring.end
        while number > self.ring.first:
            room -= self._height(number - 1)
            if room < 0:
                break
            number -= 1
        return min(number, max(self.ring.end - 1, self.ring.first))

    def _update_range(self) -> None:
        bar = self.verticalScrollBar()
        top = self._known_first + bar.value()
        self._moving = True
        last = self._last_top() - self.ring.first
        bar.setRange(0, max(last, 0))
        bar.setPageStep(self._page_rows())
        if self.following:
            bar.setValue(bar.maximum())
        else:
            # Lines keep their numbers when old ones fall out: stay with the line, not with the bar's value.
            bar.setValue(max(top - self.ring.first, 0))
        self._known_first = self.ring.first
        self._moving = False
        side = self.horizontalScrollBar()
        if self.wrap:
            side.setRange(0, 0)
        else:
            longest = max((len(self.ring.line(n).text) for n in self._visible()), default=0) + 25 * self.stamps
            side.setRange(0, max(longest - self._columns(), side.value() if longest else 0))
            side.setPageStep(self._columns())

    def _visible(self) -> range:
        top = self.ring.first + self.verticalScrollBar().value()
        return range(max(top, self.ring.first), min(top + self._page_rows() + 1, self.ring.end))

    def _scrolled(self, value: int) -> None:
        if not self._moving:
            self.set_following(value >= self.verticalScrollBar().maximum())
        self.viewport().update()

    # --- painting --------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        self.paints += 1
        colours = theme.current()
        painter = QPainter(self.viewport())
        painter.setFont(self._font)
        painter.fillRect(self.viewport().rect(), QColor(colours.code))
        y = _MARGIN // 2
        top = self.ring.first + self.verticalScrollBar().value()
        if self.following and self.wrap and self.verticalScrollBar().maximum() > 0:
            # The end is at the bottom edge: the first line may be cut at its top.
            y = min(y, self.viewport().height() - _MARGIN // 2 - sum(
                self._height(n) for n in range(max(top, self.ring.first), self.ring.end)) * self._row)
        for number in range(max(top, self.ring.first), self.ring.end):
            if y > self.viewport().height():
                break
            y = self._paint_line(painter, number, y)
        if not len(self.ring):
            painter.setPen(QColor(colours.muted))
            painter.drawText(self.viewport().rect(), Qt.AlignmentFlag.AlignCenter, "Nothing has been printed yet.")
        painter.end()

    def _paint_line(self, painter: QPainter, number: int, y: int) -> int:
        colours = theme.current()
        line = self.ring.line(number)
        prefix = self._prefix(line)
        full = prefix + line.text
        columns = self._columns() if self.wrap else max(len(full), 1)
        rows = max(-(-len(full) // columns), 1) if self.wrap else 1
        area = QRect(0, y, self.viewport().width(), rows * self._row)
        if self._selected and self._selected[0] <= number <= self._selected[1]:
            painter.fillRect(area, QColor(colours.chosen))
        elif number == self.current:
            painter.fillRect(area, QColor(colours.hover))
        if line.stderr:
            painter.fillRect(0, y, 3, area.height(), QColor(colours.bad))
        left = _MARGIN - (0 if self.wrap else int(self.horizontalScrollBar().value() * self._cell))
        hits = [(start + len(prefix), end + len(prefix)) for start, end in self.ring.spans(line.text)]
        for row in range(rows):
            piece = full[row * columns:(row + 1) * columns]
            base = y + row * self._row
            self._paint_hits(painter, hits, (row * columns, len(piece)), QPoint(left, base), number == self.current)
            faded = max(min(len(prefix) - row * columns, len(piece)), 0)
            if faded:
                painter.setPen(QColor(colours.muted))
                painter.drawText(left, base + self._ascent, piece[:faded])
            painter.setPen(QColor(colours.text))
            painter.drawText(QPoint(left + int(faded * self._cell), base + self._ascent), piece[faded:])
        return y + rows * self._row

    def _paint_hits(self, painter: QPainter, hits: list[tuple[int, int]], part: tuple[int, int], at: QPoint,
                    current: bool) -> None:
        offset, length = part
        colour = QColor("#c98a00" if theme.current().dark else "#ffd24d")
        colour.setAlpha(255 if current else 150)
        if theme.current().dark:
            colour.setAlpha(150 if current else 90)
        for start, end in hits:
            first, last = max(start - offset, 0), min(end - offset, length)
            if first < last:
                painter.fillRect(int(at.x() + first * self._cell), at.y() + 1, int((last - first) * self._cell) + 1,
                                 self._row - 2, colour)

    # --- hands -----------------------------------------------------------------------------------------------------

    def _line_at(self, y: float) -> int:
        number, edge = self.ring.first + self.verticalScrollBar().value(), _MARGIN // 2
        while number < self.ring.end - 1:
            edge += self._height(number) * self._row
            if y < edge:
                break
            number += 1
        return number

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and len(self.ring):
            self._anchor = self._line_at(event.position().y())
            self._selected = None
            self.set_following(False)
            self.viewport().update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton and self._anchor >= 0 and len(self.ring):
            here = self._line_at(event.position().y())
            self._selected = (min(here, self._anchor), max(here, self._anchor))
            self.viewport().update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if len(self.ring):
            self._anchor = self._line_at(event.position().y())
            self._selected = (self._anchor, self._anchor)
            self.viewport().update()

    def wheelEvent(self, event: QWheelEvent) -> None:
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom(1 if event.angleDelta().y() > 0 else -1)
        else:
            super().wheelEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy()
        elif event.matches(QKeySequence.StandardKey.SelectAll):
            self._selected = (self.ring.first, self.ring.end - 1)
            self.viewport().update()
        elif event.matches(QKeySequence.StandardKey.ZoomIn):
            self.zoom(1)
        elif event.matches(QKeySequence.StandardKey.ZoomOut):
            self.zoom(-1)
        elif key == Qt.Key.Key_0 and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom(0)
        elif key == Qt.Key.Key_End:
            self.set_following(True)
        elif key == Qt.Key.Key_Home:
            self.verticalScrollBar().setValue(0)
        else:
            super().keyPressEvent(event)

    def copy(self) -> None:
        """The chosen lines into the clipboard."""
        if self._selected:
            QGuiApplication.clipboard().setText(self.ring.text(*self._selected, self.stamps))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._update_range()
