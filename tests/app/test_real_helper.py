"""The window on a real helper: what a user does and sees, from the first click to a lost and found engine."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QApplication, QLabel

from app.application import close_context, make_context
from app.settings import Preferences
from app.windows.context import Context
from app.windows.main import MainWindow
from backend.client import Client
from backend.spec import api
from tests.app import scene
from tests.app.conftest import Run, until
from tests.support.private import PrivateHelper
from tests.support.registry import PASSWORD, USER, registry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a private helper needs root")
PATIENCE = 20.0


@pytest.fixture(scope="module")
def helper() -> Iterator[PrivateHelper]:
    with PrivateHelper() as one:
        yield one


@pytest.fixture
def real(qapp: QApplication, helper: PrivateHelper, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MainWindow]:
    """A window on the helper; what a test leaves there is removed by name."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    qapp.setStyle("Fusion")
    context = make_context(f"unix://{helper.socket}", Preferences(str(tmp_path / "window.ini")))
    window = MainWindow(context)

    async def open_it() -> None:
        window.show()
        context.mirror.start()
        await until(lambda: context.mirror.is_loaded, PATIENCE)
    run(open_it())
    yield window

    async def close_it() -> None:
        async with Client(f"unix://{helper.socket}") as client:
            for one in await client.list_containers(all=True):
                await client.remove_container(one.id, force=True, volumes=True)
        window.close()
        await close_context(context)
    run(close_it())
    window.deleteLater()


def row(context: Context, name: str):
    return next((one for one in context.mirror.containers.rows() if one.name == name), None)


async def base(client: Client, *names: str) -> None:
    """Images for the tests, imported once a module."""
    there = {tag for one in await client.list_images() for tag in one.repo_tags}
    if missing := [one for one in names if one not in there]:
        await scene.add_image(client, *missing)


def test_the_first_click_runs_the_sample_with_no_registry_in_reach(real: MainWindow, run: Run) -> None:
    async def story() -> None:
        real.show_page("welcome")
        page = real.pages["welcome"]
        page.go.click()
        await until(page.link.isVisible, PATIENCE)
        sample = row(real.context, "welcome")
        assert sample.state == "running" and sample.ports[0].url in page.link.text()
        assert b"<h1>" in await answer_of(sample.ports[0].public)
    run(story())


async def answer_of(port: int) -> bytes:
    """The body of the page on *port*, once its server listens."""
    for _ in range(200):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            body = (await reader.read()).partition(b"\r\n\r\n")[2]
            writer.close()
        except OSError:
            body = b""
        if body:
            return body
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing answers on {port}")


def test_what_docker_does_elsewhere_shows_without_a_reload(real: MainWindow, run: Run, helper: PrivateHelper) -> None:
    async def story() -> None:
        context = real.context
        async with Client(f"unix://{helper.socket}") as other:
            await base(other, "demo/web:1.2")
            key = await scene.run(other, "elsewhere", "demo/web:1.2", "sleep 100")
            await until(lambda: row(context, "elsewhere") and row(context, "elsewhere").state == "running")
            await other.pause_container(key)
            await until(lambda: row(context, "elsewhere").state == "paused")
            await other.rename_container(key, "renamed")
            await until(lambda: row(context, "renamed") is not None)
            await other.remove_container(key, force=True)
            await until(lambda: row(context, "renamed") is None)
    run(story())


def test_a_shell_in_the_window_answers(real: MainWindow, run: Run, helper: PrivateHelper) -> None:
    async def story() -> None:
        await base(real.context.client, "demo/web:1.2")
        key = await scene.run(real.context.client, "shell", "demo/web:1.2", "sleep 100")
        await until(lambda: key in real.context.mirror.containers)
        real.show_container(key, "Terminal")
        shell = real.details.shell
        await until(lambda: "#" in screen(shell), PATIENCE)
        shell.terminal.typed.emit(b"echo $((40+2)) answers\r")
        await until(lambda: "42 answers" in screen(shell), PATIENCE)
        shell.terminal.typed.emit(b"exit\r")
        told: list[str] = []
        real.context.mirror.told.connect(lambda event: told.append(event.action))
        await until(lambda: not shell.live and shell.again.isVisible(), PATIENCE)
        await until(lambda: "exec_die" in told, PATIENCE)
        assert not shell.live, "a shell that was left does not come back by itself"
    run(story())


def screen(shell) -> str:
    return "\n".join(shell.terminal.grid.display)


