"""``./dev bench``: prints the table; ``--only TEXT`` takes some rows, ``--peer-root DIR`` a root file system with dockerd in it."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shutil
import statistics
import sys
from pathlib import Path

from tests.bench import network
from tests.bench.engines import EngineUnderTest, dockerd, slipway
from tests.bench.scenarios import SCENARIOS, Scenario


def peer_root(wish: str | None) -> str | None:
    """Where a dockerd is: as asked for, SLIPWAY_PEER_ROOT, or the machine's own."""
    if wish or os.environ.get("SLIPWAY_PEER_ROOT"):
        return os.path.realpath(wish or os.environ["SLIPWAY_PEER_ROOT"])
    return "/" if shutil.which("dockerd") else None


def measure(scenario: Scenario, engines: list[EngineUnderTest]) -> dict[str, float | str]:
    """The engines take turns, so that a noisy minute hits both."""
    figures: dict[str, list[float]] = {e.name: [] for e in engines}
    broken: dict[str, str] = {}
    for n in range(-1 if scenario.rounds > 1 else 0, scenario.rounds):
        for engine in engines:
            if engine.name in broken:
                continue
            try:
                figure = scenario.run(engine)
            except Exception as error:
                broken[engine.name] = f"{type(error).__name__}: {error}"
                continue
            if n >= 0:
                figures[engine.name].append(figure)
    return {name: broken[name] if name in broken else statistics.median(f) for name, f in figures.items()}


def show(figure: float | str) -> str:
    if isinstance(figure, str):
        return "failed"
    return f"{figure:.3f}" if figure < 1 else f"{figure:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--only", help="rows whose title contains this text")
    parser.add_argument("--peer-root", help="a root file system with dockerd (default: $SLIPWAY_PEER_ROOT, or the machine's own dockerd)")
    parser.add_argument("--alone", action="store_true", help="do not start dockerd")
    parser.add_argument("--markdown", help="write the table into this file too")
    options = parser.parse_args()
    if os.geteuid():
        print("bench: it starts engines of its own and needs root", file=sys.stderr)
        return 1
    root = None if options.alone else peer_root(options.peer_root)
    lines = [f"{datetime.date.today()}, {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}"
             + ("" if root else " (no dockerd to compare with)"), "",
             "| what | unit | slipway | dockerd | ratio |", "| --- | --- | ---: | ---: | ---: |"]
    print("\n".join(lines), flush=True)
    failed = 0
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(slipway())]
        if root:
            engines.append(stack.enter_context(dockerd(root)))
        for scenario in [*SCENARIOS, *(Scenario(*row) for row in network.ROWS)]:
            if options.only and options.only not in scenario.title:
                continue
            figures = measure(scenario, engines)
            ours, theirs = figures["slipway"], figures.get("dockerd", "")
            ratio = f"{ours / theirs:.3f}" if isinstance(ours, float) and isinstance(theirs, float) and theirs else ""
            row = f"| {scenario.title} | {scenario.unit} | {show(ours)} | {show(theirs) if theirs != '' else ''} | {ratio} |"
            lines.append(row)
            print(row, flush=True)
            for name, figure in figures.items():
                if isinstance(figure, str):
                    failed = 1
                    print(f"  {name}: {figure}", file=sys.stderr)
    if options.markdown:
        Path(options.markdown).write_text("\n".join(lines) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
