"""Names on user-defined networks, asked from inside a container's namespace as its libc would."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import pytest_asyncio

from backend.network.records import IpamConfig, NetworkSpec
from tests.engine.test_network_bridge import Rig, pytestmark, rig  # noqa: F401
from tests.support.netns import Container

SERVER = ("127.0.0.11", 53)


async def ask(container: Container, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    loop = asyncio.get_running_loop()
    made = container.open(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    await loop.sock_connect(made, SERVER)
    wire = query.to_wire()
    await loop.sock_sendall(made, struct.pack("!H", len(wire)) + wire if tcp else wire)
    data = await asyncio.wait_for(loop.sock_recv(made, 65535), 5)
    answer = dns.message.from_wire(data[2:] if tcp else data)
    assert query.is_response(answer)
    return answer


def values(answer: dns.message.Message) -> list[str]:
    return [str(item) for group in answer.answer for item in group]


class Upstream(asyncio.DatagramProtocol):
    """A server of the world: knows one name."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, client: Any) -> None:
        self.transport.sendto(self.answer(data), client)

    @staticmethod
    def answer(data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        if query.question[0].name.to_text() == "example.org.":
            answer.answer.append(dns.rrset.from_text("example.org.", 60, "IN", "A", "192.0.2.80"))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()


@pytest_asyncio.fixture
async def upstream(rig: Rig) -> AsyncIterator[str]:  # noqa: F811
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Upstream, local_addr=("0.0.0.0", 53))
    yield "10.77.0.1"
    transport.close()


@pytest_asyncio.fixture
async def stack(rig: Rig, upstream: str) -> AsyncIterator[tuple[Rig, Container, Container]]:  # noqa: F811
    await rig.manager.create(NetworkSpec("back", ipam=(IpamConfig("10.77.0.0/24"),)))
    web, _ = await rig.container("back", container_name="web", aliases=("www",))
    db, _ = await rig.container("back", container_name="db", hostname="Store")
    for one in (web, db):
        await rig.manager.serve_names(one.id, one.netns, servers=(upstream,))
    yield rig, web, db


async def test_containers_find_each_other_by_every_name(stack: tuple[Rig, Container, Container]) -> None:
    _, web, db = stack
    for tcp in (False, True):
        for name in ("db", "DB.", "store", db.id[:12], "db.back"):
            assert values(await ask(web, name, tcp=tcp)) == ["10.77.0.3"], name
    assert values(await ask(db, "www")) == ["10.77.0.2"]
    assert values(await ask(web, "3.0.77.10.in-addr.arpa", "PTR")) == ["db.back."]
    for kind in ("AAAA", "MX"):
        answer = await ask(web, "db", kind)
        assert answer.rcode() == dns.rcode.NOERROR and not answer.answer, "the name exists, without such a record"
    assert values(await ask(web, "host.docker.internal")) == ["10.77.0.1"]


async def test_other_names_go_to_the_worlds_servers(stack: tuple[Rig, Container, Container]) -> None:
    _, web, _ = stack
    assert values(await ask(web, "example.org")) == ["192.0.2.80"]
    assert (await ask(web, "nobody")).rcode() == dns.rcode.NXDOMAIN


async def test_a_users_server_is_asked_on_the_containers_own_network(stack: tuple[Rig, Container, Container]) -> None:
    """Also where the host does not reach it (the container's loopback), over TCP, and on an internal network."""
    rig, _, _ = stack  # noqa: F811
    await rig.manager.create(NetworkSpec("inner", internal=True))
    asker, _ = await rig.container("inner", container_name="asker")
    server, endpoint = await rig.container("inner", container_name="server")
    loop = asyncio.get_running_loop()
    for one, address in ((server, endpoint.ipv4), (asker, "127.0.0.1")):
        bound = one.open(socket.SOCK_DGRAM)
        bound.bind((address, 53))
        transport, _ = await loop.create_datagram_endpoint(Upstream, sock=bound)
        try:
            await rig.manager.serve_names(asker.id, asker.netns, servers=(address,))
            assert values(await ask(asker, "example.org")) == ["192.0.2.80"]
            assert (await ask(asker, "nobody")).rcode() == dns.rcode.NXDOMAIN
        finally:
            transport.close()
    listening = server.open()
    listening.bind((endpoint.ipv4, 53))
    listening.listen()
    server_tcp = await asyncio.start_server(_answer_tcp, sock=listening)
    try:
        await rig.manager.serve_names(asker.id, asker.netns, servers=("127.0.0.9", endpoint.ipv4))
        assert values(await ask(asker, "example.org", tcp=True)) == ["192.0.2.80"], "the first one refuses, the second answers"
    finally:
        server_tcp.close()


async def _answer_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    size = struct.unpack("!H", await reader.readexactly(2))[0]
    answer = Upstream.answer(await reader.readexactly(size))
    writer.write(struct.pack("!H", len(answer)) + answer)
    await writer.drain()
    writer.close()


