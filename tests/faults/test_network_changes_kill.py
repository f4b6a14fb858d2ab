"""kill -9 of the helper during networks' and ports' changes by a client: what was answered is there, nothing else is left."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.wire import Failed, Wire
from tests.support.leftovers import settled
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        for _ in range(2):
            made.docker("run", "--rm", "-p", "127.0.0.1::80", "busybox", "true")
        yield made


def create(wire: Wire, name: str, network: str, port: bool) -> str:
    body: dict[str, Any] = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": network}}
    if port:
        body["HostConfig"]["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    made: str = wire.call("POST", f"/containers/create?name={name}", body)["Id"]
    return made


class Changes(threading.Thread):
    """Makes and unmakes things until the helper is gone. What was answered is in `networks` and `running`."""

    def __init__(self, helper: PrivateHelper, turn: int) -> None:
        super().__init__(daemon=True)
        self.wire, self.turn = Wire(helper.socket), turn
        self.networks: set[str] = set()
        self.doubt: set[str] = set()      # what was asked for last
        self.running: set[str] = set()

    def run(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, Failed):
            for number in itertools.count():
                self.one(f"t{self.turn}n{number}", number)

    def one(self, name: str, number: int) -> None:
        self.doubt = {name}
        self.wire.call("POST", "/networks/create", {"Name": name})
        self.networks.add(name)
        create(self.wire, name, name, port=number % 2 == 0)
        self.wire.call("POST", f"/containers/{name}/start")
        self.running.add(name)
        self.wire.call("POST", "/networks/bridge/connect", {"Container": name})
        if number % 2:
            self.wire.call("POST", f"/networks/{name}/disconnect", {"Container": name})
        if number % 3:
            self.running.discard(name)
            self.wire.call("DELETE", f"/containers/{name}?force=1")
            self.networks.discard(name)
            self.wire.call("DELETE", f"/networks/{name}")


def rules(helper: PrivateHelper) -> set[str]:
    """The published ports in the firewall."""
    listing = json.loads(subprocess.run(["nft", "-j", "list", "table", "inet", helper.instance], capture_output=True, check=True).stdout)
    return {str(key["concat"][-1]) for item in listing["nftables"] if item.get("map", {}).get("name", "").startswith(("any", "at"))
            for key, _ in item["map"].get("elem", ())}


def test_what_was_answered_is_there_after_a_kill_and_nothing_else(helper: PrivateHelper) -> None:
    seed = secrets.randbelow(1 << 32)
    chance = random.Random(seed)
    before = settled(helper)
    for turn in range(4):
        changes = Changes(helper, turn)
        changes.start()
        time.sleep(chance.uniform(0.05, 0.6))
        helper.leave(signal.SIGKILL)
        changes.join(20)
        helper.start()
        wire, where = Wire(helper.socket), f"seed {seed} turn {turn}"
        known = {one["Name"] for one in wire.call("GET", "/networks")} - {"bridge", "host", "none"}
        assert changes.networks - changes.doubt <= known <= changes.networks | changes.doubt, where
        views = [wire.call("GET", f"/containers/{one['Id']}/json") for one in wire.call("GET", "/containers/json")]
        assert changes.running - changes.doubt <= {view["Name"][1:] for view in views}, where
        addresses = [end["IPAddress"] for view in views for end in view["NetworkSettings"]["Networks"].values() if end["IPAddress"]]
        assert len(addresses) == len(set(addresses)), f"{where}: an address was given twice"
        ports = {one["HostPort"] for view in views for bound in view["NetworkSettings"]["Ports"].values() for one in bound or ()}
        assert rules(helper) == ports, f"{where}: the firewall publishes what nobody has"
        for view in views:
            kernel = json.loads(subprocess.run(["nsenter", "-n", "-t", str(view["State"]["Pid"]), "ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout)
            has = {address["local"] for device in kernel for address in device["addr_info"] if device["ifname"] != "lo"}
            said = {end["IPAddress"] for end in view["NetworkSettings"]["Networks"].values() if end["IPAddress"]}
            assert has == said or view["Name"][1:] in changes.doubt, f"{where}: {view['Name']} has {has} and is said to have {said}"
        for one in wire.call("GET", "/containers/json?all=1"):
            wire.call("DELETE", f"/containers/{one['Id']}?force=1")
        for name in known:
            wire.call("DELETE", f"/networks/{name}")
        assert rules(helper) == set(), where
        left = settled(helper).grown_since(before)
        assert [line for line in left if not line.startswith("descriptors")] == [], where


def test_a_name_is_answered_within_a_second_of_the_helpers_return(helper: PrivateHelper) -> None:
    wire = Wire(helper.socket)
    wire.call("POST", "/networks/create", {"Name": "names"})
    for name in ("asks", "isasked"):
        create(wire, name, "names", port=False)
        wire.call("POST", f"/containers/{name}/start")
    pid = wire.call("GET", "/containers/asks/json")["State"]["Pid"]
    helper.leave(signal.SIGKILL)
    helper.start()
    done = subprocess.run(["nsenter", "-n", "-t", str(pid), sys.executable, "-m", "tests.support.askmany", "isasked", "20", "0.5"], cwd=ROOT,
                          capture_output=True, check=True, timeout=30)
    assert done.stdout.split() == [b"10", b"10"]
    helper.docker("rm", "-f", "asks", "isasked")
    helper.docker("network", "rm", "names")


def test_after_an_orderly_stop_no_rule_and_no_device_is_left(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "last", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
    helper.docker("rm", "-f", "last")
    helper.leave(signal.SIGTERM)
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, check=True, text=True).stdout
    assert helper.instance not in tables
    assert not any(Path("/sys/class/net", name, "ifalias").read_text().strip() == f"slipway:{helper.instance}" for name in
                   (link for _, link in socket.if_nameindex()) if Path("/sys/class/net", name, "ifalias").exists())
    helper.start()
