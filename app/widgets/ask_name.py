"""One line of text, asked for: a name."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QLineEdit, QVBoxLayout, QWidget

from app.widgets.parts import button, label, row


class AskName(QDialog):
    """Asks for a name; `then` gets it."""

    def __init__(self, parent: QWidget, title: str, text: str, value: str, *, verb: str,
                 then: Callable[[str], object]) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setMinimumWidth(420)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.field = QLineEdit(value)
        self.field.setAccessibleName(title)
        self.go = button(verb, kind="primary", clicked=self.accept)
        self.go.setDefault(True)
        self.go.setEnabled(bool(value))
        self.field.textChanged.connect(lambda said: self.go.setEnabled(bool(said.strip())))
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(12)
        box.addWidget(label(title, "title"))
        if text:
            box.addWidget(label(text, "muted", wrap=True))
        box.addWidget(self.field)
        box.addLayout(row(None, button("Cancel", clicked=self.reject), self.go, margins=(0, 6, 0, 0)))
        self.accepted.connect(lambda: then(self.field.text().strip()))
        self.field.setFocus()
        self.field.selectAll()
