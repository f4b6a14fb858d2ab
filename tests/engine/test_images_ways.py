"""Ways to registries: mirrors, proxies, client certificates, search, what a name means there without pulling."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import EngineError, InvalidArgument, NotFound
from backend.images import remote, transport
from backend.images.hosts import Endpoint, is_insecure, proxy_for
from backend.images.registry import Registry
from backend.images.types import RegistrySettings
from backend.spec.reference import parse
from tests.support.certificates import Authority
from tests.support.images import nothing, store, tar_of
from tests.support.liar import INDEX, Liar, digest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting layers needs root")
SMALL = tar_of([("a", b"x" * 1000)])


@pytest.fixture(autouse=True)
def no_memory_of_schemes() -> None:
    transport._schemes.clear()


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as made:
        yield made


async def test_mirrors_are_asked_in_order_and_one_that_is_down_is_passed_over(liar: Liar) -> None:
    liar.image("library/x", "1", [SMALL])
    with Liar() as empty:
        mirrors = ("http://127.0.0.1:1", f"http://{empty.host}", f"http://{liar.host}")
        async with store(settings=RegistrySettings(mirrors=mirrors, pause=0.01)) as images:
            image = await images.pull("x:1", platform=None, auth=None, progress=nothing)
            assert image.references == ("x:1",) and image.digests[0].startswith("x@sha256:")
            assert any("/manifests/1" in path for _, path, _ in empty.seen)


async def test_credentials_are_not_given_to_a_mirror(liar: Liar) -> None:
    from backend.images.types import RegistryAuth

    liar.image("library/x", "1", [SMALL])
    liar.lie("*", "/v2/library/", lambda talk: talk.fail(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="x"'}))
    settings = RegistrySettings(mirrors=(f"http://{liar.host}",), https_proxy="http://127.0.0.1:1", pause=0.01)
    async with store(settings=settings) as images:
        with pytest.raises(EngineError):
            await images.pull("x:1", platform=None, auth=RegistryAuth("anna", "geheim"), progress=nothing)
    assert liar.seen and all(authorization == "" for _, _, authorization in liar.seen)


async def test_a_registry_behind_a_proxy_is_reached_through_it_and_loopback_never(liar: Liar) -> None:
    liar.image("x", "1", [SMALL])
    settings = RegistrySettings(insecure=("registry.example:5000",), http_proxy=f"http://anna:geheim@{liar.host}",
                                https_proxy="http://127.0.0.1:1", pause=0.01)
    async with store(settings=settings) as images:
        await images.pull("registry.example:5000/x:1", platform=None, auth=None, progress=nothing)
    with Liar() as other:
        other.image("x", "1", [SMALL])
        before = len(liar.seen)
        async with store(settings=settings) as images:
            await images.pull(f"{other.host}/x:1", platform=None, auth=None, progress=nothing)
        assert len(liar.seen) == before


@pytest.mark.parametrize(("rules", "url", "used"), [
    ("", "https://a.example/", True), ("a.example", "https://a.example/", False), (".example", "https://a.example/", False),
    ("example", "https://a.example/", False), ("b.example", "https://a.example/", True), ("*", "https://a.example/", False),
    ("10.0.0.0/8", "https://10.1.2.3/", False), ("10.0.0.0/8", "https://11.1.2.3/", True), ("a.example:5000", "https://a.example:5000/", False),
    ("", "https://127.0.0.1:5000/", False), ("", "https://localhost/", False), ("", "https://[::1]/", False),
])
def test_who_needs_no_proxy(rules: str, url: str, used: bool) -> None:
    settings = RegistrySettings(https_proxy="http://proxy:3128", no_proxy=rules)
    assert proxy_for(url, settings) == ("http://proxy:3128" if used else "")


@pytest.mark.parametrize(("host", "insecure"), [
    ("127.0.0.1:5000", True), ("127.9.9.9", True), ("[::1]:5000", True), ("localhost:5000", True), ("lab:5000", True),
    ("10.2.3.4:5000", True), ("lab", False), ("localhost.example", False), ("127.0.0.1.example", False), ("128.0.0.1", False),
])
def test_only_a_literal_loopback_address_or_who_was_named_is_insecure(host: str, insecure: bool) -> None:
    assert is_insecure(host, RegistrySettings(insecure=("lab:5000", "10.0.0.0/8"))) is insecure


def test_a_plain_registry_that_was_not_named_insecure_is_told_from_one_that_is_down(liar: Liar) -> None:
    endpoint = Endpoint(liar.host, insecure=False)
    registry = Registry(endpoint, parse(f"{liar.host}/x"), None, threading.Event(), RegistrySettings(pause=0.01))
    with pytest.raises(EngineError, match="server gave HTTP response to HTTPS client"):
        registry.tags()


async def test_a_client_certificate_goes_to_the_registry_that_it_is_for(liar: Liar, tmp_path: Path) -> None:
    authority = Authority(str(tmp_path))
    server, own = authority.issue("server"), authority.issue("client", client=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    context.load_verify_locations(authority.root)
    context.verify_mode = ssl.CERT_REQUIRED
    liar._server.socket = context.wrap_socket(liar._server.socket, server_side=True, do_handshake_on_connect=False)
    liar.image("x", "1", [SMALL])
    folder = tmp_path / "certs.d" / liar.host
    folder.mkdir(parents=True)
    shutil.copy(authority.root, folder / "ca.crt")
    settings = RegistrySettings(certificates=(str(tmp_path / "certs.d"),), pause=0.01, stall=5)
    async with store(settings=settings) as images:
        with pytest.raises(EngineError):
            await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    shutil.copy(own.certificate, folder / "client.cert")
    shutil.copy(own.key, folder / "client.key")
    async with store(settings=settings) as images:
        await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)
    (folder / "client.key").write_text("no key")
    async with store(settings=settings) as images:
        with pytest.raises(EngineError, match=r"client\.cert cannot be used"):
            await images.pull(f"{liar.host}/x:1", platform=None, auth=None, progress=nothing)


def test_a_search_finds_what_the_registry_says_and_says_when_it_has_none(liar: Liar) -> None:
    settings = RegistrySettings(pause=0.01)
    with pytest.raises(EngineError, match="has no search"):
        remote.search(f"{liar.host}/x", 0, None, settings)
    rows = [{"name": f"x{n}", "description": None, "star_count": n, "is_official": n == 1} for n in range(5)]
    liar.lie("GET", "/v1/search", lambda talk: talk.say(200, json.dumps({"results": rows, "q": talk.query["q"][0]}).encode()), times=2)
    found = remote.search(f"{liar.host}/x", 3, None, settings)
    assert [(one.name, one.stars, one.official) for one in found] == [("x0", 0, False), ("x1", 1, True), ("x2", 2, False)]
    assert len(remote.search(f"{liar.host}/x", 0, None, settings)) == 5
    for bad in (b"[", b"[]", b'{"results": 5}'):
        liar.lie("GET", "/v1/search", lambda talk, bad=bad: talk.say(200, bad), times=1)
        with pytest.raises(EngineError, match="cannot be read"):
            remote.search(f"{liar.host}/x", 0, None, settings)
    with pytest.raises(InvalidArgument):
        remote.search(f"{liar.host}/", 0, None, settings)


def test_what_a_name_means_is_told_without_pulling(liar: Liar) -> None:
    settings = RegistrySettings(pause=0.01)
    image = liar.image("x", "1", [SMALL], config={"architecture": "arm64", "variant": "v8"})
    found, platforms = remote.describe(parse(f"{liar.host}/x:1"), None, settings)
    assert found.digest == image["digest"] and [str(one) for one in platforms] == ["linux/arm64/v8"]
    top = liar.manifest("x", "many", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {**image, "platform": {"os": "linux", "architecture": name}} for name in ("amd64", "s390x")]})
    found, platforms = remote.describe(parse(f"{liar.host}/x:many"), None, settings)
    assert (found.digest, found.media_type) == (top["digest"], INDEX) and [str(one) for one in platforms] == ["linux/amd64", "linux/s390x"]
    with pytest.raises(NotFound):
        remote.describe(parse(f"{liar.host}/x@{digest(b'none')}"), None, settings)


def test_a_list_of_tags_comes_page_by_page_and_not_without_end(liar: Liar) -> None:
    settings = RegistrySettings(pause=0.01)
    pages = iter(range(3))

    def page(talk: object) -> bool:
        number = next(pages, None)
        link = {"Link": f'</v2/x/tags/list?last={number}>; rel="next"'} if number is not None and number < 2 else {}
        return talk.say(200, json.dumps({"tags": [f"t{number}"]}).encode(), link)  # type: ignore[attr-defined]

    liar.lie("GET", "/tags/list", page, times=3)
    assert remote.all_tags(parse(f"{liar.host}/x"), None, settings) == ["t0", "t1", "t2"]
    liar.lie("GET", "/tags/list", lambda talk: talk.say(200, b'{"tags":["a"]}', {"Link": '</v2/x/tags/list>; rel="next"'}))
    with pytest.raises(EngineError, match="without end"):
        remote.all_tags(parse(f"{liar.host}/x"), None, settings)
