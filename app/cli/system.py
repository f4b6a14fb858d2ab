"""`slipway events`, `version`, `info` and `slipway system`."""

from __future__ import annotations

import json
import sys

from app.cli.errors import Unreachable, Usage
from app.cli.flags import Flag, Options, Parser
from app.cli.http import Engine
from app.cli.output import filters, size

TYPING = False
if TYPING:
    from typing import Any

_FORMAT = Flag("format", "text", short="f", about="json, or a template")
_EVENTS = Parser("events [FLAGS]", "Show what happens, as it happens.",
                 Flag("filter", "list", short="f", about="KEY=VALUE, such as type=container or event=die"),
                 Flag("since", "text", about="from this time on: RFC 3339, seconds, or 10m = ten minutes ago"),
                 Flag("until", "text", about="up to this time"), Flag("format", "text", about="json, or a template"),
                 most=0)
_VERSION = Parser("version [FLAGS]", "Show the versions of this program and of the engine.", _FORMAT,
                  Flag("client", about="of this program only"), most=0)
_INFO = Parser("info [FLAGS]", "Show the engine's state and settings.", _FORMAT, most=0)


def main(words: list[str], address: str) -> int:
    """Runs the verb."""
    verb = words[0]
    if verb == "system":
        return _system(words, address)
    if verb == "events":
        return _events(_EVENTS.parse(words[1:]), Engine(address))
    if verb == "version":
        return _version(_VERSION.parse(words[1:]), address)
    return _info(_INFO.parse(words[1:]), Engine(address))


def _system(words: list[str], address: str) -> int:
    """`slipway system VERB`."""
    verb = words[1] if len(words) > 1 else ""
    if verb in ("events", "info"):
        return main(words[1:], address)
    if verb == "df":
        from app.cli.usage import main as usage

        return usage(words[1:], address)
    if verb == "prune":
        from app.cli.prune import main as prune

        return prune(["prune", "system", *words[2:]], address)
    raise Usage("`slipway system` has df, prune, info, events; each shows its flags with --help.")


# --- events ---------------------------------------------------------------------------------------------------------

def _events(given: Options, engine: Engine) -> int:
    answer = engine.ask("GET", "/events", {
        "since": given.since or None, "until": given.until or None, "filters": filters(given.filter)})
    for event in answer.lines():
        print(_event(event, given.format), flush=True)
    return 0


def _event(event: dict[str, Any], wanted: str) -> str:
    if wanted == "json":
        return json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    if wanted:
        from app.cli.template import fill

        actor = event.get("Actor") or {}
        return fill(wanted, {**event, "ID": actor.get("ID", ""), "Status": event.get("status", ""),
                             "From": event.get("from", ""), "TimeNano": event["timeNano"], "Time": event["time"]})
    actor = event["Actor"]
    said = ", ".join(f"{key}={actor['Attributes'][key]}" for key in sorted(actor.get("Attributes") or {}))
    return f"{moment(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']}{f' ({said})' if said else ''}"


