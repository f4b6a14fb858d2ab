"""The main window: sidebar, connection banner, running actions, pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QCloseEvent, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.models.operations import Operation
from app.models.problems import Problem
from app.settings import THEMES
from app.widgets.parts import Banner, OperationCard, icon_button, label, row
from app.windows.containers import ContainersPage
from app.windows.context import Context

if TYPE_CHECKING:
    from app.models.run_request import RunRequest
    from app.windows.details import DetailsPage

PAGES = (("containers", "Containers"), ("images", "Images"), ("stacks", "Stacks"), ("networks", "Networks"),
         ("volumes", "Volumes"), ("registries", "Registries"),
         ("disk", "Disk use"))
#: Below this width the sidebar shows icons only.
COMPACT = 1000
_THEME_WORDS = {"system": ("contrast", "Colours: as the desktop"), "light": ("sun", "Colours: light"),
                "dark": ("moon", "Colours: dark")}


class MainWindow(QMainWindow):
    """One window on one engine. Pages other than the first are made when they are first shown."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.setWindowTitle("Slipway")
        self.setWindowIcon(theme.application_icon())
        self.resize(1200, 760)
        self.setMinimumSize(820, 520)
        self.pages: dict[str, QWidget] = {}
        self.log_windows: dict[str, QWidget] = {}
        self.details: DetailsPage | None = None
        self.current = ""
        self.stack = QStackedWidget()
        self.connection = Banner("bad")
        self.mishap = Banner("bad")
        self.cards: dict[Operation, OperationCard] = {}
        self.tray = QVBoxLayout()
        self.tray.setSpacing(8)
        self.tray.setContentsMargins(26, 0, 26, 0)
        self._lay_out()
        self._connect()
        self._shortcuts()
        layout = context.preferences.layout("main")
        if layout is not None:
            self.restoreGeometry(layout)
        self.show_page("containers")
        self._state(context.mirror.state)

    # --- layout --------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        content = QWidget()
        content.setObjectName("content")
        box = QVBoxLayout(content)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        notes = QVBoxLayout()
        notes.setContentsMargins(26, 14, 26, 0)
        notes.addWidget(self.connection)
        notes.addWidget(self.mishap)
        self.notes = QWidget()
        self.notes.setLayout(notes)
        box.addWidget(self.notes)
        box.addWidget(self.stack, 1)
        box.addLayout(self.tray)
        whole = QWidget()
        side_by_side = QHBoxLayout(whole)
        side_by_side.setContentsMargins(0, 0, 0, 0)
        side_by_side.setSpacing(0)
        side_by_side.addWidget(self._sidebar())
        side_by_side.addWidget(content, 1)
        self.setCentralWidget(whole)

    def _sidebar(self) -> QFrame:
        side = self.side = QFrame()
        side.setObjectName("sidebar")
        mark = QLabel()
        mark.setPixmap(theme.application_icon().pixmap(26, 26))
        box = QVBoxLayout(side)
        box.setContentsMargins(12, 18, 12, 12)
        box.setSpacing(3)
        self.brand = label("Slipway", "brand")
        box.addLayout(row(mark, self.brand, None, spacing=9, margins=(7, 0, 0, 16)))
        self.buttons: dict[str, QToolButton] = {}
        group = QButtonGroup(self)
        for number, (name, title) in enumerate(PAGES, 1):
            one = QToolButton()
            one.setText(f"  {title}")
            one.setToolTip(f"{title} (Ctrl+{number})")
            one.setAccessibleName(title)
            one.setCheckable(True)
            one.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            one.setIconSize(QSize(20, 20))
            one.setMinimumHeight(38)
            one.setSizePolicy(one.sizePolicy().Policy.Expanding, one.sizePolicy().Policy.Fixed)
            one.clicked.connect(lambda _checked, n=name: self.show_page(n))
            group.addButton(one)
            self.buttons[name] = one
            box.addWidget(one)
        box.addStretch(1)
        self.dot, self.engine = QLabel(), label("", "muted")
        self.theme_button = icon_button("contrast", "Colours")
        self.theme_button.clicked.connect(self._next_theme)
        box.addLayout(row(self.dot, self.engine, None, self.theme_button, spacing=7, margins=(4, 0, 0, 0)))
        theme.follow(self, self._paint_sidebar)
        self._set_compact(False)
        return side

    def _set_compact(self, compact: bool) -> None:
        """A small window shows the sidebar's icons alone: the room belongs to the tables."""
        self.compact = compact
        self.side.setProperty("compact", compact)
        self.side.setFixedWidth(76 if compact else 204)
        styles = Qt.ToolButtonStyle
        for one in self.buttons.values():
            one.setToolButtonStyle(styles.ToolButtonIconOnly if compact else styles.ToolButtonTextBesideIcon)
        for words in (self.brand, self.engine):
            words.setHidden(compact)
        for widget in (self.side, *self.buttons.values()):
            widget.style().unpolish(widget)
            widget.style().polish(widget)

    def resizeEvent(self, event: QResizeEvent) -> None:
        compact = event.size().width() < COMPACT
        if compact != self.compact:
            self._set_compact(compact)
        super().resizeEvent(event)

    def _paint_sidebar(self) -> None:
        colours = theme.current()
        for name, one in self.buttons.items():
            one.setIcon(theme.icon(name, colours.accentText if name == self.current else colours.muted))
        picture, words = _THEME_WORDS[theme.state().choice]
        self.theme_button.setIcon(theme.icon(picture))
        self.theme_button.setToolTip(words)
        self.theme_button.setAccessibleName(words)
        self._state(self.context.mirror.state)

    def _connect(self) -> None:
        context = self.context
        context.mirror.state_changed.connect(self._state)
        context.bridge.problem.connect(self._mishap)
        context.operations.added.connect(self._add_card)
        context.operations.removed.connect(self._drop_card)
        ways = context.ways
        ways.page.connect(self.show_page)
        ways.container.connect(self.show_container)
        ways.log_window.connect(self.show_log_window)
        ways.run_form.connect(self.show_run_form)
        ways.pull_form.connect(self.show_pull_form)
        ways.prune.connect(self.ask_prune)
        ways.stack.connect(self.show_containers_of)
        ways.run_again.connect(lambda request: self.show_run_form(request.image, request))

    def _shortcuts(self) -> None:
        for number, (name, _) in enumerate(PAGES, 1):
            QShortcut(QKeySequence(f"Ctrl+{number}"), self, lambda n=name: self.show_page(n))
        for keys in ("Ctrl+F", "/"):
            QShortcut(QKeySequence(keys), self, self._focus_filter)
        QShortcut(QKeySequence("Ctrl+N"), self, lambda: self.show_run_form(""))
        QShortcut(QKeySequence("Ctrl+Q"), self, self.close)

    # --- ways --------------------------------------------------------------------------------

    def show_page(self, name: str) -> None:
        """Go to a page; it is made when it is first shown."""
        if name not in self.pages:
            self.pages[name] = self._make(name)
            self.stack.addWidget(self.pages[name])
        self._leave_details()
        self.current = name if name in self.buttons else "containers"
        self.stack.setCurrentWidget(self.pages[name])
        self.buttons[self.current].setChecked(True)
        self._paint_sidebar()

    def _make(self, name: str) -> QWidget:
        if name == "containers":
            return ContainersPage(self.context)
        if name == "images":
            from app.windows.images import ImagesPage
            return ImagesPage(self.context)
        if name == "stacks":
            from app.windows.stacks import StacksPage
            return StacksPage(self.context)
        if name == "networks":
            from app.windows.networks import NetworksPage
            return NetworksPage(self.context)
        if name == "volumes":
            from app.windows.volumes import VolumesPage
            return VolumesPage(self.context)
        if name == "disk":
            from app.windows.disk import DiskPage
            return DiskPage(self.context)
        if name == "registries":
            from app.windows.registries import RegistriesPage
            return RegistriesPage(self.context)
        from app.windows.welcome import WelcomePage
        return WelcomePage(self.context)

    def ask_prune(self, name: str) -> None:
        """Go to a page and ask there what may go."""
        self.show_page(name)
        self.pages[name].ask_prune()  # type: ignore[attr-defined]

    def show_container(self, key: str, tab: str) -> None:
        """Go to a container's page, on a tab by its name ("" leaves it)."""
        if self.details is not None and self.details.key != key:
            self._leave_details(keep_shell=False)
        if self.details is None:
            # With its terminal it takes as long to import as all else of the window together.
            from app.windows.details import DetailsPage
            self.details = DetailsPage(self.context, key)
            self.stack.addWidget(self.details)
        self.stack.setCurrentWidget(self.details)
        self.current = "containers"
        self.buttons["containers"].setChecked(True)
        self._paint_sidebar()
        if tab:
            self.details.show_tab(tab)

    def _leave_details(self, keep_shell: bool = True) -> None:
        # A shell with something running in it survives a look at another page.
        if self.details is None or (keep_shell and self.details.shell.live):
            return
        self.details.close_all()
        self.stack.removeWidget(self.details)
        self.details.deleteLater()
        self.details = None

    def show_log_window(self, key: str) -> None:
        """A log in a window of its own; a second request brings it to the front."""
        if key in self.log_windows:
            self.log_windows[key].raise_()
            self.log_windows[key].activateWindow()
            return
        from app.windows.log_window import LogWindow
        window = LogWindow(self.context, key)
        window.setWindowIcon(self.windowIcon())
        window.destroyed.connect(lambda: self.log_windows.pop(key, None))
        self.log_windows[key] = window
        window.show()

    def show_containers_of(self, stack: str) -> None:
        """The list, filtered to the containers of a stack."""
        self.show_page("containers")
        self.pages["containers"].filter.setText(stack)  # type: ignore[attr-defined]

    def show_run_form(self, image: str, request: RunRequest | None = None) -> None:
        """Ask what to run; *request*: filled in as it was asked for before."""
        from app.windows.run_form import RunForm
        form = RunForm(self.context, self, image if request is None else "")
        if request is not None:
            form.fill(request)
        form.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        form.open()

    def show_pull_form(self, reference: str) -> None:
        """Ask what to pull."""
        from app.windows.image_forms import PullDialog
        dialog = PullDialog(self.context, self, reference)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _focus_filter(self) -> None:
        focus = getattr(self.stack.currentWidget(), "focus_filter", None)
        if focus is not None:
            focus()

    # --- what happens --------------------------------------------------------------------------------

    def _state(self, state: str) -> None:
        mirror, colours = self.context.mirror, theme.current()
        words = {"connected": "Connected", "connecting": "Connecting…", "lost": "Not connected"}
        tone = {"connected": colours.good, "lost": colours.bad}.get(state, colours.idle)
        self.dot.setText("●" if state == "connected" else "○")
        self.dot.setStyleSheet(f"color: {tone};")
        self.engine.setText(words[state])
        self.engine.setToolTip(f"{mirror.host}\nengine {mirror.version}" if mirror.version else mirror.host)
        if state == "lost" and mirror.problem is not None:
            problem = mirror.problem
            if mirror.is_loaded:
                problem = Problem("The helper stopped. Waiting for it to come back…", problem.why, problem.hint,
                                  problem.command, problem.details)
            self.connection.show_problem(problem, closable=False)
        else:
            self.connection.hide()
        self.notes.setVisible(not self.connection.isHidden() or not self.mishap.isHidden())

    def _mishap(self, problem: Problem) -> None:
        self.mishap.show_problem(problem)
        self.notes.show()

    def _add_card(self, operation: Operation) -> None:
        card = OperationCard(operation)
        card.retried.connect(self.context.bridge.retry)
        card.dismissed.connect(self.context.operations.dismiss)
        self.cards[operation] = card
        self.tray.setContentsMargins(26, 6, 26, 14)
        self.tray.addWidget(card)
        operation.finished.connect(lambda: self._finished(operation))

    def _finished(self, operation: Operation) -> None:
        # What went well has shown itself in the lists: it need not be closed by hand.
        if operation.state == "done":
            self.context.operations.dismiss(operation)

    def _drop_card(self, operation: Operation) -> None:
        card = self.cards.pop(operation)
        self.tray.removeWidget(card)
        card.hide()
        card.deleteLater()
        if not self.cards:
            self.tray.setContentsMargins(26, 0, 26, 0)

    def _next_theme(self) -> None:
        choice = THEMES[(THEMES.index(theme.state().choice) + 1) % len(THEMES)]
        self.context.preferences.theme = choice
        theme.apply(choice)
        self._paint_sidebar()

    def closeEvent(self, event: QCloseEvent) -> None:
        self.context.preferences.keep_layout("main", self.saveGeometry())
        for window in list(self.log_windows.values()):
            window.close()
        super().closeEvent(event)
