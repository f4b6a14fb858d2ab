"""Seccomp profiles as data: from our own default, or a profile file in Docker's format, to OCI ``linux.seccomp``.

Pure: the caller reads the files. Both formats have rules that depend on the container's capabilities and on the
machine; OCI's has not, so they are decided here, once per container.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# machine (uname) -> (Docker's name of it, the ABIs that its kernel serves)
_MACHINES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "x86_64": (("amd64", "x32", "x86"), ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": (("arm64", "arm"), ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
}


class BadProfile(ValueError):
    """The profile's text is not a profile; the message says why."""


def _applies(rule: Mapping[str, Any], capabilities: frozenset[str], names: Sequence[str]) -> bool:
    """Whether a rule holds: all of its ``capabilities``, none of ``unless_capabilities``, one architecture."""
    if not frozenset(rule.get("capabilities", ())) <= capabilities:
        return False
    if frozenset(rule.get("unless_capabilities", ())) & capabilities:
        return False
    if rule.get("architectures") and not set(rule["architectures"]) & set(names):
        return False
    return not set(rule.get("unless_architectures", ())) & set(names)


def _profile(default: str, errno: int | None, machine: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    if machine not in _MACHINES:
        raise BadProfile(f"no seccomp profile for machine {machine!r}")
    result: dict[str, Any] = {"defaultAction": default, "architectures": list(_MACHINES[machine][1]), "syscalls": rules}
    if errno is not None:
        result["defaultErrnoRet"] = errno
    return result


def default_seccomp(text: str, capabilities: Iterable[str], machine: str) -> dict[str, Any]:
    """The default profile (*text*: ``resources/seccomp/default.json``) for a container with *capabilities*.

    *capabilities* are the names of its bounding set (``CAP_...``), *machine* as ``uname -m`` says it.
    """
    data = json.loads(text)
    held = frozenset(capabilities)
    rules: list[dict[str, Any]] = [{"names": data["always"], "action": "SCMP_ACT_ALLOW"}]
    names = _MACHINES.get(machine, ((), ()))[0]
    for rule in data["conditional"]:
        if not _applies(rule, held, names):
            continue
        entry: dict[str, Any] = {"names": rule["names"], "action": "SCMP_ACT_ALLOW"}
        if "errno" in rule:
            entry |= {"action": "SCMP_ACT_ERRNO", "errnoRet": rule["errno"]}
        if "argument" in rule:
            index, op, value, *two = rule["argument"]
            entry["args"] = [{"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two[0] if two else 0}]
        rules.append(entry)
    return _profile("SCMP_ACT_ERRNO", data["errno"], machine, rules)


def docker_seccomp(
    text: str, capabilities: Iterable[str], machine: str, kernel: tuple[int, int] = (9, 0)
) -> dict[str, Any]:
    """A profile in Docker's format (``--security-opt seccomp=FILE``) as OCI's. Raises :class:`BadProfile`."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadProfile(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("defaultAction"), str):
        raise BadProfile("Decoding seccomp profile failed: defaultAction is missing")
    if data.get("architectures") and data.get("archMap"):
        raise BadProfile("both 'architectures' and 'archMap' are specified in the seccomp profile, use either")
    held = frozenset(capabilities)
    names = _MACHINES.get(machine, ((), ()))[0]
    rules: list[dict[str, Any]] = []
    for rule in data.get("syscalls") or []:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        ours = {
            "capabilities": includes.get("caps") or (), "unless_capabilities": excludes.get("caps") or (),
            "architectures": includes.get("arches") or (), "unless_architectures": excludes.get("arches") or (),
        }  # fmt: skip
        if not _applies(ours, held, names) or not _kernel_holds(includes, excludes, kernel):
            continue
        entry = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key) is not None}
        entry["names"] = [*(rule.get("names") or ()), *([rule["name"]] if rule.get("name") else ())]
        rules.append(entry)
    result = _profile(data["defaultAction"], data.get("defaultErrnoRet"), machine, rules)
    if data.get("architectures"):
        result["architectures"] = data["architectures"]
    return result


def _kernel_holds(includes: Mapping[str, Any], excludes: Mapping[str, Any], kernel: tuple[int, int]) -> bool:
    def at_least(text: str) -> bool:
        major, _, minor = text.partition(".")
        return kernel >= (int(major), int(minor or 0))

    if includes.get("minKernel") and not at_least(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and at_least(excludes["minKernel"]))
