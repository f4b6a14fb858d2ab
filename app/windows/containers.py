"""The page of containers: a live table with a state, links and actions in each row, and actions on many."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt, QTimer
from PySide6.QtGui import QHideEvent, QKeySequence, QPainter, QResizeEvent, QShortcut, QShowEvent
from PySide6.QtWidgets import QMenu, QPushButton, QStackedWidget

from app import theme
from app.models.containers import ACTIONS, CPU, CREATED, IMAGE, NAME, PORTS, STATE
from app.models.rows import ContainerRow, state_text
from app.widgets.parts import Empty, button, filter_field, row, say
from app.widgets.tables import Action, CleanTable, Hit, RowDelegate
from app.windows.actions import ContainerActions
from app.windows.container_menu import fill_more
from app.windows.context import Context, open_link
from app.windows.page import Page


class ContainerDelegate(RowDelegate):
    """Paints a container's row."""

    def special(self, painter: QPainter, area: QRect, row: ContainerRow, column: int) -> bool:
        table: Any = self.table.source
        if column == STATE:
            busy = table.busy.get(row.id)
            word, tone = (busy, "warn") if busy else state_text(row)
            self.state(painter, area, word, tone)
        elif column == NAME:
            width = self.text(painter, area, row.name, strong=True)
            if row.project:
                self.text(painter, area.adjusted(width + 10, 0, 0, 0), row.project)
        elif column == IMAGE:
            # What tells images apart stands at the end.
            self.text(painter, area, row.image, cut=Qt.TextElideMode.ElideLeft)
        elif column == PORTS:
            self.links(painter, area, [(link.text, link.url) for link in row.ports])
        elif column == CPU and row.running:
            self.spark(painter, area.adjusted(0, 12, -62, -12), table.history(row.id))
            return False
        elif column == ACTIONS:
            self.actions(painter, area, self._actions(row))
        else:
            return False
        return True

    def hits(self, area: QRect, row: ContainerRow, column: int) -> list[Hit]:
        if column == PORTS:
            return self.link_hits(area, [(link.text, link.url) for link in row.ports])
        return self.action_hits(area, self._actions(row)) if column == ACTIONS else []

    def _actions(self, row: ContainerRow) -> list[Action]:
        first = (Action("stop", "stop", f"Stop {row.name}") if row.running else
                 Action("start", "play", f"Start {row.name}"))
        return [first, Action("logs", "logs", f"Log of {row.name}"), Action("remove", "trash", f"Remove {row.name}")]


