"""Makes a rebuilt tree survive a power cut, all at once."""

from __future__ import annotations

import ctypes
import os


def make_durable(descriptor: int) -> None:
    """Everything written to the file system of `descriptor` is on its disk on return. Raises OSError."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):  # a C library without it: everything on this machine, then
        os.sync()
        return
    if syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
