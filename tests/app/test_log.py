"""A log window keeps pace, stays small, and finds what one looks for."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from app.models.lines import LineRing
from app.settings import Preferences
from app.widgets.log_pane import LogPane
from app.widgets.log_view import LogView


def test_lines_cut_anywhere_come_out_whole() -> None:
    ring = LineRing()
    data = "2026-01-01T00:00:00.5Z grüße\r\n2026-01-01T00:00:01Z \x1b[31mred\x1b[0m\tx\n".encode()
    for place in range(len(data)):
        ring.feed(data[place:place + 1])
    assert [(line.stamp, line.text) for line in (ring.line(0), ring.line(1))] == [
        ("2026-01-01T00:00:00.5Z", "grüße"), ("2026-01-01T00:00:01Z", "red     x")]


def test_the_two_streams_do_not_cut_into_each_others_lines() -> None:
    ring = LineRing()
    ring.feed(b"out-")
    ring.feed(b"error\n", stderr=True)
    ring.feed(b"put\n")
    assert [(line.text, line.stderr) for line in (ring.line(0), ring.line(1))] == [("error", True), ("out-put", False)]


def test_the_ring_is_bounded_whatever_comes() -> None:
    ring = LineRing(capacity=1000)
    ring.search("needle")
    for number in range(100):
        ring.feed(b"".join(b"line %d needle\n" % (number * 100 + one) for one in range(100)))
    assert len(ring) <= 1250
    assert ring.received == 10_000 and ring.end == 10_000
    assert ring.match_count == len(ring)
    assert ring.line(9_999).text == "line 9999 needle"
    ring.feed(b"x" * 200_000)
    assert max(len(ring.line(n).text) for n in range(ring.first, ring.end)) <= 32_768


def test_ten_thousand_lines_a_second_cost_ten_repaints_and_no_growth(qtbot: object) -> None:
    view = LogView(LineRing(capacity=20_000))
    qtbot.addWidget(view)
    view.resize(800, 400)
    view.show()
    qtbot.waitExposed(view)
    QTest.qWait(20)
    painted = view.paints
    for _second in range(6):
        # A second of a busy container, as it comes from the socket: a hundred chunks of a hundred lines.
        for _chunk in range(100):
            view.feed(b"".join(b"2026-01-01T00:00:00Z line %d of a container that talks a lot\n" % n for n in range(100)))
        QTest.qWait(110)
    assert view.ring.received == 60_000
    assert len(view.ring) <= 25_000
    assert view.verticalScrollBar().value() == view.verticalScrollBar().maximum(), "the end stays in sight"
    assert view.paints - painted <= 6 * 10, "painting does not follow the lines but the clock"


def test_a_paused_log_stays_with_its_line_when_old_ones_fall_out(qtbot: object) -> None:
    view = LogView(LineRing(capacity=1000))
    qtbot.addWidget(view)
    view.resize(600, 300)
    view.show()
    view.feed(b"".join(b"line %d\n" % n for n in range(1000)))
    QTest.qWait(150)
    view.go_to(900)
    top = view.ring.first + view.verticalScrollBar().value()
    view.feed(b"".join(b"line %d\n" % n for n in range(1000, 1600)))
    QTest.qWait(150)
    assert view.ring.first > 0 and not view.following
    assert view.ring.first + view.verticalScrollBar().value() == top


def pane(qtbot: object, preferences: Preferences) -> LogPane:
    made = LogPane(preferences, "box", may_pop_out=True)
    qtbot.addWidget(made)
    made.resize(900, 400)
    made.show()
    qtbot.waitExposed(made)
    return made


def test_find_counts_marks_and_walks_round(qtbot: object, preferences: Preferences) -> None:
    one = pane(qtbot, preferences)
    one.feed(b"".join(b"%s %d\n" % (b"Error" if n % 100 == 7 else b"fine", n) for n in range(1000)))
    QTest.qWait(150)
    one.wanted.setText("error")
    assert one.found.text() == "10 of 10" and one.view.current == 907
    one.go_next()
    assert one.view.current == 7 and one.found.text() == "1 of 10"
    one.go_previous()
    assert one.view.current == 907
    one.feed(b"another ERROR\n")
    QTest.qWait(150)
    assert one.found.text() == "10 of 11"
    assert one.ring.spans("an error, Error") == [(3, 8), (10, 15)]
    one.wanted.setText("nowhere")
    assert one.found.text() == "no match" and not one.next.isEnabled()


def test_space_pauses_and_end_follows_again(qtbot: object, preferences: Preferences) -> None:
    one = pane(qtbot, preferences)
    one.feed(b"".join(b"line %d\n" % n for n in range(500)))
    QTest.qWait(150)
    QTest.keyClick(one.view, Qt.Key.Key_Space)
    assert not one.follow.isChecked() and "paused" in one.foot.text()
    QTest.keyClick(one.view, Qt.Key.Key_End)
    assert one.follow.isChecked() and "following" in one.foot.text()


def test_a_log_is_saved_as_it_is_shown(qtbot: object, preferences: Preferences, tmp_path: object) -> None:
    one = pane(qtbot, preferences)
    one.feed(b"2026-01-01T00:00:00Z a\n2026-01-01T00:00:01Z b\n")
    one.save_to(str(tmp_path / "x.log"))
    assert (tmp_path / "x.log").read_text() == "a\nb\n"
    one.stamps.setChecked(True)
    one.save_to(str(tmp_path / "x.log"))
    assert (tmp_path / "x.log").read_text().startswith("2026-01-01T00:00:00Z a\n")
    one.save_to(str(tmp_path / "no" / "where"))
    assert "could not be saved" in one.banner.what.text()


def test_a_find_is_marked_where_the_letters_are_at_every_size(qtbot: object) -> None:
    from app import theme

    theme.apply("light")
    view = LogView(LineRing())
    qtbot.addWidget(view)
    view.resize(800, 200)
    view.show()
    qtbot.waitExposed(view)
    view.set_wrap(False)
    view.feed(b"2026-01-01T00:00:00Z " + b" " * 40 + b"W\n")
    view.ring.search("W")
    for steps in (0, 3):
        view.zoom(steps)
        QTest.qWait(120)
        image = view.viewport().grab().toImage()
        rows = range(4, 24)
        marked = [x for x in range(image.width()) if any(image.pixelColor(x, y).saturation() > 90 for y in rows)]
        inked = [x for x in range(image.width()) if any(image.pixelColor(x, y).lightness() < 90 for y in rows)]
        assert marked and inked and min(marked) - 1 <= min(inked) and max(inked) <= max(marked) + 1, (steps, marked, inked)
