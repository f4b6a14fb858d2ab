"""The window itself: what one sees and clicks, in every state that it can be in."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest
from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QLineEdit, QPushButton, QToolButton, QWidget

from app import theme
from app.models.operations import Operation
from app.models.problems import describe, engine_away
from app.models.run_request import PortWish, RunRequest, VolumeWish
from app.widgets.confirm import Confirm
from app.windows.context import Context
from app.windows.main import PAGES, MainWindow
from app.windows.run_form import RunForm
from backend.client import Progress
from backend.errors import Conflict, InvalidArgument, NotFound
from backend.spec import api
from tests.app.conftest import Run, until
from tests.fakes.engine import FakeEngine


async def opened(context: Context) -> MainWindow:
    window = MainWindow(context)
    window.show()
    context.mirror.start()
    await until(lambda: context.mirror.state == "connected")
    return window


async def left(context: Context, window: QWidget) -> None:
    window.close()
    await context.mirror.stop()
    await context.bridge.close()
    window.deleteLater()


def test_every_page_opens_and_every_icon_button_says_what_it_does(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        window = await opened(context)
        window.show_container("a" * 64, "Inspect")
        for name in ("containers", "images", "stacks", "registries", "welcome"):
            window.show_page(name)
            await asyncio.sleep(0.02)
        for one in window.findChildren(QToolButton) + window.findChildren(QPushButton):
            if not isinstance(one.parent(), QLineEdit):
                assert one.accessibleName() or one.text().strip(), f"{one.objectName()} in {one.parent()}"
        assert {name for name, _ in PAGES} == set(window.buttons)
        await left(context, window)
    run(story())


def test_stop_in_the_row_shows_at_once_and_ends_with_the_engines_word(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        window = await opened(context)
        page = window.pages["containers"]
        page.table.acted.emit("stop", "a" * 64)
        assert context.mirror.containers.index(0, 0).data() == "Stopping…"
        await until(lambda: context.mirror.containers.get("a" * 64).state == "exited" and not context.mirror.containers.busy)
        assert context.mirror.containers.index(0, 0).data() == "Exited"
        await left(context, window)
    run(story())


def test_removing_asks_once_says_what_goes_and_does_it(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        for key in "abc":
            engine.add(key * 64, f"box-{key}")
        window = await opened(context)
        page = window.pages["containers"]
        page.table.selectAll()
        assert page.many["remove"].accessibleName() == "Remove 3"
        QTest.keyClick(page.table, Qt.Key.Key_Delete)
        await asyncio.sleep(0.05)
        dialogs = page.findChildren(Confirm)
        assert len(dialogs) == 1
        assert all(any(f"box-{key}" in one.text() for one in dialogs[0].findChildren(QLabel)) for key in "abc")
        dialogs[0].accept()
        await until(lambda: not context.mirror.containers.rows())
        assert page.stack.currentWidget() is page.empty
        await left(context, window)
    run(story())


def test_a_refusal_is_told_in_place_with_a_way_to_try_again(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first", "exited")
        engine.refuse["start_container"] = Conflict("driver failed: Bind for 0.0.0.0:80 failed: port is already allocated")
        window = await opened(context)
        page = window.pages["containers"]
        page.doer.do("start", ["a" * 64])
        await until(page.banner.isVisible)
        assert "first" in page.banner.what.text() and "already allocated" in page.banner.why.text() and page.banner.hint.text()
        engine.refuse.clear()
        page.banner.retry.click()
        await until(lambda: context.mirror.containers.get("a" * 64).state == "running")
        assert not page.banner.isVisible()
        await left(context, window)
    run(story())


def test_the_window_says_that_the_helper_stopped_and_takes_it_back(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        window = await opened(context)
        engine.go_away()
        await until(window.connection.isVisible)
        assert "Waiting for it to come back" in window.connection.what.text()
        assert "slipwayd" in window.connection.command.text()
        engine.come_back()
        await until(lambda: not window.connection.isVisible())
        assert window.engine.text() == "Connected"
        await left(context, window)
    run(story())


def test_details_follow_the_container_to_its_end(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        window = await opened(context)
        window.show_container("a" * 64, "Log")
        details = window.details
        await until(lambda: len(details.log.ring) == 1)
        assert details.log.ring.line(0).text == "hello"
        details.show_tab("Inspect")
        await until(lambda: details.inspect.value)
        engine.set_state("a" * 64, "exited", "die")
        await until(lambda: details.pill.word.text() == "Exited")
        engine.drop("a" * 64)
        await until(details.gone.isVisible)
        window.show_page("containers")
        assert window.details is None
        await left(context, window)
    run(story())


def test_the_first_page_offers_the_sample_though_its_image_is_not_made_yet(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        window = await opened(context)
        await until(lambda: context.mirror.is_loaded)
        window.show_page("welcome")
        page = window.pages["welcome"]
        assert page.go.isVisible() and page.go.isEnabled() and "built-in sample" in page.text.text()
        context.mirror.is_slipway = False
        page.refresh()
        assert not page.go.isVisible() and "does not have" in page.text.text()
        await left(context, window)
    run(story())


def test_nothing_is_called_empty_before_the_engine_has_said_so(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.away = True
        window = MainWindow(context)
        window.show()
        context.mirror.start()
        await until(window.connection.isVisible)
        for name in ("containers", "images"):
            window.show_page(name)
            page = window.pages[name]
            assert page.stack.currentWidget() is page.table
        engine.come_back()
        await until(lambda: context.mirror.is_loaded)
        for name in ("containers", "images"):
            window.show_page(name)
            page = window.pages[name]
            await until(lambda page=page: page.stack.currentWidget() is page.empty)
        await left(context, window)
    run(story())


def test_only_what_can_be_seen_of_a_long_list_is_followed(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        for number in range(300):
            engine.add(f"{number:064x}", f"box-{number:03}")
        window = await opened(context)
        window.resize(1200, 600)
        table = window.pages["containers"].table
        await until(lambda: 5 < len(engine.streams) < 30 and engine.streams == set(table.in_sight()))
        table.scrollToBottom()
        await until(lambda: engine.streams == set(table.in_sight()) and f"{299:064x}" in engine.streams)
        window.show_page("images")
        await until(lambda: not engine.streams)
        asked = engine.asked["list_containers"]
        for number in range(0, 300, 3):
            engine.set_state(f"{number:064x}", "exited", "die")
        window.show_page("containers")
        await until(lambda: "200 running" in window.pages["containers"].subtitle.text())
        assert engine.asked["list_containers"] - asked <= 3
        await left(context, window)
    run(story())


def test_a_small_window_keeps_names_and_actions_in_sight(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        engine.images["sha256:1"] = api.ImageSummary(id="sha256:1", repo_tags=["busybox:1"], size=5)
        window = await opened(context)
        for name, kept in (("containers", (0, 1, 3, 4, 5, 7)), ("images", (0, 1, 4, 6))):
            window.show_page(name)
            table = window.pages[name].table
            for width in (1280, 820):
                window.resize(width, 560)
                await asyncio.sleep(0.02)
                head = table.horizontalHeader()
                assert all(head.sectionSize(column) >= 60 and not head.isSectionHidden(column) for column in kept)
                assert head.length() <= table.viewport().width() + 1, f"{name} is cut at {width}"
            assert window.side.width() < 100 and not window.brand.isVisible()
            window.resize(1280, 560)
            await asyncio.sleep(0.02)
            assert not any(head.isSectionHidden(column) for column in range(head.count()))
        await left(context, window)
    run(story())


def test_a_lost_helper_is_told_once_and_not_as_a_fault_of_the_window(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        context.bridge.catch_strays(asyncio.get_running_loop())
        told: list[str] = []
        context.bridge.problem.connect(lambda problem: told.append(problem.what))
        window = await opened(context)
        engine.go_away()
        await until(lambda: engine.asked["events"] >= 4)
        gc.collect()
        await asyncio.sleep(0.05)
        assert told == [] and window.connection.isVisible() and not window.mishap.isVisible()
        await left(context, window)
    run(story())


def test_a_log_window_is_one_per_container_and_goes_with_its_request(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first")
        window = await opened(context)
        window.show_log_window("a" * 64)
        window.show_log_window("a" * 64)
        assert len(window.log_windows) == 1
        log = window.log_windows["a" * 64]
        await until(lambda: len(log.pane.ring) == 1)
        log.close()
        await until(lambda: not window.log_windows)
        await left(context, window)
    run(story())


class Ticks(QObject):
    """Counts what wakes the window."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        # A closed loop's timers, cancelled or not, fire once more in qasync: those of the tests before are not this window's.
        old = type(watched).__name__ == "_SimpleTimer" and watched is not asyncio.get_event_loop()._timer
        if not old and event.type() in (QEvent.Type.Timer, QEvent.Type.Paint, QEvent.Type.UpdateRequest):
            self.seen.append(f"{event.type().name} of {type(watched).__name__}")
        return False


