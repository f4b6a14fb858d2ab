"""Which request's body another process may read: nothing that only looks like an upload, nothing that is cut wrong."""

from __future__ import annotations

import pytest

from helper.takeover import _contents, head_of_upload

HEAD = b"PUT /v1.51/containers/x/archive?path=/ HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(("data", "begins"), [
    (HEAD, len(HEAD)), (HEAD + b"body", len(HEAD)), (HEAD[:-1], -1), (HEAD[:10], -1), (b"", -1),
    (b"GET" + HEAD[3:], -1), (HEAD.replace(b"archive", b"files"), -1), (b"PUT / HTTP/1.1\r\nX: /archive?\r\n\r\n", -1),
    (b"POST /images/load HTTP/1.1\r\n\r\n" + HEAD, -1),
])  # fmt: skip
def test_only_the_whole_head_of_an_upload_is_one(data: bytes, begins: int) -> None:
    assert head_of_upload(data) == begins


@pytest.mark.parametrize(("raw", "length", "contents"), [
    (b"abcdefgh", 8, b"abcdef"), (b"abc", 8, None), (b"abc", 3, b"abc"), (b"", 0, b""),
    (b"8\r\nabcdefgh\r\n", -1, b"abcdef"), (b"8\r\nabc", -1, None), (b"2\r\nab\r\n", -1, b"ab"), (b"2", -1, None), (b"", -1, None),
    (b"no chunk" * 20, -1, b""), (b"0\r\n\r\n", -1, b""),
])  # fmt: skip
def test_the_first_bytes_of_the_contents_are_found_whatever_the_framing(raw: bytes, length: int, contents: bytes | None) -> None:
    assert _contents(raw, length) == contents
