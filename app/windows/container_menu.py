"""What else can be done to a container: the entries that the table's menu and the container's page share."""

from __future__ import annotations

from functools import partial

from PySide6.QtWidgets import QMenu, QWidget

from app import theme
from app.widgets.parts import copy
from app.windows.actions import ContainerActions
from app.windows.context import Context


def fill_more(menu: QMenu, context: Context, parent: QWidget, doer: ContainerActions, key: str) -> None:
    """Add pause, rename, limits, a new image, and what can be copied of one container."""
    one = context.mirror.containers.get(key)
    if one is None:
        return
    from app.windows.container_forms import LimitsForm, ask_commit, ask_rename

    def limits() -> None:
        LimitsForm(context, parent.window(), one).open()
    icon, window = theme.icon, parent.window()
    if doer.possible("pause", [key]):
        menu.addAction(icon("pause"), "Pause", partial(doer.do, "pause", [key]))
    if doer.possible("unpause", [key]):
        menu.addAction(icon("play"), "Resume", partial(doer.do, "unpause", [key]))
    menu.addAction(icon("chart"), "Limits and restart…", limits)
    menu.addAction(icon("edit"), "Rename…", partial(ask_rename, context, window, one))
    menu.addAction(icon("images"), "Make an image of it…", partial(ask_commit, context, window, one))
    menu.addSeparator()
    menu.addAction(icon("copy"), "Copy the ID", partial(copy, one.id))
    menu.addAction(icon("copy"), "Copy the name", partial(copy, one.name))
