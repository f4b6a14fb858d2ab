"""What went wrong, in words for people: what failed, why, what to do."""

from __future__ import annotations

import errno
import getpass
import grp
import os
import stat
import traceback
from dataclasses import dataclass

from backend.errors import EngineError, Unavailable


@dataclass(frozen=True, slots=True)
class Problem:
    """`command`: a line for the terminal that mends it, to copy. `details`: for bug reports; no secret is in it."""

    what: str
    why: str
    hint: str = ""
    command: str = ""
    details: str = ""

    @property
    def text(self) -> str:
        """All of it, to copy."""
        return "\n".join(part for part in (self.what, self.why, self.hint, self.command, self.details) if part)


#: A part of the engine's message, in lower case, and what to do then.
_HINTS = (
    ("port is already allocated", "Choose another port on this machine, or stop what uses it."),
    ("address already in use", "Choose another port on this machine, or stop what uses it."),
    ("is already in use by container", "Choose another name, or remove the container that has it."),
    ("no such image", "Pull the image first, and check its name."),
    ("pull access denied", "Check the image's name. If it is private, sign in under Registries."),
    ("unauthorized", "Sign in to the registry under Registries."),
    ("incorrect username or password", "Check the user name and the password or token."),
    ("manifest unknown", "The registry has no such tag; check the part after the colon."),
    ("executable file not found", "The image has no such program; check the command."),
    ("no such file or directory: unknown", "The image has no such program; check the command."),
    ("connection refused", "The server does not answer. Check that it runs and that the address is right."),
    ("no such host", "The registry's name does not resolve. Check its spelling and the network."),
    ("name or service not known", "The registry's name does not resolve. Check its spelling and the network."),
    ("temporary failure in name resolution", "This machine cannot resolve names now. Check the network."),
    ("image is being used by", "Remove the containers that use it first."),
    ("must be forced", "It is used or has more names: remove those first, or force the removal."),
    ("no space left on device", "The disk is full. Remove images and containers that are no longer needed."),
    ("no such container", "It is gone already; nothing is left to do."),
)


def describe(error: BaseException, what: str) -> Problem:
    """*error* as a problem; *what* failed, as a sentence without a full stop."""
    if isinstance(error, EngineError):
        why = error.message or "The engine gave no reason."
        low = why.lower()
        hint = next((text for part, text in _HINTS if part in low), "")
        return Problem(what, _sentence(why), hint, details=f"{type(error).__name__} ({error.status}): {why}")
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return Problem(what, _sentence(error.strerror or str(error)) + where, details=repr(error))
    if isinstance(error, TimeoutError):
        return Problem(what, "It took too long.", "Try again.", details=repr(error))
    if isinstance(error, ValueError) and str(error):
        return Problem(what, _sentence(str(error)), details=repr(error))
    details = "".join(traceback.format_exception(error))
    return Problem(what, "Something happened in Slipway that should not happen.",
                   "Try again. If it comes back, please report it with the details.", details=details)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) or "\n" in text else f"{text}."


def engine_away(host: str, error: BaseException | None) -> Problem:
    """Why the engine behind *host* does not answer, found by looking at its socket, and the command that mends it."""
    path = host.removeprefix("unix://")
    details = "" if error is None else f"{type(error).__name__}: {error}"
    title = "Slipway's helper does not answer"
    if not host.startswith("unix://"):
        return Problem(title, f"Nothing answers at {host}.", "Check the address and the network.", details=details)
    installed = path == "/run/slipway/slipway.sock"
    start = "sudo systemctl start slipwayd.socket" if installed else f"sudo slipwayd --host {host}"
    try:
        mode = os.stat(path)
    except PermissionError:
        return Problem(title, f"You may not enter the folder of {path}.", "Ask for access to it.",
                       f"sudo usermod -aG slipway {getpass.getuser()}", details)
    except OSError as reason:
        if reason.errno in (errno.ENOENT, errno.ENOTDIR):
            why = f"There is no socket at {path}: the helper is not running."
            return Problem(title, why, "Start it with:", start, details)
        return Problem(title, f"{path}: {reason.strerror}.", details=details)
    if not stat.S_ISSOCK(mode.st_mode):
        return Problem(title, f"{path} is not a socket.", "Check the address that Slipway was given.", details=details)
    if not os.access(path, os.R_OK | os.W_OK):
        group = _group(mode.st_gid)
        return Problem(title, f"You may not use {path}: it belongs to the group {group}.",
                       "Join the group, then sign in to your session again:",
                       f"sudo usermod -aG {group} {getpass.getuser()}", details)
    if isinstance(error, Unavailable | OSError) or error is None:
        why = f"The socket {path} is there, but nobody answers on it."
        return Problem(title, why, "Start the helper with:", start, details)
    return Problem(title, str(error), "Start the helper again with:", start, details)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
