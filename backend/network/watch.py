"""Hears of firewall tables that are deleted, so that a flushed one of ours comes back at once."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from backend.network.netlink import attributes

_NETFILTER, _GROUP = 12, 1 << 6            # NFNLGRP_NFTABLES
_DELETED_TABLE = 10 << 8 | 2               # NFT_MSG_DELTABLE of subsystem nftables
_DELETED = struct.pack("H", _DELETED_TABLE)
_NAME = 1


class TableWatch:
    """Calls *gone* on the loop when a table named *table* was deleted by anybody, or when events were lost."""

    def __init__(self, table: str, gone: Callable[[], object]) -> None:
        self._table, self._gone = table.encode(), gone
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETFILTER)
        self._socket.bind((0, _GROUP))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        found = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:      # ENOBUFS: more changes at once than the socket could hold
                found = True
                continue
            found = found or self._concerns_us(data)
        if found:
            self._gone()

    def _concerns_us(self, data: bytes) -> bool:
        if _DELETED not in data:      # most are about elements, hundreds of them when many ports are published
            return False
        at = 0
        while at + 20 <= len(data):
            size, kind = struct.unpack_from("IH", data, at)
            name = attributes(data[at + 20:at + size]).get(_NAME, b"") if kind == _DELETED_TABLE else b""
            if name.rstrip(b"\0") == self._table:
                return True
            at += max((size + 3) & ~3, 16)
        return False
