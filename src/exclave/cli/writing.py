"""Write to a stream that may be full, closed or left by its reader: that is never the failure of the work itself."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def write(text: str, stream: TextIO, *, flush: bool = False) -> OSError | None:
    """One line and its end; what the system said when it could not be written."""
    try:
        print(text, file=stream, flush=flush)
    except OSError as error:
        return error
    return None


def flush(stream: TextIO) -> OSError | None:
    """Everything written so far; what the system said when it could not be."""
    try:
        stream.flush()
    except OSError as error:
        return error
    return None


def open_missing() -> None:
    """Put /dev/null where standard streams were closed: a file opened later must not become one of them."""
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(number, True)
            setattr(sys, ("stdin", "stdout", "stderr")[number], open(number, mode, closefd=False))  # noqa: SIM115


def let_go() -> None:
    """Nothing more is written: what a stream could not take is dropped, so that leaving says nothing of it."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if flush(stream) is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            with suppress(OSError):
                stream.flush()
