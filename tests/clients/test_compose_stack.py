"""Stacks on a real engine, and the real docker compose beside us on the same stacks: each sees, adopts and ends the other's.

They run on a private helper; SLIPWAY_COMPOSE_TEST_HOST=unix:///path names another engine that has busybox:latest (that is
how they were checked against dockerd).
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import environment, has_compose
from tests.support.private import ROOT, PrivateHelper, docker_client

HOST = os.environ.get("SLIPWAY_COMPOSE_TEST_HOST", "")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox-static, of which the test's image is made, is missing"),
]
beside = pytest.mark.skipif(not has_compose(), reason="docker compose is not installed beside the docker client")

STACK = """
services:
  web:
    image: ${IMAGE:-busybox}
    command:
      - sh
      - -c
      - |
        trap exit TERM
        echo started $$WHO
        until [ -f /data/from-db ]; do sleep 0.1; done
        echo shared $$(cat /data/from-db)
        for name in db www web; do ping -c1 -w3 $$name > /dev/null && echo reached $$name; done
        echo ready
        sleep 600 & wait
    env_file: web.env
    environment: {WHO: "${WHO}", LEVEL: 3}
    volumes: ["data:/data"]
    depends_on: [db]
    networks: {default: {aliases: [www]}}
  db:
    image: busybox
    command: ["sh", "-c", "trap exit TERM; echo db > /data/from-db; sleep 600 & wait"]
    volumes: ["data:/data"]
    restart: always
    stop_grace_period: 2s
