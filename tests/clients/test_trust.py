"""Only images that the policy trusts run: signatures by us and by the real cosign, checked by the engine and by cosign."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.engine.builtin import find_busybox
from tests.support.images import docker_archive, tar_of
from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.registry import registry

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the helper needs root"),
    pytest.mark.skipif(docker_client() is None, reason="no docker client here"),
    *(pytest.mark.skipif(shutil.which(one) is None, reason=f"{one} is not installed") for one in ("docker-registry", "skopeo")),
]


def cosign_program() -> str | None:
    fetched = Path(os.environ.get("SLIPWAY_CLIENTS", f"{ROOT}.venv/clients"), "usr/bin/cosign")
    return str(fetched) if fetched.exists() else shutil.which("cosign")


needs_cosign = pytest.mark.skipif(cosign_program() is None, reason="cosign is not here (./dev fetches it from Debian sid)")


class World:
    """A registry, a helper with a policy file of its own, and a pair of keys: ``ours`` and ``theirs`` (cosign's where it is here)."""

    def __init__(self, at: Path, host: str, helper: PrivateHelper) -> None:
        self.at, self.host, self.helper = at, host, helper
        self.policy = at / "policy.json"
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(at), "SLIPWAY_HOST": f"unix://{helper.socket}", "COSIGN_PASSWORD": "a word"}
        self.slipway("trust", "key", "generate", "ours")
        if cosign_program():
            self.run(cosign_program() or "", "generate-key-pair", "--output-key-prefix", "theirs")

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(words, capture_output=True, text=True, env=self.env, cwd=self.at, timeout=60)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def slipway(self, *words: str, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "app", *words, code=code)

    def docker(self, *words: str) -> str:
        done = self.helper.docker(*words, check=False)
        return (done.stdout + done.stderr).decode()

    def set(self, scope: str, *rule: str) -> None:
        self.slipway("trust", "policy", "set", "--file", str(self.policy), scope, *rule)

    def push(self, name: str, text: str = "one") -> str:
        """An image that prints *text*, in the registry; its name."""
        archive = self.at / "push.tar"
        archive.write_bytes(docker_archive([_program(find_busybox()), tar_of([("text", text.encode())])], config={"config": {"Cmd": ["/bin/busybox", "cat", "/text"]}}))
        subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{self.host}/{name}"], check=True)
        return f"{self.host}/{name}"

    def sign(self, image: str, *flags: str, key: str = "ours.key") -> None:
        self.slipway("trust", "sign", "--key", key, *flags, image)

    def cosign_sign(self, image: str, *flags: str) -> None:
        self.run(cosign_program() or "", "sign", "--yes", "--key", "theirs.key", "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", *flags, image)

    def cosign_verify(self, image: str, key: str) -> str:
        return self.run(cosign_program() or "", "verify", "--key", key, "--insecure-ignore-tlog", "--allow-http-registry", image)


def _program(program: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("bin/busybox")
        info.mode, info.size = 0o755, len(program)
        tar.addfile(info, io.BytesIO(program))
    return out.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    at = tmp_path_factory.mktemp("world")
    with registry() as host, PrivateHelper("--trust-policy", f"{at}/policy.json") as helper:
        yield World(at, host, helper)


@pytest.fixture(autouse=True)
def no_policy(request: pytest.FixtureRequest) -> Iterator[None]:
    world = request.getfixturevalue("world")
    world.policy.unlink(missing_ok=True)
    yield


def test_without_a_policy_everything_runs_and_that_is_said(world: World) -> None:
    assert world.docker("run", "--rm", world.push("free/app:1")).startswith("one")
    assert "every image may run" in world.slipway("trust", "policy")


def test_an_unsigned_image_is_not_pulled_and_a_signed_one_runs(world: World) -> None:
    image = world.push("signed/app:1")
    world.set(f"{world.host}/signed", "ours.pub")
    said = world.docker("pull", image)
    assert "must be signed by ours.pub" in said and "none of the 0 signatures" in said
    assert world.docker("images", "-q", image) == ""
    world.sign(image)
    assert "Signed by ours.pub" in world.docker("pull", image)
    assert world.docker("run", "--rm", image) == "one"
    identity = world.docker("inspect", "-f", "{{.Id}}", image).strip()
    assert world.docker("run", "--rm", identity) == "one" and world.docker("run", "--rm", identity[7:15]) == "one"


def test_a_tag_that_was_moved_to_an_unsigned_image_leaves_the_good_one_in_place(world: World) -> None:
    image = world.push("moved/app:1")
    world.set(f"{world.host}/moved", "ours.pub")
    world.sign(image)
    world.docker("pull", image)
    world.push("moved/app:1", "an attacker's")
    assert "is not pulled" in world.docker("pull", image)
    assert world.docker("run", "--rm", image) == "one"


def test_a_signature_copied_from_another_image_or_repository_proves_nothing(world: World) -> None:
    good = world.push("copied/good:1")
    world.sign(good)
    digest = json.loads(world.slipway("trust", "inspect", "--json", good))["digest"]
    tag = digest.replace(":", "-") + ".sig"
    world.push("copied/evil:1")            # the same image, and then its signature, under a name that nobody signed
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false",
                    f"docker://{world.host}/copied/good:{tag}", f"docker://{world.host}/copied/evil:{tag}"], check=True)
    world.set(f"{world.host}/copied", "ours.pub")
    assert "none of the 1 signatures" in world.docker("pull", f"{world.host}/copied/evil:1")
    assert "Signed by" in world.docker("pull", good)


