"""A terminal in which shells and full-screen programs work."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent
from PySide6.QtTest import QTest

from app.widgets.terminal import Terminal


@pytest.fixture
def terminal(qtbot: object) -> Terminal:
    one = Terminal()
    qtbot.addWidget(one)
    one.resize(800, 400)
    one.show()
    qtbot.waitExposed(one)
    one.set_live(True)
    return one


def sent(terminal: Terminal) -> list[bytes]:
    found: list[bytes] = []
    terminal.typed.connect(found.append)
    return found


@pytest.mark.parametrize(("key", "mods", "text", "wanted"), [
    (Qt.Key.Key_A, Qt.KeyboardModifier.NoModifier, "a", b"a"),
    (Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier, "\x03", b"\x03"),
    (Qt.Key.Key_D, Qt.KeyboardModifier.ControlModifier, "\x04", b"\x04"),
    (Qt.Key.Key_Return, Qt.KeyboardModifier.NoModifier, "\r", b"\r"),
    (Qt.Key.Key_Backspace, Qt.KeyboardModifier.NoModifier, "\b", b"\x7f"),
    (Qt.Key.Key_Tab, Qt.KeyboardModifier.NoModifier, "\t", b"\t"),
    (Qt.Key.Key_Up, Qt.KeyboardModifier.NoModifier, "", b"\x1b[A"),
    (Qt.Key.Key_Right, Qt.KeyboardModifier.ControlModifier, "", b"\x1b[1;5C"),
    (Qt.Key.Key_X, Qt.KeyboardModifier.AltModifier, "x", b"\x1bx")])
def test_keys_send_what_programs_expect(terminal: Terminal, key: Qt.Key, mods: Qt.KeyboardModifier, text: str, wanted: bytes) -> None:
    found = sent(terminal)
    QGuiApplication.sendEvent(terminal, QKeyEvent(QEvent.Type.KeyPress, key, mods, text))
    assert found == [wanted]


def test_full_screen_programs_get_their_arrows_and_give_the_screen_back(terminal: Terminal) -> None:
    terminal.feed(b"$ vi\r\n")
    terminal.feed(b"\x1b[?1049h\x1b[?1h\x1b[2J\x1b[Hediting")
    assert "editing" in terminal.text() and "$ vi" not in terminal.text()
    found = sent(terminal)
    QTest.keyClick(terminal, Qt.Key.Key_Up)
    assert found == [b"\x1bOA"]
    terminal.feed(b"\x1b[?1l\x1b[?1049l")
    assert "$ vi" in terminal.text() and "editing" not in terminal.text()


def test_what_scrolled_off_can_be_read_again(terminal: Terminal, qtbot: object) -> None:
    terminal.feed(b"".join(b"line %d\r\n" % n for n in range(500)))
    bar = terminal.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() >= 400 and bar.value() == bar.maximum())
    bar.setValue(0)
    terminal._from, terminal._to = (0, 0), (0, 80)
    assert terminal.selected_text() == "line 0"
    terminal.feed(b"more\r\n" * 20_000)
    QTest.qWait(40)
    assert bar.maximum() <= 5000, "the scrollback is bounded"


def test_pasting_cannot_run_more_than_was_pasted(terminal: Terminal) -> None:
    found = sent(terminal)
    QGuiApplication.clipboard().setText("ls\nrm \x1b[201~x")
    terminal.feed(b"\x1b[?2004h")
    terminal.paste()
    assert found == [b"\x1b[200~ls\rrm x\x1b[201~"]


def test_the_program_is_told_the_new_size(terminal: Terminal) -> None:
    told: list[tuple[int, int]] = []
    terminal.resized.connect(lambda rows, columns: told.append((rows, columns)))
    terminal.resize(1000, 600)
    QTest.qWait(20)
    assert told and told[-1] == (terminal.grid.lines, terminal.grid.columns)


def test_colours_reverse_and_rubbish_do_not_stop_it(terminal: Terminal) -> None:
    terminal.feed("\x1b[1;31mred\x1b[0m \x1b[48;5;202mground\x1b[0m \x1b[7mreverse\x1b[0m \x1b[>4;2m\x1b[?25l wide 漢字".encode())
    terminal.feed(bytes(range(256)) * 4)
    QTest.qWait(40)
    assert "red ground reverse" in terminal.text()
    assert not terminal.grab().isNull()


def test_nothing_is_sent_once_the_shell_has_ended(terminal: Terminal) -> None:
    terminal.set_live(False)
    found = sent(terminal)
    QTest.keyClick(terminal, Qt.Key.Key_A)
    assert not found
