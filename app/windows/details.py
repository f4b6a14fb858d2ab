"""One container: what it is, its live log, its settings as a tree, a terminal in it, what it uses."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QTabWidget, QVBoxLayout, QWidget

from app import theme
from app.models.log_feed import LogFeed
from app.models.problems import Problem
from app.models.rows import ContainerRow, age_text, state_text
from app.widgets.inspect import InspectView
from app.widgets.log_pane import LogPane
from app.widgets.parts import Banner, Empty, button, icon_button, label, row
from app.windows.actions import ContainerActions
from app.windows.container_files import FilesTab
from app.windows.container_menu import fill_more
from app.windows.context import Context
from app.windows.health_tab import HealthTab
from app.windows.processes_tab import ProcessesTab
from app.windows.stats_tab import StatsTab
from app.windows.terminal_tab import TerminalTab


class StatePill(QWidget):
    """A dot and a word, as in the table."""

    def __init__(self) -> None:
        super().__init__()
        self.dot, self.word = QLabel(), label("")
        box = QHBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(6)
        box.addWidget(self.dot)
        box.addWidget(self.word)
        self._tone = "idle"
        theme.follow(self, self._draw)

    def show_state(self, word: str, tone: str) -> None:
        """Change what it says."""
        self._tone = tone
        self.word.setText(word)
        self._draw()

    def _draw(self) -> None:
        colour = getattr(theme.current(), self._tone)
        self.dot.setText("○" if self._tone == "idle" else "●")
        self.dot.setStyleSheet(f"color: {colour};")
        self.word.setStyleSheet(f"color: {colour};")


class DetailsPage(QWidget):
    """The page of one container. It stays, with its terminal, until the container goes or another takes its place."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.setObjectName("page")
        self.context, self.key = context, key
        self._ran = False
        self.doer = ContainerActions(context, self)
        self.back = icon_button("back", "Back to the list", "Alt+Left")
        self.name, self.pill = label("", "title", select=True), StatePill()
        self.about = QLabel()
        self.about.setObjectName("muted")
        self.about.setTextFormat(Qt.TextFormat.RichText)
        self.about.setOpenExternalLinks(True)
        self.about.setWordWrap(True)
        self.about.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        verbs = (("start", "play"), ("stop", "stop"), ("restart", "restart"), ("remove", "trash"))
        self.buttons = {verb: button(verb.capitalize(), icon, "flat", partial(self.doer.do, verb, [key]))
                        for verb, icon in verbs}
        self.banner = Banner()
        self.gone = Banner("info")
        self.log = LogPane(context.preferences, "", may_pop_out=True)
        self.log.pop_out.connect(lambda: context.ways.log_window.emit(key))
        self.inspect = InspectView()
        self.shell = TerminalTab(context, key)
        self.shell_off = Empty("terminal", "The container does not run", "Start it to open a shell inside.",
                               button("Start", "play", "primary", partial(self.doer.do, "start", [key])))
        self.stats, self.processes = StatsTab(context, key), ProcessesTab(context, key)
        self.files, self.health = FilesTab(context, key), HealthTab(context, key)
        self.more = icon_button("more", "More", "")
        self.more.clicked.connect(self._more)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.tabBar().setDrawBase(False)
        self._lay_out()
        self.feed = LogFeed(context.mirror, key, self.log.feed, self.log.set_ended)
        context.bridge.run("The log could not be read", self.feed.run(), failed=self._log_failed, owner=self)
        self._connect()
        self.refresh()

    def _lay_out(self) -> None:
        self.shell_tab = QWidget()
        shells = QVBoxLayout(self.shell_tab)
        shells.setContentsMargins(0, 0, 0, 0)
        shells.addWidget(self.shell)
        shells.addWidget(self.shell_off)
        for widget, name in ((self.log, "Log"), (self.inspect, "Inspect"), (self.shell_tab, "Terminal"),
                             (self.stats, "Stats"), (self.processes, "Processes"), (self.files, "Files"),
                             (self.health, "Health")):
            self.tabs.addTab(widget, name)
        words = QVBoxLayout()
        words.setSpacing(3)
        words.addLayout(row(self.name, 4, self.pill, None))
        words.addWidget(self.about)
        top = row(self.back, 2)
        top.setAlignment(self.back, Qt.AlignmentFlag.AlignTop)
        top.addLayout(words, 1)
        for one in self.buttons.values():
            top.addWidget(one, 0, Qt.AlignmentFlag.AlignTop)
        top.addWidget(self.more, 0, Qt.AlignmentFlag.AlignTop)
        page = QVBoxLayout(self)
        page.setContentsMargins(20, 18, 26, 14)
        page.setSpacing(10)
        page.addLayout(top)
        page.addWidget(self.gone)
        page.addWidget(self.banner)
        page.addWidget(self.tabs, 1)

    def _connect(self) -> None:
        model = self.context.mirror.containers
        model.dataChanged.connect(self._changed)
        model.rowsRemoved.connect(self.refresh)
        model.rowsInserted.connect(self.refresh)
        self.context.mirror.told.connect(self._event)
        self.doer.failed.connect(self._failed)
        self.banner.retried.connect(self._again)
        self.back.clicked.connect(lambda: self.context.ways.page.emit("containers"))
        self.tabs.currentChanged.connect(self._tab)

    def close_all(self) -> None:
        """Before the page goes: nothing may call it any more."""
        self.feed.close()
        self.stats.stop()
        model = self.context.mirror.containers
        model.dataChanged.disconnect(self._changed)
        model.rowsRemoved.disconnect(self.refresh)
        model.rowsInserted.disconnect(self.refresh)
        self.context.mirror.told.disconnect(self._event)

    # --- what is shown --------------------------------------------------------------------------------

    def _row(self) -> ContainerRow | None:
        return self.context.mirror.containers.get(self.key)

    def _changed(self, first: object, last: object) -> None:
        places = self.context.mirror.containers.keys()
        top, bottom = first.row(), last.row()  # type: ignore[attr-defined]
        if self.key in places[top:bottom + 1]:
            self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the container as it is now."""
        row = self._row()
        if row is None:
            self._show_gone()
            return
        self.gone.hide()
        busy = self.context.mirror.containers.busy.get(self.key)
        self.name.setText(row.name)
        self.log.title = row.name
        self.pill.show_state(*((busy, "warn") if busy else state_text(row)))
        self.about.setText(self._about(row))
        for verb, one in self.buttons.items():
            one.setEnabled(bool(self.doer.possible(verb, [self.key])))
        self.buttons["start"].setVisible(not row.running)
        self.buttons["stop"].setVisible(row.running)
        on = row.running or self.shell.live
        self.shell.setVisible(on)
        self.shell_off.setVisible(not on)
        if row.running and not self._ran and self.isVisible():
            # A shell that was left by `exit` stays left; one comes by itself when the container starts.
            self._tab(self.tabs.currentIndex())
        self._ran = row.running
        if not row.running:
            self.stats.clear()

    def _about(self, row: ContainerRow) -> str:
        import html
        import time

        parts = [html.escape(row.image), html.escape(row.id[:12])]
        for link in row.ports:
            text = html.escape(link.text)
            colour = theme.current().accentText
            parts.append(f'<a style="color: {colour}" href="{html.escape(link.url)}">{text}</a>' if link.url else text)
        if row.project:
            parts.append(f"stack {html.escape(row.project)}")
        parts.append(f"created {age_text(row.created, time.time())}")
        return " &nbsp;·&nbsp; ".join(parts)

    def _show_gone(self) -> None:
        self.gone.show_problem(Problem("This container is gone", "It was removed. Its log stays until you leave."),
                               closable=False)
        self.pill.show_state("Removed", "idle")
        for one in self.buttons.values():
            one.setEnabled(False)
        self.log.set_ended(True)

    # --- tabs --------------------------------------------------------------------------------

    def show_tab(self, name: str) -> None:
        """Go to a tab by its name."""
        for place in range(self.tabs.count()):
            if self.tabs.tabText(place) == name:
                self.tabs.setCurrentIndex(place)
        self._tab(self.tabs.currentIndex())

    def _tab(self, place: int) -> None:
        name = self.tabs.tabText(place)
        if not self.isVisible():
            return
        if name == "Log":
            self.log.view.setFocus()
        elif name == "Inspect":
            self.inspect.tree.setFocus()
            self._load_inspect()
        elif name == "Terminal" and (one := self._row()) is not None and one.running:
            self.shell.begin()
            self.shell.terminal.setFocus()

    def _load_inspect(self) -> None:
        self.context.bridge.run("The container could not be inspected",
                                self.context.client.inspect_raw("containers", self.key), owner=self,
                                then=self.inspect.show_value, failed=self._show_problem)

    def _event(self, event: object) -> None:
        actor, action = getattr(event, "actor", None), getattr(event, "action", "")
        if actor is None or actor.id != self.key or not self.isVisible() or action == "destroy":
            return
        name = self.tabs.tabText(self.tabs.currentIndex())
        if name == "Inspect":
            self._load_inspect()
        elif name == "Health" and action.startswith(("health_status", "start", "die")):
            self.health.load()
        elif name == "Stats" and action == "start":
            self.stats.begin()
        elif name == "Processes" and action in ("start", "die"):
            self.processes.ask()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._tab(self.tabs.currentIndex())

    def focus_filter(self) -> None:
        """Ctrl+F: find in what is shown."""
        name = self.tabs.tabText(self.tabs.currentIndex())
        if name == "Inspect":
            self.inspect.filter.setFocus()
        elif name == "Log":
            self.log.focus_find()

    def _more(self) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        fill_more(menu, self.context, self, self.doer, self.key)
        menu.popup(self.more.mapToGlobal(self.more.rect().bottomLeft()))

    # --- problems --------------------------------------------------------------------------------

    def _failed(self, problem: Problem, again: object) -> None:
        self._retry = again
        self.banner.show_problem(problem, retry=True)

    def _show_problem(self, problem: Problem) -> None:
        self._retry = None
        self.banner.show_problem(problem)

    def _again(self) -> None:
        self.banner.hide()
        if callable(self._retry):
            self._retry()

    def _log_failed(self, problem: Problem) -> None:
        self.log.banner.show_problem(problem)
