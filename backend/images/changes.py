"""``--change`` of an import: a few Dockerfile instructions that set a container's defaults. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from backend.errors import InvalidArgument, NotImplemented_

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_NOT_HERE = ("HEALTHCHECK", "ONBUILD", "SHELL")


def apply(changes: Sequence[str], defaults: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``config`` section of an image configuration that *changes* make of *defaults*.

    Raises:
        InvalidArgument: an instruction that is not allowed here or malformed.
        NotImplemented_: one that this engine does not have yet.
    """
    config: dict[str, Any] = dict(defaults or {})
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        name, rest = word.upper(), rest.strip()
        if not name:
            continue
        if name in _NOT_HERE:
            raise NotImplemented_(f"{name} in --change is not implemented yet")
        rule = _RULES.get(name)
        if rule is None:
            raise InvalidArgument(f"{name or change!r} is not a valid change command")
        if not rest:
            raise InvalidArgument(f"{name} requires at least one argument")
        rule(config, rest)
    return config


def _command(text: str) -> list[str]:
    """The JSON form as it is, anything else by a shell."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text]


def _words(text: str) -> list[str]:
    if text.startswith("["):
        return _command(text)
    return text.split()


def _pairs(name: str, text: str) -> dict[str, str]:
    """``A=b "C=d e"``, or the old form ``A b``."""
    first, space, rest = text.partition(" ")
    if "=" not in first:
        if not space:
            raise InvalidArgument(f"{name} must have two arguments: {text!r}")
        return {first: rest.strip()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}: {error}: {text!r}") from error
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"{name} names must not be blank and need a value: {word!r}")
        found[key] = value
    return found


def _cmd(config: dict[str, Any], text: str) -> None:
    config["Cmd"] = _command(text)


def _entrypoint(config: dict[str, Any], text: str) -> None:
    config["Entrypoint"] = _command(text)


def _env(config: dict[str, Any], text: str) -> None:
    new = _pairs("ENV", text)
    kept = [one for one in config.get("Env") or [] if one.partition("=")[0] not in new]
    config["Env"] = kept + [f"{key}={value}" for key, value in new.items()]


def _label(config: dict[str, Any], text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **_pairs("LABEL", text)}


def _expose(config: dict[str, Any], text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in text.split():
        found = _PORT.fullmatch(word)
        first = int(found[1]) if found else 0
        last = int(found[2]) if found and found[2] else first
        if not found or not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(found[3] or 'tcp').lower()}"] = {}
    config["ExposedPorts"] = ports


def _user(config: dict[str, Any], text: str) -> None:
    if len(text.split()) != 1:
        raise InvalidArgument("USER requires exactly one argument")
    config["User"] = text


def _volume(config: dict[str, Any], text: str) -> None:
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in _words(text)}}


def _workdir(config: dict[str, Any], text: str) -> None:
    config["WorkingDir"] = text if text.startswith("/") else f"{(config.get('WorkingDir') or '').rstrip('/')}/{text}"


def _stop_signal(config: dict[str, Any], text: str) -> None:
    if not re.fullmatch(r"(?:SIG)?[A-Z0-9+-]{1,16}", text, re.ASCII | re.IGNORECASE):
        raise InvalidArgument(f"invalid signal: {text}")
    config["StopSignal"] = text


_RULES = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "LABEL": _label,
    "EXPOSE": _expose,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
    "STOPSIGNAL": _stop_signal,
}
