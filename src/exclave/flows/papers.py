"""The papers that a party keeps of its realm: every charter, the annex, the custody records; verified when read.

<charter folder>/<version, 8 hex digits>.note
<charter folder>/custody/<register>-<epoch>.note
<annex file>
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from exclave.charter import annex as annexes
from exclave.charter import history as histories
from exclave.charter.annex import MAX_ANNEX_BYTES, Annex
from exclave.charter.document import MAX_CHARTER_BYTES, Charter
from exclave.charter.history import History
from exclave.custody import record as records
from exclave.custody.record import MAX_RECORD_BYTES, Record
from exclave.custody.request import Request, Wanted
from exclave.errors import ExclaveError, Misconfigured, NotThere
from exclave.stores.base import Store

_LAST_VERSION = 0xFFFF  # more charters than any realm signs: a bound for a store that answers for ever


@dataclass(frozen=True, slots=True)
class Papers:
    """Verified: the charters from the realm's id on, the annex of the newest, and the records that it names."""

    history: History
    annex: Annex
    annex_bytes: bytes
    notes: Mapping[Wanted, bytes]  # custody records as they are stored

    @property
    def charter(self) -> Charter:
        """The newest charter known here."""
        return self.history.newest

    def records_for(self, request: Request) -> dict[Wanted, Record]:
        """The custody records of a request's registers. Raises NotThere."""
        return {wanted: self.record(wanted) for wanted in request.registers}

    def record(self, wanted: Wanted) -> Record:
        """One custody record, as the charter names it. Raises NotThere."""
        entry = self.charter.epoch(wanted.register, wanted.epoch)
        note = self.notes.get(wanted)
        if note is None:
            raise NotThere(
                "custody-missing",
                f"The custody record of {self.annex.registers[wanted.register]} is not here",
                why=f"none is kept for epoch {wanted.epoch}",
                hint="copy the file from another custodian, or from an embassy's store: custody/",
            )
        return records.of_entry(entry, note)


def load(realm: str | None, folder: Path, annex_file: Path) -> Papers:
    """Read and verify. `realm` is the pinned id, hex. Raises Misconfigured, Tampered, Refused, NotThere."""
    if realm is None:
        raise Misconfigured(
            "no-realm",
            "This party does not know its realm yet",
            why="no realm id is pinned",
            hint="exclave ceremony --help   # at home; elsewhere set id under [realm]",
        )
    notes = [_read(folder / f"{version:08x}.note", MAX_CHARTER_BYTES) for version in _versions(folder)]
    history = histories.verify(realm, notes)
    return assemble(history, _read(annex_file, MAX_ANNEX_BYTES), _local_records(folder, history.newest))


def fetch(store: Store, realm: str, annex_file: Path) -> Papers:
    """The same from an embassy's store; only the annex is local. A store may withhold the newest charter."""
    history = histories.verify(realm, _charters(store))
    kept: dict[Wanted, bytes] = {}
    for entry in history.newest.registers:
        wanted = Wanted(entry.id, entry.epoch)
        try:
            kept[wanted] = store.get(record_path(wanted), limit=MAX_RECORD_BYTES)
        except NotThere:
            continue  # told when it is needed
    return assemble(history, _read(annex_file, MAX_ANNEX_BYTES), kept)


def fetch_newest(stores: Iterable[Store], realm: str, annex_file: Path) -> Papers:
    """The longest history that any of the stores gives and the annex fits. Raises what the last of them raised."""
    found: list[Papers] = []
    failed: ExclaveError | None = None
    for store in stores:
        try:
            found.append(fetch(store, realm, annex_file))
        except ExclaveError as error:  # one embassy may be down, or lie; the others answer
            failed = error
    if not found:
        raise failed or Misconfigured("papers-missing", "There is no embassy to get the realm's papers from")
    return max(found, key=lambda one: one.charter.version)


def assemble(history: History, annex_bytes: bytes, notes: Mapping[Wanted, bytes]) -> Papers:
    """Papers from what was just made or read. Raises Tampered when a part belongs to another charter."""
    papers = Papers(history, annexes.decode(annex_bytes, history.newest), annex_bytes, dict(notes))
    for wanted in papers.notes:
        papers.record(wanted)
    return papers


def save(papers: Papers, folder: Path, annex_file: Path) -> None:
    """Write what is missing. Durable on return; charters and records are never replaced, the annex is."""
    custody = folder / "custody"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # by itself: parents get the mode of the umask
    custody.mkdir(parents=True, exist_ok=True, mode=0o700)
    for charter, note in zip(papers.history.charters, papers.history.notes, strict=True):
        create(folder / f"{charter.version:08x}.note", note)
    for wanted, note in papers.notes.items():
        create(custody / f"{wanted.register}-{wanted.epoch}.note", note)
    fresh = annex_file.with_name(f".{annex_file.name}.new")
    fresh.unlink(missing_ok=True)
    create(fresh, papers.annex_bytes)
    fresh.replace(annex_file)
    _sync(annex_file.parent)


def place(papers: Papers, store: Store) -> None:
    """Put all that hosts may hold into an embassy's store: records first, so that no charter names a missing one."""
    for wanted, note in papers.notes.items():
        store.put(record_path(wanted), note)
    for charter, note in zip(papers.history.charters, papers.history.notes, strict=True):
        store.put(charter_path(charter.version), note)


def charter_path(version: int) -> str:
    """Where a charter is in a store (docs/spec/store.md, section 1)."""
    return f"charter/{version:08x}"


def record_path(wanted: Wanted) -> str:
    """Where a custody record is in a store."""
    return f"custody/{wanted.register}/{wanted.epoch}"


def create(path: Path, data: bytes) -> None:
    """A new file that only its owner reads, durable on return. The same bytes again are fine; others: Misconfigured."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        if path.read_bytes() == data:
            return
        raise Misconfigured(
            "file-exists",
            f"{path} exists already",
            why="it holds something else, and nothing is overwritten",
            hint="choose another folder, or look at what is there",
        ) from error
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    _sync(path.parent)


def _charters(store: Store) -> Iterator[bytes]:
    """A store's charters, each read when the one before it was verified: a host may invent any number of them."""
    for version in range(1, _LAST_VERSION):
        try:
            yield store.get(charter_path(version), limit=MAX_CHARTER_BYTES)
        except NotThere:
            return


def _versions(folder: Path) -> range:
    count = 0
    while (folder / f"{count + 1:08x}.note").exists():
        count += 1
    return range(1, count + 1)


def _local_records(folder: Path, charter: Charter) -> dict[Wanted, bytes]:
    found: dict[Wanted, bytes] = {}
    for entry in charter.registers:
        path = folder / "custody" / f"{entry.id}-{entry.epoch}.note"
        if path.exists():
            found[Wanted(entry.id, entry.epoch)] = _read(path, MAX_RECORD_BYTES)
    return found


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise Misconfigured(
            "papers-missing",
            f"{path} cannot be read",
            why=error.strerror or str(error),
            hint="copy the realm's papers from home, a custodian or another embassy",
        ) from error
    return data


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
