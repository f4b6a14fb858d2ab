"""Colours, type and icons. Two palettes with at least 4.5:1 between text and what it lies on (tested).

The theme is one object for the whole process: widgets that paint themselves ask `current()` when they paint and listen
to `changed`; all else is told by the style sheet.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import asdict, dataclass

from PySide6.QtCore import QByteArray, QObject, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QIcon, QPainter, QPalette, QPixmap
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

import resources
from app.settings import Preferences, Theme


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours by role. `*Tint` are backgrounds of banners, `chosen` that of selected rows."""

    dark: bool
    surface: str
    side: str
    raised: str
    field: str
    code: str
    text: str
    muted: str
    faint: str
    line: str
    edge: str
    thumb: str
    hover: str
    chosen: str
    accent: str
    accentHover: str
    accentText: str
    onAccent: str
    good: str
    warn: str
    bad: str
    badSolid: str
    idle: str
    badTint: str
    warnTint: str
    infoTint: str


LIGHT = Palette(
    dark=False, surface="#ffffff", side="#f5f6f8", raised="#fcfcfd", field="#ffffff", code="#f7f8fa", text="#1b1f24",
    muted="#586170", faint="#9aa2ad", line="#e5e8ec", edge="#cdd3da", thumb="#c3c9d1", hover="#eef1f4",
    chosen="#e3eefb", accent="#0b66c3", accentHover="#0a58a8", accentText="#0a5cb0", onAccent="#ffffff",
    good="#1a7a36", warn="#8a5a00",
    bad="#c0262d", badSolid="#c0262d", idle="#646d79", badTint="#fdf0f0", warnTint="#fff7e6", infoTint="#eef5fd")
DARK = Palette(
    dark=True, surface="#181b20", side="#13161a", raised="#1f2329", field="#14171b", code="#14171b", text="#e7eaee",
    muted="#a0a9b5", faint="#6a737e", line="#2a2f36", edge="#3b424b", thumb="#434b55", hover="#242930",
    chosen="#1d3350", accent="#2272cc", accentHover="#1c64b8", accentText="#74b4ff", onAccent="#ffffff",
    good="#56c877", warn="#e3ae4c",
    bad="#ff8683", badSolid="#c2363b", idle="#98a1ad", badTint="#33201f", warnTint="#332a17", infoTint="#182a40")

#: The sixteen colours of terminals, readable on the terminal's own dark ground.
ANSI = ("#1d2127", "#e06c75", "#8fc97a", "#dcb567", "#6aaef5", "#c586d9", "#58b9c4", "#c9cfd8",
        "#6b7480", "#ff8c94", "#a9e394", "#f0cf8a", "#8cc4ff", "#dca3ec", "#7ad4de", "#ffffff")
ANSI_NAMES = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")


class ThemeState(QObject):
    """The palette in force. `changed` tells painters to paint again."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.palette = LIGHT
        self.choice: Theme = "system"


_state: ThemeState | None = None
_icons: dict[tuple[str, str], QIcon] = {}
_pixmaps: dict[tuple[str, str, int], QPixmap] = {}
#: The size of icons on buttons; Qt shrinks it where they are smaller.
_ICON = 20


def state() -> ThemeState:
    """The one theme object of the process."""
    global _state
    if _state is None:
        _state = ThemeState()
    return _state


def current() -> Palette:
    """The palette in force."""
    return state().palette


def mono(points: float | None = None) -> QFont:
    """The fixed-width font of logs, terminals and code, at the size of ordinary text."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(points or max(QApplication.font().pointSizeF() - 0.5, 8.0))
    font.setStyleHint(QFont.StyleHint.Monospace)
    return font


def follow(widget: QObject, draw: Callable[[], object]) -> None:
    """Call *draw* now and after each change of theme, for as long as *widget* lives."""
    _Follower(widget, draw)
    draw()


class _Follower(QObject):
    """A child of the widget: Qt ends the connection when both go."""

    def __init__(self, widget: QObject, draw: Callable[[], object]) -> None:
        super().__init__(widget)
        self._draw = draw
        state().changed.connect(self.run)

    def run(self) -> None:
        self._draw()


