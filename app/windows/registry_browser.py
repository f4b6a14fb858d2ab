"""What a registry has: its repositories, the tags of each, and a button that pulls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QLineEdit, QListWidget, QListWidgetItem, QSplitter, QVBoxLayout, QWidget

from app.models.problems import Problem
from app.models.sign_ins import header
from app.widgets.parts import Banner, button, copy, filter_field, label, row
from app.windows.context import Context
from app.windows.image_forms import pull_image
from backend.errors import InvalidArgument
from backend.spec.api.layers import Catalog, TagList
from backend.spec.reference import parse

PAGE = 200


class RegistryBrowser(QDialog):
    """Browses *host*. Where the registry lists nothing (Docker Hub), a repository's name can be typed."""

    def __init__(self, context: Context, parent: QWidget, host: str) -> None:
        super().__init__(parent)
        self.context, self.host = context, host
        self.repository = ""
        self._next = ""
        self.setWindowTitle(f"Browse {host}")
        self.resize(min(820, max(parent.width() - 60, 700)), min(560, max(parent.height() - 60, 460)))
        self.filter = filter_field("Filter what is listed")
        self.name = QLineEdit()
        self.name.setPlaceholderText("or type a repository: library/debian")
        self.name.setAccessibleName("Repository")
        self.repositories, self.tags = QListWidget(), QListWidget()
        self.repositories.setAccessibleName("Repositories")
        self.tags.setAccessibleName("Tags")
        self.more = button("More…", "down", "flat", self._load)
        self.more.hide()
        self.banner = Banner("warn")
        self.count, self.which = label("", "muted"), label("Choose a repository", "muted")
        self.pull = button("Pull", "download", "primary", self._pull)
        self.copy = button("Copy the name", "copy", "flat", lambda: copy(self.reference()))
        self._lay_out()
        self.filter.textChanged.connect(self._filter)
        self.name.returnPressed.connect(lambda: self.show_tags(self.name.text().strip()))
        self.repositories.itemSelectionChanged.connect(self._chosen)
        self.tags.itemSelectionChanged.connect(self._ready)
        self.tags.itemDoubleClicked.connect(lambda _item: self._pull())
        self._ready()
        self._load()

    def _lay_out(self) -> None:
        left, right = QWidget(), QWidget()
        for side, widgets in ((left, (self.count, self.repositories, self.more, self.name)),
                              (right, (self.which, self.tags))):
            inner = QVBoxLayout(side)
            inner.setContentsMargins(0, 0, 0, 0)
            inner.setSpacing(6)
            for widget in widgets:
                inner.addWidget(widget)
        split = QSplitter()
        split.addWidget(left)
        split.addWidget(right)
        split.setHandleWidth(14)
        split.setChildrenCollapsible(False)
        split.setStyleSheet("QSplitter::handle { background: transparent; }")
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(10)
        box.addLayout(row(label(self.host, "title"), None, self.filter))
        box.addWidget(self.banner)
        box.addWidget(split, 1)
        box.addLayout(row(self.copy, None, button("Close", clicked=self.reject), self.pull))

    # --- what the registry has --------------------------------------------------------------------------------------

    def _ask(self, what: str, work: Callable[[str], Awaitable[object]], then: Callable[..., object]) -> None:
        """Ask with the credentials that belong to the registry."""
        async def asked() -> object:
            return await work(await header(self.host))
        self.context.bridge.run(what, asked(), owner=self, then=then, failed=self._failed)

    def _failed(self, problem: Problem) -> None:
        self.banner.show_problem(problem)

    def _load(self) -> None:
        last = self._next
        self.count.setText("Asking…")
        self._ask(f"{self.host} does not show what it has",
                  lambda auth: self.context.client.registry_catalog(self.host, auth=auth, last=last, limit=PAGE),
                  self._show)

    def _show(self, found: Catalog) -> None:
        self.repositories.addItems(found.repositories)
        self._next = found.next
        self.more.setVisible(bool(found.next))
        total = self.repositories.count()
        self.count.setText(f"{total} repositor{'y' if total == 1 else 'ies'}{' so far' if found.next else ''}"
                           if total else "It has no repositories yet")
        self._filter(self.filter.text())

    def _chosen(self) -> None:
        for item in self.repositories.selectedItems()[:1]:
            self.show_tags(item.text())

    def show_tags(self, repository: str) -> None:
        """List the tags of a repository."""
        try:
            parse(f"{self.host}/{repository}")
        except InvalidArgument as error:
            self._failed(Problem("This is no repository's name", f"{error.message}."))
            return
        self.repository = repository
        self.banner.hide()
        self.tags.clear()
        self.which.setText(f"Tags of {repository}")
        self._ask(f"The tags of {repository} could not be listed",
                  lambda auth: self.context.client.registry_tags(self.host, repository, auth=auth), self._show_tags)

    def _show_tags(self, found: TagList) -> None:
        self.tags.clear()
        self.tags.addItems(sorted(found.tags, reverse=True))
        self.which.setText(f"{len(found.tags)} tag{'s' if len(found.tags) != 1 else ''} of {self.repository}")
        self._filter(self.filter.text())
        if self.tags.count():
            self.tags.setCurrentRow(0)

    def _filter(self, text: str) -> None:
        for listing in (self.repositories, self.tags):
            hits = set(map(id, listing.findItems(text, Qt.MatchFlag.MatchContains)))
            items: list[QListWidgetItem] = [listing.item(place) for place in range(listing.count())]
            shown = not text or bool(hits)
            for item in items:
                # A word that fits repositories must not empty the tags, and the other way round.
                item.setHidden(shown and bool(text) and id(item) not in hits)

    # --- what is done -----------------------------------------------------------------------------------------------

    def reference(self) -> str:
        """The image that is chosen, "" for none."""
        chosen = self.tags.selectedItems()
        return f"{self.host}/{self.repository}:{chosen[0].text()}" if chosen else ""

    def _ready(self) -> None:
        for widget in (self.pull, self.copy):
            widget.setEnabled(bool(self.tags.selectedItems()))

    def _pull(self) -> None:
        if reference := self.reference():
            pull_image(self.context, reference)
            self.accept()
