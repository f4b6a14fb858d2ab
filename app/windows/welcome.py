"""The first page of somebody who has no container yet: one button to a running page, with no registry in reach."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QLabel, QVBoxLayout, QWidget

from app import theme
from app.models.rows import WELCOME_IMAGE, ContainerRow
from app.models.run_request import PortWish, RunRequest
from app.widgets.parts import button, label, row, say
from app.windows.context import Context, open_link
from app.windows.run_form import run_image

NAME = "welcome"


class WelcomePage(QWidget):
    """Offers the sample, and what else one can begin with."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.setObjectName("page")
        self.context = context
        self.mark = QLabel(alignment=Qt.AlignmentFlag.AlignCenter)
        self.mark.setPixmap(theme.application_icon().pixmap(72, 72))
        self.title = label("Welcome to Slipway", "title")
        self.text = label("", "muted", wrap=True)
        for one in (self.title, self.text):
            one.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.text.setFixedWidth(470)
        self.go = button("Run the sample", "play", "primary", self._run)
        self.link = button("Open the sample", "window", "primary", self._open)
        ways = context.ways
        others = (
            ("download", "Pull an image", "From Docker Hub or a registry of your own", lambda: ways.pull_form.emit("")),
            ("stacks", "Open a Compose file", "See what it creates, then start it", lambda: ways.page.emit("stacks")),
            ("terminal", "Show the list", "What docker does in a terminal shows there at once",
             lambda: ways.page.emit("containers")))
        cards = row(None, *[self._card(*one) for one in others], None, spacing=14)
        box = QVBoxLayout(self)
        box.setContentsMargins(26, 20, 26, 20)
        box.setSpacing(14)
        box.addStretch(2)
        box.addWidget(self.mark)
        box.addWidget(self.title)
        box.addLayout(row(None, self.text, None))
        box.addLayout(row(None, self.go, self.link, None))
        box.addSpacing(26)
        box.addLayout(cards)
        box.addStretch(3)
        mirror = context.mirror
        for signal in (mirror.containers.rowsInserted, mirror.containers.rowsRemoved, mirror.containers.dataChanged,
                       mirror.images.rowsInserted, mirror.images.rowsRemoved, mirror.loaded):
            signal.connect(self.refresh)
        self.refresh()

    def _card(self, icon: str, title: str, text: str, clicked: object) -> QFrame:
        card = QFrame()
        card.setObjectName("card")
        card.setMinimumWidth(190)
        card.setMaximumWidth(230)
        picture = QLabel()
        theme.follow(picture, lambda: picture.setPixmap(theme.pixmap(icon, theme.current().accentText, 22)))
        go = button(title, clicked=clicked)  # type: ignore[arg-type]
        words = label(text, "muted", wrap=True)
        box = QVBoxLayout(card)
        box.setContentsMargins(16, 14, 16, 14)
        box.setSpacing(8)
        box.addWidget(picture)
        box.addWidget(words)
        box.addStretch(1)
        box.addWidget(go)
        return card

    def _sample(self) -> ContainerRow | None:
        rows = self.context.mirror.containers.rows()
        samples = (one for one in rows if one.image.split(":")[0] == WELCOME_IMAGE and one.running and one.ports)
        return next(samples, None)

    def refresh(self, *_: object) -> None:
        """Show whether the sample is there, and whether it runs."""
        sample = self._sample()
        # Slipway makes the sample's image when it is first asked for; another engine must have it.
        mirror = self.context.mirror
        there = mirror.is_slipway or any(one.name == WELCOME_IMAGE for one in mirror.images.rows())
        self.link.setVisible(sample is not None)
        self.go.setVisible(sample is None and there)
        if sample is not None:
            say(self.link, f"Open {sample.ports[0].url}")
            self.text.setText("The sample runs and serves a small page to this machine. Stop or remove it like any "
                              "other container.")
        elif there:
            self.text.setText("Your containers run straight on this machine's kernel. Start with the built-in sample: "
                              "a small web page in a container, ready at once and without a network.")
        elif mirror.is_loaded:
            self.text.setText("This engine does not have the built-in sample. Begin with an image or a Compose file.")

    def _run(self) -> None:
        names = {one.name for one in self.context.mirror.containers.rows()}
        name = NAME if NAME not in names else ""
        request = RunRequest(image=WELCOME_IMAGE, name=name, ports=(PortWish("", "80"),))
        run_image(self.context, request, lambda _key: None)

    def _open(self) -> None:
        if (sample := self._sample()) is not None:
            open_link(sample.ports[0].url)
