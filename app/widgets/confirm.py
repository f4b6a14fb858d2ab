"""One question before something goes for good: what goes, in full, and a button that says what it does."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QDialog, QLabel, QVBoxLayout, QWidget

from app import theme
from app.widgets.parts import button, label, row

_SHOWN = 8


class Confirm(QDialog):
    """Ask once. `option` is the checkbox's answer, when there is one."""

    def __init__(self, parent: QWidget | None, title: str, text: str, things: Sequence[str], *, verb: str,
                 option: str = "") -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setModal(True)
        self.setMinimumWidth(430)
        picture = QLabel()
        theme.follow(picture, lambda: picture.setPixmap(theme.pixmap("trash", theme.current().bad, 24)))
        box = QVBoxLayout(self)
        box.setContentsMargins(22, 20, 22, 18)
        box.setSpacing(12)
        box.addLayout(row(picture, label(title, "heading"), None, spacing=10))
        box.addWidget(label(text, wrap=True))
        shown = [f"•  {thing}" for thing in things[:_SHOWN]]
        if len(things) > _SHOWN:
            shown.append(f"and {len(things) - _SHOWN} more")
        if shown:
            box.addWidget(label("\n".join(shown), "muted", wrap=True))
        self._option = QCheckBox(option)
        self._option.setVisible(bool(option))
        box.addWidget(self._option)
        box.addSpacing(4)
        cancel, do = button("Cancel", clicked=self.reject), button(verb, kind="danger", clicked=self.accept)
        box.addLayout(row(None, cancel, do))
        # Enter must not remove anything by accident.
        cancel.setFocus(Qt.FocusReason.OtherFocusReason)
        cancel.setDefault(True)

    @property
    def option(self) -> bool:
        """Whether the checkbox is ticked."""
        return self._option.isChecked()
