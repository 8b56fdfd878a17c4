"""One `protect` in a process of its own that has trouble: files may not grow, an embassy is slow. Prints the outcome.

`python limited_home.py FOLDER OPTIONS`, FOLDER as `exclave.testing.dying_home` prepares it, OPTIONS a JSON object:
`phase` and `bytes` (from then on no file may become longer), `slow` and `seconds` (each put of that site takes so
long), `patience`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from exclave.embassies.embassy import Embassy
from exclave.errors import ExclaveError
from exclave.flows import protect as protecting
from exclave.testing import dying_home
from exclave.testing.stores import Troubled


class Limiting:
    """Progress that closes the tap when a phase begins (for reading: when the first bytes are there)."""

    def __init__(self, phase: str, limit: int) -> None:
        self._phase, self._limit = phase, limit
        self._now = ""

    def phase(self, what: str, total: int = 0) -> None:
        self._now = what
        if what != "read and seal":
            self._close()

    def told(self, files: int, done: int) -> None:
        if self._now == "read and seal" and done:
            self._close()

    def _close(self) -> None:
        if self._now == self._phase:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, resource.RLIM_INFINITY))


def main() -> None:
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    died: list[str] = []
    threading.excepthook = lambda args: died.append(repr(args.exc_value))
    world = dying_home.world_of(folder)
    embassies = list(world.embassies)
    if "slow" in options:
        troubled = Troubled(embassies[options["slow"]].store)
        troubled.seconds_per_put = options["seconds"]
        embassies[options["slow"]] = Embassy(embassies[options["slow"]].name, troubled)
    result: dict[str, Any] = {}
    begun = time.monotonic()
    try:
        done = protecting.protect(
            world.home,
            embassies,
            copies=world.copies,
            patience_seconds=options.get("patience", 5.0),
            told=Limiting(options.get("phase", ""), options.get("bytes", 0)),
        )
        result |= {"holders": sorted(done.holders), "behind": done.behind, "full": done.full}
    except ExclaveError as error:
        result |= {"error": error.id, "kind": type(error).__name__, "text": str(error), "hint": error.hint}
    except Exception:  # noqa: BLE001 - the test tells it
        result["bug"] = traceback.format_exc()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    result |= {"died": died, "seconds": time.monotonic() - begun}
    result["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # a put that sleeps must not keep the process


if __name__ == "__main__":
    main()
