"""Sizes as tiles. Hatched ones are needed by nobody."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QBrush, QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import theme
from app.models.disk import KINDS, Part, tiles
from app.models.rows import size_text
from app.widgets.netmap import HUES_DARK, HUES_LIGHT

_GAP = 3


class TreeMap(QWidget):
    """Shows parts; `opened` tells which one was double-clicked."""

    opened = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []
        self.over: Part | None = None
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(180)
        self.setAccessibleName("Disk use")
        theme.state().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(600, 360)

    def show_parts(self, parts: Sequence[Part]) -> None:
        """Show these."""
        self.parts = sorted(parts, key=lambda one: -one.size)
        self.over = None
        self.setAccessibleDescription(", ".join(_said(one) for one in self.parts[:12]))
        self.update()

    def hue(self, kind: str) -> QColor:
        """The colour of a kind."""
        hues = HUES_DARK if theme.current().dark else HUES_LIGHT
        return QColor(hues[[name for name, _ in KINDS].index(kind) % len(hues)])

    def _tiles(self) -> list[tuple[Part, QRectF]]:
        return [(one.part, QRectF(*one.area).adjusted(0, 0, -_GAP, -_GAP))
                for one in tiles(self.parts, self.width() + _GAP, self.height() + _GAP)]

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        colours = theme.current()
        for part, area in self._tiles():
            hue = self.hue(part.kind)
            ground = QColor(hue)
            ground.setAlpha(110 if part is self.over else 56)
            painter.setPen(QPen(hue, 2 if part is self.over else 1))
            painter.setBrush(ground)
            painter.drawRoundedRect(area.adjusted(0.5, 0.5, -0.5, -0.5), 5, 5)
            if part.free:
                line = QColor(hue)
                line.setAlpha(70)
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QBrush(line, Qt.BrushStyle.BDiagPattern))
                painter.drawRoundedRect(area.adjusted(1, 1, -1, -1), 5, 5)
            if area.width() > 54 and area.height() > 22:
                self._paint_words(painter, part, area, QColor(colours.text))
        painter.end()

    @staticmethod
    def _paint_words(painter: QPainter, part: Part, area: QRectF, ink: QColor) -> None:
        painter.setPen(ink)
        metrics = painter.fontMetrics()
        room = area.adjusted(7, 4, -6, -4)
        name = metrics.elidedText(part.name, Qt.TextElideMode.ElideMiddle, int(room.width()))
        painter.drawText(room, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop), name)
        if area.height() > 42:
            painter.drawText(room.adjusted(0, metrics.height() + 1, 0, 0),
                             int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop), size_text(part.size))

    def _at(self, point: QPointF) -> Part | None:
        return next((part for part, area in self._tiles() if area.contains(point)), None)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        part = self._at(event.position())
        if part is not self.over:
            self.over = part
            self.setToolTip(_said(part) if part else "")
            self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self.over = None
        self.update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if (part := self._at(event.position())) is not None:
            self.opened.emit(part)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        keys = Qt.Key
        step = {keys.Key_Right: 1, keys.Key_Down: 1, keys.Key_Left: -1, keys.Key_Up: -1}.get(keys(event.key()))
        if step is not None and self.parts:
            here = self.parts.index(self.over) + step if self.over in self.parts else 0
            self.over = self.parts[here % len(self.parts)]
            self.setAccessibleDescription(_said(self.over))
            self.update()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.over is not None:
            self.opened.emit(self.over)
        else:
            super().keyPressEvent(event)


def _said(part: Part) -> str:
    needed = ", not needed by anything" if part.free else ""
    return f"{part.name}\n{dict(KINDS)[part.kind]}, {size_text(part.size)}{needed}"
