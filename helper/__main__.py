"""``slipwayd``: the helper's start, whose order is the point.

Arguments, the lock on the state, then the keeper (found running, or executed while this process is small and has one
thread), and only then asyncio, the HTTP server and the engine. One line on standard output says that it serves.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import ipaddress
import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from helper import configfile, systemd

if TYPE_CHECKING:
    import socket

    from backend.engine.settings import Settings

VERSION = "0.1.0"
SHUTDOWN_SIGNAL = 10                   # SIGUSR1: the containers stop too
DEFAULT_HOST, DEFAULT_DATA, DEFAULT_EXEC = "unix:///run/slipway/slipway.sock", "/var/lib/slipway", "/run/slipway"
DOCKER_PLUGINS = ("/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins")


class Refused(Exception):
    """The helper cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    hosts: tuple[str, ...]
    data_root: str
    exec_root: str
    group: str
    mirrors: tuple[str, ...]
    insecure: tuple[str, ...]
    proxies: tuple[str, str, str]
    certificates: tuple[str, ...]
    trust_policy: str
    lazy_pull: bool
    bip: str
    pools: tuple[tuple[str, int], ...]
    labels: tuple[str, ...]
    pidfile: str
    debug: bool
    stop_containers: bool
    shutdown: bool
    shutdown_timeout: int
    userns_remap: str
    plugin_folders: tuple[str, ...]
    authorization: tuple[str, ...]
    log_driver: str
    log_opts: dict[str, str]

    @property
    def plugin_dirs(self) -> tuple[str, ...]:
        """Where plug-ins are looked for: Docker's places for the installed helper, its own for a private one."""
        if self.plugin_folders:
            return self.plugin_folders
        own = f"{self.exec_root}/plugins"
        return (own, *DOCKER_PLUGINS) if self.instance == "slipway" else (own,)

    @property
    def instance(self) -> str:
        """"slipway" for the installed helper; private ones are told apart by their exec-root."""
        if self.exec_root == DEFAULT_EXEC:
            return "slipway"
        return "slipway-" + hashlib.sha256(self.exec_root.encode()).hexdigest()[:8]


