"""Asks authorisation plug-ins (Docker's protocol) about requests and answers. Any doubt is a refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from backend.errors import EngineError, Forbidden, ServerError
from backend.plugins import Plugins
from backend.plugins.registry import AUTHZ

#: Headers with passwords: no plug-in needs them to judge a request.
_SECRET = frozenset({"x-registry-auth", "x-registry-config", "authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it was understood: who, which operation with which body. ``body`` is b"" for what is streamed
    (archives) and for logins, whose body is a password."""

    user: str
    method: str
    uri: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """As the protocol has it."""
        return {"User": self.user, "UserAuthNMethod": "PEERCRED", "RequestMethod": self.method, "RequestUri": self.uri,
                "RequestBody": self.body, "RequestHeaders": _shown(self.headers)}


class _Verdict(msgspec.Struct, rename="pascal"):
    allow: bool = False
    msg: str = ""


class Authorizer:
    """Asks the plug-ins *names*, in their order; all must allow."""

    def __init__(self, plugins: Plugins, names: Sequence[str]) -> None:
        self._plugins, self._names = plugins, tuple(names)

    @property
    def on(self) -> bool:
        """There is somebody to ask."""
        return bool(self._names)

    async def request(self, question: Question) -> None:
        """Forbidden if a plug-in says no, ServerError if one cannot be asked."""
        for name in self._names:
            await self._ask(name, "AuthZPlugin.AuthZReq", question.wire())

    async def response(self, question: Question, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """The same for the answer before it goes out, in the reverse order."""
        wire = question.wire() | {"ResponseStatusCode": status, "ResponseBody": body,
                                  "ResponseHeaders": _shown(headers)}
        for name in reversed(self._names):
            await self._ask(name, "AuthZPlugin.AuthZRes", wire)

    async def _ask(self, name: str, method: str, wire: Mapping[str, Any]) -> None:
        try:
            verdict = await self._plugins.call(name, method, wire, _Verdict, kind=AUTHZ)
        except EngineError as problem:
            raise ServerError(f"plugin {name} failed with error: {problem.message}") from problem
        if not verdict.allow:
            raise Forbidden(f"authorization denied by plugin {name}: {verdict.msg}")


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET}
