"""kill -9 of helper, keeper or both, and upgrades, at random moments of real work: what is said afterwards is true and nothing is orphaned.

The seed is printed with each failure; SLIPWAY_FAULT_SEED repeats it, SLIPWAY_FAULT_TURNS makes it longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.private import PrivateHelper, command_line, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]
SEED = int(os.environ.get("SLIPWAY_FAULT_SEED") or secrets.randbelow(1 << 32))
TURNS = int(os.environ.get("SLIPWAY_FAULT_TURNS") or 5)
COUNT = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done"


def eventually(what: str, holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"seed {SEED}: never came true: {what}"
        time.sleep(0.05)


@pytest.fixture
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield made


def states(helper: PrivateHelper) -> dict[str, dict[str, Any]]:
    ids = helper.docker("ps", "-aq").stdout.decode().split()
    found = json.loads(helper.docker("inspect", *ids).stdout) if ids else []
    return {one["Name"][1:]: {**one["State"], "Id": one["Id"]} for one in found}


def keeper_of(helper: PrivateHelper) -> int:
    """The keeper: the one process of its command line that is not a child of another such; 0 if there is none."""
    parents: dict[int, int] = {}
    for pid in helper.processes():
        with contextlib.suppress(OSError):
            if b"keeper.py" in command_line(pid):
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return next((pid for pid, parent in parents.items() if parent not in parents), 0)


class Work:
    """Clients at work: short runs with a code, execs, starts and stops. What they were told is kept."""

    def __init__(self, helper: PrivateHelper, turn: int) -> None:
        self._helper = helper
        self._turn = turn
        self._over = threading.Event()
        self.told: list[tuple[str, int, int, bytes]] = []
        self._threads = [threading.Thread(target=one) for one in (self._runs, self._execs, self._lives)]
        for thread in self._threads:
            thread.start()

    def _docker(self, *arguments: str) -> tuple[int, bytes]:
        with contextlib.suppress(Exception):
            done = self._helper.docker(*arguments, check=False, timeout=30)
            return done.returncode, done.stdout
        return -1, b""

    def _runs(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            code = number % 100 + 1
            got, out = self._docker("run", "--name", f"r{self._turn}-{number}", "busybox", "sh", "-c", f"echo out {number}; exit {code}")
            self.told.append((f"r{self._turn}-{number}", code, got, out))

    def _execs(self) -> None:
        while not self._over.is_set():
            self._docker("exec", "count", "echo", "hi")

    def _lives(self) -> None:
        while not self._over.is_set():
            self._docker("restart", "-t", "0", "lives")
            self._docker("kill", "lives")
            self._docker("start", "lives")

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def strike(helper: PrivateHelper, victim: str) -> None:
    assert helper.process is not None
    keeper = keeper_of(helper)
    if victim in ("keeper", "both") and keeper:
        os.kill(keeper, signal.SIGKILL)
    if victim in ("helper", "both"):
        helper.leave(signal.SIGKILL)
    if victim == "nobody":                     # instead the keeper becomes a newer one, under all that work
        helper.process.send_signal(signal.SIGHUP)


def check(helper: PrivateHelper, turn: int, keeper_died: int) -> None:
    """What is said is so, and nothing runs that nobody speaks of."""
    where = f"seed {SEED} turn {turn}"
    found = states(helper)
    for name, state in found.items():
        if state["Running"]:
            members = Path(f"/proc/{state['Pid']}/cgroup").read_text()
            assert state["Id"] in members, f"{where}: {name} is said to run as {state['Pid']}, which is something else"
    running = {state["Id"] for state in found.values() if state["Running"]}

    def orphans() -> list[str]:
        return [f"{top}/{name}" for top, names, _ in os.walk("/sys/fs/cgroup") if os.path.basename(top) == helper.instance
                for name in names if name not in running]

    eventually(f"{where}: no cgroup is left of what does not run, such as {orphans()[:3]}", lambda: not orphans())
    assert found["count"]["Running"], where
    lines = helper.docker("logs", "count").stdout.decode().splitlines()
    numbers = [int(line.removeprefix("line ")) for line in lines]
    assert numbers == sorted(set(numbers)), f"{where}: lines came twice or in disorder"
    lost = numbers[-1] + 1 - len(numbers)
    assert lost <= keeper_died, f"{where}: {lost} lines are lost, although the keeper died {keeper_died} times"
    assert helper.docker("exec", "count", "echo", "inside").stdout == b"inside\n", where
    assert helper.docker("run", "--rm", "busybox", "echo", "new").stdout == b"new\n", where


def test_what_is_said_after_kills_at_random_moments_is_true(helper: PrivateHelper) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    helper.docker("run", "-d", "--name", "count", "busybox", "sh", "-c", COUNT)
    helper.docker("run", "-d", "--name", "lives", "busybox", "sleep", "1000")
    helper.docker("run", "-d", "--name", "again", "--restart", "always", "busybox", "sleep", "1000")
    before = states(helper)["count"]["Pid"]
    keeper_died = 0
    for turn in range(TURNS):
        victim = chance.choice(["helper", "keeper", "keeper", "both", "nobody"])
        keeper_died += victim in ("keeper", "both")
        work = Work(helper, turn)
        time.sleep(chance.uniform(0.05, 0.8))
        strike(helper, victim)
        if victim in ("helper", "both"):
            if chance.random() < 0.5:
                with contextlib.suppress(OSError):
                    os.kill(states_pid(helper, "again"), signal.SIGKILL)
            helper.start()
        else:
            time.sleep(chance.uniform(0, 0.3))
        work.end()
        eventually(f"seed {SEED} turn {turn} ({victim}): the helper answers", lambda: helper.docker("ps", check=False).returncode == 0)
        eventually(f"seed {SEED} turn {turn} ({victim}): a policy starts its container again", lambda: states(helper)["again"]["Running"])
        check(helper, turn, keeper_died)
        now = states(helper)
        assert now["count"]["Pid"] == before, f"seed {SEED} turn {turn}: it was started anew"
        for name, code, got, out in work.told:
            state = now.get(name)
            if got == code:
                assert state is not None and state["ExitCode"] == code, (SEED, turn, victim, name, state)
                assert b"out" in out or victim not in ("helper", "nobody"), (SEED, turn, victim, name)
            if state is not None and state["Status"] == "exited":
                known = state["ExitCode"] == code or state["ExitCode"] in (125, 128, 137)
                assert known or (state["ExitCode"] == 255 and "not known" in state["Error"]), (SEED, turn, victim, name, state)
        helper.docker("rm", "-f", *(n for n in now if n.startswith("r")), check=False)


def states_pid(helper: PrivateHelper, name: str) -> int:
    """The pid of a container without asking the helper: by its keeper's record."""
    for path in Path(helper.exec, "containers").glob("*/state.json"):
        record = json.loads(path.read_text())
        line = Path(f"/proc/{record['pid']}/cmdline")
        if line.exists() and line.read_bytes() == b"sleep\x001000\x00" and name:
            return int(record["pid"])
    raise ProcessLookupError
