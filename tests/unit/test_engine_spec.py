"""What a container is allowed: the whole bundle, field by field, because one missing line here is a hole for everybody."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

import resources
from backend.engine import spec
from backend.engine.mounts import collect, parse_bind, parse_mount
from backend.engine.record import ContainerRecord, MountRecord
from backend.errors import InvalidArgument
from backend.spec import api

PROFILE = resources.text("seccomp/default.json")
FOURTEEN = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
            "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"]


def given(config: api.ContainerConfig | None = None, host: api.HostConfig | None = None, **more: object) -> spec.SpecInput:
    record = ContainerRecord(
        id="c" * 64, name="x", created=1, image="sha256:" + "a" * 64, image_name="busybox", path="sh", args=["-c", "true"],
        config=config or api.ContainerConfig(env=["A=b"]), host_config=host or api.HostConfig(), networks={})
    made = spec.SpecInput(record=record, hostname="box", cgroups_path="slipway/" + "c" * 64, machine="x86_64", seccomp_default=PROFILE)
    return replace(made, **more)


def test_a_plain_container_gets_exactly_dockers_defaults() -> None:
    made = spec.build(given(files={"/etc/hosts": "/d/hosts"}))
    seccomp = made["linux"].pop("seccomp")
    devices = made["linux"]["resources"].pop("devices")
    assert made == {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": False, "user": {"uid": 0, "gid": 0, "username": ""}, "args": ["sh", "-c", "true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box", "A=b"], "cwd": "/",
            "capabilities": {"bounding": FOURTEEN, "effective": FOURTEEN, "permitted": FOURTEEN},
            "noNewPrivileges": False, "rlimits": [], "oomScoreAdj": 0,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/d/hosts", "options": ["rbind", "rprivate"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "network"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
            "cgroupsPath": "slipway/" + "c" * 64, "resources": {}, "devices": [],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
                            "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "rootfsPropagation": "rprivate",
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
        },
        "annotations": {},
    }
    assert seccomp["defaultAction"] == "SCMP_ACT_ERRNO"
    assert devices[0] == {"allow": False, "access": "rwm"}, "devices are denied first"
    assert [d for d in devices if d.get("type") == "b" and "w" in d["access"]] == [], "no block device may be written"


def test_privileged_takes_every_fence_away_and_says_so_in_one_place() -> None:
    made = spec.build(given(host=api.HostConfig(privileged=True)))
    assert len(made["process"]["capabilities"]["bounding"]) == 41
    assert "seccomp" not in made["linux"]
    assert (made["linux"]["maskedPaths"], made["linux"]["readonlyPaths"]) == ([], [])
    assert made["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "ro" not in next(m for m in made["mounts"] if m["destination"] == "/sys")["options"]


@pytest.mark.parametrize(("add", "drop", "has", "has_not"), [
    (["NET_ADMIN"], [], "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
    (["cap_sys_time"], ["ALL"], "CAP_SYS_TIME", "CAP_CHOWN"),
    (["ALL"], ["CAP_SYS_ADMIN"], "CAP_BPF", "CAP_SYS_ADMIN"),
    ([], ["KILL"], "CAP_CHOWN", "CAP_KILL"),
])
def test_capabilities_are_added_and_dropped_as_docker_does_it(add: list[str], drop: list[str], has: str, has_not: str) -> None:
    made = spec.capabilities(api.HostConfig(cap_add=add, cap_drop=drop))
    assert (has in made, has_not in made) == (True, False)


def test_an_unknown_capability_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="CAP_FLY"):
        spec.capabilities(api.HostConfig(cap_add=["fly"]))


def test_security_options_are_understood_or_refused() -> None:
    options = spec.security_options(api.HostConfig(security_opt=["no-new-privileges", "seccomp=unconfined"]))
    assert options == spec.SecurityOptions(no_new_privileges=True, seccomp="unconfined")
    assert "seccomp" not in spec.build(given(host=api.HostConfig(security_opt=["seccomp=unconfined"])))["linux"]
    with pytest.raises(InvalidArgument, match="invalid --security-opt"):
        spec.security_options(api.HostConfig(security_opt=["sekomp=unconfined"]))
    assert spec.build(given(host=api.HostConfig(security_opt=["apparmor=mine"])))["process"]["apparmorProfile"] == "mine"
    assert "apparmorProfile" not in spec.build(given(host=api.HostConfig(security_opt=["apparmor=unconfined"])))["process"]


def test_a_broken_seccomp_profile_is_refused_rather_than_left_out() -> None:
    with pytest.raises(InvalidArgument, match="seccomp profile"):
        spec.build(given(host=api.HostConfig(security_opt=["seccomp={"])))


@pytest.mark.parametrize(("entrypoint", "cmd", "result"), [
    (None, ["a", "b"], ("a", ["b"])), (["e"], ["a"], ("e", ["a"])), ([""], ["a"], ("a", [])), (["e", "x"], None, ("e", ["x"])),
])
def test_entrypoint_and_command_make_one_command_line(entrypoint: list[str] | None, cmd: list[str] | None, result: tuple[str, list[str]]) -> None:
    assert spec.command(entrypoint, cmd) == result


def test_a_container_without_a_command_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        spec.command(None, [])


def test_the_environment_has_defaults_that_the_user_can_change_or_take_away() -> None:
    assert spec.environment(["PATH=/x", "HOSTNAME", "B=1=2"], hostname="h", tty=True) == ["PATH=/x", "TERM=xterm", "B=1=2"]
    assert spec.merged_env(["A=1"], ["A=0", "C=3"]) == ["A=1", "C=3"]


def test_a_users_mount_replaces_ours_and_parents_come_before_children() -> None:
    mounts = (MountRecord(kind="bind", target="/a/b", source="/s2", read_only=True), MountRecord(kind="bind", target="/a", source="/s1"),
              MountRecord(kind="tmpfs", target="/dev/shm", options=("size=1m",)), MountRecord(kind="bind", target="/etc/hosts", source="/mine"))
    made = spec.build(given(mounts=mounts, files={"/etc/hosts": "/ours"}))["mounts"]
    targets = [m["destination"] for m in made]
    assert targets.index("/a") < targets.index("/a/b")
    assert [m["source"] for m in made if m["destination"] == "/etc/hosts"] == ["/mine"]
    assert [m["options"] for m in made if m["destination"] == "/dev/shm"] == [["size=1m"]]
    assert "rro" in next(m for m in made if m["destination"] == "/a/b")["options"], "read-only holds for what is mounted below too"


def test_namespaces_of_the_host_and_of_others() -> None:
    made = spec.build(given(joined={"network": "host", "pid": "/proc/7/ns/pid"}))
    assert {"type": "pid", "path": "/proc/7/ns/pid"} in made["linux"]["namespaces"]
    assert "network" not in [n["type"] for n in made["linux"]["namespaces"]]
    assert made["linux"]["sysctl"] == {}, "the host's sysctls are not touched"


def test_limits_become_what_the_kernel_understands() -> None:
    host = api.HostConfig(memory=64 << 20, nano_cpus=1_500_000_000, pids_limit=10, ulimits=[api.Ulimit(name="nofile", soft=5, hard=-1)])
    made = spec.build(given(host=host))
    resources_ = made["linux"]["resources"]
    assert resources_["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert resources_["cpu"] == {"period": 100000, "quota": 150000}
    assert resources_["pids"] == {"limit": 10}
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": (1 << 64) - 1}]


@pytest.mark.parametrize(("text", "expected"), [
    ("/h:/c", MountRecord(kind="bind", target="/c", source="/h", propagation="rprivate", create_source=True)),
    ("/h/../x:/c/:ro,rslave", MountRecord(kind="bind", target="/c", source="/x", mode="ro,rslave", read_only=True, propagation="rslave", create_source=True)),
    ("vol:/c:nocopy", MountRecord(kind="volume", target="/c", volume="vol", mode="nocopy", copy=False)),
    ("/c", MountRecord(kind="volume", target="/c", anonymous=True)),
])
def test_volume_arguments_mean_what_docker_says(text: str, expected: MountRecord) -> None:
    assert parse_bind(text) == expected


@pytest.mark.parametrize("text", ["", ":", "a:b", "/a:/b:/c:/d", "/a:/b:nope", "/a:/", "a:/b", "/a:/b:ro,rw", "../x:/b"])
def test_a_volume_argument_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bind(text)


def test_the_mount_form_is_strict_where_the_short_form_helps() -> None:
    assert parse_mount(api.Mount(type="bind", source="/h", target="/c")).create_source is False
    for bad in (api.Mount(type="bind", target="/c"), api.Mount(type="tmpfs", source="x", target="/c"), api.Mount(type="x", target="/c"),
                api.Mount(type="bind", source="rel", target="/c"), api.Mount(type="volume", target="rel")):
        with pytest.raises(InvalidArgument):
            parse_mount(bad)


def test_two_mounts_at_one_place_are_refused_and_the_image_yields_to_the_user() -> None:
    with pytest.raises(InvalidArgument, match="Duplicate mount point: /c"):
        collect(api.ContainerConfig(), api.HostConfig(binds=["/a:/c", "/b:/c"]), [], lambda _: ())
    made = collect(api.ContainerConfig(), api.HostConfig(binds=["/a:/c"]), ["/c", "/d"], lambda _: ())
    assert [(m.kind, m.target) for m in made] == [("bind", "/c"), ("volume", "/d")]


def test_volumes_from_another_container_can_be_made_read_only() -> None:
    others = {"db": (parse_bind("data:/data"),)}
    made = collect(api.ContainerConfig(), api.HostConfig(volumes_from=["db:ro"]), [], lambda name: others[name])
    assert (made[0].volume, made[0].read_only) == ("data", True)


def test_the_bundle_is_json() -> None:
    assert msgspec.json.decode(spec.to_json(spec.build(given())))["hostname"] == "box"
