"""A terminal as a widget: pyte keeps the screen, this paints it and sends what is typed. No I/O of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pyte
from PySide6.QtCore import QEvent, QRect, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFocusEvent,
    QFont,
    QFontMetricsF,
    QGuiApplication,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QWidget
from pyte.screens import Char

from app import theme

SCROLLBACK = 5000
_GROUND, _INK = "#14171b", "#dfe4ea"
_PAD = 8
# Private modes as pyte numbers them (shifted by 5).
_CURSOR_KEYS, _BRACKETED_PASTE, _ALTERNATE = 1 << 5, 2004 << 5, (1049 << 5, 1047 << 5, 47 << 5)
_ARROWS = {Qt.Key.Key_Up: b"A", Qt.Key.Key_Down: b"B", Qt.Key.Key_Right: b"C", Qt.Key.Key_Left: b"D",
           Qt.Key.Key_Home: b"H", Qt.Key.Key_End: b"F"}
_KEYS = {  # what terminals of the xterm family send
         Qt.Key.Key_Return: b"\r", Qt.Key.Key_Enter: b"\r", Qt.Key.Key_Backspace: b"\x7f", Qt.Key.Key_Tab: b"\t",
         Qt.Key.Key_Backtab: b"\x1b[Z", Qt.Key.Key_Escape: b"\x1b", Qt.Key.Key_Delete: b"\x1b[3~",
         Qt.Key.Key_Insert: b"\x1b[2~", Qt.Key.Key_PageUp: b"\x1b[5~", Qt.Key.Key_PageDown: b"\x1b[6~",
         Qt.Key.Key_F1: b"\x1bOP", Qt.Key.Key_F2: b"\x1bOQ", Qt.Key.Key_F3: b"\x1bOR", Qt.Key.Key_F4: b"\x1bOS",
         Qt.Key.Key_F5: b"\x1b[15~", Qt.Key.Key_F6: b"\x1b[17~", Qt.Key.Key_F7: b"\x1b[18~",
         Qt.Key.Key_F8: b"\x1b[19~", Qt.Key.Key_F9: b"\x1b[20~", Qt.Key.Key_F10: b"\x1b[21~",
         Qt.Key.Key_F11: b"\x1b[23~",
         Qt.Key.Key_F12: b"\x1b[24~"}


class Screen(pyte.Screen):  # type: ignore[misc]  # pyte has no types
    """pyte's screen with what it lacks: lines that scrolled off, and the second screen of full-screen programs."""

    def __init__(self, columns: int, lines: int, answer: Callable[[str], None]) -> None:
        self.past: deque[dict[int, Any]] = deque(maxlen=SCROLLBACK)
        self.pushed = 0
        self._answer = answer
        self._other: tuple[dict[int, dict[int, Any]], int, int] | None = None
        super().__init__(columns, lines)

    def index(self) -> None:
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom and top == 0 and self._other is None:
            self.past.append(dict(self.buffer[0]))
            self.pushed += 1
        super().index()

    def set_mode(self, *modes: int, **options: bool) -> None:
        super().set_mode(*modes, **options)
        if options.get("private") and self._other is None and any(one << 5 in _ALTERNATE for one in modes):
            self._other = ({y: dict(row) for y, row in self.buffer.items()}, self.cursor.x, self.cursor.y)
            self.erase_in_display(2)

    def reset_mode(self, *modes: int, **options: bool) -> None:
        super().reset_mode(*modes, **options)
        if options.get("private") and self._other is not None and any(one << 5 in _ALTERNATE for one in modes):
            rows, x, y = self._other
            self._other = None
            self.erase_in_display(2)
            for number, row in rows.items():
                if number < self.lines:
                    self.buffer[number].update(row)
            self.cursor.x, self.cursor.y = min(x, self.columns - 1), min(y, self.lines - 1)

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class Terminal(QAbstractScrollArea):
    """Feed it what the program prints; it says what the user types and how large it is."""

    typed = Signal(bytes)
    resized = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.grid = Screen(80, 24, lambda text: self.typed.emit(text.encode()))
        self.stream = pyte.ByteStream(self.grid)
        self.live = False
        self._from: tuple[int, int] | None = None
        self._to: tuple[int, int] | None = None
        self._zoom = 0
        self._paint_soon = QTimer(self)
        self._paint_soon.setSingleShot(True)
        self._paint_soon.setInterval(15)
        self._paint_soon.timeout.connect(self._refresh)
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_InputMethodEnabled)
        self.setAccessibleName("Terminal")
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setCursor(Qt.CursorShape.IBeamCursor)
        self.verticalScrollBar().valueChanged.connect(lambda _value: self.viewport().update())
        self._measure()

    # --- in and out --------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """What the program printed."""
        try:
            self.stream.feed(data)
        except TypeError:
            # pyte passes `private` to handlers that do not take it when a program uses a rare sequence: skip that one.
            self.stream = pyte.ByteStream(self.grid)
        if not self._paint_soon.isActive():
            self._paint_soon.start()

    def reset(self) -> None:
        """An empty screen."""
        self.grid.reset()
        self.grid.past.clear()
        self._refresh()

    def set_live(self, live: bool) -> None:
        """Whether somebody listens to what is typed."""
        self.live = live
        self.viewport().update()

    def _send(self, data: bytes) -> None:
        if self.live:
            self.verticalScrollBar().setValue(self.verticalScrollBar().maximum())
            self.typed.emit(data)

    def paste(self) -> None:
        """The clipboard's text, as if typed."""
        text = QGuiApplication.clipboard().text().replace("\r\n", "\r").replace("\n", "\r")
        if _BRACKETED_PASTE in self.grid.mode:
            # A pasted end-mark would let the rest run as commands.
            text = "\x1b[200~" + text.replace("\x1b[201~", "") + "\x1b[201~"
        self._send(text.encode())

    def copy(self) -> None:
        """The chosen text into the clipboard."""
        if text := self.selected_text():
            QGuiApplication.clipboard().setText(text)

    def text(self) -> str:
        """What stands on the screen (not what scrolled off), for tests and screen readers."""
        return "\n".join(line.rstrip() for line in self.grid.display).rstrip()

    # --- geometry ----------------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        font = theme.mono()
        font.setPointSizeF(font.pointSizeF() + self._zoom)
        self.setFont(font)
        self._plain = font
        self._bold = QFont(font)
        self._bold.setBold(True)
        metrics = QFontMetricsF(font)
        self._cell = metrics.horizontalAdvance("M")
        self._row = int(metrics.height() + 1)
        self._ascent = int(metrics.ascent())
        self._fit()

    def _fit(self) -> None:
        columns = max(int((self.viewport().width() - 2 * _PAD) / self._cell), 10)
        rows = max((self.viewport().height() - 2 * _PAD) // self._row, 4)
        if (columns, rows) != (self.grid.columns, self.grid.lines):
            self.grid.resize(rows, columns)
            self.resized.emit(rows, columns)
        self._refresh()

    def _refresh(self) -> None:
        bar = self.verticalScrollBar()
        at_end = bar.value() >= bar.maximum()
        bar.setRange(0, len(self.grid.past))
        bar.setPageStep(self.grid.lines)
        if at_end:
            bar.setValue(bar.maximum())
        self.viewport().update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    # --- painting ----------------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.fillRect(self.viewport().rect(), QColor(_GROUND))
        past, top = len(self.grid.past), self.verticalScrollBar().value()
        for row in range(self.grid.lines):
            self._paint_row(painter, self._cells(top + row), top + row, _PAD + row * self._row)
        cursor = self.grid.cursor
        row = past + cursor.y - top
        if self.live and not cursor.hidden and row < self.grid.lines:
            self._paint_cursor(painter, min(cursor.x, self.grid.columns - 1), row)
        painter.end()

    def _cells(self, row: int) -> dict[int, Any]:
        past = len(self.grid.past)
        return self.grid.past[row] if row < past else self.grid.buffer.get(row - past, {})

    def _paint_row(self, painter: QPainter, cells: dict[int, Any], row: int, y: int) -> None:
        default: Any = self.grid.default_char
        column, width = 0, self.grid.columns
        while column < width:
            cell = cells.get(column, default)
            chosen = self._is_chosen(row, column)
            start, run = column, ""
            while column < width:
                other = cells.get(column, default)
                if other[1:] != cell[1:] or self._is_chosen(row, column) != chosen:
                    break
                run += other.data
                column += 1
            self._paint_run(painter, run, cell, chosen=chosen, start=start, end=column, y=y)

    def _paint_run(self, painter: QPainter, run: str, cell: Char, *, chosen: bool, start: int, end: int,
                   y: int) -> None:
        ink, ground = _colour(cell.fg, _INK, cell.bold), _colour(cell.bg, _GROUND, False)
        if cell.reverse:
            ink, ground = ground, ink
        if chosen:
            ground = "#2f4d73"
        area = QRectF(_PAD + start * self._cell, y, (end - start) * self._cell, self._row)
        if ground != _GROUND:
            painter.fillRect(area, QColor(ground))
        if not run.strip() and not cell.underscore:
            return
        painter.setFont(self._bold if cell.bold else self._plain)
        painter.setPen(QColor(ink))
        painter.drawText(int(area.x()), y + self._ascent, run)
        if cell.underscore:
            painter.drawLine(int(area.x()), y + self._row - 2, int(area.right()), y + self._row - 2)

    def _paint_cursor(self, painter: QPainter, column: int, row: int) -> None:
        area = QRectF(_PAD + column * self._cell, _PAD + row * self._row, self._cell, self._row)
        if not self.hasFocus():
            painter.setPen(QColor(_INK))
            painter.drawRect(area.adjusted(0, 0, -1, -1))
            return
        painter.fillRect(area, QColor(_INK))
        cell: Any = self.grid.buffer[self.grid.cursor.y].get(column, self.grid.default_char)
        painter.setPen(QColor(_GROUND))
        painter.drawText(int(area.x()), int(area.y()) + self._ascent, cell.data)

    # --- keys --------------------------------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        # The program gets the keys that the window or the focus chain would take: Tab, Ctrl+F, Ctrl+L.
        if event.type() == QEvent.Type.ShortcutOverride:
            event.accept()
            return True
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent) and event.key() in (
                Qt.Key.Key_Tab, Qt.Key.Key_Backtab) and not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.keyPressEvent(event)
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key, mods = Qt.Key(event.key()), event.modifiers()
        control, shift = mods & Qt.KeyboardModifier.ControlModifier, mods & Qt.KeyboardModifier.ShiftModifier
        if control and shift and key in (Qt.Key.Key_C, Qt.Key.Key_V):
            self.copy() if key == Qt.Key.Key_C else self.paste()
        elif (shift and key == Qt.Key.Key_Insert):
            self.paste()
        elif shift and key in (Qt.Key.Key_PageUp, Qt.Key.Key_PageDown):
            bar = self.verticalScrollBar()
            bar.setValue(bar.value() + (self.grid.lines - 1) * (1 if key == Qt.Key.Key_PageDown else -1))
        elif control and key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal, Qt.Key.Key_Minus, Qt.Key.Key_0):
            step = -1 if key == Qt.Key.Key_Minus else 1
            self._zoom = 0 if key == Qt.Key.Key_0 else max(-4, min(self._zoom + step, 12))
            self._measure()
        elif data := self.bytes_for(event):
            self._send(data)

    def bytes_for(self, event: QKeyEvent) -> bytes:
        """What a key sends, by the terminal's modes; empty for keys that send nothing."""
        key, mods = Qt.Key(event.key()), event.modifiers()
        control = bool(mods & Qt.KeyboardModifier.ControlModifier)
        alt = bool(mods & Qt.KeyboardModifier.AltModifier)
        shift = bool(mods & Qt.KeyboardModifier.ShiftModifier)
        if key in _ARROWS:
            number = 1 + shift + 2 * alt + 4 * control
            if number > 1:
                return b"\x1b[1;%d" % number + _ARROWS[key]
            return (b"\x1bO" if _CURSOR_KEYS in self.grid.mode else b"\x1b[") + _ARROWS[key]
        if control and Qt.Key.Key_A <= key <= Qt.Key.Key_Z:
            made = bytes([key - Qt.Key.Key_A + 1])
        elif control and key in _CONTROL:
            made = _CONTROL[key]
        elif key in _KEYS:
            made = _KEYS[key]
        else:
            made = event.text().encode()
        return b"\x1b" + made if alt and made else made

    def inputMethodEvent(self, event: QEvent) -> None:
        text = event.commitString()  # type: ignore[attr-defined]
        if text:
            self._send(text.encode())

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.viewport().update()

    # --- choosing text --------------------------------------------------------------------------------

    def _place(self, event: QMouseEvent) -> tuple[int, int]:
        point = event.position()
        row = int((point.y() - _PAD) // self._row) + self.verticalScrollBar().value()
        return row, max(0, min(int((point.x() - _PAD) / self._cell + 0.5), self.grid.columns))

    def _is_chosen(self, row: int, column: int) -> bool:
        if self._from is None or self._to is None or self._from == self._to:
            return False
        first, last = sorted((self._from, self._to))
        return first <= (row, column) < last

    def selected_text(self) -> str:
        """The chosen text, without the blanks at the ends of lines."""
        if self._from is None or self._to is None:
            return ""
        first, last = sorted((self._from, self._to))
        lines = []
        for row in range(first[0], last[0] + 1):
            cells = self._cells(row)
            start = first[1] if row == first[0] else 0
            end = last[1] if row == last[0] else self.grid.columns
            blank: Any = self.grid.default_char
            lines.append("".join(cells.get(c, blank).data for c in range(start, end)).rstrip())
        return "\n".join(lines)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._from = self._to = self._place(event)
            self.viewport().update()
        elif event.button() == Qt.MouseButton.MiddleButton:
            text = QGuiApplication.clipboard().text(QGuiApplication.clipboard().Mode.Selection)
            self._send(text.replace("\n", "\r").encode())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._to = self._place(event)
            self.viewport().update()

    def cell_rect(self, row: int, column: int) -> QRect:
        """Where a cell of the screen lies in the viewport."""
        return QRect(int(_PAD + column * self._cell), _PAD + row * self._row, int(self._cell) + 1, self._row)


_CONTROL = {Qt.Key.Key_Space: b"\x00", Qt.Key.Key_At: b"\x00", Qt.Key.Key_BracketLeft: b"\x1b",
            Qt.Key.Key_Backslash: b"\x1c", Qt.Key.Key_BracketRight: b"\x1d", Qt.Key.Key_AsciiCircum: b"\x1e",
            Qt.Key.Key_Underscore: b"\x1f", Qt.Key.Key_Slash: b"\x1f", Qt.Key.Key_Backspace: b"\x08"}


def _colour(name: str, default: str, bold: bool) -> str:
    """pyte's colour as a colour: a name, one of the bright names, or six hex digits."""
    if name == "default":
        return default
    base = name.removeprefix("bright")
    base = "brown" if base == "yellow" else base
    if base in theme.ANSI_NAMES:
        bright = name.startswith("bright") or (bold and base == "black")
        return theme.ANSI[theme.ANSI_NAMES.index(base) + 8 * bright]
    return f"#{name}" if len(name) == 6 else default
