"""`slipway up`, `down` and `stack` at the terminal: what is said, and the exit status."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from app.cli import compose as cli
from backend import compose
from backend.compose.plan import Draft, StartContainer

NOWHERE = "/nonexistent/engine.sock"


def test_stack_without_a_verb_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stack"], NOWHERE) == 0
    said = capsys.readouterr().err
    assert all(f"\n  {verb} " in said for verb in ("ls", "ps", "plan", "start", "stop", "restart", "logs"))


def test_an_unknown_verb_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stack", "fly"], NOWHERE) == 2
    assert "stack has no verb 'fly'" in capsys.readouterr().err


def test_an_unknown_option_ends_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["up", "--fly"], NOWHERE)
    assert caught.value.code == 2 and "usage: slipway up" in capsys.readouterr().err


def test_a_wrong_file_is_told_with_its_line_before_any_engine_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text("services:\n  web:\n    imag: a\n")
    assert cli.main(["up", "-d"], NOWHERE) == 1
    assert capsys.readouterr().err == "slipway: compose.yaml:3:5: services.web.imag: unknown key; did you mean 'image'?\n"


def test_an_engine_that_is_not_there_is_told_with_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {web: {image: a}}")
    for words in (["up", "-d"], ["down"], ["stack", "ls"], ["stack", "ps", "-p", "x"]):
        assert cli.main(words, NOWHERE) == 1
        assert NOWHERE in capsys.readouterr().err


def test_progress_is_a_line_for_each_step_that_ends() -> None:
    draft = Draft("p")
    draft.add(StartContainer("x", "p-web-1"), "")
    draft.add(StartContainer("y", "p-web-2"), "")
    good, bad = draft.done().steps
    out = io.StringIO()
    lines = cli._Lines(out)
    for step, state, text in ((good, "begun", ""), (bad, "begun", ""), (good, "detail", "50 %"), (good, "done", ""), (bad, "failed", "no")):
        lines(compose.Progress(step, state, text))
    assert out.getvalue() == " ✔ start container p-web-1  0.0s\n ✘ start container p-web-2: no\n"


class Logs:
    """A client with one log, in pieces that do not end where lines end."""

    async def logs(self, ref: str, **_: object):  # type: ignore[no-untyped-def]
        for piece in ((1, b"one\ntw"), (2, b"err\n"), (1, b"o\nla"), (1, b"st")):
            yield piece


async def test_log_lines_are_whole_and_say_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    container = compose.ObservedContainer("i", "p-web-1", "web", 1, "running", "", "a", "")
    longer = compose.ObservedContainer("j", "p-database-1", "database", 1, "running", "", "a", "")
    await cli._print_logs(Logs(), [container, longer], follow=False)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("web")] == [
        "web-1      | one", "web-1      | err", "web-1      | two", "web-1      | last"]
    assert "database-1 | two" in lines
