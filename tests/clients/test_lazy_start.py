"""An image runs before it has arrived: few bytes before the first process, the right bytes always, whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.engine.builtin import find_busybox
from backend.images import ondemand
from backend.images.inflate import Inflater
from tests.support.gateway import Gateway, gateway
from tests.support.images import docker_archive
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.registry import registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the helper needs root"),
    pytest.mark.skipif(docker_client() is None, reason="no docker client here"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
    pytest.mark.skipif(os.geteuid() == 0 and not ondemand.supported("/var/tmp"), reason="this kernel has no pre-content events (Linux 6.14)"),
]
FILES, SIZE = 24, 500_000


def contents(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def layer() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data, mode in [("bin/busybox", find_busybox(), 0o755), *((f"data/{number}", contents(number), 0o644) for number in range(FILES))]:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_truthful(host: str, repository: str) -> None:
    """skopeo before 1.14 leaves out the end of the tar in this form, so that its digest is not the image's: ``:1`` stays
    so, ``:2`` is the same with the digest that it has."""

    def ask(method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[bytes, str]:
        request = urllib.request.Request(path if path.startswith("http") else f"http://{host}/v2/{repository}/{path}", body or None, method=method,
                                         headers={"Content-Type": kind or "application/octet-stream", "Accept": "application/vnd.oci.image.manifest.v1+json"})
        with urllib.request.urlopen(request) as answer:
            return answer.read(), answer.headers.get("Location", "")

    def put(data: bytes) -> str:
        name = "sha256:" + hashlib.sha256(data).hexdigest()
        _, session = ask("POST", "blobs/uploads/")
        ask("PUT", f"{session}&digest={name}", data)
        return name

    manifest = json.loads(ask("GET", "manifests/1")[0])
    config = json.loads(ask("GET", f"blobs/{manifest['config']['digest']}")[0])
    inflater = Inflater()
    packed = ask("GET", f"blobs/{manifest['layers'][0]['digest']}")[0]
    plain = b"".join([*inflater.feed(packed), inflater.end()])
    config["rootfs"]["diff_ids"] = ["sha256:" + hashlib.sha256(plain).hexdigest()]
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": put(data), "size": len(data)}
    ask("PUT", "manifests/2", json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


class World:
    def __init__(self, door: Gateway, helper: PrivateHelper) -> None:
        self.door, self.helper = door, helper
        self.image = f"{door.host}/lazy/app:1"

    def slipway(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([sys.executable, "-m", "app", *words], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_HOST": f"unix://{self.helper.socket}"})
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def docker(self, *words: str, check: bool = True) -> str:
        return self.helper.docker(*words, check=check).stdout.decode().strip()

    def here(self) -> bool:
        return bool(self.docker("images", "-q", self.image))

    def early(self) -> list[str]:
        folder = Path(self.helper.data, "images/early")
        return os.listdir(folder) if folder.exists() else []

    def start(self) -> str:
        """A container of the image that has not arrived, asleep."""
        self.slipway("pull", "--lazy", self.image)
        return self.docker("run", "-d", self.image, "/bin/busybox", "sleep", "1000")

    def read(self, container: str, number: int) -> str:
        return self.docker("exec", container, "/bin/busybox", "sha256sum", f"/data/{number}", check=False).partition(" ")[0]

    def forget(self) -> None:
        ids = self.docker("ps", "-aq").split()
        if ids:
            self.docker("rm", "-f", *ids)
        until(lambda: not self.early(), "the image has arrived")
        self.docker("rmi", "-f", self.image, check=False)
        until(lambda: not self.here(), "the image is gone")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the image in it, as we convert it and as skopeo does."""
    with registry() as host:
        with PrivateHelper() as helper:
            helper.docker("load", stdin=docker_archive([layer()], tag="plain:1"))
            World(Gateway(host), helper).slipway("images", "convert", "plain:1", f"{host}/lazy/app:1")
            helper.docker("push", f"{host}/lazy/app:1")
        if shutil.which("skopeo"):
            archive = tmp_path_factory.mktemp("chunked") / "image.tar"
            archive.write_bytes(docker_archive([layer()]))
            subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--format", "oci", "--dest-compress-format", "zstd:chunked",
                            f"docker-archive:{archive}", f"docker://{host}/lazy/chunked:1"], check=True)
            make_truthful(host, "lazy/chunked")
        yield host


@pytest.fixture(scope="module")
def shared(upstream: str) -> Iterator[World]:
    with gateway(upstream) as door, PrivateHelper() as helper:
        yield World(door, helper)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    shared.door.sent = 0
    yield shared
    shared.door.lies = shared.door.no_parts = shared.door.down = False
    shared.door.open.set()
    shared.forget()


def right(number: int) -> str:
    return hashlib.sha256(contents(number)).hexdigest()


