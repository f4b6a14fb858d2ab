"""What the form of limits asks for, as a request. Pure."""

from __future__ import annotations

import re

from backend.errors import InvalidArgument
from backend.spec import api

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def memory_bytes(text: str) -> int:
    """"512m", "1.5 GiB" in bytes; "" = 0, no limit. Raises :class:`InvalidArgument`."""
    if not text.strip():
        return 0
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(f"{text} is no amount of memory: write it like 512m or 1.5g")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def nano_cpus(text: str) -> int:
    """Processors ("1.5") in the API's billionths; "" = 0, no limit. Raises :class:`InvalidArgument`."""
    if not text.strip():
        return 0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1024:
        raise InvalidArgument(f"{text} is no number of processors: write it like 1.5")
    return int(value * 1_000_000_000)


def update_body(memory: str, cpus: str, pids: str, restart: str, retries: int) -> api.ContainerUpdate:
    """The request that changes limits and the restart policy."""
    if pids.strip() and not pids.strip().isdigit():
        raise InvalidArgument(f"{pids} is no number of processes")
    amount = memory_bytes(memory)
    body = api.ContainerUpdate(memory=amount, nano_cpus=nano_cpus(cpus), pids_limit=int(pids) if pids.strip() else -1)
    # Without it the engine would keep a swap limit below the new memory limit, and refuse.
    body.memory_swap = -1 if amount else 0
    body.restart_policy = api.RestartPolicy(name=restart, maximum_retry_count=retries if restart == "on-failure" else 0)
    return body


def shown_memory(amount: int) -> str:
    """Bytes as the form takes them."""
    for unit, size in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10)):
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount) if amount else ""
