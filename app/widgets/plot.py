"""A quiet plot of what was: one or two lines over time, the latest values in words, a value for the mouse."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app import theme
from app.models.usage import pieces

_TONES = ("accentText", "warn")


class Plot(QWidget):
    """*names*: one a line, "" for a single one. *floor*: the least height of the axis; it grows by doubling.

    Values are added with their times; `span` seconds are shown, up to now.
    """

    def __init__(self, title: str, words: Callable[[float], str], *, floor: float, names: Sequence[str] = ("",),
                 span: float = 600) -> None:
        super().__init__()
        self.title, self.words, self.floor, self.names, self.span = title, words, floor, names, span
        self.times: list[float] = []
        self.values: list[list[float]] = [[] for _ in names]
        self._mouse = -1.0
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(120)
        theme.state().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(420, 190)

    def set_rows(self, times: Sequence[float], *lines: Sequence[float]) -> None:
        """Show these values instead of what was shown."""
        self.times = list(times)
        self.values = [list(one) for one in lines]
        self._told()

    def add(self, at: float, *values: float) -> None:
        """One more moment, later than all before it."""
        if self.times and at <= self.times[-1]:
            return
        self.times.append(at)
        for line, value in zip(self.values, values, strict=True):
            line.append(value)
        if self.times[0] < at - self.span * 1.2:
            old = bisect.bisect_left(self.times, at - self.span)
            del self.times[:old]
            for line in self.values:
                del line[:old]
        self._told()

    def clear(self) -> None:
        """Forget all."""
        self.set_rows([], *([] for _ in self.names))

    def _told(self) -> None:
        self.setAccessibleName(f"{self.title}: {self.latest()}")
        self.update()

    def latest(self) -> str:
        """The newest values in words."""
        return self._said([line[-1] for line in self.values]) if self.times else "waiting for the first sample"

    def _said(self, values: Sequence[float]) -> str:
        return "   ".join(f"{name} {self.words(value)}".strip() for name, value in zip(self.names, values, strict=True))

    def top(self) -> float:
        """The value at the upper edge: a round step above the largest."""
        largest, step = max((max(line, default=0.0) for line in self.values), default=0.0), self.floor
        while step < largest * 1.05:
            step *= 2
        return step

    # --- painting ---------------------------------------------------------------------------------------------------

    def _area(self) -> QRectF:
        line = self.fontMetrics().height()
        return QRectF(1, line * 2 + 6, self.width() - 2, self.height() - line * 3 - 12)

    def paintEvent(self, event: QPaintEvent) -> None:
        colours = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line, area = painter.fontMetrics().height(), self._area()
        self._paint_heading(painter, line)
        painter.setPen(QPen(QColor(colours.line), 1))
        for part in range(5):
            y = area.bottom() - area.height() * part / 4
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        painter.setPen(QColor(colours.muted))
        under = QRectF(0, area.bottom() + 3, self.width(), line)
        hours = self.span / 3600
        painter.drawText(under, Qt.AlignmentFlag.AlignLeft,
                         f"{hours:.0f} hours ago" if hours >= 1 else f"{self.span / 60:.0f} minutes ago")
        painter.drawText(under, Qt.AlignmentFlag.AlignRight, "now")
        end = max(time.time(), self.times[-1] if self.times else 0.0)
        for number in range(len(self.values)):
            self._paint_line(painter, area, number, end)
        if self._mouse >= 0 and self.times:
            painter.setPen(QPen(QColor(colours.edge), 1))
            painter.drawLine(QPointF(self._mouse, area.top()), QPointF(self._mouse, area.bottom()))
        painter.end()

    def _paint_heading(self, painter: QPainter, line: int) -> None:
        colours = theme.current()
        font = painter.font()
        painter.setPen(QColor(colours.muted))
        painter.drawText(QRectF(0, 0, self.width(), line), Qt.AlignmentFlag.AlignLeft, self.title)
        painter.drawText(QRectF(0, line + 1, self.width(), line), Qt.AlignmentFlag.AlignRight, self.words(self.top()))
        font.setBold(True)
        painter.setFont(font)
        if len(self.names) == 1 or not self.times:
            painter.setPen(QColor(colours.text))
            painter.drawText(QRectF(0, line + 1, self.width(), line), Qt.AlignmentFlag.AlignLeft, self.latest())
        else:
            left = 0.0
            for number, name in enumerate(self.names):
                text = f"{name} {self.words(self.values[number][-1])}"
                painter.setPen(QColor(getattr(colours, _TONES[number])))
                painter.drawText(QRectF(left, line + 1, self.width(), line), Qt.AlignmentFlag.AlignLeft, text)
                left += painter.fontMetrics().horizontalAdvance(text) + 16
        font.setBold(False)
        painter.setFont(font)

    def _paint_line(self, painter: QPainter, area: QRectF, number: int, end: float) -> None:
        colour = QColor(getattr(theme.current(), _TONES[number]))
        top, values = self.top(), self.values[number]
        first = max(bisect.bisect_left(self.times, end - self.span) - 1, 0)
        shown = self.times[first:]
        painter.save()
        painter.setClipRect(area.adjusted(0, -2, 0, 1))
        for piece in pieces(shown, max(self.span / 40, 15)):
            points = QPolygonF([QPointF(area.right() - (end - shown[place]) / self.span * area.width(),
                                        area.bottom() - area.height() * min(values[first + place] / top, 1.0))
                                for place in piece])
            if len(self.values) == 1 and len(piece) > 1:
                self._shade(painter, area, points, colour)
            painter.setPen(QPen(colour, 1.6))
            painter.drawPolyline(points) if len(piece) > 1 else painter.drawPoint(points.first())
        painter.restore()

    @staticmethod
    def _shade(painter: QPainter, area: QRectF, points: QPolygonF, colour: QColor) -> None:
        path = QPainterPath()
        path.addPolygon(points)
        path.lineTo(points.last().x(), area.bottom())
        path.lineTo(points.first().x(), area.bottom())
        path.closeSubpath()
        shade, faint = QLinearGradient(0, area.top(), 0, area.bottom()), QColor(colour)
        faint.setAlpha(70)
        shade.setColorAt(0, faint)
        faint.setAlpha(8)
        shade.setColorAt(1, faint)
        painter.fillPath(path, shade)

    # --- the mouse --------------------------------------------------------------------------------------------------

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        area, x = self._area(), event.position().x()
        self._mouse = min(max(x, area.left()), area.right())
        if self.times:
            end = max(time.time(), self.times[-1])
            at = end - (area.right() - self._mouse) / area.width() * self.span
            place = min(max(bisect.bisect_left(self.times, at), 0), len(self.times) - 1)
            when = time.strftime("%H:%M:%S", time.localtime(self.times[place]))
            if abs(self.times[place] - at) < max(self.span / 40, 15):
                said = self._said([line[place] for line in self.values])
                QToolTip.showText(event.globalPosition().toPoint(), f"{when}   {said}", self)
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self._mouse = -1.0
        self.update()
