"""The kinds of failure that the engine tells its clients about.

Each edge maps a kind once: the helper to an HTTP status with ``{"message": ...}``, the command line to an exit code,
the window to a text with a way on. Anything that is not an :class:`EngineError` is a bug of ours and answers 500.

A message says what was asked, what went wrong, and what to do next. It never carries a secret.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every failure with a meaning for the client. ``status`` is the HTTP status it maps to."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidArgument(EngineError):
    """The request cannot be understood or asks for what is not allowed by its own rules (400)."""

    status = 400


class Unauthorized(EngineError):
    """Credentials are missing or wrong (401)."""

    status = 401


class Forbidden(EngineError):
    """The caller may not do this (403)."""

    status = 403


class NotFound(EngineError):
    """The named object does not exist (404)."""

    status = 404


class Conflict(EngineError):
    """The object's state or its users do not allow it (409)."""

    status = 409


class NotModified(EngineError):
    """The object is already in the state that was asked for (304, no body)."""

    status = 304


class TooLarge(EngineError):
    """A body or archive is over its limit (413)."""

    status = 413


class NotImplemented_(EngineError):
    """An endpoint or option that this engine does not have (501)."""

    status = 501


class Unavailable(EngineError):
    """Something that the engine depends on (registry, keeper, kernel feature) cannot be had now (503)."""

    status = 503


class ServerError(EngineError):
    """The engine tried and the system refused; the message says what (500, as dockerd does for runtime failures)."""

    status = 500


KINDS: tuple[type[EngineError], ...] = (
    InvalidArgument, Unauthorized, Forbidden, NotFound, Conflict, NotModified, TooLarge, NotImplemented_, Unavailable,
    ServerError,
)


def from_status(status: int, message: str) -> EngineError:
    """The error kind for an HTTP *status*, as a client of the API sees it."""
    for kind in KINDS:
        if kind.status == status:
            return kind(message)
    return ServerError(message)
