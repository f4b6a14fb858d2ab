"""Which log a container keeps: drivers and their options as the API names them. Pure.

Clients read logs only of drivers that they know (docker-py: `json-file`), so a container that asks for none says
json-file; what stands behind it is our own store, faster and bounded. Who asks for json-file by name gets JSON files.
"""

from __future__ import annotations

import re

from backend.errors import InvalidArgument
from backend.spec import api

DRIVERS = {"": "local", "local": "local", "slipway": "local", "json-file": "json-file", "none": "none"}
DEFAULT = "json-file"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_OPTIONS = frozenset({"max-size", "max-file", "compress", "mode", "max-buffer-size", "labels", "labels-regex", "env",
                      "env-regex", "tag"})


def check_log(host: api.HostConfig) -> None:
    """Refuse a driver or an option that is not there. Raises :class:`InvalidArgument`."""
    given = host.log_config
    if given.type not in DRIVERS:
        raise InvalidArgument(f"error looking up logging plugin {given.type}: plugin \"{given.type}\" not found")
    for name in given.config:
        if name not in _OPTIONS:
            raise InvalidArgument(f"unknown log opt '{name}' for {given.type} log driver")
    if given.config.get("mode", "blocking") not in ("blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {given.config['mode']}")
    log_limits(given)


def log_limits(config: api.LogConfig, *, own: bool = False) -> tuple[str, int, int]:
    """The keeper's driver for a log, bytes a file (0 = no limit) and files to keep. *own*: json-file is only its name.

    Raises :class:`InvalidArgument`.
    """
    driver = "local" if own else DRIVERS[config.type]
    size = _size(config.config.get("max-size", "20m" if driver == "local" else "-1"))
    count = config.config.get("max-file", "5" if driver == "local" else "1")
    if not (count.isascii() and count.isdigit()) or not int(count[:6]) > 0:
        raise InvalidArgument(f"log-opt max-file {count!r} must be a number above 0")
    return ("slipway" if driver == "local" else driver), size, int(count)


def _size(text: str) -> int:
    if text == "-1":
        return 0
    found = _SIZE.fullmatch(text)
    if not found:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(found[1]) * 1024 ** "bkmgt".index((found[2] or "b").lower()))
