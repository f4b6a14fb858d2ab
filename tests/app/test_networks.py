"""The map of networks tells who is where, and a card dropped on a network connects."""

from __future__ import annotations

import asyncio

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QTest

from app.models.netmap import net_map
from app.models.networks import NetworkRow
from app.models.rows import Attachment, container_row
from app.windows.context import Context
from app.windows.main import MainWindow
from app.windows.network_form import network_body
from app.windows.prune import PruneDialog
from backend.errors import Forbidden, InvalidArgument
from backend.spec import api
from tests.app.conftest import Run, until
from tests.app.test_window import left, opened
from tests.fakes.engine import FakeEngine


def network(name: str, driver: str = "bridge") -> NetworkRow:
    return NetworkRow(f"id-{name}", name, driver, ("10.0.0.0/24",), (), False, "")


def container(name: str, *networks: str):
    import dataclasses

    row = container_row(api.ContainerSummary(id=name * 8, names=[f"/{name}"], image="i", image_id="s", command="", created=0, state="running"))
    return dataclasses.replace(row, networks=tuple(Attachment(one, f"id-{one}", "10.0.0.2") for one in networks))


def test_every_container_stands_on_each_of_its_networks_and_on_nobody_else() -> None:
    networks = [network("bridge"), network("front"), network("back"), network("host", "host")]
    containers = [container("web", "front", "back"), container("db", "back"), container("lone", "bridge"), container("none")]
    found = net_map(networks, containers)
    assert [bar.network.name for bar in found.bars] == ["back", "front", "bridge"], "the engine's own come last, unused ones not at all"
    places = {card.container.name: [found.bars[joint.bar].network.name for joint in card.joints] for card in found.cards}
    assert places == {"web": ["back", "front"], "db": ["back"], "lone": ["bridge"]}
    for card in found.cards:
        rows = range(card.joints[0].bar, card.joints[-1].bar + 1)
        others = [one for one in found.cards if one is not card and one.column == card.column]
        assert not any(joint.bar in rows for one in others for joint in one.joints), "no line runs through a card"
    assert found.columns == 2


def test_a_hundred_containers_on_ten_networks_need_ten_columns() -> None:
    networks = [network(f"n{number}") for number in range(10)]
    found = net_map(networks, [container(f"c{number:03}", f"n{number % 10}") for number in range(100)])
    assert found.columns == 10 and len(found.cards) == 100


@pytest.fixture
def two_networks(engine: FakeEngine) -> FakeEngine:
    for name in ("bridge", "front"):
        engine.networks[f"id-{name}"] = api.Network(name=name, id=f"id-{name}")
    engine.add("a" * 64, "web")
    engine.attached["a" * 64] = {"bridge": "10.0.0.2"}
    engine._tell_network("connect", "id-bridge", "a" * 64)
    return engine


async def on_the_map(context: Context) -> MainWindow:
    window = await opened(context)
    window.show_page("networks")
    page = window.pages["networks"]
    await until(lambda: page.map.map.bars and page.map.map.cards)
    await asyncio.sleep(0.05)
    return window


def test_a_container_dragged_onto_a_network_is_connected_and_its_menu_takes_it_off(context: Context, two_networks: FakeEngine, run: Run) -> None:
    async def story() -> None:
        window = await on_the_map(context)
        page, view = window.pages["networks"], window.pages["networks"].map
        card, bar = view.map.cards[0], next(one for one in view.map.bars if one.network.name == "front")
        start, end = view.card_area(card).center().toPoint(), view.bar_area(bar).center().toPoint()
        port = view.viewport()
        QTest.mousePress(port, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
        for step in range(1, 6):
            drag(view, start + (end - start) * step / 5)
        assert view.over == bar
        QTest.mouseRelease(port, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, end)
        await until(lambda: len(view.map.cards[0].joints) == 2)
        page.disconnect_container("a" * 64, "id-front")
        await until(lambda: len(view.map.cards[0].joints) == 1)
        two_networks.refuse["connect_network"] = Forbidden("network-scoped alias is supported only for containers in user defined networks")
        page.connect_container("a" * 64, "id-front")
        await until(page.banner.isVisible)
        assert "web could not be connected to front" in page.banner.what.text() and page.banner.retry.isVisible()
        await left(context, window)
    run(story())


def drag(view, point: QPoint) -> None:
    from PySide6.QtCore import QEvent
    from PySide6.QtGui import QMouseEvent
    from PySide6.QtWidgets import QApplication

    event = QMouseEvent(QEvent.Type.MouseMove, QPointF(point), view.viewport().mapToGlobal(QPointF(point)), Qt.MouseButton.NoButton,
                        Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(view.viewport(), event)


def test_cleaning_up_removes_what_was_shown_and_nothing_else(context: Context, two_networks: FakeEngine, run: Run) -> None:
    async def story() -> None:
        for name in ("old", "older"):
            two_networks.networks[f"id-{name}"] = api.Network(name=name, id=f"id-{name}")
        window = await on_the_map(context)
        page = window.pages["networks"]
        page._prune()
        dialog = window.findChild(PruneDialog)
        assert sorted(one.name for one in dialog.items) == ["front", "old", "older"]
        first = next(place for place, one in enumerate(dialog.items) if one.name == "front")
        dialog.tree.topLevelItem(first).setCheckState(0, Qt.CheckState.Unchecked)
        assert dialog.go.accessibleName() == "Remove 2"
        dialog.go.click()
        await until(lambda: sorted(one.name for one in context.mirror.networks.rows()) == ["bridge", "front"])
        await left(context, window)
    run(story())


@pytest.mark.parametrize(("subnet", "gateway", "words"), [
    ("10.0.0.0/40", "", "a range is written"), ("10.0.0.0/24", "10.0.1.1", "is not in"), ("", "10.0.0.1", "needs the range")])
def test_addresses_that_cannot_work_are_told_before_the_engine_is_asked(subnet: str, gateway: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        network_body("n", "bridge", subnet, gateway, internal=False, ipv6=False)
