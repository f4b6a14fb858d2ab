"""The order in which containers stop: a database that stops before its application loses what the application writes last."""

from __future__ import annotations

from backend.engine.order import waves
from backend.engine.record import ContainerRecord
from backend.spec import api


def record(name: str, *, labels: dict[str, str] | None = None, **host: object) -> ContainerRecord:
    return ContainerRecord(id=name * 12, name=name, created=0, image="i", image_name="i", path="p", args=[],
                           config=api.ContainerConfig(labels=labels or {}), host_config=api.HostConfig(**host), networks={})


def names(*records: ContainerRecord) -> list[list[str]]:
    by_id = {one.id: one.name for one in records}
    return [sorted(by_id[identity] for identity in wave) for wave in waves(records)]


def compose(service: str, depends: str = "") -> dict[str, str]:
    prefix = "com.docker.compose."
    return {prefix + "project": "shop", prefix + "service": service, prefix + "depends_on": depends}


def test_containers_that_nobody_depends_on_stop_together() -> None:
    assert names(record("a"), record("b")) == [["a", "b"]]
    assert names() == []


def test_who_shares_a_namespace_a_link_or_volumes_stops_before_its_owner() -> None:
    assert names(record("n"), record("x", network_mode="container:n"), record("y", links=["/x:alias"]),
                 record("z", volumes_from=["y:ro"])) == [["z"], ["y"], ["x"], ["n"]]


def test_a_compose_service_stops_before_what_it_depends_on() -> None:
    web = record("w", labels=compose("web", "db:service_healthy:true,cache:service_started:false"))
    assert names(record("d", labels=compose("db")), web, record("c", labels=compose("cache"))) == [["w"], ["c", "d"]]


def test_a_circle_ends_all_the_same() -> None:
    assert names(record("a", links=["b"]), record("b", links=["a"]), record("c", links=["a"])) == [["c"], ["a", "b"]]