def test_a_window_in_which_nothing_happens_does_nothing(context: Context, engine: FakeEngine, run: Run, qapp: QApplication) -> None:
    async def story() -> None:
        engine.add("a" * 64, "first", "exited")
        window = await opened(context)
        await asyncio.sleep(0.5)
        ticks = Ticks()
        qapp.installEventFilter(ticks)
        asked = dict(engine.asked)
        await asyncio.sleep(1.5)
        qapp.removeEventFilter(ticks)
        # One timer is this sleep's own.
        assert len(ticks.seen) <= 3, ticks.seen
        assert engine.asked == asked
        await left(context, window)
    run(story())


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None and True cannot die from Python 3.12 on")
def test_this_pyside_keeps_its_references_to_none_and_true(qapp: QApplication) -> None:
    """PySide6 6.12.0 on Python 3.11 loses one at each call and aborts within seconds: the version must stay below."""
    label = QLabel()
    before = sys.getrefcount(None), sys.getrefcount(True)
    for number in range(3000):
        label.setText(str(number))
        label.setVisible(False)
        label.isVisible()
        qapp.processEvents()
    after = sys.getrefcount(None), sys.getrefcount(True)
    assert all(abs(new - old) < 500 for old, new in zip(before, after, strict=True)), (before, after)


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_can_be_read_on_every_ground_it_lies_on(palette: theme.Palette) -> None:
    grounds = (palette.surface, palette.side, palette.raised, palette.field, palette.code, palette.hover, palette.chosen)
    pairs = [(ink, ground) for ink in (palette.text, palette.muted, palette.accentText) for ground in grounds]
    pairs += [(ink, palette.surface) for ink in (palette.good, palette.warn, palette.bad, palette.idle)]
    pairs += [(ink, palette.chosen) for ink in (palette.good, palette.warn, palette.bad)]
    pairs += [(palette.text, tint) for tint in (palette.badTint, palette.warnTint, palette.infoTint)]
    pairs += [(palette.onAccent, palette.accent), (palette.onAccent, palette.accentHover), ("#ffffff", palette.badSolid)]
    pairs += [(colour, "#14171b") for colour in theme.ANSI[1:8] + theme.ANSI[9:]]
    poor = [(ink, ground, round(theme.contrast(ink, ground), 2)) for ink, ground in pairs if theme.contrast(ink, ground) < 4.5]
    assert not poor