def test_the_window_waits_for_its_helper_and_takes_it_back_with_what_happened_meanwhile(real: MainWindow, run: Run,
                                                                                       helper: PrivateHelper) -> None:
    async def story() -> None:
        context = real.context
        await base(context.client, "demo/web:1.2")
        key = await scene.run(context.client, "survivor", "demo/web:1.2", "sleep 1; exit 4")
        await until(lambda: row(context, "survivor") and row(context, "survivor").state == "running")
        await asyncio.to_thread(helper.leave)
        await until(real.connection.isVisible, PATIENCE)
        assert "come back" in real.connection.what.text()
        await asyncio.to_thread(helper.start)
        await until(lambda: not real.connection.isVisible(), PATIENCE)
        await until(lambda: row(context, "survivor").state == "exited", PATIENCE)
        assert key in context.mirror.containers
    run(story())


def test_a_dropped_compose_file_is_shown_first_and_then_started_and_stopped(real: MainWindow, run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        context = real.context
        await base(context.client, "demo/web:1.2", "demo/worker:2.0", "demo/db:16")
        file = tmp_path / "compose.yaml"
        file.write_text(scene.COMPOSE)
        real.show_page("stacks")
        page = real.pages["stacks"]
        mime = QMimeData()
        mime.setUrls([QUrl.fromLocalFile(str(file))])
        page.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton,
                                  Qt.KeyboardModifier.NoModifier))
        await until(lambda: page.preview.shown is not None, PATIENCE)
        assert "create container shop-web-1" in page.preview.steps.toPlainText() and not context.mirror.stacks.rows()
        page.preview.go.click()
        await until(lambda: (one := context.mirror.stacks.get("shop")) and one.running == 3, PATIENCE)
        page.table.choose("shop")
        page.stop_button.click()
        await until(lambda: context.mirror.stacks.get("shop").running == 0, 40)
        page._one("remove", "shop", True)
        await until(lambda: context.mirror.stacks.get("shop") is None, PATIENCE)
    run(story())


