"""Which log a container keeps: drivers and their options as the API names them. Pure.

Clients read logs only of drivers that they know (docker-py: `json-file`), so a container that asks for none says
json-file; what stands behind it is our own store, faster and bounded. Who asks for json-file by name gets JSON files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote_plus

from backend.engine.record import ContainerRecord
from backend.errors import InvalidArgument, NotImplemented_
from backend.spec import api

DRIVERS = {"": "local", "local": "local", "slipway": "local", "json-file": "json-file", "none": "none"}
DEFAULT = "json-file"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_OPTIONS = frozenset({"max-size", "max-file", "compress", "mode", "max-buffer-size", "labels", "env", "tag"})
_NOT_YET = frozenset({"labels-regex", "env-regex"})   # a pattern of a stranger's, in a language without a time limit
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False, "True": True, "False": False}
_TAG_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName")
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def check_log(host: api.HostConfig) -> None:
    """Refuse a driver or an option that is not there.

    Raises :class:`InvalidArgument` and, for what Docker has and we have not, :class:`NotImplemented_`.
    """
    given = host.log_config
    if given.type not in DRIVERS:
        raise InvalidArgument(f"error looking up logging plugin {given.type}: plugin \"{given.type}\" not found")
    options = given.config
    for name in options:
        if name in _NOT_YET:
            raise NotImplemented_(f"log opt {name} is not supported: name them one by one in {name.partition('-')[0]}")
        if name not in _OPTIONS:
            local = DRIVERS[given.type] == "local"
            raise InvalidArgument(f"unknown log opt '{name}' for " + (f"log driver {given.type}" if local else
                                                                      f"{given.type} log driver"))
    mode = options.get("mode", "blocking")
    if mode not in ("blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        _size(options["max-buffer-size"])
    fill_tag(options.get("tag", ""), dict.fromkeys(_TAG_FIELDS, ""))
    log_limits(given)
    if options.get("compress", "false") not in _BOOLEANS:
        raise InvalidArgument(f"log-opt compress {options['compress']!r} must be true or false")


def log_warnings(host: api.HostConfig) -> list[str]:
    """What is accepted, as it does no harm, and of no use."""
    if _BOOLEANS[host.log_config.config.get("compress", "false")]:
        return ["Rotated logs are not compressed here: the log option compress has no effect."]
    return []


def log_limits(config: api.LogConfig, *, own: bool = False) -> tuple[str, int, int]:
    """The keeper's driver for a log, bytes a file (0 = no limit) and files to keep. *own*: json-file is only its name.

    Raises :class:`InvalidArgument`.
    """
    driver = "local" if own else DRIVERS[config.type]
    size = _size(config.config.get("max-size", "20m" if driver == "local" else "-1"))
    count = config.config.get("max-file", "5" if driver == "local" else "1")
    if size == 0 and config.config.get("max-size", "-1") != "-1":
        raise InvalidArgument("max-size must be a positive number")
    if not (count.isascii() and count.isdigit()) or not int(count[:6]) > 0:
        raise InvalidArgument(f"log-opt max-file {count!r} must be a number above 0: max-file cannot be less than 1")
    return ("slipway" if driver == "local" else driver), size, int(count)


def _size(text: str) -> int:
    if text == "-1":
        return 0
    found = _SIZE.fullmatch(text)
    if not found:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * 1024 ** "bkmgt".index((found[2] or "b").lower()))


def log_details(record: ContainerRecord) -> bytes:
    """What `logs --details` puts before each line: the labels and variables that the log options name."""
    options = record.host_config.log_config.config
    variables = dict(one.partition("=")[::2] for one in record.config.env)
    found = _named(record.config.labels, options.get("labels", "")) | _named(variables, options.get("env", ""))
    if tag := options.get("tag"):
        found["tag"] = fill_tag(tag, {
            "ID": record.id[:12], "FullID": record.id, "Name": record.name, "ImageName": record.image_name,
            "ImageID": record.image.removeprefix("sha256:")[:12], "ImageFullID": record.image, "DaemonName": "docker"})
    return (",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in sorted(found.items())) + " ").encode()


def _named(values: Mapping[str, str], names: str) -> dict[str, str]:
    return {name: values[name] for name in names.split(",") if name in values}


def fill_tag(text: str, values: Mapping[str, str]) -> str:
    """The log option `tag` with its fields filled in. Raises :class:`InvalidArgument` for one that is not there."""
    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise InvalidArgument(f"log-opt tag {text!r}: there is no field {found[1]}; there are {', '.join(values)}")
        return values[found[1]]

    if "{{" in _FIELD.sub("", text):
        raise InvalidArgument(f"log-opt tag {text!r}: only fields such as {{{{.Name}}}} can stand in it")
    return _FIELD.sub(value, text)
