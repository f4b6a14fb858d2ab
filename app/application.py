"""The window's start, in the order in which it happens.

1. `main` reads its few flags and makes the one QApplication: name, desktop file (Wayland shows its icon), theme.
2. Qt's and asyncio's loops become one (qasync); the window works without threads.
3. The window is built with only the first page and shown at once, empty; other pages, Compose and credentials are
   imported when they are first needed.
4. The mirror subscribes to the engine's events and asks for the lists; the first list shows when they are there.
5. When there is nothing at all yet, the first-run page takes the place of an empty list.
6. The end of the last window ends the loop; subscriptions are closed, the engine is left as it is.

`--shot FILE` does the same without a display: it draws the window into a picture once the lists have come, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.windows.context import Context
    from app.windows.main import MainWindow

DEFAULT_HOST = "unix:///run/slipway/slipway.sock"
DESKTOP_FILE = "io.slipway.Slipway"
#: How long --shot waits for an engine, and then for pictures of usage, in seconds.
SHOT_PATIENCE = 10.0
_SHOT_SETTLE = 2.6
_PAGES = frozenset({"containers", "images", "stacks", "networks", "volumes", "registries", "disk", "welcome",
                    "container", "log", "run", "compose"})


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    host: str
    shot: str
    page: str
    theme: str
    size: str


def options(argv: Sequence[str]) -> Options:
    """Read the flags; SLIPWAY_HOST stands in for --host."""
    parser = argparse.ArgumentParser(prog="slipway", description="Slipway's window.")
    parser.add_argument("--host", "-H", default=os.environ.get("SLIPWAY_HOST") or DEFAULT_HOST, metavar="unix://SOCKET")
    parser.add_argument("--shot", default="", metavar="FILE.png", help="draw the window into a picture and end")
    parser.add_argument("--page", default="", metavar="NAME", help="containers, images, stacks, networks, volumes, "
                        "registries, disk, welcome, "
                        "container:NAME[:TAB], log:NAME, run:IMAGE, compose:FILE")
    parser.add_argument("--theme", default="", choices=("", "system", "light", "dark"))
    parser.add_argument("--size", default="1200x760", metavar="WxH", help="size of the picture")
    found = parser.parse_args(argv)
    if found.page and found.page.partition(":")[0] not in _PAGES:
        parser.error(f"argument --page: {found.page} is no page of the window; it has {', '.join(sorted(_PAGES))}")
    return Options(found.host, found.shot, found.page, found.theme, found.size)


def main(argv: Sequence[str] | None = None) -> int:
    """Open the window (or draw it); the exit status."""
    wanted = options(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=os.environ.get("SLIPWAY_LOG", "WARNING").upper(), format="%(name)s: %(message)s")
    if wanted.shot:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

    from PySide6.QtWidgets import QApplication

    application = QApplication.instance() or QApplication(["slipway"])
    assert isinstance(application, QApplication)
    application.setApplicationName("Slipway")
    application.setOrganizationName("slipway")
    application.setDesktopFileName(DESKTOP_FILE)
    application.setStyle("Fusion")
    # The loop ends by `_closed`, which leaves the engine in order; Qt's own way would stop it in the middle.
    application.setQuitOnLastWindowClosed(False)

    import qasync

    loop = qasync.QEventLoop(application)
    asyncio.set_event_loop(loop)
    with loop:
        return int(loop.run_until_complete(_run(wanted)))


async def _run(wanted: Options) -> int:
    from app import collector, theme
    from app.settings import Preferences
    from app.windows.main import MainWindow

    collector.take_over()
    preferences = Preferences(keep=not wanted.shot)
    if wanted.theme:
        preferences.theme = wanted.theme  # type: ignore[assignment]
    theme.install(preferences)
    context = make_context(wanted.host, preferences)
    context.bridge.catch_strays(asyncio.get_running_loop())
    window = MainWindow(context)
    context.mirror.loaded.connect(lambda: _first_page(window, wanted.page))
    window.show()
    context.mirror.start()
    try:
        if wanted.shot:
            return await _draw(window, wanted)
        await _closed()
        return 0
    finally:
        await close_context(context)


def make_context(host: str, preferences: object) -> Context:
    """Everything that the pages share, for the engine at *host*."""
    from app.bridge import Bridge
    from app.models.mirror import Mirror
    from app.models.operations import Operations
    from app.settings import Preferences
    from app.windows.context import Context, Ways
    from backend.client import Client

    assert isinstance(preferences, Preferences)
    client = Client(host)
    return Context(client, Mirror(client, host), Bridge(), Operations(), preferences, Ways())


async def close_context(context: Context) -> None:
    """Leave the engine: close what follows it."""
    await context.mirror.stop()
    await context.bridge.close()
    await context.client.close()


def _first_page(window: MainWindow, page: str) -> None:
    mirror = window.context.mirror
    kind, _, name = page.partition(":")
    if kind in ("container", "log"):
        name, _, tab = name.partition(":")
        keys = {row.name: row.id for row in mirror.containers.rows()}
        if name in keys:
            show = window.show_container if kind == "container" else None
            show(keys[name], tab or "Log") if show else window.show_log_window(keys[name])
    elif kind == "run":
        window.show_run_form(name)
    elif kind == "compose":
        window.show_page("stacks")
        window.pages["stacks"].open_files([os.path.abspath(name)])  # type: ignore[attr-defined]
    elif page:
        window.show_page(page)
    elif not len(mirror.containers.keys()):
        window.show_page("welcome")


async def _closed() -> None:
    """Until the last window has been closed."""
    from PySide6.QtWidgets import QApplication

    application = QApplication.instance()
    assert application is not None
    done = asyncio.get_running_loop().create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)
    application.lastWindowClosed.connect(finish)  # type: ignore[attr-defined]
    await done


async def _draw(window: MainWindow, wanted: Options) -> int:
    """Wait for the lists, then save what the window (or the one that was asked for) looks like."""
    from PySide6.QtWidgets import QDialog

    width, _, height = wanted.size.partition("x")
    window.resize(int(width), int(height))
    mirror = window.context.mirror
    waited = 0.0
    while not mirror.is_loaded and mirror.state != "lost" and waited < SHOT_PATIENCE:
        await asyncio.sleep(0.05)
        waited += 0.05
    await asyncio.sleep(_SHOT_SETTLE)
    shown = next(iter(window.log_windows.values()), None) or window.findChild(QDialog) or window
    if not shown.grab().save(wanted.shot):
        sys.stderr.write(f"slipway: the picture could not be written to {wanted.shot}\n")
        return 1
    return 0 if mirror.is_loaded else 1


if __name__ == "__main__":
    sys.exit(main())
