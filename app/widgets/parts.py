"""Small parts that all pages are made of: headings, icon buttons, banners, empty states, progress cards."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QGuiApplication, QKeySequence
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.operations import Operation
from app.models.problems import Problem


def label(text: str = "", name: str = "", *, wrap: bool = False, select: bool = False) -> QLabel:
    """A text; *name* picks its style (title, heading, muted, mono). Shown as it is: no markup is read from it."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setObjectName(name)
    made.setWordWrap(wrap)
    if select:
        made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return made


def themed(widget: QPushButton | QToolButton, icon: str, tone: str = "text") -> None:
    """Give *widget* the icon in the theme's colour *tone*, now and after each change of theme."""
    def draw() -> None:
        widget.setIcon(theme.icon(icon, getattr(theme.current(), tone)))
    theme.follow(widget, draw)


def icon_button(icon: str, name: str, shortcut: str = "", *, checkable: bool = False) -> QToolButton:
    """A button with only an icon; *name* is its accessible name and tool tip."""
    made = QToolButton()
    made.setObjectName("icon")
    made.setAccessibleName(name)
    made.setToolTip(f"{name} ({shortcut})" if shortcut else name)
    made.setIconSize(QSize(18, 18))
    made.setCheckable(checkable)
    made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    if shortcut:
        made.setShortcut(QKeySequence(shortcut))
    themed(made, icon)
    return made


def say(widget: QPushButton, text: str, icon: bool = True) -> None:
    """Put *text* on a button; a thin space keeps it apart from the icon."""
    widget.setText(f"\u2009 {text}" if icon else text)
    widget.setAccessibleName(text)


def button(text: str, icon: str = "", kind: str = "", clicked: Callable[[], object] | None = None) -> QPushButton:
    """A button with words. *kind*: primary, danger or flat."""
    made = QPushButton()
    made.setObjectName(kind)
    say(made, text, bool(icon))
    made.setAutoDefault(False)
    if icon:
        made.setIconSize(QSize(16, 16))
        themed(made, icon, "onAccent" if kind == "primary" else "text")
    if clicked is not None:
        made.clicked.connect(lambda _checked=False: clicked())
    return made


def filter_field(placeholder: str) -> QLineEdit:
    """A field that filters a list as one types."""
    made = QLineEdit()
    made.setPlaceholderText(placeholder)
    made.setAccessibleName(placeholder)
    made.setClearButtonEnabled(True)
    made.setMinimumWidth(220)
    action = made.addAction(theme.icon("search", theme.current().muted), QLineEdit.ActionPosition.LeadingPosition)
    theme.follow(made, lambda: action.setIcon(theme.icon("search", theme.current().muted)))
    return made


def row(*items: QWidget | int | None, spacing: int = 8,
        margins: tuple[int, int, int, int] = (0, 0, 0, 0)) -> QHBoxLayout:
    """Widgets side by side; None stretches, a number is a gap."""
    made = QHBoxLayout()
    made.setContentsMargins(*margins)
    made.setSpacing(spacing)
    for item in items:
        if item is None:
            made.addStretch(1)
        elif isinstance(item, int):
            made.addSpacing(item)
        else:
            made.addWidget(item)
    return made


def line() -> QFrame:
    """A thin rule."""
    made = QFrame()
    made.setObjectName("line")
    return made


def grow(dialog: QWidget) -> None:
    """Make room for text that came after the dialog was shown: wrapped words do not push a window's edge."""
    box = dialog.layout()
    if box is not None:
        box.activate()
        wanted = max(box.totalHeightForWidth(dialog.width()), box.totalSizeHint().height())
        if wanted > dialog.height():
            dialog.resize(dialog.width(), wanted)


def copy(text: str) -> None:
    """*text* into the clipboard."""
    QGuiApplication.clipboard().setText(text)


class Banner(QFrame):
    """A message in place: what failed, why, what to do; with the details and a way to try again."""

    retried = Signal()
    closed = Signal()

    def __init__(self, tone: str = "bad") -> None:
        super().__init__()
        self.setObjectName("banner")
        self.setProperty("tone", tone)
        self._tone = tone
        self._problem: Problem | None = None
        self.picture = QLabel()
        self.what, self.why = label(name="heading", wrap=True, select=True), label(wrap=True, select=True)
        self.hint = label(wrap=True, select=True)
        self.command = label(name="mono", select=True)
        self.copy_command = icon_button("copy", "Copy the command")
        self.copy_command.clicked.connect(lambda: copy(self._problem.command if self._problem else ""))
        self.details = QPlainTextEdit(readOnly=True)
        self.details.setObjectName("code")
        self.details.setMaximumHeight(140)
        self.details.hide()
        self.more = button("Details", kind="flat", clicked=self._toggle)
        self.retry = button("Try again", "restart", clicked=self.retried.emit)
        self.close_button = icon_button("close", "Close this message")
        self.close_button.clicked.connect(self._close)
        self._lay_out()
        self.hide()
        theme.follow(self, self._draw)

    def _lay_out(self) -> None:
        words = QVBoxLayout()
        words.setSpacing(3)
        for one in (self.what, self.why, self.hint):
            words.addWidget(one)
        words.addLayout(row(self.command, self.copy_command, None))
        words.addWidget(self.details)
        words.addStretch(1)
        outer = QHBoxLayout(self)
        outer.setContentsMargins(14, 11, 10, 11)
        outer.setSpacing(12)
        outer.addWidget(self.picture, 0, Qt.AlignmentFlag.AlignTop)
        outer.addLayout(words, 1)
        buttons = row(self.more, self.retry, self.close_button, spacing=4)
        buttons.setAlignment(Qt.AlignmentFlag.AlignTop)
        outer.addLayout(buttons)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)

    def _draw(self) -> None:
        colours = theme.current()
        name = "info" if self._tone == "info" else "warning"
        tone = {"bad": colours.bad, "warn": colours.warn}.get(self._tone, colours.accentText)
        self.picture.setPixmap(theme.pixmap(name, tone, 20))

    def show_problem(self, problem: Problem, *, retry: bool = False, closable: bool = True) -> None:
        """Say what went wrong."""
        self._problem = problem
        for widget, text in ((self.what, problem.what), (self.why, problem.why), (self.hint, problem.hint),
                             (self.command, problem.command)):
            widget.setText(text)
            widget.setVisible(bool(text))
        self.copy_command.setVisible(bool(problem.command))
        self.details.setPlainText(problem.details)
        self.details.hide()
        self.more.setVisible(bool(problem.details))
        self.retry.setVisible(retry)
        self.close_button.setVisible(closable)
        self.setAccessibleName(problem.what)
        self.setAccessibleDescription(problem.text)
        self.show()

    def _toggle(self) -> None:
        self.details.setVisible(not self.details.isVisible())

    def _close(self) -> None:
        self.hide()
        self.closed.emit()


