"""Tables that keep selection and screen readers' places, rows that say the truth."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QModelIndex
from PySide6.QtTest import QAbstractItemModelTester

from app.models.containers import CPU, MEMORY, NAME, ContainerTable
from app.models.images import ImageTable
from app.models.keyed import KeyedTable
from app.models.rows import (
    Usage,
    age_text,
    container_row,
    image_rows,
    memory_text,
    port_links,
    size_text,
    stack_rows,
    state_text,
    usage,
)
from app.models.stacks import StackTable
from backend.spec import api
from tests.fakes.engine import FakeEngine


def rows(count: int, engine: FakeEngine) -> list:
    for number in range(count):
        engine.add(f"{number:064x}", f"box-{number}", "running" if number % 2 else "exited",
                   labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "web"})
    return [container_row(one) for one in engine.containers.values()]


def strict(model: KeyedTable) -> QAbstractItemModelTester:
    return QAbstractItemModelTester(model, QAbstractItemModelTester.FailureReportingMode.Fatal)


def test_the_container_table_keeps_qts_rules_while_rows_come_change_and_go(qapp: object, engine: FakeEngine) -> None:
    table = ContainerTable()
    tester = strict(table)
    made = rows(20, engine)
    for row in made:
        table.upsert(row.id, row)
    table.remove(made[3].id)
    table.remove("unknown")
    table.add_usage({made[1].id: Usage(1.5, 1 << 20, 1 << 30)})
    table.set_busy(made[5].id, "Stopping…")
    table.sync((row.id, row) for row in made[::2])
    assert table.keys() == [row.id for row in made[::2]]
    assert tester.model() is table


def test_image_and_stack_tables_keep_qts_rules(qapp: object, engine: FakeEngine) -> None:
    images, stacks = ImageTable(), StackTable()
    testers = strict(images), strict(stacks)
    view = api.ImageSummary(id="sha256:1", repo_tags=["a:1", "b:2"], size=10)
    images.sync((row.key, row) for row in image_rows(view))
    images.sync((row.key, row) for row in image_rows(api.ImageSummary(id="sha256:1", repo_tags=["b:2"], size=10)))
    stacks.sync((row.name, row) for row in stack_rows(rows(4, engine)))
    assert [row.name for row in images.rows()] == ["b"]
    assert [(row.running, row.total) for row in stacks.rows()] == [(2, 4)]
    assert all(testers)


def test_a_table_is_never_reset_so_that_the_selection_stays(qapp: object, engine: FakeEngine, qtbot: object) -> None:
    table = ContainerTable()
    resets: list[object] = []
    table.modelReset.connect(lambda: resets.append(1))
    made = rows(6, engine)
    table.sync((row.id, row) for row in made)
    table.sync((row.id, row) for row in made[2:])
    assert not resets


def test_usage_touches_two_columns_and_nothing_else(qapp: object, engine: FakeEngine) -> None:
    table = ContainerTable()
    made = rows(3, engine)
    table.sync((row.id, row) for row in made)
    told: list[tuple[int, int, int]] = []
    table.dataChanged.connect(lambda a, b, _roles=(): told.append((a.row(), a.column(), b.column())))
    table.add_usage({made[1].id: Usage(12.34, 5 << 20, 1 << 30), "gone": Usage(1, 1, 1)})
    assert told == [(1, CPU, MEMORY)]
    assert table.index(1, CPU).data() == "12.3 %"
    assert table.index(1, MEMORY).data() == "5.0 MiB"


def test_an_unchanged_row_tells_nothing(qapp: object, engine: FakeEngine) -> None:
    table = ContainerTable()
    made = rows(2, engine)
    table.sync((row.id, row) for row in made)
    told: list[object] = []
    table.dataChanged.connect(lambda *a: told.append(a))
    table.sync((row.id, row) for row in made)
    assert not told
    assert table.data(QModelIndex()) is None


def test_both_wildcard_addresses_are_one_link() -> None:
    links = port_links([api.Port(ip="0.0.0.0", private_port=80, public_port=8080), api.Port(ip="::", private_port=80, public_port=8080),
                        api.Port(private_port=443), api.Port(ip="127.0.0.1", private_port=53, public_port=53, type="udp")])
    assert [(one.text, one.url) for one in links] == [("127.0.0.1:53 → 53/udp", ""), ("8080 → 80", "http://localhost:8080")]


@pytest.mark.parametrize(("state", "status", "word", "tone"), [
    ("running", "Up 3 seconds", "Running", "good"), ("running", "Up 3 seconds (unhealthy)", "Unhealthy", "bad"),
    ("running", "Up 3 seconds (health: starting)", "Starting", "warn"), ("exited", "Exited (0) now", "Exited", "idle"),
    ("exited", "Exited (3) now", "Exited (3)", "bad"), ("paused", "Up (Paused)", "Paused", "warn")])
def test_a_state_is_a_word_and_not_only_a_colour(state: str, status: str, word: str, tone: str) -> None:
    view = api.ContainerSummary(id="1", names=["/a"], image="b", image_id="c", command="", created=0, state=state, status=status)
    assert state_text(container_row(view)) == (word, tone)


def test_cpu_is_counted_as_docker_stats_counts_it() -> None:
    sample = api.Stats(cpu_stats=api.CpuStats(cpu_usage=api.CpuUsage(total_usage=300), system_cpu_usage=2000, online_cpus=2),
                       precpu_stats=api.CpuStats(cpu_usage=api.CpuUsage(total_usage=100), system_cpu_usage=1000),
                       memory_stats=api.MemoryStats(usage=1000, limit=5000, stats={"inactive_file": 400}))
    assert usage(sample) == Usage(40.0, 600, 5000)
    assert usage(api.Stats()) is None


def test_sizes_and_ages_read_as_people_write_them() -> None:
    assert [size_text(n) for n in (0, 999, 1500, 1_984_223, 123_000_000)] == ["0 B", "999 B", "1.5 kB", "2.0 MB", "123 MB"]
    assert memory_text(3 << 20) == "3.0 MiB"
    assert [age_text(1000, 1000 + s) for s in (5, 61, 7200, 86400 * 8)] == ["just now", "1 minute ago", "2 hours ago", "1 week ago"]


def test_the_name_column_is_where_the_delegate_expects_it() -> None:
    assert ContainerTable.columns[NAME].title == "Name"


def test_a_picture_taken_as_root_does_not_turn_dev_null_into_a_file(qapp: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.settings import Preferences

    made = []
    monkeypatch.setattr("app.settings.QSettings", lambda *paths: made.append(paths))
    preferences = Preferences(keep=False)
    preferences.theme = "dark"
    preferences.keep_flag("wrap", False)
    assert (preferences.theme, preferences.flag("wrap", True), preferences.layout("main"), made) == ("dark", False, None, [])


def test_a_page_that_the_window_does_not_have_is_refused_with_those_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    from app.application import options
    from app.windows.main import PAGES

    with pytest.raises(SystemExit):
        options(["--page", "kitchen"])
    said = capsys.readouterr().err
    assert "kitchen is no page" in said and all(name in said for name, _ in PAGES)
    for name, _ in PAGES:
        assert options(["--page", name]).page == name
