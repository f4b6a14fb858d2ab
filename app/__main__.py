"""`slipway` opens the window, `slipway VERB` runs the command line."""

from __future__ import annotations

import sys

_WINDOW_FLAGS = ("--shot", "--page", "--theme", "--size")


def wants_window(argv: list[str]) -> bool:
    """Whether *argv* names no verb: flags of the window only, or nothing at all."""
    at = 0
    while at < len(argv):
        word = argv[at]
        flag, given, _ = word.partition("=")
        if flag in ("-H", "--host", *_WINDOW_FLAGS):
            at += 1 if given else 2
            if flag in _WINDOW_FLAGS:
                return True
        else:
            return False
    return True


def main() -> int:
    """The program `slipway`; its exit status."""
    argv = sys.argv[1:]
    if wants_window(argv):
        from app.application import main as window

        return window(argv)
    from app.cli.main import main as command_line

    return command_line(argv)


if __name__ == "__main__":
    sys.exit(main())