def install(preferences: Preferences) -> None:
    """Dress the application in the remembered theme and follow the desktop's changes."""
    state().choice = preferences.theme
    hints = QGuiApplication.styleHints()
    hints.colorSchemeChanged.connect(lambda _scheme: apply(state().choice))
    apply(preferences.theme)


def apply(choice: Theme) -> None:
    """Put the theme *choice* in force, for every window at once."""
    one = state()
    one.choice = choice
    dark = choice == "dark" or (
        choice == "system" and QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark)
    one.palette = DARK if dark else LIGHT
    application = QApplication.instance()
    if isinstance(application, QApplication):
        application.setPalette(_qt_palette(one.palette))
        application.setStyleSheet(style_sheet(one.palette))
    one.changed.emit()


def style_sheet(palette: Palette) -> str:
    """The style sheet for *palette*: resources/style/window.qss with the roles filled in."""
    points = QApplication.font().pointSizeF()
    if points <= 0:
        points = 10.0
    values = {key: str(value) for key, value in asdict(palette).items()}
    values |= {"size": f"{points:g}pt", "small": f"{points - 1:g}pt", "large": f"{points + 2:g}pt",
               "title": f"{points + 6:g}pt", "mono": f'"{mono().family()}"',
               "chevronIcon": str(resources.path("icons/chevron.svg")),
               "checkIcon": str(resources.path("icons/check-white.svg"))}
    return string.Template(resources.text("style/window.qss")).substitute(values)


def _qt_palette(palette: Palette) -> QPalette:
    made = QPalette()
    roles = QPalette.ColorRole
    for role, colour in (
            (roles.Window, palette.surface), (roles.Base, palette.surface), (roles.AlternateBase, palette.raised),
            (roles.Text, palette.text), (roles.WindowText, palette.text), (roles.ButtonText, palette.text),
            (roles.Button, palette.raised), (roles.Highlight, palette.accent),
            (roles.HighlightedText, palette.onAccent), (roles.PlaceholderText, palette.muted),
            (roles.Link, palette.accentText), (roles.ToolTipBase, palette.raised), (roles.ToolTipText, palette.text)):
        made.setColor(role, QColor(colour))
    made.setColor(QPalette.ColorGroup.Disabled, roles.Text, QColor(palette.faint))
    made.setColor(QPalette.ColorGroup.Disabled, roles.ButtonText, QColor(palette.faint))
    return made


def icon(name: str, colour: str | None = None) -> QIcon:
    """The icon resources/icons/*name*.svg in *colour* (default: that of text), with a faint form for disabled."""
    palette = current()
    key = (name, colour or palette.text)
    if key not in _icons:
        made = QIcon()
        made.addPixmap(_draw(name, key[1], _ICON))
        made.addPixmap(_draw(name, palette.faint, _ICON), QIcon.Mode.Disabled)
        _icons[key] = made
    return _icons[key]


def pixmap(name: str, colour: str, size: int) -> QPixmap:
    """The icon *name* as a picture of *size* logical pixels."""
    key = (name, colour, size)
    if key not in _pixmaps:
        _pixmaps[key] = _draw(name, colour, size)
    return _pixmaps[key]


def _draw(name: str, colour: str, size: int) -> QPixmap:
    """At twice the size, which screens of every scale between one and two shrink well from."""
    source = resources.text(f"icons/{name}.svg").replace("currentColor", colour)
    renderer = QSvgRenderer(QByteArray(source.encode()))
    ratio = 2
    made = QPixmap(size * ratio, size * ratio)
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    renderer.render(painter, QRectF(0, 0, size * ratio, size * ratio))
    painter.end()
    made.setDevicePixelRatio(ratio)
    return made


def application_icon() -> QIcon:
    """Slipway's own mark."""
    made = QIcon()
    for size in (16, 32, 48, 64, 128):
        made.addPixmap(_draw("slipway", "#000000", size))
    return made


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG defines it (1 to 21)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
