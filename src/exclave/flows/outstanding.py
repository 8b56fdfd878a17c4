"""The commit that home signed and may not have seen abroad: it is published before any other takes its number.

Without it, a run that is cut off while it publishes would leave its commit at an embassy that the next run may not
reach; that run would sign another one of the same number, and the register would have two histories.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from exclave import homedisk
from exclave.crypto.sign import Verifier
from exclave.embassies import copy
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import History
from exclave.errors import ExclaveError, Refused, Tampered, Unreachable
from exclave.sealed import commits, names
from exclave.sealed.commits import Commit


class Outstanding:
    """One file: the note, from before it is published until home's memory has it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, note: bytes) -> None:
        """Durable on return."""
        draft = self._path.with_suffix(".new")
        with homedisk.usable(self._path):
            with draft.open("wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def clear(self) -> None:
        """Home's memory has it, or it can never count."""
        with homedisk.usable(self._path):
            self._path.unlink(missing_ok=True)

    def publish(self, history: History, verifier: Verifier, embassies: Sequence[Embassy]) -> bool:
        """Publish it where all that it names is held; whether the history is longer now, so must be read again.

        When all embassies answer and none has it, it is forgotten instead: a newer one takes its number. Raises
        Unreachable when only an embassy that does not answer may have it, and Refused("writer-fenced").
        """
        with homedisk.usable(self._path):
            note = self._path.read_bytes() if self._path.exists() else b""
        commit = _decoded(note, verifier)
        if commit is None or not _is_next(commit, history) or not history.unreachable:
            self.clear()
            return False
        in_step = [one for one in embassies if history.heads.get(one.name) == history.head_sequence]
        placed = [one for one in in_step if _complete(one, commit) and _place(one, commit, note)]
        if not placed:
            raise Unreachable(
                "newest-unreachable",
                f"Snapshot {commit.sequence} was signed, and no embassy that answers has it",
                why="; ".join(f"{name}: {why}" for name, why in history.unreachable.items()),
                hint="exclave doctor   # nothing is lost; run protect again when they answer",
            )
        self.clear()
        return True


def _decoded(note: bytes, verifier: Verifier) -> Commit | None:
    try:
        return commits.decode(note, verifier) if note else None
    except Tampered:
        return None  # damaged on home's disk, or another writer's from before


def _is_next(commit: Commit, history: History) -> bool:
    return (commit.sequence, commit.previous) == (history.head_sequence + 1, history.head_hash)


def _complete(embassy: Embassy, commit: Commit) -> bool:
    """Whether an embassy has everything that the commit names."""
    try:
        return all(embassy.store.size(path) == size for path, _, size in copy.named(commit))
    except ExclaveError:
        return False


def _place(embassy: Embassy, commit: Commit, note: bytes) -> bool:
    path = names.commit(commit.register, commit.term, commit.sequence)
    try:
        embassy.store.put(path, note)
    except Refused as error:
        raise Refused(
            "writer-fenced",
            "Another writer has made this register's next snapshot",
            why=f"{embassy.name} already holds another commit as {path}",
            hint="stop the other writer of this register, then: exclave protect",
        ) from error
    except ExclaveError:
        return False
    return True