class Empty(QWidget):
    """What a page shows when it has nothing to show: a picture, a sentence, a way on."""

    def __init__(self, icon: str, title: str, text: str, *actions: QPushButton) -> None:
        super().__init__()
        self.icon = icon
        self.picture = QLabel(alignment=Qt.AlignmentFlag.AlignCenter)
        self.title, self.body = label(title, "heading"), label(text, "muted", wrap=True)
        for one in (self.title, self.body):
            one.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.body.setMaximumWidth(460)
        box = QVBoxLayout(self)
        box.setSpacing(10)
        box.addStretch(2)
        box.addWidget(self.picture)
        box.addWidget(self.title)
        box.addLayout(row(None, self.body, None))
        if actions:
            box.addSpacing(6)
            box.addLayout(row(None, *actions, None))
        box.addStretch(3)
        self.body.setMinimumWidth(420)
        theme.follow(self, self._draw)

    def _draw(self) -> None:
        self.picture.setPixmap(theme.pixmap(self.icon, theme.current().muted, 48))

    def say(self, title: str, text: str) -> None:
        """Change the words."""
        self.title.setText(title)
        self.body.setText(text)


class OperationCard(QFrame):
    """One long action: title, progress, what it does now, cancel or retry, its log."""

    retried = Signal(object)
    dismissed = Signal(object)

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.setObjectName("card")
        self.operation = operation
        self.title = label(operation.title, "")
        font = self.title.font()
        font.setBold(True)
        self.title.setFont(font)
        self.status = label("", "muted")
        self.status.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.trouble = label("", wrap=True, select=True)
        self.bar = QProgressBar(textVisible=False)
        self.bar.setAccessibleName(f"Progress: {operation.title}")
        self.log = QPlainTextEdit(readOnly=True)
        self.log.setObjectName("code")
        self.log.setFixedHeight(130)
        self.log.hide()
        self.more = button("Details", kind="flat", clicked=self._toggle)
        self.cancel = button("Cancel", kind="flat", clicked=operation.cancel)
        self.retry = button("Try again", "restart", clicked=lambda: self.retried.emit(operation))
        self.edit = button("Edit…", "edit", clicked=self._edit)
        self.away = icon_button("close", "Close this message")
        self.away.clicked.connect(lambda: self.dismissed.emit(operation))
        box = QVBoxLayout(self)
        box.setContentsMargins(14, 9, 9, 11)
        box.setSpacing(6)
        head = row(self.title, 6, self.status, self.more, self.cancel, self.edit, self.retry, self.away,
                   spacing=4)
        head.setStretch(2, 1)
        box.addLayout(head)
        box.addWidget(self.trouble)
        box.addWidget(self.bar)
        box.addWidget(self.log)
        operation.changed.connect(self.refresh)
        self.refresh()

    def _toggle(self) -> None:
        self.log.setVisible(not self.log.isVisible())
        self.refresh()

    def _edit(self) -> None:
        """Back to the form that began it; the form begins another one."""
        if self.operation.edit is not None:
            self.operation.edit()
            self.dismissed.emit(self.operation)

    def refresh(self) -> None:
        """Show the operation as it is now."""
        one = self.operation
        running, failed = one.state == "running", one.state == "failed"
        fraction = one.fraction
        self.bar.setVisible(running)
        self.bar.setRange(0, 0 if fraction is None else 1000)
        if fraction is not None:
            self.bar.setValue(int(fraction * 1000))
        self.trouble.setText("" if one.problem is None else f"{one.problem.why} {one.problem.hint}".strip())
        self.trouble.setVisible(one.problem is not None)
        self.status.setText({"failed": "failed", "cancelled": "cancelled"}.get(one.state, one.status))
        self.status.setToolTip(self.status.text())
        self.cancel.setVisible(running)
        self.retry.setVisible(failed or one.state == "cancelled")
        self.edit.setVisible((failed or one.state == "cancelled") and one.edit is not None)
        self.away.setVisible(not running)
        if self.log.isVisible():
            lines = [f"{key}  {text}" + (f"  {done / total:.0%}" if total else "")
                     for key, (text, done, total) in one.layers.items()]
            lines += [*one.log, *([one.problem.text] if one.problem else [])]
            self.log.setPlainText("\n".join(lines))
