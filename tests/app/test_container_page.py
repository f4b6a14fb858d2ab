"""What a container's page says of usage, changes and limits."""

from __future__ import annotations

import pytest

from app.models.container_changes import tree
from app.models.limits_form import memory_bytes, nano_cpus, shown_memory, update_body
from app.models.usage import counters, live, past, pieces
from app.widgets.plot import Plot
from backend.errors import InvalidArgument
from backend.spec import api
from backend.spec.api.usage import Usage


def stats(cpu: int, received: int, written: int) -> api.Stats:
    return api.Stats(
        cpu_stats=api.CpuStats(cpu_usage=api.CpuUsage(total_usage=cpu), system_cpu_usage=cpu * 10, online_cpus=2),
        precpu_stats=api.CpuStats(cpu_usage=api.CpuUsage(total_usage=cpu - 100), system_cpu_usage=(cpu - 100) * 10, online_cpus=2),
        memory_stats=api.MemoryStats(usage=5000), networks={"eth0": api.NetworkStats(rx_bytes=received)},
        blkio_stats=api.BlkioStats(io_service_bytes_recursive=[api.BlkioEntry(8, 0, "write", written)]))


def test_live_samples_become_rates_and_a_restart_is_no_negative_rate() -> None:
    first, second = counters(stats(1000, 500, 0), 10.0), counters(stats(2000, 2500, 8000), 12.0)
    assert live(stats(1000, 500, 0), None, first) is None
    sample = live(stats(2000, 2500, 8000), first, second)
    assert sample is not None and (sample.received, sample.written, sample.memory, sample.cpu) == (1000.0, 4000.0, 5000, 20.0)
    again = live(stats(2000, 0, 0), second, counters(stats(2000, 0, 0), 13.0))
    assert again is not None and again.received == 0 and again.written == 0


def test_the_engines_history_and_live_samples_draw_one_line_with_gaps_where_nothing_ran(qtbot: object) -> None:
    history = Usage(time=[1.0, 2.0, 90.0], cpu=[1.0, 2.0, 3.0], memory=[1, 1, 1], received=[0, 0, 0], sent=[0, 0, 0], read=[0, 0, 0],
                    written=[0, 0, 0], pids=[1, 1, 1])
    found = past(history)
    assert [one.cpu for one in found] == [1.0, 2.0, 3.0]
    assert [list(one) for one in pieces([one.at for one in found], 15)] == [[0, 1], [2]]
    plot = Plot("Processor", lambda value: f"{value:.1f} %", floor=10, span=100)
    qtbot.addWidget(plot)
    plot.resize(400, 160)
    plot.set_rows([one.at for one in found], [one.cpu for one in found])
    plot.add(91.0, 12.0)
    plot.add(91.0, 99.0)
    assert plot.latest() == "12.0 %" and plot.top() == 20 and not plot.grab().isNull()
    plot.add(500.0, 1.0)
    assert plot.times == [500.0], "what fell out of the axis is forgotten"


def test_changes_are_a_tree_in_which_only_what_changed_says_so() -> None:
    found = tree([api.FilesystemChange("/etc", 0), api.FilesystemChange("/etc/hosts", 0), api.FilesystemChange("/new", 1),
                  api.FilesystemChange("/new/a", 1), api.FilesystemChange("/etc/gone", 2)])
    assert (found.below["etc"].change, found.below["new"].change) == ("", "added")
    assert {name: one.change for name, one in found.below["etc"].below.items()} == {"hosts": "changed", "gone": "removed"}


@pytest.mark.parametrize(("text", "size"), [("", 0), ("512m", 512 << 20), ("1.5 GiB", 3 << 29), ("4096", 4096), ("2GB", 2 << 30)])
def test_memory_is_written_as_people_write_it(text: str, size: int) -> None:
    assert memory_bytes(text) == size
    assert memory_bytes(shown_memory(size)) == size


def test_limits_that_mean_nothing_are_told_before_the_engine_is_asked() -> None:
    for wrong in (lambda: memory_bytes("much"), lambda: nano_cpus("-1"), lambda: nano_cpus("two"), lambda: update_body("", "", "x", "no", 0)):
        with pytest.raises(InvalidArgument):
            wrong()
    body = update_body("64m", "0.5", "20", "on-failure", 3)
    assert (body.memory, body.nano_cpus, body.pids_limit, body.restart_policy.maximum_retry_count) == (64 << 20, 500_000_000, 20, 3)
