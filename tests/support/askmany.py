"""Asks 127.0.0.11 for a name many times a second: ``python -m tests.support.askmany NAME RATE SECONDS`` prints how many were
sent and how many answered. Run it inside a container's network namespace."""

from __future__ import annotations

import select
import socket
import struct
import sys
import time


def main() -> None:
    name, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    asker.connect(("127.0.0.11", 53))
    asker.setblocking(False)
    question = bytes([len(name)]) + name.encode() + b"\0" + struct.pack("!HH", 1, 1)
    sent = answered = 0
    begin = time.monotonic()
    last = begin
    while answered < rate * seconds and time.monotonic() < last + 10:
        while sent < rate * min(seconds, time.monotonic() - begin):
            asker.send(struct.pack("!6H", sent & 0xFFFF, 0x0100, 1, 0, 0, 0) + question)
            sent += 1
        if select.select([asker], [], [], 0.001)[0]:
            last = time.monotonic()
            try:
                while asker.recv(512)[6:8] != b"\0\0":
                    answered += 1
            except BlockingIOError:
                pass
    print(sent, answered)


if __name__ == "__main__":
    main()