def parse(arguments: list[str]) -> Options:
    """The flags, named as dockerd's. Exits with a message where they make no sense."""
    parser = argparse.ArgumentParser(prog="slipwayd", description="Slipway's engine (Docker Engine API)",
                                     allow_abbrev=False)
    add = parser.add_argument
    add("-H", "--host", action="append", default=[], metavar="unix://SOCKET",
        help=f"socket to serve (default {DEFAULT_HOST})")
    add("--data-root", default=DEFAULT_DATA, metavar="DIR", help="images, containers, volumes (default %(default)s)")
    add("--exec-root", default=DEFAULT_EXEC, metavar="DIR", help="what lasts until the next boot (default %(default)s)")
    add("-G", "--group", default="", help="group that may open the socket: its members are as good as root")
    add("--registry-mirror", action="append", default=[], metavar="URL", help="mirror of Docker Hub")
    add("--insecure-registry", action="append", default=[], metavar="HOST[:PORT]", help="registry without valid TLS")
    add("--http-proxy", default="", metavar="URL", help="proxy for registries without TLS (default: the environment's)")
    add("--https-proxy", default="", metavar="URL", help="proxy for registries (default: the environment's)")
    add("--no-proxy", default="", metavar="LIST", help="hosts, domains and networks that no proxy is used for")
    add("--registry-certs", action="append", default=[], metavar="DIR",
        help="folder with HOST:PORT folders of certificates (default /etc/slipway/certs.d and /etc/docker/certs.d)")
    add("--lazy-pull", action="store_true", help="images in eStargz or zstd:chunked form run before they have arrived")
    add("--trust-policy", default="/etc/slipway/policy.json", metavar="FILE",
        help="which images may run (default %(default)s; not there = all)")
    add("--bip", default="", metavar="ADDRESS/BITS", help="address of the default bridge")
    add("--default-address-pool", action="append", default=[], metavar="base=NET,size=BITS",
        help="where networks take subnets")
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label of this engine")
    add("--plugin-dir", action="append", default=[], metavar="DIR",
        help="folder with sockets and descriptions of plug-ins (default: Docker's for the installed helper, "
             "EXEC-ROOT/plugins otherwise)")
    add("--authorization-plugin", action="append", default=[], metavar="NAME",
        help="plug-in that is asked about every request")
    add("-p", "--pidfile", default="", help="write the process ID there")
    add("-D", "--debug", action="store_true", help="log more")
    add("--stop-containers", action="store_true", help="stop the containers too when the helper is told to end")
    add("--shutdown", action="store_true",
        help="stop all containers in order and the helper of this --data-root; returns when it has ended")
    add("--shutdown-timeout", type=int, default=10, metavar="SECONDS",
        help="time for containers that have no stop timeout of their own (default %(default)s)")
    add("--userns-remap", default="", metavar="default|USER|host",
        help="give each container a user namespace with IDs of its own, unless it says --userns=host; "
             "from USER's ranges in /etc/subuid and /etc/subgid (default: slipway's)")
    add("--log-driver", default="", metavar="NAME",
        help="log driver of containers that ask for none: local, json-file or none (default: the engine's own store)")
    add("--log-opt", action="append", default=[], metavar="NAME=VALUE", help="option of that log driver")
    add("-v", "--version", action="version", version=f"Slipway {VERSION}")
    add("--config-file", default=configfile.DEFAULT, metavar="FILE",
        help="settings as in Docker's daemon.json (default %(default)s, where it is there)")
    named = any(one.partition("=")[0] == "--config-file" for one in arguments)
    given = parser.parse_args(arguments)
    try:
        # The file is of the installed helper; a private one reads only what it is told to.
        if named or given.exec_root == DEFAULT_EXEC:
            given = parser.parse_args([*configfile.flags(given.config_file, arguments, needed=named), *arguments])
    except configfile.Wrong as error:
        parser.error(str(error))
    try:
        pools = tuple(_pool(text) for text in given.default_address_pool)
        if given.bip:
            ipaddress.ip_interface(given.bip)
        log_opts = _log_opts(given.log_driver, given.log_opt)
    except ValueError as error:
        parser.error(str(error))
    hosts = tuple(given.host) or (DEFAULT_HOST,)
    for host in hosts:
        if not host.startswith(("unix:///", "fd://")):
            parser.error(f"--host {host}: only unix:///PATH and fd:// are served; Slipway has no TCP listener")
    return Options(hosts, os.path.abspath(given.data_root), os.path.abspath(given.exec_root), given.group,
                   tuple(given.registry_mirror), tuple(given.insecure_registry),
                   (given.http_proxy, given.https_proxy, given.no_proxy),
                   tuple(os.path.abspath(one) for one in given.registry_certs), os.path.abspath(given.trust_policy),
                   given.lazy_pull,
                   given.bip, pools, tuple(given.label), given.pidfile, given.debug, given.stop_containers,
                   given.shutdown, given.shutdown_timeout, given.userns_remap,
                   tuple(os.path.abspath(one) for one in given.plugin_dir), tuple(given.authorization_plugin),
                   given.log_driver, log_opts)


def _pool(text: str) -> tuple[str, int]:
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    if set(parts) != {"base", "size"} or not parts["size"].isdigit():
        raise ValueError(f"--default-address-pool {text}: write it as base=10.201.0.0/16,size=24")
    return str(ipaddress.ip_network(parts["base"])), int(parts["size"])


def _log_opts(driver: str, given: list[str]) -> dict[str, str]:
    """The options of the log driver, checked as a container's would be. Raises ValueError."""
    if not driver and not given:
        return {}
    from backend.engine.logchoice import check_log
    from backend.errors import EngineError
    from backend.spec import api

    wrong = [text for text in given if not text.partition("=")[0] or "=" not in text]
    if wrong:
        raise ValueError(f"--log-opt {wrong[0]}: write it as NAME=VALUE")
    options = dict(text.partition("=")[::2] for text in given)
    try:
        check_log(api.HostConfig(log_config=api.LogConfig(type=driver or "json-file", config=options)))
    except EngineError as error:
        raise ValueError(f"failed to set log opts: {error.message}") from error
    return options


