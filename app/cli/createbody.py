"""The flags of `run` and `create` as the body of POST /containers/create.

Nothing is asked of the engine here. Read are only the files that flags name: variables, labels, a seccomp profile.
"""

from __future__ import annotations

import json
import os

from app.cli import mounts, ports
from app.cli.endpoints import endpoints
from app.cli.errors import Usage
from app.cli.units import duration, nano_cpus, pair, size_in_bytes

TYPING = False
if TYPING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from app.cli.flags import Options

_STREAMS = ("stdin", "stdout", "stderr")


def create_body(given: Options, env: Mapping[str, str]) -> dict[str, Any]:
    """The body.

    Raises:
        Usage: flags that make no sense, alone or together; with 125.
    """
    image, *command = given.words
    attach = _attach(given)
    binds, anonymous = mounts.volumes(given.volume)
    published = ports.published(given.publish)
    networks = endpoints(given)
    return {
        "Hostname": given.hostname, "Domainname": given.domainname, "User": given.user,
        "AttachStdin": "stdin" in attach, "AttachStdout": "stdout" in attach, "AttachStderr": "stderr" in attach,
        "Tty": given.tty, "OpenStdin": given.interactive, "StdinOnce": given.interactive and "stdin" in attach,
        "ExposedPorts": {port: {} for port in (*published, *ports.exposed(given.expose))},
        "Env": variables(given, env), "Cmd": command or None, "Healthcheck": _health(given), "Image": image,
        "Volumes": {path: {} for path in anonymous}, "WorkingDir": given.workdir, "Entrypoint": _entrypoint(given),
        "Labels": _labels(given), "StopSignal": given.stop_signal or None, "StopTimeout": given.stop_timeout,
        "HostConfig": _host_config(given, binds, published, next(iter(networks))),
        "NetworkingConfig": {"EndpointsConfig": {name: said for name, said in networks.items() if said is not None}},
    }


def _attach(given: Options) -> list[str]:
    wanted = [stream.lower() for stream in given.attach]
    for stream in wanted:
        if stream not in _STREAMS:
            raise Usage(f"--attach takes stdin, stdout or stderr, not {stream!r}.", 125)
    return [*(wanted or ["stdout", "stderr"]), *(["stdin"] if given.interactive else [])]


def _entrypoint(given: Options) -> list[str] | None:
    # `--entrypoint ""` means "not even the image's", which the API writes as one empty word.
    return [given.entrypoint] if given.entrypoint or "entrypoint" in given.given else None


# --- variables, labels, health -------------------------------------------------------------------------------------

def variables(given: Options, env: Mapping[str, str]) -> list[str]:
    """``--env-file`` first, ``--env`` over it; a name alone has its value of here, or none: unset in the container."""
    out: dict[str, str] = {}
    for path in given.env_file:
        for line in file_lines(path, "env-file"):
            name, equals, _ = line.partition("=")
            if equals or name in env:
                out[name] = line if equals else f"{name}={env[name]}"
    for word in given.env:
        name, equals, _ = word.partition("=")
        if not name:
            raise Usage(f"--env {word!r} has no name before the =.", 125)
        out[name] = word if equals or name not in env else f"{name}={env[name]}"
    return list(out.values())


def _labels(given: Options) -> dict[str, str]:
    lines = [line for path in given.label_file for line in file_lines(path, "label-file")]
    pairs = (line.partition("=") for line in (*lines, *given.label))
    return {name: value for name, _, value in pairs}


