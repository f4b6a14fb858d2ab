"""What the run form asks for, as a request to the engine and as the equivalent line for a terminal. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from backend.errors import InvalidArgument
from backend.spec import api

#: What the engine takes as a container's name.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class PortWish:
    """`host`: a port, or "" for any free one."""

    host: str
    container: str
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class VolumeWish:
    """`source`: a path on this machine or the name of a volume."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The form's fields. `command` as one would type it."""

    image: str
    name: str = ""
    command: str = ""
    ports: tuple[PortWish, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    volumes: tuple[VolumeWish, ...] = ()
    restart: str = "no"
    remove_after: bool = False
    terminal: bool = False

    def check(self) -> None:
        """Raise :class:`InvalidArgument` with what is wrong, before the engine is asked."""
        if not self.image.strip():
            raise InvalidArgument("choose an image first, for example debian:stable-slim")
        if self.name.strip() and not _NAME.fullmatch(self.name.strip()):
            raise InvalidArgument(f"{self.name} cannot be a name: letters and digits, and after the first _ . and -")
        _split(self.command)
        for port in self.ports:
            for number in filter(None, (port.host, port.container)):
                if not number.isdigit() or not 0 < int(number) < 65536:
                    raise InvalidArgument(f"{number} is not a port: ports are numbers from 1 to 65535")
            if not port.container:
                raise InvalidArgument("a port inside the container is missing")
        for name, _ in self.environment:
            if not name or "=" in name:
                raise InvalidArgument(f"{name or 'an empty name'} cannot be the name of a variable")
        for volume in self.volumes:
            if not volume.source:
                raise InvalidArgument(f"{volume.target}: say which folder or volume to put there")
            if not volume.target.startswith("/"):
                raise InvalidArgument(f"{volume.target or volume.source}: the place in the container starts with /")
        if self.remove_after and self.restart != "no":
            raise InvalidArgument("a container cannot be both removed and restarted when it ends")

    def body(self) -> api.ContainerCreate:
        """The request that creates the container."""
        bindings: dict[str, list[api.PortBinding]] = {}
        for port in self.ports:
            bindings.setdefault(f"{port.container}/{port.protocol}", []).append(api.PortBinding(host_port=port.host))
        host = api.HostConfig(
            port_bindings=bindings, auto_remove=self.remove_after, restart_policy=api.RestartPolicy(name=self.restart),
            binds=[f"{one.source}:{one.target}{':ro' if one.read_only else ''}" for one in self.volumes])
        return api.ContainerCreate(
            image=self.image.strip(), cmd=_split(self.command) or None, env=[f"{k}={v}" for k, v in self.environment],
            exposed_ports={key: api.Empty() for key in bindings}, tty=self.terminal, open_stdin=self.terminal,
            host_config=host)

    def line(self) -> str:
        """The same as a command for the docker client or for slipway."""
        parts = ["docker", "run", "-d"]
        if self.terminal:
            parts.append("-it")
        if self.remove_after:
            parts.append("--rm")
        if self.name:
            parts += ["--name", self.name]
        if self.restart != "no":
            parts += ["--restart", self.restart]
        for port in self.ports:
            suffix = "" if port.protocol == "tcp" else f"/{port.protocol}"
            parts += ["-p", f"{port.host}:{port.container}{suffix}" if port.host else f"{port.container}{suffix}"]
        for key, value in self.environment:
            parts += ["-e", f"{key}={value}"]
        for one in self.volumes:
            parts += ["-v", f"{one.source}:{one.target}{':ro' if one.read_only else ''}"]
        parts.append(self.image.strip() or "IMAGE")
        try:
            parts += _split(self.command)
        except InvalidArgument:
            return f"{shlex.join(parts)} {self.command}"
        return shlex.join(parts)


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise InvalidArgument(f"the command cannot be read: {str(error).lower()}") from error
