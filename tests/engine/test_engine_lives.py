"""Lives of containers on a real kernel, seen as the helper sees them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from backend.engine.engine import Engine
from backend.engine.streams import AttachWish
from backend.errors import Conflict, EngineError, InvalidArgument, NotFound, NotModified, ServerError
from backend.spec import api
from backend.spec.filters import Filters
from tests.engine.support_engine import Place, create, exec_in, log_of, read_all, run, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root and real namespaces")]
NONE = {"network_mode": "none"}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.destroy()


@pytest.fixture
async def engine(place: Place) -> AsyncIterator[Engine]:
    async with place.engine() as made:
        yield made
    assert place.leftovers() == []


async def test_a_program_runs_and_its_output_and_exit_code_arrive(engine: Engine) -> None:
    assert await run(engine, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\nerr\n")


async def test_what_is_typed_before_the_start_is_kept_for_the_program(engine: Engine) -> None:
    ref = await create(engine, "cat", open_stdin=True, stdin_once=True)
    session = await engine.containers.attach(ref, AttachWish(stdin=True))
    waiter = engine.containers.wait(ref, "next-exit")
    reading = asyncio.ensure_future(read_all(session, b"early\n"))
    await asyncio.sleep(0.05)
    await engine.containers.start(ref)
    assert await reading == b"early\n"
    assert (await waiter.result()).status_code == 0


async def test_a_terminal_is_a_terminal_of_the_size_asked_for(engine: Engine) -> None:
    code, output = await run(engine, "sh", "-c", "tty; stty size", tty=True, host=api.HostConfig(**NONE, console_size=[33, 77]))
    assert (code, output.replace("\r", "").split("\n")[:2]) == (0, ["/dev/pts/0", "33 77"])


@pytest.mark.parametrize(("command", "kind", "code", "text"), [
    (["nosuch"], InvalidArgument, 127, 'exec: "nosuch": executable file not found in \\$PATH'),
    (["/etc/passwd"], InvalidArgument, 126, "permission denied"),
])
async def test_a_program_that_cannot_run_says_why_and_the_container_can_be_removed(
        engine: Engine, place: Place, command: list[str], kind: type[EngineError], code: int, text: str) -> None:
    ref = await create(engine, *command)
    waiter = engine.containers.wait(ref, "next-exit")
    with pytest.raises(kind, match=text):
        await engine.containers.start(ref)
    assert (await waiter.result()).status_code == code
    shown = await engine.containers.inspect(ref)
    assert (shown.state.exit_code, shown.state.status, shown.state.running) == (code, "created", False)
    assert (await engine.containers.wait(ref, "").result()).status_code == code
    await engine.containers.remove(ref)
    assert place.leftovers() == []


async def test_a_start_that_fails_on_its_port_leaves_nothing_and_can_be_tried_again(engine: Engine, place: Place) -> None:
    def wish() -> api.HostConfig:
        return api.HostConfig(port_bindings={"80/tcp": [api.PortBinding(host_ip="127.0.0.1", host_port=port)]})

    port = str(20000 + os.getpid() % 20000)
    first = await create(engine, "sleep", "100", host=wish())
    second = await create(engine, "sleep", "100", host=wish())
    await engine.containers.start(first)
    with pytest.raises(ServerError, match=r"port is already allocated"):
        await engine.containers.start(second)
    assert [line for line in place.leftovers() if second in line and not line.startswith("files")] == []
    await engine.containers.remove(first, force=True)
    await engine.containers.start(second)
    ports = (await engine.containers.inspect(second)).network_settings.ports
    assert ports == {"80/tcp": [api.PortBinding(host_ip="127.0.0.1", host_port=port)]}


async def test_an_unknown_network_or_mount_source_fails_the_start_with_its_name(engine: Engine) -> None:
    ref = await create(engine, "true", host=api.HostConfig(network_mode="nowhere"))
    with pytest.raises(NotFound, match="network nowhere not found"):
        await engine.containers.start(ref)
    with pytest.raises(InvalidArgument, match="bind source path does not exist: /no/such"):
        await create(engine, "true", host=api.HostConfig(**NONE, mounts=[api.Mount(type="bind", source="/no/such", target="/x")]))


async def test_a_failed_create_leaves_neither_name_nor_files(engine: Engine, place: Place) -> None:
    for _ in range(2):
        with pytest.raises(InvalidArgument):
            await create(engine, "true", name="again", host=api.HostConfig(**NONE, cap_add=["nonsense"]))
    with pytest.raises(NotFound, match=r"^No such image: missing:latest$"):
        await engine.containers.create(api.ContainerCreate(image="missing"), name="again")
    await create(engine, "true", name="again")
    with pytest.raises(Conflict, match='"/again" is already in use by container'):
        await create(engine, "true", name="again")


async def test_stop_asks_first_and_kills_after_the_grace(engine: Engine) -> None:
    polite = await create(engine, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
    rude = await create(engine, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    for ref in (polite, rude):
        await engine.containers.start(ref)
        with pytest.raises(NotModified):
            await engine.containers.start(ref)
    await asyncio.sleep(0.2)
    await engine.containers.stop(polite)
    await engine.containers.stop(rude, timeout=0)
    assert [(await engine.containers.inspect(ref)).state.exit_code for ref in (polite, rude)] == [5, 137]
    with pytest.raises(NotModified):
        await engine.containers.stop(polite)


async def test_kill_during_a_stop_ends_it_at_once(engine: Engine) -> None:
    ref = await create(engine, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    await engine.containers.start(ref)
    await asyncio.sleep(0.1)
    stopping = asyncio.ensure_future(engine.containers.stop(ref, timeout=60))
    await asyncio.sleep(0.1)
    await engine.containers.kill(ref, "KILL")
    await asyncio.wait_for(stopping, 10)
    with pytest.raises(Conflict, match="is not running"):
        await engine.containers.kill(ref, "TERM")


async def test_a_paused_container_stands_still_and_goes_on(engine: Engine) -> None:
    ref = await create(engine, "sh", "-c", "while :; do echo x; sleep 0.02; done")
    await engine.containers.start(ref)
    await engine.containers.pause(ref)
    await asyncio.sleep(0.1)               # what was written before it froze is still on its way
    before = await log_of(engine, ref)
    await asyncio.sleep(0.2)
    assert await log_of(engine, ref) == before
    assert engine.containers.list()[0].state == "paused"
    with pytest.raises(Conflict):
        await engine.execs.create(ref, api.ExecCreate(cmd=["true"]))
    await engine.containers.unpause(ref)
    await asyncio.sleep(0.2)
    assert len(await log_of(engine, ref)) > len(before)
    await engine.containers.pause(ref)
    await engine.containers.stop(ref, timeout=0)


async def test_exec_runs_beside_the_program_and_says_what_went_wrong(engine: Engine) -> None:
    ref = await create(engine, "sleep", "100", env=["FROM=container"])
    await engine.containers.start(ref)
    assert await exec_in(engine, ref, "sh", "-c", "echo $FROM $MORE; id -u; exit 4", env=["MORE=exec"], user="nobody") == (4, "container exec\n65534\n")
    code, output = await exec_in(engine, ref, "nosuch")
    assert (code, "executable file not found" in output, output.endswith("\r\n")) == (127, True, True)
    await engine.containers.kill(ref)
    with pytest.raises(Conflict, match="is not running"):
        await engine.execs.create(ref, api.ExecCreate(cmd=["true"]))


async def test_a_removed_container_is_told_to_those_who_wait_for_its_removal(engine: Engine) -> None:
    ref = await create(engine, "sh", "-c", "exit 9", host=api.HostConfig(**NONE, auto_remove=True))
    start = time.time_ns()
    waiter = engine.containers.wait(ref, "removed")
    await engine.containers.start(ref)
    assert (await waiter.result()).status_code == 9
    with pytest.raises(NotFound):
        await engine.containers.inspect(ref)
    seen = [event.action async for event in engine.events.subscribe(start, time.time_ns(), Filters.parse('{"type":["container"]}'))]
    assert seen == ["start", "die", "destroy"]


async def test_a_running_container_is_removed_only_by_force(engine: Engine) -> None:
    ref = await create(engine, "sleep", "100", name="busy")
    await engine.containers.start(ref)
    with pytest.raises(Conflict, match="stop the container before removing or force remove"):
        await engine.containers.remove(ref)
    await engine.containers.remove(ref, force=True)
    assert engine.containers.list(all=True) == []


async def test_volumes_keep_what_containers_write_and_anonymous_ones_go_with_them(engine: Engine) -> None:
    host = api.HostConfig(**NONE, binds=["kept:/data", "/scratch"])
    assert (await run(engine, "sh", "-c", "echo kept > /data/f; echo gone > /scratch/f", host=host))[0] == 0
    assert [volume.name for volume in (await engine.volumes.list()).volumes] == ["kept"]
    assert await run(engine, "cat", "/data/f", host=api.HostConfig(**NONE, binds=["kept:/data:ro"])) == (0, "kept\n")
    user = await create(engine, "true", host=api.HostConfig(**NONE, binds=["kept:/x"]))
    with pytest.raises(Conflict, match=f"volume is in use - \\[{user}\\]"):
        await engine.volumes.remove("kept")
    await engine.containers.remove(user)
    await engine.volumes.remove("kept")


async def test_a_new_volume_takes_over_what_the_image_has_in_its_place(engine: Engine) -> None:
    code, output = await run(engine, "cat", "/etc/group", host=api.HostConfig(**NONE, binds=["etc:/etc"]))
    assert (code, "nobody" in output) == (0, True)
    await engine.volumes.remove("etc")


async def test_the_root_is_read_only_when_asked_and_limits_hold(engine: Engine) -> None:
    host = api.HostConfig(**NONE, readonly_rootfs=True, tmpfs={"/tmp": ""}, pids_limit=5, ulimits=[api.Ulimit(name="nofile", soft=99, hard=99)])
    _, output = await run(engine, "sh", "-c", "touch /x; touch /tmp/x && echo ok; ulimit -n; sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait", host=host)
    assert "Read-only file system" in output and "ok\n99\n" in output
    assert "can't fork" in output


async def test_a_container_that_ends_badly_is_restarted_as_often_as_asked(engine: Engine) -> None:
    policy = api.RestartPolicy(name="on-failure", maximum_retry_count=2)
    ref = await create(engine, "sh", "-c", "echo try; exit 6", host=api.HostConfig(**NONE, restart_policy=policy))
    await engine.containers.start(ref)
    await until(lambda: engine.containers.list(all=True)[0].state == "exited", "it gave up")
    assert (await engine.containers.inspect(ref)).restart_count == 2
    assert await log_of(engine, ref) == b"try\n" * 3


async def test_a_container_that_always_restarts_stays_stopped_once_its_user_stops_it(engine: Engine) -> None:
    ref = await create(engine, "sleep", "0.05", host=api.HostConfig(**NONE, restart_policy=api.RestartPolicy(name="always")))
    await engine.containers.start(ref)
    await asyncio.sleep(0.5)
    assert (await engine.containers.inspect(ref)).restart_count >= 1
    try:
        await engine.containers.stop(ref, timeout=0)
    except NotModified:
        pytest.fail("it is either running or about to")
    await asyncio.sleep(0.4)
    assert engine.containers.list(all=True)[0].state == "exited"


async def test_containers_on_a_network_find_each_other_by_name(engine: Engine) -> None:
    await engine.networks.create(api.NetworkCreate(name="friends"))
    host = api.HostConfig(network_mode="friends")
    try:
        server = await create(engine, "sleep", "100", name="server", host=host)
        await engine.containers.start(server)
        code, output = await run(engine, "ping", "-c1", "-W2", "server", host=host)
        assert (code, "1 packets received" in output) == (0, True), output
        assert list(engine.networks.inspect("friends").containers) == [server]
        with pytest.raises(EngineError, match="has active endpoints"):
            await engine.networks.remove("friends")
        await engine.networks.disconnect("friends", api.NetworkDisconnect(container="server"))
        assert (await engine.containers.inspect(server)).network_settings.networks == {}
    finally:
        await engine.containers.remove("server", force=True)
        await engine.networks.remove("friends")


async def test_a_health_check_turns_its_container_healthy_and_unhealthy(engine: Engine) -> None:
    check = api.HealthConfig(test=["CMD-SHELL", "test -e /ok && echo fine"], interval=50_000_000, retries=2)
    ref = await create(engine, "sleep", "100", healthcheck=check)
    await engine.containers.start(ref)
    await until(lambda: "(unhealthy)" in engine.containers.list()[0].status, "two failures make it unhealthy")
    await exec_in(engine, ref, "touch", "/ok")
    await until(lambda: "(healthy)" in engine.containers.list()[0].status, "one success makes it healthy")
    health = (await engine.containers.inspect(ref)).state.health
    assert isinstance(health, api.Health) and health.log[-1].output == "fine\n"


async def test_stats_and_top_tell_of_a_running_container(engine: Engine) -> None:
    ref = await create(engine, "sleep", "77", host=api.HostConfig(memory=32 << 20))
    await engine.containers.start(ref)
    first = engine.containers.stats(ref)
    second = engine.containers.stats(ref, first)
    assert first.memory_stats.limit == 32 << 20 and first.pids_stats.current == 1
    assert second.preread == first.read and isinstance(second.networks, dict) and "eth0" in second.networks
    top = await engine.containers.top(ref, "-o pid,args")
    assert top.titles == ["PID", "COMMAND"] and [row[1] for row in top.processes] == ["sleep 77"]


async def test_lists_are_filtered_as_docker_filters_them(engine: Engine) -> None:
    one = await create(engine, "sleep", "100", name="one", labels={"tier": "web"})
    await create(engine, "true", name="two")
    await engine.containers.start(one)

    def names(text: str) -> list[str]:
        return [row.names[0] for row in engine.containers.list(all=True, filters=Filters.parse(text))]

    assert [row.names[0] for row in engine.containers.list()] == ["/one"]
    assert names('{"label":["tier=web"]}') == names('{"status":["running"]}') == names('{"name":["^/one$"]}') == ["/one"]
    assert names('{"before":["two"]}') == ["/one"] and names('{"since":["one"]}') == names('{"status":["created"]}') == ["/two"]
    assert names('{"ancestor":["busybox"]}') == ["/two", "/one"]
    with pytest.raises(InvalidArgument, match="invalid filter"):
        names('{"status":["sleeping"]}')


async def test_a_rename_keeps_the_container_and_frees_the_name(engine: Engine) -> None:
    ref = await create(engine, "true", name="old")
    await engine.containers.rename("old", "new")
    await create(engine, "true", name="old")
    assert (await engine.containers.inspect("new")).id == ref
    with pytest.raises(Conflict, match="Error when allocating new name"):
        await engine.containers.rename("new", "old")


async def test_twenty_clients_at_one_container_get_documented_answers_and_leave_it_whole(engine: Engine) -> None:
    ref = await create(engine, "sleep", "100")

    async def client(number: int) -> None:
        for step in range(4):
            actions = (lambda: engine.containers.start(ref), lambda: engine.containers.stop(ref, timeout=0),
                       lambda: engine.containers.kill(ref, "KILL"), lambda: engine.containers.restart(ref, timeout=0))
            try:
                await actions[(number + step) % 4]()
            except (NotModified, Conflict):
                pass

    await asyncio.wait_for(asyncio.gather(*(client(number) for number in range(20))), 60)
    await engine.containers.remove(ref, force=True)
    assert engine.containers.list(all=True) == []