def file_lines(path: str, flag: str) -> list[str]:
    """``NAME=VALUE`` lines of a file, without comments and empty lines."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise Usage(f"--{flag} {path} cannot be read: {reason}.", 125) from None
    out = []
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or name.split() != [name]:
            raise Usage(f"--{flag} {path}, line {number}: the name {name!r} is empty or has white space in it.", 125)
        out.append(line)
    return out


def _health(given: Options) -> dict[str, Any] | None:
    times = {"Interval": "health-interval", "Timeout": "health-timeout", "StartPeriod": "health-start-period",
             "StartInterval": "health-start-interval"}
    made: dict[str, Any] = {}
    if given.health_cmd:
        made["Test"] = ["CMD-SHELL", given.health_cmd]
    for key, flag in times.items():
        text = getattr(given, flag.replace("-", "_"))
        if text and (nanoseconds := duration(text, flag)):
            made[key] = nanoseconds
    if given.health_retries:
        if given.health_retries < 0:
            raise Usage("--health-retries cannot be negative.", 125)
        made["Retries"] = given.health_retries
    if given.no_healthcheck:
        if made:
            raise Usage("--no-healthcheck and the --health-... flags contradict each other.", 125)
        return {"Test": ["NONE"]}
    return made or None


# --- what belongs to the host ---------------------------------------------------------------------------------------

def _host_config(given: Options, binds: list[str], published: dict[str, Any], network: str) -> dict[str, Any]:
    if given.gpus:
        raise Usage("--gpus cannot be used: this engine hands no GPUs to containers. A device file can be given with "
                    "--device.", 125)
    restart = restart_policy(given.restart)
    if given.rm and restart["Name"] not in ("", "no"):
        raise Usage("--restart and --rm contradict each other: what is removed cannot be started again.", 125)
    options, masked = _security(given.security_opt)
    made = {
        "Binds": binds or None, "ContainerIDFile": given.cidfile, "LogConfig": _log(given), "NetworkMode": network,
        "PortBindings": published, "RestartPolicy": restart, "AutoRemove": given.rm,
        "VolumeDriver": given.volume_driver, "VolumesFrom": given.volumes_from or None,
        "Annotations": _pairs(given.annotation, "annotation"), "ConsoleSize": [0, 0],
        "CapAdd": _capabilities(given.cap_add), "CapDrop": _capabilities(given.cap_drop),
        "CgroupnsMode": given.cgroupns,
        "Dns": given.dns, "DnsOptions": given.dns_option, "DnsSearch": given.dns_search,
        "ExtraHosts": [_host(word) for word in given.add_host] or None, "GroupAdd": given.group_add or None,
        "IpcMode": given.ipc, "Links": given.link or None, "OomScoreAdj": given.oom_score_adj or 0,
        "PidMode": _mode(given.pid, "pid", ("host",), ("container",)), "Privileged": given.privileged,
        "PublishAllPorts": given.publish_all, "ReadonlyRootfs": given.read_only, "SecurityOpt": options or None,
        "StorageOpt": _pairs(given.storage_opt, "storage-opt"), "Tmpfs": mounts.tmpfs(given.tmpfs),
        "UTSMode": _mode(given.uts, "uts", ("host",)), "UsernsMode": _userns(given.userns),
        "ShmSize": _size(given, "shm-size"), "Sysctls": _pairs(given.sysctl, "sysctl"), "Runtime": given.runtime,
        "Isolation": given.isolation, "Mounts": mounts.mounts(given.mount), **_limits(given), **masked,
        "Init": given.init if "init" in given.given else None,
    }
    _mode(given.cgroupns, "cgroupns", ("host", "private"))
    return {key: value for key, value in made.items() if value not in (None, "", {}) or key == "LogConfig"}


def restart_policy(text: str) -> dict[str, Any]:
    """``on-failure:3`` as the API has it."""
    name, colon, times = text.partition(":")
    if colon and not times.isdigit():
        raise Usage(f"--restart takes no, always, unless-stopped or on-failure[:TIMES], not {text!r}.", 125)
    return {"Name": name, "MaximumRetryCount": int(times or 0)}


def _capabilities(words: Sequence[str]) -> list[str] | None:
    """Names as the kernel's, and ALL; None for none."""
    names = {word.strip().upper() for word in words}
    return sorted(name if name == "ALL" else f"CAP_{name.removeprefix('CAP_')}" for name in names) or None


