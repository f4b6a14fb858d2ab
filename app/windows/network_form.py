"""The form that makes a network."""

from __future__ import annotations

import ipaddress

from PySide6.QtWidgets import QCheckBox, QComboBox, QDialog, QGridLayout, QLineEdit, QVBoxLayout, QWidget

from app.models.problems import Problem, describe
from app.widgets.parts import Banner, button, grow, label, row
from app.windows.context import Context
from backend.errors import EngineError, InvalidArgument
from backend.spec import api


def network_body(name: str, driver: str, subnet: str, gateway: str, *, internal: bool, ipv6: bool) -> api.NetworkCreate:
    """The request that makes the network; :class:`InvalidArgument` says what cannot work before the engine is asked."""
    if not name.strip():
        raise InvalidArgument("a name is missing")
    if gateway and not subnet:
        raise InvalidArgument("a gateway needs the range that it is in")
    try:
        whole = ipaddress.ip_network(subnet) if subnet else None
        way_out = ipaddress.ip_address(gateway) if gateway else None
    except ValueError as error:
        raise InvalidArgument(f"{error}; a range is written like 172.30.0.0/24") from None
    if whole is not None and way_out is not None and way_out not in whole:
        raise InvalidArgument(f"{gateway} is not in {subnet}")
    ranges = [api.IpamConfig(subnet=subnet, gateway=gateway or api.UNSET)] if subnet else []
    return api.NetworkCreate(name=name.strip(), driver=driver, internal=internal, enable_ipv6=ipv6 or None,
                             ipam=api.Ipam(config=ranges), attachable=True)


class NetworkForm(QDialog):
    """Asks for a name and, where somebody cares, addresses; closes once the network is there."""

    def __init__(self, context: Context, parent: QWidget) -> None:
        super().__init__(parent)
        self.context = context
        self.setWindowTitle("New network")
        self.setMinimumWidth(480)
        self.name, self.subnet, self.gateway = QLineEdit(), QLineEdit(), QLineEdit()
        self.subnet.setPlaceholderText("chosen for you when empty")
        self.gateway.setPlaceholderText("the first address when empty")
        self.driver = QComboBox()
        for driver in ("bridge", "macvlan", "ipvlan"):
            self.driver.addItem(driver)
        self.internal = QCheckBox("Internal: containers on it reach each other and nothing else")
        self.ipv6 = QCheckBox("IPv6 addresses as well")
        self.banner = Banner()
        self.go = button("Create", "plus", "primary", self._go)
        self.go.setDefault(True)
        grid = QGridLayout()
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(10)
        fields: tuple[tuple[str, QWidget], ...] = (
            ("Name", self.name), ("Driver", self.driver), ("Address range", self.subnet), ("Gateway", self.gateway))
        for place, (text, field) in enumerate(fields):
            title = label(text, "muted")
            title.setBuddy(field)
            field.setAccessibleName(text)
            grid.addWidget(title, place, 0)
            grid.addWidget(field, place, 1)
        grid.addWidget(self.internal, len(fields), 1)
        grid.addWidget(self.ipv6, len(fields) + 1, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(24, 20, 24, 18)
        box.setSpacing(12)
        box.addWidget(label("New network", "title"))
        box.addWidget(self.banner)
        box.addLayout(grid)
        box.addLayout(row(None, button("Cancel", clicked=self.reject), self.go, margins=(0, 8, 0, 0)))
        self.name.textChanged.connect(lambda text: self.go.setEnabled(bool(text.strip())))
        self.go.setEnabled(False)
        self.name.setFocus()

    def _go(self) -> None:
        name = self.name.text().strip()
        try:
            body = network_body(
                name, self.driver.currentText(), self.subnet.text().strip(), self.gateway.text().strip(),
                internal=self.internal.isChecked(), ipv6=self.ipv6.isChecked())
        except EngineError as error:
            self._failed(describe(error, "The form is not complete"))
            return
        self.go.setEnabled(False)
        self.context.bridge.run(f"The network {name} could not be made", self.context.client.create_network(body),
                                then=lambda _made: self.accept(), failed=self._failed, owner=self)

    def _failed(self, problem: Problem) -> None:
        self.go.setEnabled(True)
        self.banner.show_problem(problem)
        grow(self)
