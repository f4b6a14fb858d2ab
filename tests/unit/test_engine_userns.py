"""ID ranges of user namespaces: two containers with the same range could read each other's files."""

from __future__ import annotations

import itertools
import random

import pytest

from backend.engine.record import IdRange
from backend.engine.userns import FREE, SIZE, IdRanges, Wish, check, mappings, pool, wish
from backend.errors import EngineError, InvalidArgument, ServerError
from backend.spec import api


def asked(text: str = "", *, default: str = "", **host: object) -> Wish | None:
    return wish(api.HostConfig(userns_mode=text, **host), default)


def test_what_can_be_asked_for() -> None:
    assert asked() is None and asked("host") is None and asked("host", default="auto") is None
    assert asked("auto") == asked(default="auto") == asked("private") == Wish()
    assert asked("auto:size=1000") == Wish(1000)
    assert asked("keep-id:uid=1000") == Wish(SIZE, 1000, 1000) and asked("keep-id:uid=5,gid=6") == Wish(SIZE, 5, 6)
    assert asked(security_opt=["userns=auto"]) == Wish() and asked(default="auto", security_opt=["userns=host"]) is None


@pytest.mark.parametrize("text", ["container:x", "auto:size=", "auto:size=-1", "auto:size=0", "auto:uid=5", "keep-id", "keep-id:uid=0",
                                  "keep-id:uid=70000", "auto:size=١", "auto:size=99999999999", "nonsense"])
def test_what_cannot_be_is_refused_with_the_modes_that_can(text: str) -> None:
    with pytest.raises(InvalidArgument):
        asked(text)


def test_a_flag_and_an_option_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="contradict"):
        asked("host", security_opt=["userns=auto"])


@pytest.mark.parametrize("host", [{"privileged": True}, {"network_mode": "host"}, {"pid_mode": "host"}])
def test_what_would_undo_the_namespace_is_refused_in_dockers_words(host: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="user namespaces"):
        check(api.HostConfig(**host), Wish(), builtin=True)
    check(api.HostConfig(**host), None, builtin=True)


def test_idmap_without_a_namespace_and_other_runtimes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="idmap"):
        check(api.HostConfig(binds=["/a:/b:ro,idmap"]), None, builtin=True)
    check(api.HostConfig(binds=["/a:/b:ro,idmap"]), Wish(), builtin=True)
    with pytest.raises(EngineError, match="runc"):
        check(api.HostConfig(runtime="runc"), Wish(), builtin=False)


def test_a_kept_id_is_the_same_on_both_sides_and_no_other_id_is_the_hosts() -> None:
    ids = IdRange(start=100000, size=65536, keep_uid=1000, keep_gid=0)
    rows = mappings(ids, 1000)
    assert [(r["containerID"], r["hostID"], r["size"]) for r in rows] == [(0, 100000, 1000), (1000, 1000, 1), (1001, 101001, 64535)]
    assert mappings(ids, -1) == [{"containerID": 0, "hostID": 100000, "size": 65536}]


def test_ranges_are_never_given_twice() -> None:
    chance = random.Random(7)
    ranges = IdRanges([(100000, 40 * SIZE)], [(100000 + 3 * SIZE, SIZE), (100000 + 7 * SIZE + 5, 10)])
    held: list[IdRange] = []
    for _ in range(400):
        if held and chance.random() < 0.45:
            held.remove(chance.choice(held))
            continue
        try:
            with ranges.claim(Wish(chance.choice([1000, SIZE, 2 * SIZE])), held) as made:
                assert made is not None
                held.append(made)
        except ServerError:
            assert sum(one.size for one in held) > 10 * SIZE, "it gave up although there was room"
        spans = sorted((one.start, one.start + one.size) for one in held)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        assert all(end <= 100000 + 3 * SIZE or start >= 100000 + 4 * SIZE for start, end in spans), "another user's"


def test_two_creates_at_once_get_two_ranges() -> None:
    ranges = IdRanges([FREE], [])
    with ranges.claim(Wish(), []) as one, ranges.claim(Wish(), []) as two:
        assert one is not None and two is not None and one.start != two.start


def test_the_space_comes_from_subuid_where_it_names_the_engine() -> None:
    both = "root:1:2\nslipway:500000:655360\nother:100000:65536\n"
    assert pool("slipway", both, both) == ([(500000, 655360)], [(1, 2), (100000, 65536)] * 2)
    assert pool("slipway", "", "")[0] == [FREE]
    assert pool("slipway", both, "slipway:7:8\n")[0] == [FREE], "one range must do for both"
    with pytest.raises(InvalidArgument, match="/etc/subuid"):
        pool("nobody", both, both)
