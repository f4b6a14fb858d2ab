"""What the helper entrusts to the keeper outlives the helper, the keeper's upgrade and its replacement: an image that has not arrived hangs on it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.keeper import Lab

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")]


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    made = await Lab.open()
    yield made
    await made.close()


def alive(near: socket.socket) -> bool:
    """Whether anybody still holds the other end."""
    near.setblocking(False)
    try:
        return near.recv(1) != b""
    except BlockingIOError:
        return True


async def test_what_was_entrusted_is_kept_until_it_is_let_go(lab: Lab) -> None:
    near, far = socket.socketpair()
    await lab.keeper.entrust("a thing", [far.fileno()])
    assert await lab.keeper.entrusted("another") == []
    found = await lab.keeper.entrusted("a thing")
    assert len(found) == 1 and os.path.samestat(os.fstat(found[0]), os.fstat(far.fileno()))
    os.close(found[0])
    far_fd = far.fileno()
    await lab.keeper.entrust("a thing", [far_fd])          # once more: the first copy goes
    far.close()
    assert alive(near)
    await lab.keeper.entrust("a thing", [])
    assert not alive(near), "a copy was left behind"
    near.close()


async def test_it_outlives_the_helper_and_an_upgrade_of_the_keeper(lab: Lab) -> None:
    sleeper = await lab.sleeper()
    near, far = socket.socketpair()
    await lab.keeper.entrust("a thing", [far.fileno()])
    await lab.keeper.upgrade()
    lab.keeper.close()
    far.close()
    assert alive(near)
    await lab.connect()
    [found] = await lab.keeper.entrusted("a thing")
    os.write(found, b"x")
    near.setblocking(True)
    assert near.recv(1) == b"x"
    os.close(found)
    await lab.keeper.entrust("a thing", [])
    near.close()
    await lab.keeper.kill(sleeper, signal.SIGKILL)
    await lab.exit(sleeper)


async def test_a_new_keeper_gets_it_from_the_helper(lab: Lab) -> None:
    near, far = socket.socketpair()
    await lab.keeper.entrust("a thing", [far.fileno()])
    os.kill(lab.keeper.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await lab.lost.wait()
    lab.lost.clear()
    await lab.replace()
    [found] = await lab.keeper.entrusted("a thing")
    assert os.path.samestat(os.fstat(found), os.fstat(far.fileno()))
    os.close(found)
    await lab.keeper.entrust("a thing", [])
    far.close()
    assert not alive(near)
    near.close()


async def test_no_child_of_the_keeper_holds_on_to_it(lab: Lab) -> None:
    """A copy in a child that waits for work, or in a container, would keep a watch alive that nobody answers."""
    near, far = socket.socketpair()
    await lab.keeper.entrust("a thing", [far.fileno()])
    sleepers = [await lab.sleeper() for _ in range(6)]     # more than wait ready: new ones are forked meanwhile
    await lab.keeper.entrust("a thing", [])
    far.close()
    assert not alive(near)
    near.close()
    for one in sleepers:
        await lab.keeper.kill(one, signal.SIGKILL)
        await lab.exit(one)
