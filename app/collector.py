"""Garbage is collected in Qt's own thread only.

Python collects cycles in whichever thread happens to allocate. A Qt object that dies in a worker thread cannot stop its
timers, and the next one of them brings the process down (seen: a segmentation fault in QTimerInfoList). So the
collector is switched off, and what ends an activity (an answer of the engine, a batch of a log) asks for it here.
"""

from __future__ import annotations

import gc

_THRESHOLDS = (2000, 10, 10)


def take_over() -> None:
    """From now on only `tidy` collects."""
    gc.disable()


def tidy() -> None:
    """Collect if enough has come together, as Python's own collector counts it."""
    for generation in (2, 1, 0):
        if gc.get_count()[generation] > _THRESHOLDS[generation]:
            gc.collect(generation)
            return
