"""Wire types of ``/slipway/containers/{id}/usage``, which Docker's API has no match for."""

from __future__ import annotations

from backend.spec.api.wire import Wire


class Usage(Wire):
    """Columns of the same length, oldest first. `step`: seconds a row was meant to stand for."""

    step: int = 1
    time: list[float] = []                # seconds since the epoch
    cpu: list[float] = []                 # percent of one processor
    memory: list[int] = []                # bytes, without the page cache that could be given up
    received: list[float] = []            # bytes a second, all networks
    sent: list[float] = []
    read: list[float] = []                # bytes a second, all block devices
    written: list[float] = []
    pids: list[int] = []
