"""Plug-ins are found where the administrator put them, and one that misbehaves is an error with words, never a hang."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backend.errors import NotFound, ServerError, Unavailable
from backend.plugins import Plugins
from backend.plugins.discovery import Address, Tls, find, names, parse_address

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Answer(msgspec.Struct, rename="pascal"):
    value: int = 0


def http(body: Any, status: int = 200, *, head: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode() + data


class Fake:
    """A plug-in inside the test: *answers* by method, bytes as they go out; b"" closes, None says nothing."""

    def __init__(self, folder: Path, **answers: bytes | None) -> None:
        self.answers = {"Plugin.Activate": http({"Implements": ["VolumeDriver"]}), **{name.replace("_", "."): data for name, data in answers.items()}}
        self.asked: list[str] = []
        self.path = str(folder / "p.sock")

    async def __aenter__(self) -> Fake:
        self.server = await asyncio.start_unix_server(self.serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method = head.split()[1].lstrip("/")
        self.asked.append(method)
        data = self.answers[method]
        if data is None:
            await reader.read()
        else:
            writer.write(data)
            await writer.drain()
        writer.close()


def plugins(folder: Path) -> Plugins:
    return Plugins([str(folder)], scale=0.005)


async def call(folder: Path, method: str = "VolumeDriver.Get") -> Answer:
    return await plugins(folder).call("p", method, {"Name": "x"}, Answer)


async def test_an_answer_is_read_whatever_its_framing(tmp_path: Path) -> None:
    for data in (http({"Value": 5}), b'HTTP/1.1 200 OK\r\n\r\n{"Value":5}', b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"Value":5}',
                 b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"Val\r\n6;x=y\r\nue":5}\r\n0\r\n\r\n'):
        async with Fake(tmp_path, VolumeDriver_Get=data):
            assert (await call(tmp_path)).value == 5


@pytest.mark.parametrize(("data", "words"), [
    (http({"Err": "no such thing"}), "^no such thing$"), (http({"Err": "no"}, 500), "^no$"), (http(b"broken", 500), "status 500: 'broken'"),
    (http(b"<html>"), "nonsense"), (http({"Value": "five"}), "nonsense"), (b"", "closed the connection"), (b"SSH-2.0\r\n\r\n", "no HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "a body of 99999999999 bytes"), (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "a body of -5"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "a body of more than"), (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "cannot be read"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}", "closed the connection"), (b"A" * 200_000, "cannot be read"), (None, r"did not answer VolumeDriver\.Get within")])
async def test_a_refusal_or_nonsense_is_an_error_with_words(tmp_path: Path, data: bytes | None, words: str) -> None:
    async with Fake(tmp_path, VolumeDriver_Get=data) as fake:
        with pytest.raises(ServerError, match=words):
            await call(tmp_path)
        assert fake.asked == ["Plugin.Activate", "VolumeDriver.Get"], "what was heard is never said twice"


async def test_what_speaks_no_plugin_protocol_is_told_and_asked_again_later(tmp_path: Path) -> None:
    used = plugins(tmp_path)
    async with Fake(tmp_path, Plugin_Activate=http(b"hello")) as fake:
        with pytest.raises(ServerError, match="does not speak the plug-in protocol"):
            await used.call("p", "VolumeDriver.List", {}, Answer)
        fake.answers["Plugin.Activate"] = http({"Implements": ["NetworkDriver"]})
        with pytest.raises(NotFound, match="does not implement VolumeDriver"):
            await used.call("p", "VolumeDriver.List", {}, Answer)
        assert used.active("NetworkDriver") == ["p"] and await used.of_kind("VolumeDriver") == []


async def test_many_callers_activate_a_plugin_once(tmp_path: Path) -> None:
    used = plugins(tmp_path)
    async with Fake(tmp_path, VolumeDriver_Get=http({"Value": 1})) as fake:
        await asyncio.gather(*(used.call("p", "VolumeDriver.Get", {}, Answer) for _ in range(5)))
        assert fake.asked.count("Plugin.Activate") == 1


async def test_a_plugin_that_comes_up_late_is_reached_and_a_dead_one_named(tmp_path: Path) -> None:
    used = plugins(tmp_path)
    async with Fake(tmp_path) as fake:
        pass
    with pytest.raises(Unavailable, match=r"nobody answers at .*p\.sock.*Is it running\?"):
        await used.call("p", "VolumeDriver.Get", {}, Answer)
    task = asyncio.create_task(Plugins([str(tmp_path)], scale=0.05).call("p", "VolumeDriver.Get", {}, Answer))
    await asyncio.sleep(0.02)
    os.unlink(fake.path)
    fake.answers["VolumeDriver.Get"] = http({"Value": 2})
    async with fake:
        assert (await task).value == 2
    assert await used.of_kind("NetworkDriver") == [], "a list passes over what does not answer"


def test_descriptions_are_found_in_the_order_of_the_folders(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    (second / "nested").mkdir(parents=True)
    (first / "one.spec").write_text("tcp://10.0.0.1:99\n")
    (second / "one.spec").write_text("unix:///never\n")
    (second / "nested/nested.json").write_text(json.dumps({"Name": "nested", "Addr": "https://h.example", "TLSConfig": {"CAFile": "/ca", "InsecureSkipVerify": True}}))
    folders = [str(first), str(second), str(tmp_path / "missing")]
    assert find("one", folders) == Address(host="10.0.0.1", port=99)
    assert find("nested", folders) == Address(host="h.example", port=443, tls=Tls(insecure=True, ca="/ca"))
    assert names(folders) == ["nested", "one"]
    for wrong in ("../one", "", "nobody", "a/b"):
        with pytest.raises(NotFound):
            find(wrong, folders)


@pytest.mark.parametrize("text", ["", "tcp://x", "unix://relative", "ftp://x:1", "tcp://x:notaport", "http://[::1"])
def test_an_address_without_sense_names_its_file(text: str) -> None:
    with pytest.raises(ServerError, match=r"p\.spec has no address"):
        parse_address(text, None, "/etc/docker/plugins/p.spec")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file to somebody else")
def test_what_others_may_write_is_passed_over(tmp_path: Path) -> None:
    spec = tmp_path / "p.spec"
    spec.write_text("tcp://h:1")
    assert find("p", [str(tmp_path)]).host == "h"
    for spoil, mend in ((lambda: spec.chmod(0o666), lambda: spec.chmod(0o644)), (lambda: os.chown(spec, 1000, 0), lambda: os.chown(spec, 0, 0)),
                        (lambda: tmp_path.chmod(0o777), lambda: tmp_path.chmod(0o755))):
        spoil()
        with pytest.raises(NotFound):
            find("p", [str(tmp_path)])
        mend()
