"""The verbs for stacks: `slipway up`, `slipway down`, `slipway stack ls|ps|plan|start|stop|restart|logs`.

The Compose file is read here, with the user's rights; the engine sees only API calls. What is going to happen can be
read before it does (`slipway stack plan`), and every step says why it is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TextIO

from backend import compose
from backend.client import Client
from backend.compose.load import project_name
from backend.compose.observed import Observed, ObservedContainer
from backend.errors import EngineError

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_TAKES = {"DIR": "where relative paths start (default: the file's directory)"}
Verb = Callable[[Client, argparse.Namespace], Coroutine[Any, Any, int]]


def say(text: str) -> None:
    """A line for the person at the terminal; results go to the standard output."""
    print(text, file=sys.stderr, flush=True)


# --- what is asked for ---------------------------------------------------------------------------------------------

def _parser(program: str, about: str, *, file_flags: Sequence[str] = ("-f", "--file")) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"slipway {program}", description=about, allow_abbrev=False)
    parser.add_argument(*file_flags, action="append", default=[], metavar="FILE",
                        help="a Compose file; several are merged (default: compose.yaml here or above)")
    parser.add_argument("-p", "--project-name", metavar="NAME", help="the stack's name (default: the directory's)")
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="enable a profile's services")
    parser.add_argument("--env-file", action="append", default=[], metavar="FILE", help="read in place of .env")
    parser.add_argument("--project-directory", metavar="DIR", help=_TAKES["DIR"])
    return parser


def _timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--timeout", type=int, metavar="SECONDS", help="before a container that stops is killed")


def _orphans(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--remove-orphans", action="store_true", help="remove containers of services no longer there")


def _up_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force-recreate", action="store_true", help="make every container anew")
    parser.add_argument("--no-recreate", action="store_true", help="keep containers even if their description changed")
    parser.add_argument("--no-start", action="store_true", help="make everything, start nothing")
    _orphans(parser)
    _timeout(parser)


def up_parser() -> argparse.ArgumentParser:
    parser = _parser("up", "Create and start the stack that a Compose file describes, or bring it up to date.")
    parser.add_argument("-d", "--detach", action="store_true", help="leave the stack running and return")
    parser.add_argument("--pull", choices=("always", "missing"), default="missing", help="when to pull images")
    _up_options(parser)
    return parser


def down_parser() -> argparse.ArgumentParser:
    parser = _parser("down", "Stop and remove the stack's containers and networks.")
    parser.add_argument("-v", "--volumes", action="store_true", help="remove its named volumes too, with their data")
    _orphans(parser)
    _timeout(parser)
    return parser


def _stack_parser(verb: str) -> argparse.ArgumentParser:
    # `-f` follows a log, here as in docker compose.
    flags = ("--file",) if verb == "logs" else ("-f", "--file")
    parser = _parser(f"stack {verb}", STACK_VERBS[verb][1], file_flags=flags)
    if verb == "plan":
        parser.add_argument("--down", action="store_true", help="what `slipway down` would do")
        parser.add_argument("-v", "--volumes", action="store_true", help="with --down: remove volumes too")
        _up_options(parser)
    elif verb in ("ls", "ps"):
        parser.add_argument("-q", "--quiet", action="store_true", help="names only")
    elif verb == "stop":
        _timeout(parser)
    elif verb == "logs":
        parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
        parser.add_argument("-n", "--tail", metavar="LINES", type=_lines, help="how many of the last lines (or: all)")
        parser.add_argument("-t", "--timestamps", action="store_true", help="with the time of each line")
        parser.add_argument("services", nargs="*", metavar="SERVICE", help="only these")
    return parser


def _lines(text: str) -> int | None:
    return None if text == "all" else int(text)


def _load(options: argparse.Namespace) -> compose.Project:
    files = options.file or compose.find_files(options.project_directory or os.getcwd(), os.environ)
    project = compose.load_project(files, name=options.project_name, profiles=options.profile,
                                   directory=options.project_directory, env_files=options.env_file)
    for warning in project.warnings:
        say(f"warning: {warning}")
    return project


def _name(options: argparse.Namespace) -> str:
    """The stack's name; its file is read only where nothing else says it."""
    if options.project_name or (not options.file and os.environ.get("COMPOSE_PROJECT_NAME")):
        return project_name(options.project_name, os.environ, "", "")
    return _load(options).name


def _up_wishes(options: argparse.Namespace) -> compose.UpOptions:
    return compose.UpOptions(options.force_recreate, options.no_recreate, options.remove_orphans,
                             not options.no_start, options.timeout)


# --- the verbs -----------------------------------------------------------------------------------------------------

