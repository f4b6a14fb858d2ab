"""Swarm: this engine is in none, and says so as one that is in none does."""

from __future__ import annotations

import resources
from backend.errors import Unavailable
from helper import web
from helper.call import Call, Route

_SECTIONS = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")


async def no_manager(call: Call) -> web.StreamResponse:
    raise Unavailable('This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
                      "this node to swarm and try again.")


def _routes() -> list[Route]:
    made = []
    for line in resources.text("api-operations.txt").splitlines():
        method, _, path = line.partition(" ")
        if path.startswith(_SECTIONS):
            made.append(Route(method, path, no_manager))
    return made


ROUTES = _routes()
