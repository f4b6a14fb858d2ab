"""The one error of this room: something in the user's files or wishes that cannot be carried out, and its place."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file. Lines and columns count from 1, as editors show them."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class ComposeError(InvalidArgument):
    """A Compose file, an env file or a project name is wrong, or asks for what is not supported yet.

    ``mark`` is the place, or None where no file is to blame; the message already begins with it.
    """

    def __init__(self, message: str, mark: Mark | None = None) -> None:
        super().__init__(f"{mark}: {message}" if mark else message)
        self.mark = mark
        self.reason = message
