"""Texts that people and clients read: status words, times, names, signals, filters, bodies."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from backend.engine import checks, create, etcfiles, links, logchoice, ports
from backend.engine.clock import human, parse_time, rfc3339
from backend.engine.container import Container, Table
from backend.engine.events import QUEUE, EventBus
from backend.engine.facts import Facts
from backend.engine.names import check_name, new_id, random_name
from backend.engine.record import ContainerRecord, Status
from backend.engine.signals import signal_number
from backend.engine.state import State
from backend.engine.views import command_text, status_text
from backend.errors import Conflict, InvalidArgument, NotFound, Unavailable
from backend.network.records import Network, PublishedPort
from backend.spec import api
from backend.spec.filters import Filters

SECOND = 1_000_000_000


def record(name: str = "web", **more: object) -> ContainerRecord:
    return ContainerRecord(id=more.pop("id", "ab" * 32), name=name, created=5, image="sha256:1", image_name="i", path="sh", args=[],
                           config=api.ContainerConfig(), host_config=api.HostConfig(), networks={}, **more)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"), (120, "2 minutes"),
    (3600, "About an hour"), (7200, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (14 * 86400, "2 weeks"), (60 * 86400, "2 months"),
    (2 * 365 * 86400, "2 years"),
])
def test_durations_read_as_docker_words_them(seconds: int, text: str) -> None:
    assert human(seconds) == text


@pytest.mark.parametrize(("status", "text"), [
    (Status(), "Created"), (Status(state="running", started_at=97 * SECOND), "Up 3 seconds"),
    (Status(state="paused", started_at=97 * SECOND), "Up 3 seconds (Paused)"),
    (Status(state="exited", exit_code=3, finished_at=40 * SECOND), "Exited (3) About a minute ago"),
    (Status(state="restarting", exit_code=1, finished_at=98 * SECOND), "Restarting (1) 2 seconds ago"),
])
def test_the_status_column_says_what_docker_would_say(status: Status, text: str) -> None:
    async def shown() -> str:
        return status_text(Container(record(), status), 100 * SECOND)

    assert asyncio.run(shown()) == text


def test_a_command_with_spaces_is_quoted_in_the_list() -> None:
    assert command_text("sh", ["-c", "echo hi"]) == "sh -c 'echo hi'"


@pytest.mark.parametrize(("text", "value"), [("15", 15), ("SIGTERM", 15), ("kill", 9), ("RTMIN+1", 35), ("SIGRTMAX", 64)])
def test_signals_by_name_and_number(text: str, value: int) -> None:
    assert signal_number(text) == value


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "-9", "1_0", "RTMIN+99"])
def test_a_signal_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        signal_number(text)


def test_times_go_out_and_come_in_without_loss() -> None:
    at = 1_700_000_000_123_456_789
    assert rfc3339(at) == "2023-11-14T22:13:20.123456789Z"
    assert parse_time(rfc3339(at), 0) == at
    assert parse_time("1700000000.123456789", 0) == at
    assert parse_time("2m", at) == at - 120 * SECOND
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    with pytest.raises(InvalidArgument):
        parse_time("yesterday", 0)
    day = parse_time("2023-11-14", 0)
    assert [parse_time(f"2023-11-14{rest}", 0) - day for rest in ("T22", "T22:13", "T22:13:20", "T00:00+01:00")] == [
        seconds * SECOND for seconds in (79_200, 79_980, 80_000, -3_600)]


@pytest.mark.parametrize("name", ["", "a", "-ab", "a b", "ä1", "a/b", "ab\n"])
def test_names_that_docker_refuses_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


def test_given_and_random_names_are_valid_and_ids_are_not_numbers() -> None:
    assert check_name("/web-1.x_y") == "web-1.x_y"
    assert check_name(random_name({})) and not new_id()[:12].isdecimal()


def test_a_container_is_found_by_id_prefix_or_name_and_a_taken_name_names_its_owner() -> None:
    table = Table()
    asyncio.run(_fill(table))
    assert table.get("web").id == table.get("/web").id == table.get("abab").id == "ab" * 32
    with pytest.raises(NotFound, match=r"^No such container: nope$"):
        table.get("nope")
    with pytest.raises(Conflict, match=r'Conflict\. The container name "/web" is already in use by container "' + "ab" * 32):
        table.claim("web", "new")


async def _fill(table: Table) -> None:
    table.add(Container(record(), Status()))


def test_filters_are_read_in_both_forms_and_bad_ones_are_refused() -> None:
    for text in ('{"label":["a=1","b"]}', '{"label":{"a=1":true,"b":true}}'):
        made = Filters.parse(text, ("label",))
        assert made.labels({"a": "1", "b": "x"}) and not made.labels({"a": "2", "b": "x"})
    for bad in ("{", "[]", '{"x":["y"]}', '{"label":[1]}', '{"label":3}'):
        with pytest.raises(InvalidArgument):
            Filters.parse(bad, ("label",))
    assert Filters.parse('{"name":["^/we"]}').fuzzy("name", "/web")
    with pytest.raises(InvalidArgument, match="too complicated"):
        Filters.parse('{"name":["(a+)+$"]}').fuzzy("name", "a" * 40)


def test_bodies_are_read_as_leniently_as_docker_reads_them_and_no_more() -> None:
    body = b'{"image":"i","Cmd":"ls","Env":null,"Nonsense":1,"HostConfig":{"PortBindings":{"80/tcp":null},"Memory":null,"Binds":null}}'
    made = api.decode_body(body, api.ContainerCreate)
    assert (made.image, made.cmd, made.env, made.host_config.port_bindings) == ("i", ["ls"], [], {"80/tcp": []})
    with pytest.raises(InvalidArgument, match=r"HostConfig\.Memory"):
        api.decode_body(b'{"HostConfig":{"Memory":"much"}}', api.ContainerCreate)
    for bad in (b"", b"{", b"[]", b'{"Tty":1}', b"[" * 100000):
        with pytest.raises(InvalidArgument):
            api.decode_body(bad, api.ContainerCreate)


def test_a_password_is_in_no_repr() -> None:
    assert "secret" not in repr(api.AuthConfig(username="u", password="secret", serveraddress="r"))


def test_ports_are_shown_published_and_exposed() -> None:
    published = [PublishedPort(80, "tcp", "0.0.0.0", 8080, "10.0.0.2")]
    assert ports.port_map(["80/tcp", "443/tcp"], published) == {"80/tcp": [api.PortBinding(host_ip="0.0.0.0", host_port="8080")], "443/tcp": None}
    assert ports.expand("8000-8002/udp") == ["8000/udp", "8001/udp", "8002/udp"]


@pytest.mark.parametrize(("config", "result"), [
    (api.LogConfig(type="local"), ("slipway", 20 << 20, 5)), (api.LogConfig(type="json-file"), ("json-file", 0, 1)),
    (api.LogConfig(type="json-file", config={"max-size": "10m", "max-file": "3"}), ("json-file", 10 << 20, 3)), (api.LogConfig(type="none"), ("none", 0, 1)),
])
def test_log_options_bound_the_log(config: api.LogConfig, result: tuple[str, int, int]) -> None:
    assert logchoice.log_limits(config) == result


@pytest.mark.parametrize("host", [
    api.HostConfig(memory=1), api.HostConfig(restart_policy=api.RestartPolicy(name="sometimes")), api.HostConfig(log_config=api.LogConfig(type="splunk")),
    api.HostConfig(nano_cpus=99_000_000_000), api.HostConfig(sysctls={"kernel.panic": "1"}), api.HostConfig(pid_mode="x"),
    api.HostConfig(auto_remove=True, restart_policy=api.RestartPolicy(name="always")), api.HostConfig(ulimits=[api.Ulimit(name="x")]),
    api.HostConfig(runtime="other"), api.HostConfig(cpuset_cpus="9-1"), api.HostConfig(oom_score_adj=2000),
])
def test_settings_that_cannot_be_are_refused_before_anything_is_made(host: api.HostConfig) -> None:
    ready = create._host(host, "local", {})
    with pytest.raises(InvalidArgument):
        checks.check(api.ContainerConfig(), ready, 2, Facts())


def test_a_container_that_asks_for_no_log_driver_keeps_a_bounded_log_under_the_name_that_clients_know() -> None:
    assert logchoice.log_limits(api.LogConfig(type="json-file"), own=True) == ("slipway", 20 << 20, 5)


@pytest.mark.parametrize(("asked", "driver", "kept"), [
    (api.LogConfig(), "", {"max-size": "5m"}), (api.LogConfig(type="json-file", config={"max-file": "2"}), "", {"max-size": "5m", "max-file": "2"}),
    (api.LogConfig(type="none"), "", {}), (api.LogConfig(config={"max-size": "1m"}), "local", {"max-size": "1m"}),
    (api.LogConfig(type="json-file"), "local", {}),
])
def test_the_engines_log_options_are_for_containers_with_its_driver_and_yield_to_their_own(
        asked: api.LogConfig, driver: str, kept: dict[str, str]) -> None:
    found = create._host(api.HostConfig(log_config=asked), driver, {"max-size": "5m"}).log_config
    assert found == api.LogConfig(type=asked.type or driver or "json-file", config=kept)


@pytest.mark.parametrize(("config", "says"), [
    (api.ContainerConfig(healthcheck=api.HealthConfig(test=["CMD", "x"], interval=1)), "Interval in Healthcheck"),
    (api.ContainerConfig(healthcheck=api.HealthConfig(test=["CMD", "x"], timeout=-1)), "Timeout in Healthcheck"),
    (api.ContainerConfig(healthcheck=api.HealthConfig(retries=-1)), "Retries in Healthcheck"),
    (api.ContainerConfig(mac_address="nope"), "invalid MAC address"), (api.ContainerConfig(working_dir="x"), "absolute path"),
    (api.ContainerConfig(env=["=x"]), "invalid environment variable"), (api.ContainerConfig(stop_signal="NOPE"), "invalid signal"),
])
def test_a_process_that_cannot_be_is_refused_in_dockers_words(config: api.ContainerConfig, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        checks.check(config, create._host(api.HostConfig(), "json-file", {}), 2, Facts())


@pytest.mark.parametrize(("host", "says"), [
    (api.HostConfig(extra_hosts=["nope"]), "bad format for add-host"), (api.HostConfig(extra_hosts=["a:nope"]), "invalid IP address"),
    (api.HostConfig(tmpfs={"/t": "nope"}), 'invalid tmpfs option "nope"'), (api.HostConfig(tmpfs={"t": ""}), "must be absolute"),
    (api.HostConfig(isolation="hyperv"), "linux only supports"), (api.HostConfig(io_maximum_iops=1), "QoS maximum IOPs"),
    (api.HostConfig(cpuset_mems="7"), "Requested memory nodes are not available"), (api.HostConfig(cpuset_cpus="a-b"), "invalid format: a-b"),
    (api.HostConfig(cpuset_cpus="0-99999"), "maximum is 8192"), (api.HostConfig(ipc_mode="container:"), "invalid IPC mode"),
    (api.HostConfig(log_config=api.LogConfig(type="nope")), "error looking up logging plugin"), (api.HostConfig(annotations={"": "x"}), "annotation key"),
    (api.HostConfig(security_opt=["apparmor=mine"]), "AppArmor is not enabled"),
])
def test_a_host_part_that_cannot_be_is_refused_in_dockers_words(host: api.HostConfig, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        checks.check(api.ContainerConfig(), create._host(host, "json-file", {}), 2, Facts())


def test_what_the_kernel_lacks_is_left_out_with_a_warning_and_not_in_silence() -> None:
    poor = Facts(v2=True, swap_limit=False, blkio_weight=False)
    host = api.HostConfig(memory=1 << 28, memory_swap=1 << 29, memory_swappiness=3, oom_kill_disable=True, blkio_weight=5,
                          blkio_weight_device=[api.WeightDevice("/dev/x", 10)], cpu_percent=3, kernel_memory=1)
    told = checks.discard(host, poor)
    assert len(told) == 7
    assert (host.memory_swap, host.memory_swappiness, host.oom_kill_disable, host.blkio_weight, host.cpu_percent) == (-1, None, None, 0, 0)
    assert checks.discard(host, poor)[1:] == [], "once left out, there is nothing more to say but the swap limit"


def test_limits_that_the_engine_may_not_raise_are_announced() -> None:
    facts = Facts(may_raise=False, hard_limits={"nofile": 1000, "core": (1 << 63) - 1})
    host = api.HostConfig(oom_score_adj=-5, ulimits=[api.Ulimit("nofile", 5, 2000), api.Ulimit("core", 1, 2)])
    told = checks.warnings(host, facts)
    assert len(told) == 2 and "will be 1000 instead of 2000" in told[0]
    assert checks.warnings(host, Facts()) == []


def test_a_link_tells_name_address_ports_and_environment() -> None:
    assert links.parse("/db:/me/data") == ("db", "data") and links.parse("db") == ("db", "db")
    told = links.environment("web", "my-db", "10.0.0.2", ["80/tcp", "53/udp"], ["A=1", "PATH=/x", "BARE"])
    assert told[0] == "MY_DB_PORT=tcp://10.0.0.2:80"
    assert {"MY_DB_NAME=/web/my-db", "MY_DB_ENV_A=1", "MY_DB_PORT_53_UDP_ADDR=10.0.0.2"} <= set(told)
    assert not any("PATH" in one for one in told)


def test_added_hosts_come_in_both_spellings() -> None:
    assert etcfiles.extra_hosts(["a:1.2.3.4", "b=::1", "gw:host-gateway"], "10.0.0.1") == [("1.2.3.4", "a"), ("::1", "b"), ("10.0.0.1", "gw")]
    with pytest.raises(InvalidArgument):
        etcfiles.extra_hosts(["nonsense"], "")


async def test_events_are_replayed_filtered_and_end_at_a_past_until() -> None:
    bus = EventBus()
    start = time.time_ns()
    bus.publish("container", "start", "id1", {"name": "web", "image": "i"}, image="i")
    bus.publish("network", "create", "n1", {"name": "net"})
    got = [event async for event in bus.subscribe(start, time.time_ns(), Filters.parse('{"type":["container"]}'))]
    assert [(e.action, e.status, e.from_, e.actor.attributes["name"]) for e in got] == [("start", "start", "i", "web")]
    assert bus.listeners == 0


async def test_a_listener_that_does_not_read_is_cut_off_and_holds_nobody_up() -> None:
    bus = EventBus()
    slow = bus.subscribe()
    for _ in range(QUEUE + 10):
        bus.publish("container", "x", "id")
    assert bus.listeners == 0
    assert len([event async for event in slow]) == QUEUE


async def test_one_unreadable_record_is_set_aside_and_the_rest_loads(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    state = State(path)
    state.open()
    await state.put_container(record("good"), Status())
    await state.put_container(record("bad", id="cd" * 32), Status())
    await state.put_network(Network("n" * 64, "net", "bridge", 1))
    await asyncio.to_thread(state.close)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE containers SET config='{\"id\":7' WHERE name='bad'")
    again = State(path)
    loaded = again.open()
    assert [r.name for r, _ in loaded.containers] == ["good"]
    assert [n.name for n in loaded.networks] == ["net"]
    assert len(loaded.damaged) == 1 and "cdcdcdcdcdcd" in loaded.damaged[0]
    await asyncio.to_thread(again.close)
    third = State(path)
    assert third.open().damaged == [], "it is set aside once"
    await asyncio.to_thread(third.close)


async def test_a_state_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(Unavailable, match="newer"):
        State(path).open()
