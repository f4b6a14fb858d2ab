"""The map of networks as a picture to touch: bars are networks, cards are containers; a card dropped on a bar connects.

What the mouse does here the lists and menus do as well; the map takes the keyboard by Tab, arrows and the menu key.
"""

from __future__ import annotations

from PySide6.QtCore import QPoint, QPointF, QRectF, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFont,
    QFontMetricsF,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QApplication, QWidget

from app import theme
from app.models.netmap import Bar, Card, NetMap
from app.models.rows import PortLink, state_text

#: Hues that people who see red and green alike can tell apart; each has a name beside it anyway.
HUES_LIGHT = ("#0b66c3", "#a35200", "#00766c", "#8a3ea8", "#b0306a", "#5a6b00")
HUES_DARK = ("#5aa5f5", "#e8a04a", "#3fbfae", "#c58be0", "#ee7fae", "#b3c24a")
_COLUMN, _CARD_H, _BAR_H = 176, 74, 30
_GAP, _MARGIN = 34, 12
#: The height of a network's row with and without containers that hang below it.
_FULL, _BARE = _BAR_H + _GAP + _CARD_H + 30, _BAR_H + 24


class NetMapView(QAbstractScrollArea):
    """Shows a NetMap. `connect_wanted`: a container's ID and a network's; `menu_wanted`: what, its ID, where."""

    connect_wanted = Signal(str, str)
    opened = Signal(str)
    linked = Signal(str)
    menu_wanted = Signal(str, str, QPoint)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.map = NetMap((), ())
        self._tops: list[int] = []
        self._columns = 0
        self.current = ""
        self.over: Bar | None = None
        self._pressed: tuple[Card, QPointF] | None = None
        self._dragged: QPointF | None = None
        self._waiting: NetMap | None = None
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Map of networks")
        self.setMouseTracking(True)
        self.viewport().setMouseTracking(True)
        theme.state().changed.connect(self.viewport().update)

    def show_map(self, fresh: NetMap) -> None:
        """Show *fresh*; while something is being dragged, when it has been let go."""
        if self._dragged is not None:
            self._waiting = fresh
            return
        if fresh == self.map:
            return
        self.map = fresh
        self._columns = fresh.columns
        if not any(card.container.id == self.current for card in fresh.cards):
            self.current = ""
        self._update_range()
        self.viewport().update()

    # --- geometry ---------------------------------------------------------------------------------------------------

    def _size(self) -> tuple[float, float]:
        return (_MARGIN * 2 + self._columns * _COLUMN + 10, _MARGIN * 2 + sum(self._heights()))

    def _heights(self) -> list[int]:
        full = {card.joints[0].bar for card in self.map.cards}
        return [_FULL if bar.place in full else _BARE for bar in self.map.bars]

    def _update_range(self) -> None:
        heights = self._heights()
        self._tops = [_MARGIN + sum(heights[:place]) for place in range(len(heights))]
        width, height = self._size()
        view = self.viewport()
        for bar, whole, part in ((self.horizontalScrollBar(), width, view.width()),
                                 (self.verticalScrollBar(), height, view.height())):
            bar.setRange(0, max(int(whole - part), 0))
            bar.setPageStep(part)
            bar.setSingleStep(40)

    def resizeEvent(self, event: object) -> None:
        self._update_range()

    def _offset(self) -> QPointF:
        return QPointF(self.horizontalScrollBar().value(), self.verticalScrollBar().value())

    def bar_area(self, bar: Bar) -> QRectF:
        """Where a network's bar is, in the view's coordinates."""
        width = max(self._columns * _COLUMN + 10, self.viewport().width() - 2 * _MARGIN)
        return QRectF(_MARGIN, self._tops[bar.place], width, _BAR_H).translated(-self._offset())

    def card_area(self, card: Card) -> QRectF:
        """Where a container's card is."""
        top = self._tops[card.joints[0].bar] + _BAR_H + _GAP
        left = _MARGIN + 12 + card.column * _COLUMN
        return QRectF(left, top, _COLUMN - 14, _CARD_H).translated(-self._offset())

    def _reach(self, card: Card) -> QRectF:
        """All that is painted of a card: from its first network's bar to its last one's."""
        area = self.card_area(card)
        bottom = max(area.bottom(), self._tops[card.joints[-1].bar] - self._offset().y())
        return QRectF(area.left(), area.top() - _GAP, area.width() + 130, bottom - area.top() + _GAP)

    def _card_at(self, point: QPointF) -> Card | None:
        return next((card for card in self.map.cards if self.card_area(card).contains(point)), None)

    def _bar_at(self, point: QPointF, reach: float = 0) -> Bar | None:
        """The bar at *point*; *reach*: how far below it still counts, so that one need not aim well while dragging."""
        return next((bar for bar in self.map.bars if self.bar_area(bar).adjusted(0, -4, 0, reach).contains(point)),
                    None)

    def _ports(self, card: Card) -> list[tuple[PortLink, QRectF]]:
        area = self.card_area(card)
        metrics = QFontMetricsF(self._small())
        left, found = area.left() + 10, []
        for link in card.container.ports:
            text = str(link.public)
            width = metrics.horizontalAdvance(text) + 10
            if left + width > area.right() - 6:
                break
            found.append((link, QRectF(left, area.bottom() - 24, width, 18)))
            left += width + 5
        return found

    def _small(self) -> QFont:
        font = QFont(QApplication.font())
        font.setPointSizeF(max(font.pointSizeF() - 1, 7))
        return font

    # --- painting ---------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.viewport().rect(), QColor(theme.current().surface))
        for bar in self.map.bars:
            self._paint_bar(painter, bar)
        seen = [card for card in self.map.cards if self._reach(card).intersects(QRectF(self.viewport().rect()))]
        for card in seen:
            self._paint_joints(painter, card)
        for card in seen:
            self._paint_card(painter, card, self.card_area(card))
        if self._dragged is not None and self._pressed is not None:
            card, grip = self._pressed
            ghost = self.card_area(card)
            ghost.moveTopLeft(self._dragged - grip)
            painter.setOpacity(0.75)
            self._paint_card(painter, card, ghost)
        painter.end()

    def hue(self, place: int) -> QColor:
        """The colour of the network at *place*."""
        hues = HUES_DARK if theme.current().dark else HUES_LIGHT
        return QColor(hues[place % len(hues)])

    def _paint_bar(self, painter: QPainter, bar: Bar) -> None:
        area, hue, colours = self.bar_area(bar), self.hue(bar.place), theme.current()
        ground = QColor(hue)
        ground.setAlpha(90 if self.over == bar else 34)
        painter.setPen(QPen(hue, 2 if self.over == bar else 1))
        painter.setBrush(ground)
        painter.drawRoundedRect(area.adjusted(0.5, 0.5, -0.5, -0.5), 8, 8)
        font = QFont(QApplication.font())
        font.setWeight(QFont.Weight.DemiBold)
        painter.setFont(font)
        painter.setPen(QColor(colours.text))
        left = max(area.left(), 0.0) + 12
        metrics = QFontMetricsF(font)
        name = metrics.elidedText(bar.network.name, Qt.TextElideMode.ElideRight, 260)
        line = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(QRectF(left, area.top(), 270, area.height()), line, name)
        painter.setFont(self._small())
        painter.setPen(QColor(colours.text))
        facts = [bar.network.driver, *bar.network.subnets]
        if bar.network.internal:
            facts.append("internal: no way out")
        painter.drawText(QRectF(left + metrics.horizontalAdvance(name) + 14, area.top(), 460, area.height()), line,
                         "  ·  ".join(facts))

    def _paint_joints(self, painter: QPainter, card: Card) -> None:
        area = self.card_area(card)
        for number, joint in enumerate(card.joints):
            bar = self.bar_area(self.map.bars[joint.bar])
            hue = self.hue(joint.bar)
            # The first network is above the card, the others below it: each line keeps its own place.
            x = area.left() + 18 + (number * 14 if number else 0)
            start, end = (bar.bottom(), area.top()) if number == 0 else (area.bottom(), bar.top())
            style = Qt.PenStyle.SolidLine if card.container.running else Qt.PenStyle.DashLine
            painter.setPen(QPen(hue, 1.8, style))
            painter.drawLine(QPointF(x, start), QPointF(x, end))
            painter.setBrush(hue)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.drawEllipse(QPointF(x, bar.bottom() if number == 0 else bar.top()), 4, 4)
            if joint.address:
                painter.setFont(self._small())
                painter.setPen(QColor(theme.current().muted))
                y = area.top() - 17 if number == 0 else bar.top() - 19
                painter.drawText(QRectF(x + 7, y, 130, 16),
                                 int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), joint.address)

    def _paint_card(self, painter: QPainter, card: Card, area: QRectF) -> None:
        colours, row = theme.current(), card.container
        chosen = row.id == self.current
        painter.setPen(QPen(QColor(colours.accentText if chosen else colours.edge), 2 if chosen else 1))
        painter.setBrush(QColor(colours.chosen if chosen else colours.raised))
        painter.drawRoundedRect(area, 9, 9)
        word, tone = state_text(row)
        colour = QColor(getattr(colours, tone))
        painter.setPen(QPen(colour, 1.5))
        painter.setBrush(colour if tone != "idle" else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(QPointF(area.left() + 15, area.top() + 18), 4, 4)
        font = QFont(QApplication.font())
        font.setWeight(QFont.Weight.DemiBold)
        painter.setFont(font)
        painter.setPen(QColor(colours.text))
        metrics = QFontMetricsF(font)
        line = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(QRectF(area.left() + 26, area.top() + 7, area.width() - 32, 22), line,
                         metrics.elidedText(row.name, Qt.TextElideMode.ElideRight, area.width() - 34))
        painter.setFont(self._small())
        painter.setPen(QColor(colours.muted))
        small = QFontMetricsF(self._small())
        painter.drawText(QRectF(area.left() + 26, area.top() + 27, area.width() - 32, 18), line,
                         small.elidedText(f"{word} · {row.image}", Qt.TextElideMode.ElideMiddle, area.width() - 34))
        if area == self.card_area(card):
            self._paint_ports(painter, card)

    def _paint_ports(self, painter: QPainter, card: Card) -> None:
        colours = theme.current()
        for link, place in self._ports(card):
            painter.setPen(QPen(QColor(colours.line), 1))
            painter.setBrush(QColor(colours.infoTint))
            painter.drawRoundedRect(place, 5, 5)
            painter.setPen(QColor(colours.accentText))
            painter.drawText(place, int(Qt.AlignmentFlag.AlignCenter), str(link.public))

    # --- hands --------------------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            return
        card = self._card_at(event.position())
        self.current = card.container.id if card else ""
        if card is not None:
            self._pressed = (card, event.position() - self.card_area(card).topLeft())
        self.viewport().update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        point = event.position()
        if self._pressed is not None and event.buttons() & Qt.MouseButton.LeftButton:
            card, grip = self._pressed
            away = point - self.card_area(card).topLeft() - grip
            if self._dragged is not None or away.manhattanLength() >= QApplication.startDragDistance():
                self._dragged = point
                self.over = self._target(point)
                shapes = Qt.CursorShape
                self.viewport().setCursor(shapes.DragCopyCursor if self.over else shapes.ClosedHandCursor)
                self.viewport().update()
            return
        under = self._card_at(point)
        hand = Qt.CursorShape.PointingHandCursor
        self.viewport().setCursor(hand if self._port_at(point) else
                                  Qt.CursorShape.OpenHandCursor if under else Qt.CursorShape.ArrowCursor)
        self.viewport().setToolTip(self._tip(under, point))

    def _tip(self, card: Card | None, point: QPointF) -> str:
        port = self._port_at(point)
        if port is not None:
            return f"Open {port.url}" if port.url else port.text
        if card is None:
            return ""
        lines = [card.container.name, card.container.status]
        lines += [f"{self.map.bars[one.bar].network.name}: {one.address or 'no address now'}" for one in card.joints]
        return "\n".join([*lines, "Drag it onto a network to connect it"])

    def _port_at(self, point: QPointF) -> PortLink | None:
        card = self._card_at(point)
        return next((link for link, place in self._ports(card) if place.contains(point)), None) if card else None

    def _target(self, point: QPointF) -> Bar | None:
        """The network on which the dragged card would be connected by letting go."""
        bar = self._bar_at(point, reach=_GAP)
        if bar is None or self._pressed is None or not bar.network.takes_more:
            return None
        return None if any(joint.bar == bar.place for joint in self._pressed[0].joints) else bar

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        pressed, target, dragged = self._pressed, self.over, self._dragged
        self._pressed, self._dragged, self.over = None, None, None
        if pressed is not None and dragged is None and (link := self._port_at(event.position())) and link.url:
            self.linked.emit(link.url)
        elif pressed is not None and target is not None:
            self.connect_wanted.emit(pressed[0].container.id, target.network.id)
        if self._waiting is not None:
            fresh, self._waiting = self._waiting, None
            self.show_map(fresh)
        self.viewport().unsetCursor()
        self.viewport().update()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if (card := self._card_at(event.position())) is not None:
            self.opened.emit(card.container.id)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        point = QPointF(event.pos())
        card = self._card_at(point)
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            card = next((one for one in self.map.cards if one.container.id == self.current), None)
        if card is not None:
            self.current = card.container.id
            self.viewport().update()
            place = event.globalPos() if event.reason() == QContextMenuEvent.Reason.Mouse else (
                self.viewport().mapToGlobal(self.card_area(card).center().toPoint()))
            self.menu_wanted.emit("container", card.container.id, place)
        elif (bar := self._bar_at(point)) is not None:
            self.menu_wanted.emit("network", bar.network.id, event.globalPos())

    def wheelEvent(self, event: QWheelEvent) -> None:
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.horizontalScrollBar().setValue(self.horizontalScrollBar().value() - event.angleDelta().y())
        else:
            super().wheelEvent(event)

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        self.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        keys = [card.container.id for card in self.map.cards]
        step = {Qt.Key.Key_Right: 1, Qt.Key.Key_Down: 1, Qt.Key.Key_Left: -1, Qt.Key.Key_Up: -1}.get(
            Qt.Key(event.key()))
        if step is not None and keys:
            here = keys.index(self.current) + step if self.current in keys else 0
            self.current = keys[here % len(keys)]
            card = self.map.cards[here % len(keys)]
            self.setAccessibleDescription(self._tip(card, QPointF(-1, -1)))
            self._bring(self.card_area(card))
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.current:
            self.opened.emit(self.current)
        else:
            super().keyPressEvent(event)

    def _bring(self, area: QRectF) -> None:
        """Scroll until *area* can be seen."""
        view = self.viewport().rect()
        side, down = self.horizontalScrollBar(), self.verticalScrollBar()
        side.setValue(side.value() + int(max(area.right() + 8 - view.width(), 0) or min(area.left() - 8, 0)))
        above = area.top() - _BAR_H - _GAP
        down.setValue(down.value() + int(max(area.bottom() + 8 - view.height(), 0) or min(above, 0)))
        self.viewport().update()
