"""Docker's multiplexed stream: frames of an 8-byte head (stream, three zeros, big-endian length) and data. Pure."""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR = 0, 1, 2
_HEAD = struct.Struct(">BxxxL")


def frame(stream: int, data: bytes) -> bytes:
    """*data* as one frame of *stream*."""
    return _HEAD.pack(stream, len(data)) + data


class Unframer:
    """Frames out of bytes that come in any pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole now, as (stream, data)."""
        rest, at = self._rest + data, 0
        out = []
        while len(rest) - at >= _HEAD.size:
            stream, length = _HEAD.unpack_from(rest, at)
            end = at + _HEAD.size + length
            if end > len(rest):
                break
            out.append((stream, rest[at + _HEAD.size:end]))
            at = end
        self._rest = rest[at:]
        return out
