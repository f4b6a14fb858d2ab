"""Settings from a file, in the form of Docker's daemon.json: turned into the flags that they stand for.

A key that we do not have is an error, as it is for dockerd, and so is what is said in the file and by a flag.
"""

from __future__ import annotations

import json
from typing import Any

DEFAULT = "/etc/slipway/daemon.json"
_LIMIT = 1 << 20
#: One word each.
_TEXTS = {"data-root": "--data-root", "exec-root": "--exec-root", "group": "--group", "bip": "--bip",
          "pidfile": "--pidfile", "userns-remap": "--userns-remap", "trust-policy": "--trust-policy",
          "log-driver": "--log-driver"}
_LISTS = {"hosts": "--host", "registry-mirrors": "--registry-mirror", "insecure-registries": "--insecure-registry",
          "registry-certs": "--registry-certs", "labels": "--label", "authorization-plugins": "--authorization-plugin",
          "plugin-dirs": "--plugin-dir"}
_SWITCHES = {"debug": "--debug", "lazy-pull": "--lazy-pull"}
_NUMBERS = {"shutdown-timeout": "--shutdown-timeout"}
_PROXIES = {"http-proxy": "--http-proxy", "https-proxy": "--https-proxy", "no-proxy": "--no-proxy"}
_SHORT = {"--host": "-H", "--group": "-G", "--pidfile": "-p", "--debug": "-D"}


class Wrong(Exception):
    """The file cannot be used; the text names it and the key."""


def flags(path: str, given: list[str], *, needed: bool) -> list[str]:
    """The flags that the file at *path* stands for. *given*: those of the command line; *needed*: the file must exist.

    Raises:
        Wrong: it cannot be read, is malformed, has unknown keys, or says what the command line says too.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        if needed:
            raise Wrong(f"the configuration file {path} is not there") from None
        return []
    except OSError as error:
        raise Wrong(f"the configuration file {path} cannot be read: {error.strerror}") from error
    try:
        found = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Wrong(f"the configuration file {path} is not JSON: {error}") from error
    if not isinstance(found, dict) or len(data) > _LIMIT:
        raise Wrong(f"the configuration file {path} is no JSON object of at most {_LIMIT >> 20} MiB")
    return _flags(path, found, given)


def _flags(path: str, found: dict[str, Any], given: list[str]) -> list[str]:
    out: list[str] = []
    unknown = []
    for key, value in found.items():
        made = _flag(path, key, value)
        if made is None:
            unknown.append(key)
        else:
            out += made
    if unknown:
        raise Wrong(f"unable to configure the helper with file {path}: the following directives don't match any "
                    f"configuration option: {', '.join(unknown)}")
    twice = [name for name in dict.fromkeys(one.partition("=")[0] for one in out) if _is_given(name, given)]
    if twice:
        raise Wrong(f"unable to configure the helper with file {path}: the following directives are specified both as "
                    f"a flag and in the configuration file: {', '.join(one.lstrip('-') for one in twice)}")
    return out


def _is_given(name: str, given: list[str]) -> bool:
    short = _SHORT.get(name, name)
    return any(one == name or one.startswith(f"{name}=") or (short != name and one.startswith(short)) for one in given)


def _flag(path: str, key: str, value: Any) -> list[str] | None:
    """The flags for one key; None: it is none of ours."""
    if key in _TEXTS:
        return [f"{_TEXTS[key]}={_checked(path, key, value, str)}"]
    if key in _NUMBERS:
        return [f"{_NUMBERS[key]}={_checked(path, key, value, int)}"]
    if key in _SWITCHES:
        return [_SWITCHES[key]] if _checked(path, key, value, bool) else []
    if key in _LISTS:
        return [f"{_LISTS[key]}={_checked(path, key, one, str)}" for one in _checked(path, key, value, list)]
    if key == "proxies":
        pairs = _checked(path, key, value, dict)
        if not set(pairs) <= set(_PROXIES):
            return None
        return [f"{_PROXIES[name]}={_checked(path, name, one, str)}" for name, one in pairs.items()]
    if key == "log-opts":
        pairs = _checked(path, key, value, dict)
        return [f"--log-opt={name}={_checked(path, name, one, str)}" for name, one in pairs.items()]
    if key == "default-address-pools":
        return [f"--default-address-pool={_pool(path, one)}" for one in _checked(path, key, value, list)]
    return None


def _pool(path: str, value: Any) -> str:
    pool = _checked(path, "default-address-pools", value, dict)
    base = _checked(path, "base", pool.get("base"), str)
    return f"base={base},size={_checked(path, 'size', pool.get('size'), int)}"


def _checked(path: str, key: str, value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:  # a bool is no number here
        names = {str: "text", int: "a number", bool: "true or false", list: "a list", dict: "an object"}
        raise Wrong(f"the configuration file {path} is wrong: {key} must be {names[kind]}")
    return value
