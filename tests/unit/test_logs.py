"""Container logs: no byte is lost or doubled, lines come as the program wrote them, a torn file does no harm."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from backend.logs import JSON_NAME, MAX_LINE, LogReader, LogWriter, Record

DRIVERS = ["slipway", "json-file"]


def write(path: Path, chunks: list[tuple[int, bytes]], driver: str = "slipway", size: int = 0, files: int = 1, start: int = 1) -> LogWriter:
    writer = LogWriter(str(path), driver, size, files)
    for n, (stream, data) in enumerate(chunks):
        writer.write(stream, data, (start + n) * 1_000_000_000)
    return writer


def lines(path: Path, **how: object) -> list[bytes]:
    return [r.data for r in LogReader(str(path)).read(**how)]    # type: ignore[arg-type]


@pytest.mark.parametrize("driver", DRIVERS)
def test_lines_are_put_together_from_chunks_of_each_stream(tmp_path: Path, driver: str) -> None:
    write(tmp_path, [(1, b"a"), (2, b"err 1\nerr"), (1, b"b\nc\n"), (2, b" 2\n"), (1, b"last")], driver).close()
    assert lines(tmp_path, stderr=False) == [b"ab\n", b"c\n", b"last"]
    assert lines(tmp_path, stdout=False) == [b"err 1\n", b"err 2\n"]
    first = next(iter(LogReader(str(tmp_path)).read(stderr=False)))
    assert first == Record(1_000_000_000, 1, b"ab\n")


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


def test_a_tail_of_a_long_log_reads_only_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [(1, b"%07d" % n + b"y" * 60_000 + b"\n") for n in range(300)]).close()
    total, real = 0, os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        nonlocal total
        data = real(fd, size, offset)
        total += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert [x[:7] for x in lines(tmp_path, tail=3)] == [b"0000297", b"0000298", b"0000299"]
    assert total < 12 << 20


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
    seen = [r.data for r in reader.read(follow=True)]
    assert seen == [b"0\n", b"1\n"]
    writer.write(1, b"f\n", 5)
    for n in range(2, 60):
        writer.write(1, b"%d\n" % n, n)
        if n % 3 == 0:
            seen += [r.data for r in reader.more()]
    writer.write(1, b"end", 99)
    writer.close()
    seen += [r.data for r in reader.finish()]
    reader.close()
    assert seen == [b"0\n", b"1\n", b"half\n", *(b"%d\n" % n for n in range(2, 60)), b"end"]


def test_a_follower_can_begin_at_the_end(tmp_path: Path) -> None:
    writer = write(tmp_path, [(1, b"old\n")])
    reader = LogReader(str(tmp_path))
    assert list(reader.read(tail=0, follow=True)) == []
    writer.write(1, b"new\n", 7)
    assert [r.data for r in reader.more()] == [b"new\n"]
    writer.close()


def test_a_follower_may_come_before_the_first_line(tmp_path: Path) -> None:
    reader = LogReader(str(tmp_path))
    assert list(reader.read(follow=True)) == []
    writer = write(tmp_path, [(1, b"first\n")])
    assert [r.data for r in reader.more()] == [b"first\n"]
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


def test_a_line_that_a_dead_writer_left_unfinished_goes_on_with_the_next(tmp_path: Path) -> None:
    for part in (b"whole\nbegun ", b"and ended\nnext\n"):
        writer = LogWriter(str(tmp_path), "slipway", 0, 1)
        writer.write(1, part, 1)
        writer.close()
    assert [r.data for r in LogReader(str(tmp_path)).read(None, 0, 0, True, True)] == [b"whole\n", b"begun and ended\n", b"next\n"]