async def test_names_of_another_network_are_not_seen(stack: tuple[Rig, Container, Container]) -> None:
    rig, web, _ = stack  # noqa: F811
    await rig.manager.create(NetworkSpec("front", internal=True))
    lone, endpoint = await rig.container("front", container_name="lone")
    await rig.manager.serve_names(lone.id, lone.netns)
    assert (await ask(web, "lone")).rcode() == dns.rcode.NXDOMAIN
    assert (await ask(lone, "example.org")).rcode() == dns.rcode.SERVFAIL, "nothing leaves an internal network"
    await rig.manager.connect(rig.manager.get("back").id, lone.id, lone.netns, _wish("lone"))
    assert values(await ask(web, "lone")) == ["10.77.0.4"]
    assert values(await ask(lone, "lone.front")) == [endpoint.ipv4]
    await rig.manager.disconnect(next(e for e in rig.manager.endpoints(rig.manager.get("back").id)
                                      if e.container_name == "lone"), lone.netns)
    assert (await ask(web, "lone")).rcode() == dns.rcode.NXDOMAIN


def _wish(name: str) -> Any:
    from backend.network.records import EndpointWish
    return EndpointWish(name)


async def test_a_name_with_many_containers_takes_turns_and_fits_the_clients_buffer(
        stack: tuple[Rig, Container, Container]) -> None:
    rig, web, _ = stack  # noqa: F811
    for _ in range(40):
        await rig.container("back", aliases=("many",))
    first = [values(await ask(web, "many", tcp=True)) for _ in range(3)]
    assert len(set(first[0])) == 40 and len({answer[0] for answer in first}) == 3
    cut = await ask(web, "many")
    assert cut.flags & dns.flags.TC and len(cut.to_wire()) <= 512


async def test_a_container_that_ended_is_unknown_and_its_namespace_goes(stack: tuple[Rig, Container, Container]) -> None:
    rig, web, db = stack  # noqa: F811
    await rig.end(db)
    assert (await ask(web, "db")).rcode() == dns.rcode.NXDOMAIN


async def test_a_renamed_container_is_found_by_its_new_name(stack: tuple[Rig, Container, Container]) -> None:
    rig, web, db = stack  # noqa: F811
    changed = rig.manager.rename(db.id, "postgres")
    assert [endpoint.dns_names for endpoint in changed] == [("postgres", db.id[:12], "Store")]
    assert values(await ask(web, "postgres")) == ["10.77.0.3"]
    assert (await ask(web, "db")).rcode() == dns.rcode.NXDOMAIN


async def test_names_answer_again_after_a_restart(stack: tuple[Rig, Container, Container]) -> None:
    rig, web, db = stack  # noqa: F811
    saved, endpoints = rig.manager.list(), rig.manager.endpoints(rig.manager.get("back").id)
    await rig.manager.close(keep=True)
    rig.manager = rig.new_manager()
    await rig.manager.open(saved)
    for one in (web, db):
        await rig.manager.restore(one.id, one.netns, [e for e in endpoints if e.container_id == one.id], ())
        await rig.manager.serve_names(one.id, one.netns)
    await rig.manager.restored()
    assert values(await ask(web, "db")) == ["10.77.0.3"]


async def test_a_container_can_run_a_dns_server_of_its_own(stack: tuple[Rig, Container, Container]) -> None:
    _, web, db = stack
    own = db.open(socket.SOCK_DGRAM)
    own.bind(("0.0.0.0", 53))
    listening = db.open()
    listening.bind(("0.0.0.0", 53))
    listening.listen()
    loop = asyncio.get_running_loop()
    made = web.open(socket.SOCK_DGRAM)
    await loop.sock_connect(made, ("10.77.0.3", 53))
    await loop.sock_sendall(made, b"to the container")
    assert await asyncio.wait_for(loop.sock_recv(own, 100), 5) == b"to the container"
    assert values(await ask(db, "web")) == ["10.77.0.2"], "and its own look-ups still come to us"


async def test_garbage_is_survived(stack: tuple[Rig, Container, Container]) -> None:
    _, web, _ = stack
    loop = asyncio.get_running_loop()
    made = web.open(socket.SOCK_DGRAM)
    await loop.sock_connect(made, SERVER)
    for data in (b"", b"x", b"\0" * 12, b"\0" * 4096, b"\xff" * 600, b"ab\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"):
        await loop.sock_sendall(made, data)
    assert values(await ask(web, "db")) == ["10.77.0.3"]


async def test_resolv_conf_says_what_the_network_needs(stack: tuple[Rig, Container, Container]) -> None:
    rig, web, _ = stack  # noqa: F811
    plan = rig.manager.resolver_plan(web.id, search=("corp.example",))
    assert plan.serve and plan.text.splitlines()[:2] == ["nameserver 127.0.0.11", "search corp.example"]
    plain, _ = await rig.container()
    assert rig.manager.resolver_plan(plain.id, servers=("192.0.2.53",)).text.startswith("nameserver 192.0.2.53\n")


async def test_five_thousand_questions_a_second_are_all_answered(stack: tuple[Rig, Container, Container]) -> None:
    _, web, _ = stack
    asker = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/proc/{os.getpid()}/fd/{web.netns}", sys.executable, "-m", "tests.support.askmany", "db", "5000", "2",
        cwd=Path(__file__).resolve().parents[2], stdout=asyncio.subprocess.PIPE)
    output, _ = await asker.communicate()
    assert output.split() == [b"10000", b"10000"]
