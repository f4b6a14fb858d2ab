"""From a container's record to its OCI bundle: the one place of all policy. Pure.

What a container is allowed is decided here and nowhere else: capabilities, seccomp, masked paths, mounts, devices,
limits, namespaces. The runtime only carries it out, and crun or runc would carry out the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from backend.engine.limits import resources, rlimits
from backend.engine.record import ContainerRecord, MountRecord
from backend.engine.userns import mappings
from backend.errors import InvalidArgument
from backend.runtime.caps import NAMES
from backend.spec import api
from backend.spec.seccomp import BadProfile, default_seccomp, docker_seccomp

ALL_CAPABILITIES = tuple("CAP_" + name for name in NAMES)

#: Docker's default set: what ordinary images need to change identity, own files and serve low ports.
DEFAULT_CAPABILITIES = tuple("CAP_" + name for name in (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"))

#: Files of the kernel that say or do too much, hidden and write-protected as Docker does it.
MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware")
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM = 64 << 20
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device node that the container gets. `access`: letters of r, w, m."""

    path: str
    kind: str            # "c" or "b"
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"


@dataclass(frozen=True, slots=True)
class SpecInput:
    """What the policy needs besides the record; the caller has looked at the host."""

    record: ContainerRecord
    hostname: str
    cgroups_path: str
    machine: str
    seccomp_default: str                                    # text of resources/seccomp/default.json
    kernel: tuple[int, int] = (6, 0)
    mounts: tuple[MountRecord, ...] = ()                    # sources resolved
    files: Mapping[str, str] = field(default_factory=dict)  # /etc/hosts etc. -> file of the host
    joined: Mapping[str, str] = field(default_factory=dict)  # namespace kind -> path, or "host"
    devices: tuple[HostDevice, ...] = ()
    throttles: Mapping[str, Any] = field(default_factory=dict)   # block I/O limits of single devices, OCI's form
    links: tuple[str, ...] = ()                             # environment from linked containers
    shm: str = ""                                           # where the shared memory is that it shares with others
    init: bool = False


def build(given: SpecInput) -> dict[str, Any]:
    """The OCI config.json of a container. Raises :class:`InvalidArgument` and :class:`NotImplemented_`."""
    host = given.record.host_config
    config = given.record.config
    options = security_options(host)
    held = capabilities(host)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(given),
        "cgroupsPath": given.cgroups_path,
        "resources": resources(host, _device_rules(host, given.devices), given.throttles),
        "devices": [_device(one) for one in given.devices],
        "maskedPaths": _hidden(host, options, host.masked_paths, MASKED_PATHS),
        "readonlyPaths": _hidden(host, options, host.readonly_paths, READONLY_PATHS),
        "rootfsPropagation": _root_propagation(given.mounts),
        "sysctl": _sysctls(given),
    }
    seccomp = _seccomp(given, options, held)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    ids = given.record.ids
    if ids is not None:
        linux["uidMappings"] = mappings(ids, ids.keep_uid)
        linux["gidMappings"] = mappings(ids, ids.keep_gid)
    made: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": _process(given, held, options),
        "root": {"path": "rootfs", "readonly": host.readonly_rootfs},
        "hostname": given.hostname,
        "mounts": _mounts(given, options),
        "linux": linux,
        "annotations": {**host.annotations, **({"slipway.init": "1"} if given.init else {})},
    }
    if config.domainname:
        made["domainname"] = config.domainname
    return made


# --- process --------------------------------------------------------------------------------------------------------
def command(entrypoint: Sequence[str] | None, cmd: Sequence[str] | None) -> tuple[str, list[str]]:
    """Program and arguments of a container. Raises :class:`InvalidArgument` when there are none."""
    words = [*(entrypoint or ()), *(cmd or ())]
    if entrypoint and entrypoint[0] == "":        # `--entrypoint ""` switches the image's entrypoint off
        words = [*entrypoint[1:], *(cmd or ())]
    if not words or not words[0]:
        raise InvalidArgument("no command specified")
    return words[0], words[1:]


def environment(env: Sequence[str], *, hostname: str, tty: bool) -> list[str]:
    """The environment of the first process: Docker's defaults, overridden and extended by *env*."""
    made = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if tty:
        made["TERM"] = "xterm"
    for entry in env:
        name, found, value = entry.partition("=")
        if found:
            made[name] = value
        else:                                     # a bare name takes a default away
            made.pop(name, None)
    return [f"{name}={value}" for name, value in made.items()]


