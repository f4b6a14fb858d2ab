"""How the command line fails: a text for people and an exit code."""

from __future__ import annotations


class Failure(Exception):
    """The verb cannot do what was asked. *code* is the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Usage(Failure):
    """The words of the command line make no sense. `run` and `exec` end with 125 then."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message, code)


class Refused(Failure):
    """The engine said no, with its HTTP *status*."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unreachable(Failure):
    """No engine behind the socket, or none for this user."""
