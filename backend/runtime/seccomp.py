"""OCI ``linux.seccomp`` to classic BPF, with no library: a balanced tree over system call numbers.

Order of a compiled filter: which architecture called, then a binary search over ranges of numbers with the same
verdict, then, for the few rules with arguments, comparisons of 64-bit words by halves. Some 150 instructions for
Docker's default profile, of which a call passes about ten. Compiled once and kept by their profile (:class:`Compiler`).

Choices, where OCI's text is silent, as runc and libseccomp do: a call from an architecture that is not listed ends
the process; a number above all that the profile knows answers ENOSYS instead of the default errno, so that libraries
fall back when a kernel is newer than the profile; rules with arguments come before one without; several
conditions on the same argument are alternatives.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from dataclasses import dataclass
from typing import Any

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000, "SCMP_ACT_KILL_THREAD": 0x00000000, "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
KILL_PROCESS = 0x80000000
ENOSYS_ACTION = 0x00050000 | errno.ENOSYS
X32_BIT = 0x40000000

# OCI name -> (table, AUDIT_ARCH value, bit added to numbers)
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E, 0),
    "SCMP_ARCH_X32": ("x32", 0xC000003E, X32_BIT),
    "SCMP_ARCH_X86": ("i386", 0x40000003, 0),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7, 0),
}
NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_OPS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")

# Classic BPF: code of "load word", "jump if ...", "and", "return"
LD, JA, JEQ, JGT, JGE, AND, RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
Instruction = tuple[int, int, int, int]
MAX_INSTRUCTIONS = 4096


class BadProfile(Exception):
    """The profile cannot be compiled; the message says where."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of an argument."""

    index: int
    op: str
    value: int
    value_two: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one system call: the first group of *rules* that holds decides, else *action*."""

    rules: tuple[tuple[tuple[Condition, ...], int], ...]
    action: int


def _action(name: object, data: object) -> int:
    if name not in ACTIONS:
        raise BadProfile(f"seccomp action {name!r} is not supported")
    code = ACTIONS[str(name)]
    if name in _WITH_DATA:
        code |= (int(str(data)) if data is not None else errno.EPERM) & 0xFFFF
    return code


def _condition(entry: dict[str, Any]) -> Condition:
    op = str(entry.get("op", "")).removeprefix("SCMP_CMP_")
    index = entry.get("index")
    if op not in _OPS or not isinstance(index, int) or not 0 <= index <= 5:
        raise BadProfile(f"seccomp argument rule {entry!r} is not understood")
    full = 0xFFFFFFFFFFFFFFFF
    return Condition(index, op, int(entry.get("value") or 0) & full, int(entry.get("valueTwo") or 0) & full)


def _alternatives(conditions: list[Condition]) -> list[tuple[Condition, ...]]:
    """Conditions on different arguments hold together; several on one argument are alternatives."""
    if len({c.index for c in conditions}) == len(conditions):
        return [tuple(conditions)] if conditions else []
    return [(c,) for c in conditions]


def load_table(name: str) -> dict[str, int]:
    """The numbers of one architecture, from the data files beside the default profile."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(f"{here}/resources/seccomp/syscalls-{name}.json", encoding="ascii") as file:
        table = json.load(file)
    return {str(k): int(v) for k, v in table.items()}


def verdicts(profile: dict[str, Any], table: dict[str, int]) -> dict[int, Verdict]:
    """Per number of one architecture what the profile's rules say. Unknown names are skipped, as runc does."""
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    conditional: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    plain: dict[int, int] = {}
    for rule in profile.get("syscalls") or []:
        action = _action(rule.get("action"), rule.get("errnoRet"))
        groups = _alternatives([_condition(a) for a in rule.get("args") or []])
        for name in rule.get("names") or []:
            number = table.get(name)
            if number is None:
                continue
            if groups:
                conditional.setdefault(number, []).extend((group, action) for group in groups)
            else:
                plain.setdefault(number, action)
    return {n: Verdict(tuple(conditional.get(n, ())), plain.get(n, default)) for n in sorted({*conditional, *plain})}


# --- emitting -------------------------------------------------------------------------------------------------------
def _compare(condition: Condition) -> list[Instruction]:
    """Falls through if the condition holds; a jump to "does not hold" is marked by 255 and set later."""
    low, high = 16 + 8 * condition.index, 20 + 8 * condition.index
    value = condition.value_two if condition.op == "MASKED_EQ" else condition.value
    top, bottom = value >> 32, value & 0xFFFFFFFF
    miss = 255
    if condition.op in ("EQ", "MASKED_EQ"):
        masks: tuple[list[Instruction], list[Instruction]] = ([], [])
        if condition.op == "MASKED_EQ":
            masks = ([(AND, 0, 0, condition.value >> 32)], [(AND, 0, 0, condition.value & 0xFFFFFFFF)])
        return [(LD, 0, 0, high), *masks[0], (JEQ, 0, miss, top), (LD, 0, 0, low), *masks[1], (JEQ, 0, miss, bottom)]
    if condition.op == "NE":
        return [(LD, 0, 0, high), (JEQ, 0, 2, top), (LD, 0, 0, low), (JEQ, miss, 0, bottom)]
    if condition.op in ("GT", "GE"):
        return [(LD, 0, 0, high), (JGT, 3, 0, top), (JEQ, 0, miss, top), (LD, 0, 0, low),
                (JGT if condition.op == "GT" else JGE, 0, miss, bottom)]  # fmt: skip
    return [(LD, 0, 0, high), (JGT, miss, 0, top), (JEQ, 0, 2, top), (LD, 0, 0, low),
            (JGE if condition.op == "LT" else JGT, miss, 0, bottom)]  # fmt: skip