volumes: {data: }
"""


def busybox_tar(path: Path) -> Path:
    """A root file system with the machine's static busybox under every name that it goes by."""
    program = shutil.which("busybox")
    assert program is not None
    names = subprocess.run([program, "--list"], capture_output=True, check=True, text=True).stdout.split()
    with tarfile.open(path, "w") as tar:
        for name in ("bin", "tmp", "etc", "root", "proc", "sys", "dev", "data"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        tar.add(program, "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The engine's address."""
    if HOST:
        yield HOST
        return
    with PrivateHelper() as helper:
        tar = busybox_tar(tmp_path_factory.mktemp("image") / "root.tar")
        helper.docker("import", "-c", 'CMD ["sh"]', "-c", "ENV PATH=/bin", str(tar), "busybox:latest")
        yield f"unix://{helper.socket}"


class Stack:
    """A project directory on the engine, and the two programs that work on it."""

    def __init__(self, host: str, home: Path) -> None:
        self.host = host
        self.home = home
        self.name = f"t{secrets.token_hex(4)}"
        self.env = {**environment(), "DOCKER_HOST": host, "PYTHONPATH": str(ROOT), "COMPOSE_PROJECT_NAME": self.name}
        program = docker_client()
        assert program is not None
        self.program = program

    def slipway(self, *words: str, ok: bool = True) -> str:
        """`slipway ...` of this checkout; both of its outputs."""
        code = "import sys; from app.cli.compose import main; sys.exit(main(sys.argv[2:], sys.argv[1]))"
        done = subprocess.run([sys.executable, "-c", code, self.host, *words], cwd=self.home, env=self.env, capture_output=True,
                              text=True, timeout=120)
        assert (done.returncode == 0) == ok, f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def docker(self, *words: str) -> str:
        done = subprocess.run([self.program, *words], cwd=self.home, env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"docker {words} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def log_until(self, word: str) -> str:
        """The log of `web` once it has *word*, which is the last that it says."""
        for _ in range(200):
            told = self.slipway("stack", "logs", "web")
            if word in told:
                break
            time.sleep(0.1)
        return told

    def ids(self) -> dict[str, str]:
        """Container IDs by name, of this stack."""
        listed = self.docker("ps", "-a", "--filter", f"label=com.docker.compose.project={self.name}", "--format", "{{.Names}} {{.ID}}")
        return dict(line.split() for line in listed.splitlines())

    def left(self) -> str:
        """What of the stack is there, whatever it is."""
        label = ("--filter", f"label=com.docker.compose.project={self.name}")
        return self.docker("ps", "-aq", *label) + self.docker("network", "ls", "-q", *label) + self.docker("volume", "ls", "-q", *label)


@pytest.fixture
def stack(host: str, tmp_path: Path) -> Iterator[Stack]:
    home = tmp_path / "shop"
    home.mkdir()
    (home / "compose.yaml").write_text(STACK)
    (home / ".env").write_text("WHO=world\n")
    (home / "web.env").write_text("FROM_FILE='a b'\n")
    made = Stack(host, home)
    yield made
    made.slipway("down", "-p", made.name, "-v", "-t", "0")
    assert made.left() == "", "down left something behind"


def test_a_stack_comes_up_works_and_goes_down(stack: Stack) -> None:
    said = stack.slipway("up", "-d")
    assert f"create network {stack.name}_default" in said and f"start container {stack.name}-web-1" in said
    web, db = f"{stack.name}-web-1", f"{stack.name}-db-1"
    assert set(stack.ids()) == {web, db}
    told = stack.log_until("ready")
    assert "web-1 | started world" in told, "variables come from .env"
    assert "shared db" in told, "the named volume is one and the same"
    for name in ("db", "www", "web"):
        assert f"reached {name}" in told, f"the name {name} resolves in the stack's network"
    assert stack.docker("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", db).strip() == "always"
    listed = stack.slipway("stack", "ls")
    assert stack.name in listed and "running(2)" in listed
    stack.slipway("down")
    assert stack.ids() == {} and stack.docker("volume", "ls", "-q", "--filter", f"name={stack.name}_data").strip()


def test_a_second_up_does_nothing_and_a_changed_service_alone_is_made_anew(stack: Stack) -> None:
    stack.slipway("up", "-d")
    before = stack.ids()
    assert stack.slipway("up", "-d").strip() == f"{stack.name}: nothing to do"
    (stack.home / ".env").write_text("WHO=everybody\n")
    planned = stack.slipway("stack", "plan")
    assert f"{stack.name}-web-1  (its configuration changed)" in planned and stack.ids() == before, "a plan does nothing"
    stack.slipway("up", "-d", "-t", "1")
    after = stack.ids()
    assert set(after) == set(before)
    assert after[f"{stack.name}-db-1"] == before[f"{stack.name}-db-1"]
    assert after[f"{stack.name}-web-1"] != before[f"{stack.name}-web-1"]


def test_stop_and_start_keep_the_containers(stack: Stack) -> None:
    stack.slipway("up", "-d")
    before = stack.ids()
    stack.slipway("stack", "stop", "-t", "1")
    assert "exited(2)" in stack.slipway("stack", "ls")
    stack.slipway("stack", "start")
    assert stack.ids() == before and "running(2)" in stack.slipway("stack", "ls")


def test_a_failure_says_what_was_not_done_and_the_next_up_goes_on(stack: Stack) -> None:
    (stack.home / "compose.yaml").write_text(STACK.replace('command: ["sh", "-c"', 'command: ["/no/such/program", "-c"'))
    said = stack.slipway("up", "-d", ok=False)
    assert f"✘ start container {stack.name}-db-1" in said and f"not begun: start container {stack.name}-web-1" in said
    (stack.home / "compose.yaml").write_text(STACK)
    stack.slipway("up", "-d")
    assert "running(2)" in stack.slipway("stack", "ls")


def test_a_wrong_file_changes_nothing(stack: Stack) -> None:
    (stack.home / "compose.yaml").write_text(STACK + "secrets: {}\n")
    assert f"compose.yaml:{STACK.count(chr(10)) + 1}:1: secrets is not supported yet" in stack.slipway("up", "-d", ok=False)
    assert stack.left() == ""


@beside
def test_docker_compose_sees_keeps_and_ends_our_stack(stack: Stack) -> None:
    stack.slipway("up", "-d")
    assert sorted(stack.docker("compose", "ps", "--format", "{{.Service}} {{.State}}").splitlines()) == ["db running", "web running"]
    assert "started world" in stack.docker("compose", "logs", "--no-color", "web")
    before = stack.ids()
    stack.docker("compose", "up", "-d")
    assert stack.ids() == before, "docker compose finds nothing to change"
    stack.docker("compose", "down", "-v", "-t", "0")
    assert stack.left() == ""


@beside
def test_we_see_keep_and_end_a_stack_of_docker_compose(stack: Stack) -> None:
    stack.docker("compose", "up", "-d")
    assert stack.slipway("up", "-d").strip() == f"{stack.name}: nothing to do"
    assert "running(2)" in stack.slipway("stack", "ls") and "started world" in stack.slipway("stack", "logs", "web")
    stack.slipway("down", "-v", "-t", "0")
    assert stack.left() == ""
