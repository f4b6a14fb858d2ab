"""The form that runs an image, with the line that would do the same in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QFrame,
    QGridLayout,
    QLineEdit,
    QPlainTextEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.models.operations import Operation
from app.models.problems import describe
from app.models.pulling import run
from app.models.run_request import PortWish, RunRequest, VolumeWish
from app.widgets.parts import Banner, button, copy, icon_button, label, row
from app.windows.context import Context
from backend.errors import EngineError
from backend.spec import api

RESTARTS = (("Never", "no"), ("Always", "always"), ("Unless stopped by hand", "unless-stopped"),
             ("When it fails", "on-failure"))


class Rows(QWidget):
    """Lines of fields that can be added and taken away. The last field may be a switch."""

    changed = Signal()

    def __init__(self, fields: Sequence[str], add: str, switch: str = "") -> None:
        super().__init__()
        self.fields, self.switch = fields, switch
        self.lines: list[tuple[QWidget, list[QLineEdit], QCheckBox]] = []
        self.box = QVBoxLayout(self)
        self.box.setContentsMargins(0, 0, 0, 0)
        self.box.setSpacing(6)
        more = button(add, "plus", "flat", self.add)
        self.box.addLayout(row(more, None))

    def add(self, *values: str) -> None:
        """One more line."""
        line, edits, tick = QWidget(), [], QCheckBox(self.switch)
        for place, name in enumerate(self.fields):
            edit = QLineEdit(values[place] if place < len(values) else "")
            edit.setPlaceholderText(name)
            edit.setAccessibleName(name)
            edit.textChanged.connect(self.changed)
            edits.append(edit)
        tick.setVisible(bool(self.switch))
        tick.toggled.connect(self.changed)
        away = icon_button("close", "Take this line away")
        away.clicked.connect(lambda: self._remove(line))
        items = row(*edits, tick, away, spacing=6)
        line.setLayout(items)
        self.lines.append((line, edits, tick))
        self.box.insertWidget(self.box.count() - 1, line)
        if not values:
            edits[0].setFocus()
        self.changed.emit()

    def _remove(self, line: QWidget) -> None:
        self.lines = [one for one in self.lines if one[0] is not line]
        line.hide()
        line.deleteLater()
        self.changed.emit()

    def clear(self) -> None:
        """No lines."""
        for line, _, _ in list(self.lines):
            self._remove(line)

    def values(self) -> list[tuple[list[str], bool]]:
        """The lines that say anything."""
        found = [([edit.text().strip() for edit in edits], tick.isChecked()) for _, edits, tick in self.lines]
        return [one for one in found if any(one[0])]


class RunForm(QDialog):
    """Asks for image, name, command, ports, environment, volumes. The new container's page opens when it runs."""

    def __init__(self, context: Context, parent: QWidget, image: str = "") -> None:
        super().__init__(parent)
        self.context = context
        self.setWindowTitle("Run a container")
        self.resize(640, 700)
        self.image = QComboBox(editable=True)
        self.image.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.image.setAccessibleName("Image")
        edit = QLineEdit()
        edit.setPlaceholderText("for example debian:stable-slim")
        self.image.setLineEdit(edit)
        names = sorted({one.reference for one in context.mirror.images.rows() if one.name})
        self.image.addItems(names)
        self.image.setCurrentText(image or "")
        self.name, self.command = QLineEdit(), QLineEdit()
        self.name.setPlaceholderText("chosen for you when empty")
        self.command.setPlaceholderText("the image's own when empty")
        self.ports = Rows(("Port on this machine (empty: any free)", "Port in the container"), "Add a port")
        self.environment = Rows(("Variable", "Value"), "Add a variable")
        self.volumes = Rows(("Folder or volume", "Place in the container"), "Add a folder or volume", "read-only")
        self.restart = QComboBox()
        for text, value in RESTARTS:
            self.restart.addItem(text, value)
        self.remove_after = QCheckBox("Remove the container when it ends")
        self.terminal = QCheckBox("Give it a terminal (for shells)")
        self.line = QPlainTextEdit(readOnly=True)
        self.line.setObjectName("code")
        self.line.setFixedHeight(64)
        self.line.setAccessibleName("The same in a terminal")
        self.banner = Banner()
        self.go = button("Run", "play", "primary", self.run)
        self._lay_out()
        self._connect()
        self._refresh()
        (self.name if image else self.image).setFocus()
        if image:
            self._propose()

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(12)
        grid.setColumnStretch(1, 1)
        fields: list[tuple[str, QWidget]] = [
            ("Image", self.image), ("Name", self.name), ("Command", self.command), ("Ports", self.ports),
            ("Environment", self.environment), ("Volumes", self.volumes), ("Restart", self.restart)]
        for place, (text, widget) in enumerate(fields):
            title = label(text, "muted")
            title.setBuddy(widget)
            title.setContentsMargins(0, 7, 0, 0)
            grid.addWidget(title, place, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(widget, place, 1)
        grid.addWidget(self.terminal, len(fields), 1)
        grid.addWidget(self.remove_after, len(fields) + 1, 1)
        inner = QWidget()
        inner.setObjectName("content")
        inner_box = QVBoxLayout(inner)
        inner_box.setContentsMargins(24, 8, 24, 8)
        inner_box.addLayout(grid)
        inner_box.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(inner)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        copy_line = icon_button("copy", "Copy the line")
        copy_line.clicked.connect(lambda: copy(self.line.toPlainText()))
        cancel = button("Cancel", clicked=self.reject)
        foot = QVBoxLayout()
        foot.setContentsMargins(24, 8, 24, 18)
        foot.setSpacing(8)
        foot.addWidget(self.banner)
        foot.addLayout(row(label("The same in a terminal", "muted"), None, copy_line))
        foot.addWidget(self.line)
        foot.addLayout(row(None, cancel, self.go, margins=(0, 6, 0, 0)))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        heading = label("Run a container", "title")
        heading.setContentsMargins(24, 18, 24, 10)
        box.addWidget(heading)
        box.addWidget(scroll, 1)
        box.addLayout(foot)

    def _connect(self) -> None:
        self.image.editTextChanged.connect(self._refresh)
        self.image.textActivated.connect(lambda _text: self._propose())
        for edit in (self.name, self.command):
            edit.textChanged.connect(self._refresh)
        for rows in (self.ports, self.environment, self.volumes):
            rows.changed.connect(self._refresh)
        for tick in (self.terminal, self.remove_after):
            tick.toggled.connect(self._refresh)
        self.restart.currentIndexChanged.connect(self._refresh)
        self.go.setDefault(True)

    def fill(self, request: RunRequest) -> None:
        """Show what was asked for before."""
        self.image.setCurrentText(request.image)
        self.name.setText(request.name)
        self.command.setText(request.command)
        for rows in (self.ports, self.environment, self.volumes):
            rows.clear()
        for port in request.ports:
            self.ports.add(port.host, port.container if port.protocol == "tcp" else f"{port.container}/{port.protocol}")
        for name, value in request.environment:
            self.environment.add(name, value)
        for one in request.volumes:
            self.volumes.add(one.source, one.target)
            self.volumes.lines[-1][2].setChecked(one.read_only)
        self.restart.setCurrentIndex(max(self.restart.findData(request.restart), 0))
        self.remove_after.setChecked(request.remove_after)
        self.terminal.setChecked(request.terminal)

    def request(self) -> RunRequest:
        """What the form asks for now."""
        return RunRequest(
            image=self.image.currentText().strip(), name=self.name.text().strip(), command=self.command.text().strip(),
            ports=tuple(PortWish(host, *_port(inside)) for (host, inside), _ in self.ports.values()),
            environment=tuple((key, value) for (key, value), _ in self.environment.values()),
            volumes=tuple(VolumeWish(source, target, ro) for (source, target), ro in self.volumes.values()),
            restart=str(self.restart.currentData()), remove_after=self.remove_after.isChecked(),
            terminal=self.terminal.isChecked())

    def _refresh(self, *_: object) -> None:
        request = self.request()
        self.line.setPlainText(request.line())
        self.go.setEnabled(bool(request.image))

    def _propose(self) -> None:
        """Offer the ports that the image says it listens on."""
        self.context.bridge.run("The image could not be inspected", self._exposed(), owner=self, then=self._offer,
                                failed=lambda _problem: None)

    async def _exposed(self) -> list[str]:
        config = (await self.context.client.inspect_image(self.image.currentText())).config
        return sorted(config.exposed_ports) if config.exposed_ports is not api.UNSET else []

    def _offer(self, ports: list[str]) -> None:
        if not self.ports.values():
            self.ports.clear()
            for one in ports:
                number, _, protocol = one.partition("/")
                self.ports.add(number if int(number) > 1023 else "", number if protocol == "tcp" else one)

    def run(self) -> None:
        """Check the form and begin; the form closes once the engine has taken it on."""
        request = self.request()
        try:
            request.check()
        except EngineError as error:
            self.banner.show_problem(describe(error, "The form is not complete"))
            return
        ways = self.context.ways
        run_image(self.context, request, lambda key: ways.container.emit(key, ""))
        self.accept()


def run_image(context: Context, request: RunRequest, then: Callable[[str], object]) -> Operation:
    """Run *request* as an operation; *then* gets the new container's ID."""
    async def work(operation: Operation) -> None:
        key = await run(context.client, request, operation)
        then(key)
    operation = context.operate(f"Run {request.image}", work)
    operation.edit = partial(context.ways.run_again.emit, request)
    return operation


def _port(text: str) -> tuple[str, str]:
    number, _, protocol = text.partition("/")
    return number, protocol or "tcp"
