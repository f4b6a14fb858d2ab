"""Several files as one. Compared with `docker compose config` 2.40."""

from __future__ import annotations

import pytest

from backend.compose.model import Dependency, Logging, PortMapping
from tests.unit.compose.conftest import Load

TAIL = "\nvolumes: {v: , w: }\nnetworks: {n: , m: }\n"


def merged(load: Load, base: str, over: str):
    return load(f"services: {{web: {{image: a, {base}}}, db: {{image: b}}}}{TAIL}", f"services: {{web: {{{over}}}}}").service("web")


@pytest.mark.parametrize(("base", "over", "field", "value"), [
    ("user: u", "image: b", "image", "b"), ("user: u", "image: b", "user", "u"), ("user: u", "user: ", "user", "u"),
    ("command: [a, b]", "command: [c]", "command", ("c",)), ("entrypoint: a b", "entrypoint: [c]", "entrypoint", ("c",)),
    ("environment: [A=1, B=1]", "environment: {B: 2, C: 3}", "environment", (("A", "1"), ("B", "2"), ("C", "3"))),
    ("labels: {a: 1}", "labels: [a=2, b=3]", "labels", (("a", "2"), ("b", "3"))),
    ("cap_add: [A, B]", "cap_add: [B, C]", "cap_add", ("A", "B", "C")),
    ("dns: 1.1.1.1", "dns: [2.2.2.2, 1.1.1.1]", "dns", ("1.1.1.1", "2.2.2.2")),
    ("tmpfs: /a", "tmpfs: /b", "tmpfs", ("/a", "/b")),
    ("ports: ['80:80', '81:81']", "ports: ['80:80', '82:82']", "ports",
     (PortMapping(80, "80", "", "tcp"), PortMapping(81, "81", "", "tcp"), PortMapping(82, "82", "", "tcp"))),
    ("ports: ['127.0.0.1:80:80']", "ports: [{target: 80, published: 80, host_ip: 127.0.0.1}]", "ports",
     (PortMapping(80, "80", "127.0.0.1", "tcp"),)),
    ("depends_on: [db]", "depends_on: {db: {condition: service_healthy}}", "depends_on", (Dependency("db", "service_healthy"),)),
    ("logging: {driver: a, options: {x: 1}}", "logging: {options: {y: 2}}", "logging", Logging("a", (("x", "1"), ("y", "2")))),
    ("logging: {driver: a, options: {x: 1}}", "logging: {driver: b, options: {y: 2}}", "logging", Logging("b", (("y", "2"),))),
    ("ports: ['80:80']", "ports: !override ['81:81']", "ports", (PortMapping(81, "81", "", "tcp"),)),
    ("ports: ['80:80']", "ports: !reset []", "ports", ()),
    ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", "environment", (("B", "2"),)),
    ("user: !reset u", "tty: true", "user", ""),
])
def test_the_override_rules(load: Load, base: str, over: str, field: str, value: object) -> None:
    assert getattr(merged(load, base, over), field) == value


def test_a_later_mount_on_the_same_path_takes_the_place_of_the_earlier(load: Load) -> None:
    mounts = merged(load, "volumes: ['v:/a', './x:/b']", "volumes: ['w:/a:ro']").mounts
    assert [(m.source.rpartition("/")[2], m.target, m.read_only) for m in mounts] == [("w", "/a", True), ("x", "/b", False)]


def test_a_health_checks_test_is_replaced_and_the_rest_is_merged(load: Load) -> None:
    check = merged(load, "healthcheck: {test: [CMD, a, b], interval: 5s}", "healthcheck: {test: [CMD, c]}").healthcheck
    assert check is not None and check.test == ("CMD", "c") and check.interval == 5 * 10**9


def test_networks_merge_by_name_in_both_forms(load: Load) -> None:
    uses = merged(load, "networks: [n]", "networks: {m: {aliases: [x]}, n: {aliases: [y]}}").networks
    assert [(u.network, u.aliases) for u in uses] == [("n", ("y",)), ("m", ("x",))]


def test_new_services_volumes_and_names_come_from_later_files(load: Load) -> None:
    project = load("name: one\nservices: {web: {image: a}}", "name: two\nservices: {db: {image: b, volumes: ['v:/v']}}\nvolumes: {v: }")
    assert project.name == "two" and [s.name for s in project.services] == ["db", "web"]
    assert [f.rpartition("/")[2] for f in project.files] == ["compose.yaml", "more1.yaml"]
    assert project.volumes[0].name == "two_v"


def test_an_error_names_the_file_that_has_it(load: Load) -> None:
    with pytest.raises(Exception, match=r"^more1\.yaml:1:18: services\.web\.buld: unknown key"):
        load("services: {web: {image: a}}", "services: {web: {buld: x}}")
