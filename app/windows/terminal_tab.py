"""A shell inside a container: an exec with a terminal. It lives on while other tabs and pages are looked at."""

from __future__ import annotations

import asyncio

from PySide6.QtWidgets import QVBoxLayout, QWidget

from app.models.problems import Problem
from app.widgets.parts import Banner, button, label, row
from app.widgets.terminal import Terminal
from app.windows.context import Context
from backend.client import Stream
from backend.errors import EngineError
from backend.spec import api

# One exec that finds the better shell by itself: asking first would cost another exec and could be wrong by then.
SHELL = ["/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh"]


class TerminalTab(QWidget):
    """Starts the shell when it is first shown; a button starts another one after it ended."""

    def __init__(self, context: Context, key: str) -> None:
        super().__init__()
        self.context, self.key = context, key
        self.terminal = Terminal()
        self.banner = Banner()
        self.note = label("", "muted")
        self.again = button("New shell", "restart", "", self.begin)
        self.again.hide()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 8, 0, 0)
        box.setSpacing(6)
        box.addWidget(self.banner)
        box.addWidget(self.terminal, 1)
        box.addLayout(row(self.note, None, self.again))
        self._exec = ""
        self._stream: Stream | None = None
        self._keys: asyncio.Queue[bytes] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.terminal.typed.connect(self._keys.put_nowait)
        self.terminal.resized.connect(self._resized)
        self.banner.retried.connect(self.begin)

    @property
    def live(self) -> bool:
        """Whether a shell runs."""
        return self._task is not None and not self._task.done()

    def begin(self) -> None:
        """Start a shell unless one runs."""
        if self.live:
            return
        self.banner.hide()
        self.again.hide()
        self.note.setText("Starting a shell…")
        self.terminal.reset()
        while not self._keys.empty():
            self._keys.get_nowait()
        self._task = self.context.bridge.run("The terminal could not be opened", self._run(), failed=self._failed,
                                             then=self._ended, owner=self)

    async def _run(self) -> int | None:
        grid = self.terminal.grid
        body = api.ExecCreate(attach_stdin=True, attach_stdout=True, attach_stderr=True, tty=True, cmd=SHELL,
                              env=["TERM=xterm-256color"], console_size=[grid.lines, grid.columns])
        self._exec = await self.context.client.create_exec(self.key, body)
        stream = self._stream = await self.context.client.start_exec(self._exec, tty=True)
        self.terminal.set_live(True)
        self.note.setText("Ctrl+Shift+C copies, Ctrl+Shift+V pastes, Shift+Page Up scrolls back")
        await self._tell_size()
        typing = asyncio.ensure_future(self._type(stream))
        try:
            async for _, data in stream:
                self.terminal.feed(data)
        finally:
            typing.cancel()
            stream.close()
            self._stream = None
        try:
            return (await self.context.client.inspect_exec(self._exec)).exit_code
        except EngineError:
            return None

    async def _type(self, stream: Stream) -> None:
        while True:
            data = await self._keys.get()
            while not self._keys.empty():
                data += self._keys.get_nowait()
            await stream.write(data)

    async def _tell_size(self) -> None:
        grid = self.terminal.grid
        try:
            await self.context.client.resize_exec(self._exec, rows=grid.lines, columns=grid.columns)
        except EngineError:
            # The shell has ended this very moment; its end is told by the stream.
            self.note.setText("")

    def _resized(self) -> None:
        if self._stream is not None:
            self.context.bridge.run("The terminal's size could not be told", self._tell_size(), owner=self)

    def _ended(self, code: int | None) -> None:
        self.terminal.set_live(False)
        self.note.setText("The shell has ended." if not code else f"The shell has ended with exit code {code}.")
        self.again.show()

    def _failed(self, problem: Problem) -> None:
        self.terminal.set_live(False)
        self.note.setText("")
        self.banner.show_problem(problem, retry=True, closable=False)
