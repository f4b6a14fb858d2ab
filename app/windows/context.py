"""What all pages share, handed to each of them: the engine, its mirror, the bridge, and the ways between pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from PySide6.QtCore import QObject, QUrl, Signal
from PySide6.QtGui import QDesktopServices

from app.bridge import Bridge
from app.models.mirror import Mirror
from app.models.operations import Operation, Operations
from app.settings import Preferences
from backend.client import Client


class Ways(QObject):
    """Requests to show something. The main window answers them."""

    page = Signal(str)
    container = Signal(str, str)
    log_window = Signal(str)
    run_form = Signal(str)
    pull_form = Signal(str)
    prune = Signal(str)
    stack = Signal(str)
    run_again = Signal(object)


@dataclass(slots=True)
class Context:
    """One engine and one window on it."""

    client: Client
    mirror: Mirror
    bridge: Bridge
    operations: Operations
    preferences: Preferences
    ways: Ways

    def operate(self, title: str, work: Callable[[Operation], Awaitable[None]]) -> Operation:
        """Begin a long action and show it until the user has seen its end."""
        operation = Operation(title, work)
        self.operations.add(operation)
        self.bridge.operate(operation)
        return operation


def open_link(url: str) -> None:
    """A published port in the user's browser."""
    QDesktopServices.openUrl(QUrl(url))
