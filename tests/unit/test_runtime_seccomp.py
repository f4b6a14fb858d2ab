"""The seccomp compiler, its filters run by a small BPF machine: a wrong verdict is a hole or a broken program."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from backend.runtime.seccomp import ARCHITECTURES, BadProfile, Compiler, compile_profile, load_table
from backend.spec.seccomp import BadProfile as BadText
from backend.spec.seccomp import default_seccomp, docker_seccomp

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X64, X86, ARM = 0xC000003E, 0x40000003, 0xC00000B7
TEXT = (Path(__file__).resolve().parents[2] / "resources/seccomp/default.json").read_text()


def run(program: bytes, arch: int, number: int, *args: int) -> int:
    """What the kernel would return, with a limit on jumps that a loop would break."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(a & (1 << 64) - 1 for a in (*args, 0, 0, 0, 0, 0, 0)[:6]))
    code = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    for _ in range(len(code)):
        op, jt, jf, k = code[at]
        at += 1
        if op == 0x20:
            assert k % 4 == 0 and k + 4 <= len(data)
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            at += k
        elif op == 0x06:
            return k
        else:
            at += jt if {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[op] else jf
    raise AssertionError("the program does not end")


def default(*capabilities: str, machine: str = "x86_64") -> bytes:
    return compile_profile(default_seccomp(TEXT, capabilities, machine), machine)


@pytest.mark.parametrize(("table", "arch", "bit"), [("x86_64", X64, 0), ("x32", X64, 0x40000000), ("i386", X86, 0)])
def test_every_number_of_the_default_profile_has_the_verdict_that_its_rules_say(table: str, arch: int, bit: int) -> None:
    program = default()
    data = json.loads(TEXT)
    conditional = {name for rule in data["conditional"] for name in rule["names"]}
    numbers = load_table(table)
    always = {numbers[n] for n in data["always"] if n in numbers}
    for name, number in numbers.items():
        if name not in conditional and number <= max(always):
            assert run(program, arch, number | bit) == (ALLOW if number in always else EPERM), name


def test_calls_newer_than_the_profile_say_that_they_do_not_exist() -> None:
    assert run(default(), X64, 600) == ENOSYS
    assert run(default(), X86, 600) == ENOSYS


def test_calls_of_an_architecture_that_is_not_listed_end_the_process() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": []}
    program = compile_profile(profile, "x86_64")
    assert run(program, X64, 1) == ALLOW
    assert run(program, X86, 1) == KILL
    assert run(program, X64, 0x40000001) == KILL


@pytest.mark.parametrize(("family", "verdict"), [(1, ALLOW), (2, ALLOW), (16, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW),
                                                 (1 << 32 | 38, ALLOW)])  # fmt: skip
def test_sockets_to_the_host_and_its_crypto_are_refused_and_others_not(family: int, verdict: int) -> None:
    assert run(default(), X64, load_table("x86_64")["socket"], family) == verdict


def test_namespaces_need_the_capability() -> None:
    numbers = load_table("x86_64")
    for flags in (0x20000, 0x02000000, 0x10000000, 0x40000000, 0x20000 | 17):
        assert run(default(), X64, numbers["clone"], flags) == EPERM
        assert run(default("CAP_SYS_ADMIN"), X64, numbers["clone"], flags) == ALLOW
    assert run(default(), X64, numbers["clone"], 0x003D0F00) == ALLOW
    assert run(default(), X64, numbers["clone3"]) == ENOSYS
    assert run(default("CAP_SYS_ADMIN"), X64, numbers["clone3"]) == ALLOW
    for name, capability in (("mount", "CAP_SYS_ADMIN"), ("chroot", "CAP_SYS_CHROOT"), ("bpf", "CAP_BPF"), ("reboot", "CAP_SYS_BOOT")):
        assert run(default(), X64, numbers[name]) == EPERM
        assert run(default(capability), X64, numbers[name]) == ALLOW


def test_the_other_machine_has_its_own_numbers() -> None:
    numbers, program = load_table("aarch64"), default(machine="aarch64")
    assert run(program, ARM, numbers["openat"]) == ALLOW
    assert run(program, ARM, numbers["mount"]) == EPERM
    assert run(program, X64, 0) == KILL


VALUES = [0, 1, 5, 6, 7, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, (1 << 32) + 6, (1 << 32) + 7, (2 << 32) + 6, (1 << 64) - 1]


@pytest.mark.parametrize("op", ["NE", "LT", "LE", "EQ", "GE", "GT"])
@pytest.mark.parametrize("value", [0, 6, (1 << 32) + 6, (1 << 64) - 1])
def test_comparisons_hold_for_all_64_bits(op: str, value: int) -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9, "args": [{"index": 2, "op": f"SCMP_CMP_{op}", "value": value}]}
    program = compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, "x86_64")
    truth = {"NE": int.__ne__, "LT": int.__lt__, "LE": int.__le__, "EQ": int.__eq__, "GE": int.__ge__, "GT": int.__gt__}[op]
    for given in VALUES:
        assert run(program, X64, 0, 0, 0, given) == (0x00050009 if truth(given, value) else ALLOW), given


def test_masked_comparison_and_conditions_on_two_arguments_together() -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [
        {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0xF_0000_000F, "valueTwo": 0x3_0000_0003},
        {"index": 1, "op": "SCMP_CMP_EQ", "value": 4}]}  # fmt: skip
    program = compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, "x86_64")
    assert run(program, X64, 0, 0xFF3_0000_0FF3, 4) == EPERM
    assert run(program, X64, 0, 0xFF3_0000_0FF3, 5) == ALLOW
    assert run(program, X64, 0, 0xFF3_0000_0FF2, 4) == ALLOW


def test_conditions_on_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "op": "SCMP_CMP_EQ", "value": v} for v in (3, 7)]
    program = compile_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}]},
                              "x86_64")
    assert [run(program, X64, 0, v) for v in (3, 5, 7)] == [ALLOW, EPERM, ALLOW]


def test_a_profile_in_dockers_format_gives_what_ours_gives() -> None:
    text = json.dumps({
        "defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"name": "write", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_KILL"]}},
            {"names": ["open"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["close"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        ],
    })  # fmt: skip
    program = compile_profile(docker_seccomp(text, [], "x86_64", (6, 1)), "x86_64")
    assert [run(program, X64, n) for n in (0, 1, 2, 3)] == [ALLOW, EPERM, ALLOW, ENOSYS]
    assert run(compile_profile(docker_seccomp(text, ["CAP_KILL"], "x86_64"), "x86_64"), X64, 1) == ALLOW


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"defaultAction": 1}'])
def test_a_file_that_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(BadText):
        docker_seccomp(text, [], "x86_64")


def test_unknown_actions_and_operations_are_refused() -> None:
    with pytest.raises(BadProfile):
        compile_profile({"defaultAction": "SCMP_ACT_NOTIFY"}, "x86_64")
    with pytest.raises(BadProfile):
        compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [
            {"index": 6, "op": "SCMP_CMP_EQ", "value": 1}]}]}, "x86_64")  # fmt: skip


def test_filters_stay_small_and_are_compiled_once() -> None:
    compiler = Compiler()
    profile = default_seccomp(TEXT, [], "x86_64")
    assert compiler.compile(profile) is compiler.compile(json.loads(json.dumps(profile)))
    assert len(compiler.compile(profile)) // 8 < 1000
    assert compiler.compile(None) == b""
    assert set(ARCHITECTURES) >= set(profile["architectures"])