async def up(client: Client, options: argparse.Namespace) -> int:
    """Brings the stack to what its file says; without -d stays with its logs and stops it on Ctrl-C."""
    project = _load(options)
    began = time.time()
    observed = await compose.observe(client, project)
    pulls = compose.plan_pull(project, observed, every=options.pull == "always")
    if not pulls.is_empty:
        if not await _carry_out(client, pulls):
            return 1
        observed = await compose.observe(client, project)
    if not await _carry_out(client, compose.reconcile(project, observed, _up_wishes(options))):
        return 1
    if options.detach or options.no_start:
        return 0
    return await _stay(client, project, began)


async def down(client: Client, options: argparse.Namespace) -> int:
    """Removes the stack. With only -p no file is needed: everything that carries the stack's label goes."""
    target = _target(options)
    observed = await compose.observe(client, target)
    plan = _down_plan(target, observed, options)
    return 0 if await _carry_out(client, plan) else 1


def _target(options: argparse.Namespace) -> compose.Project | str:
    return _name(options) if options.project_name and not options.file else _load(options)


def _down_plan(target: compose.Project | str, observed: Observed, options: argparse.Namespace) -> compose.Plan:
    return compose.plan_down(target, observed, volumes=options.volumes, remove_orphans=options.remove_orphans,
                             timeout=options.timeout)


async def plan(client: Client, options: argparse.Namespace) -> int:
    """Prints what `up` (or `down`) would do, and does nothing."""
    if options.down:
        target = _target(options)
        made = _down_plan(target, await compose.observe(client, target), options)
    else:
        project = _load(options)
        made = compose.reconcile(project, await compose.observe(client, project), _up_wishes(options))
    print(made)
    return 0


async def stop(client: Client, options: argparse.Namespace) -> int:
    name = _name(options)
    made = compose.plan_stop(name, await _existing(client, name), timeout=options.timeout)
    return 0 if await _carry_out(client, made) else 1


async def start(client: Client, options: argparse.Namespace) -> int:
    name = _name(options)
    return 0 if await _carry_out(client, compose.plan_start(name, await _existing(client, name))) else 1


async def restart(client: Client, options: argparse.Namespace) -> int:
    name = _name(options)
    return 0 if await _carry_out(client, compose.plan_restart(name, await _existing(client, name))) else 1


async def list_stacks(client: Client, options: argparse.Namespace) -> int:
    stacks = await compose.list_stacks(client)
    if options.quiet:
        print("\n".join(s.name for s in stacks), end="\n" if stacks else "")
        return 0
    rows = [(s.name, ", ".join(f"{state}({n})" for state, n in s.states), ", ".join(s.services), ",".join(s.files))
            for s in stacks]
    _table(("NAME", "STATUS", "SERVICES", "CONFIG FILES"), rows)
    return 0


async def list_containers(client: Client, options: argparse.Namespace) -> int:
    observed = await _existing(client, _name(options))
    if options.quiet:
        print("\n".join(c.id[:12] for c in observed.containers))
        return 0
    rows = [(c.name, c.image, c.service, c.status, ", ".join(c.ports)) for c in observed.containers]
    _table(("NAME", "IMAGE", "SERVICE", "STATUS", "PORTS"), rows)
    return 0


async def logs(client: Client, options: argparse.Namespace) -> int:
    observed = await _existing(client, _name(options))
    chosen = [c for c in observed.containers if not options.services or c.service in options.services]
    if not chosen:
        raise compose.ComposeError(f"the stack {observed.project!r} has no container of {', '.join(options.services)}")
    await _print_logs(client, chosen, follow=options.follow, tail=options.tail, timestamps=options.timestamps)
    return 0


async def _existing(client: Client, name: str) -> Observed:
    observed = await compose.observe(client, name)
    if not observed.containers:
        raise compose.ComposeError(f"there is no stack {name!r} (slipway stack ls shows those that there are)")
    return observed


STACK_VERBS: dict[str, tuple[Verb, str]] = {
    "ls": (list_stacks, "List the stacks."),
    "ps": (list_containers, "List the stack's containers."),
    "plan": (plan, "Show what `slipway up` would do, and why, without doing it."),
    "start": (start, "Start the stack's stopped containers, in the order of what they depend on."),
    "stop": (stop, "Stop the stack's containers without removing them."),
    "restart": (restart, "Restart the stack's containers."),
    "logs": (logs, "Show the logs of the stack's containers."),
}


# --- carrying out and showing --------------------------------------------------------------------------------------

async def _carry_out(client: Client, made: compose.Plan) -> bool:
    """Carries a plan out and says each step; whether all went well."""
    for warning in made.warnings:
        say(f"warning: {warning}")
    if made.is_empty:
        say(f"{made.project}: nothing to do")
        return True
    report = await compose.execute(client, made, _Lines(sys.stderr), credentials=_credentials)
    if report.not_begun:
        say("not begun: " + ", ".join(str(s.operation) for s in report.not_begun))
    return report.ok


