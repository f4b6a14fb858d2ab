"""The import rules of docs/architecture.md: who may know whom. A privileged process stays auditable only while they hold."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOOR = ("backend.errors", "backend.spec", "backend.streams", "backend.dockerignore", "backend.logs")
ENGINE_WING = ("backend.engine", "backend.runtime", "backend.images", "backend.network", "backend.volumes", "backend.build", "backend.plugins")
USER_WING = ("backend.client", "backend.compose", "backend.credentials")
OURS = ("app", "backend", "helper", "resources")


@dataclass(frozen=True, slots=True)
class Import:
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} line {self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> list[Path]:
    return sorted(p for room in OURS for p in (ROOT / room).rglob("*.py"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, without what only type checkers see: an import for types ties nothing together at run time."""
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child):
            continue
        yield child
        yield from nodes(child)


def imports_of(path: Path) -> Iterator[Import]:
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in nodes(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                yield Import(name, f"{base}.{alias.name}", node.lineno)


ALL = [i for p in sources() for i in imports_of(p)]


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def fail_on(bad: list[Import], why: str) -> None:
    assert not bad, why + ":\n" + "\n".join(f"  {b}" for b in bad)


def test_the_rules_look_at_real_code() -> None:
    assert len(ALL) > 300, "no imports were found: the rules below would pass on nothing"


def test_what_runs_as_the_user_never_reaches_into_the_privileged_wing() -> None:
    allowed = (*USER_WING, *FLOOR)
    bad = [i for i in ALL if within(i.importer, ("app",)) and within(i.imported, ("backend", "helper"))
           and not within(i.imported, allowed) and i.imported != "backend"]
    fail_on(bad, "app may import only the user wing and the shared floor")


def test_the_helper_never_reads_a_users_files_through_the_user_wing() -> None:
    bad = [i for i in ALL if within(i.importer, ("helper",)) and within(i.imported, (*USER_WING, "app"))]
    fail_on(bad, "helper may import only the engine wing and the shared floor")


def test_the_two_wings_do_not_know_each_other() -> None:
    bad = [i for i in ALL if (within(i.importer, ENGINE_WING) and within(i.imported, (*USER_WING, "app", "helper")))
           or (within(i.importer, USER_WING) and within(i.imported, (*ENGINE_WING, "app", "helper")))]
    fail_on(bad, "the wings meet only on the shared floor")


def test_the_shared_floor_stands_on_nothing_above_it() -> None:
    bad = [i for i in ALL if within(i.importer, FLOOR) and within(i.imported, (*ENGINE_WING, *USER_WING, "app", "helper"))]
    fail_on(bad, "the floor imports no wing")


def test_inside_the_engine_wing_only_the_engine_knows_the_rest() -> None:
    rooms = ("backend.runtime", "backend.images", "backend.network", "backend.volumes", "backend.plugins")
    bad = []
    for i in ALL:
        room = next((r for r in rooms if within(i.importer, (r,))), None)
        if room is None:
            continue
        others = tuple(r for r in (*rooms, "backend.engine") if r != room)
        # System calls and the audited children have one home, which the neighbours use and do not copy.
        if within(i.imported, others) and not within(i.imported, ("backend.runtime.syscalls", "backend.runtime.untar", "backend.runtime.erofs", "backend.runtime.tarstream", "backend.runtime.tarpipe")):
            bad.append(i)
    fail_on(bad, "a room of the engine wing knows another room")


def test_the_audited_room_needs_only_the_standard_library() -> None:
    standard = tuple(sys.stdlib_module_names)
    allowed = (*standard, "backend.runtime", "backend.logs", "backend")
    bad = [i for i in ALL if within(i.importer, ("backend.runtime", "backend.logs")) and not within(i.imported, allowed)]
    bad += [i for i in ALL if within(i.importer, ("backend.runtime",)) and i.imported.startswith("backend.")
            and not within(i.imported, ("backend.runtime", "backend.logs"))]
    fail_on(bad, "backend/runtime imports the standard library, itself and backend.logs, nothing else")


ONE_ROOM = [
    ("ctypes", ("backend.runtime.syscalls", "backend.runtime.seccomp", "backend.network.firewall",
                "backend.credentials.undumpable")),  # the user wing's prctl; the runtime room is the engine's
    ("sqlite3", ("backend.engine.state",)),
    ("PySide6", ("app",)),
    ("qasync", ("app",)),
    ("aiohttp", ("helper.web", "backend.client")),  # helper.web: the server half only, see there
]


@pytest.mark.parametrize(("dangerous", "homes"), ONE_ROOM, ids=[d for d, _ in ONE_ROOM])
def test_each_dangerous_import_has_one_room(dangerous: str, homes: tuple[str, ...]) -> None:
    bad = [i for i in ALL if within(i.imported, (dangerous,)) and not within(i.importer, homes)]
    fail_on(bad, f"{dangerous} belongs to {', '.join(homes)}")


def test_the_command_line_and_the_libraries_work_without_qt() -> None:
    bad = [i for i in ALL if within(i.importer, ("app.cli",)) and within(i.imported, ("PySide6", "qasync", "app.windows", "app.widgets"))]
    fail_on(bad, "the command line must not load Qt")


PURE = ("backend.errors", "backend.spec", "backend.streams", "backend.dockerignore", "backend.compose.model",
        "backend.compose.interpolate", "backend.compose.reconcile", "backend.compose.merge", "backend.engine.spec")


def test_pure_files_touch_neither_files_nor_sockets_nor_the_loop() -> None:
    bad = [i for i in ALL if within(i.importer, PURE) and within(i.imported, ("os", "socket", "asyncio", "subprocess"))]
    fail_on(bad, "pure files import no os, socket or asyncio")


def calls(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Name):
            yield node.id, node.lineno


def test_nothing_forks_outside_the_audited_room() -> None:
    bad = [f"{p.relative_to(ROOT)}:{line} uses {name}" for p in sources() if not within(module_name(p), ("backend.runtime",))
           for name, line in calls(p) if name in {"fork", "forkpty", "posix_spawn"}]
    assert not bad, "fork only in backend/runtime:\n  " + "\n  ".join(bad)


CATCH_ALL_EDGES = ("helper.server", "helper.call", "backend.runtime.keeper", "backend.runtime.init", "backend.runtime.confined", "app.bridge", "helper.__main__")


def test_only_the_edges_catch_everything() -> None:
    bad = []
    for path in sources():
        if within(module_name(path), CATCH_ALL_EDGES):
            continue
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = [node.type] if node.type is not None else [None]
            if any(n is None or (isinstance(n, ast.Name) and n.id == "Exception") for n in names):
                bad.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not bad, "`except Exception` and bare `except` only at the edges:\n  " + "\n  ".join(bad)
