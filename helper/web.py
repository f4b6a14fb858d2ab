"""aiohttp's server half, without its client half: 6 MB and 0.1 s less in a process that is there all day.

`import aiohttp` executes the package's own module, which imports the client, its connector, cookies, tracing and
multipart forms; the helper needs none of them. So the package is put in place unexecuted, and executed only if
somebody asks it for a name (tests that use both halves in one process do).
"""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any


def _version(path: str) -> str:
    """As the package's own text says it: importlib.metadata would be the proper way, and costs a megabyte."""
    with open(path, encoding="utf-8") as file:
        found = re.search(r"""^__version__ = ["']([^"']+)""", file.read(4096), re.MULTILINE)
    return found[1] if found else "unknown"


def _unexecuted() -> ModuleType | None:
    """The package in `sys.modules` with only its place and version; None if somebody has imported all of it."""
    spec = importlib.util.find_spec("aiohttp")
    if "aiohttp" in sys.modules or spec is None:
        return None
    package = importlib.util.module_from_spec(spec)
    vars(package)["__version__"] = _version(spec.origin or "")
    sys.modules["aiohttp"] = package
    return package


_package = _unexecuted()

from aiohttp.web_protocol import RequestHandler  # noqa: E402
from aiohttp.web_request import BaseRequest  # noqa: E402
from aiohttp.web_response import Response, StreamResponse  # noqa: E402
from aiohttp.web_server import Server  # noqa: E402

if TYPE_CHECKING:
    from aiohttp.web_ws import WebSocketResponse

__all__ = ["BaseRequest", "RequestHandler", "Response", "Server", "StreamResponse", "WebSocketResponse"]


def websocket(longest: int) -> WebSocketResponse:
    """The answer to a request for a WebSocket with messages of *longest* bytes at most; imported when one comes."""
    from aiohttp.web_ws import WebSocketResponse

    return WebSocketResponse(max_msg_size=longest)


def _execute(name: str) -> Any:
    """The package's `__getattr__` (PEP 562) until it has been executed."""
    assert _package is not None and _package.__spec__ is not None and _package.__spec__.loader is not None
    if vars(_package).pop("__getattr__", None) is not None:
        _package.__spec__.loader.exec_module(_package)
    return getattr(_package, name)


if _package is not None:
    vars(_package)["__getattr__"] = _execute
