"""The whole project: from the merged tree to the model. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

from backend.compose.errors import ComposeError, Mark
from backend.compose.model import IpamPool, Network, NetworkUse, Project, Service, Volume
from backend.compose.nodes import Mapping, Node
from backend.compose.read_service import Surroundings, read_service
from backend.compose.section import Section

TOP_NOT_YET = frozenset({"include", "models", "secrets", "configs"})
_NAME = re.compile(r"[a-zA-Z0-9._-]+\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the project is called and where it comes from."""

    name: str
    directory: str
    files: tuple[str, ...]
    profiles: tuple[str, ...]
    env_files: tuple[str, ...] = ()


def read_project(tree: Mapping, identity: Identity, around: Surroundings, warnings: Seq[str] = ()) -> Project:
    """The project that *tree* (merged, interpolated) describes.

    Raises:
        ComposeError: the first thing that is wrong, with its place.
    """
    top = Section(tree, "")
    top.text("name")
    notes = list(warnings)
    if top.take("version") is not None:
        notes.append(f"{top.where('version')}: `version` is obsolete and has no meaning; remove it")
    everything = {name: _service(name, node, around) for name, node in top.sections("services")}
    networks = {key: _network(key, node, identity.name) for key, node in top.sections("networks")}
    volumes = {key: _volume(key, node, identity.name) for key, node in top.sections("volumes")}
    top.finish(TOP_NOT_YET)
    if not everything:
        raise ComposeError("the file describes no services", tree.mark)
    enabled = {n: s for n, s in everything.items() if around.enables(s.profiles)}
    places = _places(tree)
    ready = tuple(
        _resolved(s, enabled=enabled, everything=everything, networks=networks, volumes=volumes, place=places[s.name])
        for s in enabled.values()
    )
    _refuse_cycles(ready, places)
    return Project(
        name=identity.name,
        directory=identity.directory,
        files=identity.files,
        services=tuple(sorted(ready, key=lambda s: s.name)),
        networks=_used_networks(ready, networks, identity.name),
        volumes=_used_volumes(ready, volumes),
        other_services=tuple(sorted(set(everything) - set(enabled))),
        profiles=identity.profiles,
        env_files=identity.env_files,
        warnings=tuple(notes),
    )


def _places(tree: Mapping) -> dict[str, Mark]:
    services = tree.entries["services"]
    assert isinstance(services, Mapping)
    return services.keys


def _service(name: str, node: Node, around: Surroundings) -> Service:
    if not _NAME.match(name):
        raise ComposeError(f"services: {name!r} is no name for a service (letters, digits, `.`, `_`, `-`)", node.mark)
    return read_service(name, node, around)


def _resolved(
    service: Service, *, enabled: dict[str, Service], everything: dict[str, Service],
    networks: dict[str, Network], volumes: dict[str, Volume], place: Mark,
) -> Service:
    """The service with its default network, after every name that it uses has been found."""
    path = f"services.{service.name}"
    depends = []
    for dependency in service.depends_on:
        name = dependency.service
        if name in enabled:
            depends.append(dependency)
        elif name not in everything:
            raise ComposeError(f"{path}.depends_on: there is no service {name!r}", place)
        elif dependency.required:
            profiles = ", ".join(everything[name].profiles)
            why = f"the service {name!r} is enabled only by a profile ({profiles})"
            raise ComposeError(f"{path}.depends_on: {why}", place)
    for use in service.networks:
        if use.network not in networks and use.network != "default":
            raise ComposeError(f"{path}.networks: there is no network {use.network!r} under `networks`", place)
    for mount in service.mounts:
        if mount.kind == "volume" and mount.source and mount.source not in volumes:
            raise ComposeError(f"{path}.volumes: there is no volume {mount.source!r} under `volumes`", place)
    for mode in (service.network_mode, service.ipc, service.pid):
        if mode.startswith("service:"):
            raise ComposeError(f"{path}: the mode {mode!r} is not supported yet", place)
    uses = service.networks or (() if service.network_mode else (NetworkUse("default"),))
    return replace(service, depends_on=tuple(sorted(depends, key=lambda d: d.service)), networks=uses)


