"""Which containers a list shows: Docker's filters."""

from __future__ import annotations

from collections.abc import Callable

from backend.engine.container import Container, Table
from backend.engine.views import state_name
from backend.errors import InvalidArgument
from backend.spec.filters import Filters

KEYS = frozenset({"ancestor", "before", "expose", "exited", "health", "id", "isolation", "is-task", "label", "name",
                  "network", "publish", "since", "status", "volume"})
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
HEALTH = ("none", "starting", "healthy", "unhealthy")


def select(table: Table, *, all_: bool, limit: int, filters: Filters,
           is_ancestor: Callable[[str, str], bool]) -> list[Container]:
    """The containers that a list shows, newest first. *is_ancestor*(name, image ID) tells whether a name means the
    image or one that it was made from."""
    filters.check(KEYS)
    _check(filters)
    everything = all_ or limit > 0 or "status" in filters or "exited" in filters
    chosen: list[Container] = []
    after = [table.get(ref).record.created for ref in filters.get("since")]
    before = [table.get(ref).record.created for ref in filters.get("before")]
    for one in sorted(table, key=lambda item: item.record.created, reverse=True):
        if limit > 0 and len(chosen) >= limit:
            break
        if not everything and not (one.status.active or one.status.state == "restarting"):
            continue
        created = one.record.created
        if (after and created <= max(after)) or (before and created >= min(before)):
            continue
        if _wanted(one, filters) and ("ancestor" not in filters or any(
                is_ancestor(name, one.record.image) for name in filters.get("ancestor"))):
            chosen.append(one)
    return chosen


def _check(filters: Filters) -> None:
    for key, what, known in (("status", "state", STATES), ("health", "health", HEALTH)):
        for value in filters.get(key):
            if value not in known:
                raise InvalidArgument(f"invalid filter '{key}={value}': invalid value for {what} ({value}): "
                                      f"must be one of {', '.join(known)}")
    for value in filters.get("exited"):
        if not value.lstrip("-").isdecimal() or not value.isascii():
            raise InvalidArgument(f"invalid filter 'exited={value}'")


def _wanted(one: Container, filters: Filters) -> bool:
    record, status = one.record, one.status
    if not (filters.fuzzy("id", record.id) and filters.fuzzy("name", f"/{record.name}", record.name)
            and filters.labels(record.config.labels) and filters.exact("status", state_name(one))):
        return False
    if "exited" in filters and not (status.state == "exited" and str(status.exit_code) in filters.get("exited")):
        return False
    if "health" in filters and (one.health.status if one.health is not None else "none") not in filters.get("health"):
        return False
    if filters.flag("is-task"):
        return False
    if "network" in filters:
        names = {*record.networks, *(end.network_id for end in status.endpoints),
                 *(end.network_name for end in status.endpoints)}
        if not any(name in names or any(len(name) >= 12 and known.startswith(name) for known in names)
                   for name in filters.get("network")):
            return False
    if "volume" in filters:
        mounted = {text for mount in record.mounts for text in (mount.volume, mount.target, mount.source) if text}
        if not mounted & set(filters.get("volume")):
            return False
    return _ports(one, filters)


def _ports(one: Container, filters: Filters) -> bool:
    if "expose" in filters and not _any_port(filters.get("expose"), set(one.record.config.exposed_ports)):
        return False
    published = {f"{port.host_port}/{port.protocol}" for port in one.status.ports}
    return "publish" not in filters or _any_port(filters.get("publish"), published)


def _any_port(wanted: tuple[str, ...], have: set[str]) -> bool:
    for text in wanted:
        numbers, _, protocol = text.partition("/")
        first, dash, last = numbers.partition("-")
        if not (first.isdecimal() and (not dash or last.isdecimal())) or protocol not in ("", "tcp", "udp", "sctp"):
            raise InvalidArgument(f"invalid filter: port {text!r}")
        span = range(int(first), min(int(last or first), 65535) + 1)
        if any(f"{number}/{protocol or 'tcp'}" in have for number in span):
            return True
    return False
