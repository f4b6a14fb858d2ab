"""The curve of what a container used is there when one looks, and never grows without bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.engine import history
from backend.engine.history import COARSE, FINE, History, Row


def row(at: float, cpu: float = 10.0) -> Row:
    return Row(at, cpu, 1 << 33, 1.0, 2.0, 3.0, 4.0, 5)


def test_ten_minutes_by_the_second_are_kept_and_no_more(tmp_path: Path) -> None:
    kept = History(str(tmp_path / "u"))
    for second in range(2000):
        kept.add(row(1000.0 + second))
    rows = kept.rows(FINE, 0)
    assert len(rows) == 600 and rows[-1].at == 2999.0 and rows[0].at == 2400.0
    assert rows[0].memory == 1 << 33 and rows[0].pids == 5
    assert [one.at for one in kept.rows(FINE, 2997.5)] == [2998.0, 2999.0]


def test_a_day_by_ten_seconds_is_averaged_and_outlives_the_helper(tmp_path: Path) -> None:
    path = str(tmp_path / "u")
    kept = History(path)
    for second in range(1000):
        kept.add(row(1000.0 + second, cpu=float(second % 10)))
    assert [one.cpu for one in kept.rows(COARSE, 0)] == pytest.approx([4.5] * 100)
    again = History(path)                                # the first was killed: at most a minute is lost
    assert 93 <= len(again.rows(COARSE, 0)) <= 100
    kept.close()
    assert len(again.rows(COARSE, 0)) == 100


def test_the_file_is_bounded_and_a_torn_row_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "COARSE_ROWS", 50)
    path = tmp_path / "u"
    kept = History(str(path))
    for second in range(3000):
        kept.add(row(1000.0 + second))
    kept.close()
    sizes = [p.stat().st_size // 40 for p in (path, Path(f"{path}.1"))]
    assert max(sizes) <= 56 and len(kept.rows(COARSE, 0)) == 50
    with open(path, "ab") as file:
        file.write(b"torn")
    assert kept.rows(COARSE, 0)[-1].at == 3999.0
    kept.add(row(5000.0))
    kept.close()
    assert kept.rows(COARSE, 0)[-1].at == 5000.0
