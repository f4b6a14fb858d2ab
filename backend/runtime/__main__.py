"""``python -m backend.runtime BUNDLE``: runs one OCI bundle through a keeper of its own, to look into a failed start.

Prints the plan of its root file system first (``--plan``: only that), then the container's output; ends with its code.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile

from backend.runtime.client import Exit, Keeper, KeeperError, LogTarget, Stdio
from backend.runtime.plan import BadConfig, root_plan
from backend.runtime.spawn import read_config


async def _run(bundle: str, exec_root: str) -> int:
    ended: asyncio.Queue[Exit] = asyncio.Queue()
    keeper = await Keeper.connect(Keeper.find_or_start(exec_root), on_exit=ended.put_nowait, on_lost=lambda: None)
    stdio = Stdio(tty=False, open_stdin=False, stdin_once=False)
    try:
        await keeper.create("debug", bundle, overlay=None, stdio=stdio, log=LogTarget("", "none", 0, 1))
        sock = await keeper.attach("debug", stdin=False, stdout=True, stderr=True)
        assert sock is not None
        await keeper.start("debug")
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            while head := await reader.read(8):
                head += await reader.readexactly(8 - len(head))
                os.write(head[0], await reader.readexactly(int.from_bytes(head[4:], "big")))
        finally:
            writer.close()
        end = await ended.get()
        await keeper.delete("debug")
        return end.code
    except KeeperError as error:
        sys.stderr.write(f"{error.stage}: {error.message} ({error.reason})\n")
        return {"not_found": 127, "not_permitted": 126}.get(error.reason, 125)
    finally:
        await keeper.stop()


def main() -> int:
    """The command line."""
    arguments = [a for a in sys.argv[1:] if a != "--plan"]
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m backend.runtime [--plan] BUNDLE\n")
        return 2
    bundle = os.path.abspath(arguments[0])
    try:
        plan = root_plan(read_config(bundle), bundle, None, tty=False)
    except BadConfig as error:
        sys.stderr.write(f"{error}\n")
        return 125
    sys.stderr.write("\n".join(plan.describe()) + "\n")
    if "--plan" in sys.argv:
        return 0
    exec_root = tempfile.mkdtemp(prefix="slipway-debug-")
    try:
        return asyncio.run(_run(bundle, exec_root))
    finally:
        shutil.rmtree(exec_root)


if __name__ == "__main__":
    sys.exit(main())
