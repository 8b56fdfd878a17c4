"""The command `exclave`: answers signals and has three streams before anything else is imported."""

from __future__ import annotations

import os
import signal
from types import FrameType

_STOPPED = 130


def main() -> None:
    """Entry point of the console script."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell has its background jobs ignore Ctrl-C
            signal.signal(number, _leave)
    from exclave.cli.main import main as run  # noqa: PLC0415  what takes long comes after

    run()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """Nothing was begun yet."""
    os._exit(_STOPPED)


if __name__ == "__main__":
    main()
