"""Container logs: written by chunk, split into lines when read. Shared floor, standard library only.

The default driver ("slipway", `chunks.py`) keeps files of chunks as they were read from the container; "json-file"
(`jsonfile.py`) is Docker's format and naming, for those who read it with other tools. :class:`LogWriter` is the
keeper's end, :class:`LogReader` the helper's.
"""

from __future__ import annotations

from backend.logs.lines import MAX_LINE, Record, Run, records
from backend.logs.reading import LogReader
from backend.logs.writing import LogWriter

__all__ = ["MAX_LINE", "LogReader", "LogWriter", "Record", "Run", "records"]