def test_both_themes_dress_a_window_that_is_open(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        window = await opened(context)
        light = window.grab().toImage().pixelColor(600, 400).lightness()
        theme.apply("dark")
        await asyncio.sleep(0.05)
        assert window.grab().toImage().pixelColor(600, 400).lightness() < 60 < light
        theme.apply("light")
        await left(context, window)
    run(story())


def test_the_run_form_shows_the_line_that_does_the_same(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        window = await opened(context)
        form = RunForm(context, window, "")
        assert not form.go.isEnabled()
        form.image.setCurrentText("debian:stable")
        form.name.setText("box")
        form.command.setText("echo 'two words'")
        form.ports.add("8080", "80")
        form.environment.add("A", "b c")
        form.volumes.add("/srv", "/data")
        form.volumes.lines[0][2].setChecked(True)
        assert form.line.toPlainText() == ("docker run -d --name box -p 8080:80 -e 'A=b c' -v /srv:/data:ro debian:stable "
                                           "echo 'two words'")
        body = form.request().body()
        assert body.host_config.port_bindings["80/tcp"][0].host_port == "8080" and body.cmd == ["echo", "two words"]
        form.ports.add("99999", "80")
        form.run()
        assert "99999 is not a port" in form.banner.why.text()
        form.deleteLater()
        await left(context, window)
    run(story())


def test_a_run_that_failed_can_be_edited_and_tried_again(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        window = await opened(context)
        request = RunRequest("debian:none", name="box", command="echo hi", ports=(PortWish("8080", "80"), PortWish("", "53", "udp")),
                             environment=(("A", "b"),), volumes=(VolumeWish("data", "/data", True),), restart="always", terminal=True)
        from app.windows.run_form import run_image
        engine.refuse["pull_image"] = NotFound("manifest unknown")
        operation = run_image(context, request, lambda _key: None)
        await until(lambda: operation.state == "failed")
        card = window.cards[operation]
        assert card.edit.isVisible() and "no such tag" in card.trouble.text()
        card.edit.click()
        form = window.findChild(RunForm)
        assert form.request() == request and not window.cards
        form.reject()
        await left(context, window)
    run(story())


def test_a_stack_whose_file_is_elsewhere_says_so_and_shows_its_containers(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web",
                  "com.docker.compose.project.config_files": "/nowhere/compose.yaml"}
        engine.add("a" * 64, "shop-web-1", labels=labels)
        engine.add("b" * 64, "other")
        window = await opened(context)
        window.show_page("stacks")
        page = window.pages["stacks"]
        page.table.opened.emit("shop")
        assert page.banner.isVisible() and "/nowhere/compose.yaml" in page.banner.why.text()
        context.ways.stack.emit("shop")
        assert window.pages["containers"].table.proxy.rowCount() == 1
        await left(context, window)
    run(story())


@pytest.mark.parametrize("wrong", [
    RunRequest(""), RunRequest("a", name="two words"), RunRequest("a", command="'open"), RunRequest("a", ports=(PortWish("x", "80"),)),
    RunRequest("a", ports=(PortWish("80", ""),)), RunRequest("a", environment=(("", "b"),)),
    RunRequest("a", volumes=(VolumeWish("v", "relative"),)), RunRequest("a", volumes=(VolumeWish("", "/x"),)),
    RunRequest("a", restart="always", remove_after=True)])
def test_a_form_that_cannot_work_is_told_before_the_engine_is_asked(wrong: RunRequest) -> None:
    with pytest.raises(InvalidArgument):
        wrong.check()


def test_a_pull_shows_its_layers_and_a_failure_can_be_tried_again(context: Context, engine: FakeEngine, run: Run) -> None:
    async def story() -> None:
        from app.windows.image_forms import pull_image

        window = await opened(context)
        engine.refuse["pull_image"] = NotFound("manifest unknown")
        operation: Operation = pull_image(context, "debian:none")
        await until(lambda: operation.state == "failed")
        card = window.cards[operation]
        assert card.retry.isVisible() and "no such tag" in card.trouble.text()
        engine.refuse.clear()
        engine.pulls = [Progress("none", "Pulling from library/debian"), Progress("aa", "Downloading", 50, 100),
                        Progress("aa", "Pull complete"), Progress("", "Status: done")]
        seen: list[float | None] = []
        operation.changed.connect(lambda: seen.append(operation.fraction))
        card.retry.click()
        await until(lambda: operation.state == "done")
        assert 0.5 in seen and 1.0 in seen
        await until(lambda: not window.cards)
        await left(context, window)
    run(story())


def test_why_the_engine_is_away_is_looked_up_and_told_with_the_cure(tmp_path: object) -> None:
    missing = engine_away(f"unix://{tmp_path}/s.sock", None)
    assert "no socket" in missing.why and "slipwayd" in missing.command
    (tmp_path / "file").write_text("")
    assert "not a socket" in engine_away(f"unix://{tmp_path}/file", None).why


def test_a_bug_is_told_without_a_bare_traceback() -> None:
    problem = describe(KeyError("x"), "The list could not be shown")
    assert "Traceback" not in problem.what + problem.why + problem.hint
    assert "KeyError" in problem.details