def exec_environment(env: Sequence[str], extra: Sequence[str], *, hostname: str, tty: bool) -> list[str]:
    """The environment of an exec: the container's, with the exec's own on top."""
    return environment([*env, *extra], hostname=hostname, tty=tty)


def merged_env(user: Sequence[str], image: Sequence[str]) -> list[str]:
    """The container's env as inspect shows it: the user's, then what the image has besides."""
    names = {one.partition("=")[0] for one in user}
    return [*user, *(one for one in image if one.partition("=")[0] not in names)]


def _process(given: SpecInput, held: tuple[str, ...], options: SecurityOptions) -> dict[str, Any]:
    config, host = given.record.config, given.record.host_config
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": _user(config.user, host.group_add),
        "args": [given.record.path, *given.record.args],
        "env": environment((*given.links, *config.env), hostname=given.hostname, tty=config.tty),
        "cwd": config.working_dir or "/",
        "capabilities": {"bounding": list(held), "effective": list(held), "permitted": list(held)},
        "noNewPrivileges": options.no_new_privileges,
        "rlimits": rlimits(host),
        "oomScoreAdj": host.oom_score_adj,
    }
    if options.apparmor not in ("", "unconfined"):
        process["apparmorProfile"] = options.apparmor
    if config.tty and len(host.console_size) == 2:
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    return process


def exec_process(record: ContainerRecord, body: api.ExecCreate, hostname: str) -> dict[str, Any]:
    """OCI `process` of an exec: the container's identity and limits unless the exec says otherwise."""
    host = record.host_config
    options = security_options(host)
    held = ALL_CAPABILITIES if body.privileged else capabilities(host)
    return {
        "terminal": body.tty,
        "user": _user(body.user or record.config.user, host.group_add),
        "args": list(body.cmd),
        "env": exec_environment(record.config.env, body.env, hostname=hostname, tty=body.tty),
        "cwd": body.working_dir or record.config.working_dir or "/",
        "capabilities": {"bounding": list(held), "effective": list(held), "permitted": list(held)},
        "noNewPrivileges": options.no_new_privileges,
        "rlimits": rlimits(host),
        "oomScoreAdj": host.oom_score_adj,
    }


def _user(user: str, groups: Sequence[str] | None) -> dict[str, Any]:
    made: dict[str, Any] = {"uid": 0, "gid": 0, "username": user}
    if groups:
        made["additionalGroups"] = list(groups)
    return made


# --- capabilities, security options ---------------------------------------------------------------------------------
def capabilities(host: api.HostConfig) -> tuple[str, ...]:
    """The capabilities of a container: Docker's rules for --privileged, --cap-add and --cap-drop."""
    if host.privileged:
        return ALL_CAPABILITIES
    add, drop = _capability_names(host.cap_add, "CapAdd"), _capability_names(host.cap_drop, "CapDrop")
    if "ALL" in add:
        start: tuple[str, ...] = ALL_CAPABILITIES
    elif "ALL" in drop:
        start = ()
    else:
        start = tuple(one for one in DEFAULT_CAPABILITIES if one not in drop)
    if "ALL" in add:
        return tuple(one for one in start if one not in drop)
    return (*start, *(one for one in add if one not in start))


def _capability_names(names: Sequence[str] | None, what: str) -> list[str]:
    made = []
    for name in names or ():
        full = name.upper()
        if full != "ALL" and not full.startswith("CAP_"):
            full = "CAP_" + full
        if full != "ALL" and full not in ALL_CAPABILITIES:
            raise InvalidArgument(f'invalid {what}: unknown capability: "{full}"')
        made.append(full)
    return made


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """What `--security-opt` says. `seccomp`: "" = the default profile, "unconfined", or a profile's text. `apparmor`:
    "" = none asked for, or a profile's name."""

    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    unmasked: bool = False
    writable_cgroups: bool = False


