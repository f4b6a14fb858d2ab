"""Containers and execs as programs that use docker-py see them: what those programs would trip over."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import APIError, NotFound

from tests.support.private import PrivateHelper, docker_client
from tests.support.roots import busybox_tar

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it starts a helper of its own"),
    pytest.mark.skipif(docker_client() is None, reason="there is no docker client on this machine"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    with PrivateHelper() as helper:
        helper.docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", stdin=busybox_tar())
        made = docker.DockerClient(base_url=f"unix://{helper.socket}", version="auto", timeout=30)
        yield made
        made.close()


@pytest.fixture
def sleeper(client: docker.DockerClient) -> Iterator[Any]:
    made = client.containers.run("busybox", ["sh", "-c", "trap exit TERM; sleep 600 & wait"], detach=True, network_mode="none")
    yield made
    made.remove(force=True)


def test_run_gives_back_what_the_program_wrote(client: docker.DockerClient) -> None:
    """docker-py reads logs only of drivers whose name it knows: a default driver of another name loses all output."""
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    assert list(client.containers.run("busybox", 'sh -c "echo a; echo b"', stream=True)) == [b"a\n", b"b\n"]


def test_the_first_output_of_a_quick_program_is_never_lost(sleeper: Any) -> None:
    """docker-py loses what comes in one piece with the answer's head."""
    for _ in range(25):
        assert sleeper.exec_run("echo quick").output == b"quick\n"


def test_a_terminal_exec_comes_in_frames_for_a_client_that_did_not_say_terminal_at_the_start(client: docker.DockerClient, sleeper: Any) -> None:
    made = client.api.exec_create(sleeper.id, ["printf", "line"], tty=True)
    assert client.api.exec_start(made) == b"line"


def test_output_and_errors_of_an_exec_can_be_told_apart(sleeper: Any) -> None:
    assert sleeper.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True) == (4, (b"out\n", b"err\n"))


def test_an_exec_has_the_user_directory_and_environment_that_it_asks_for(sleeper: Any) -> None:
    told = sleeper.exec_run(["sh", "-c", "id -u; id -G; pwd; echo $A"], user="nobody", workdir="/tmp", environment={"A": "b c"})
    assert told.output == b"65534\n65534\n/tmp\nb c\n"
    assert b"Seccomp:\t2" in sleeper.exec_run("grep Seccomp: /proc/self/status").output
    plain, privileged = (int(sleeper.exec_run("grep CapEff /proc/self/status", privileged=p).output.split()[1], 16) for p in (False, True))
    assert privileged & plain == plain and privileged > plain


def test_an_exec_of_a_user_that_is_not_there_is_refused(sleeper: Any) -> None:
    with pytest.raises(APIError, match="unable to find user nobodyknows"):
        sleeper.exec_run("id", user="nobodyknows")


def test_execs_die_with_their_container_and_say_so(client: docker.DockerClient, sleeper: Any) -> None:
    made = client.api.exec_create(sleeper.id, ["sleep", "600"])
    client.api.exec_start(made, detach=True)
    assert client.api.exec_inspect(made)["Running"] is True
    assert client.api.inspect_container(sleeper.id)["ExecIDs"] == [made["Id"]]
    sleeper.kill()
    seen = client.api.exec_inspect(made)
    assert (seen["Running"], seen["ExitCode"]) == (False, 137)
    with pytest.raises(APIError, match="is not running"):
        client.api.exec_create(sleeper.id, ["true"])


def test_attach_to_a_container_that_has_ended_gives_its_log(client: docker.DockerClient) -> None:
    made = client.api.create_container("busybox", "echo hello")
    client.api.start(made)
    client.api.wait(made)
    assert client.api.attach(made, stream=False, logs=True) == b"hello\n"
    client.api.remove_container(made)


def test_a_container_that_waits_for_its_next_try_counts_as_running(client: docker.DockerClient) -> None:
    made = client.containers.run("busybox", "false", detach=True, restart_policy={"Name": "always"}, network_mode="none")
    until(lambda: client.containers.get(made.id).status == "restarting" and client.containers.get(made.id).attrs["RestartCount"] > 1)
    with pytest.raises(APIError, match="stop the container before removing or force remove"):
        made.remove()
    with pytest.raises(APIError, match="is restarting, wait until the container is running"):
        made.pause()
    made.stop()
    assert client.containers.get(made.id).status == "exited"
    made.remove()