def test_signatures_stay_while_their_image_is_there_and_go_with_it(world: World) -> None:
    other, image = world.push("stay/other:1", "another"), world.push("stay/app:1", "this one")
    world.docker("pull", other)
    world.set(f"{world.host}/stay/app", "ours.pub")
    world.sign(image)
    world.docker("pull", image)
    kept = Path(world.helper.data, "images/trust")
    name = json.loads(world.slipway("trust", "inspect", "--json", image))["digest"].partition(":")[2] + ".json"
    world.docker("rmi", other)
    assert (kept / name).exists() and world.docker("run", "--rm", image) == "this one"
    world.docker("rmi", image)
    assert not (kept / name).exists()


def test_a_name_given_here_makes_no_image_trusted(world: World) -> None:
    evil = world.push("any/thing:1", "evil")
    world.docker("pull", evil)
    world.set(f"{world.host}/named", "ours.pub")
    world.docker("tag", evil, f"{world.host}/named/app:1")
    assert "did not come from a registry under that name" in world.docker("run", "--rm", f"{world.host}/named/app:1")


def test_a_policy_that_changes_holds_for_containers_that_are_there(world: World) -> None:
    image = world.push("late/app:1")
    world.docker("pull", image)
    world.docker("create", "--name", "late", image)
    world.set(f"{world.host}/late", "reject")
    said = world.docker("start", "-a", "late")
    assert "may not run here" in said and "rejects" in said
    world.slipway("trust", "policy", "unset", "--file", str(world.policy), f"{world.host}/late")
    assert world.docker("start", "-a", "late") == "one"


def test_a_policy_that_is_not_understood_lets_nothing_run(world: World) -> None:
    image = world.push("broken/app:1")
    world.docker("pull", image)
    world.policy.write_text('{"default": [{"type": "insecureAcceptAnythin"}]}')
    assert "is not understood" in world.docker("run", "--rm", image) and "is not understood" in world.docker("pull", image)
    assert "is not understood" in world.slipway("trust", "policy", "check", image, code=1)


def test_a_key_taken_out_of_the_policy_is_not_trusted_any_more(world: World) -> None:
    image = world.push("revoked/app:1")
    world.slipway("trust", "key", "generate", "second")
    world.set(f"{world.host}/revoked", "ours.pub", "second.pub")
    world.sign(image)
    world.docker("pull", image)
    assert world.docker("run", "--rm", image) == "one"
    world.set(f"{world.host}/revoked", "second.pub")
    assert "must be signed by second.pub" in world.docker("run", "--rm", image)


def test_what_was_pulled_runs_without_its_registry_and_after_a_restart_of_the_helper(tmp_path: Path) -> None:
    with PrivateHelper("--trust-policy", f"{tmp_path}/policy.json") as helper:
        with registry() as host:
            world = World(tmp_path, host, helper)
            image = world.push("off/line:1")
            world.set(f"{host}/off", "ours.pub")
            world.sign(image)
            world.docker("pull", image)
        helper.leave()
        helper.start()
        assert world.docker("run", "--rm", image) == "one"
        kept = list(Path(helper.data, "images/trust").iterdir())
        assert len(kept) == 1
        kept[0].write_text(kept[0].read_text().replace('"signature": "M', '"signature": "N'))
        helper.leave()
        helper.start()
        assert "must be signed" in world.docker("run", "--rm", image)
        world.docker("rmi", image)
        assert list(Path(helper.data, "images/trust").iterdir()) == [], "signatures of what is gone stay behind"


def test_the_passphrase_of_the_key_is_asked_for_and_is_in_no_message(world: World) -> None:
    image = world.push("pass/app:1")
    done = subprocess.run([sys.executable, "-m", "app", "trust", "sign", "--key", "ours.key", image], capture_output=True, text=True, cwd=world.at,
                          env={**world.env, "COSIGN_PASSWORD": "wr0ng-word"}, timeout=60)
    assert done.returncode == 1 and "cannot be opened" in done.stderr and "wr0ng" not in done.stderr + done.stdout
    assert b"ENCRYPTED SIGSTORE PRIVATE KEY" in (world.at / "ours.key").read_bytes() and (world.at / "ours.key").stat().st_mode & 0o077 == 0


@needs_cosign
@pytest.mark.parametrize("flags", [(), ("--bundle",)], ids=["tag", "bundle"])
def test_cosign_verifies_what_we_signed(world: World, flags: tuple[str, ...]) -> None:
    image = world.push(f"ours/app{len(flags)}:1")
    world.sign(image, *flags)
    world.sign(image, *flags, key="theirs.key")     # cosign's own key file
    assert "signatures were verified" in world.cosign_verify(image, "ours.pub") and "signatures were verified" in world.cosign_verify(image, "theirs.pub")


@needs_cosign
@pytest.mark.parametrize("flags", [("--new-bundle-format=false",), ()], ids=["tag", "bundle"])
def test_what_cosign_signed_runs_here(world: World, flags: tuple[str, ...]) -> None:
    image = world.push(f"theirs/app{len(flags)}:1")
    digest = json.loads(world.slipway("trust", "inspect", "--json", image))["digest"]
    world.cosign_sign(f"{image.rpartition(':')[0]}@{digest}", *flags)
    world.set(f"{world.host}/theirs", "theirs.pub")
    assert "Signed by theirs.pub" in world.docker("pull", image) and world.docker("run", "--rm", image) == "one"
    assert "theirs.pub" in world.slipway("trust", "inspect", "--key", "theirs.pub", image)
