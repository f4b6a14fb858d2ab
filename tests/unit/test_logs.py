"""Container logs: no byte is lost or doubled, lines come as the program wrote them, a torn file does no harm."""

from __future__ import annotations

import json
import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.logs import MAX_LINE, LogReader, LogWriter, Record, records
from backend.logs.jsonfile import JSON_NAME

DRIVERS = ["slipway", "json-file"]


def write(path: Path, chunks: list[tuple[int, bytes]], driver: str = "slipway", size: int = 0, files: int = 1, start: int = 1) -> LogWriter:
    writer = LogWriter(str(path), driver, size, files)
    for n, (stream, data) in enumerate(chunks):
        writer.write(stream, data, (start + n) * 1_000_000_000)
    return writer


def lines(path: Path, **how: object) -> list[bytes]:
    return [r.data for r in records(LogReader(str(path)).read(**how))]    # type: ignore[arg-type]


@pytest.mark.parametrize("driver", DRIVERS)
def test_lines_are_put_together_from_chunks_of_each_stream(tmp_path: Path, driver: str) -> None:
    write(tmp_path, [(1, b"a"), (2, b"err 1\nerr"), (1, b"b\nc\n"), (2, b" 2\n"), (1, b"last")], driver).close()
    assert lines(tmp_path, stderr=False) == [b"ab\n", b"c\n", b"last"]
    assert lines(tmp_path, stdout=False) == [b"err 1\n", b"err 2\n"]
    first = next(records(LogReader(str(tmp_path)).read(stderr=False)))
    assert first == Record(3_000_000_000, 1, b"ab\n")     # the time of its end: times rise from line to line


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("seed", range(4))
def test_tail_is_the_end_of_everything(tmp_path: Path, driver: str, seed: int) -> None:
    chance = random.Random(seed)
    text = {s: b"".join(b"%d-%d %s\n" % (s, i, b"x" * chance.randrange(60)) for i in range(400)) for s in (1, 2)}
    chunks, at = [], {1: 0, 2: 0}
    while any(at[s] < len(text[s]) for s in at):
        stream = chance.choice([s for s in at if at[s] < len(text[s])])
        size = chance.choice([1, 7, 50, 1000])
        chunks.append((stream, text[stream][at[stream] : at[stream] + size]))
        at[stream] += size
    write(tmp_path, chunks, driver).close()
    everything = lines(tmp_path)
    assert sorted(everything) == sorted(b"".join(text.values()).splitlines(keepends=True))
    for tail in (0, 1, 2, 17, 500, 5000):
        assert lines(tmp_path, tail=tail) == (everything[-tail:] if tail else [])
        of_both = lines(tmp_path, tail=tail)                # as Docker: the tail is of both, the choice comes after
        assert lines(tmp_path, tail=tail, stdout=False) == [x for x in of_both if x.startswith(b"2-")]


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How much has been read from files so far."""
    total, real = 0, os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        nonlocal total
        data = real(fd, size, offset)
        total += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    return lambda: total


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(("how", "count"), [({"tail": 3}, 3), ({"since": 398_000_000_000}, 300),
                                            ({"tail": 50, "since": 398_000_000_000}, 50), ({"tail": 500, "since": 398_000_000_000}, 300)])
def test_the_end_of_a_long_log_costs_what_it_shows(tmp_path: Path, driver: str, how: dict[str, int], count: int, bytes_read: Callable[[], int]) -> None:
    write(tmp_path, [(1, b"".join(b"%06d %s\n" % (n, b"y" * 500) for n in range(at, at + 100))) for at in range(0, 40_000, 100)], driver).close()
    assert [int(x[:6]) for x in lines(tmp_path, **how)] == list(range(40_000 - count, 40_000))
    assert bytes_read() < 4 << 20                       # of 20


def test_the_end_of_a_line_without_end_costs_no_more(tmp_path: Path, bytes_read: Callable[[], int]) -> None:
    write(tmp_path, [(1, b"q" * 60_000)] * 600).close()
    assert sum(map(len, lines(tmp_path, tail=1))) <= MAX_LINE
    assert bytes_read() < 16 << 20


@pytest.mark.parametrize("driver", DRIVERS)
def test_reading_ends_at_until(tmp_path: Path, driver: str, bytes_read: Callable[[], int]) -> None:
    write(tmp_path, [(1, b"%07d" % n + b"y" * 60_000 + b"\n") for n in range(300)], driver).close()
    assert b"".join(lines(tmp_path, until=2_000_000_000)).count(b"\n") == 2
    assert bytes_read() < 4 << 20


@pytest.mark.parametrize("driver", DRIVERS)
def test_since_and_until(tmp_path: Path, driver: str) -> None:
    write(tmp_path, [(1, b"%d\n" % n) for n in range(1, 10)], driver).close()
    assert lines(tmp_path, since=4_000_000_000, until=6_000_000_000) == [b"4\n", b"5\n", b"6\n"]
    assert lines(tmp_path, since=4_000_000_000, until=8_000_000_000, tail=4) == [b"6\n", b"7\n", b"8\n"]


def test_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    data = bytes(range(256)) * 300
    write(tmp_path, [(1, data)]).close()
    assert b"".join(lines(tmp_path)) == data


@pytest.mark.parametrize("cut", [1, 3, 5, 15, 20, 23])
def test_a_torn_last_record_is_left_out_and_cut_off_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    write(tmp_path, [(1, b"one\n"), (1, b"two\n"), (2, b"torn\n")]).close()
    path = tmp_path / "chunks-00000001.log"
    os.truncate(path, path.stat().st_size - cut)
    assert lines(tmp_path) == lines(tmp_path, tail=9) == [b"one\n", b"two\n"]
    write(tmp_path, [(1, b"three\n")]).close()
    assert lines(tmp_path) == lines(tmp_path, tail=9) == [b"one\n", b"two\n", b"three\n"]


def test_rotation_keeps_so_many_files_and_the_newest_lines(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"%04d %s\n" % (n, b"z" * 90)) for n in range(500)], size=5000, files=3).close()
    assert len(list(tmp_path.iterdir())) == 3
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 15_000
    kept = [int(x[:4]) for x in lines(tmp_path)]
    assert kept == list(range(kept[0], 500)) and len(kept) > 60
    assert [int(x[:4]) for x in lines(tmp_path, tail=70)] == list(range(430, 500))


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_follower_gets_every_line_once_through_rotation(tmp_path: Path, driver: str) -> None:
    writer = write(tmp_path, [(1, b"0\n"), (1, b"1\nhal")], driver, size=600, files=20)
    reader = LogReader(str(tmp_path))
    seen = [r.data for r in records(reader.read(follow=True))]
    assert seen == [b"0\n", b"1\n"]
    writer.write(1, b"f\n", 5)
    for n in range(2, 60):
        writer.write(1, b"%d\n" % n, n)
        if n % 3 == 0:
            seen += [r.data for r in records(reader.more())]
    writer.write(1, b"end", 99)
    writer.close()
    seen += [r.data for r in records(reader.finish())]
    reader.close()
    assert seen == [b"0\n", b"1\n", b"half\n", *(b"%d\n" % n for n in range(2, 60)), b"end"]


def test_a_follower_can_begin_at_the_end(tmp_path: Path) -> None:
    writer = write(tmp_path, [(1, b"old\n")])
    reader = LogReader(str(tmp_path))
    assert list(reader.read(tail=0, follow=True)) == []
    writer.write(1, b"new\n", 7)
    assert [r.data for r in records(reader.more())] == [b"new\n"]
    writer.close()


def test_a_follower_may_come_before_the_first_line(tmp_path: Path) -> None:
    reader = LogReader(str(tmp_path))
    assert list(reader.read(follow=True)) == []
    writer = write(tmp_path, [(1, b"first\n")])
    assert [r.data for r in records(reader.more())] == [b"first\n"]
    writer.close()


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"q" * 60_000)] * 100).close()
    pieces = lines(tmp_path)
    assert sum(map(len, pieces)) == 6_000_000 and max(map(len, pieces)) <= MAX_LINE


def test_json_lines_are_dockers(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path), "json-file", 0, 1)
    writer.write(2, "ü<&>\n".encode() + b"\xff\n", 1_700_000_000_123_456_700)
    writer.close()
    first, second = (json.loads(x) for x in (tmp_path / JSON_NAME).read_text().splitlines())
    assert first == {"log": "ü<&>\n", "stream": "stderr", "time": "2023-11-14T22:13:20.1234567Z"}
    assert second["log"] == "�\n"


def test_json_rotation_keeps_dockers_names(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"%03d\n" % n) for n in range(100)], "json-file", size=1000, files=3).close()
    assert {p.name for p in tmp_path.iterdir()} == {"json.log", "json.log.1", "json.log.2"}
    kept = [int(x) for x in lines(tmp_path)]
    assert kept == list(range(kept[0], 100))


def test_no_log_is_no_log(tmp_path: Path) -> None:
    write(tmp_path / "x", [(1, b"a\n")], "none").close()
    assert not (tmp_path / "x").exists() and lines(tmp_path / "x") == []


def test_a_full_disk_is_counted_and_does_not_stop_the_container() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        writer = LogWriter(folder, "json-file", 0, 1)
        writer._impl._fd = os.open("/dev/full", os.O_WRONLY)    # type: ignore[union-attr]
        writer.write(1, b"lost\n", 1)
        assert writer.lost == 5


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("seed", range(3))
def test_who_was_cut_off_goes_on_after_the_last_line_he_saw(tmp_path: Path, driver: str, seed: int) -> None:
    chance = random.Random(seed)
    writer = LogWriter(str(tmp_path), driver, 4000, 99)
    for n in range(400):                                # faster than the clock ticks, and in pieces of lines
        text = b"".join(b"%d.%d\n" % (n, i) for i in range(chance.randrange(4))) + b"~" * chance.randrange(3)
        writer.write(chance.choice((1, 2)), text, 1_000_000_000 + n // 5)
    writer.close()
    everything = list(records(LogReader(str(tmp_path)).read()))
    times = [r.time_ns for r in everything]
    assert times[:-2] == sorted(set(times[:-2]))        # the last two may be unfinished, of either stream
    for at in chance.sample(range(len(everything) - 3), 20):
        again = list(records(LogReader(str(tmp_path)).read(since=everything[at].time_ns + 1)))
        assert again == everything[at + 1 :]


def test_a_follower_of_json_files_misses_nothing_through_many_rotations_at_once(tmp_path: Path) -> None:
    writer = write(tmp_path, [(1, b"0\n")], "json-file", size=300, files=50)
    reader = LogReader(str(tmp_path))
    seen = [r.data for r in records(reader.read(follow=True))]
    for n in range(1, 120):
        writer.write(1, b"%d\n" % n, n)
        if n in (1, 40, 41, 90):
            seen += [r.data for r in records(reader.more())]
    writer.close()
    seen += [r.data for r in records(reader.finish())]
    reader.close()
    assert seen == [b"%d\n" % n for n in range(120)]


def test_a_reader_of_json_files_lets_go_of_them(tmp_path: Path) -> None:
    writer = write(tmp_path, [(1, b"%d\n" % n) for n in range(200)], "json-file", size=300, files=50)
    before = len(os.listdir("/proc/self/fd"))
    for tail in (None, 3):
        reader = LogReader(str(tmp_path))
        list(reader.read(tail, follow=True))
        assert len(os.listdir("/proc/self/fd")) == before + 1
        reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    writer.close()


def test_a_line_that_two_writers_wrote_is_one_line(tmp_path: Path) -> None:
    writer = write(tmp_path, [(1, b"first\nsec"), (2, b"x\n")])
    again = LogWriter(str(tmp_path), "slipway", 0, 1, resumes=True)     # a new keeper
    again.write(1, b"ond\n", 9_000_000_000)
    again.write(2, b"y\n", 9_000_000_001)
    assert lines(tmp_path, stderr=False) == [b"first\n", b"second\n"]
    assert lines(tmp_path, tail=2) == [b"second\n", b"y\n"]
    writer.close()
    again.close()


def test_the_unfinished_line_of_an_earlier_life_is_a_line_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"no newline")]).close()
    write(tmp_path, [(1, b"next life\n")], start=5).close()
    assert lines(tmp_path) == lines(tmp_path, tail=2) == [b"no newline", b"next life\n"]
    assert lines(tmp_path, tail=1) == [b"next life\n"]


def test_a_container_cannot_end_its_log_with_what_looks_like_a_record(tmp_path: Path) -> None:
    fake = struct.pack("<IBBBxQ", 5, 1, 0, 0xA7, 7) + b"fake\n" + struct.pack("<I", 25)
    write(tmp_path, [(1, b"one\n"), (1, b"x" * 100 + fake + b"y" * 100 + b"\n")]).close()
    path = tmp_path / "chunks-00000001.log"
    os.truncate(path, path.stat().st_size - 105)        # torn just behind it: the writer takes it for the last record
    write(tmp_path, [(1, b"%d\n" % n) for n in range(100)]).close()
    assert lines(tmp_path)[0] == b"one\n" and lines(tmp_path)[-20:] == [b"%d\n" % n for n in range(80, 100)]


def test_a_torn_last_entry_of_a_json_file_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    write(tmp_path, [(1, b"one\n"), (1, b"torn\n")], "json-file").close()
    path = tmp_path / JSON_NAME
    os.truncate(path, path.stat().st_size - 9)
    assert lines(tmp_path) == lines(tmp_path, tail=1) == [b"one\n"]
    write(tmp_path, [(1, b"two\n")], "json-file").close()
    assert lines(tmp_path) == [b"one\n", b"two\n"]
    assert len([json.loads(x) for x in path.read_text().splitlines()]) == 2


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_line_of_64_mebibytes_costs_no_memory(tmp_path: Path, driver: str) -> None:
    chunk = b"w" * 65_536
    tracemalloc.start()
    writer = LogWriter(str(tmp_path), driver, 0, 1)
    for n in range(1024):
        writer.write(1, chunk, n)
    writer.write(1, b"\n", 2000)
    writer.close()
    size = sum(len(line) for run in LogReader(str(tmp_path)).read() for line in run.lines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == (64 << 20) + 1
    assert peak < 12 << 20


def test_a_full_disk_loses_lines_and_not_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write(tmp_path, [(1, b"before\n")])
    room, real = 30, os.writev

    def full(fd: int, buffers: tuple[bytes, ...]) -> int:
        whole = b"".join(buffers)
        return real(fd, (whole[:room],)) if len(whole) > room else real(fd, buffers)

    monkeypatch.setattr(os, "writev", full)
    writer.write(1, b"lost " * 20 + b"\n", 2_000_000_000)
    writer.write(1, b"kept\n", 3_000_000_000)
    writer.close()
    assert writer.lost == 101
    assert lines(tmp_path) == lines(tmp_path, tail=5) == [b"before\n", b"kept\n"]


def test_json_files_of_dockers_are_read_and_nonsense_in_them_is_left_out(tmp_path: Path) -> None:
    entry = b'{"log":"%s","stream":"stdout","time":"2026-%s-01T00:00:00.5Z"}\n'
    (tmp_path / JSON_NAME).write_bytes(entry % (b"plain\\n", b"01") + entry % (b'\\u003ca\\u003e \\" \xc3\xbc\\n', b"02") + entry % (b"bad\\n", b"13")
                                       + b"\x00\x00nonsense\n[]\n" + b'{"log":"attrs\\n","stream":"stderr","attrs":{"a":"b"},"time":"2026-03-01T00:00:00Z"}\n')
    found = list(records(LogReader(str(tmp_path)).read()))
    assert [(r.stream, r.data) for r in found] == [(1, b"plain\n"), (1, '<a> " ü\n'.encode()), (2, b"attrs\n")]
    assert found[0].time_ns == 1_767_225_600_500_000_000
