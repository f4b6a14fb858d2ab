"""Counting what an engine leaves behind: mounts, cgroups, links, processes, descriptors, state folders."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.private import PrivateHelper, command_line


@dataclass(frozen=True, slots=True)
class Census:
    """What the machine holds on behalf of one private helper at a moment."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    network_namespaces: int
    children: int
    descriptors: tuple[tuple[str, int], ...]
    container_folders: frozenset[str]

    def grown_since(self, before: Census) -> list[str]:
        """What is there now and was not before, in words; empty when nothing was left behind.

        Links are counted: a namespace that stood ready and was used is replaced by another, with a link of another name.
        """
        found = []
        for what in ("mounts", "cgroups", "container_folders"):
            more = getattr(self, what) - getattr(before, what)
            if more:
                found.append(f"{what}: {sorted(more)}")
        if len(self.links) > len(before.links):
            found.append(f"links: {len(before.links)} before, {len(self.links)} now (new: {sorted(self.links - before.links)})")
        for what in ("network_namespaces", "children"):
            if getattr(self, what) > getattr(before, what):
                found.append(f"{what}: {getattr(before, what)} before, {getattr(self, what)} now")
        then = dict(before.descriptors)
        for process, count in self.descriptors:
            if count > then.get(process, 0):
                found.append(f"descriptors of {process}: {then.get(process, 0)} before, {count} now")
        return found


def _cgroups(instance: str) -> frozenset[str]:
    found = set()
    for root, folders, _ in os.walk("/sys/fs/cgroup"):
        found.update(os.path.join(root, f) for f in folders if f"/{instance}/" in os.path.join(root, f))
    return frozenset(found)


def _links(bridge: str) -> frozenset[str]:
    """Network devices on one bridge: other instances work on the same machine."""
    return frozenset(p.name for p in Path("/sys/class/net").iterdir()
                     if (p / "master").exists() and (p / "master").resolve().name == bridge)


def _role(pid: int) -> str:
    line = command_line(pid)
    return "keeper" if b"keeper" in line else "helper" if b"helper" in line else "other"


def _children_of(pids: list[int]) -> int:
    count = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                count += len(task.read_text().split())
    return count


def census(helper: PrivateHelper) -> Census:
    """Count everything now."""
    pids = [p for p in helper.processes() if _role(p) != "other"]
    namespaces = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                target = os.readlink(fd)
                if target.startswith("net:"):
                    namespaces.add(target)
    descriptors: dict[str, int] = {}
    for pid in pids:
        descriptors[_role(pid)] = descriptors.get(_role(pid), 0) + len(os.listdir(f"/proc/{pid}/fd"))
    bridge = helper.docker("network", "inspect", "-f", '{{index .Options "com.docker.network.bridge.name"}}', "bridge")
    folders = frozenset(
        str(p) for base in (helper.data, helper.exec) for p in Path(base, "containers").glob("*") if p.is_dir())
    return Census(
        mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if helper.at in line),
        cgroups=_cgroups(helper.instance), links=_links(bridge.stdout.decode().strip()), network_namespaces=len(namespaces),
        children=_children_of(pids), descriptors=tuple(sorted(descriptors.items())), container_folders=folders)


def settled(helper: PrivateHelper) -> Census:
    """Count once nothing changes any more: what stands ready has been made again, what has ended is gone."""
    deadline = time.monotonic() + 10
    last = census(helper)
    while True:
        time.sleep(0.3)
        now = census(helper)
        if not now.grown_since(last) and not last.grown_since(now):
            return now
        assert time.monotonic() < deadline, f"the helper does not come to rest: {now.grown_since(last)}"
        last = now