def _refuse_cycles(services: Seq[Service], places: dict[str, Mark]) -> None:
    edges = {s.name: [d.service for d in s.depends_on] for s in services}
    done: set[str] = set()
    for start in edges:
        trail: list[str] = []
        stack = [(start, 0)]
        while stack:
            name, index = stack.pop()
            if index == 0:
                if name in done:
                    continue
                if name in trail:
                    cycle = " -> ".join([*trail[trail.index(name):], name])
                    raise ComposeError(f"services depend on each other in a circle: {cycle}", places[name])
                trail.append(name)
            if index < len(edges[name]):
                stack += [(name, index + 1), (edges[name][index], 0)]
            else:
                trail.pop()
                done.add(name)


def _external(section: Section) -> bool:
    value = section.take("external")
    if isinstance(value, Mapping):
        raise section.error("external", "external.name is obsolete; write `external: true` and `name:` beside it")
    return section.yes("external")


def _network(key: str, node: Node, project: str) -> Network:
    section = Section(node, f"networks.{key}")
    external = _external(section)
    driver, pools, options = _ipam(section)
    network = Network(
        key=key,
        name=section.text("name") or (key if external else f"{project}_{key}"),
        driver=section.text("driver"),
        driver_opts=tuple(sorted(section.pairs("driver_opts"))),
        ipam_driver=driver,
        ipam_pools=pools,
        ipam_options=options,
        internal=section.yes("internal"),
        attachable=section.yes("attachable"),
        enable_ipv4=section.flag("enable_ipv4"),
        enable_ipv6=section.flag("enable_ipv6"),
        labels=tuple(sorted(section.pairs("labels"))),
        external=external,
    )
    section.finish()
    _only_a_name(section)
    return network


def _only_a_name(section: Section) -> None:
    """An external object exists already: describing it would be a wish that nobody carries out."""
    if section.yes("external"):
        for key in section.node.entries:
            if key not in ("external", "name") and not key.startswith("x-"):
                raise section.error(key, "an external object takes only its name; it is not made here")


def _ipam(section: Section) -> tuple[str, tuple[IpamPool, ...], tuple[tuple[str, str], ...]]:
    ipam = section.section("ipam")
    if ipam is None:
        return "", (), ()
    pools = []
    for path, item in ipam.items("config"):
        pool = Section(item, path)
        pools.append(IpamPool(pool.text("subnet"), pool.text("ip_range"), pool.text("gateway"),
                              tuple(sorted(pool.pairs("aux_addresses")))))
        pool.finish()
    driver, options = ipam.text("driver"), tuple(sorted(ipam.pairs("options")))
    ipam.finish()
    return driver, tuple(pools), options


def _volume(key: str, node: Node, project: str) -> Volume:
    section = Section(node, f"volumes.{key}")
    external = _external(section)
    volume = Volume(
        key=key,
        name=section.text("name") or (key if external else f"{project}_{key}"),
        driver=section.text("driver"),
        driver_opts=tuple(sorted(section.pairs("driver_opts"))),
        labels=tuple(sorted(section.pairs("labels"))),
        external=external,
    )
    section.finish()
    _only_a_name(section)
    return volume


def _used_networks(services: Seq[Service], networks: dict[str, Network], project: str) -> tuple[Network, ...]:
    used = {use.network for service in services for use in service.networks}
    networks = {"default": Network("default", f"{project}_default"), **networks}
    return tuple(networks[key] for key in sorted(used))


def _used_volumes(services: Seq[Service], volumes: dict[str, Volume]) -> tuple[Volume, ...]:
    used = {m.source for s in services for m in s.mounts if m.kind == "volume" and m.source}
    return tuple(volumes[key] for key in sorted(used))
