"""A log with its tools: follow or pause, find, wrap, times, save, clear. In the details and in windows of its own."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from app.models.lines import LineRing
from app.settings import Preferences
from app.widgets.log_view import LogView
from app.widgets.parts import Banner, filter_field, icon_button, label, row


class LogPane(QWidget):
    """The tools above, the lines below, the counts at the foot."""

    pop_out = Signal()

    def __init__(self, preferences: Preferences, title: str, *, may_pop_out: bool) -> None:
        super().__init__()
        self.preferences, self.title = preferences, title
        self.ring = LineRing()
        self.view = LogView(self.ring)
        self.ended = False
        self.wanted = filter_field("Find in the log")
        self.found = label("", "muted")
        self.previous, self.next = icon_button("up", "Previous match"), icon_button("down", "Next match")
        self.follow = icon_button("follow", "Follow the end of the log", checkable=True)
        self.wrap = icon_button("wrap", "Wrap long lines", checkable=True)
        self.stamps = icon_button("clock", "Show times", checkable=True)
        self.save, self.clear = icon_button("save", "Save the log…"), icon_button("clear", "Clear the view")
        self.out = icon_button("window", "Open in a window of its own")
        self.out.setVisible(may_pop_out)
        self.foot = label("", "muted")
        self.banner = Banner()
        tools = row(self.wanted, self.previous, self.next, self.found, None, self.follow, self.wrap, self.stamps,
                    self.save, self.clear, self.out, spacing=4, margins=(0, 6, 0, 6))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(tools)
        box.addWidget(self.banner)
        box.addWidget(self.view, 1)
        box.addWidget(self.foot)
        self.wrap.setChecked(preferences.flag("log-wrap", True))
        self.stamps.setChecked(preferences.flag("log-times", False))
        self.follow.setChecked(True)
        self.view.set_wrap(self.wrap.isChecked())
        self.view.set_stamps(self.stamps.isChecked())
        self._connect()
        self._counts()

    def _connect(self) -> None:
        self.wanted.textChanged.connect(self._search)
        self.wanted.returnPressed.connect(self.go_next)
        self.previous.clicked.connect(self.go_previous)
        self.next.clicked.connect(self.go_next)
        self.follow.toggled.connect(self.view.set_following)
        self.view.following_changed.connect(self._following)
        self.wrap.toggled.connect(self._wrap)
        self.stamps.toggled.connect(self._stamps)
        self.save.clicked.connect(self._ask_save)
        self.clear.clicked.connect(self.view.clear)
        self.out.clicked.connect(self.pop_out.emit)
        self.view.lines_came.connect(self._counts)
        inside = Qt.ShortcutContext.WidgetWithChildrenShortcut
        for keys, action in (("F3", self.go_next), ("Shift+F3", self.go_previous), ("Ctrl+G", self.go_next),
                             ("Ctrl+S", self._ask_save), ("Space", self._toggle)):
            QShortcut(QKeySequence(keys), self if keys != "Space" else self.view, action,
                      context=inside if keys != "Space" else Qt.ShortcutContext.WidgetShortcut)

    def feed(self, data: bytes, stderr: bool = False) -> None:
        """A chunk of the log, with the engine's times in it."""
        self.view.feed(data, stderr)

    def set_ended(self, ended: bool) -> None:
        """Say at the foot that nothing more will come, for now."""
        self.ended = ended
        self._counts()

    def focus_find(self) -> None:
        """Ctrl+F."""
        self.wanted.setFocus()
        self.wanted.selectAll()

    # --- find --------------------------------------------------------------------------------

    def _search(self, text: str) -> None:
        self.ring.search(text)
        self.view.current = -1
        if self.ring.match_count:
            # The last match above the end is what one most likely looks for.
            self.go_to(self.ring.next_match(self.ring.end, back=True))
        self._counts()
        self.view.viewport().update()

    def go_next(self) -> None:
        """To the next matching line, round at the end."""
        self.go_to(self.ring.next_match(max(self.view.current, self.ring.first - 1)))

    def go_previous(self) -> None:
        """To the matching line before."""
        here = self.view.current if self.view.current >= 0 else self.ring.end
        self.go_to(self.ring.next_match(here, back=True))

    def go_to(self, number: int | None) -> None:
        """Show a line and its place among the matches."""
        if number is not None:
            self.view.go_to(number)
            self._counts()

    # --- settings --------------------------------------------------------------------------------

    def _wrap(self, on: bool) -> None:
        self.preferences.keep_flag("log-wrap", on)
        self.view.set_wrap(on)

    def _stamps(self, on: bool) -> None:
        self.preferences.keep_flag("log-times", on)
        self.view.set_stamps(on)

    def _toggle(self) -> None:
        self.view.set_following(not self.view.following)

    def _following(self, on: bool) -> None:
        self.follow.setChecked(on)
        self._counts()

    def _counts(self) -> None:
        wanted = self.wanted.text()
        total, place = self.ring.match_count, self.ring.match_place(self.view.current)
        self.found.setText("" if not wanted else f"{place} of {total}" if total and place else
                           f"{total} lines" if total else "no match")
        self.wanted.setProperty("bad", bool(wanted) and not total)
        for one in (self.previous, self.next):
            one.setEnabled(total > 0)
        parts = [f"{self.ring.received:,} lines" if self.ring.received != 1 else "1 line"]
        if self.ring.first:
            parts.append(f"the last {len(self.ring):,} are kept here")
        parts.append("the container has ended" if self.ended else "following" if self.view.following else
                     "paused: press Space or End to follow again")
        self.foot.setText("  ·  ".join(parts))

    # --- save --------------------------------------------------------------------------------

    def _ask_save(self) -> None:
        dialog = QFileDialog(self, "Save the log", f"{self.title}.log")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(self.save_to)
        dialog.open()

    def save_to(self, path: str) -> None:
        """Write what is kept here to a file, times included when they are shown."""
        from app.models.problems import describe

        try:
            with open(path, "w", encoding="utf-8") as out:
                out.write(self.ring.text(self.ring.first, self.ring.end - 1, self.stamps.isChecked()))
        except OSError as error:
            self.banner.show_problem(describe(error, "The log could not be saved"))
