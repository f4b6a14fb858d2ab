"""``tinyinit.c`` compiled, and how it is executed: from a sealed memory file, which nothing can be written to.

The bytes were made with the command in the source (gcc 12.2, Debian 12; for aarch64 with its cross compiler). They are
here and not in a file of their own, so that no way of installing Slipway can lose or mix them up.
"""

from __future__ import annotations

import base64
import fcntl
import os
import zlib

_SEALS = 0xF  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_F_ADD_SEALS = 1033
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 0x10

_PROGRAMS = {
    "x86_64": (
        "eNqtVN9LFFEUvu66JmaOvtXbMAgV6dJYD7ZR7aJbY4xEaNmDEOPuNYfcGZsfpFQqbUK3ZaPHKPoTgp5isZw1HwJ7qPChAh+Kfrm1RIFgUtp2"
        "7p3Z0lXChw7sPfec+b7vnHvuckei8mFfWRkqmg8dRDS6h8IsDnv5XPkfCOSaARdGAVTOsAGGd63IK/qcH63ylR7u+AcrXoE2brWeF79IZE5K"
        "vv+Wo1GkK3IyciLSeUIiyx1S6kitOCunDkmprq2t13jO8V2ZtKrPzlZJhal0t/95/ktUnImKk+KME/aHUeYOKGQ5WLhAZMJH5cZpe5kaWJwb"
        "5WEkk69cADiZZoqsg0UiL7iANDbZRh5JsVlubJ7mUlFeTts7nKsuxVWRyROJtNbnmJqrMsDSz2TyFAqOLol2dYYey6npdFuQIHA7lMjryEM6"
        "WsfHODmZvOUCmf2s2sX63NF053KtTBagl+TiL3ub0w7nGZcZ9g2QuUB2BIJ81JNLLi7atc4tf9j7LpPPeQGy83a1845S2yi6ymmEE4x3rJQZ"
        "pjOfcWUyc8UJTPhXpCWSA6w7Gbp9CbQyhszBzlfctY9ND1UziewoG8kEdXI6Xr8UmTgA27bk00KEMR/MMXl3kG6FLL0Pr8Zj6LzOxuKkW18m"
        "32HQSzL5yAb1gw1lwd4izkjkFbQDrPwxuLPhu237HtnTKcCSqeTbEWtz+jJtQYot5iu4+0tSrPD3SK9Yrfxt4HHXzxUKBW8EB9075AKfuiGJ"
        "kNmvDpxXhkKqplrogmBgxdQ1ISRounW6V7e1uNAgYMPQdCHU1CAksGkqZzB8x4M4FuI1nTftWB/fq/ZjXjf4uGrgmKUbQ8KlUrEBbCRUy8Ir"
        "BJvXCtKV79WNhGLxgNKNDQmJe9YqMZhpqrrGx7GmAnwjSprd379Wy+rD/IChnzGUBB9TNODyPZg3bA00S2zTzwKzIy0tIX5HK+5RFY0Xm4JN"
        "wd2N4t5dcdwjNtniTi+FUNDsMy3DUnpQ0MKDFgoaelyxFBSM6YkE1iz0n2wz/Ohfs2LNO+fadd9qfFkJv87LFWH0AXK9G58qIVSW8Ld5/N0l"
        "+Zveu7wdrV9/pfevc66sxxfQv/v/DdwKkiY="
    ),
    "aarch64": (
        "eNqtVV9oHGUQn91v73LXXJOLLaQSdL9sXlo4jyZWqIcPm0v98yBIwz34Fjd3X5qV3G7c3WBqLW7pg2ARcioKQuUEA7r4YBCV+qAXRShUENYi"
        "vpk7sS34FBFplLLOt3/i3aWFPDgwNzczv998M/Mtu688/vQToiBAIiJ8Adz7BNTQV+P4WmoXgrGTiFMhDakQmwrxkSS8xK5J0GMzMe70b04t"
        "DfuXfGwfANffItDIArx1i4C3RQSvTUSvQ4j3K5E8CfPY0/UWmfvpzrmvPrqBmBS4s3eQcwDUnbLgzkJG3TkI6qOtnLojoB0fhkc4j6C2BdcX"
        "sd2tw65fbg7xc9ZuBME7xzYPNSTMdUjW47hp3kfe9X/B3PrL6psJX0QdF13fHXP9nzF3E89/Lg2fXcurO5zPMYogXUr4PyDm+yY0uvkCavOQ"
        "61/F3NffwQttgEqS/+bCa1GeuH4L822SCmeeQC2jUox/ifGZbFSzQ3K4n0Hv2xy51MSePsUcj8sZ2GgPQIXzL2ajmSGDNa4PNTxed9j1u3tq"
        "Dbr+B/F5uM+eHB1w/ctdvXTH1yVovM3nyMG2EASVm3D7855Z81Ht1xHD/TbuN9kTHXH9VzHewR3Kp2C7nYZKx47mmoj29IZLXT+Q4cp5xMlH"
        "YWOT/LerZJe3gmB0XRLHAHtZb8Hpi+jLFDbGBajwucuZfINk+dkpj+/geay1ORzud1Q+ARvvQ4SbQEy5MNL4C+Pcrx5Av3Jf4w+OA9g++HdQ"
        "CQB+b6PdktUru30cAWsaxBF47Kkfw+cDnxcBLrzL534Gz7qW8G8HeB8Duzuk+fAuR/lzby/pyy9qZ0u6oTtwTrGYZpuGUlIM05lbMFeMmlJQ"
        "mGUZplKaKih1ZtvaGYZ5tsqqJWqY1F6pLtIFfYlR06I13WJVx7TOKuf7iy0zq647DusqeHJvQf5LF0yrrjkUUaa1r0KTD++tFMJsWzcNWmOG"
        "jvD9VDJWlpb21nIWGV22zDOWVqdVzUAunWfUWjGwZiwD/wSh9L9XhJdmQVp9UBjLyWHsCGoTsTTOH0YtoH6Msat4+TA9RC9L75EnZ2ZK9Ogp"
        "Nq9rBp2cKk4Vjz80eeJY/BegaC/ajuVo81B02KoDRcusaY4GRbY4t4B9MihWzXqdGQ78LzLIZ0FN73kfR/Kn2IuX+vgjMT+BfUjU2Eb+s0Iv"
        "PtPHv7+PD6n4C5KCnu/JvfgTMf94X1yN+XJfXLiLJXfZy1zML9yDn8i/os/hQQ=="
    ),
}


def program(machine: str) -> bytes:
    """The compiled program for *machine*; empty if there is none."""
    return zlib.decompress(base64.b64decode(_PROGRAMS[machine])) if machine in _PROGRAMS else b""


def sealed(code: bytes) -> int:
    """A descriptor of *code* to execute, which can be changed by nobody, not even through /proc/PID/exe."""
    try:
        fd = os.memfd_create("slipway-init", _MFD_CLOEXEC | _MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:  # before Linux 6.3 all memory files were executable
        fd = os.memfd_create("slipway-init", _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
    os.write(fd, code)
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    return fd
