"""Which devices a container may use: OCI ``linux.resources.devices`` for the v1 controller and as BPF for v2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

WILD = -1


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; later rules win. *kind* "a" means all kinds; numbers may be :data:`WILD`; *access* of ``rwm``."""

    allow: bool
    kind: str
    major: int
    minor: int
    access: str


def rules_of(resources: dict[str, Any]) -> list[Rule] | None:
    """The rules of a configuration; None if it has none, which leaves everything as the parent has it."""
    entries = resources.get("devices")
    if entries is None:
        return None
    result = []
    for entry in entries:
        kind = str(entry.get("type") or "a")
        access = str(entry.get("access") or "rwm")
        if kind not in ("a", "b", "c") or set(access) - set("rwm"):
            raise ValueError(f"device rule {entry!r} is not understood")
        numbers = [WILD if entry.get(k) is None else int(entry[k]) for k in ("major", "minor")]
        result.append(Rule(bool(entry.get("allow")), kind, numbers[0], numbers[1], access))
    return result


def allow_all(rules: list[Rule]) -> bool:
    """Whether nothing is forbidden in the end."""
    return bool(rules) and rules[-1] == Rule(True, "a", WILD, WILD, "rwm")


def default_rules() -> list[Rule]:
    """What the runtime-spec's default devices, terminals and making of nodes need."""
    rules = [Rule(True, "c", WILD, WILD, "m"), Rule(True, "b", WILD, WILD, "m")]
    numbers = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, WILD))
    return rules + [Rule(True, "c", major, minor, "rwm") for major, minor in numbers]


def v1_lines(rules: list[Rule]) -> list[tuple[str, str]]:
    """(file, line) for the devices controller, in order; what is allowed already is not written again."""
    out = []
    allowed: set[str] = set()
    for rule in rules:
        numbers = ":".join("*" if n == WILD else str(n) for n in (rule.major, rule.minor))
        line = "a" if rule.kind == "a" and numbers == "*:*" else f"{rule.kind} {numbers} {rule.access}"
        if rule.allow and line in allowed:
            continue
        if rule.allow:
            allowed.add(line)
        else:
            allowed.clear()
        out.append(("devices.allow" if rule.allow else "devices.deny", line))
    return out


# --- eBPF for v2: r1 points at struct bpf_cgroup_dev_ctx {u32 access_type (kind | access << 16), major, minor} --------
_ACCESS = {"m": 1, "r": 2, "w": 4}
_KIND = {"b": 1, "c": 2}


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


def _rule(rule: Rule) -> list[tuple[int, int, int, int, int]]:
    """Instructions that end the program if the rule matches; a jump offset of -1 means "next rule"."""
    body: list[tuple[int, int, int, int, int]] = []
    if rule.kind in _KIND:
        body.append((0x55, 2, 0, -1, _KIND[rule.kind]))  # jne r2 (kind)
    bits = sum(_ACCESS[a] for a in set(rule.access))
    if bits != 7:
        # An allowing rule must cover all that is asked; a denying one bites on any part of it.
        body.append((0xBC, 1, 3, 0, 0))  # r1 = r3 (access)
        if rule.allow:
            body += [(0x54, 1, 0, 0, bits), (0x5D, 1, 3, -1, 0)]  # r1 &= bits; jne r1, r3
        else:
            body += [(0x54, 1, 0, 0, bits), (0x15, 1, 0, -1, 0)]  # r1 &= bits; jeq r1, 0
    if rule.major != WILD:
        body.append((0x55, 4, 0, -1, rule.major))
    if rule.minor != WILD:
        body.append((0x55, 5, 0, -1, rule.minor))
    return [*body, (0xB7, 0, 0, 0, int(rule.allow)), (0x95, 0, 0, 0, 0)]  # r0 = verdict; exit


def device_program(rules: list[Rule]) -> bytes:
    """The program: rules from the last to the first (later ones win), deny if none matches."""
    out = [
        _insn(0x61, 2, 1, 0), _insn(0x54, 2, imm=0xFFFF),                     # r2 = kind
        _insn(0x61, 3, 1, 0), _insn(0x74, 3, imm=16),                         # r3 = access
        _insn(0x61, 4, 1, 4), _insn(0x61, 5, 1, 8),                           # r4 = major, r5 = minor
    ]  # fmt: skip
    for rule in reversed(rules):
        body = _rule(rule)
        for i, (code, dst, src, off, imm) in enumerate(body):
            out.append(_insn(code, dst, src, len(body) - i - 1 if off == -1 else off, imm))
        if rule.kind == "a" and rule.major == rule.minor == WILD and set(rule.access) == set("rwm"):
            return b"".join(out)  # nothing after it could be reached
    return b"".join([*out, _insn(0xB7, 0, imm=0), _insn(0x95)])
