"""`slipway` at a terminal: shells, the size, keys that detach, signals; and the terminal is as it was afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.roots import busybox_tar
from tests.support.slipway import command, environment, slipway
from tests.support.terminal import Terminal

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-c", 'CMD ["sh"]', "-", "busybox", stdin=busybox_tar())
        yield made


def at_terminal(helper: PrivateHelper, *words: str) -> Terminal:
    return Terminal(command(helper, *words), environment(helper), cwd=str(ROOT))


def state(helper: PrivateHelper, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(helper.docker("inspect", name).stdout)[0]["State"]
    return found


def test_a_shell_in_a_new_container_has_the_terminal_its_size_and_ends_with_its_code(helper: PrivateHelper) -> None:
    shell = at_terminal(helper, "run", "-it", "--name", "shell", "busybox")
    shell.expect(r"/ # ")
    shell.type("tty; stty size; echo $TERM\r")
    shell.expect(r"/dev/(pts/\d+|console)\s")
    shell.expect(r"30 100\s+xterm")
    shell.resize(41, 123)
    shell.type("stty size\r")
    shell.expect(r"41 123")
    shell.type("exit 5\r")
    assert shell.end() == 5
    assert state(helper, "shell")["ExitCode"] == 5, "it is stopped, not removed"
    again = at_terminal(helper, "start", "-ai", "shell")
    again.expect(r"/ # ")
    again.type("echo a''gain\r")
    again.expect(r"again")
    again.type("exit\r")
    assert again.end() == 0
    helper.docker("rm", "shell")


def test_the_detach_keys_leave_it_running_and_attach_comes_back(helper: PrivateHelper) -> None:
    ticks = "(while true; do echo tick; sleep 0.2; done) & cat"
    shell = at_terminal(helper, "run", "-it", "--name", "stays", "busybox", "sh", "-c", ticks)
    shell.expect(r"tick")
    shell.type("\x10\x11")
    assert shell.end() == 0
    assert state(helper, "stays")["Running"]
    own = at_terminal(helper, "attach", "--detach-keys", "ctrl-x,z", "stays")
    own.expect(r"tick")
    own.type("\x10\x11word\r")
    own.expect(r"word")
    own.type("\x18z")
    assert own.end() == 0
    assert state(helper, "stays")["Running"], "other keys are the container's"
    helper.docker("rm", "-f", "stays")


def test_a_program_in_a_running_container_has_a_terminal_too(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    shell = at_terminal(helper, "exec", "-it", "-e", "WHO=me", "-w", "/tmp", "host", "sh")
    shell.expect(r"/tmp # ")
    shell.resize(33, 77)
    shell.type("stty size; echo $WHO\r")
    shell.expect(r"33 77\s+me")
    shell.type("\x03")
    shell.expect(r"# ")
    shell.type("exit 9\r")
    assert shell.end() == 9
    left = at_terminal(helper, "exec", "-it", "--detach-keys", "ctrl-a", "host", "sh")
    left.expect(r"# ")
    left.type("\x01")
    assert left.end() == 0
    helper.docker("rm", "-f", "host")


def test_the_terminal_is_as_it_was_even_when_the_program_is_told_to_end(helper: PrivateHelper) -> None:
    words = " ".join(command(helper, "run", "-it", "--rm", "--name", "raw", "busybox"))
    outer = Terminal(["sh"], {**environment(helper), "PS1": "outer> "}, cwd=str(ROOT))
    outer.expect(r"outer> ")
    outer.type("stty -a | md5sum\r")
    before = outer.expect(r"([0-9a-f]{32})")[1]
    outer.type(f"{words}\r")
    outer.expect(r"/ # ")
    client = int(subprocess.run(["pgrep", "-f", f"{helper.socket} run -it --rm --name raw"], check=True, capture_output=True).stdout.split()[-1])
    os.kill(client, signal.SIGTERM)
    outer.expect(r"outer> ")
    helper.docker("rm", "-f", "raw")
    outer.type("stty -a | md5sum\r")
    assert outer.expect(r"([0-9a-f]{32})")[1] == before
    outer.type("exit\r")
    outer.end()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 41), (signal.SIGINT, 42), (signal.SIGUSR1, 43)])
def test_signals_reach_the_container_and_its_code_comes_back(helper: PrivateHelper, sent: signal.Signals, code: int) -> None:
    script = "trap 'exit 41' TERM; trap 'exit 42' INT; trap 'exit 43' USR1; echo ready; while true; do sleep 0.05; done"
    process = subprocess.Popen(command(helper, "run", "--rm", "busybox", "sh", "-c", script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               cwd=ROOT, env=environment(helper))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(sent)
    assert process.wait(30) == code
    process.stdout.close()


def test_without_the_proxy_a_signal_ends_the_client_and_not_the_container(helper: PrivateHelper) -> None:
    process = subprocess.Popen(command(helper, "run", "--sig-proxy=false", "--name", "deaf", "busybox", "sh", "-c", "echo ready; sleep 1000"),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT, env=environment(helper))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    process.stdout.close()
    assert state(helper, "deaf")["Running"]
    helper.docker("rm", "-f", "deaf")


def test_input_flows_through_a_pipe_to_its_end(helper: PrivateHelper) -> None:
    data = os.urandom(3 << 20)
    assert slipway(helper, "run", "--rm", "-i", "busybox", "cat", stdin=data).stdout == data
    helper.docker("run", "-d", "--name", "pipe", "busybox", "sleep", "1000")
    assert slipway(helper, "exec", "-i", "pipe", "cat", stdin=data).stdout == data
    helper.docker("rm", "-f", "pipe")


def test_a_log_is_followed_until_the_container_ends(helper: PrivateHelper) -> None:
    helper.docker("run", "-d", "-i", "--name", "talks", "busybox", "sh", "-c", "echo one; read x; echo two >&2")
    process = subprocess.Popen(command(helper, "logs", "-f", "talks"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               cwd=ROOT, env=environment(helper))
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    client = docker_client()
    assert client is not None
    subprocess.run([client, "-H", f"unix://{helper.socket}", "attach", "talks"], input=b"go\n", capture_output=True, timeout=30)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == (b"", b"two\n", 0)
    helper.docker("rm", "-f", "talks")


def test_a_reader_that_leaves_ends_the_verb_without_a_complaint(helper: PrivateHelper) -> None:
    helper.docker("run", "--name", "long", "busybox", "seq", "100000")
    words = " ".join(command(helper, "logs", "long"))
    done = subprocess.run(["sh", "-c", f"{words} | head -n 1"], capture_output=True, cwd=ROOT, env=environment(helper), timeout=30)
    assert (done.stdout, done.stderr) == (b"1\n", b"")
    helper.docker("rm", "long")
