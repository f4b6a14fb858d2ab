"""Subnets of one's own on a machine where other tests and other helpers run at the same time."""

from __future__ import annotations

import secrets
from pathlib import Path


def free_octet(first: int, count: int, *, partner: int = 0) -> int:
    """N of *count* from *first* on, such that no route of this machine lies in 10.N.0.0/16 (nor in 10.N+partner).

    Raises:
        LookupError: all are in use.
    """
    used = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        number = int(line.split()[1], 16).to_bytes(4, "little")
        if number[0] == 10:
            used.add(number[1])
    start = secrets.randbelow(count)
    for n in range(count):
        octet = first + (start + n) % count
        if octet not in used and octet + partner not in used:
            return octet
    raise LookupError(f"a route to each of 10.{first}.0.0/16 to 10.{first + count - 1}.0.0/16 is there already")
