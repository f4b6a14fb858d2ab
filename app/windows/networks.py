"""The page of networks: a live map to connect and disconnect on, and a list with what the map does not say."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, QRect, Qt
from PySide6.QtGui import QKeySequence, QPainter, QShortcut
from PySide6.QtWidgets import QButtonGroup, QDialog, QMenu, QStackedWidget

from app import theme
from app.models.containers import CPU
from app.models.netmap import net_map
from app.models.networks import ACTIONS, NAME, SUBNETS, NetworkRow
from app.models.rows import ContainerRow
from app.widgets.confirm import Confirm
from app.widgets.netmap import NetMapView
from app.widgets.parts import button, copy, label, row
from app.widgets.tables import Action, CleanTable, Hit, RowDelegate
from app.windows.context import Context, open_link
from app.windows.network_form import NetworkForm
from app.windows.page import Page
from app.windows.prune import PruneDialog, Rubbish
from backend.spec import api


class NetworkDelegate(RowDelegate):
    """Paints a network's row."""

    def special(self, painter: QPainter, area: QRect, row: NetworkRow, column: int) -> bool:
        if column != ACTIONS:
            return False
        self.actions(painter, area, self._actions(row))
        return True

    def hits(self, area: QRect, row: NetworkRow, column: int) -> list[Hit]:
        return self.action_hits(area, self._actions(row)) if column == ACTIONS else []

    def strong(self, row: NetworkRow, column: int) -> bool:
        return column == NAME

    def _actions(self, row: NetworkRow) -> list[Action]:
        return [] if row.built_in else [Action("remove", "trash", f"Remove {row.name}")]


