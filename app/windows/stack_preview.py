"""What a Compose file would create, before anything is created: its parts as a tree, its plan as steps with reasons."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QPlainTextEdit, QSplitter, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app import theme
from app.models.operations import Operation
from app.models.problems import Problem
from app.models.pulling import credentials_for
from app.widgets.parts import Banner, button, icon_button, label, row
from app.windows.context import Context
from backend.compose import Plan, Progress, Project, Service, execute, load_project, observe, reconcile
from backend.errors import ServerError


@dataclass(frozen=True, slots=True)
class Preview:
    """A loaded file and what starting it would do now."""

    project: Project
    plan: Plan


async def preview(context: Context, paths: Sequence[str]) -> Preview:
    """Load the files as the user, look at the engine, make the plan. Changes nothing."""
    project = load_project(paths)
    return Preview(project, reconcile(project, await observe(context.client, project)))


async def carry_out(context: Context, plan: Plan, operation: Operation) -> None:
    """Carry a plan out, telling *operation* of each step; a failed step is raised with all that is known of it."""
    total, done = len(plan.steps), 0

    def tell(progress: Progress) -> None:
        nonlocal done
        done += progress.state in ("done", "failed")
        if progress.state in ("begun", "failed"):
            operation.say(f"{progress.step.operation}{': ' + progress.text if progress.text else ''}")
        operation.report(f"{progress.step.operation}{' – ' + progress.text if progress.text else ''}", done, total)
    report = await execute(context.client, plan, tell, credentials=credentials_for)
    if not report.ok:
        raise ServerError("; ".join(str(one) for one in report.failed))
    operation.report("All done" if total else "There was nothing to do")


class StackPreview(QWidget):
    """Shows one loaded file. `closed`: back to the list; `started`: the stack is on its way."""

    closed = Signal()
    started = Signal()

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.paths: list[str] = []
        self.shown: Preview | None = None
        self.back = icon_button("back", "Back to the stacks", "Alt+Left")
        self.back.clicked.connect(self.closed)
        self.name, self.file = label("", "heading", select=True), label("", "muted", select=True)
        self.parts = QTreeWidget()
        self.parts.setHeaderLabels(["What", "How"])
        self.parts.setAccessibleName("What the file describes")
        self.parts.setColumnWidth(0, 170)
        self.steps = QPlainTextEdit(readOnly=True)
        self.steps.setObjectName("code")
        self.steps.setAccessibleName("What will be done")
        self.steps.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.warnings = Banner("warn")
        self.banner = Banner()
        self.banner.retried.connect(lambda: self.open(self.paths))
        self.go = button("Start the stack", "play", "primary", self._start)
        self.again = button("Read the file again", "restart", "flat", lambda: self.open(self.paths))
        self.summary = label("", "muted")
        left, right = QWidget(), QWidget()
        sides = ((left, "The file describes", self.parts), (right, "What will be done, and why", self.steps))
        for side, title, widget in sides:
            box = QVBoxLayout(side)
            box.setContentsMargins(0, 0, 0, 0)
            box.setSpacing(6)
            box.addWidget(label(title, "muted"))
            box.addWidget(widget, 1)
        self.split = QSplitter()
        self.split.addWidget(left)
        self.split.addWidget(right)
        self.split.setHandleWidth(14)
        self.split.setChildrenCollapsible(False)
        self.split.setStyleSheet("QSplitter::handle { background: transparent; }")
        words = QVBoxLayout()
        words.setSpacing(1)
        words.addWidget(self.name)
        words.addWidget(self.file)
        top = row(self.back, 2)
        top.addLayout(words, 1)
        for one in (self.again, self.go):
            top.addWidget(one)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addLayout(top)
        box.addWidget(self.banner)
        box.addWidget(self.warnings)
        box.addWidget(self.split, 1)
        box.addWidget(self.summary)

    def open(self, paths: Sequence[str]) -> None:
        """Read the files and show what they mean."""
        self.paths = list(paths)
        self.file.setText(", ".join(paths))
        self.go.setEnabled(False)
        self.banner.hide()
        name = os.path.basename(paths[0]) if paths else "The file"
        self.context.bridge.run(f"{name} cannot be started", preview(self.context, self.paths), then=self.show_preview,
                                failed=self._failed, owner=self)

    def show_preview(self, shown: Preview) -> None:
        """Show a loaded file."""
        self.shown = shown
        project, plan = shown.project, shown.plan
        self.split.show()
        self.name.setText(project.name)
        self.parts.clear()
        self._fill(project)
        steps = [f"{step.number:>2}  {step.operation}\n      {step.cause}" for step in plan.steps]
        self.steps.setPlainText("\n".join(steps) or "Nothing: everything is as the file says.")
        warnings = [*project.warnings, *plan.warnings]
        self.warnings.setVisible(bool(warnings))
        if warnings:
            self.warnings.show_problem(Problem("Please note", "\n".join(warnings)), closable=True)
        count = len(plan.steps)
        self.summary.setText("Nothing is changed before you start it." if count else "The stack is as the file says.")
        self.go.setEnabled(count > 0)

    def _failed(self, problem: Problem) -> None:
        self.shown = None
        self.split.hide()
        self.warnings.hide()
        self.summary.setText("")
        self.name.setText(os.path.basename(self.paths[0]) if self.paths else "")
        self.banner.show_problem(problem, retry=True, closable=False)

    def _fill(self, project: Project) -> None:
        services = self._group("Services", len(project.services), "containers")
        for service in project.services:
            item = QTreeWidgetItem([service.name, service.image])
            services.addChild(item)
            for key, value in _facts(service):
                item.addChild(QTreeWidgetItem([key, value]))
            item.setExpanded(True)
        networks = self._group("Networks", len(project.networks), "stacks")
        for network in project.networks:
            networks.addChild(QTreeWidgetItem([network.key, network.name]))
        volumes = self._group("Volumes", len(project.volumes), "folder")
        for volume in project.volumes:
            volumes.addChild(QTreeWidgetItem([volume.key, volume.name]))

    def _group(self, title: str, count: int, icon: str) -> QTreeWidgetItem:
        item = QTreeWidgetItem([title, str(count)])
        item.setIcon(0, theme.icon(icon, theme.current().muted))
        self.parts.addTopLevelItem(item)
        item.setExpanded(True)
        return item

    def _start(self) -> None:
        if self.shown is None:
            return
        paths = self.paths

        async def work(operation: Operation) -> None:
            # Looked at again: the plan that was shown may be minutes old.
            fresh = await preview(self.context, paths)
            await carry_out(self.context, fresh.plan, operation)
        self.context.operate(f"Start the stack {self.shown.project.name}", work)
        self.started.emit()


def _facts(service: Service) -> list[tuple[str, str]]:
    """What is worth showing of a service. Values of variables may be secrets: only their names are shown."""
    facts = []
    if service.command:
        facts.append(("command", " ".join(service.command)))
    for port in service.ports:
        facts.append(("port", f"{port.published or 'any free'} → {port.target}/{port.protocol}"))
    if service.environment:
        facts.append(("environment", ", ".join(name for name, _ in service.environment)))
    for mount in service.mounts:
        suffix = " (read-only)" if mount.read_only else ""
        facts.append((mount.kind, f"{mount.source or 'new'} → {mount.target}{suffix}"))
    if service.networks:
        facts.append(("networks", ", ".join(use.network for use in service.networks)))
    if service.depends_on:
        facts.append(("after", ", ".join(one.service for one in service.depends_on)))
    if service.restart:
        facts.append(("restart", service.restart))
    return facts

