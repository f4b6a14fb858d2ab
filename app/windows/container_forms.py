"""The small dialogs about a container: limits and restart policy, a new image of it."""

from __future__ import annotations

from PySide6.QtWidgets import QComboBox, QDialog, QGridLayout, QLineEdit, QVBoxLayout, QWidget

from app.models.limits_form import shown_memory, update_body
from app.models.operations import Operation
from app.models.problems import Problem, describe
from app.models.rows import ContainerRow
from app.widgets.ask_name import AskName
from app.widgets.parts import Banner, button, grow, label, row
from app.windows.context import Context
from app.windows.run_form import RESTARTS
from backend.errors import EngineError
from backend.spec import api
from backend.spec.reference import parse


class LimitsForm(QDialog):
    """Changes what a container may use, and when it starts again; a running one goes on with the new limits."""

    def __init__(self, context: Context, parent: QWidget, one: ContainerRow) -> None:
        super().__init__(parent)
        self.context, self.key, self.name = context, one.id, one.name
        self.retries = 0
        self.setWindowTitle(f"Limits of {one.name}")
        self.setMinimumWidth(440)
        self.memory, self.cpus, self.pids = QLineEdit(), QLineEdit(), QLineEdit()
        self.memory.setPlaceholderText("no limit; 512m, 1.5g")
        self.cpus.setPlaceholderText("no limit; 1.5")
        self.pids.setPlaceholderText("no limit")
        self.restart = QComboBox()
        for text, value in RESTARTS:
            self.restart.addItem(text, value)
        self.banner = Banner()
        self.go = button("Change", kind="primary", clicked=self._go)
        self.go.setDefault(True)
        self.go.setEnabled(False)
        grid = QGridLayout()
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(10)
        fields: tuple[tuple[str, QWidget], ...] = (
            ("Memory", self.memory), ("Processors", self.cpus), ("Processes", self.pids), ("Restart", self.restart))
        for place, (text, field) in enumerate(fields):
            title = label(text, "muted")
            title.setBuddy(field)
            field.setAccessibleName(text)
            grid.addWidget(title, place, 0)
            grid.addWidget(field, place, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(12)
        box.addWidget(label(f"Limits of {one.name}", "title"))
        box.addWidget(label("They hold at once; nothing is restarted.", "muted"))
        box.addWidget(self.banner)
        box.addLayout(grid)
        box.addLayout(row(None, button("Cancel", clicked=self.reject), self.go, margins=(0, 8, 0, 0)))
        context.bridge.run("The limits could not be read", context.client.inspect_container(one.id), owner=self,
                           then=self._show, failed=self._failed)

    def _show(self, found: api.ContainerInspect) -> None:
        host = found.host_config
        self.memory.setText(shown_memory(host.memory))
        cpus = host.nano_cpus / 1e9 if host.nano_cpus else 0
        self.cpus.setText(f"{cpus:g}" if cpus else "")
        self.pids.setText(str(host.pids_limit) if host.pids_limit and host.pids_limit > 0 else "")
        self.restart.setCurrentIndex(max(self.restart.findData(host.restart_policy.name or "no"), 0))
        self.retries = host.restart_policy.maximum_retry_count
        self.go.setEnabled(True)

    def _go(self) -> None:
        try:
            body = update_body(self.memory.text(), self.cpus.text(), self.pids.text(), str(self.restart.currentData()),
                               self.retries)
        except EngineError as error:
            self._failed(describe(error, "The form is not complete"))
            return
        self.go.setEnabled(False)
        self.context.bridge.run(f"The limits of {self.name} could not be changed",
                                self.context.client.update_container(self.key, body), owner=self, then=self._done,
                                failed=self._failed)

    def _done(self, answer: api.ContainerUpdated) -> None:
        if answer.warnings:
            self.go.setEnabled(True)
            self._failed(Problem("They are changed, with a warning", "\n".join(answer.warnings)))
        else:
            self.accept()

    def _failed(self, problem: Problem) -> None:
        self.go.setEnabled(True)
        self.banner.show_problem(problem)
        grow(self)


def ask_commit(context: Context, parent: QWidget, one: ContainerRow) -> None:
    """Ask for a name, and make an image of the container as it is."""
    def commit(reference: str) -> None:
        async def work(operation: Operation) -> None:
            meant = parse(reference).with_default_tag()
            operation.report("Saving what differs from the image; it is paused meanwhile")
            await context.client.commit_container(one.id, meant.familiar_name, meant.tag)
        context.operate(f"Make {reference} of {one.name}", work)
    text = ("The image has what the container's image has and what was written in the container since, without its "
            "volumes.")
    AskName(parent, f"An image of {one.name}", text, f"{one.name}:latest", verb="Make the image", then=commit).open()


def ask_rename(context: Context, parent: QWidget, one: ContainerRow) -> None:
    """Ask for another name of a container."""
    def rename(name: str) -> None:
        context.bridge.run(f"{one.name} could not be renamed", context.client.rename_container(one.id, name))
    AskName(parent, f"Rename {one.name}", "", one.name, verb="Rename", then=rename).open()