class _Lines:
    """Progress as lines: a step when it is done or has failed, and at a terminal what a pull is doing."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty()
        self.began: dict[int, float] = {}

    def __call__(self, progress: compose.Progress) -> None:
        step = progress.step
        clear = "\r\033[K" if self.live else ""
        if progress.state == "begun":
            self.began[step.number] = time.monotonic()
        elif progress.state == "detail":
            if self.live:
                print(f"{clear}   {progress.text[:100]}", end="", file=self.out, flush=True)
        elif progress.state == "done":
            seconds = time.monotonic() - self.began[step.number]
            print(f"{clear} ✔ {step.operation}  {seconds:.1f}s", file=self.out, flush=True)
        else:
            print(f"{clear} ✘ {step.operation}: {progress.text}", file=self.out, flush=True)


async def _stay(client: Client, project: compose.Project, began: float) -> int:
    """Shows the logs until every container has ended or the user has had enough, then stops the stack."""
    observed = await compose.observe(client, project)
    attached = {s.name for s in project.services if s.attach}
    shown = [c for c in observed.containers if c.service in attached and c.is_up]
    following = asyncio.ensure_future(_print_logs(client, shown, follow=True, since=began))
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    enough = asyncio.ensure_future(interrupted.wait())
    try:
        await asyncio.wait((following, enough), return_when=asyncio.FIRST_COMPLETED)
        if not interrupted.is_set():
            await following
            return 0
        say("\nstopping (once more: leave at once)")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        made = compose.plan_stop(project.name, await compose.observe(client, project))
        return 130 if await _carry_out(client, made) else 1
    finally:
        for task in (following, enough):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, EngineError):
                await task


async def _print_logs(
    client: Client, containers: Sequence[ObservedContainer], *, follow: bool, tail: int | None = None,
    timestamps: bool = False, since: float | None = None,
) -> None:
    width = max((len(_short(c)) for c in containers), default=0)
    colour = sys.stdout.isatty()

    async def one(index: int, container: ObservedContainer) -> None:
        prefix = f"{_short(container):<{width}} | "
        if colour:
            prefix = f"\033[{_COLOURS[index % len(_COLOURS)]}m{prefix}\033[0m"
        left = {1: b"", 2: b""}
        after = None if since is None else f"{since:.9f}"
        stream = client.logs(container.id, follow=follow, tail=tail, timestamps=timestamps, since=after)
        async for channel, data in stream:
            *lines, left[channel] = (left.get(channel, b"") + data).split(b"\n")
            _write(prefix, lines)
        _write(prefix, [rest for rest in left.values() if rest])

    async with asyncio.TaskGroup() as group:
        for index, container in enumerate(containers):
            group.create_task(one(index, container))


def _short(container: ObservedContainer) -> str:
    return f"{container.service}-{container.number}"


def _write(prefix: str, lines: Sequence[bytes]) -> None:
    for line in lines:
        sys.stdout.write(f"{prefix}{line.decode(errors='replace').rstrip(chr(13))}\n")
    sys.stdout.flush()


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(r[i]) for r in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, *rows):
        print("   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


async def _credentials(reference: str) -> str:
    # The keyring is asked only when something is pulled: it costs an import and a bus.
    from backend.credentials import header_for

    return await header_for(reference)


# --- the doors -----------------------------------------------------------------------------------------------------

def run_verb(address: str, verb: Verb, options: argparse.Namespace) -> int:
    """Runs *verb* on the engine at *address*; the exit status."""

    async def main() -> int:
        async with Client(address) as client:
            return await verb(client, options)

    try:
        return asyncio.run(main())
    except EngineError as error:
        say(f"slipway: {error.message}")
        return 1
    except ExceptionGroup as group:
        known, others = group.split(EngineError)
        if others is not None or known is None:
            raise
        say(f"slipway: {_first(known)}")
        return 1
    except KeyboardInterrupt:
        return 130


def _first(group: BaseExceptionGroup[Any]) -> str:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else str(error)


def main(words: Sequence[str], address: str) -> int:
    """Runs `up ...`, `down ...` or `stack VERB ...` on the engine at *address*; the exit status."""
    program, *rest = words
    if program == "up":
        return run_verb(address, up, up_parser().parse_args(rest))
    if program == "down":
        return run_verb(address, down, down_parser().parse_args(rest))
    if not rest or rest[0] not in STACK_VERBS:
        asked_for_help = not rest or rest[0] in ("-h", "--help", "help")
        if not asked_for_help:
            say(f"slipway: stack has no verb {rest[0]!r}")
        say("usage: slipway stack VERB [OPTIONS]\n" + "\n".join(f"  {v:<8} {STACK_VERBS[v][1]}" for v in STACK_VERBS))
        return 0 if asked_for_help else 2
    return run_verb(address, STACK_VERBS[rest[0]][0], _stack_parser(rest[0]).parse_args(rest[1:]))
