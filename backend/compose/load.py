"""From the user's files to a :class:`Project`. The only part of the loading that touches files and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence

from backend.compose.env_file import parse_env
from backend.compose.errors import ComposeError, Mark
from backend.compose.interpolate import interpolate
from backend.compose.merge import canonical, merge, settled
from backend.compose.model import Project
from backend.compose.nodes import MAX_TEXT, Scalar, as_text, parse
from backend.compose.nodes import Mapping as Tree
from backend.compose.read import Identity, read_project
from backend.compose.read_service import Surroundings

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDES = ("compose.override.yaml", "compose.override.yml", "docker-compose.override.yaml",
              "docker-compose.override.yml")
_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


def find_files(directory: str, env: Mapping[str, str]) -> list[str]:
    """The Compose files for a command given in *directory* without `-f`: those of COMPOSE_FILE, else the nearest
    `compose.yaml` upwards (or one of the other usual names) and the override file beside it.

    Raises:
        ComposeError: there is none.
    """
    if named := env.get("COMPOSE_FILE"):
        parts = named.split(env.get("COMPOSE_PATH_SEPARATOR") or os.pathsep)
        return [os.path.join(directory, part) for part in parts if part]
    at = os.path.abspath(directory)
    while True:
        for name in FILE_NAMES:
            if os.path.isfile(os.path.join(at, name)):
                overrides = [o for o in _OVERRIDES if os.path.isfile(os.path.join(at, o))]
                return [os.path.join(at, name), *(os.path.join(at, o) for o in overrides[:1])]
        if os.path.dirname(at) == at:
            names = ", ".join(FILE_NAMES)
            raise ComposeError(f"no Compose file ({names}) in {directory} or above it; name one with -f")
        at = os.path.dirname(at)


def project_name(explicit: str | None, env: Mapping[str, str], in_file: str, directory: str) -> str:
    """The stack's name: asked for, else COMPOSE_PROJECT_NAME, else `name:` of the file, else the directory's.

    Only a directory's name is bent into shape; a name that somebody chose must be right as it is.
    """
    chosen = explicit or env.get("COMPOSE_PROJECT_NAME") or in_file
    if chosen:
        return check_name(chosen)
    name = re.sub(r"[^a-z0-9_-]", "", os.path.basename(directory).lower()).lstrip("_-")
    if not name:
        raise ComposeError(f"the directory's name {directory!r} makes no project name; give one with -p or `name:`")
    return name


def check_name(name: str) -> str:
    """*name* if a project may be called so; ComposeError otherwise."""
    if not _PROJECT_NAME.match(name):
        raise ComposeError(f"invalid project name {name!r}: it consists of lowercase letters, digits, `-` and `_`, and "
                           "starts with a letter or digit")
    return name


def load_project(
    paths: Sequence[str], *, name: str | None = None, env: Mapping[str, str] | None = None,
    profiles: Sequence[str] = (), directory: str | None = None, env_files: Sequence[str] = (),
) -> Project:
    """Reads, interpolates, merges and checks the Compose files *paths*.

    Args:
        name: the project's name, above every other source.
        env: the environment; the process's own if None. It wins over `.env`.
        profiles: profiles to enable, besides COMPOSE_PROFILES.
        directory: the project's directory; that of the first file if None.
        env_files: read in place of the directory's `.env`.

    Raises:
        ComposeError: the first thing that is wrong, with file, line and column where there is one.
    """
    if not paths:
        raise ComposeError("no Compose file was named")
    files = tuple(os.path.abspath(path) for path in paths)
    home = os.path.abspath(directory) if directory else os.path.dirname(files[0])
    variables = dict(os.environ if env is None else env)
    used_env_files = _add_env_files(variables, home, env_files)
    warnings: dict[str, None] = {}

    def warn(variable: str) -> None:
        warnings[f"the variable {variable} is not set; an empty string takes its place"] = None

    trees = [parse(_read(path, None), _shown(path)) for path in files]
    named = project_name(name, variables, _name_in(trees, variables.get), home)
    variables["COMPOSE_PROJECT_NAME"] = named
    merged: Tree | None = None
    for tree in trees:
        ready = canonical(interpolate(tree, variables.get, warn))
        assert isinstance(ready, Tree)
        merged = ready if merged is None else merge(merged, ready)
    assert merged is not None
    final = settled(merged)
    assert isinstance(final, Tree)
    usual = (p.strip() for p in variables.get("COMPOSE_PROFILES", "").split(","))
    asked = dict.fromkeys([*profiles, *(p for p in usual if p)])
    identity = Identity(named, home, files, tuple(asked), used_env_files)
    around = Surroundings(home, os.path.expanduser("~"), variables.get, _env_file_reader(variables.get),
                          frozenset(asked))
    return read_project(final, identity, around, tuple(warnings))


def _add_env_files(variables: dict[str, str], directory: str, env_files: Sequence[str]) -> tuple[str, ...]:
    """Adds what `.env` says and the environment does not. A directory's `.env` may be missing, a named file may not."""
    named = [*env_files] or [f for f in variables.get("COMPOSE_ENV_FILES", "").split(",") if f]
    paths = [os.path.abspath(path) for path in named] or [os.path.join(directory, ".env")]
    used, found = [], dict[str, str]()
    for path in paths:
        if not named and not os.path.isfile(path):
            continue
        known = {**found, **variables}
        found.update(parse_env(_read(path, None), _shown(path), known.get))
        used.append(path)
    for key, value in found.items():
        variables.setdefault(key, value)
    return tuple(used)


def _name_in(trees: Sequence[Tree], lookup: Callable[[str], str | None]) -> str:
    """`name:` of the last file that has one; it may use variables, the project's own name aside."""
    for tree in reversed(trees):
        node = tree.entries.get("name")
        if isinstance(node, Scalar) and node.value is not None:
            ready = interpolate(node, lookup, None, "name")
            assert isinstance(ready, Scalar)
            return as_text(ready.value)
    return ""


def _env_file_reader(lookup: Callable[[str], str | None]) -> Callable[[str, bool, bool, Mark], dict[str, str]]:
    def read(path: str, required: bool, raw: bool, mark: Mark) -> dict[str, str]:
        if not required and not os.path.exists(path):
            return {}
        text = _read(path, mark)
        return _raw_env(text) if raw else parse_env(text, _shown(path), lookup)

    return read


def _raw_env(text: str) -> dict[str, str]:
    """`format: raw`: every line is KEY=VALUE, nothing is unquoted or expanded."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return {key.strip(): value for key, _, value in (line.partition("=") for line in lines)}


def _read(path: str, mark: Mark | None) -> str:
    place = mark or Mark(_shown(path), 0, 0)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise ComposeError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}", place) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ComposeError(f"{path} is not UTF-8 text (byte {error.start})", place) from None


def _shown(path: str) -> str:
    """A file's name for errors: relative where that is shorter, as compilers do, so that editors can jump to it."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):
        return path
    return path if relative.startswith("..") else relative
