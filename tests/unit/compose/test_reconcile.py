"""From what shall be and what is there to a plan: the plan's text is what the user sees before anything happens."""

from __future__ import annotations

import dataclasses

import pytest

from backend.compose.errors import ComposeError
from backend.compose.model import Project
from backend.compose.observed import Observed, ObservedContainer, ObservedNetwork, ObservedVolume, short_reference
from backend.compose.reconcile import UpOptions, plan_pull, reconcile
from backend.compose.stopping import plan_down, plan_start, plan_stop
from backend.compose.theirs import their_hash
from tests.unit.compose.conftest import Load
from tests.unit.compose.world import World

STACK = """
services:
  web: {image: a, depends_on: [db], volumes: [data:/d, /anon], networks: [front, default]}
  db: {image: b}
volumes: {data: }
networks: {front: }
"""


def up(world: World, project: Project, **options: object) -> str:
    plan = reconcile(project, world.observed(), UpOptions(**options))  # type: ignore[arg-type]
    world.carry_out(plan)
    return str(plan)


def lines(text: str) -> list[str]:
    """Operations and causes without numbers and edges."""
    return [" ".join(line.split()[1:]).partition(" after ")[0] for line in text.splitlines()]


def test_the_first_up_makes_everything_in_order(load: Load) -> None:
    world = World("shop", images=("a",))
    assert up(world, load(STACK)) == """\
  1  create network shop_default  (not there yet)
  2  create network shop_front  (not there yet)
  3  create volume shop_data  (not there yet)
  4  pull image b  (not there yet)
  5  create container shop-db-1  (the service db has no container 1)  after 1, 4
  6  start container shop-db-1  (it is new)  after 5
  7  create container shop-web-1  (the service web has no container 1)  after 1, 2, 3
  8  start container shop-web-1  (it is new)  after 6, 7"""


