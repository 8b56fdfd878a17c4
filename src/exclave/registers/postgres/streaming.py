"""The BASE_BACKUP command and its answer, in the form of versions 13 and 14 and that of 15 and later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from psycopg import pq

from exclave.errors import Tampered
from exclave.registers.postgres.connection import Session, values

_ONE_STREAM = 150000  # from this version on: one COPY, messages with a type byte, options in parentheses
_NEW_ARCHIVE, _MANIFEST, _DATA, _PROGRESS = b"n"[0], b"m"[0], b"d"[0], b"p"[0]


@dataclass(frozen=True, slots=True)
class Tablespace:
    """One besides the two that live in the data directory. `size_bytes` is the server's estimate."""

    oid: int
    location: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Started:
    """The checkpoint that the backup begins with."""

    lsn: int
    timeline: int
    tablespaces: tuple[Tablespace, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive begins: of tablespace `oid`, or of the data directory itself (0)."""

    oid: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The server's own list of files begins (`backup_manifest`)."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Where the WAL that the backup needs ends."""

    lsn: int
    timeline: int


Part = Started | Archive | Manifest | memoryview | Stopped


class Wire(Protocol):
    """What is needed of a replication session."""

    @property
    def server_version(self) -> int:
        """As 170010."""
        ...

    def send(self, command: str) -> None:
        """Begin a command."""
        ...

    def result(self) -> pq.abc.PGresult | None:
        """The next result, None after the last. Raises for one that failed."""
        ...

    def copied(self) -> Iterator[memoryview]:
        """The messages of the COPY that the last result began."""
        ...


def base_backup(wire: Session | Wire, label: str) -> Iterator[Part]:
    """Run a base backup with its WAL and its manifest; the parts in the order of the wire.

    The WAL is in the archive, so we do not wait for the server's own archiving of it. A fast checkpoint, because
    what is not abroad yet is at risk. Views are valid until the next part is asked for.
    """
    modern = wire.server_version >= _ONE_STREAM
    wire.send(command(wire.server_version, label))
    positions = _only(wire)
    spaces = [
        (int(row[0]) if row[0] else 0, row[1] or "", int(row[2] or 0) << 10) for row in values(_next(wire))
    ]
    yield Started(
        lsn=parse_lsn(positions[0] or ""),
        timeline=int(positions[1] or 0),
        tablespaces=tuple(Tablespace(*space) for space in spaces if space[0]),
        size_bytes=sum(space[2] for space in spaces),
    )
    if modern:
        _copy_begins(_next(wire))
        yield from _typed(wire)
    else:
        for oid, _, _ in spaces:
            _copy_begins(_next(wire))
            yield Archive(oid)
            yield from wire.copied()
        _copy_begins(_next(wire))
        yield Manifest()
        yield from wire.copied()
    stop = _only(wire)
    while wire.result() is not None:
        pass
    yield Stopped(parse_lsn(stop[0] or ""), int(stop[1] or 0))


def command(server_version: int, label: str) -> str:
    """The text of the command. `label` is one line without quotes."""
    if server_version >= _ONE_STREAM:
        options = (
            f"LABEL '{label}', PROGRESS, CHECKPOINT 'fast', WAL, WAIT false, TABLESPACE_MAP, MANIFEST 'yes'"
        )
        return f"BASE_BACKUP ({options})"
    return f"BASE_BACKUP LABEL '{label}' PROGRESS FAST WAL NOWAIT TABLESPACE_MAP MANIFEST 'yes'"


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number."""
    high, slash, low = text.partition("/")
    try:
        if not slash:
            raise ValueError(text)
        return int(high, 16) << 32 | int(low, 16)
    except ValueError as error:
        raise _malformed(f"{text!r} is no position in the WAL") from error


def lsn_text(lsn: int) -> str:
    """A number as `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _typed(wire: Session | Wire) -> Iterator[Part]:
    for message in wire.copied():
        kind = message[0]
        if kind == _DATA:
            yield message[1:]
        elif kind == _NEW_ARCHIVE:
            yield Archive(_oid(bytes(message[1:]).partition(b"\0")[0]))
        elif kind == _MANIFEST:
            yield Manifest()
        elif kind != _PROGRESS:
            raise _malformed(f"a message of unknown type {chr(kind)!r}")


def _oid(archive: bytes) -> int:
    name = archive.removesuffix(b".tar")
    if name == b"base":
        return 0
    if name.isdigit():
        return int(name)
    raise _malformed(f"an archive called {archive!r}")


def _next(wire: Session | Wire) -> pq.abc.PGresult:
    result = wire.result()
    if result is None:
        raise _malformed("it ends early")
    return result


def _only(wire: Session | Wire) -> list[str | None]:
    rows = values(_next(wire))
    if len(rows) != 1 or len(rows[0]) != 2:
        raise _malformed("a position is missing")
    return rows[0]


def _copy_begins(result: pq.abc.PGresult) -> None:
    if result.status != pq.ExecStatus.COPY_OUT:
        raise _malformed("an archive is missing")


def _malformed(why: str) -> Tampered:
    return Tampered(
        "backup-stream-malformed", "The server's base backup cannot be read", why=why, hint="exclave doctor"
    )