def until(done: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_wait_says_why_a_container_could_not_start(client: docker.DockerClient) -> None:
    made = client.containers.create("busybox", ["/no/such/program"])
    with pytest.raises(APIError, match="no such file or directory"):
        made.start()
    told = made.wait()
    assert told["StatusCode"] == 127 and "no such file or directory" in told["Error"]["Message"]
    made.remove()


def test_a_privileged_container_sees_the_hosts_cgroups_and_devices(client: docker.DockerClient) -> None:
    told = client.containers.run("busybox", ["sh", "-c", "ls /sys/fs/cgroup | wc -l; ls /dev/kmsg; grep CapEff /proc/self/status"],
                                 privileged=True, remove=True)
    count, kmsg, caps = told.splitlines()
    assert int(count) > 0 and kmsg == b"/dev/kmsg"
    assert bin(int(caps.split()[1], 16)).count("1") > 30


def test_shared_memory_of_a_shareable_container_is_the_same_in_one_that_joins_it(client: docker.DockerClient) -> None:
    donor = client.containers.run("busybox", ["sh", "-c", "echo shared > /dev/shm/x; sleep 600"], ipc_mode="shareable", detach=True, shm_size="1m")
    until(lambda: donor.exec_run("cat /dev/shm/x").output == b"shared\n")
    joins = f"container:{donor.name}"
    assert client.containers.run("busybox", "cat /dev/shm/x", ipc_mode=joins, remove=True) == b"shared\n"
    space = client.containers.run("busybox", "stat -f -c %b-%S /dev/shm", ipc_mode=joins, remove=True)
    assert space == b"256-4096\n"
    donor.remove(force=True)
    private = client.containers.run("busybox", "sleep 600", detach=True)
    with pytest.raises(APIError, match="non-shareable IPC"):
        client.containers.run("busybox", "true", ipc_mode=f"container:{private.name}")
    private.remove(force=True)


def test_a_mode_that_names_a_container_that_is_not_there_is_refused_at_once(client: docker.DockerClient) -> None:
    for mode in ({"pid_mode": "container:nosuch"}, {"ipc_mode": "container:nosuch"}):
        with pytest.raises(APIError, match="No such container: nosuch") as caught:
            client.containers.create("busybox", **mode)
        assert caught.value.status_code == 400


def test_links_tell_the_other_containers_name_address_and_environment_and_can_be_removed(client: docker.DockerClient) -> None:
    database = client.containers.run("busybox", "sleep 600", detach=True, environment={"SECRET": "x"}, name="linked-db")
    made = client.containers.run("busybox", ["sh", "-c", "env; grep base /etc/hosts; sleep 600"], links={"linked-db": "base"}, detach=True, name="linker")
    until(lambda: b"\tbase" in made.logs())
    told = made.logs()
    address = database.attrs["NetworkSettings"]["IPAddress"] or client.containers.get(database.id).attrs["NetworkSettings"]["IPAddress"]
    assert b"BASE_NAME=/linker/base\n" in told and b"BASE_ENV_SECRET=x\n" in told and f"{address}\tbase".encode() in told
    client.api.remove_container("linker/base", link=True)
    assert client.containers.get(made.id).attrs["HostConfig"]["Links"] == [] and b"base" not in made.exec_run("cat /etc/hosts").output
    with pytest.raises(NotFound):
        client.api.remove_container("linker/base", link=True)
    made.remove(force=True)
    database.remove(force=True)


def test_limits_of_a_running_container_change_at_once_and_conflicts_are_refused(client: docker.DockerClient, sleeper: Any) -> None:
    client.api.update_container(sleeper.id, mem_limit="64m", memswap_limit="64m", cpu_shares=100)
    client.api._post_json(client.api._url("/containers/{0}/update", sleeper.id), data={"NanoCpus": 500_000_000, "PidsLimit": 20}).raise_for_status()
    kept = client.api.inspect_container(sleeper.id)["HostConfig"]
    assert (kept["Memory"], kept["CpuShares"], kept["NanoCpus"], kept["PidsLimit"]) == (64 << 20, 100, 500_000_000, 20)
    told = sleeper.exec_run(["sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"], user="nobody")
    assert told.output.strip() == str(64 << 20).encode()
    assert b"can't fork" in sleeper.exec_run(["sh", "-c", "for i in $(seq 30); do sleep 5 & done"]).output
    with pytest.raises(APIError, match="CPU Quota cannot be updated as NanoCPUs has already been set"):
        client.api.update_container(sleeper.id, cpu_quota=50_000)
    with pytest.raises(APIError, match="Minimum memory limit allowed is 6MB"):
        client.api.update_container(sleeper.id, mem_limit=1)
    client.api._post_json(client.api._url("/containers/{0}/update", sleeper.id), data={"PidsLimit": -1}).raise_for_status()
    assert client.api.inspect_container(sleeper.id)["HostConfig"]["PidsLimit"] is None
    assert sleeper.exec_run(["sh", "-c", "for i in $(seq 30); do true & done; wait"]).exit_code == 0


def test_an_update_never_takes_auto_removal_away_by_a_restart_policy(client: docker.DockerClient) -> None:
    made = client.containers.run("busybox", "sleep 600", detach=True, auto_remove=True, network_mode="none")
    with pytest.raises(APIError, match="AutoRemove is enabled") as caught:
        made.update(restart_policy={"Name": "always"})
    assert caught.value.status_code == 409
    made.remove(force=True)


def test_a_resize_of_what_has_no_terminal_does_no_harm(client: docker.DockerClient, sleeper: Any) -> None:
    client.api.resize(sleeper.id, 10, 20)
    made = client.api.exec_create(sleeper.id, ["sleep", "60"])
    client.api.exec_start(made, detach=True)
    client.api.exec_resize(made, 10, 20)
    assert client.api.exec_inspect(made)["Running"] is True


def test_a_limit_that_the_kernel_refuses_is_named_as_the_reason(client: docker.DockerClient) -> None:
    with pytest.raises(APIError, match=r"cpu\.rt_runtime_us|real-time scheduling"):      # cgroup v1 at the start, v2 at once
        client.containers.run("busybox", "true", network_mode="none", cpu_rt_runtime=1000, name="realtime")
    for left in client.containers.list(all=True, filters={"name": "realtime"}):
        left.remove()
