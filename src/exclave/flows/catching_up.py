"""Catching up: an embassy that fell behind gets what it lacks from the others, not from the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from exclave.crypto.sign import Verifier
from exclave.embassies import copy, inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import History
from exclave.errors import ExclaveError
from exclave.types import RegisterId


class Told(Protocol):
    """Progress: objects and bytes so far."""

    def told(self, files: int, done: int) -> None:
        """So much of it is done."""
        ...


def in_step(embassies: Sequence[Embassy], history: History) -> list[Embassy]:
    """The embassies that answer and have every commit there is."""
    return [one for one in embassies if history.heads.get(one.name) == history.head_sequence]


def catch_up(
    register: RegisterId, verifier: Verifier, embassies: Sequence[Embassy], told: Told
) -> dict[str, str]:
    """Try to bring every embassy up to the newest commit. Those that still are behind, and why."""
    history = inspect.history(embassies, register, verifier)
    sources = in_step(embassies, history)
    still = dict(history.unreachable)
    for target in embassies:
        if target.name in still or target in sources:
            continue
        try:
            copy.catch_up(target, sources, register, history, told.told)
        except ExclaveError as error:
            still[target.name] = str(error)
    return still
