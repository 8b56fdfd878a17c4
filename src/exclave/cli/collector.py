"""Python's cycle collector in verbs that move millions of objects: it looks seldom, and never at what is loaded."""

from __future__ import annotations

import gc

THRESHOLD = (200_000, 20, 100)


def relax() -> None:
    """For the rest of this process. What these verbs make dies by reference count; looking for cycles costs a tenth."""
    gc.freeze()
    gc.set_threshold(*THRESHOLD)