def _security(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """(SecurityOpt, MaskedPaths and ReadonlyPaths where `systempaths=unconfined` takes them away)."""
    out: list[str] = []
    masked: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and ":" in word:
            name, equals, value = word.partition(":")
        if word == "systempaths=unconfined":
            masked = {"MaskedPaths": [], "ReadonlyPaths": []}
            continue
        if not equals and name not in ("no-new-privileges", "writable-cgroups"):
            raise Usage(f"--security-opt takes NAME=VALUE, not {word!r}.", 125)
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            word = f"seccomp={_profile(value)}"
        out.append(word)
    return out, masked


def _profile(path: str) -> str:
    """A seccomp profile is read here, by the user: the engine takes its text, never a path."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except OSError as error:
        raise Usage(f"the seccomp profile {path} cannot be read: {error.strerror}.", 125) from None
    except ValueError as error:
        raise Usage(f"the seccomp profile {path} is no JSON: {error}.", 125) from None


def _log(given: Options) -> dict[str, Any]:
    if given.log_driver == "none" and given.log_opt:
        raise Usage("--log-opt means nothing with --log-driver none.", 125)
    return {"Type": given.log_driver, "Config": _pairs(given.log_opt, "log-opt")}


def _pairs(words: Sequence[str], flag: str) -> dict[str, str]:
    if flag != "storage-opt":  # a name alone is an empty value
        return {name: value for name, _, value in (word.partition("=") for word in words)}
    return dict(pair(word, flag) for word in words)


def _host(word: str) -> str:
    mark = "=" if "=" in word else ":"
    name, address = pair(word, "add-host", mark)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    import ipaddress

    try:
        if address != "host-gateway":
            ipaddress.ip_address(address)
    except ValueError:
        raise Usage(f"--add-host {word!r}: {address!r} is no IP address.", 125) from None
    return f"{name}:{address}"


def _mode(text: str, flag: str, words: Sequence[str], prefixes: Sequence[str] = ()) -> str:
    kind, colon, rest = text.partition(":")
    if text and text not in words and not (kind in prefixes and colon and rest):
        raise Usage(f"--{flag} takes {' or '.join((*words, *(f'{p}:NAME' for p in prefixes)))}, not {text!r}.", 125)
    return text


def _userns(text: str) -> str:
    """The user namespace; `keep-id` alone means the IDs of whoever types it."""
    _mode(text, "userns", ("host", "auto", "private", "keep-id"), ("auto", "private", "keep-id"))
    if text == "keep-id":
        return f"keep-id:uid={os.getuid()},gid={os.getgid()}"
    return text


def _size(given: Options, flag: str) -> int:
    text = getattr(given, flag.replace("-", "_"))
    if not text:
        return 0
    return -1 if flag == "memory-swap" and text == "-1" else size_in_bytes(text, flag)


def _limits(given: Options) -> dict[str, Any]:
    if given.memory_swappiness != -1 and not 0 <= given.memory_swappiness <= 100:
        raise Usage(f"--memory-swappiness takes 0 to 100, not {given.memory_swappiness}.", 125)
    requests = [word for word in given.device if _is_cdi(word)]
    return {
        "Memory": _size(given, "memory"), "MemoryReservation": _size(given, "memory-reservation"),
        "MemorySwap": _size(given, "memory-swap"), "MemorySwappiness": given.memory_swappiness,
        "OomKillDisable": given.oom_kill_disable, "NanoCpus": nano_cpus(given.cpus) if given.cpus else 0,
        "CpuShares": given.cpu_shares or 0, "CpuPeriod": given.cpu_period or 0, "CpuQuota": given.cpu_quota or 0,
        "CpuRealtimePeriod": given.cpu_rt_period or 0, "CpuRealtimeRuntime": given.cpu_rt_runtime or 0,
        "CpusetCpus": given.cpuset_cpus, "CpusetMems": given.cpuset_mems, "BlkioWeight": given.blkio_weight or 0,
        "BlkioWeightDevice": [_weight(word) for word in given.blkio_weight_device],
        "BlkioDeviceReadBps": _rates(given.device_read_bps, "device-read-bps"),
        "BlkioDeviceWriteBps": _rates(given.device_write_bps, "device-write-bps"),
        "BlkioDeviceReadIOps": _rates(given.device_read_iops, "device-read-iops"),
        "BlkioDeviceWriteIOps": _rates(given.device_write_iops, "device-write-iops"),
        "PidsLimit": given.pids_limit or 0, "Ulimits": _ulimits(given.ulimit),
        "CgroupParent": given.cgroup_parent,
        "Devices": [_device(word) for word in given.device if word not in requests],
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": requests}] if requests else None,
        "DeviceCgroupRules": given.device_cgroup_rule or None,
    }


def _is_cdi(word: str) -> bool:
    kind, equals, name = word.partition("=")
    return bool(equals and name and "/" in kind and not word.startswith("/"))


def _device(word: str) -> dict[str, str]:
    parts = word.split(":")
    source, inside, rights = parts[0], parts[0], "rwm"
    if len(parts) == 2 and set(parts[1]) <= set("rwm"):
        rights = parts[1]
    elif len(parts) > 1:
        inside, rights = parts[1] or parts[0], parts[2] if len(parts) > 2 else "rwm"
    if len(parts) > 3 or not source or not rights or not set(rights) <= set("rwm"):
        raise Usage(f"--device takes HOST[:CONTAINER[:rwm]], not {word!r}.", 125)
    return {"PathOnHost": source, "PathInContainer": inside, "CgroupPermissions": rights}


def _ulimits(words: Sequence[str]) -> list[dict[str, Any]]:
    limits = {limit["Name"]: limit for limit in map(_ulimit, words)}
    return [limits[name] for name in sorted(limits)]


def _ulimit(word: str) -> dict[str, Any]:
    name, limits = pair(word, "ulimit")
    soft, colon, hard = limits.partition(":")
    try:
        low, high = int(soft), int(hard if colon else soft)
    except ValueError:
        raise Usage(f"--ulimit takes NAME=SOFT[:HARD], not {word!r}.", 125) from None
    if high != -1 and (low > high or low == -1):
        raise Usage(f"--ulimit {word!r}: the soft limit is above the hard one.", 125)
    return {"Name": name, "Soft": low, "Hard": high}


def _weight(word: str) -> dict[str, Any]:
    path, weight = pair(word, "blkio-weight-device", ":")
    if not path.startswith("/dev/") or not weight.isdigit():
        raise Usage(f"--blkio-weight-device takes /dev/PATH:WEIGHT, not {word!r}.", 125)
    return {"Path": path, "Weight": int(weight)}


def _rates(words: Sequence[str], flag: str) -> list[dict[str, Any]]:
    out = []
    for word in words:
        path, rate = pair(word, flag, ":")
        if not path.startswith("/dev/"):
            raise Usage(f"--{flag} takes /dev/PATH:RATE, not {word!r}.", 125)
        if flag.endswith("iops") and not rate.isdigit():
            raise Usage(f"--{flag} takes a number of operations a second, not {rate!r}.", 125)
        out.append({"Path": path, "Rate": int(rate) if flag.endswith("iops") else size_in_bytes(rate, flag)})
    return out


def console(given: Options) -> list[int]:
    """Rows and columns of the terminal that the container will be shown in; zeros without one."""
    if not given.tty or not os.isatty(1):
        return [0, 0]
    found = os.get_terminal_size(1)
    return [found.lines, found.columns]
