"""A quiet plot of the last minutes: one line, a filled ground, the latest value in words."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPainterPath, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme


class Plot(QWidget):
    """Values over time, newest at the right. *ceiling* keeps the scale calm: the axis ends at the next step above."""

    def __init__(self, title: str, words: Callable[[float], str], *, floor: float, seconds: int = 120) -> None:
        super().__init__()
        self.title, self.words, self.floor, self.seconds = title, words, floor, seconds
        self.values: deque[float] = deque(maxlen=seconds + 1)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(120)
        theme.state().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(420, 190)

    def add(self, value: float) -> None:
        """One more sample."""
        self.values.append(value)
        self.setAccessibleName(f"{self.title}: {self.words(value)}")
        self.update()

    def clear(self) -> None:
        """Forget the samples."""
        self.values.clear()
        self.update()

    def top(self) -> float:
        """The value at the upper edge: a round step above the largest."""
        largest, step = max(self.values, default=0.0), self.floor
        while step < largest * 1.05:
            step *= 2
        return step

    def paintEvent(self, event: QPaintEvent) -> None:
        colours = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line = painter.fontMetrics().height()
        area = QRectF(1, line * 2 + 6, self.width() - 2, self.height() - line * 3 - 12)
        self._paint_heading(painter, line)
        painter.setPen(QPen(QColor(colours.line), 1))
        for part in range(5):
            y = area.bottom() - area.height() * part / 4
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        painter.setPen(QColor(colours.muted))
        under = QRectF(0, area.bottom() + 3, self.width(), line)
        painter.drawText(under, Qt.AlignmentFlag.AlignLeft, f"{self.seconds // 60} minutes ago")
        painter.drawText(under, Qt.AlignmentFlag.AlignRight, "now")
        if len(self.values) > 1:
            self._paint_line(painter, area)
        painter.end()

    def _paint_heading(self, painter: QPainter, line: int) -> None:
        colours = theme.current()
        font = painter.font()
        painter.setPen(QColor(colours.muted))
        painter.drawText(QRectF(0, 0, self.width(), line), Qt.AlignmentFlag.AlignLeft, self.title)
        painter.drawText(QRectF(0, line + 1, self.width(), line), Qt.AlignmentFlag.AlignRight, self.words(self.top()))
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(QColor(colours.text))
        painter.drawText(QRectF(0, line + 1, self.width(), line), Qt.AlignmentFlag.AlignLeft,
                         self.words(self.values[-1]) if self.values else "waiting for the first sample")
        font.setBold(False)
        painter.setFont(font)

    def _paint_line(self, painter: QPainter, area: QRectF) -> None:
        accent = QColor(theme.current().accentText)
        top = self.top()
        step = area.width() / self.seconds
        start = area.right() - step * (len(self.values) - 1)
        points = QPolygonF([QPointF(start + step * n, area.bottom() - area.height() * min(v / top, 1.0))
                            for n, v in enumerate(self.values)])
        path = QPainterPath()
        path.addPolygon(points)
        path.lineTo(area.right(), area.bottom())
        path.lineTo(start, area.bottom())
        path.closeSubpath()
        shade = QLinearGradient(0, area.top(), 0, area.bottom())
        faint = QColor(accent)
        faint.setAlpha(70)
        shade.setColorAt(0, faint)
        faint.setAlpha(8)
        shade.setColorAt(1, faint)
        painter.fillPath(path, shade)
        painter.setPen(QPen(accent, 1.6))
        painter.drawPolyline(points)