class ContainersPage(Page):
    """All containers of the engine."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Containers")
        self.table = CleanTable(context.mirror.containers, "Containers")
        self.table.dress((120, 0, 0, 176, 108, 88, 112, 104), ContainerDelegate(self.table), NAME,
                         spare=(CREATED, IMAGE))
        self.home = self.table
        self.doer = ContainerActions(context, self)
        self.doer.failed.connect(self.show_problem)
        self.filter = filter_field("Filter containers")
        self.filter.textChanged.connect(self._filter)
        self.many: dict[str, QPushButton] = {}
        for verb, icon in (("start", "play"), ("stop", "stop"), ("restart", "restart"), ("remove", "trash")):
            self.many[verb] = button(verb.capitalize(), icon, "flat", partial(self._do, verb))
        run = button("Run…", "plus", "primary", lambda: context.ways.run_form.emit(""))
        run.setToolTip("Run a container from an image (Ctrl+N)")
        self.head.addWidget(self.filter)
        self.head.addWidget(run)
        welcome = button("Try the sample", "play", "primary", lambda: context.ways.page.emit("welcome"))
        other = button("Run an image…", "plus", "", lambda: context.ways.run_form.emit(""))
        self.empty = Empty("containers", "No containers yet", "Run one from an image, open a Compose file, or start "
                           "with the sample. What docker does in a terminal shows here, too.", welcome, other)
        self.nothing = Empty("search", "Nothing matches", "No container's name, image, state or port has that text.")
        self.stack = QStackedWidget()
        for widget in (self.table, self.empty, self.nothing):
            self.stack.addWidget(widget)
        bar = row(*self.many.values(), None, spacing=2)
        self.body.addLayout(bar)
        self.body.addSpacing(4)
        self.body.addWidget(self.stack, 1)
        # "2 minutes ago" is the one thing that changes without an event: once a minute, while somebody looks.
        self.ages = QTimer(self)
        self.ages.setTimerType(Qt.TimerType.VeryCoarseTimer)
        self.ages.setInterval(60_000)
        self.ages.timeout.connect(context.mirror.containers.tick_ages)
        self._connect()
        self._count()

    def _connect(self) -> None:
        table, ways = self.table, self.context.ways
        table.opened.connect(lambda key: ways.container.emit(key, ""))
        table.acted.connect(self._acted)
        table.linked.connect(open_link)
        table.choice_changed.connect(self._choice)
        table.customContextMenuRequested.connect(self._menu)
        table.verticalScrollBar().valueChanged.connect(self.soon(self._watch))
        table.horizontalHeader().sortIndicatorChanged.connect(self.soon(self._watch))
        model = self.context.mirror.containers
        count = self.soon(self._count)
        for signal in (model.rowsInserted, model.rowsRemoved, self.context.mirror.loaded):
            signal.connect(count)
        # Usage changes once a second and counts nothing.
        model.dataChanged.connect(lambda first, *_: count() if first.column() < CPU else None)
        for keys, action in (("Del", partial(self._do, "remove")), ("Ctrl+L", self._log),
                             ("Ctrl+Shift+L", self._log_window)):
            QShortcut(QKeySequence(keys), table, action, context=Qt.ShortcutContext.WidgetShortcut)

    # --- what is shown ---------------------------------------------------------------------------------------------

    def _count(self) -> None:
        rows = self.context.mirror.containers.rows()
        running = sum(one.state == "running" for one in rows)
        self.subtitle.setText(f"{running} running, {len(rows)} in all" if rows else "")
        if not rows and self.context.mirror.is_loaded:
            self.stack.setCurrentWidget(self.empty)
        elif not rows:
            # Nobody has said yet that there is nothing.
            self.stack.setCurrentWidget(self.table)
        else:
            self.stack.setCurrentWidget(self.table if self.table.proxy.rowCount() else self.nothing)
        for widget in self.many.values():
            widget.setVisible(bool(rows))
        self._choice()
        self._watch()

    def _filter(self, text: str) -> None:
        self.table.filter(text)
        self._count()

    def _choice(self) -> None:
        chosen = self.table.chosen()
        for verb, widget in self.many.items():
            count = len(self.doer.possible(verb, chosen))
            widget.setEnabled(count > 0)
            say(widget, f"{verb.capitalize()} {count}" if count > 1 else verb.capitalize())

    def focus_filter(self) -> None:
        self.filter.setFocus()
        self.filter.selectAll()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._watch()
        self.context.mirror.containers.tick_ages()
        self.ages.start()

    def _watch(self) -> None:
        """Usage is followed for the rows that can be seen: a stream for each of a thousand would serve nobody."""
        if self.isVisible():
            self.context.mirror.watch_stats(True, frozenset(self.table.in_sight()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.soon(self._watch)()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self.context.mirror.watch_stats(False)
        self.ages.stop()

    # --- what is done ----------------------------------------------------------------------------------------------

    def _do(self, verb: str) -> None:
        self.doer.do(verb, self.table.chosen())

    def _acted(self, action: str, key: str) -> None:
        if action == "logs":
            self.context.ways.container.emit(key, "Log")
        else:
            self.doer.do(action, [key])

    def _log(self) -> None:
        if chosen := self.table.chosen():
            self.context.ways.container.emit(chosen[0], "Log")

    def _log_window(self) -> None:
        for key in self.table.chosen():
            self.context.ways.log_window.emit(key)

    def _menu(self, point: QPoint) -> None:
        chosen = self.table.chosen()
        rows = self.doer.rows(chosen)
        if not rows:
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        ways, first = self.context.ways, rows[0]
        icon = theme.icon
        if len(rows) == 1:
            menu.addAction(icon("info"), "Open", lambda: ways.container.emit(first.id, ""))
            menu.addAction(icon("logs"), "Log", lambda: ways.container.emit(first.id, "Log"))
            menu.addAction(icon("terminal"), "Terminal", lambda: ways.container.emit(first.id, "Terminal"))
            for link in first.ports:
                if link.url:
                    menu.addAction(icon("window"), f"Open {link.url}", partial(open_link, link.url))
        menu.addAction(icon("window"), "Log in its own window", self._log_window)
        menu.addSeparator()
        verbs = [("start", "play"), ("stop", "stop"), ("restart", "restart")]
        if len(rows) > 1:
            verbs += [("pause", "pause"), ("unpause", "play")]
        for verb, picture in verbs:
            possible = self.doer.possible(verb, chosen)
            if possible:
                word = "Resume" if verb == "unpause" else verb.capitalize()
                menu.addAction(icon(picture), word, partial(self.doer.do, verb, possible))
        if len(rows) == 1:
            menu.addSeparator()
            fill_more(menu, self.context, self, self.doer, first.id)
        menu.addSeparator()
        menu.addAction(icon("trash"), "Remove…", lambda: self._do("remove"))
        menu.popup(self.table.viewport().mapToGlobal(point))
