"""Device rules as a BPF program on cgroup v2: the kernel's verifier takes it, and it decides as the rules say."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.runtime import syscalls as sc
from backend.runtime.devices import WILD, Rule, default_rules, device_program, v1_lines

DENY = Rule(False, "a", WILD, WILD, "rwm")


def v2_root() -> str | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("cgroup2 "):
            return left.split()[4]
    return None


pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0 or v2_root() is None, reason="needs root and a cgroup v2 tree")]


@pytest.fixture
def group() -> Iterator[str]:
    path = f"{v2_root()}/slipway-test-{secrets.token_hex(4)}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


def attach(group: str, rules: list[Rule]) -> None:
    program, directory = sc.bpf_load_device(device_program(rules)), os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sc.bpf_attach_device(directory, program)
    finally:
        os.close(program)
        os.close(directory)


def tries(group: str, script: str) -> list[str]:
    """What a process in the group may do, one word a try."""
    code = f"import os\nopen({group + '/cgroup.procs'!r}, 'w').write('0')\ndef t(f):\n try: f(); print('yes')\n except OSError: print('no')\n"
    return subprocess.run([sys.executable, "-c", code + script], check=True, capture_output=True, text=True).stdout.split()


READ = "t(lambda: os.close(os.open('/dev/{}', os.O_RDONLY)))\n"
WRITE = "t(lambda: os.close(os.open('/dev/{}', os.O_WRONLY)))\n"


def test_only_what_is_allowed_can_be_opened(group: str) -> None:
    attach(group, [DENY, Rule(True, "c", 1, 5, "r"), Rule(True, "c", 1, 7, "rwm"), Rule(False, "c", 1, 7, "w")])
    script = READ.format("zero") + WRITE.format("zero") + READ.format("full") + WRITE.format("full") + READ.format("random")
    assert tries(group, script) == ["yes", "no", "yes", "no", "no"]


def test_the_default_rules_allow_the_default_devices_and_making_nodes(group: str, tmp_path: Path) -> None:
    attach(group, [DENY, *default_rules()])
    make = f"t(lambda: os.mknod({str(tmp_path / 'kmsg')!r}, 0o20600, os.makedev(1, 11)))\nt(lambda: os.open({str(tmp_path / 'kmsg')!r}, 0))\n"
    assert tries(group, READ.format("zero") + WRITE.format("null") + READ.format("urandom") + make) == ["yes", "yes", "yes", "yes", "no"]


def test_the_same_rules_for_the_v1_controller() -> None:
    assert v1_lines([DENY, Rule(True, "c", 136, WILD, "rwm"), Rule(False, "b", 8, 0, "w")]) == [
        ("devices.deny", "a"), ("devices.allow", "c 136:* rwm"), ("devices.deny", "b 8:0 w")]
