"""The page of registries: who is signed in where, and where the passwords are kept. No secret is ever shown."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QDialog, QFrame, QLabel, QLineEdit, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.models.problems import Problem
from app.models.sign_ins import HUB, SignIn, Storage, list_sign_ins, refusal, sign_in, sign_out, storage
from app.widgets.confirm import Confirm
from app.widgets.parts import Banner, Empty, button, grow, label, row
from app.windows.context import Context
from app.windows.page import Page
from backend.errors import InvalidArgument
from backend.spec.reference import parse


class SignInDialog(QDialog):
    """Asks for a registry, a name and a password; closes once the registry has accepted them and they are kept."""

    def __init__(self, context: Context, parent: QWidget, registry: str = "") -> None:
        super().__init__(parent)
        self.context = context
        self.setWindowTitle("Sign in to a registry")
        self.setMinimumWidth(460)
        self.registry, self.user, self.secret = QLineEdit(registry), QLineEdit(), QLineEdit()
        self.registry.setPlaceholderText(f"{HUB} when empty")
        self.secret.setEchoMode(QLineEdit.EchoMode.Password)
        self.banner = Banner()
        self.go = button("Sign in", "key", "primary", self._go)
        self.go.setDefault(True)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(7)
        box.addWidget(label("Sign in to a registry", "title"))
        box.addWidget(self.banner)
        fields = (("Registry", self.registry), ("User name", self.user), ("Password or access token", self.secret))
        for text, field in fields:
            title = label(text, "muted")
            title.setBuddy(field)
            title.setContentsMargins(0, 6, 0, 0)
            field.setAccessibleName(text)
            field.textChanged.connect(self._check)
            box.addWidget(title)
            box.addWidget(field)
        self.kept = label("", "muted", wrap=True)
        self.kept.setContentsMargins(0, 8, 0, 0)
        box.addWidget(self.kept)
        box.addLayout(row(None, button("Cancel", clicked=self.reject), self.go, margins=(0, 10, 0, 0)))
        self._check()
        context.bridge.run("The keyring could not be asked", storage(), then=self._storage, owner=self,
                           failed=self.banner.show_problem)

    def _storage(self, where: Storage) -> None:
        self.kept.setText(where.text)
        grow(self)

    def _check(self) -> None:
        self.go.setEnabled(bool(self.user.text().strip() and self.secret.text()))

    def _go(self) -> None:
        self.banner.hide()
        self.go.setEnabled(False)
        registry = self.registry.text().strip() or HUB
        work = sign_in(self.context.client, registry, self.user.text().strip(), self.secret.text())
        self.context.bridge.run(f"Sign-in to {registry} failed", work, then=lambda _done: self.accept(),
                                failed=self._failed, owner=self)

    def _failed(self, problem: Problem) -> None:
        self._check()
        self.banner.show_problem(problem)
        grow(self)


class RegistriesPage(Page):
    """All sign-ins."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Registries")
        self.place = QLineEdit()
        self.place.setPlaceholderText("registry.example.com, or docker.io")
        self.place.setAccessibleName("Registry to browse")
        self.place.setMinimumWidth(250)
        self.place.returnPressed.connect(self._browse_typed)
        self.add = button("Sign in…", "plus", "primary", partial(self.ask, ""))
        self.head.addWidget(self.place)
        self.head.addWidget(button("Browse", "search", "", self._browse_typed))
        self.head.addWidget(self.add)
        self.where = label("", "muted", wrap=True)
        self.cards = QVBoxLayout()
        self.cards.setSpacing(10)
        self.cards.setAlignment(Qt.AlignmentFlag.AlignTop)
        inner = QWidget()
        inner.setObjectName("content")
        inner.setLayout(self.cards)
        self.cards.setContentsMargins(0, 4, 0, 4)
        self.area = QScrollArea()
        self.area.setWidgetResizable(True)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.setWidget(inner)
        self.empty = Empty("registries", "Not signed in anywhere", "Public images need no sign-in. For private ones, "
                           "sign in to their registry here or with docker login; pulls and Compose use it.",
                           button("Sign in…", "key", "primary", partial(self.ask, "")))
        self.body.addWidget(self.area, 1)
        self.body.addWidget(self.empty, 1)
        self.body.addWidget(self.where)
        self._show([])

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.reload()

    def reload(self) -> None:
        """Read the sign-ins again; a terminal may have changed them."""
        run = self.context.bridge.run
        run("The sign-ins could not be read", list_sign_ins(), then=self._show, owner=self, failed=self.show_problem)
        run("The keyring could not be asked", storage(), then=lambda one: self.where.setText(one.text), owner=self,
            failed=self.show_problem)

    def ask(self, registry: str) -> None:
        """Open the form."""
        dialog = SignInDialog(self.context, self.window(), registry)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.accepted.connect(self.reload)
        dialog.open()

    def _show(self, found: list[SignIn]) -> None:
        while (item := self.cards.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        for one in found:
            self.cards.addWidget(self._card(one))
        self.area.setVisible(bool(found))
        self.empty.setVisible(not found)
        self.add.setVisible(bool(found))
        self.subtitle.setText(f"signed in to {len(found)}" if found else "")

    def _card(self, one: SignIn) -> QFrame:
        card = QFrame()
        card.setObjectName("card")
        picture = QLabel()
        theme.follow(picture, lambda: picture.setPixmap(theme.pixmap("key", theme.current().accentText, 22)))
        words = QVBoxLayout()
        words.setSpacing(2)
        words.addWidget(label(one.registry, "heading", select=True))
        kept = label(f"{one.user or 'by a token'}  ·  {one.kept}", "muted", wrap=True)
        kept.setMinimumWidth(120)
        words.addWidget(kept)
        state = label("asking the registry…", "muted", wrap=True)
        words.addWidget(state)
        box = row(picture, 6, margins=(16, 12, 12, 12))
        box.addLayout(words, 1)
        box.addWidget(button("Browse…", "search", "flat", partial(self.browse, one.registry)))
        box.addWidget(button("Sign in again…", "", "flat", partial(self.ask, one.registry)))
        box.addWidget(button("Sign out", "", "", partial(self._ask_out, one)))
        card.setLayout(box)
        self.context.bridge.run(f"{one.registry} could not be asked", refusal(self.context.client, one.registry),
                                then=partial(self._say_state, state), owner=state)
        return card

    @staticmethod
    def _say_state(state: QLabel, said: str) -> None:
        state.setText(f"✗  {said}" if said else "✓  accepted by the registry")
        theme.follow(state, lambda: state.setStyleSheet(
            f"color: {theme.current().bad if said else theme.current().good};"))

    def browse(self, registry: str) -> None:
        """Show what a registry has."""
        from app.windows.registry_browser import RegistryBrowser
        dialog = RegistryBrowser(self.context, self.window(), registry)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _browse_typed(self) -> None:
        host = self.place.text().strip().removeprefix("https://").removeprefix("http://").strip("/") or HUB
        try:
            parse(f"{host}/x")
        except InvalidArgument as error:
            self.show_problem(Problem(f"{host} is no registry's name", f"{error.message}."))
            return
        self.browse(host)

    def _ask_out(self, one: SignIn) -> None:
        dialog = Confirm(self.window(), f"Sign out of {one.registry}?", "The password is forgotten on this machine. "
                         "Private images there cannot be pulled until you sign in again.", [], verb="Sign out")

        def answered(result: int) -> None:
            dialog.deleteLater()
            if result == QDialog.DialogCode.Accepted:
                self.context.bridge.run(f"Sign-out of {one.registry} failed", sign_out(one.registry), owner=self,
                                        then=lambda _done: self.reload(), failed=self.show_problem)
        dialog.finished.connect(answered)
        dialog.open()
