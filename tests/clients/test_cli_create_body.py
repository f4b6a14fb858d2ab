"""`slipway create FLAGS` asks the engine for the very container that `docker create FLAGS` asks for."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.createbody import create_body
from app.cli.errors import Usage
from app.cli.runflags import CREATE
from tests.support.private import docker_client
from tests.support.recorder import Recorder

pytestmark = pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine")

SETS = """
img
-i -t img sh -c 'echo hi'
-it --name x img --rm -v
-a stdout -a STDERR img
-a stdin img
-i -a stdout img
-e A=1 -e SLIPWAY_HERE -e SLIPWAY_NOT_HERE -e A=2 --env EMPTY= img
--env-file ENVFILE -e FROM_FILE=no img
--label a=1 --label b -l c=x=y --label-file LABELFILE img
-p 8080:80 -p 127.0.0.1:9000:90/udp -p 127.0.0.1::53/udp -p 7000-7002:70-72 -p 81 -p [::1]:8443:443/tcp img
-p 9000-9010:80 -p published=8081,target=82,protocol=udp -P --expose 7 --expose 100-102/udp img
-v /x:/y:ro -v vol:/z -v /anon -v ./here:/h --tmpfs /t --tmpfs /u:size=1m,mode=700 img
--volume-driver local --volumes-from other:ro img
--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave img
--mount type=bind,source=/a,target=/b,bind-recursive=disabled --mount source=v,target=/v,volume-nocopy,volume-subpath=s img
--mount type=volume,source=v,target=/v,volume-driver=local,volume-opt=a=b,volume-label=c=d img
--mount type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1777 img
--network host img
--network none --hostname box --domainname dom.ain img
--network mine --network-alias one --network-alias two --ip 10.0.0.4 --ip6 2001:db8::4 --link-local-ip 169.254.1.2 img
--network name=mine,alias=q,ip=10.0.0.5,driver-opt=a=b,gw-priority=3 --network other img
--net mine --net-alias z --mac-address 92:d0:c6:0a:29:33 --link db:database img
--link db --network container:abc img
--dns 1.1.1.1 --dns-search a.b --dns-option ndots:2 --dns-opt timeout:1 --add-host a:10.0.0.1 --add-host b=host-gateway --add-host c=[::1] img
-m 64m --memory-reservation 32m --memory-swap -1 --memory-swappiness 10 --oom-kill-disable --oom-score-adj 100 img
--memory-swap 1g -m 512M --cpus 1.5 -c 512 --cpu-period 50000 --cpu-quota 25000 --cpuset-cpus 0,1 --cpuset-mems 0 img
--cpu-rt-period 1000 --cpu-rt-runtime 500 --pids-limit 50 --cgroup-parent /x --shm-size 128m img
--pids-limit -1 --ulimit nofile=10:20 --ulimit nproc=5 --ulimit core=-1 img
--blkio-weight 300 --blkio-weight-device /dev/null:200 --device-read-bps /dev/null:1mb --device-write-bps /dev/null:2k --device-read-iops /dev/null:5 --device-write-iops /dev/null:6 img
--cap-add NET_ADMIN --cap-drop ALL --cap-drop CHOWN --privileged --group-add 5 --group-add staff -u 1:2 -w /w img
--security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt label:disable --security-opt apparmor=x img
--security-opt seccomp=SECCOMP --security-opt systempaths=unconfined img
--device /dev/null --device /dev/zero:/dev/z --device /dev/full:r --device /dev/tty:/dev/t:rw --device-cgroup-rule 'c 1:3 rwm' img
--device vendor.com/class=one img
--sysctl net.core.somaxconn=100 --sysctl kernel.msgmax=1 --annotation a=b --storage-opt size=1G --read-only --init img
--init=false --rm --restart no img
--restart on-failure:3 img
--restart always --stop-signal SIGINT --stop-timeout 3 img
--pid host --ipc shareable --uts host --userns host --cgroupns private --runtime runc --isolation default img
--pid container:x --ipc container:y --log-driver json-file --log-opt max-size=1m img
--health-cmd 'true || false' --health-interval 3s --health-timeout 1m30s --health-retries 4 --health-start-period 500ms --health-start-interval 1s img
--no-healthcheck img
--entrypoint /bin/sh img -c 'exit 3'
--entrypoint '' img ls
--cidfile CIDFILE img
--disable-content-trust --quiet --pull missing img
-di=false img
"""
WRONG = """
--bogus img
--memory 1x img
--cpus x img
--pid foo img
--uts x img
--userns x img
--cgroupns x img
-a foo img
--restart always --rm img
--network mine --network host img
--network mine --network mine img
--network '' img
--network host --network-alias a img
--ip 10.0.0.1 --network name=mine,ip=10.0.0.2 img
-p 99999:80 img
-p 80-70:80 img
-p 1-3:1-2 img
-p 80/xyz img
--expose x img
--ulimit nofile img
--ulimit nofile=20:10 img
--mount type=bind,source=/a img
--mount type=bind,source=/a,target=/b,volume-nocopy img
--mount type=tmpfs,target=/b,bogus=1 img
--device /dev/null:/x:zz img
--device-read-bps null:1mb img
--memory-swappiness 101 img
--health-interval x img
--no-healthcheck --health-cmd x img
--security-opt nothing img
--security-opt seccomp=/there/is/no/such/file img
--log-driver none --log-opt a=b img
--add-host a img
--add-host a:b img
--env-file /there/is/no/such/file img
--storage-opt x img
--stop-timeout x img
--tty=perhaps img
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    at = tmp_path_factory.mktemp("flags")
    texts = {"ENVFILE": "\ufeff# a comment\n\nFROM_FILE=yes\n  INDENTED=1\nSLIPWAY_HERE\nSLIPWAY_NOT_HERE\nSPACES=a b \n",
             "LABELFILE": "one=1\n# no\ntwo\n", "SECCOMP": '{ "defaultAction": "SCMP_ACT_ALLOW",\n "syscalls": [] }\n'}
    for name, text in texts.items():
        (at / name).write_text(text)
    return {**{name: str(at / name) for name in texts}, "CIDFILE": str(at / "cid")}


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with Recorder() as made:
        yield made


