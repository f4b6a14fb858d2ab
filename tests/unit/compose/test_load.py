"""Compose files become a project, or an error that names the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.compose.errors import ComposeError
from backend.compose.load import find_files, project_name
from backend.compose.model import Dependency, HealthCheck, Mount, NetworkUse, PortMapping, Ulimit
from tests.unit.compose.conftest import Load


def web(load: Load, body: str, **rest: object):
    """The only service of a file whose `services.web` has *body* in flow style beside its image."""
    return load(f"services: {{web: {{image: a, {body}}}}}\nvolumes: {{data: }}\nnetworks: {{front: }}\n", **rest).service("web")


def test_a_stack_of_two_services_is_read_whole(load: Load, tmp_path: Path) -> None:
    project = load("""
services:
  web:
    image: nginx:${TAG:-latest}
    command: sh -c "echo $$HOME"
    ports: ["8080:80"]
    environment: {LEVEL: 3, DEBUG: true, HOST: }
    volumes: [data:/data, ./html:/html:ro]
    depends_on: [db]
    networks: {front: {aliases: [www]}, default: }
  db: {image: postgres, restart: always}
volumes: {data: }
networks: {front: }
""", env={"TAG": "1.2", "HOST": "h"})
    service = project.service("web")
    assert project.name == "shop" and project.directory == str(tmp_path / "shop")
    assert service.image == "nginx:1.2" and service.command == ("sh", "-c", "echo $HOME")
    assert service.ports == (PortMapping(80, "8080", "", "tcp"),)
    assert service.environment == (("DEBUG", "true"), ("HOST", "h"), ("LEVEL", "3"))
    assert service.mounts == (
        Mount("volume", "data", "/data"),
        Mount("bind", str(tmp_path / "shop/html"), "/html", read_only=True, create_host_path=True),
    )
    assert service.depends_on == (Dependency("db"),)
    assert service.networks == (NetworkUse("front", ("www",)), NetworkUse("default"))
    assert [(n.key, n.name) for n in project.networks] == [("default", "shop_default"), ("front", "shop_front")]
    assert [(v.key, v.name) for v in project.volumes] == [("data", "shop_data")]
    assert project.service("db").networks == (NetworkUse("default"),) and project.service("db").restart == "always"


@pytest.mark.parametrize(("body", "field", "value"), [
    ("command: [a, 1]", "command", ("a", "1")), ("command: ''", "command", ()), ("command: []", "command", ()),
    ("entrypoint: /e x", "entrypoint", ("/e", "x")), ("command: ", "command", None),
    ("environment: [A=1, 'B=x=y', C, D=]", "environment", (("A", "1"), ("B", "x=y"), ("C", None), ("D", ""))),
    ("environment: {A: 1.50, B: null, C: no}", "environment", (("A", "1.5"), ("B", None), ("C", "no"))),
    ("labels: [a=b, c]", "labels", (("a", "b"), ("c", ""))),
    ("tmpfs: /run", "tmpfs", ("/run",)), ("dns: 1.1.1.1", "dns", ("1.1.1.1",)),
    ("stop_grace_period: 1m", "stop_grace_period", 60 * 10**9), ("privileged: yes", "privileged", True),
    ("init: false", "init", False), ("tty: 'true'", "tty", True), ("user: 1000", "user", "1000"),
    ("restart: no", "restart", "no"), ("restart: false", "restart", "no"), ("restart: on-failure:3", "restart", "on-failure:3"),
    ("expose: [80, '90/udp']", "expose", ("80/tcp", "90/udp")),
    ("ports: [{target: 80, published: 81, host_ip: 127.0.0.1, protocol: udp, mode: host}]", "ports",
     (PortMapping(80, "81", "127.0.0.1", "udp", "host"),)),
    ("volumes: [{type: tmpfs, target: /q, tmpfs: {size: 10m, mode: 0755}}]", "mounts",
     (Mount("tmpfs", "", "/q", tmpfs_size=10 << 20, tmpfs_mode=0o755),)),
    ("volumes: [{type: volume, source: data, target: /c, read_only: true, volume: {nocopy: true, subpath: s}}]", "mounts",
     (Mount("volume", "data", "/c", read_only=True, nocopy=True, subpath="s"),)),
    ("healthcheck: {test: curl x, interval: 1m30s, retries: 5}", "healthcheck",
     HealthCheck(("CMD-SHELL", "curl x"), interval=90 * 10**9, retries=5)),
    ("healthcheck: {disable: true}", "healthcheck", HealthCheck(("NONE",), disabled=True)),
    ("extra_hosts: {h: [1.1.1.1, '::1']}", "extra_hosts", (("h", "1.1.1.1"), ("h", "::1"))),
    ("sysctls: {net.core.somaxconn: 1024}", "sysctls", (("net.core.somaxconn", "1024"),)),
    ("scale: 3", "scale", 3), ("deploy: {replicas: 2}", "scale", 2), ("pull_policy: if_not_present", "pull_policy", "missing"),
    ("deploy: {restart_policy: {condition: on-failure, max_attempts: 3}}", "restart", "on-failure:3"),
    ("x-anything: {at: [all]}", "image", "a"),
])
def test_short_and_long_syntax_mean_what_they_mean(load: Load, body: str, field: str, value: object) -> None:
    assert getattr(web(load, body), field) == value


def test_limits_come_from_either_place(load: Load) -> None:
    limits = web(load, "mem_limit: 64m, cpus: 0.5, pids_limit: 9, shm_size: 1gb, ulimits: {nofile: 10, "
                       "core: {soft: 1, hard: 2}}, cpu_period: 50ms").limits
    assert (limits.memory, limits.nano_cpus, limits.pids, limits.shm_size) == (64 << 20, 500_000_000, 9, 1 << 30)
    assert limits.ulimits == (Ulimit("core", 1, 2), Ulimit("nofile", 10, 10)) and limits.cpu_period == 50_000
    limits = web(load, "deploy: {resources: {limits: {cpus: '1.5', memory: 1g}, reservations: {memory: 5m}}}").limits
    assert (limits.memory, limits.nano_cpus, limits.memory_reservation) == (1 << 30, 1_500_000_000, 5 << 20)


@pytest.mark.parametrize(("text", "message"), [
    ("services: {web: {image: a, build: .}}", "1:28: services.web.build is not supported yet"),
    ("services:\n  web:\n    image: a\n    secrets: [x]", "4:5: services.web.secrets is not supported yet"),
    ("services: {web: {image: a}}\nsecrets: {x: }", "2:1: secrets is not supported yet"),
    ("services: {web: {image: a}}\ninclude: [x]", "2:1: include is not supported yet"),
    ("services: {web: {image: a, deploy: {mode: global}}}", "1:37: services.web.deploy.mode is not supported yet"),
    ("services: {web: {image: a, healthcheck: {foo: 1}}}", "1:42: services.web.healthcheck.foo: unknown key"),
    ("services:\n  web:\n    image: a\n    comand: x", "4:5: services.web.comand: unknown key; did you mean 'command'?"),
    ("service: {}", "1:1: service: unknown key; did you mean 'services'?"),
    ("volumes: {a: }", "1:1: the file describes no services"),
    ("services: {web: {command: x}}", "1:17: services.web has no image"),
    ("services: [a]", "1:11: services: expected a mapping, found a list"),
    ("services: {web: {image: [a]}}", "1:25: services.web.image: expected a single value, found a list"),
    ("services: {web: {image: a, ports: '80'}}", "1:35: services.web.ports: expected a list, found '80'"),
    ("services: {web: {image: a, ports: ['x:80']}}",
     "1:36: services.web.ports[0]: 'x:80' is not a port mapping: 'x' is no port or range of ports"),
    ("services: {web: {image: a, mem_limit: 5x}}",
     "1:39: services.web.mem_limit: '5x' is not a size such as 64m, 1.5g or 1048576"),
    ("services: {web: {image: a, privileged: maybe}}",
     "1:40: services.web.privileged: 'maybe' is neither true nor false"),
    ("services: {web: {image: a, cpus: x}}", "1:34: services.web.cpus: 'x' is not a number"),
    ("services: {web: {image: a, scale: -1}}", "1:35: services.web.scale: -1 is less than 0"),
    ("services: {web: {image: a, scale: 1001}}", "1:35: services.web.scale: 1001 containers are more than 1000"),
    ("services: {web: {image: a, mem_limit: 99999999999999g}}", "1:39: services.web.mem_limit: the number is too large"),
    ("services: {web: {image: a, cpus: inf}}", "1:34: services.web.cpus: inf is not between 0 and 1000000"),
    ("services: {web: {image: a, ulimits: {n: -5}}}",
     "1:41: services.web.ulimits.n: a limit is -1 (none) or a number that is not too large"),
    ("services: {web: {image: a, restart: sometimes}}",
     "1:37: services.web.restart: 'sometimes' is none of no, always, unless-stopped, on-failure[:tries]"),
    ("services: {web: {image: a, pull_policy: x}}",
     "1:41: services.web.pull_policy: 'x' is none of always, never, missing, if_not_present"),
    ("services: {web: {image: a, environment: {A: [1]}}}",
     "1:45: services.web.environment.A: expected a single value, found a list"),
    ("services: {web: {image: a, networks: [nope]}}",
     "1:12: services.web.networks: there is no network 'nope' under `networks`"),
    ("services: {web: {image: a, volumes: ['nope:/a']}}",
     "1:12: services.web.volumes: there is no volume 'nope' under `volumes`"),
    ("services: {web: {image: a, volumes: ['/a:/b', '/c:/b']}}", "1:47: services.web.volumes[1]: /b has a mount already"),
    ("services: {web: {image: a, depends_on: [nope]}}", "1:12: services.web.depends_on: there is no service 'nope'"),
    ("services: {web: {image: a, depends_on: {db: {condition: x}}}}",
     "1:57: services.web.depends_on.db.condition: 'x' is none of service_started, service_healthy, "
     "service_completed_successfully"),
    ("services: {a: {image: a, depends_on: [b]}, b: {image: b, depends_on: [a]}}",
     "1:12: services depend on each other in a circle: a -> b -> a"),
    ("services: {web: {image: a, network_mode: host, networks: [default]}}",
     "1:42: services.web.network_mode: network_mode and networks exclude each other"),
    ("services: {web: {image: a, network_mode: host, ports: [80]}}",
     "1:55: services.web.ports: network_mode host publishes no ports"),
    ("services: {web: {image: a, scale: 2, container_name: xx}}",
     "1:54: services.web.container_name: a service with a container_name runs once, not with a scale of 2"),
    ("services: {web: {image: a}}\nvolumes: {v: {external: true, driver: x}}",
     "2:39: volumes.v.driver: an external object takes only its name; it is not made here"),
    ("services: {a b: {image: a}}", "1:17: services: 'a b' is no name for a service (letters, digits, `.`, `_`, `-`)"),
    ("services: {web: {image: '${X:?set X}'}}", "1:25: services.web.image: required variable X is missing a value: set X"),
    ("name: A B\nservices: {web: {image: a}}", "invalid project name 'A B': it consists of lowercase letters, digits, `-` "
     "and `_`, and starts with a letter or digit"),
])
def test_what_is_wrong_is_named_with_file_line_and_column(load: Load, text: str, message: str) -> None:
    with pytest.raises(ComposeError) as caught:
        load(text)
    assert str(caught.value) == (message if message.startswith("invalid") else f"compose.yaml:{message}")


def test_env_is_read_and_the_environment_wins(load: Load) -> None:
    text = "services: {web: {image: 'a:${TAG}', environment: {SEEN: , OTHER: '${B}'}}}"
    service = load(text, files={".env": "TAG=1\nSEEN=$TAG\nB=b\n"}, env={"B": "outside"}).service("web")
    assert service.image == "a:1" and service.environment == (("OTHER", "outside"), ("SEEN", "1"))


def test_env_files_come_before_environment_and_in_their_order(load: Load) -> None:
    service = web(load, "env_file: [one, {path: two}, {path: none, required: false}], environment: {C: mine}",
                  files={"one": "A=1\nB=1\nC=1\n", "two": "B=2\nD=${B}\n"})
    assert dict(service.environment) == {"A": "1", "B": "2", "C": "mine", "D": "2"}


def test_a_missing_env_file_is_named_where_it_is_asked_for(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ComposeError) as caught:
        web(load, "env_file: none")
    assert str(caught.value) == f"compose.yaml:1:38: {tmp_path}/shop/none cannot be read: no such file or directory"


def test_the_env_file_of_a_hidden_service_need_not_be_there(load: Load) -> None:
    text = "services: {web: {image: a}, debug: {image: b, profiles: [dev], env_file: none}}"
    assert [s.name for s in load(text).services] == ["web"]
    with pytest.raises(ComposeError, match="cannot be read"):
        load(text, profiles=["dev"])


def test_variables_that_are_not_set_are_told_once(load: Load) -> None:
    project = load("services: {web: {image: 'a$X$X', command: $Y}}")
    assert project.warnings == ("the variable X is not set; an empty string takes its place",
                                "the variable Y is not set; an empty string takes its place")


def test_profiles_choose_services_and_hidden_ones_are_no_orphans(load: Load) -> None:
    text = ("services: {web: {image: a}, debug: {image: b, profiles: [dev]}, "
            "tool: {image: c, profiles: [ops, dev], depends_on: [web]}}")
    assert [s.name for s in load(text).services] == ["web"]
    assert load(text).other_services == ("debug", "tool")
    assert [s.name for s in load(text, profiles=["ops"]).services] == ["tool", "web"]
    assert [s.name for s in load(text, env={"COMPOSE_PROFILES": "dev"}).services] == ["debug", "tool", "web"]
    assert [s.name for s in load(text, profiles=["*"]).services] == ["debug", "tool", "web"]


def test_depending_on_a_hidden_service_is_an_error_unless_it_is_optional(load: Load) -> None:
    hidden = "db: {image: b, profiles: [dev]}"
    with pytest.raises(ComposeError, match=r"the service 'db' is enabled only by a profile \(dev\)"):
        load(f"services: {{web: {{image: a, depends_on: [db]}}, {hidden}}}")
    optional = load(f"services: {{web: {{image: a, depends_on: {{db: {{required: false}}}}}}, {hidden}}}")
    assert optional.service("web").depends_on == ()


def test_only_what_is_used_is_made(load: Load) -> None:
    project = load("services: {web: {image: a, networks: [n]}}\nnetworks: {n: , m: }\nvolumes: {v: }")
    assert [n.key for n in project.networks] == ["n"] and project.volumes == ()


def test_names_and_external_objects(load: Load) -> None:
    project = load("services: {web: {image: a, networks: [n, e], volumes: ['v:/v', 'w:/w']}}\n"
                   "networks: {n: {name: own}, e: {external: true}}\n"
                   "volumes: {v: {external: true, name: 'x${S}'}, w: {labels: {k: v}, driver_opts: {type: nfs}}}", env={"S": "y"})
    assert [(n.name, n.external) for n in project.networks] == [("e", True), ("own", False)]
    assert [(v.name, v.external) for v in project.volumes] == [("xy", True), ("shop_w", False)]
    assert project.volume("w").labels == (("k", "v"),) and project.volume("w").driver_opts == (("type", "nfs"),)


@pytest.mark.parametrize(("explicit", "env", "in_file", "directory", "name"), [
    ("a", {"COMPOSE_PROJECT_NAME": "b"}, "c", "/x/d", "a"), (None, {"COMPOSE_PROJECT_NAME": "b"}, "c", "/x/d", "b"),
    (None, {}, "c", "/x/d", "c"), (None, {}, "", "/x/My App.2", "myapp2"), (None, {}, "", "/x/_-a_b-", "a_b-"),
])
def test_where_a_stack_gets_its_name(explicit: str | None, env: dict[str, str], in_file: str, directory: str, name: str) -> None:
    assert project_name(explicit, env, in_file, directory) == name


def test_a_directory_without_a_letter_gives_no_name() -> None:
    with pytest.raises(ComposeError, match="makes no project name; give one with -p"):
        project_name(None, {}, "", "/x/___")


def test_the_name_can_be_used_in_the_file(load: Load) -> None:
    project = load("name: my-${X}\nservices: {web: {image: a, hostname: '${COMPOSE_PROJECT_NAME}-h'}}", env={"X": "x"})
    assert project.name == "my-x" and project.service("web").hostname == "my-x-h"


def test_files_are_found_upwards_with_their_override(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for name in ("compose.yml", "docker-compose.yaml", "docker-compose.override.yml"):
        (tmp_path / name).write_text("")
    assert find_files(str(inner), {}) == [str(tmp_path / "compose.yml"), str(tmp_path / "docker-compose.override.yml")]
    assert find_files(str(inner), {"COMPOSE_FILE": "x.yaml:/y.yaml"}) == [str(inner / "x.yaml"), "/y.yaml"]


def test_no_file_at_all_is_an_error_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="name one with -f"):
        find_files("/proc/self", {})


def test_version_is_obsolete_and_said_so(load: Load) -> None:
    project = load("version: '3.8'\nservices: {web: {image: a}}")
    assert project.warnings == ("compose.yaml:1:1: `version` is obsolete and has no meaning; remove it",)


def test_a_password_in_the_environment_stays_out_of_reprs(load: Load) -> None:
    assert "hunter2" not in repr(load("services: {web: {image: a, environment: {P: hunter2}}}"))