def lock(data_root: str) -> int:
    """The one helper of a data-root holds this descriptor. Raises :class:`Refused`."""
    os.makedirs(data_root, mode=0o711, exist_ok=True)
    fd = os.open(f"{data_root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise Refused(f"another helper (process {owner or 'unknown'}) works on {data_root}; "
                      "stop it first, or name another --data-root") from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _settings(options: Options) -> Settings:
    from backend.engine.settings import Settings
    from backend.images.types import RegistrySettings
    from backend.network.records import AddressPool

    registry = RegistrySettings(options.mirrors, options.insecure, *options.proxies)
    if options.certificates:
        registry = replace(registry, certificates=options.certificates)
    return Settings(
        data_root=options.data_root, exec_root=options.exec_root, instance=options.instance,
        registry=registry, trust_policy=options.trust_policy,
        lazy_pull=options.lazy_pull,
        address_pools=tuple(AddressPool(base, size) for base, size in options.pools), bip=options.bip,
        plugin_dirs=options.plugin_dirs, authorization=options.authorization,
        labels=options.labels, debug=options.debug, shutdown_timeout=options.shutdown_timeout,
        log_driver=options.log_driver, log_opts=options.log_opts,
        userns="" if options.userns_remap in ("", "host") else "auto",
        subid_user="slipway" if options.userns_remap in ("", "host", "default", "auto") else options.userns_remap,
        version=VERSION)


async def serve(options: Options, keeper: socket.socket) -> None:
    """Open the engine, serve until a signal, leave in order."""
    import asyncio
    import signal

    from backend.engine.engine import Engine
    from helper.access import Audit
    from helper.server import Server, bind

    engine = await Engine.open(_settings(options), keeper)
    audit = Audit(f"{options.data_root}/audit.jsonl")
    server = Server(engine, audit, VERSION)
    given = systemd.sockets()
    paths = [host.removeprefix("unix://") for host in options.hosts if host.startswith("unix://")]
    own = [path for path in paths if path not in {one.getsockname() for one in given}]
    await server.listen([*given, *(bind(path, options.group) for path in own)])
    if options.pidfile:
        with open(options.pidfile, "w") as file:
            file.write(f"{os.getpid()}\n")
    stop = asyncio.Event()
    too = [options.stop_containers]            # whether the containers stop too

    def machine_ends() -> None:
        too[0] = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asyncio.get_running_loop().add_signal_handler(SHUTDOWN_SIGNAL, machine_ends)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, engine.renew_keeper)
    print(f"slipwayd is ready on {' '.join(options.hosts)} (data {options.data_root}, exec {options.exec_root}, "  # noqa: T201
          f"instance {options.instance})", flush=True)
    systemd.notify("READY=1")
    await stop.wait()
    systemd.notify("STOPPING=1")
    engine.events.close()
    await server.close()
    await (engine.shutdown() if too[0] else engine.close())
    audit.close()
    for path in own:
        os.unlink(path)
    if options.pidfile:
        os.unlink(options.pidfile)


def shut_down(data_root: str) -> int:
    """Has the helper of *data_root* stop its containers and end. Returns when it has, with the exit status for main."""
    import select
    import signal

    try:
        with open(f"{data_root}/lock", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        print(f"slipwayd: no helper works on {data_root}", file=sys.stderr)  # noqa: T201
        return 1
    except FileNotFoundError:
        print(f"slipwayd: no helper has worked on {data_root}", file=sys.stderr)  # noqa: T201
        return 1
    except BlockingIOError:
        with open(f"{data_root}/lock", encoding="ascii") as file:
            pid = int(file.read())
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, SHUTDOWN_SIGNAL)
    select.select([pidfd], [], [])
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The helper's process. Returns its exit status."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    if os.geteuid() != 0:
        print("slipwayd: it makes namespaces, mounts and networks, and needs root (sudo slipwayd ...)", file=sys.stderr)  # noqa: T201
        return 1
    os.umask(0o022)
    systemd.close_inherited()
    from backend.runtime import syscalls

    # X-Registry-Auth and the environment of containers pass through this process: no core dump holds them.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if options.shutdown:
        return shut_down(options.data_root)
    try:
        held = lock(options.data_root)
    except (Refused, OSError) as error:
        print(f"slipwayd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    from backend.runtime.client import Keeper, KeeperError

    try:
        keeper = Keeper.find_or_start(options.exec_root)
    except (KeeperError, OSError) as error:
        print(f"slipwayd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    import asyncio
    import gc
    import logging
    import resource

    # A dozen descriptors a container. After the keeper has started: its containers are to have the limits that we got.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING, stream=sys.stderr,
                        format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    from backend.errors import EngineError

    try:
        runner = asyncio.Runner(loop_factory=_loop_factory())
        with runner:
            gc.freeze()
            runner.run(serve(options, keeper))
    except EngineError as error:
        print(f"slipwayd: {error.message}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        os.close(held)
    return 0


def _loop_factory() -> Any:
    """uvloop where it is there: a third more requests a second."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