def words_of(line: str, files: dict[str, str]) -> list[str]:
    for name, path in files.items():
        line = line.replace(name, path)
    return shlex.split(line)


def docker(recorder: Recorder, words: list[str]) -> subprocess.CompletedProcess[str]:
    client = docker_client()
    assert client is not None
    env = {**os.environ, "SLIPWAY_HERE": "here", "DOCKER_CONFIG": "/nonexistent"}
    return subprocess.run([client, "-H", f"unix://{recorder.path}", "create", *words], capture_output=True, text=True,
                          env=env, timeout=30)


def kept(value: Any, name: str = "") -> Any:
    """Without what means "nothing said", and in an order of its own where Docker's client has a random one."""
    if isinstance(value, dict):
        items = {key: kept(one, key) for key, one in value.items()}
        return {key: one for key, one in items.items() if one not in (None, "", 0, False, {}) and (one != [] or key in (
            "MaskedPaths", "ReadonlyPaths"))} | {key: False for key, one in value.items() if key == "Init" and one is False}
    if isinstance(value, list):
        found = [kept(one) for one in value]
        if name == "Env":  # of two values of a variable the last counts
            found = list({word.partition("=")[0]: word for word in found}.values())
        return sorted(found) if name in ("Env", "Binds") else found
    return value


@pytest.mark.parametrize("line", lines(SETS))
def test_the_same_flags_make_the_same_container(line: str, recorder: Recorder, files: dict[str, str],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    words = words_of(line, files)
    done = docker(recorder, [word.replace("-di=false", "-i=false") for word in words])
    assert done.returncode == 0, done.stderr
    Path(files["CIDFILE"]).unlink(missing_ok=True)
    theirs = recorder.bodies[-1]
    env = {**os.environ, "SLIPWAY_HERE": "here"}
    ours = create_body(CREATE.parse([word.replace("-di=false", "-i=false") for word in words]), env)
    theirs["HostConfig"].pop("MaskedPaths") if theirs["HostConfig"].get("MaskedPaths") is None else None
    theirs["HostConfig"].pop("ReadonlyPaths") if theirs["HostConfig"].get("ReadonlyPaths") is None else None
    assert kept(json.loads(json.dumps(ours))) == kept(theirs)


@pytest.mark.parametrize("line", lines(WRONG))
def test_what_docker_refuses_is_refused_with_its_exit_code(line: str, recorder: Recorder, files: dict[str, str]) -> None:
    words = words_of(line, files)
    before = len(recorder.bodies)
    done = docker(recorder, words)
    assert done.returncode == 125 and len(recorder.bodies) == before, f"docker takes it: {done.stdout}{done.stderr}"
    with pytest.raises(Usage) as caught:
        create_body(CREATE.parse(words), os.environ)
    assert caught.value.code == done.returncode
    assert len(str(caught.value)) > 20, "it says what is wrong"