def security_options(host: api.HostConfig) -> SecurityOptions:
    """The security options of a container. Raises :class:`InvalidArgument` for one that is not known."""
    no_new_privileges = unmasked = writable_cgroups = False
    seccomp = apparmor = ""
    for entry in host.security_opt or ():
        name, found, value = entry.partition("=")
        if not found:
            name, found, value = entry.partition(":")     # the old spelling
        if name == "no-new-privileges":
            no_new_privileges = _truth(entry, value) if found else True
        elif name == "seccomp" and found:
            seccomp = "" if value == "builtin" else value
        elif name == "systempaths" and value == "unconfined":
            unmasked = True
        elif name == "writable-cgroups" and found:
            writable_cgroups = _truth(entry, value)
        elif name == "apparmor" and found:
            apparmor = "" if value == "docker-default" else value
        elif name == "userns" and found:
            continue                                      # see backend.engine.userns
        elif name == "label" and found:
            continue                                      # SELinux does not confine our containers
        else:
            raise InvalidArgument(f'invalid --security-opt: "{entry}"')
    return SecurityOptions(no_new_privileges, seccomp, apparmor, unmasked, writable_cgroups)


def _truth(entry: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InvalidArgument(f'invalid --security-opt: "{entry}"')


def _seccomp(given: SpecInput, options: SecurityOptions, held: tuple[str, ...]) -> dict[str, Any] | None:
    if options.seccomp == "unconfined" or (given.record.host_config.privileged and not options.seccomp):
        return None
    try:
        if options.seccomp:
            return docker_seccomp(options.seccomp, held, given.machine, given.kernel)
        return _default_profile(given.seccomp_default, held, given.machine)
    except BadProfile as error:
        raise InvalidArgument(str(error)) from error


@lru_cache(maxsize=16)
def _default_profile(text: str, held: tuple[str, ...], machine: str) -> dict[str, Any]:
    """The default profile for a set of capabilities: nearly all containers share one."""
    return default_seccomp(text, held, machine)


def _hidden(host: api.HostConfig, options: SecurityOptions, asked: list[str] | None,
            default: tuple[str, ...]) -> list[str]:
    if asked is not None:                 # the client decides: an empty list is `systempaths=unconfined`
        return list(asked)
    return [] if host.privileged or options.unmasked else list(default)


# --- namespaces -----------------------------------------------------------------------------------------------------
def _namespaces(given: SpecInput) -> list[dict[str, str]]:
    made = [{"type": "mount"}]
    if given.record.ids is not None:
        made.append({"type": "user"})
    for kind in ("network", "pid", "ipc", "uts", "cgroup"):
        path = given.joined.get(kind, "")
        if path != "host":
            made.append({"type": kind, **({"path": path} if path else {})})
    return made


def _sysctls(given: SpecInput) -> dict[str, str]:
    """The user's, and what lets everybody in the container use low ports and ping, in a network of its own."""
    made = dict(given.record.host_config.sysctls)
    if given.joined.get("network", "") == "":
        made.setdefault("net.ipv4.ip_unprivileged_port_start", "0")
        made.setdefault("net.ipv4.ping_group_range", "0 2147483647")
    return made


# --- mounts ---------------------------------------------------------------------------------------------------------
def _default_mounts(given: SpecInput, options: SecurityOptions) -> list[dict[str, Any]]:
    host = given.record.host_config
    basic = ["nosuid", "noexec", "nodev"]
    sys_ro = [] if host.privileged else ["ro"]
    cgroup_ro = [] if host.privileged or options.writable_cgroups else ["ro"]
    made = [
        _mount("/proc", "proc", "proc", basic),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts",
               ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/sys", "sysfs", "sysfs", [*basic, *sys_ro]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*cgroup_ro, *basic]),
        _mount("/dev/mqueue", "mqueue", "mqueue", basic),
    ]
    ipc = given.joined.get("ipc", "")
    if ipc == "host":                     # a fresh mqueue shows the queues of the namespace that is joined
        made.append(_mount("/dev/shm", "bind", "/dev/shm", ["rbind", *basic]))
    elif given.shm:
        made.append(_mount("/dev/shm", "bind", given.shm, ["rbind", *basic]))
    elif host.ipc_mode != "none":
        size = host.shm_size or DEFAULT_SHM
        made.append(_mount("/dev/shm", "tmpfs", "shm", [*basic, "mode=1777", f"size={size}"]))
    return made


def _mount(target: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _mounts(given: SpecInput, options: SecurityOptions) -> list[dict[str, Any]]:
    """Docker's mounts, the three files of /etc, the user's: a user's mount replaces ours at the same place."""
    own = {one.target for one in given.mounts}
    below_dev = "/dev" in own
    made = [one for one in _default_mounts(given, options)
            if one["destination"] not in own and not (below_dev and one["destination"].startswith("/dev/"))]
    shifted = given.record.ids is not None
    made += etc_mounts(given.files, given.record.host_config, given.mounts, shifted=shifted)
    return made + user_mounts(given.mounts, shifted=shifted)


def etc_mounts(files: Mapping[str, str], host: api.HostConfig, mounts: Sequence[MountRecord], *,
               shifted: bool = False) -> list[dict[str, Any]]:
    """The mounts of the three files of /etc (target -> source), where the user has none at their places.

    *shifted*: seen with the IDs of the container's user namespace.
    """
    own = {one.target for one in mounts}
    read_only = ["ro"] if host.readonly_rootfs else []
    more = [*read_only, *(["idmap"] if shifted else [])]
    return [_mount(target, "bind", source, ["rbind", "rprivate", *more])
            for target, source in files.items() if target not in own and source]


def user_mounts(mounts: Sequence[MountRecord], *, shifted: bool = False) -> list[dict[str, Any]]:
    """The user's mounts, the upper ones first.

    *shifted*: the container has a user namespace. Volumes are then seen with its IDs; a path of the host only if its
    user said so (idmap), because that makes the container's root as good as the host's root in there.
    """
    ordered = sorted(mounts, key=lambda one: (one.target.rstrip("/").count("/"), one.target))
    return [_user_mount(one, shifted) for one in ordered]


def _user_mount(one: MountRecord, shifted: bool) -> dict[str, Any]:
    if one.kind == "tmpfs":
        return _mount(one.target, "tmpfs", "tmpfs", one.options)
    options = ["rbind" if one.recursive else "bind", one.propagation or "rprivate"]
    if shifted and (one.kind == "volume" or "idmap" in one.mode.split(",")):
        options.append("idmap")
    if one.read_only:
        options.append("ro" if one.recursive_read_only == "never" or not one.recursive else "rro")
    return _mount(one.target, "bind", one.source, options)


def tmpfs_options(given: str) -> tuple[str, ...]:
    """The options of a tmpfs: Docker's careful defaults, each of which the user can turn round."""
    chosen = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
    rest = []
    for option in filter(None, given.split(",")):
        name = option.removeprefix("no")
        if name in chosen:
            chosen[name] = option
        else:
            rest.append(option)
    return (*chosen.values(), *rest)


def _root_propagation(mounts: Sequence[MountRecord]) -> str:
    """A mount that shares with the host needs a root that lets it through."""
    wishes = {one.propagation for one in mounts}
    if wishes & {"shared", "rshared"}:
        return "shared"
    return "rslave" if wishes & {"slave", "rslave"} else "rprivate"


# --- devices --------------------------------------------------------------------------------------------------------
#: null, zero, full, random, urandom, tty, the console, ptmx and pseudo terminals; making any node (not using it).
_ALLOWED = (("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1), ("c", 5, 2),
            ("c", 136, None))


def _device_rules(host: api.HostConfig, devices: Sequence[HostDevice]) -> list[dict[str, Any]]:
    if host.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for kind, major, minor in _ALLOWED:
        rules.append({"allow": True, "type": kind, "major": major, "access": "rwm",
                      **({} if minor is None else {"minor": minor})})
    rules += [{"allow": True, "type": one.kind, "major": one.major, "minor": one.minor, "access": one.access}
              for one in devices]
    return rules + [_cgroup_rule(text) for text in host.device_cgroup_rules or ()]


def _cgroup_rule(text: str) -> dict[str, Any]:
    """A rule such as `c 42:* rmw` (the kernel's devices.txt form)."""
    kind, _, rest = text.partition(" ")
    numbers, _, access = rest.strip().partition(" ")
    major, _, minor = numbers.partition(":")
    parts = (major, minor)
    if kind not in ("a", "b", "c") or not access or set(access.strip()) - set("rwm") or not all(
            one == "*" or (one.isascii() and one.isdigit()) for one in parts):
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    made: dict[str, Any] = {"allow": True, "type": kind, "access": access.strip()}
    for name, one in (("major", major), ("minor", minor)):
        if one != "*":
            made[name] = int(one)
    return made


def _device(one: HostDevice) -> dict[str, Any]:
    return {"path": one.path, "type": one.kind, "major": one.major, "minor": one.minor, "fileMode": one.mode,
            "uid": one.uid, "gid": one.gid}


def to_json(config: Mapping[str, Any]) -> bytes:
    """A bundle's config.json."""
    return msgspec.json.encode(config)