def test_the_first_process_runs_when_a_small_part_has_come_and_the_rest_follows(world: World) -> None:
    world.slipway("pull", "--lazy", world.image)
    assert world.docker("run", "--rm", world.image, "/bin/busybox", "echo", "hello") == "hello"
    assert world.door.sent < FILES * SIZE // 5, "more than a fifth of the image came before its first process had ended"
    container = world.docker("run", "-d", world.image, "/bin/busybox", "sleep", "1000")
    assert world.read(container, 7) == right(7)
    until(lambda: world.here() and not world.early(), "the image has arrived")
    before = world.door.sent
    assert [world.read(container, number) for number in (0, 11, FILES - 1)] == [right(0), right(11), right(FILES - 1)]
    assert world.docker("run", "--rm", world.image, "/bin/busybox", "sha256sum", "/data/5").startswith(right(5))
    assert world.door.sent == before, "what has arrived is asked for no more"
    assert len(world.helper.docker("save", world.image).stdout) > FILES * SIZE


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_container_and_its_reader_outlive_a_helper_that_leaves_in_the_middle(upstream: str, end: signal.Signals) -> None:
    with gateway(upstream) as door, PrivateHelper() as helper:
        world = World(door, helper)
        container = world.start()
        door.open.clear()
        door.waiting.clear()
        reader = subprocess.Popen([docker_client() or "", "-H", f"unix://{helper.socket}", "exec", container, "/bin/busybox", "sh", "-c",
                                   "/bin/busybox sha256sum /data/9 >/sum; /bin/busybox sleep 1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        door.waiting.wait(60)
        if end == signal.SIGTERM:              # it waits for its open requests, which would be for a minute
            threading.Timer(1, door.open.set).start()
        helper.leave(end)
        reader.kill()
        reader.wait()
        door.open.set()
        helper.start()
        assert world.docker("inspect", "-f", "{{.State.Running}}", container) == "true"
        until(lambda: world.here() and not world.early(), "the image has arrived with the new helper")
        until(lambda: world.docker("exec", container, "/bin/busybox", "cat", "/sum", check=False), "the reader has gone on")
        assert world.docker("exec", container, "/bin/busybox", "cat", "/sum").startswith(right(9))
        assert world.read(container, 13) == right(13)


def test_when_keeper_and_helper_die_together_nobody_goes_on_with_files_of_zeros(upstream: str) -> None:
    with gateway(upstream) as door, PrivateHelper() as helper:
        world = World(door, helper)
        container = world.start()
        door.open.clear()
        pid = int(world.docker("inspect", "-f", "{{.State.Pid}}", container))
        keepers = [one for one in helper.processes() if one != helper.process.pid and "keeper" in Path(f"/proc/{one}/cmdline").read_text()]  # type: ignore[union-attr]
        assert keepers
        assert helper.process is not None
        for one in (helper.process.pid, *keepers):
            os.kill(one, signal.SIGSTOP)       # neither sees the other go
        for one in (*keepers, helper.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        helper.process.wait(30)
        assert helper.process.stdout is not None
        helper.process.stdout.close()
        door.open.set()
        helper.start()
        until(lambda: not Path(f"/proc/{pid}/root").exists() or world.docker("inspect", "-f", "{{.State.Running}}", container) == "false", "the container is ended")
        assert world.docker("inspect", "-f", "{{.State.Running}}", container) == "false"
        world.slipway("pull", world.image)
        assert world.docker("run", "--rm", world.image, "/bin/busybox", "sha256sum", "/data/3").startswith(right(3))


def test_a_part_that_is_not_what_the_table_promises_is_an_error_and_no_data(world: World) -> None:
    container = world.start()
    world.door.lies = True
    done = world.helper.docker("exec", container, "/bin/busybox", "sha256sum", "/data/15", check=False)
    assert done.returncode != 0 and b"error" in done.stderr.lower(), (done.stdout, done.stderr)
    world.door.lies = False
    until(lambda: world.here() and not world.early(), "the image has arrived")
    assert world.read(container, 15) == right(15)


def test_a_registry_that_goes_away_and_comes_back_brings_the_rest(world: World) -> None:
    container = world.start()
    world.door.down = True
    assert world.helper.docker("exec", container, "/bin/busybox", "cat", "/data/17", check=False, timeout=120).returncode != 0
    assert world.docker("exec", container, "/bin/busybox", "echo", "still here") == "still here"
    world.door.down = False
    until(lambda: world.here() and not world.early(), "the image has arrived")
    assert world.read(container, 17) == right(17)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (it makes the image)")
def test_the_form_of_podman_and_skopeo_runs_early_too(world: World) -> None:
    ours, world.image = world.image, f"{world.door.host}/lazy/chunked:2"
    try:
        container = world.start()
        assert world.door.sent < FILES * SIZE // 5
        assert world.read(container, 19) == right(19)
        until(lambda: world.here() and not world.early(), "the image has arrived")
        assert world.read(container, 4) == right(4)
        world.forget()
    finally:
        world.image = ours


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed (it makes the image)")
def test_an_image_whose_whole_is_not_what_it_promises_is_not_kept(world: World) -> None:
    ours, world.image = world.image, f"{world.door.host}/lazy/chunked:1"
    try:
        assert "verification failed" in world.slipway("pull", world.image, check=False).stderr, "skopeo writes the whole tar now: make an image that lies"
        container = world.start()
        until(lambda: not world.early(), "the rest has come and was refused")
        assert not world.here() and "No such object" in world.helper.docker("inspect", world.image, check=False).stderr.decode()
        assert world.read(container, 21) == right(21)
    finally:
        world.image = ours


def test_a_registry_that_gives_no_parts_gives_the_whole(world: World) -> None:
    world.door.no_parts = True
    assert "Downloaded newer image" in world.slipway("pull", "--lazy", world.image).stdout
    assert world.docker("run", "--rm", world.image, "/bin/busybox", "sha256sum", "/data/2").startswith(right(2))


def test_an_image_on_its_way_can_be_looked_at_and_is_refused_by_what_needs_the_whole(world: World) -> None:
    world.door.open.set()
    world.slipway("pull", "--lazy", world.image)
    world.door.open.clear()
    assert world.image in world.docker("image", "inspect", "-f", "{{json .RepoTags}}", world.image)
    assert not world.here()
    for words in (("save", world.image), ("push", world.image), ("tag", world.image, "other:1"), ("rmi", world.image)):
        done = world.helper.docker(*words, check=False)
        assert done.returncode != 0 and b"has not arrived yet" in done.stderr + done.stdout, (words, done.stderr, done.stdout)
