"""The small dialogs about images: pull, push, another name."""

from __future__ import annotations

from functools import partial

from PySide6.QtWidgets import QDialog, QLineEdit, QVBoxLayout, QWidget

from app.models.operations import Operation
from app.models.problems import Problem
from app.models.pulling import pull, push
from app.models.rows import ImageRow
from app.widgets.parts import Banner, button, grow, label, row
from app.windows.context import Context
from backend.errors import InvalidArgument
from backend.spec.reference import Reference, parse


class NameDialog(QDialog):
    """Asks for an image's name. Subclasses say what for, and what happens then."""

    title = ""
    text = ""
    verb = ("", "")

    def __init__(self, context: Context, parent: QWidget, reference: str) -> None:
        super().__init__(parent)
        self.context = context
        self.setWindowTitle(self.title)
        self.setMinimumWidth(480)
        self.field = QLineEdit(reference)
        self.field.setPlaceholderText("debian:stable-slim, or registry.example.com/team/app:1.2")
        self.field.setAccessibleName("Image")
        self.banner = Banner()
        self.go = button(*self.verb, "primary", self._go)
        self.go.setDefault(True)
        self.field.textChanged.connect(lambda text: self.go.setEnabled(bool(text.strip())))
        self.go.setEnabled(bool(reference))
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(12)
        box.addWidget(label(self.title, "title"))
        box.addWidget(label(self.text, "muted", wrap=True))
        box.addWidget(self.banner)
        box.addWidget(self.field)
        box.addLayout(row(None, button("Cancel", clicked=self.reject), self.go, margins=(0, 6, 0, 0)))
        self.field.setFocus()

    def _go(self) -> None:
        try:
            parse(self.field.text().strip())
        except InvalidArgument as error:
            self.refuse(Problem("This is no image's name", f"{error.message}."))
            return
        self.done_with(self.field.text().strip())

    def done_with(self, reference: str) -> None:
        """What to do with the name."""
        raise NotImplementedError

    def refuse(self, problem: Problem) -> None:
        """Say why not, and stay."""
        self.banner.show_problem(problem)
        grow(self)


class PullDialog(NameDialog):
    """Asks for a name; the progress shows in the window, where one can go on."""

    title = "Pull an image"
    text = ("Name, with a tag after a colon. Without a registry's name it comes from Docker Hub; private ones need a "
            "sign-in under Registries.")
    verb = ("Pull", "download")

    def done_with(self, reference: str) -> None:
        pull_image(self.context, reference)
        self.accept()


class TagDialog(NameDialog):
    """Gives an image another name; the name decides to which registry a push goes."""

    title = "Another name"
    text = ("The image keeps the names that it has. A name that begins with a registry says where a push brings it.")
    verb = ("Add the name", "tag")

    def __init__(self, context: Context, parent: QWidget, image: ImageRow) -> None:
        super().__init__(context, parent, f"{image.name}:" if image.name else "")
        self.image = image

    def done_with(self, reference: str) -> None:
        meant = parse(reference).with_default_tag()
        work = self.context.client.tag_image(self.image.id, meant.familiar_name, meant.tag)
        self.context.bridge.run("The name could not be added", work, then=lambda _done: self.accept(),
                                failed=self.refuse, owner=self)


class PushDialog(NameDialog):
    """Pushes an image, under another name if that is what is wanted."""

    title = "Push an image"
    text = ("The name says where to: without a registry's name it goes to Docker Hub. A name that the image does not "
            "have yet is added to it first.")
    verb = ("Push", "push")

    def __init__(self, context: Context, parent: QWidget, image: ImageRow) -> None:
        super().__init__(context, parent, image.reference if image.name else "")
        self.image = image

    def done_with(self, reference: str) -> None:
        push_image(self.context, self.image, parse(reference).with_default_tag())
        self.accept()


def pull_image(context: Context, reference: str) -> Operation:
    """Pull *reference* as an operation."""
    return context.operate(f"Pull {reference}", partial(pull, context.client, reference))


def push_image(context: Context, image: ImageRow, meant: Reference) -> Operation:
    """Push *image* as *meant*, as an operation."""
    async def work(operation: Operation) -> None:
        if meant.familiar != image.reference:
            await context.client.tag_image(image.id, meant.familiar_name, meant.tag)
        await push(context.client, meant, operation)
    return context.operate(f"Push {meant.familiar}", work)
