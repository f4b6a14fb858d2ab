"""docker compose's own hash of a service, so that its stacks are adopted without making every container anew. Pure.

It is the SHA-256 of the service as JSON, in the order of its fields in docker compose, without what does not change a
container. Checked against `docker compose config --hash` in tests/clients.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from backend.compose.model import Deploy, HealthCheck, Limits, Mount, NetworkUse, PortMapping, Service

_UNITS = ((3600 * 10**9, "h"), (60 * 10**9, "m"))


def their_hash(service: Service) -> str:
    """The hash that docker compose gives *service*."""
    text = json.dumps(_document(service), separators=(",", ":"), ensure_ascii=False)
    # Go's encoder makes its output safe for HTML.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return hashlib.sha256(text.encode()).hexdigest()


def _document(service: Service) -> dict[str, Any]:
    s, limits, deploy = service, service.limits, service.deploy
    own = _limits_of_its_own(limits, deploy)
    fields: dict[str, Any] = {
        "annotations": dict(sorted(s.annotations)),
        "attach": None if s.attach else False,
        "cap_add": s.cap_add, "cap_drop": s.cap_drop, "cgroup_parent": s.cgroup_parent, "cgroup": s.cgroup,
        "cpu_period": limits.cpu_period, "cpu_quota": limits.cpu_quota,
        "cpus": _float32(own.nano_cpus), "cpuset": limits.cpuset, "cpu_shares": limits.cpu_shares,
        "command": s.command,
        "container_name": s.container_name,
        "deploy": _deploy(deploy) if deploy else None,
        "device_cgroup_rules": s.device_cgroup_rules,
        "devices": [{"source": d.source, "target": d.target, "permissions": d.permissions} for d in s.devices],
        "dns": s.dns, "dns_opt": s.dns_opt, "dns_search": s.dns_search, "domainname": s.domainname,
        "entrypoint": s.entrypoint,
        "environment": dict(s.environment),
        "expose": [p.removesuffix("/tcp") for p in s.expose],
        "extra_hosts": sorted(f"{host}={address}" for host, address in s.extra_hosts),
        "group_add": s.group_add,
        "hostname": s.hostname,
        "healthcheck": _health(s.healthcheck) if s.healthcheck else None,
        "image": s.image,
        "init": s.init,
        "ipc": s.ipc,
        "labels": dict(sorted(s.labels)),
        "logging": _kept({"driver": s.logging.driver, "options": dict(s.logging.options)}) if s.logging else None,
        "mem_limit": _bytes(own.memory), "mem_reservation": _bytes(own.memory_reservation),
        "memswap_limit": _bytes(limits.memory_swap), "mem_swappiness": _bytes(limits.memory_swappiness),
        "mac_address": s.mac_address,
        "network_mode": s.network_mode,
        "networks": {u.network: _network(u) for u in sorted(s.networks, key=lambda u: u.network)},
        "oom_kill_disable": limits.oom_kill_disable or None, "oom_score_adj": limits.oom_score_adj,
        "pid": s.pid, "pids_limit": own.pids,
        "platform": s.platform,
        "ports": [_port(p) for p in s.ports],
        "privileged": s.privileged or None,
        "read_only": s.read_only or None,
        "restart": "" if deploy and deploy.restart_condition else s.restart,
        "runtime": s.runtime,
        "security_opt": s.security_opt,
        "shm_size": _bytes(limits.shm_size),
        "stdin_open": s.stdin_open or None,
        "stop_grace_period": None if s.stop_grace_period is None else duration_text(s.stop_grace_period),
        "stop_signal": s.stop_signal,
        "sysctls": dict(sorted(s.sysctls)),
        "tmpfs": s.tmpfs,
        "tty": s.tty or None,
        "ulimits": {u.name: u.soft if u.soft == u.hard != 0 else _kept({"soft": u.soft, "hard": u.hard})
                    for u in limits.ulimits},
        "user": s.user, "userns_mode": s.userns_mode, "uts": s.uts,
        "volumes": [_mount(m) for m in s.mounts],
        "working_dir": s.working_dir,
    }
    # These two are told apart from empty ones, which clear what the image says.
    return {k: v for k, v in fields.items() if k in ("command", "entrypoint") or not _is_zero(v)}


def _is_zero(value: Any) -> bool:
    """Whether Go's `omitempty` leaves it out. A pointer to false is kept, so False here is one that was said."""
    return value is None or (not isinstance(value, bool) and value in ("", 0, (), [], {}))


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if not _is_zero(v)}


