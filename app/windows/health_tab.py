"""The health of a container: how it is checked, how it is, and what the last probes said."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QBrush, QColor, QShowEvent
from PySide6.QtWidgets import QHeaderView, QPlainTextEdit, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app import theme
from app.widgets.parts import Banner, label
from app.windows.context import Context
from backend.spec import api

_OUTPUT = Qt.ItemDataRole.UserRole


class HealthTab(QWidget):
    """Asked for again whenever an event tells of a change of the container's health, and when it is shown."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.context, self.key = context, key
        self.state, self.how = label("", "heading"), label("", "muted", wrap=True, select=True)
        self.banner = Banner()
        self.probes = QTreeWidget()
        self.probes.setHeaderLabels(["Probe, the newest first", "Took", "Ended with", "It said"])
        self.probes.setRootIsDecorated(False)
        self.probes.setAccessibleName("Past probes")
        self.probes.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.probes.header().setStretchLastSection(True)
        self.output = QPlainTextEdit(readOnly=True)
        self.output.setObjectName("code")
        self.output.setFixedHeight(110)
        self.output.setAccessibleName("What the probe said")
        self.probes.itemSelectionChanged.connect(self._chosen)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 12, 0, 0)
        box.setSpacing(8)
        for widget in (self.banner, self.state, self.how):
            box.addWidget(widget)
        box.addWidget(self.probes, 1)
        box.addWidget(self.output)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.load()

    def load(self) -> None:
        """Ask how it is."""
        self.context.bridge.run("The health could not be read", self.context.client.inspect_container(self.key),
                                owner=self, then=self.show_container, failed=self.banner.show_problem)

    def show_container(self, found: api.ContainerInspect) -> None:
        """Show the health of an inspected container."""
        health, check = found.state.health, found.config.healthcheck
        there = isinstance(health, api.Health)
        self.state.setText({"healthy": "✓  Healthy", "unhealthy": "✗  Unhealthy", "starting": "…  Starting"}.get(
            health.status, health.status) if there else "It has no health check")  # type: ignore[union-attr]
        self.how.setText(_how(check) if isinstance(check, api.HealthConfig) else
                         "An image's HEALTHCHECK, docker run --health-cmd or a Compose file's healthcheck give it one.")
        rows = list(reversed(health.log)) if there and health.log else []  # type: ignore[union-attr]
        self.probes.clear()
        for one in rows:
            self._add(one)
        if rows:
            self.probes.setCurrentItem(self.probes.topLevelItem(0) or QTreeWidgetItem())
        self.probes.setVisible(bool(rows))
        self.output.setVisible(bool(rows))

    def _add(self, one: api.HealthResult) -> None:
        last = one.output.strip().splitlines()
        item = QTreeWidgetItem([one.start[:19].replace("T", " "), _took(one.start, one.end),
                                "0, healthy" if one.exit_code == 0 else str(one.exit_code), last[-1] if last else ""])
        item.setForeground(2, QBrush(QColor(theme.current().good if one.exit_code == 0 else theme.current().bad)))
        item.setData(0, _OUTPUT, one.output)
        self.probes.addTopLevelItem(item)

    def _chosen(self) -> None:
        for item in self.probes.selectedItems()[:1]:
            self.output.setPlainText(str(item.data(0, _OUTPUT)))


def _took(start: str, end: str) -> str:
    from datetime import datetime

    try:
        span = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    except ValueError:
        return ""
    return f"{span.total_seconds() * 1000:.0f} ms"


def _how(check: api.HealthConfig) -> str:
    words = check.test or []
    command = words[1] if words[:1] == ["CMD-SHELL"] and len(words) > 1 else " ".join(words[1:])
    parts = [command]
    times = (("every", check.interval), ("at most", check.timeout), ("not in the first", check.start_period))
    for name, value in times:
        if value:
            parts.append(f"{name} {value / 1e9:g} s")
    if check.retries:
        parts.append(f"unhealthy after {check.retries} failures")
    return "  ·  ".join(parts)
