"""Docker's own config.json: read as it is, and changed only in the one entry that we were asked about.

Keys: ``auths`` (registry -> {auth, identitytoken}), ``credsStore`` (the helper for all), ``credHelpers``
(registry -> helper).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.credentials.credential import Credential, registry_key
from backend.credentials.registry_auth import basic_field, basic_pair, same_registry
from backend.errors import InvalidArgument


def config_path(env: Mapping[str, str] = os.environ) -> str:
    """Where Docker's config.json is: below DOCKER_CONFIG, or ~/.docker."""
    folder = env.get("DOCKER_CONFIG") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """One config.json, as it was when read. *raw* is the whole document; its repr may not be logged, so it has none."""

    path: str
    raw: dict[str, Any]

    def __repr__(self) -> str:
        return f"DockerConfig({self.path!r})"

    @classmethod
    def read(cls, path: str | None = None) -> DockerConfig:
        """The file at *path* (default: the user's); an empty one where there is none.

        Raises:
            InvalidArgument: it is there and is not a JSON object.
        """
        path = path or config_path()
        try:
            with open(path, "rb") as file:
                raw = json.load(file)
        except FileNotFoundError:
            return cls(path, {})
        except (ValueError, OSError) as error:
            raise InvalidArgument(
                f"Docker's settings {path} cannot be read: {error}. Repair or remove the file.") from None
        if not isinstance(raw, dict):
            raise InvalidArgument(f"Docker's settings {path} are no JSON object. Repair or remove the file.")
        return cls(path, raw)

    def helper_for(self, registry: str) -> str:
        """The helper (``X`` of ``docker-credential-X``) that keeps *registry*'s login; "" = none, the file."""
        for name, helper in self._section("credHelpers").items():
            if same_registry(name, registry) and isinstance(helper, str) and helper:
                return helper
        store = self.raw.get("credsStore")
        return store if isinstance(store, str) else ""

    def helpers(self) -> tuple[str, ...]:
        """Every helper that is named in the file."""
        named = [self.raw.get("credsStore"), *self._section("credHelpers").values()]
        return tuple(dict.fromkeys(name for name in named if isinstance(name, str) and name))

    def plain(self, registry: str) -> Credential | None:
        """The login of *registry* that the file itself holds."""
        for name, entry in self._section("auths").items():
            if same_registry(name, registry) and isinstance(entry, dict):
                found = _credential(name, entry)
                if found is not None:
                    return found
        return None

    def plain_all(self) -> tuple[Credential, ...]:
        """Every login that the file itself holds."""
        entries = self._section("auths").items()
        found = (_credential(name, entry) for name, entry in entries if isinstance(entry, dict))
        return tuple(credential for credential in found if credential is not None)

    def with_login(self, credential: Credential) -> DockerConfig:
        """The same with this login in plain; everything else in the file stays."""
        entry: dict[str, str] = {"auth": basic_field(credential.username, credential.password)}
        if credential.identity_token:
            entry = {"auth": basic_field(credential.username, ""), "identitytoken": credential.identity_token}
        return DockerConfig(self.path, {**self.raw, "auths": {**self._others(credential.registry),
                                                              registry_key(credential.registry): entry}})

    def without(self, registry: str) -> DockerConfig:
        """The same without *registry*'s login; everything else in the file stays."""
        return DockerConfig(self.path, {**self.raw, "auths": self._others(registry)}) if "auths" in self.raw else self

    def with_helper(self, registry: str, helper: str) -> DockerConfig:
        """The same with *registry*'s login in *helper*'s keeping and no longer in the file."""
        raw = {**self.raw, "auths": {**self._others(registry), registry_key(registry): {}}}
        if self.helper_for(registry) != helper:
            raw["credHelpers"] = {**self._section("credHelpers"), registry_key(registry): helper}
        return DockerConfig(self.path, raw)

    def mentions(self, registry: str) -> bool:
        """Whether there is an entry of *registry*, if only docker's mark that a helper keeps it."""
        return any(same_registry(name, registry) for name in self._section("auths"))

    def write(self) -> None:
        """Replaces the file at once, readable for its owner only."""
        write_private(self.path, json.dumps(self.raw, indent="\t").encode() + b"\n")

    def _section(self, key: str) -> dict[str, Any]:
        section = self.raw.get(key)
        return section if isinstance(section, dict) else {}

    def _others(self, registry: str) -> dict[str, Any]:
        return {name: entry for name, entry in self._section("auths").items() if not same_registry(name, registry)}


def _credential(name: str, entry: dict[str, Any]) -> Credential | None:
    user, password = basic_pair(str(entry.get("auth") or ""))
    user, password = user or str(entry.get("username") or ""), password or str(entry.get("password") or "")
    token = str(entry.get("identitytoken") or "")
    # An empty entry is docker's mark for "a helper keeps it".
    return Credential(registry_key(name), user, password, token) if token or (user and password) else None


def write_private(path: str, data: bytes) -> None:
    """Writes *data* to *path* by rename, mode 0600; a link is followed, so that a managed home stays as it is."""
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".slipway-", dir=os.path.dirname(path))  # 0600 from the start
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
