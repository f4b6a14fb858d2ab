"""`slipway VERB` beside `docker VERB` on one engine: the same containers, the same output, the same exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar
from tests.support.slipway import slipway

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as made:
        made.docker("import", "-c", 'CMD ["sh"]', "-m", "made here", "-", "busybox", stdin=busybox_tar())
        made.docker("network", "create", "--subnet", "10.213.7.0/24", "mine")
        made.docker("run", "-d", "--name", "lives", "--network", "mine", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
        made.docker("create", "--name", "waits", "--label", "a=b", "busybox", "true")
        made.docker("run", "--name", "spoke", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", check=False)
        made.docker("exec", "lives", "sh", "-c", "head -c 5000 /dev/zero > /written")
        made.docker("volume", "create", "--label", "x=y", "data")
        yield made


# --- the same containers ---------------------------------------------------------------------------------------------

CREATES = [
    "busybox",
    "-it -h box -u nobody -w /tmp -e A=1 --label a=b busybox sh -c 'echo hi'",
    "-p 127.0.0.1:28080:80 -p 53/udp --expose 7 -P busybox",
    "-v /tmp:/host:ro -v data:/data -v /anon --tmpfs /t:size=1m --mount type=volume,source=data,target=/d2,readonly busybox",
    "--network mine --network-alias other --ip 10.213.7.77 --dns 10.0.0.1 --add-host a:10.0.0.1 busybox",
    "-m 64m --cpus 0.5 --pids-limit 20 --ulimit nofile=10:20 --shm-size 1m --oom-score-adj 5 busybox",
    "--cap-add net_admin --cap-drop ALL --security-opt no-new-privileges --read-only --init --device /dev/null:/dev/x:r busybox",
    "--restart on-failure:3 --stop-signal INT --stop-timeout 2 --sysctl net.ipv4.ip_forward=0 --log-opt max-size=1m busybox",
    "--health-cmd true --health-interval 5s --health-retries 2 --entrypoint /bin/echo busybox a b",
    "--privileged --pid host --ipc host --uts host --network host busybox",
    "--entrypoint '' --no-healthcheck --rm busybox true",
]
_OWN = ("Id", "Created", "Name", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "GraphDriver")


def described(helper: PrivateHelper, name: str) -> dict[str, Any]:
    """What a container is, without what no two containers share."""
    found: dict[str, Any] = json.loads(helper.docker("inspect", name).stdout)[0]
    text = json.dumps({key: value for key, value in found.items() if key not in _OWN})
    text = text.replace(found["Id"], "ID").replace(found["Id"][:12], "ID")
    # Volumes without a name have a random one, and the lists come in no order.
    said: dict[str, Any] = json.loads(re.sub(r"[0-9a-f]{64}", "RANDOM", text))
    said["Mounts"] = sorted(map(json.dumps, said["Mounts"]))
    said["HostConfig"]["Binds"] = sorted(said["HostConfig"]["Binds"] or [])
    said["Config"]["Env"] = sorted(said["Config"]["Env"] or [])
    return said


@pytest.mark.parametrize("line", CREATES)
def test_the_same_flags_make_the_same_container(helper: PrivateHelper, line: str) -> None:
    made = {}
    for name, run in (("docker", helper.docker), ("slipway", lambda *words: slipway(helper, *words))):
        out = run("create", "--name", "twin", *shlex.split(line)).stdout.decode()
        assert re.fullmatch(r"[0-9a-f]{64}\n", out)
        made[name] = described(helper, "twin")
        helper.docker("rm", "-v", "twin")
    assert made["slipway"] == made["docker"]


# --- the same output and exit codes ----------------------------------------------------------------------------------

SAME = [
    "run --rm busybox echo hi", "run --rm busybox sh -c 'echo out; echo err >&2; exit 7'", "run --rm busybox sh -c 'kill -9 $$'",
    "run --rm busybox /nope", "run --rm busybox nope", "run --rm busybox /etc", "run --rm busybox /etc/passwd",
    "run --rm -w /tmp -e A=1 -u nobody busybox sh -c 'pwd; id -u; echo $A'", "run --rm -u nouser busybox true",
    "run --rm -a stderr busybox sh -c 'echo out; echo err >&2'", "run --pull never nosuch:1", "run --name lives busybox true",
    "run -it busybox", "run --rm --restart always busybox", "run -d -a stdout busybox", "run", "run --bogus", "run IMG", "run --rm --init busybox true",
    "create --name lives busybox", "create IMG", "create --pid foo busybox",
    "exec lives sh -c 'echo out; echo err >&2; exit 3'", "exec lives nope", "exec lives /etc", "exec nosuch x", "exec waits true", "exec lives",
    "exec -d lives true", "exec -e A=1 -w /tmp -u nobody lives sh -c 'echo $A; pwd; id -u'", "exec -it lives sh",
    "logs spoke", "logs -n 1 spoke", "logs nosuch", "attach waits", "attach nosuch",
    "ps", "ps -a", "ps -aq", "ps -n 1", "ps -a --format '{{.Label \"a\"}}'", "ps -a --no-trunc", "ps -as", "ps --filter name=lives --format {{.Names}}", "ps -a --format json", "ps -s", "ps -as --format json", "network ls --format json", "images --format json", "volume ls --format json",
    "ps -a --format 'table {{.Names}}\\t{{.Status}}'", "port lives", "port lives 80", "port lives 81", "top lives", "top nosuch",
    "images", "images -q", "images --digests", "images --no-trunc", "images busybox", "images nosuch", "images --format '{{.ID}} {{.Tag}} {{.Size}}'",
    "history busybox", "history --no-trunc busybox", "history -q busybox", "history nosuch", "rmi nosuch", "tag nosuch x", "tag busybox BAD",
    "network ls", "network ls -q", "network ls --filter driver=bridge --format '{{.Name}} {{.Scope}}'", "network inspect mine", "network rm nosuch",
    "network rm mine", "network create mine", "network create bad --subnet x", "network connect mine nosuch", "network disconnect mine waits",
    "volume ls", "volume ls -q", "volume inspect data", "volume rm nosuch", "volume rm -f nosuch", "volume create data",
    "inspect lives", "inspect busybox", "inspect mine data", "inspect nosuch", "inspect --type volume lives", "inspect -s spoke",
    "inspect -f '{{.State.Status}} {{json .Config.Cmd}} {{index .Config.Cmd 0}}' lives", "inspect -f json lives",
    "inspect -f '{{range $name, $one := .NetworkSettings.Networks}}{{$name}}={{$one.IPAddress}};{{end}}{{if .Config.Tty}}t{{else}}no{{end}}' lives",
    "container ls -a", "container inspect waits", "image ls", "image inspect nosuch", "stop nosuch", "rm -f nosuch", "rm lives", "start nosuch", "wait spoke",
    "kill waits", "pause waits", "restart nosuch", "rename lives waits", "load -i /nonexistent", "save nosuch -o /dev/null",
    "events --since 1h --until 0s --filter type=volume", "info --format '{{.NCPU}} {{.ServerVersion}}'", "version --format '{{.Server.Version}}'",
    "stats --no-stream --format '{{.Name}} {{.PIDs}}' lives", "stats --no-stream nosuch", "system df", "system df -v",
]


def shown(words: list[str], out: bytes) -> Any:
    """What is compared: documents as such (docker orders the keys of some), text without the seconds that pass meanwhile."""
    text = out.decode()
    if words == ["system", "df", "-v"]:
        text = text.partition("\nCACHE ID")[0].rstrip()
    if "inspect" in words and text.startswith("["):
        return json.loads(text)
    return re.sub(r"(\d+|About a|Less than a) (second|minute)s?( ago)? *", "A-WHILE", text)


@pytest.mark.parametrize("line", SAME)
def test_the_same_words_give_the_same_output_and_exit_code(helper: PrivateHelper, line: str) -> None:
    words = shlex.split(line)
    theirs, ours = helper.docker(*words, check=False), slipway(helper, *words, check=False)
    assert shown(words, ours.stdout) == shown(words, theirs.stdout)
    assert ours.returncode == theirs.returncode, ours.stderr.decode()
    if ours.returncode and words[0] not in ("run", "exec"):
        assert ours.stderr.decode().startswith("slipway: "), "a failure is said in words"
    if words[:2] == ["run", "--rm"] and not ours.returncode:
        assert ours.stderr == theirs.stderr


def test_what_the_verbs_change_is_changed(helper: PrivateHelper) -> None:
    said = lambda *words, stdin=b"": slipway(helper, *words, stdin=stdin).stdout.decode()  # noqa: E731
    assert said("network", "create", "--internal", "--label", "a=b", "mine2").strip() == json.loads(said("network", "inspect", "mine2"))[0]["Id"]
    assert said("network", "connect", "--alias", "x", "mine2", "lives") == ""
    assert "x" in json.loads(said("inspect", "lives"))[0]["NetworkSettings"]["Networks"]["mine2"]["Aliases"]
    said("network", "disconnect", "mine2", "lives")
    assert said("network", "rm", "mine2") == "mine2\n"
    assert said("volume", "create", "--label", "a=b", "data2") == "data2\n"
    assert json.loads(said("volume", "inspect", "data2"))[0]["Labels"] == {"a": "b"}
    assert said("volume", "rm", "data2") == "data2\n"
    said("tag", "busybox", "other:1")
    assert said("rmi", "other:1") == "Untagged: other:1\n"


def test_an_image_goes_through_a_file_and_a_pipe_and_is_the_same(helper: PrivateHelper) -> None:
    file = f"{helper.at}/saved.tar"
    slipway(helper, "import", "-c", "CMD echo", "-m", "why", "-", "saved:1", stdin=busybox_tar())
    before = json.loads(slipway(helper, "inspect", "saved:1").stdout)[0]
    assert slipway(helper, "history", "saved:1").stdout.rstrip().endswith(b"why") and before["Config"]["Cmd"]
    slipway(helper, "save", "-o", file, "saved:1")
    piped = slipway(helper, "save", "saved:1").stdout
    for words, stdin in ((("load", "-i", file), b""), (("load",), piped)):
        slipway(helper, "rmi", "saved:1")
        assert slipway(helper, *words, stdin=stdin).stdout == b"Loaded image: saved:1\n"
        assert json.loads(slipway(helper, "inspect", "saved:1").stdout)[0]["Id"] == before["Id"]


def test_an_id_file_tells_the_container_and_is_never_overwritten(helper: PrivateHelper) -> None:
    path = f"{helper.at}/cid"
    made = slipway(helper, "create", "--cidfile", path, "busybox").stdout.decode().strip()
    with open(path) as file:
        assert file.read() == made
    again = slipway(helper, "run", "--cidfile", path, "busybox", check=False)
    assert again.returncode == 125 and b"is there already" in again.stderr
    failed = slipway(helper, "run", "--cidfile", f"{path}2", "--pull", "never", "nosuch:1", check=False)
    assert failed.returncode == 125 and not os.path.exists(f"{path}2"), "no container, no file"
    helper.docker("rm", made)


def test_no_engine_and_no_permission_are_said_with_what_to_do(helper: PrivateHelper) -> None:
    import subprocess
    import sys

    from tests.support.private import ROOT

    away = subprocess.run([sys.executable, "-m", "app", "-H", "unix:///nonexistent.sock", "run", "busybox"], cwd=ROOT, capture_output=True, text=True)
    assert away.returncode == 125 and "no engine answers at /nonexistent.sock" in away.stderr and "Start the helper" in away.stderr
    code = ("import os, sys; sys.argv = ['slipway', '-H', sys.argv[1], 'ps']; import app.cli.main; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
            "sys.exit(app.cli.main.main(sys.argv[1:]))")
    os.chmod(helper.at, 0o711)
    # The program may lie where nobody else may read, so everything that `ps` needs is loaded while it still may.
    code = code.replace("import app.cli.main;", "import app.cli.main, app.cli.ps, grp;")
    shut = subprocess.run([sys.executable, "-c", code, helper.socket], cwd=ROOT, capture_output=True, text=True)
    assert shut.returncode == 1 and "you may not open the engine's socket" in shut.stderr, shut.stderr
