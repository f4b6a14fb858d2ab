"""The body of an upload as a confined child reads it from the client's socket: whole, in whatever pieces it comes."""

from __future__ import annotations

import os
import random
import threading

import pytest

from backend.runtime.httpbody import Body, from_descriptor, joined
from backend.runtime.tarstream import BadTar


def fed(raw: bytes, sizes: list[int]) -> int:
    """The reading end of a pipe into which *raw* comes in pieces of these sizes, and the rest."""
    read, write = os.pipe()

    def feed() -> None:
        at = 0
        for size in [*sizes, len(raw)]:
            if raw[at : at + size]:
                os.write(write, raw[at : at + size])
            at += size
        os.close(write)

    threading.Thread(target=feed, daemon=True).start()
    return read


def contents(body: Body, room: int = 1000) -> bytes:
    out, view = b"", memoryview(bytearray(room))
    while got := body(view):
        out += bytes(view[:got])
    return out


def chunked(data: bytes, size: int, extension: bytes = b"") -> bytes:
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(one), extension, one) for one in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 1000, 40_000])
def test_chunks_of_any_size_are_put_together_again(size: int) -> None:
    data = random.Random(size).randbytes(min(size * 50, 100_000))
    pieces = [random.Random(n).randrange(1, 400) for n in range(200)]
    fd = fed(chunked(data, size, b";name=value"), pieces)
    assert contents(Body(from_descriptor(fd), -1)) == data
    os.close(fd)


def test_a_body_of_a_known_length_ends_there_and_leaves_the_rest() -> None:
    fd = fed(b"x" * 5000 + b"GET / HTTP/1.1\r\n", [100])
    assert contents(Body(from_descriptor(fd), 5000)) == b"x" * 5000
    os.close(fd)


def test_what_was_read_before_comes_first_wherever_it_was_cut() -> None:
    data = os.urandom(3000)
    raw = chunked(data, 512)
    for cut in (0, 1, 3, 5, 517, 519, 1000, len(raw) - 2):
        first, second = fed(raw[:cut], []), fed(raw[cut:], [])
        assert contents(Body(joined(first, second), -1)) == data, cut
        os.close(first)
        os.close(second)


def test_nothing_is_read_behind_the_last_chunk_and_its_trailers() -> None:
    fd = fed(b"3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", [])
    body = Body(from_descriptor(fd), -1)
    assert contents(body) == b"abc" and body(memoryview(bytearray(10))) == 0
    os.close(fd)


@pytest.mark.parametrize("raw", [
    b"", b"5\r\nabc", b"zz\r\nabc\r\n", b"-1\r\nabc\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3\r\nabcXX0\r\n\r\n", b"3" * 5000,
    b"\r\nabc", b"ffffffffffffffff\r\n", b"3\r\nabc\r\n",
], ids=range(10))  # fmt: skip
def test_a_malformed_or_broken_body_is_an_error(raw: bytes) -> None:
    fd = fed(raw, [])
    with pytest.raises(BadTar):
        contents(Body(from_descriptor(fd), -1))
    os.close(fd)