def test_a_second_up_with_nothing_changed_is_an_empty_plan(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    plan = reconcile(load(STACK), world.observed())
    assert plan.is_empty
    assert str(plan) == "shop: nothing to do"


@pytest.mark.parametrize("change", [
    "services: {db: {environment: {A: 1}}}", "services: {db: {command: x}}", "services: {db: {mem_limit: 1g}}",
    "services: {db: {ports: [80]}}", "services: {db: {labels: {a: b}}}", "services: {db: {restart: always}}",
    "services: {db: {healthcheck: {test: x}}}", "services: {db: {networks: {default: {aliases: [x]}}}}",
    "services: {db: {volumes: ['data:/x']}}", "services: {db: {stop_signal: SIGINT}}",
])
def test_a_change_that_a_container_is_made_from_makes_it_anew(load: Load, change: str) -> None:
    world = World("shop")
    up(world, load(STACK))
    old = world.find("shop-db-1").id
    assert lines(up(world, load(STACK, change))) == [
        f"create container {old[:12]}_shop-db-1 (its configuration changed)",
        "stop container shop-db-1 (its configuration changed)",
        "remove container shop-db-1 (its configuration changed)",
        f"rename container {old[:12]}_shop-db-1 to shop-db-1 (its configuration changed)",
        "start container shop-db-1 (it is new)",
    ]
    assert reconcile(load(STACK, change), world.observed()).is_empty


@pytest.mark.parametrize("change", [
    "services: {web: {depends_on: {db: {required: false}}}}", "services: {db: {pull_policy: missing}}",
    "services: {db: {scale: 1}}", "services: {db: {attach: false}}", "services: {db: {x-note: y}}", "x-all: 1",
])
def test_a_change_that_no_container_is_made_from_changes_nothing(load: Load, change: str) -> None:
    world = World("shop")
    up(world, load(STACK))
    assert reconcile(load(STACK, change), world.observed()).is_empty


def test_a_newer_image_under_the_same_name_makes_the_container_anew(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    world.images["b:latest"] = "sha256:" + "5" * 64
    assert "(b is another image now)" in str(reconcile(load(STACK), world.observed()))


def test_anonymous_volumes_go_over_to_the_new_container(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    before = {m.destination: m.name for m in world.find("shop-web-1").mounts}
    up(world, load(STACK, "services: {web: {user: x}}"))
    after = {m.destination: m.name for m in world.find("shop-web-1").mounts}
    assert before["/anon"] == after["/anon"] and len(after["/anon"]) == 64


def test_stopped_containers_are_started_again_and_dead_ones_made_anew(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    world.change("shop-db-1", state="exited")
    world.change("shop-web-1", state="created")
    assert lines(up(world, load(STACK))) == ["start container shop-db-1 (it is exited)",
                                             "start container shop-web-1 (it is created)"]
    world.change("shop-db-1", state="dead")
    assert "(it is dead)" in str(reconcile(load(STACK), world.observed()))


def test_scaling_up_and_down(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    assert lines(up(world, load(STACK, "services: {db: {scale: 3}}"))) == [
        "create container shop-db-2 (the service db has no container 2)", "start container shop-db-2 (it is new)",
        "create container shop-db-3 (the service db has no container 3)", "start container shop-db-3 (it is new)",
    ]
    assert lines(up(world, load(STACK, "services: {db: {scale: 0}}")))[:2] == [
        "stop container shop-db-1 (the service db has a scale of 0)",
        "remove container shop-db-1 (the service db has a scale of 0)",
    ]
    assert [c.name for c in world.containers.values()] == ["shop-web-1"]


def test_conditions_are_waited_for_only_by_who_starts(load: Load) -> None:
    text = """
services:
  web: {image: a, depends_on: {db: {condition: service_healthy}, job: {condition: service_completed_successfully}}}
  db: {image: a, healthcheck: {test: x}}
  job: {image: a}
"""
    world = World("shop")
    assert lines(up(world, load(text)))[1:] == [
        "create container shop-db-1 (the service db has no container 1)", "start container shop-db-1 (it is new)",
        "create container shop-job-1 (the service job has no container 1)", "start container shop-job-1 (it is new)",
        "create container shop-web-1 (the service web has no container 1)",
        "wait until shop-db-1 is healthy (others depend on it)",
        "wait until shop-job-1 has ended well (others depend on it)",
        "start container shop-web-1 (it is new)",
    ]
    assert reconcile(load(text), world.observed()).is_empty


def test_restart_along_follows_a_replaced_dependency(load: Load) -> None:
    text = "services: {web: {image: a, depends_on: {db: {condition: service_started, restart: true}}}, db: {image: b}}"
    world = World("shop")
    up(world, load(text))
    assert lines(up(world, load(text, "services: {db: {user: x}}")))[-1] == "restart container shop-web-1 (db was replaced)"


def test_a_changed_network_goes_and_comes_with_its_containers(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    anonymous = {m.name for m in world.find("shop-web-1").mounts if m.is_anonymous}
    changed = STACK.replace("networks: {front: }", "networks: {front: {internal: true}}")
    assert lines(up(world, load(changed))) == [
        "stop container shop-web-1 (its network changed)", "remove container shop-web-1 (its network changed)",
        "remove network shop_front (its configuration changed)", "create network shop_front (its configuration changed)",
        "create container shop-web-1 (its network changed)", "start container shop-web-1 (it is new)",
    ]
    assert {m.name for m in world.find("shop-web-1").mounts if m.is_anonymous} == anonymous
    assert reconcile(load(changed), world.observed()).is_empty


def test_a_network_that_was_made_again_outside_is_noticed(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    world.networks["shop_front"] = dataclasses.replace(world.networks["shop_front"], id="other")
    assert "(the network shop_front is another one now)" in str(reconcile(load(STACK), world.observed()))


def test_a_changed_volume_is_kept_and_said_so(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    plan = reconcile(load(STACK.replace("{data: }", "{data: {labels: {a: b}}}")), world.observed())
    assert plan.is_empty
    assert plan.warnings == ("the volume 'shop_data' is kept as it is although its description changed: only removing it, "
                             "with its data, would change it",)


def test_what_is_not_ours_is_not_taken(load: Load) -> None:
    world = World("shop")
    world.networks["shop_default"] = ObservedNetwork("1", "shop_default", "", "")
    with pytest.raises(ComposeError, match="the network 'shop_default' is there already and was not made by a stack"):
        reconcile(load(STACK), world.observed())
    world.networks["shop_default"] = ObservedNetwork("1", "shop_default", "other", "default")
    with pytest.raises(ComposeError, match="belongs to the stack 'other'"):
        reconcile(load(STACK), world.observed())


def test_external_objects_must_be_there_and_are_never_made_or_removed(load: Load) -> None:
    text = ("services: {web: {image: a, networks: [n], volumes: ['v:/v']}}\n"
            "networks: {n: {external: true}}\nvolumes: {v: {external: true}}")
    world = World("shop")
    with pytest.raises(ComposeError, match="the external network 'n' does not exist; create it first"):
        reconcile(load(text), world.observed())
    world.networks["n"] = ObservedNetwork("1", "n", "", "")
    with pytest.raises(ComposeError, match="the external volume 'v' does not exist"):
        reconcile(load(text), world.observed())
    world.volumes["v"] = ObservedVolume("v", "", "")
    assert lines(up(world, load(text))) == ["create container shop-web-1 (the service web has no container 1)",
                                            "start container shop-web-1 (it is new)"]
    assert lines(str(plan_down(load(text), world.observed(), volumes=True))) == [
        "stop container shop-web-1 (the stack goes down)", "remove container shop-web-1 (the stack goes down)"]


def test_an_image_that_must_not_be_pulled_is_missed_before_anything_is_done(load: Load) -> None:
    with pytest.raises(ComposeError, match="the image 'zz' of the service 'web' is not there, and its pull_policy is never"):
        reconcile(load("services: {web: {image: zz, pull_policy: never}}"), World("shop").observed())


def test_pulling_always_is_a_plan_of_its_own(load: Load) -> None:
    project = load("services: {web: {image: a, pull_policy: always}, db: {image: b}, x: {image: c, pull_policy: never}}")
    observed = World("shop").observed()
    assert lines(str(plan_pull(project, observed))) == ["pull image a (pull_policy is always)"]
    assert lines(str(plan_pull(project, observed, every=True))) == ["pull image b (asked for)",
                                                                    "pull image a (pull_policy is always)"]


def test_orphans_are_told_and_removed_only_when_asked(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    smaller = "services: {web: {image: a, volumes: ['data:/d', /anon], networks: [front, default]}}\n" \
              "volumes: {data: }\nnetworks: {front: }"
    plan = reconcile(load(smaller), world.observed())
    assert plan.is_empty and "shop-db-1 (--remove-orphans removes them)" in plan.warnings[0]
    assert lines(up(world, load(smaller), remove_orphans=True)) == [
        "stop container shop-db-1 (there is no service db any more)",
        "remove container shop-db-1 (there is no service db any more)"]


def test_options(load: Load) -> None:
    world = World("shop")
    assert "start" not in up(world, load(STACK), start=False)
    up(world, load(STACK))
    changed = load(STACK, "services: {db: {user: x}}")
    assert reconcile(changed, world.observed(), UpOptions(no_recreate=True)).is_empty
    assert str(reconcile(load(STACK), world.observed(), UpOptions(force_recreate=True))).count("rename container") == 2


def test_a_stack_that_docker_compose_made_is_adopted_as_it_is(load: Load) -> None:
    project = load(STACK)
    world = World("shop")
    up(world, project)
    for container in list(world.containers.values()):
        world.change(container.id, own_hash="", their_hash=their_hash(project.service(container.service)))
    assert reconcile(project, world.observed()).is_empty
    world.change("shop-db-1", their_hash="0" * 64)
    assert "(its configuration changed since docker compose made it)" in str(reconcile(project, world.observed()))


def test_down_stops_dependents_first_and_keeps_volumes(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    plan = plan_down(load(STACK), world.observed())
    assert str(plan) == """\
  1  stop container shop-web-1  (the stack goes down)
  2  stop container shop-db-1  (the stack goes down)  after 1
  3  remove container shop-db-1  (the stack goes down)  after 2
  4  remove container shop-web-1  (the stack goes down)  after 1
  5  remove network shop_default  (the stack goes down)  after 3, 4
  6  remove network shop_front  (the stack goes down)  after 3, 4"""
    world.carry_out(plan)
    assert not world.containers and not world.networks and list(world.volumes) == ["shop_data"]
    assert lines(str(plan_down("shop", world.observed(), volumes=True))) == [
        "remove volume shop_data (volumes were asked to go too)"]


def test_down_with_volumes_takes_the_anonymous_ones_too(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    up(world, load(STACK, "services: {web: {user: x}}"))
    anonymous = next(m.name for m in world.find("shop-web-1").mounts if m.is_anonymous)
    world.volumes[anonymous] = ObservedVolume(anonymous, "", "")
    assert f"remove volume {anonymous} (anonymous volume of shop-web-1)" in lines(
        str(plan_down("shop", world.observed(), volumes=True)))
    assert anonymous not in str(plan_down("shop", world.observed()))


def test_down_leaves_orphans_and_the_networks_that_they_use(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    plan = plan_down(load("services: {web: {image: a}}"), world.observed())
    assert lines(str(plan))[-1] == "remove network shop_front (the stack goes down)"
    assert plan.warnings[1] == "the network shop_default stays: a container uses it"


def test_stop_and_start_follow_the_labels(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    stop = plan_stop("shop", world.observed(), timeout=3)
    assert lines(str(stop)) == ["stop container shop-web-1 (the stack stops)", "stop container shop-db-1 (the stack stops)"]
    world.carry_out(stop)
    assert lines(str(plan_start("shop", world.observed()))) == ["start container shop-db-1 (it is exited)",
                                                               "start container shop-web-1 (it is exited)"]
    assert plan_stop("shop", world.observed()).is_empty


def test_a_circle_in_foreign_labels_does_not_hang() -> None:
    from backend.compose.model import Dependency

    def made(name: str, other: str) -> ObservedContainer:
        return ObservedContainer(name, name, name, 1, "running", "", "a", "", depends_on=(Dependency(other),))

    assert len(plan_stop("x", Observed("x", (made("a", "b"), made("b", "a")))).steps) == 2


@pytest.mark.parametrize(("reference", "short"), [
    ("busybox", "busybox:latest"), ("docker.io/library/busybox", "busybox:latest"), ("a/b:1", "a/b:1"),
    ("localhost:5000/x", "localhost:5000/x:latest"), ("x:1@sha256:" + "a" * 64, "x@sha256:" + "a" * 64),
])
def test_references_as_engines_list_them(reference: str, short: str) -> None:
    assert short_reference(reference) == short


def test_what_a_broken_off_up_left_is_put_right(load: Load) -> None:
    world = World("shop")
    up(world, load(STACK))
    changed = load(STACK, "services: {db: {user: x}}")
    plan = reconcile(changed, world.observed())
    world.carry_out(dataclasses.replace(plan, steps=plan.steps[:1]))     # only the new one was made
    assert lines(up(world, load(STACK))) == [f"remove container {world.done[-2].split()[-1]} "
                                             "(it was left by an up that was broken off)"]
    world.carry_out(dataclasses.replace(plan, steps=plan.steps[:1]))
    again = str(reconcile(changed, world.observed())).splitlines()
    assert "remove container" in again[0] and again[1].endswith("after 1"), "the name must be free before it is taken"
    world.do(reconcile(load(STACK), world.observed()).steps[0].operation)
    world.carry_out(dataclasses.replace(plan, steps=plan.steps[:3]))     # the old one has gone, the name has not come
    assert [line.partition(" ")[0] for line in lines(up(world, changed))] == ["rename", "start"]
    assert world.find("shop-db-1").state == "running" and reconcile(changed, world.observed()).is_empty
