"""Catching up: an embassy that fell behind gets what it lacks from the others, not from the source."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from exclave.crypto.sign import Verifier
from exclave.embassies import copy, inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import History
from exclave.errors import ExclaveError, Unreachable
from exclave.flows.told import Told
from exclave.types import RegisterId

_LOOK_SECONDS = 0.2


def in_step(embassies: Sequence[Embassy], history: History) -> list[Embassy]:
    """The embassies that answer, have every commit there is, and can take the next one.

    Where something that no writer signed lies under the next number, its host put it there: that embassy falls
    behind, and must not look like another writer who stops this one everywhere.
    """
    following = f"/{history.head_sequence + 1:016x}"
    taken = {one.embassy for one in history.troubles if one.path.endswith(following)}
    heads = {name: head for name, head in history.heads.items() if name not in taken}
    return [one for one in embassies if heads.get(one.name) == history.head_sequence]


def catch_up(
    register: RegisterId,
    verifier: Verifier,
    embassies: Sequence[Embassy],
    told: Told,
    *,
    patience_seconds: float,
) -> dict[str, str]:
    """Try to bring every embassy up to the newest commit, all at once. Those that still are behind, and why.

    One that takes no object for `patience_seconds` is given up for now: a later call goes on where it was.
    """
    history = inspect.history(embassies, register, verifier)
    sources = in_step(embassies, history)
    still = dict(history.unreachable)
    behind = [one for one in embassies if one.name not in still and one not in sources]
    work = [_Work(target, sources, register, history) for target in behind]
    while any(one.goes_on(patience_seconds) for one in work):
        time.sleep(_LOOK_SECONDS)
        told.told(sum(one.objects for one in work), sum(one.bytes for one in work))
    for one in work:
        if one.bug is not None:
            raise one.bug
        if one.why:
            still[one.target.name] = one.why
    if work:
        # What an embassy acknowledged is one thing, what it shows another.
        heads = inspect.history(embassies, register, verifier).heads
        for one in work:
            if heads.get(one.target.name, 0) < history.head_sequence:
                still.setdefault(one.target.name, "it took what it lacked, and does not show it")
    return still


class _Work:
    """One embassy that catches up, in a thread of its own (a daemon: a put may hang in the kernel)."""

    def __init__(
        self, target: Embassy, sources: Sequence[Embassy], register: RegisterId, history: History
    ) -> None:
        self.target = target
        self.objects = self.bytes = 0
        self.why = ""
        self.bug: Exception | None = None
        self._given_up = False
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(sources, register, history), name=f"catch up {target.name}", daemon=True
        )
        self._thread.start()

    def goes_on(self, patience_seconds: float) -> bool:
        """Whether it is still worth waiting for."""
        if not self._given_up and time.monotonic() - self._moved_at >= patience_seconds:
            self._given_up = self._thread.is_alive()
            if self._given_up:
                self.why = f"catching up, it took nothing for {patience_seconds:g} seconds"
        return self._thread.is_alive() and not self._given_up

    def _run(self, sources: Sequence[Embassy], register: RegisterId, history: History) -> None:
        try:
            copy.catch_up(self.target, sources, register, history, self._told)
        except ExclaveError as error:
            self.why = self.why or str(error)
        except Exception as error:  # noqa: BLE001 - a bug of ours, raised by the caller's thread
            self.bug = error

    def _told(self, objects: int, moved: int) -> None:
        if self._given_up:
            raise Unreachable("store-unreachable", f"{self.target.name} was given up", why=self.why)
        self.objects, self.bytes = objects, moved
        self._moved_at = time.monotonic()
