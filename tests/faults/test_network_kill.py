"""kill -9 in the middle of network changes: the next helper finds and removes what was left, and loses nothing."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.network.manager import NetworkManager
from backend.network.records import AddressPool, EndpointWish, PortWish
from tests.engine.test_network_bridge import links, run, tables, until
from tests.support.netns import Container, Host, Namespaces, dial, tcp

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")]

VICTIM = """
import asyncio, itertools, random, sys
from backend.network.manager import NetworkManager
from backend.network.records import AddressPool, EndpointWish, NetworkSpec, PortWish
from tests.support.netns import Container, Namespaces
async def main():
    ops = Namespaces()
    manager = NetworkManager(instance=sys.argv[1], state_dir="", netns=ops, ahead=2, pools=(AddressPool("10.201.0.0/16", 24),))
    await manager.open([])
    await manager.restored()
    print("ready", flush=True)
    for number in itertools.count():
        network = await manager.create(NetworkSpec(f"n{number}"))
        made = Container(ops, await manager.sandbox())
        endpoint = await manager.connect(network.id, made.id, made.netns, EndpointWish(f"c{number}"))
        await manager.publish(made.id, endpoint, [PortWish(80), PortWish(53, "udp")])
        await manager.serve_names(made.id, made.netns)
        if number % 3:
            made.close()
            await manager.release(made.id)
            await manager.remove(network.id)
asyncio.run(main())
"""


async def test_nothing_is_orphaned_by_a_helper_that_was_killed_during_changes(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    chance = random.Random(seed)
    instance = f"slipway-{secrets.token_hex(4)}"
    host = Host(str(tmp_path))
    try:
        for turn in range(4):
            victim = subprocess.Popen([sys.executable, "-c", VICTIM, instance], stdout=subprocess.PIPE, text=True,
                                      cwd=Path(__file__).resolve().parents[2])
            assert victim.stdout is not None and victim.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.15))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            victim.stdout.close()
            ops = Namespaces()
            manager = NetworkManager(instance=instance, state_dir="", netns=ops, ahead=0,
                                     pools=(AddressPool("10.201.0.0/16", 24),))
            await manager.open([])
            await manager.restored()
            bridge = manager.get("bridge").bridge
            await until(lambda bridge=bridge: links() == {"lo", bridge})
            assert "elements" not in run("nft", "list", "map", "inet", instance, "any4"), f"seed {seed} turn {turn}"
            made = Container(ops, await manager.sandbox())
            endpoint = await manager.connect(manager.get("bridge").id, made.id, made.netns, EndpointWish("c"))
            await made.serve_tcp(80)
            await manager.publish(made.id, endpoint, [PortWish(80, host_port=8080)])
            assert await dial(tcp(), "127.0.0.1", 8080) == endpoint.gateway
            made.close()
            await manager.release(made.id)
            await manager.close(keep=False)
            assert links() == {"lo"} and tables() == set(), f"seed {seed} turn {turn}"
    finally:
        host.close()
