"""Who the user is to each registry: keyring, Docker's config.json and credential helpers. User wing only."""

from backend.credentials.credential import HUB_KEY, Credential, registry_key, registry_of
from backend.credentials.registry_auth import auth_header
from backend.credentials.store import Login, erase, header_for, list, load, move_plain, plain_warning, save

__all__ = ["HUB_KEY", "Credential", "Login", "auth_header", "erase", "header_for", "list", "load", "move_plain",
           "plain_warning", "registry_key", "registry_of", "save"]
