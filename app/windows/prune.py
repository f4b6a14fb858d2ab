"""What would go, before anything goes: a list with sizes to tick, the sum of what is freed, and one button.

The engine's own prune decides by itself at that moment what goes; here exactly what was shown is removed, one by one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app.models.operations import Operation
from app.models.rows import size_text
from app.widgets.parts import button, label, row, say
from app.windows.context import Context
from backend.errors import EngineError, NotFound, ServerError


@dataclass(frozen=True, slots=True)
class Rubbish:
    """Something that nobody needs. `size`: bytes that its removal frees, -1 when unknown. `remove` does it."""

    name: str
    about: str
    size: int
    remove: Callable[[], Awaitable[object]]
    wanted: bool = True


class PruneDialog(QDialog):
    """Shows *items* ticked; removes those that stay ticked, as an operation."""

    def __init__(self, context: Context, parent: QWidget, title: str, text: str, items: Sequence[Rubbish]) -> None:
        super().__init__(parent)
        self.context, self.items = context, items
        self.setWindowTitle(title)
        self.setModal(True)
        self.resize(640, 460)
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["What", "Why nobody needs it", "Frees"])
        self.tree.setRootIsDecorated(False)
        self.tree.setAccessibleName(title)
        self.tree.setColumnWidth(0, 290)
        self.tree.setColumnWidth(1, 190)
        for one in items:
            item = QTreeWidgetItem([one.name, one.about, size_text(one.size) if one.size >= 0 else "–"])
            item.setToolTip(0, one.name)
            item.setTextAlignment(2, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setCheckState(0, Qt.CheckState.Checked if one.wanted else Qt.CheckState.Unchecked)
            self.tree.addTopLevelItem(item)
        self.sum = label("", "heading")
        self.go = button("Remove", kind="danger", clicked=self._go)
        cancel = button("Cancel", clicked=self.reject)
        cancel.setDefault(True)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(12)
        box.addWidget(label(title, "title"))
        said = text if items else "Nothing here is unused: there is nothing to clean up."
        box.addWidget(label(said, "muted", wrap=True))
        box.addWidget(self.tree, 1)
        box.addLayout(row(self.sum, None, cancel, self.go))
        self.tree.setVisible(bool(items))
        self.go.setVisible(bool(items))
        if not items:
            box.addStretch(1)
            self.resize(460, 150)
        self.tree.itemChanged.connect(lambda *_: self._count())
        self._count()

    def chosen(self) -> list[Rubbish]:
        """What is ticked."""
        return [one for place, one in enumerate(self.items)
                if (item := self.tree.topLevelItem(place)) and item.checkState(0) == Qt.CheckState.Checked]

    def _count(self) -> None:
        chosen = self.chosen()
        freed = sum(one.size for one in chosen if one.size > 0)
        self.sum.setText(f"Frees {size_text(freed)}" if any(one.size >= 0 for one in chosen) else "")
        say(self.go, f"Remove {len(chosen)}", icon=False)
        self.go.setEnabled(bool(chosen))

    def _go(self) -> None:
        remove_all(self.context, self.windowTitle(), self.chosen())
        self.accept()


def remove_all(context: Context, title: str, chosen: Sequence[Rubbish]) -> Operation:
    """Remove *chosen* one after the other; what is refused is told at the end, the others go."""
    async def work(operation: Operation) -> None:
        refused = []
        for number, one in enumerate(chosen):
            operation.report(f"Removing {one.name}", number, len(chosen))
            try:
                await one.remove()
                operation.say(f"removed {one.name}")
            except NotFound:
                operation.say(f"{one.name} was gone already")
            except EngineError as error:
                refused.append(f"{one.name}: {error.message}")
                operation.say(refused[-1])
        if refused:
            raise ServerError("; ".join(refused))
    return context.operate(title, work)
