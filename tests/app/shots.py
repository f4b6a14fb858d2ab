"""Pictures of the window on a real helper: `./dev shots [DIR]` makes those of the guide; `--all` makes every page and
dialog, in both themes and two sizes, to be looked at after a change.

    python -m tests.app.shots DIR [--all] [--only NAME,NAME] [--size 900x600]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtWidgets import QApplication, QDialog, QWidget

from app import theme
from app.application import close_context, make_context
from app.models.problems import Problem
from app.settings import Preferences, Theme
from app.windows.context import Context
from app.windows.main import MainWindow
from tests.app import scene
from tests.app.conftest import until
from tests.support.private import PrivateHelper
from tests.support.registry import registry

THEMES: tuple[Theme, ...] = ("light", "dark")
#: Long enough for a stream of usage and a log to have something to show.
SETTLE = 1.5
STATS_WAIT = 20


@dataclass(slots=True)
class Stage:
    """A window on the scene. `helper` may be stopped by a picture that shows its absence (the last one)."""

    context: Context
    window: MainWindow
    made: dict[str, str]
    helper: PrivateHelper
    folder: Path
    registry: str


Picture = Callable[[Stage], Awaitable[QWidget]]
PICTURES: dict[str, Picture] = {}
#: Those of the user guide; the others are for the eyes of who works on the window.
GUIDE = ("welcome", "containers", "container-stats", "log", "images", "image", "run", "stacks", "stack-preview", "networks", "volumes",
         "disk")


def picture(name: str) -> Callable[[Picture], Picture]:
    """Register the picture *name*."""
    def keep(draw: Picture) -> Picture:
        PICTURES[name] = draw
        return draw
    return keep


async def _dialog(stage: Stage) -> QDialog:
    found = [one for one in stage.window.findChildren(QDialog) if one.isVisible()]
    assert found, "no dialog came"
    return found[-1]


@picture("welcome")
async def _welcome(stage: Stage) -> QWidget:
    stage.window.show_page("welcome")
    return stage.window


@picture("containers")
async def _containers(stage: Stage) -> QWidget:
    stage.window.show_page("containers")
    stage.window.pages["containers"].table.choose(stage.made["blog"])
    await asyncio.sleep(4)
    return stage.window


@picture("containers-error")
async def _containers_error(stage: Stage) -> QWidget:
    stage.window.show_page("containers")
    stage.window.pages["containers"].show_problem(Problem(
        "Start of blog failed", "driver failed programming external connectivity: Bind for 0.0.0.0:8080 failed: port is "
        "already allocated.", "Choose another port on this machine, or stop what uses it.", details="ServerError (500)"), lambda: None)
    return stage.window


@picture("containers-nothing")
async def _nothing(stage: Stage) -> QWidget:
    stage.window.show_page("containers")
    stage.window.pages["containers"].filter.setText("no such thing")
    return stage.window


@picture("remove")
async def _remove(stage: Stage) -> QWidget:
    stage.window.show_page("containers")
    page = stage.window.pages["containers"]
    page.table.selectAll()
    page._do("remove")
    return await _dialog(stage)


def _container(tab: str, name: str) -> None:
    @picture(f"container-{name}")
    async def _shot(stage: Stage) -> QWidget:
        stage.window.show_container(stage.made["blog"], tab)
        if tab == "Terminal":
            shell = stage.window.details.shell
            await until(lambda: shell.live, 10)
            await asyncio.sleep(1)
            shell.terminal.typed.emit(b"ls -l /\r")
        if tab == "Stats":
            # Enough for the lines to say something; longer when it is the picture of the guide.
            await asyncio.sleep(STATS_WAIT)
        return stage.window


for _tab, _name in (("Log", "log"), ("Inspect", "inspect"), ("Terminal", "terminal"), ("Stats", "stats"),
                   ("Processes", "processes"), ("Files", "files"), ("Health", "health")):
    _container(_tab, _name)


@picture("limits")
async def _limits(stage: Stage) -> QWidget:
    from app.windows.container_forms import LimitsForm

    form = LimitsForm(stage.context, stage.window, stage.context.mirror.containers.get(stage.made["blog"]))
    form.open()
    return form


@picture("container-off")
async def _off(stage: Stage) -> QWidget:
    stage.window.show_container(stage.made["reports"], "Terminal")
    return stage.window


@picture("log")
async def _log(stage: Stage) -> QWidget:
    stage.window.show_log_window(stage.made["blog"])
    window = stage.window.log_windows[stage.made["blog"]]
    await asyncio.sleep(1)
    window.pane.wanted.setText("warning")
    return window


@picture("images")
async def _images(stage: Stage) -> QWidget:
    stage.window.show_page("images")
    return stage.window


@picture("image")
async def _image(stage: Stage) -> QWidget:
    stage.window.show_page("images")
    page = stage.window.pages["images"]
    page._open(next(one.key for one in stage.context.mirror.images.rows() if one.name == "demo/shop"))
    dialog = await _dialog(stage)
    await asyncio.sleep(0.7)
    return dialog


@picture("pull")
async def _pull(stage: Stage) -> QWidget:
    stage.window.show_page("images")
    stage.window.show_pull_form("debian:stable-slim")
    return await _dialog(stage)


@picture("pull-failed")
async def _pull_failed(stage: Stage) -> QWidget:
    from app.windows.image_forms import pull_image

    stage.window.show_page("images")
    operation = pull_image(stage.context, "127.0.0.1:9/team/app:1.0")
    await until(lambda: operation.state != "running", 30)
    return stage.window


@picture("run")
async def _run(stage: Stage) -> QWidget:
    stage.window.show_page("containers")
    stage.window.show_run_form("slipway/welcome:latest")
    dialog = await _dialog(stage)
    dialog.name.setText("shop")
    dialog.environment.add("SHOP_NAME", "The little shop")
    dialog.volumes.add("shop-data", "/data")
    return dialog


@picture("stacks")
async def _stacks(stage: Stage) -> QWidget:
    stage.window.show_page("stacks")
    stage.window.pages["stacks"]._show_list()
    return stage.window


@picture("stack-preview")
async def _preview(stage: Stage) -> QWidget:
    file = stage.folder / "notes" / "compose.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(scene.COMPOSE.replace("name: shop", "name: notes"))
    stage.window.show_page("stacks")
    stage.window.pages["stacks"].open_files([str(file)])
    return stage.window


@picture("stack-error")
async def _stack_error(stage: Stage) -> QWidget:
    file = stage.folder / "broken.yaml"
    file.write_text("services:\n  web:\n    image: demo/web:1.2\n    prots: ['80:80']\n")
    stage.window.show_page("stacks")
    stage.window.pages["stacks"].open_files([str(file)])
    return stage.window


@picture("networks")
async def _networks(stage: Stage) -> QWidget:
    stage.window.show_page("networks")
    await until(stage.context.mirror.networks.keys)
    return stage.window


@picture("networks-list")
async def _networks_list(stage: Stage) -> QWidget:
    stage.window.show_page("networks")
    stage.window.pages["networks"].as_list.click()
    return stage.window


@picture("network-form")
async def _network_form(stage: Stage) -> QWidget:
    stage.window.show_page("networks")
    stage.window.pages["networks"].as_map.click()
    stage.window.pages["networks"]._new()
    return await _dialog(stage)


@picture("volumes")
async def _volumes(stage: Stage) -> QWidget:
    stage.window.show_page("volumes")
    stage.window.pages["volumes"].table.choose("blog-articles")
    return stage.window


@picture("volume-files")
async def _volume_files(stage: Stage) -> QWidget:
    stage.window.show_page("volumes")
    stage.window.pages["volumes"].browse("blog-articles")
    return await _dialog(stage)


@picture("volume-edit")
async def _volume_edit(stage: Stage) -> QWidget:
    from app.windows.text_editor import TextEditor

    stage.window.show_page("volumes")
    editor = TextEditor(stage.context, stage.window, stage.context.client.volume_files("blog-articles"), "/first.md")
    editor.open()
    return editor


@picture("prune-volumes")
async def _prune_volumes(stage: Stage) -> QWidget:
    stage.window.show_page("volumes")
    stage.window.pages["volumes"].ask_prune()
    await asyncio.sleep(0.7)
    return await _dialog(stage)


@picture("registries")
async def _registries(stage: Stage) -> QWidget:
    from backend import credentials
    from backend.credentials import Credential

    if stage.registry:
        await credentials.save(Credential(stage.registry, "anna", "geheim"))
    await credentials.save(Credential("127.0.0.1:9", "tom", "old password"))
    stage.window.show_page("containers")
    stage.window.show_page("registries")
    return stage.window


@picture("browse")
async def _browse(stage: Stage) -> QWidget:
    stage.window.show_page("registries")
    stage.window.pages["registries"].browse(stage.registry or "127.0.0.1:9")
    dialog = await _dialog(stage)
    await asyncio.sleep(0.7)
    if dialog.repositories.count():
        dialog.repositories.setCurrentRow(0)
    return dialog


@picture("signatures")
async def _signatures(stage: Stage) -> QWidget:
    dialog = await _image(stage)
    dialog.tabs.setCurrentIndex(4)
    return dialog


@picture("run-failed")
async def _run_failed(stage: Stage) -> QWidget:
    from app.models.run_request import RunRequest
    from app.windows.run_form import run_image

    stage.window.show_page("containers")
    operation = run_image(stage.context, RunRequest("127.0.0.1:9/team/app:1.0", name="box"), lambda _key: None)
    await until(lambda: operation.state != "running", 30)
    return stage.window


@picture("prune-images")
async def _prune_images(stage: Stage) -> QWidget:
    stage.window.show_page("images")
    stage.window.pages["images"].ask_prune()
    await asyncio.sleep(0.7)
    return await _dialog(stage)


@picture("push")
async def _push(stage: Stage) -> QWidget:
    stage.window.show_page("images")
    page = stage.window.pages["images"]
    page.table.choose(next(one.key for one in stage.context.mirror.images.rows() if one.name == "demo/web"))
    page._push()
    return await _dialog(stage)


@picture("sign-in")
async def _sign_in(stage: Stage) -> QWidget:
    stage.window.show_page("registries")
    stage.window.pages["registries"].ask("registry.example.com")
    return await _dialog(stage)


@picture("disk")
async def _disk(stage: Stage) -> QWidget:
    stage.window.show_page("disk")
    await until(lambda: stage.window.pages["disk"].usage is not None, 20)
    return stage.window


@picture("lost")
async def _lost(stage: Stage) -> QWidget:
    """The last: the helper is stopped for it and started again."""
    stage.window.show_page("containers")
    await asyncio.to_thread(stage.helper.leave)
    await until(lambda: stage.context.mirror.state == "lost")
    return stage.window


async def _take(stage: Stage, name: str, target: Path) -> None:
    shown = await PICTURES[name](stage)
    await asyncio.sleep(SETTLE)
    shown.grab().save(str(target))
    if isinstance(shown, QDialog):
        shown.reject()
    elif shown is not stage.window:
        shown.close()
    if stage.context.mirror.state == "lost":
        await asyncio.to_thread(stage.helper.start)
        await until(lambda: stage.context.mirror.state == "connected", 10)
    for operation in list(stage.context.operations.items):
        stage.context.operations.dismiss(operation)
    for page in stage.window.pages.values():
        if hasattr(page, "filter"):
            page.filter.clear()
        if hasattr(page, "banner"):
            page.banner.hide()
    print(target)


async def shoot(folder: Path, names: list[str], sizes: list[str]) -> None:
    """Make the scene once and take all pictures of it."""
    with PrivateHelper() as helper, tempfile.TemporaryDirectory(prefix="slipway-shots-") as at, \
            contextlib.ExitStack() as held:
        os.environ["DOCKER_CONFIG"] = at
        os.environ["XDG_CONFIG_HOME"] = at
        context = make_context(f"unix://{helper.socket}", Preferences(keep=False))
        made = await scene.build(context.client, Path(at))
        window = MainWindow(context)
        window.show()
        context.mirror.start()
        await until(lambda: context.mirror.is_loaded)
        address = held.enter_context(registry()) if shutil.which("docker-registry") else ""
        if address:
            await scene.fill_registry(context.client, address)
        stage = Stage(context, window, made, helper, Path(at), address)
        try:
            for size in sizes:
                width, _, height = size.partition("x")
                window.resize(int(width), int(height))
                for colours in THEMES:
                    theme.apply(colours)
                    for name in names:
                        suffix = f"-{size}" if len(sizes) > 1 else ""
                        await _take(stage, name, folder / f"{name}-{colours}{suffix}.png")
        finally:
            window.close()
            await close_context(context)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev shots", description=__doc__)
    parser.add_argument("folder", nargs="?", default="docs/pictures")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--size", default="")
    wanted = parser.parse_args()
    names = wanted.only.split(",") if wanted.only else list(PICTURES) if wanted.all else list(GUIDE)
    sizes = [wanted.size] if wanted.size else ["1280x800", "900x600"] if wanted.all else ["1120x700"]
    folder = Path(wanted.folder)
    folder.mkdir(parents=True, exist_ok=True)
    application = QApplication([sys.argv[0]])
    application.setStyle("Fusion")
    application.setQuitOnLastWindowClosed(False)
    import qasync

    loop = qasync.QEventLoop(application)
    asyncio.set_event_loop(loop)
    with loop:
        loop.run_until_complete(shoot(folder, names, sizes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