def _group(conditions: tuple[Condition, ...], action: int) -> list[Instruction]:
    body: list[Instruction] = []
    for condition in conditions:
        body += _compare(condition)
    body.append((RET, 0, 0, action))
    end = len(body)
    fixed = [
        (code, end - i - 1 if jt == 255 else jt, end - i - 1 if jf == 255 else jf, k)
        for i, (code, jt, jf, k) in enumerate(body)
    ]
    if end > 200:
        raise BadProfile("seccomp rule has too many conditions")
    return fixed


def _leaf(verdict: Verdict) -> list[Instruction]:
    out: list[Instruction] = []
    for conditions, action in verdict.rules:
        if action != verdict.action:
            out += _group(conditions, action)
        else:
            # The same outcome as the fall-back still has to win over a later rule.
            out += _group(conditions, action)
    return [*out, (RET, 0, 0, verdict.action)]


def _tree(starts: list[int], leaves: list[Verdict]) -> list[Instruction]:
    if len(leaves) == 1:
        return _leaf(leaves[0])
    middle = len(leaves) // 2
    left, right = _tree(starts[:middle], leaves[:middle]), _tree(starts[middle:], leaves[middle:])
    if len(left) <= 255:
        return [(JGE, len(left), 0, starts[middle]), *left, *right]
    return [(JGE, 0, 1, starts[middle]), (JA, 0, 0, len(left)), *left, *right]


def _ranges(
    parts: list[tuple[int, dict[int, Verdict]]], default: Verdict, beyond: Verdict, unknown_abi: bool
) -> list[Instruction]:
    """One number space: parts of it (x86-64, then x32) with the verdicts between and after their numbers."""
    points: list[tuple[int, Verdict]] = []
    for base, table in parts:
        points.append((base, default))
        for number, verdict in table.items():
            points += [(base + number, verdict), (base + number + 1, default)]
        if table:
            points.append((base + max(table) + 1, beyond))
    if unknown_abi:
        points.append((X32_BIT, Verdict((), KILL_PROCESS)))
    merged: dict[int, Verdict] = {}
    for start, verdict in sorted(points, key=lambda p: p[0]):  # stable: a later point at the same number wins
        merged[start] = verdict
    starts: list[int] = []
    leaves: list[Verdict] = []
    for start, verdict in merged.items():
        if not leaves or leaves[-1] != verdict:
            starts.append(start)
            leaves.append(verdict)
    return _tree(starts, leaves)


def compile_profile(profile: dict[str, Any], machine: str = "") -> bytes:
    """*profile* (OCI ``linux.seccomp``) as the bytes of ``struct sock_filter[]``. Raises :class:`BadProfile`."""
    native = NATIVE.get(machine or os.uname().machine)
    if native is None:
        raise BadProfile(f"seccomp is not supported on {machine or os.uname().machine}")
    wanted = [a for a in profile.get("architectures") or [] if a in ARCHITECTURES]
    default = Verdict((), _action(profile.get("defaultAction"), profile.get("defaultErrnoRet")))
    # A profile that forbids by default answers ENOSYS to calls newer than itself; an allowing one lets them be.
    forbids = default.action & 0x7FFF0000 == ACTIONS["SCMP_ACT_ERRNO"]
    beyond = Verdict((), ENOSYS_ACTION) if forbids else default
    spaces: dict[int, list[tuple[int, dict[int, Verdict]]]] = {}
    for name in dict.fromkeys([native, *wanted]):
        table, audit, bit = ARCHITECTURES[name]
        spaces.setdefault(audit, []).append((bit, verdicts(profile, load_table(table))))
    out: list[Instruction] = [(LD, 0, 0, 4)]
    for audit, parts in spaces.items():
        x86_64_only = audit == 0xC000003E and all(bit != X32_BIT for bit, _ in parts)
        block = [(LD, 0, 0, 0), *_ranges(parts, default, beyond, x86_64_only)]
        out += [(JEQ, 1, 0, audit), (JA, 0, 0, len(block)), *block]
    out.append((RET, 0, 0, KILL_PROCESS))
    if len(out) > MAX_INSTRUCTIONS:
        raise BadProfile(f"seccomp profile needs {len(out)} instructions; the kernel takes {MAX_INSTRUCTIONS}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in out)


class Compiler:
    """Keeps compiled filters by their profile; a handful, since engines use few profiles."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._kept: dict[str, bytes] = {}

    def compile(self, profile: dict[str, Any] | None) -> bytes:
        """The filter of *profile*; empty bytes for none."""
        if not profile:
            return b""
        key = json.dumps(profile, sort_keys=True)  # as good as a digest, without the weight of a crypto library
        found = self._kept.get(key)
        if found is None:
            found = compile_profile(profile)
            while len(self._kept) >= self._limit:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = found
        return found
