"""Mounts as `-v`, `--mount` and `--tmpfs` write them. Pure but for the current directory."""

from __future__ import annotations

import os

from app.cli.errors import Usage
from app.cli.units import pair, size_in_bytes

TYPING = False
if TYPING:
    from collections.abc import Callable, Sequence
    from typing import Any


def volumes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """``-v`` words as the API has them: (binds and named volumes, the paths of anonymous ones)."""
    binds, anonymous = [], []
    for word in words:
        source, colon, rest = word.partition(":")
        if not colon:
            anonymous.append(word)
            continue
        if not source or not rest:
            raise Usage(f"-v {word!r}: there must be something on both sides of the colon.", 125)
        if source.startswith("."):
            source = os.path.abspath(source)
        elif source.startswith("~"):
            source = os.path.expanduser(source)
        binds.append(f"{source}:{rest}")
    return binds, anonymous


def tmpfs(words: Sequence[str]) -> dict[str, str]:
    """``--tmpfs PATH[:OPTIONS]``."""
    return {path: options for path, _, options in (word.partition(":") for word in words)}


def mounts(words: Sequence[str]) -> list[dict[str, Any]]:
    """``--mount`` words as the API's Mounts."""
    return [_mount(word) for word in words]


def _mount(word: str) -> dict[str, Any]:
    made: dict[str, Any] = {"Type": "volume"}
    for part in _csv(word):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        known = _KEYS.get(key)
        if known is None:
            raise Usage(f"--mount {word!r}: {key!r} is no option of a mount.", 125)
        if not equals and known not in _FLAGS:
            raise Usage(f"--mount {word!r}: {key} needs a value ({key}=...).", 125)
        known(made, key, value if equals else "true")
    _check(made, word)
    return made


def _csv(word: str) -> list[str]:
    if '"' not in word:
        return word.split(",")
    import csv

    return next(csv.reader([word]))


def _check(made: dict[str, Any], word: str) -> None:
    kind = made["Type"]
    if not made.get("Target"):
        raise Usage(f"--mount {word!r}: target= is missing.", 125)
    for options, of in (("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs"),
                        ("ImageOptions", "image")):
        if options in made and kind != of:
            raise Usage(f"--mount {word!r}: it has options of a {of} and is a {kind}.", 125)


def _text(name: str) -> Callable[[dict[str, Any], str, str], None]:
    def put(made: dict[str, Any], _key: str, value: str) -> None:
        made[name] = value

    return put


def _in(options: str, name: str, read: Callable[[str, str], Any]) -> Callable[[dict[str, Any], str, str], None]:
    def put(made: dict[str, Any], key: str, value: str) -> None:
        made.setdefault(options, {})[name] = read(value, key)

    return put


def _truth(value: str, key: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise Usage(f"--mount: {key} takes true or false, not {value!r}.", 125)
    return value.lower() in ("true", "1")


def _source(made: dict[str, Any], _key: str, value: str) -> None:
    made["Source"] = os.path.abspath(value) if value.startswith(".") else value


def _read_only(made: dict[str, Any], key: str, value: str) -> None:
    made["ReadOnly"] = _truth(value, key)


def _recursive(made: dict[str, Any], _key: str, value: str) -> None:
    names = {"enabled": {}, "disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True},
             "readonly": {"ReadOnlyForceRecursive": True}}
    if value not in names:
        raise Usage(f"--mount: bind-recursive takes enabled, disabled, writable or readonly, not {value!r}.", 125)
    made.setdefault("BindOptions", {}).update(names[value])


def _label(made: dict[str, Any], _key: str, value: str) -> None:
    name, _, content = value.partition("=")
    made.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = content


def _driver(made: dict[str, Any], _key: str, value: str) -> None:
    made.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value


def _driver_option(made: dict[str, Any], key: str, value: str) -> None:
    name, content = pair(value, f"mount {key}")
    config = made.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
    config.setdefault("Options", {})[name] = content


def _octal(value: str, key: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise Usage(f"--mount: {key} takes permission bits such as 1777, not {value!r}.", 125) from None


_no_copy = _in("VolumeOptions", "NoCopy", _truth)
_non_recursive = _in("BindOptions", "NonRecursive", _truth)
_create = _in("BindOptions", "CreateMountpoint", _truth)
_FLAGS = (_read_only, _no_copy, _non_recursive, _create)
_KEYS: dict[str, Callable[[dict[str, Any], str, str], None]] = {
    "type": lambda made, _key, value: made.update(Type=value.lower()),
    "source": _source, "src": _source,
    "target": _text("Target"), "dst": _text("Target"), "destination": _text("Target"),
    "readonly": _read_only, "ro": _read_only, "consistency": _text("Consistency"),
    "bind-propagation": _in("BindOptions", "Propagation", lambda value, _key: value.lower()),
    "bind-nonrecursive": _non_recursive, "bind-recursive": _recursive, "bind-create-src": _create,
    "volume-subpath": _in("VolumeOptions", "Subpath", lambda value, _key: value), "volume-nocopy": _no_copy,
    "volume-label": _label, "volume-driver": _driver, "volume-opt": _driver_option,
    "image-subpath": _in("ImageOptions", "Subpath", lambda value, _key: value),
    "tmpfs-size": _in("TmpfsOptions", "SizeBytes", lambda value, key: size_in_bytes(value, f"mount {key}")),
    "tmpfs-mode": _in("TmpfsOptions", "Mode", _octal),
}
