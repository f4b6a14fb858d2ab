"""Names for containers that were given none, and the rules for names that were. Pure but for the dice."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container

from backend.errors import InvalidArgument

_ADJECTIVES = (
    "amber", "ample", "balmy", "brave", "breezy", "bright", "brisk", "calm", "candid", "cheery", "civil", "clear",
    "clever", "coastal", "cosy", "crisp", "curious", "daring", "deft", "eager", "early", "earnest", "easy", "fabled",
    "fair", "fleet", "fond", "frosty", "gentle", "gilded", "glad", "golden", "grand", "hardy", "hearty", "honest",
    "humble", "idle", "jolly", "keen", "kind", "level", "light", "lively", "lucid", "lucky", "lunar", "mellow",
    "merry", "mild", "misty", "modest", "neat", "nimble", "noble", "patient", "placid", "plain", "polite", "proud",
    "quick", "quiet", "rapid", "ready", "robust", "rosy", "salty", "sandy", "serene", "sharp", "silent", "silver",
    "snug", "solar", "spry", "stable", "steady", "stout", "sunny", "supple", "swift", "tidal", "tidy", "trim",
    "trusty", "upbeat", "vivid", "warm", "wavy", "wise", "witty", "woven", "young",
)
_NOUNS = (
    "anchor", "atoll", "barge", "bay", "beacon", "boat", "bollard", "bow", "breeze", "brig", "buoy", "canal", "canoe",
    "cape", "capstan", "chart", "clipper", "coast", "compass", "coral", "cove", "crane", "current", "cutter", "deck",
    "delta", "dhow", "dinghy", "dock", "dune", "estuary", "ferry", "fjord", "fleet", "frigate", "galley", "gangway",
    "gull", "gust", "halyard", "harbor", "haven", "heron", "hull", "inlet", "island", "jetty", "jib", "kayak", "keel",
    "ketch", "lagoon", "lantern", "ledge", "lock", "lugger", "marina", "mast", "mooring", "oar", "otter", "paddle",
    "pelican", "pier", "pilot", "pontoon", "port", "quay", "raft", "reef", "rigging", "rudder", "sail", "schooner",
    "sextant", "shoal", "shore", "sloop", "sound", "spinnaker", "starfish", "strait", "surf", "swell", "tern", "tide",
    "tiller", "trawler", "tug", "voyage", "wake", "wave", "wharf", "winch", "yacht", "yawl",
)
_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def random_name(taken: Container[str]) -> str:
    """A free name such as `calm_harbor`; with a number at its end once the plain ones get scarce."""
    for attempt in range(1000):
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
        if attempt > 5:
            name += str(secrets.randbelow(10 ** (attempt // 5)))
        if name not in taken:
            return name
    return f"slip_{secrets.token_hex(8)}"


def new_id() -> str:
    """A fresh object ID: 64 hex digits. The first twelve are never all decimal: they serve as host names."""
    while True:
        made = secrets.token_hex(32)
        if not made[:12].isdecimal():
            return made


def check_name(name: str) -> str:
    """*name* without its leading slash. Raises :class:`InvalidArgument` in the words that clients know."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")
