"""Third-party volume drivers with the real docker client: data go where the plug-in says, and its failures stay its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.private import ROOT, PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


class Plugin:
    """The plug-in program beside a helper."""

    def __init__(self, helper: PrivateHelper, name: str = "disk") -> None:
        self.folder = Path(helper.at, name)
        self.folder.mkdir()
        self.sockets = Path(helper.exec, "plugins")
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        self.socket = self.sockets / f"{name}.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tests.support.volume_plugin", str(self.socket), str(self.folder)],
                                        cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def calls(self, method: str = "") -> list[list[object]]:
        lines = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        return [call for call in map(json.loads, lines) if call[0].endswith(method)]

    def mounts(self, name: str) -> list[str]:
        found: list[str] = json.loads((self.folder / "state.json").read_text())[name]["mounts"]
        return found

    def fault(self, text: str) -> None:
        (self.folder / "fault").write_text(text)


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-", "busybox:latest", stdin=busybox_tar())
        yield made


@pytest.fixture
def plugin(helper: PrivateHelper) -> Iterator[Plugin]:
    made = Plugin(helper, f"disk{time.monotonic_ns()}")
    made.start()
    yield made
    made.fault("")
    made.stop()
    made.socket.unlink()


def name_of(plugin: Plugin) -> str:
    return plugin.socket.stem


def test_a_containers_data_lie_where_the_plugin_says(helper: PrivateHelper, plugin: Plugin) -> None:
    driver = name_of(plugin)
    helper.docker("volume", "create", "-d", driver, "-o", "size=5", "--label", "a=b", "data")
    assert plugin.calls("Create")[-1][1] == {"Name": "data", "Opts": {"size": "5"}}
    helper.docker("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "echo kept > /data/file")
    assert (plugin.folder / "volumes/data/file").read_text() == "kept\n"
    assert plugin.mounts("data") == [], "unmounted when the container had ended"
    seen = json.loads(helper.docker("volume", "inspect", "data").stdout)[0]
    assert (seen["Driver"], seen["Scope"], seen["Labels"], seen["Options"]) == (driver, "global", {"a": "b"}, {"size": "5"})
    assert f"{driver:<10}" in helper.docker("volume", "ls").stdout.decode() and b"data" in helper.docker("volume", "ls", "-q").stdout.split()
    assert driver in json.loads(helper.docker("info", "-f", "{{json .Plugins.Volume}}").stdout)
    helper.docker("volume", "rm", "data")
    assert not (plugin.folder / "volumes/data").exists()


def test_each_way_to_name_the_driver_works(helper: PrivateHelper, plugin: Plugin) -> None:
    driver = name_of(plugin)
    helper.docker("run", "--rm", "--volume-driver", driver, "-v", "first:/x", "busybox", "touch", "/x/a")
    helper.docker("run", "--rm", "--mount", f"type=volume,src=second,dst=/x,volume-driver={driver},volume-opt=o=1", "busybox", "touch", "/x/b")
    assert (plugin.folder / "volumes/first/a").exists() and (plugin.folder / "volumes/second/b").exists()
    assert plugin.calls("Create")[-1][1] == {"Name": "second", "Opts": {"o": "1"}}
    helper.docker("run", "--rm", "--mount", f"type=volume,dst=/x,volume-driver={driver}", "busybox", "true")
    assert [call[1]["Name"] for call in plugin.calls("Remove")] == [plugin.calls("Create")[-1][1]["Name"]], "the anonymous one went with its container"  # type: ignore[index]
    helper.docker("volume", "rm", "first", "second")


def test_a_volume_in_use_is_kept_and_mounted_once_for_each_container(helper: PrivateHelper, plugin: Plugin) -> None:
    helper.docker("volume", "create", "-d", name_of(plugin), "used")
    ids = [helper.docker("run", "-d", "-v", "used:/x", "busybox", "sleep", "1000").stdout.decode().strip() for _ in range(2)]
    assert sorted(plugin.mounts("used")) == sorted(ids)
    done = helper.docker("volume", "rm", "used", check=False)
    assert done.returncode == 1 and b"volume is in use" in done.stderr
    helper.leave(9)
    helper.start()
    assert sorted(plugin.mounts("used")) == sorted(ids), "a restart of the helper changes nothing"
    helper.docker("rm", "-f", *ids)
    assert plugin.mounts("used") == []
    helper.docker("volume", "rm", "used")


def test_files_are_copied_out_of_a_stopped_containers_volume(helper: PrivateHelper, plugin: Plugin) -> None:
    driver = name_of(plugin)
    helper.docker("run", "--name", "gone", "--volume-driver", driver, "-v", "copied:/x", "busybox", "sh", "-c", "echo out > /x/file")
    assert b"out" in helper.docker("cp", "gone:/x/file", "-").stdout
    deadline = time.monotonic() + 10
    while plugin.mounts("copied") and time.monotonic() < deadline:     # the client does not wait for what comes after the copy
        time.sleep(0.02)
    assert plugin.mounts("copied") == []
    helper.docker("rm", "gone")
    helper.docker("volume", "rm", "copied")


def test_what_another_engine_made_is_seen_and_used(helper: PrivateHelper, plugin: Plugin) -> None:
    (plugin.folder / "volumes/old").mkdir(parents=True)
    (plugin.folder / "volumes/old/file").write_text("old\n")
    plugin.stop()
    (plugin.folder / "state.json").write_text('{"old": {"options": {}, "mounts": []}}')
    plugin.start()
    assert b"old" in helper.docker("volume", "ls", "-q").stdout.split()
    assert helper.docker("run", "--rm", "-v", "old:/x", "busybox", "cat", "/x/file").stdout == b"old\n"
    assert plugin.calls("Create") == []
    helper.docker("volume", "rm", "old")


@pytest.mark.parametrize(("fault", "words"), [
    ("VolumeDriver.Mount error", b"as the test wished"), ("VolumeDriver.Mount nonsense", b"nonsense"),
    ("VolumeDriver.Mount elsewhere", b"no directory is there"), ("VolumeDriver.Mount die", b"failed: its answer to VolumeDriver.Mount cannot be read")])
def test_a_plugin_that_fails_at_a_mount_fails_that_start_with_words(helper: PrivateHelper, plugin: Plugin, fault: str, words: bytes) -> None:
    helper.docker("volume", "create", "-d", name_of(plugin), "poor")
    plugin.fault(fault)
    done = helper.docker("run", "--rm", "-v", "poor:/x", "busybox", "true", check=False)
    assert done.returncode == 125 and words in done.stderr, done.stderr
    assert helper.docker("ps", "-aq").stdout == b""
    helper.docker("run", "--rm", "busybox", "true")
    plugin.fault("")
    if fault.endswith("die"):
        plugin.stop()
        plugin.start()
    helper.docker("run", "--rm", "-v", "poor:/x", "busybox", "true")
    assert plugin.mounts("poor") == []
    helper.docker("volume", "rm", "poor")


def test_a_plugins_refusal_and_a_missing_plugin_are_told(helper: PrivateHelper, plugin: Plugin) -> None:
    done = helper.docker("volume", "create", "-d", name_of(plugin), "-o", "refuse=1", "no", check=False)
    assert b"these options are refused" in done.stderr
    done = helper.docker("volume", "create", "-d", "nobody", "no", check=False)
    assert b'error looking up volume plugin nobody: plugin "nobody" not found' in done.stderr
    done = helper.docker("run", "--rm", "--volume-driver", "nobody", "-v", "no:/x", "busybox", "true", check=False)
    assert b'error looking up volume plugin nobody: plugin "nobody" not found' in done.stderr
    assert b"no" not in helper.docker("volume", "ls", "-q").stdout.split()


def test_a_plugin_that_starts_late_is_waited_for(helper: PrivateHelper, plugin: Plugin) -> None:
    plugin.process.kill()  # type: ignore[union-attr]
    plugin.process.wait()  # type: ignore[union-attr]
    with subprocess.Popen([docker_client() or "", "-H", f"unix://{helper.socket}", "volume", "create", "-d", name_of(plugin), "late"],
                          stdout=subprocess.PIPE) as client:
        plugin.stop()
        plugin.start()
        assert client.wait(20) == 0
    helper.docker("volume", "rm", "late")


def test_managed_plugins_are_answered_as_clients_expect(helper: PrivateHelper) -> None:
    assert helper.docker("plugin", "ls", "-q").stdout == b""
    assert b"no managed plug-ins" in helper.docker("plugin", "install", "--grant-all-permissions", "x/y", check=False).stderr
    assert b'plugin "x" not found' in helper.docker("plugin", "inspect", "x", check=False).stderr
    assert b'plugin "x" not found' in helper.docker("plugin", "enable", "x", check=False).stderr