class NetworksPage(Page):
    """All networks of the engine."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, "Networks")
        mirror = context.mirror
        self.map = NetMapView()
        self.table = CleanTable(mirror.networks, "Networks")
        self.table.dress((0, 110, 0, 0, 60), NetworkDelegate(self.table), NAME, spare=(SUBNETS,))
        self.home = self.map
        self.stack = QStackedWidget()
        for widget in (self.map, self.table):
            self.stack.addWidget(widget)
        self.as_map, self.as_list = button("Map", "networks", "flat"), button("List", "logs", "flat")
        group = QButtonGroup(self)
        for one in (self.as_map, self.as_list):
            one.setCheckable(True)
            group.addButton(one)
        self.as_map.setChecked(True)
        group.buttonClicked.connect(lambda _one: self._show())
        self.hint = label("Drag a container onto a network to connect it; its menu disconnects it.", "muted")
        self.head.addWidget(button("Clean up…", "broom", "", self._prune))
        self.head.addWidget(button("New network…", "plus", "primary", self._new))
        self.body.addLayout(row(self.as_map, self.as_list, None, self.hint, spacing=2))
        self.body.addSpacing(4)
        self.body.addWidget(self.stack, 1)
        self.map.connect_wanted.connect(self._connect_by_drag)
        self.map.menu_wanted.connect(self._map_menu)
        self.map.opened.connect(lambda key: context.ways.container.emit(key, ""))
        self.map.linked.connect(open_link)
        self.table.acted.connect(lambda _action, key: self._ask_remove([key]))
        self.table.customContextMenuRequested.connect(self._table_menu)
        QShortcut(QKeySequence("Del"), self.table, lambda: self._ask_remove(self.table.chosen()),
                  context=Qt.ShortcutContext.WidgetShortcut)
        again = self.soon(self._changed)
        for model in (mirror.networks, mirror.containers):
            for signal in (model.rowsInserted, model.rowsRemoved):
                signal.connect(again)
        mirror.networks.dataChanged.connect(again)
        mirror.containers.dataChanged.connect(lambda first, *_: again() if first.column() < CPU else None)
        mirror.follow("network")
        self._changed()

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _changed(self, *_: Any) -> None:
        rows = self.context.mirror.networks.rows()
        self.map.show_map(net_map(rows, self.context.mirror.containers.rows()))
        self.subtitle.setText(f"{len(rows)} network{'s' if len(rows) != 1 else ''}" if rows else "")
        self._show()

    def _show(self) -> None:
        mapped = self.as_map.isChecked()
        self.hint.setVisible(mapped)
        self.home = self.map if mapped else self.table
        self.stack.setCurrentWidget(self.home)

    def _members(self, network: NetworkRow) -> list[ContainerRow]:
        return [one for one in self.context.mirror.containers.rows()
                if any(place.network == network.name for place in one.networks)]

    # --- what is done -----------------------------------------------------------------------------------------------

    def _connect_by_drag(self, container: str, network: str) -> None:
        self.connect_container(container, network)

    def connect_container(self, container: str, network: str) -> None:
        """Connect a container to a network; the map shows it when the engine says so."""
        where = self.context.mirror.networks.get(network)
        what = self.context.mirror.containers.get(container)
        if where is not None and what is not None:
            self.context.bridge.run(
                f"{what.name} could not be connected to {where.name}",
                self.context.client.connect_network(network, api.NetworkConnect(container=container)),
                failed=lambda problem: self.show_problem(problem, partial(self.connect_container, container, network)))

    def disconnect_container(self, container: str, network: str) -> None:
        """Take a container off a network."""
        where = self.context.mirror.networks.get(network)
        what = self.context.mirror.containers.get(container)
        again = partial(self.disconnect_container, container, network)
        if where is not None and what is not None:
            self.context.bridge.run(
                f"{what.name} could not be disconnected from {where.name}",
                self.context.client.disconnect_network(network, api.NetworkDisconnect(container=container)),
                failed=lambda problem: self.show_problem(problem, again))

    def _map_menu(self, kind: str, key: str, place: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        if kind == "container":
            self._container_menu(menu, key)
        else:
            self._network_menu(menu, key)
        menu.popup(place)

    def _container_menu(self, menu: QMenu, key: str) -> None:
        container = self.context.mirror.containers.get(key)
        if container is None:
            return
        here = {one.network for one in container.networks}
        menu.addAction(theme.icon("info"), "Open", lambda: self.context.ways.container.emit(key, ""))
        for link in container.ports:
            if link.url:
                menu.addAction(theme.icon("window"), f"Open {link.url}", partial(open_link, link.url))
        menu.addSeparator()
        others = [one for one in self.context.mirror.networks.rows() if one.name not in here and one.takes_more]
        to = menu.addMenu(theme.icon("link"), "Connect to")
        to.setEnabled(bool(others))
        for one in others:
            to.addAction(one.name, partial(self.connect_container, key, one.id))
        for one in self.context.mirror.networks.rows():
            if one.name in here and one.takes_more:
                menu.addAction(theme.icon("unlink"), f"Disconnect from {one.name}",
                               partial(self.disconnect_container, key, one.id))
        menu.addSeparator()
        for place in container.networks:
            if place.address:
                menu.addAction(theme.icon("copy"), f"Copy {place.address}", partial(copy, place.address))

    def _network_menu(self, menu: QMenu, key: str) -> None:
        network = self.context.mirror.networks.get(key)
        if network is None:
            return
        here = {one.id for one in self._members(network)}
        others = [one for one in self.context.mirror.containers.rows() if one.id not in here]
        add = menu.addMenu(theme.icon("link"), "Connect a container")
        add.setEnabled(bool(others) and network.takes_more)
        for one in others:
            add.addAction(one.name, partial(self.connect_container, one.id, key))
        menu.addAction(theme.icon("copy"), "Copy the ID", partial(copy, key))
        menu.addSeparator()
        remove = menu.addAction(theme.icon("trash"), "Remove…", partial(self._ask_remove, [key]))
        remove.setEnabled(not network.built_in)

    def _table_menu(self, point: QPoint) -> None:
        if chosen := self.table.chosen():
            self._map_menu("network", chosen[0], self.table.viewport().mapToGlobal(point))

    def _new(self) -> None:
        dialog = NetworkForm(self.context, self.window())
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _ask_remove(self, keys: list[str]) -> None:
        found = [one for one in map(self.context.mirror.networks.get, keys) if one is not None and not one.built_in]
        if not found:
            return
        title = f"Remove the network {found[0].name}?" if len(found) == 1 else f"Remove {len(found)} networks?"
        things = [f"{one.name}{_users(self._members(one))}" for one in found]
        dialog = Confirm(self.window(), title, "Containers that are on it have to be disconnected first.", things,
                         verb="Remove")

        def answered(result: int) -> None:
            dialog.deleteLater()
            if result == QDialog.DialogCode.Accepted:
                for one in found:
                    self._remove(one)
        dialog.finished.connect(answered)
        dialog.open()

    def _remove(self, network: NetworkRow) -> None:
        self.context.bridge.run(f"{network.name} could not be removed", self.context.client.remove_network(network.id),
                                failed=lambda problem: self.show_problem(problem, partial(self._remove, network)))

    def _prune(self) -> None:
        client = self.context.client
        items = [Rubbish(one.name, "no container is on it", -1, partial(client.remove_network, one.id))
                 for one in self.context.mirror.networks.rows() if not one.built_in and not self._members(one)]
        dialog = PruneDialog(self.context, self.window(), "Clean up networks",
                             "No container, running or not, is on these networks.", items)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()


def _users(found: list[ContainerRow]) -> str:
    return f"  (used by {', '.join(one.name for one in found)})" if found else ""