def _limits_of_its_own(limits: Limits, deploy: Deploy | None) -> Limits:
    """What the service says itself, without what `deploy` says."""
    if deploy is None:
        return limits
    return Limits(
        memory=None if deploy.memory is not None else limits.memory,
        memory_reservation=None if deploy.memory_reservation is not None else limits.memory_reservation,
        nano_cpus=None if deploy.nano_cpus is not None else limits.nano_cpus,
        pids=None if deploy.pids is not None else limits.pids,
    )


def _deploy(deploy: Deploy) -> dict[str, Any]:
    most = _kept({"cpus": _float32(deploy.nano_cpus), "memory": _bytes(deploy.memory), "pids": deploy.pids})
    least = _kept({"memory": _bytes(deploy.memory_reservation)})
    restart = _kept({"condition": deploy.restart_condition, "max_attempts": deploy.restart_attempts})
    document: dict[str, Any] = {"resources": _kept({"limits": most, "reservations": least})}
    if restart:
        document["restart_policy"] = restart
    return {**document, "placement": {}}


def _health(check: HealthCheck) -> dict[str, Any]:
    if check.test == ("NONE",) and check.disabled:
        return {"disable": True}
    times = {"timeout": check.timeout, "interval": check.interval, "retries": check.retries,
             "start_period": check.start_period, "start_interval": check.start_interval}
    texts = {k: v if k == "retries" or v is None else duration_text(v) for k, v in times.items()}
    return {**({"test": check.test} if check.test else {}), **{k: v for k, v in texts.items() if v is not None}}


def _network(use: NetworkUse) -> dict[str, Any] | None:
    return None if not use.stated else _kept({
        "aliases": use.aliases, "driver_opts": dict(use.driver_opts), "gw_priority": use.gw_priority,
        "ipv4_address": use.ipv4_address, "ipv6_address": use.ipv6_address, "link_local_ips": use.link_local_ips,
        "mac_address": use.mac_address, "priority": use.priority,
    })


def _port(port: PortMapping) -> dict[str, Any]:
    return _kept({"name": port.name, "mode": port.mode, "host_ip": port.host_ip, "target": port.target,
                  "published": port.published, "protocol": port.protocol, "app_protocol": port.app_protocol})


def _mount(mount: Mount) -> dict[str, Any]:
    fields = _kept({"type": mount.kind, "source": mount.source, "target": mount.target,
                    "read_only": mount.read_only or None})
    if mount.kind == "bind":
        options = _kept({"selinux": mount.selinux, "propagation": mount.propagation,
                         "create_host_path": mount.create_host_path or None})
    elif mount.kind == "volume":
        options = _kept({"nocopy": mount.nocopy or None, "subpath": mount.subpath})
    else:
        options = _kept({"size": _bytes(mount.tmpfs_size), "mode": mount.tmpfs_mode})
    if mount.stated:
        fields[mount.kind] = options
    return fields


def _bytes(value: int | None) -> str:
    return str(value) if value else ""


def _float32(nano: int | None) -> float | int | None:
    """Go's float32 with as few digits as say it."""
    if not nano:
        return None
    single = struct.unpack("f", struct.pack("f", nano / 1e9))[0]
    texts = (f"{single:.{digits}g}" for digits in range(1, 10))
    value = next(float(t) for t in texts if struct.pack("f", float(t)) == struct.pack("f", single))
    return int(value) if value.is_integer() else value


def duration_text(nanoseconds: int) -> str:
    """A duration as Go prints it: `1m30s`, `1m0s`, `1.5s`, `100ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        unit, size = next((u, n) for u, n in (("ms", 10**6), ("µs", 10**3), ("ns", 1)) if nanoseconds >= n)
        return _decimal(nanoseconds, size) + unit
    text, left = "", nanoseconds
    for size, unit in _UNITS:
        if left >= size or text:
            text += f"{left // size}{unit}"
            left %= size
    return f"{text}{_decimal(left, 10**9)}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
