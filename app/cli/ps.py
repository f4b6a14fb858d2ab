"""`slipway ps` and `slipway port`."""

from __future__ import annotations

from app.cli.errors import Failure
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine, quote
from app.cli.output import ago, cut, filters, labelled, short_id, show, size, when

TYPING = False
if TYPING:
    from typing import Any

_COLUMNS = [("CONTAINER ID", "ID"), ("IMAGE", "Image"), ("COMMAND", "Command"), ("CREATED", "RunningFor"),
            ("STATUS", "Status"), ("PORTS", "Ports"), ("NAMES", "Names")]
_PS = Parser(
    "ps [FLAGS]", "List containers.",
    Flag("all", short="a", about="stopped ones too"), Flag("quiet", short="q", about="IDs only"),
    Flag("no-trunc", about="nothing shortened"), Flag("size", short="s", about="with the sizes on disk"),
    Flag("last", "number", short="n", about="the last so many, stopped ones too"),
    Flag("latest", short="l", about="the last one"), Flag("filter", "list", short="f", about="KEY=VALUE"),
    Flag("format", "text", about="table, json, or a template such as {{.Names}}"), most=0)
_PORT = Parser("port CONTAINER [PORT]", "Show the published ports of a container.", least=1, most=2)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    if words[0] == "port":
        return _port(_PORT.parse(words[1:]), Engine(address))
    given = _PS.parse(words[1:])
    limit = 1 if given.latest else given.last
    sized = given.size or ".Size" in given.format
    found = Engine(address).json("GET", "/containers/json", {
        "all": given.all or limit is not None, "limit": limit, "size": sized or None,
        "filters": filters(given.filter)})
    if given.quiet and not given.format:
        for container in found:
            print(container["Id"] if given.no_trunc else short_id(container["Id"]))
        return 0
    columns = [*_COLUMNS, ("SIZE", "Size")] if given.size else _COLUMNS
    show([row(container, given) for container in found], columns, given.format)
    return 0


def row(container: dict[str, Any], given: Options) -> dict[str, Any]:
    """One container of the list as the table shows it."""
    command, names = container["Command"], [name.lstrip("/") for name in container["Names"] or []]
    if not given.no_trunc:
        names = [name for name in names if "/" not in name] or names
    rw, root = container.get("SizeRw"), container.get("SizeRootFs")
    return {
        "ID": container["Id"] if given.no_trunc else short_id(container["Id"]),
        "Image": _image(container, given.no_trunc),
        "Command": f'"{command if given.no_trunc else cut(command, 20)}"',
        "RunningFor": ago(container["Created"]),
        "CreatedAt": when(container["Created"]),
        "Status": container["Status"],
        "State": container.get("State", ""),
        "Ports": ports(container.get("Ports") or []),
        "Names": ",".join(names),
        **labelled(container.get("Labels")),
        "Mounts": ",".join(mount.get("Name") or mount["Source"] for mount in container.get("Mounts") or []),
        "LocalVolumes": str(sum(1 for mount in container.get("Mounts") or [] if mount["Type"] == "volume")),
        "Platform": None,
        "Networks": ",".join((container.get("NetworkSettings") or {}).get("Networks") or {}),
        "Size": size(rw or 0) + (f" (virtual {size(root)})" if root else ""),
    }


def _image(container: dict[str, Any], whole: bool) -> str:
    image = str(container["Image"]) or "<no image>"
    return image if whole or not image.startswith("sha256:") else short_id(image)


def ports(found: list[dict[str, Any]]) -> str:
    """Ports as in Docker's table."""
    open_, published = [], []
    for port in sorted(found, key=lambda p: (p["PrivatePort"], p["Type"], p.get("IP", ""), p.get("PublicPort", 0))):
        target = f"{port['PrivatePort']}/{port['Type']}"
        if port.get("PublicPort"):
            host = port.get("IP") or "0.0.0.0"
            published.append(f"{f'[{host}]' if ':' in host else host}:{port['PublicPort']}->{target}")
        elif target not in open_:
            open_.append(target)
    return ", ".join([*published, *open_])


def _port(given: Options, engine: Engine) -> int:
    name, *wanted = given.words
    bindings = engine.json("GET", f"/containers/{quote(name)}/json")["NetworkSettings"]["Ports"] or {}
    asked = "" if not wanted else wanted[0] if "/" in wanted[0] else f"{wanted[0]}/tcp"
    if asked and not bindings.get(asked):
        raise Failure(f"the port {asked} of {name} is not published. `slipway port {name}` shows those that are.")
    for target, binds in bindings.items():
        for bind in (binds or []) if not asked or target == asked else []:
            host = f"[{bind['HostIp']}]" if ":" in bind["HostIp"] else bind["HostIp"]
            print(f"{host}:{bind['HostPort']}" if asked else f"{target} -> {host}:{bind['HostPort']}")
    return 0
