"""Namespaces made ahead: a start must find one ready, and none may be lost or given twice."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from backend.network.records import EndpointWish, NetworkSpec, PortWish
from tests.engine.test_network_bridge import Rig, links, pytestmark, rig, until  # noqa: F401
from tests.support.netns import Container, dial, tcp


@pytest.fixture
async def pooled(rig: Rig) -> Rig:  # noqa: F811
    await rig.manager.close(keep=False)
    rig.manager = rig.new_manager(ahead=3)
    await rig.manager.open([])
    await rig.manager.restored()
    await rig.manager._ahead.pool.filled()
    return rig


async def test_a_ready_namespace_is_a_whole_container(pooled: Rig) -> None:
    given = len(pooled.ops.given)
    made, endpoint = await pooled.container()
    assert len(pooled.ops.given) == given, "nothing had to be made"
    await made.serve_tcp(80)
    await pooled.manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
    assert await dial(tcp(), "127.0.0.1", 8080) == endpoint.gateway
    peer, other = await pooled.container(mac="02:00:00:00:00:07")
    assert other.mac == "02:00:00:00:00:07"
    assert await peer.connect(endpoint.ipv4, 80) == other.ipv4


async def test_running_containers_keep_their_addresses_when_the_pool_refills_after_a_restart(pooled: Rig) -> None:
    made = [await pooled.container() for _ in range(3)]
    saved = pooled.manager.list()
    await pooled.manager.close(keep=True)
    pooled.manager = pooled.new_manager(ahead=3)
    await pooled.manager.open(saved)
    await asyncio.sleep(0.05)
    for container, endpoint in made:
        await pooled.manager.restore(container.id, container.netns, [endpoint], ())
    await pooled.manager.restored()
    await pooled.manager._ahead.pool.filled()
    _, fresh = await pooled.container()
    assert fresh.ipv4 not in {endpoint.ipv4 for _, endpoint in made}


async def test_more_containers_than_were_ready_get_different_addresses(pooled: Rig) -> None:
    made = await asyncio.gather(*(pooled.container() for _ in range(10)))
    assert len({endpoint.ipv4 for _, endpoint in made}) == 10
    assert len({container.netns for container, _ in made}) == 10


async def test_ready_namespaces_can_go_to_another_network(pooled: Rig) -> None:
    await pooled.manager.create(NetworkSpec("other"))
    made = Container(pooled.ops, await pooled.manager.sandbox(pooled.manager.get("bridge").id))
    pooled.containers.append(made)
    endpoint = await pooled.manager.connect(pooled.manager.get("other").id, made.id, made.netns, EndpointWish("x"))
    names = pooled.ops.inside(made.netns, socket.if_nameindex)
    assert [name for _, name in names] == ["lo", "eth0"] and endpoint.ipv4.startswith("10.201.1.")


async def test_addresses_of_namespaces_that_were_never_used_come_back(pooled: Rig) -> None:
    netns = await pooled.manager.sandbox(pooled.manager.get("bridge").id)
    os.close(netns)          # the start failed before its connect
    lost = next(iter(pooled.manager._ahead._handed.values())).endpoint
    await until(lambda: lost.host_interface not in links())
    given = {(await pooled.container())[1].ipv4 for _ in range(4)}      # each take refills, and a refill tidies up
    await until(lambda: pooled.manager._ahead._handed == {})
    given |= {(await pooled.container())[1].ipv4 for _ in range(2)}
    await pooled.manager._ahead.pool.filled()
    ready = {prepared.endpoint.ipv4 for prepared in pooled.manager._ahead.pool._ready}
    assert lost.ipv4 in given | ready
    assert not given & ready and len(given) == 6