def test_the_page_of_a_container_tells_all_of_it_and_changes_it(real: MainWindow, run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        from app.widgets.ask_name import AskName
        from app.windows.container_forms import LimitsForm, ask_commit, ask_rename
        context = real.context
        await base(context.client, "demo/web:1.2")
        key = await scene.run(context.client, "busy", "demo/web:1.2", "echo hi > /made; rm /etc/group; sleep 100", probe="echo fine")
        await until(lambda: row(context, "busy") is not None)
        real.show_container(key, "Stats")
        page = real.details
        await until(lambda: page.stats.cpu.times and page.stats.memory.values[0][-1] > 0, PATIENCE)
        page.show_tab("Processes")
        await until(lambda: page.processes.tree.topLevelItemCount() >= 1, PATIENCE)
        page.show_tab("Files")
        await until(lambda: shown(page.files.changes).get("made") == "+ added", PATIENCE)
        assert shown(page.files.changes)["etc/group"] == "− removed"
        (tmp_path / "note.txt").write_text("a note")
        page.files.copy_in([str(tmp_path / "note.txt")], "/tmp")
        await until(lambda: not context.operations.items and "tmp/note.txt" in shown(page.files.changes), PATIENCE)
        (tmp_path / "out").mkdir()
        page.files.copy_out("/tmp/note.txt", str(tmp_path / "out"))
        await until(lambda: not context.operations.items, PATIENCE)
        assert [(one.name, one.read_text()) for one in (tmp_path / "out").iterdir()] == [("note.txt", "a note")]
        page.show_tab("Health")
        await until(lambda: page.health.probes.topLevelItemCount() > 0, PATIENCE)
        assert "Healthy" in page.health.state.text() and "fine" in page.health.output.toPlainText()
        form = LimitsForm(context, real, row(context, "busy"))
        form.open()
        await until(form.go.isEnabled, PATIENCE)
        form.memory.setText("64m")
        form.restart.setCurrentIndex(form.restart.findData("always"))
        form.go.click()
        await until(lambda: not form.isVisible(), PATIENCE)
        host = (await context.client.inspect_container(key)).host_config
        assert (host.memory, host.restart_policy.name) == (64 << 20, "always")
        for ask, name in ((ask_rename, "calm"), (ask_commit, "made/of-it:1")):
            ask(context, real, context.mirror.containers.get(key))
            dialog = real.findChildren(AskName)[-1]
            dialog.field.setText(name)
            dialog.go.click()
            await asyncio.sleep(0)
        await until(lambda: page.name.text() == "calm", PATIENCE)
        await until(lambda: any(one.name == "made/of-it" for one in context.mirror.images.rows()), PATIENCE)
        await context.client.remove_image("made/of-it:1")
    run(story())


def test_an_images_layers_show_what_each_did_to_the_files(real: MainWindow, run: Run) -> None:
    async def story() -> None:
        context = real.context
        async for _ in context.client.load_images(scene._pieces(scene.layered())):
            pass
        await until(lambda: any(one.name == "demo/shop" for one in context.mirror.images.rows()))
        real.show_page("images")
        real.pages["images"]._open(next(one.key for one in context.mirror.images.rows() if one.name == "demo/shop"))
        from app.windows.image_details import ImageDetails
        details = real.findChild(ImageDetails)
        await until(lambda: details.layers.topLevelItemCount() == 3, PATIENCE)
        assert [details.layers.topLevelItem(place).text(1) for place in range(3)] == [
            "ADD file:8c1b in /", "RUN install-shop && rm /var/cache/packages", "COPY shop.conf menu.txt /"]
        await until(lambda: shown(details.files).get("etc/shop.conf") == "~ changed", PATIENCE)
        assert shown(details.files)["srv"] == "+ added"
        details.layers.setCurrentItem(details.layers.topLevelItem(1))
        await until(lambda: shown(details.files).get("var/cache/packages") == "− removed", PATIENCE)
        details.tabs.setCurrentIndex(4)
        await until(lambda: "may run here" in details.tabs.widget(4).verdict.text(), PATIENCE)
        assert details.steps.topLevelItemCount() == 4 and "ENV SHOP_PORT=8080" in details.steps.topLevelItem(2).text(0)
        details.reject()
    run(story())


def shown(tree) -> dict[str, str]:
    """What an open tree says, by path."""
    found: dict[str, str] = {}

    def walk(item, path: str) -> None:
        for place in range(item.childCount()):
            child = item.child(place)
            found[f"{path}{child.text(0)}"] = child.text(1)
            walk(child, f"{path}{child.text(0)}/")
    walk(tree.invisibleRootItem(), "")
    return found


def test_a_volumes_files_are_looked_at_edited_and_moved_both_ways(real: MainWindow, run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        from app.windows.text_editor import TextEditor
        from app.windows.volume_browser import VolumeBrowser
        context, client = real.context, real.context.client
        await client.create_volume(api.VolumeCreate(name="notes"))
        files = client.volume_files("notes")
        await files.make_directory("/deep")
        await files.write("/deep/a.txt", b"one\n")
        real.show_page("volumes")
        page = real.pages["volumes"]
        await until(lambda: page.table.proxy.rowCount() == 1, PATIENCE)
        await until(lambda: context.mirror.volumes.sizes.get("notes", 0) > 0, PATIENCE)
        page.browse("notes")
        browser = real.findChild(VolumeBrowser)
        await until(lambda: browser.tree.topLevelItemCount() == 1, PATIENCE)
        browser.tree.topLevelItem(0).setSelected(True)
        browser._open()
        await until(lambda: browser.path == "/deep", PATIENCE)
        browser.tree.topLevelItem(0).setSelected(True)
        browser._open()
        editor = browser.findChild(TextEditor)
        await until(lambda: editor.text.toPlainText() == "one\n", PATIENCE)
        await files.write("/deep/a.txt", b"somebody else's\n")
        retype(editor, "mine\n")
        editor.save.click()
        await until(editor.banner.isVisible, PATIENCE)
        assert "has changed" in editor.banner.why.text() and await content(files, "/deep/a.txt") == b"somebody else's\n"
        editor._load()
        await until(lambda: editor.text.toPlainText() == "somebody else's\n", PATIENCE)
        retype(editor, "mine\n")
        editor.save.click()
        await until(lambda: not editor.save.isEnabled() and not editor.text.document().isModified(), PATIENCE)
        assert await content(files, "/deep/a.txt") == b"mine\n"
        editor.close()
        (tmp_path / "big.bin").write_bytes(b"x" * 3_000_000)
        browser.upload([str(tmp_path / "big.bin")])
        await until(lambda: browser.tree.topLevelItemCount() == 2, PATIENCE)
        (tmp_path / "out").mkdir()
        for entry in browser._entries(all_of_them=True):
            browser.fetch(entry, str(tmp_path / "out"))
        await until(lambda: not context.operations.items, PATIENCE)
        assert sorted(one.stat().st_size for one in (tmp_path / "out").iterdir()) == [5, 3_000_000]
        browser.reject()
        await client.remove_volume("notes")
    run(story())


def retype(editor, text: str) -> None:
    """As fingers would: the document knows that it was changed."""
    editor.text.selectAll()
    editor.text.insertPlainText(text)


async def content(files, path: str) -> bytes:
    return b"".join([piece async for piece in files.read(path)])


def test_a_volume_is_backed_up_and_restored_and_cleaned_up_only_when_ticked(real: MainWindow, run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        from app.windows.prune import PruneDialog
        context, client = real.context, real.context.client
        await client.create_volume(api.VolumeCreate(name="kept"))
        await client.volume_files("kept").write("/a", b"before")
        real.show_page("volumes")
        page = real.pages["volumes"]
        await until(lambda: "kept" in context.mirror.volumes, PATIENCE)
        archive = str(tmp_path / "kept.tar.gz")
        page.back_up("kept", archive)
        await until(lambda: not context.operations.items, PATIENCE)
        assert Path(archive).read_bytes()[:2] == b"\x1f\x8b"
        await client.volume_files("kept").write("/a", b"after")
        page.restore("kept", archive)
        await until(lambda: not context.operations.items, PATIENCE)
        assert await content(client.volume_files("kept"), "/a") == b"before"
        page.ask_prune()
        await until(lambda: real.findChild(PruneDialog) is not None, PATIENCE)
        dialog = real.findChild(PruneDialog)
        assert [(one.name, one.wanted, one.size > 0) for one in dialog.items] == [("kept", False, True)] and not dialog.go.isEnabled()
        dialog.tree.topLevelItem(0).setCheckState(0, Qt.CheckState.Checked)
        dialog.go.click()
        await until(lambda: "kept" not in context.mirror.volumes, PATIENCE)
    run(story())


@pytest.mark.registry
def test_signed_in_push_then_browse_and_pull(real: MainWindow, run: Run) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")

    async def story(address: str) -> None:
        from app.windows.image_forms import PushDialog
        from app.windows.registries import SignInDialog
        from app.windows.registry_browser import RegistryBrowser
        context = real.context
        await base(context.client, "demo/web:1.2")
        await until(lambda: any(one.name == "demo/web" for one in context.mirror.images.rows()))
        real.show_page("registries")
        page = real.pages["registries"]
        page.ask(address)
        form = real.findChild(SignInDialog)
        form.user.setText(USER)
        form.secret.setText("wrong")
        form.go.click()
        await until(form.banner.isVisible, PATIENCE)
        assert PASSWORD not in form.banner.why.text() and not page.area.isVisible()
        form.secret.setText(PASSWORD)
        form.go.click()
        await until(lambda: any("accepted by the registry" in one.text() for one in page.findChildren(QLabel)), PATIENCE)
        row_ = next(one for one in context.mirror.images.rows() if one.name == "demo/web")
        push = PushDialog(context, real, row_)
        push.field.setText(f"{address}/team/web:1")
        push.go.click()
        await until(lambda: not context.operations.items, PATIENCE)
        await context.client.remove_image(f"{address}/team/web:1")
        page.browse(address)
        browser = real.findChild(RegistryBrowser)
        await until(lambda: browser.repositories.count() == 1, PATIENCE)
        browser.repositories.setCurrentRow(0)
        await until(lambda: browser.reference() == f"{address}/team/web:1", PATIENCE)
        browser.pull.click()
        await until(lambda: any(one.name == f"{address}/team/web" for one in context.mirror.images.rows()), PATIENCE)

    with registry(password=True) as address:
        run(story(address))


@pytest.mark.registry
def test_a_pull_by_its_form_shows_every_layer(real: MainWindow, run: Run) -> None:
    if shutil.which("docker-registry") is None or shutil.which("skopeo") is None:
        pytest.skip("docker-registry and skopeo are not installed")

    async def story(address: str) -> None:
        context = real.context
        await base(context.client, "demo/web:1.2")
        saved = b"".join([piece async for piece in context.client.save_images(["demo/web:1.2"])])
        archive = Path(os.environ["DOCKER_CONFIG"]) / "web.tar"
        archive.write_bytes(saved)
        done = await asyncio.create_subprocess_exec(
            "skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"docker-archive:{archive}",
            f"docker://{address}/team/web:1")
        assert await done.wait() == 0
        await context.client.remove_image("demo/web:1.2", force=True)
        real.show_page("images")
        real.show_pull_form(f"{address}/team/web:1")
        from app.windows.image_forms import PullDialog
        real.findChild(PullDialog).go.click()
        operation = context.operations.items[-1]
        seen: dict[str, str] = {}
        operation.changed.connect(lambda: seen.update({key: text for key, (text, _, _) in operation.layers.items()}))
        await until(lambda: operation.state != "running", PATIENCE)
        assert operation.problem is None and seen and all(text in ("Pull complete", "Already exists") for text in seen.values())
        await until(lambda: any(one.name == f"{address}/team/web" for one in context.mirror.images.rows()))

    with registry() as address:
        run(story(address))
