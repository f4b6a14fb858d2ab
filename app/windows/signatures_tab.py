"""Whether an image may run here, and who signed it at its registry."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app.models.problems import Problem
from app.models.pulling import credentials_for
from app.models.rows import ImageRow
from app.widgets.parts import Banner, button, label, row
from app.windows.context import Context
from backend.spec.api.trust import TrustSignatures, TrustVerdict


class SignaturesTab(QWidget):
    """The policy's verdict at once; the registry is asked only when somebody wants to know."""

    def __init__(self, context: Context, image: ImageRow) -> None:
        super().__init__()
        self.context, self.image = context, image
        self.verdict, self.reason = label("", "heading"), label("", "muted", wrap=True, select=True)
        self.banner = Banner("warn")
        self.found = label("", "muted", wrap=True, select=True)
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Signed by", "For", "Form"])
        self.tree.setRootIsDecorated(False)
        self.tree.setAccessibleName("Signatures")
        self.tree.header().setStretchLastSection(False)
        self.tree.header().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.tree.setColumnWidth(0, 240)
        self.tree.hide()
        self.look = button("Look for signatures at its registry", "key", "", self._look)
        self.look.setEnabled(bool(image.name))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 12, 0, 0)
        box.setSpacing(8)
        for widget in (self.banner, self.verdict, self.reason):
            box.addWidget(widget)
        box.addSpacing(6)
        box.addLayout(row(self.look, 6, self.found, None))
        box.addWidget(self.tree, 1)
        box.addStretch(0)
        box.setAlignment(Qt.AlignmentFlag.AlignTop)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.context.bridge.run("The trust policy could not be asked",
                                self.context.client.trust_verdict(self.image.reference), owner=self,
                                then=self._judged, failed=self.banner.show_problem)

    def _judged(self, found: TrustVerdict) -> None:
        self.verdict.setText("✓  It may run here" if found.allowed else "✗  It may not run here")
        self.reason.setText(found.reason or "This machine's trust policy allows it; `slipway trust policy` shows it.")

    def _look(self) -> None:
        self.banner.hide()
        self.look.setEnabled(False)
        self.found.setText("asking the registry…")
        self.context.bridge.run("The registry could not be asked for signatures", self._ask(), owner=self,
                                then=self._show, failed=self._failed)

    async def _ask(self) -> TrustSignatures:
        reference = self.image.reference
        return await self.context.client.trust_signatures(reference, auth=await credentials_for(reference))

    def _failed(self, problem: Problem) -> None:
        self.look.setEnabled(True)
        self.found.setText("")
        self.banner.show_problem(problem)

    def _show(self, found: TrustSignatures) -> None:
        self.look.setEnabled(True)
        count = len(found.signatures)
        self.found.setText(f"{count} signature{'s' if count != 1 else ''} of {found.digest[:19]}" if count else
                           f"Nobody has signed {found.digest[:19]} there.")
        self.tree.setVisible(bool(count))
        self.tree.clear()
        for one in found.signatures:
            by = ", ".join(one.keys) or "a key that the policy does not know"
            item = QTreeWidgetItem([by, one.reference, one.form])
            item.setToolTip(1, f"{one.reference}\n{one.digest}")
            self.tree.addTopLevelItem(item)