def moment(nanoseconds: int) -> str:
    """RFC 3339 with nine digits, in the zone of here."""
    import time

    here = time.localtime(nanoseconds // 10**9)
    shift = time.strftime("%z", here)
    zone = "Z" if shift == "+0000" else f"{shift[:3]}:{shift[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', here)}.{nanoseconds % 10**9:09d}{zone}"


# --- version and info -----------------------------------------------------------------------------------------------

def client_version() -> dict[str, str]:
    """What this program is."""
    import platform
    from importlib import metadata

    try:
        version = metadata.version("slipway")
    except metadata.PackageNotFoundError:
        version = "from a checkout"
    return {"Version": version, "ApiVersion": "1.51", "Python": platform.python_version(), "Os": sys.platform,
            "Arch": platform.machine()}


def _version(given: Options, address: str) -> int:
    client: dict[str, Any] = client_version()
    server, missing = None, None
    if not given.client:
        try:
            server = Engine(address).json("GET", "/version")
        except Unreachable as error:
            missing = error
    if given.format:
        _formatted({"Client": client, "Server": server}, given.format)
    else:
        print("Client:")
        _lines([("Version", client["Version"]), ("API version", client["ApiVersion"]), ("Python", client["Python"]),
                ("OS/Arch", f"{client['Os']}/{client['Arch']}")], " ")
        if server:
            print("\nServer: Slipway\n Engine:")
            _lines([("Version", server["Version"]),
                    ("API version", f"{server['ApiVersion']} (minimum version {server['MinAPIVersion']})"),
                    ("OS/Arch", f"{server['Os']}/{server['Arch']}"), ("Kernel", server["KernelVersion"])], "  ")
    if missing:
        raise missing
    return 0


def _lines(pairs: list[tuple[str, str]], indent: str) -> None:
    for name, value in pairs:
        print(f"{indent}{name + ':':<18} {value}".rstrip())


def _formatted(value: Any, wanted: str) -> None:
    from app.cli.template import fill

    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")) if wanted == "json" else fill(wanted, value))


def _info(given: Options, engine: Engine) -> int:
    info = engine.json("GET", "/info")
    if given.format:
        _formatted({**info, "ClientInfo": client_version()}, given.format)
        return 0
    client = client_version()
    print(f"Client:\n Version:    {client['Version']}\n\nServer:")
    for line in info_lines(info):
        print(f" {line}".rstrip())
    for warning in info.get("Warnings") or []:
        print(warning, file=sys.stderr)
    return 0


def info_lines(info: dict[str, Any]) -> list[str]:
    """The engine's state as Docker's client lays it out."""
    plugins = info.get("Plugins") or {}
    out = [f"Containers: {info['Containers']}", f" Running: {info['ContainersRunning']}",
           f" Paused: {info['ContainersPaused']}", f" Stopped: {info['ContainersStopped']}",
           f"Images: {info['Images']}", f"Server Version: {info['ServerVersion']}", f"Storage Driver: {info['Driver']}"]
    out += [f" {name}: {value}" for name, value in info.get("DriverStatus") or []]
    out += [f"Logging Driver: {info['LoggingDriver']}", f"Cgroup Driver: {info['CgroupDriver']}",
            f"Cgroup Version: {info.get('CgroupVersion', '')}", "Plugins:"]
    out += [f" {kind}: {' '.join(plugins.get(kind) or [])}" for kind in ("Volume", "Network", "Log")]
    out += [f"Swarm: {(info.get('Swarm') or {}).get('LocalNodeState', 'inactive')}",
            f"Runtimes: {' '.join(info.get('Runtimes') or {})}", f"Default Runtime: {info['DefaultRuntime']}",
            "Security Options:"]
    for option in info.get("SecurityOptions") or []:
        pairs = dict(part.partition("=")[::2] for part in option.split(","))
        out += [f" {pairs.pop('name', option)}", *(f"  {key.capitalize()}: {value}" for key, value in pairs.items())]
    out += [f"Kernel Version: {info['KernelVersion']}", f"Operating System: {info['OperatingSystem']}",
            f"OSType: {info['OSType']}", f"Architecture: {info['Architecture']}", f"CPUs: {info['NCPU']}",
            f"Total Memory: {size(info['MemTotal'], binary=True)}", f"Name: {info['Name']}", f"ID: {info['ID']}",
            f"Docker Root Dir: {info['DockerRootDir']}", f"Debug Mode: {str(info['Debug']).lower()}",
            f"Experimental: {str(info['ExperimentalBuild']).lower()}"]
    registries = info.get("RegistryConfig") or {}
    insecure = [*(registries.get("InsecureRegistryCIDRs") or []),
                *(name for name, one in (registries.get("IndexConfigs") or {}).items() if not one.get("Secure"))]
    out += ["Insecure Registries:", *(f" {name}" for name in insecure)] if insecure else []
    mirrors = registries.get("Mirrors") or []
    out += ["Registry Mirrors:", *(f" {mirror}" for mirror in mirrors)] if mirrors else []
    out.append(f"Live Restore Enabled: {str(info['LiveRestoreEnabled']).lower()}")
    pools = info.get("DefaultAddressPools") or []
    if pools:
        out += ["Default Address Pools:", *(f"  Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools)]
    return out
