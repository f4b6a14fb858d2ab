"""The runtime's pure parts: requests, plans of mounts, limits. A slip here is a wrong mount or a missing limit."""

from __future__ import annotations

from typing import Any

import pytest

from backend.runtime import syscalls as sc
from backend.runtime.caps import CapabilitySets, mask
from backend.runtime.launch import process_plan
from backend.runtime.limits import v1_writes, v2_writes
from backend.runtime.plan import BadConfig, BindMount, FsMount, Overlay, root_plan
from backend.runtime.protocol import Exit, KeeperContainer, KeeperError, Op, decode, encode, field
from backend.runtime.seccomp import Compiler


def one_mount(**entry: Any) -> Any:
    return root_plan({"mounts": [entry]}, "/b", None, tty=False).mounts[0]


def test_errors_and_exits_cross_the_socket_unchanged() -> None:
    error = KeeperError("start", "not_found", 'exec: "x": executable file not found in $PATH', 2)
    assert KeeperError.from_wire(decode(encode(error.to_wire()))).to_wire() == error.to_wire()
    end = Exit("a", "", 137, 9, 5, True, False)
    assert Exit.from_wire({**decode(encode(end.to_wire())), "event": "exit"}) == end
    wire = {"id": "a", "pid": 3, "status": "stopped", "started_at": 1, "exit": end.to_wire(), "execs": []}
    assert KeeperContainer.from_wire(wire).exit == end


@pytest.mark.parametrize(("value", "kind"), [(True, "int"), ("1", "int"), (1, "str"), (None, "str"), ([], "dict")])
def test_a_request_with_a_wrong_type_is_refused(value: object, kind: str) -> None:
    with pytest.raises(KeeperError) as caught:
        field({"x": value}, "x", kind)
    assert caught.value.reason == "bad_config"


def test_a_message_that_no_socket_takes_is_refused_before_it_is_sent() -> None:
    with pytest.raises(KeeperError):
        encode({"x": "y" * (5 << 20)})
    with pytest.raises(ValueError, match="not an object"):
        decode(b"[]")
    assert len({op.value for op in Op}) == len(Op)


def test_bind_options_become_attributes_and_propagation() -> None:
    plain = one_mount(destination="/a", type="bind", source="/s", options=["rbind", "ro", "nosuid", "rslave"])
    assert plain == BindMount("/s", "/a", True, sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID, 0, False, sc.MS_SLAVE, True)
    recursive = one_mount(destination="/a", source="/s", options=["bind", "rro"])
    assert (recursive.recursive_attributes, recursive.add, recursive.recursive) == (True, sc.MOUNT_ATTR_RDONLY, False)
    assert (recursive.propagation, recursive.propagation_recursive) == (sc.MS_PRIVATE, True)


def test_options_of_fresh_file_systems_are_flags_or_data() -> None:
    shm = one_mount(destination="/dev/shm", type="tmpfs", source="shm", options=["nosuid", "noexec", "mode=1777", "size=65536k", "rprivate"])
    assert shm == FsMount("tmpfs", "shm", "/dev/shm", sc.MS_NOSUID | sc.MS_NOEXEC, "mode=1777,size=65536k")
    assert one_mount(destination="/t", type="tmpfs", options=["tmpcopyup"]).copy_up


@pytest.mark.parametrize("entry", [
    {"destination": "relative", "type": "tmpfs"}, {"destination": "/x\0y", "type": "tmpfs"}, {"type": "tmpfs"},
    {"destination": "/x", "type": "no-such-fs"}, {"destination": "/x", "options": ["bind"]}, {"destination": "/x", "type": "bind", "source": ""},
])  # fmt: skip
def test_mounts_that_make_no_sense_are_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        root_plan({"mounts": [entry]}, "/b", None, tty=False)


def test_the_root_is_the_bundles_own_or_the_overlay() -> None:
    assert root_plan({"root": {"path": "rootfs", "readonly": True}}, "/b", None, tty=False).path == "/b/rootfs"
    assert root_plan({"root": {"path": "/else"}}, "/b", None, tty=False).path == "/else"
    plan = root_plan({"linux": {"sysctl": {"net.ipv4.conf.eth0/1.x": "1"}, "maskedPaths": ["/proc/kcore"]}}, "/b", Overlay(("/l",), "/u", "/w"), tty=True)
    assert (plan.path, plan.sysctls, plan.masked) == ("/b/rootfs", (("net/ipv4/conf/eth0.1/x", "1"),), ("/proc/kcore",))
    assert "mask /proc/kcore" in plan.describe()


@pytest.mark.parametrize("process", [
    {"args": []}, {"args": [""]}, {"args": "sh"}, {"args": ["a\0b"]}, {"args": ["a"], "cwd": "rel"}, {"args": ["a"], "user": {"uid": -1}},
    {"args": ["a"], "user": {"uid": 1 << 32}}, {"args": ["a"], "user": {"uid": True}}, {"args": ["a"], "rlimits": [{"type": "RLIMIT_X"}]},
    {"args": ["a"], "capabilities": {"bounding": ["CAP_NOPE"]}},
])  # fmt: skip
def test_processes_that_cannot_be_are_refused(process: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        process_plan(process, None, Compiler(), 0)


def test_capabilities_are_cut_to_what_the_machine_grants() -> None:
    host = mask(["CAP_KILL", "CAP_CHOWN"])
    sets = CapabilitySets.from_spec({k: ["CAP_KILL", "CAP_SYS_RESOURCE"] for k in ("bounding", "effective", "permitted")}, host)
    assert (sets.bounding, sets.effective, sets.permitted, sets.ambient) == (mask(["CAP_KILL"]),) * 3 + (0,)
    assert CapabilitySets.from_spec(None, host) == CapabilitySets(0, 0, 0, 0, 0)


RESOURCES = {"memory": {"limit": 1 << 20, "swap": 3 << 20, "reservation": 5}, "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"},
             "pids": {"limit": 0}, "blockIO": {"weight": 500}}  # fmt: skip


def test_limits_on_both_kinds_of_cgroups() -> None:
    v1 = {name: value for _, name, value, _ in v1_writes(RESOURCES, {"memory", "cpu", "cpuset", "pids"})}
    assert v1 == {"memory.limit_in_bytes": "1048576", "memory.memsw.limit_in_bytes": "3145728", "memory.soft_limit_in_bytes": "5",
                  "cpu.shares": "1024", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpuset.cpus": "0-1", "pids.max": "max"}  # fmt: skip
    v2 = {name: value for _, name, value, _ in v2_writes(RESOURCES)}
    assert v2 == {"memory.max": "1048576", "memory.swap.max": "2097152", "memory.low": "5", "cpu.weight": "39", "cpu.max": "50000 100000",
                  "cpuset.cpus": "0-1", "pids.max": "max", "io.bfq.weight": "500", "io.weight": "4950"}  # fmt: skip
    assert v2_writes({"unified": {"../../x": "1", "cgroup.procs": "1", "memory.high": "9"}}) == [("", "memory.high", "9", False)]
