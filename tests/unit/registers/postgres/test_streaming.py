"""Both forms of the answer to BASE_BACKUP, told by a wire that plays them."""

import io
import tarfile
from dataclasses import dataclass, field
from itertools import chain

import pytest
from psycopg import pq

from exclave.errors import Tampered
from exclave.registers.postgres import streaming
from exclave.registers.postgres.backup import Backup
from exclave.registers.slabs import Slab
from exclave.testing.observing import GuardedPool


@dataclass
class Rows:
    """A result with rows, as psycopg gives it."""

    cells: list
    status: int = pq.ExecStatus.TUPLES_OK
    ntuples: int = field(init=False)
    nfields: int = field(init=False)

    def __post_init__(self):
        self.ntuples, self.nfields = len(self.cells), len(self.cells[0]) if self.cells else 0

    def get_value(self, row, column):
        return self.cells[row][column]


@dataclass
class Copy:
    """A result that begins a COPY of these messages."""

    messages: list
    status: int = pq.ExecStatus.COPY_OUT


class Played:
    """A session that answers with what it was given."""

    def __init__(self, version, answers):
        self.server_version, self.answers, self.said, self._copy = version, list(answers), [], None

    def send(self, command):
        self.said.append(command)

    def result(self):
        answer = self.answers.pop(0) if self.answers else None
        self._copy = answer
        return answer

    def copied(self):
        for message in self._copy.messages:
            yield memoryview(message)


def _tar(content):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        end = archive.offset
    return raw.getvalue()[:end]


_SPACE = {"PG_13_202007201/5/16400": b"s" * 16384}
_BASE = {"PG_VERSION": b"13\n", "base/5/1259": b"r" * 8192, "base/5/pg_filenode.map": b"m" * 512}
_MANIFEST = b'{"PostgreSQL-Backup-Manifest-Version": 1}\n'
_START = Rows([[b"16/B374D848", b"3"]])
_SPACES = Rows([[b"16385", b"/srv/space", b"17"], [None, None, b"25"]])
_STOP = Rows([[b"16/B374E000", b"3"]])


def _cut(data, size=700):
    return [data[at : at + size] for at in range(0, len(data), size)]


def _old():
    archives = [Copy(_cut(_tar(_SPACE))), Copy(_cut(_tar(_BASE))), Copy([_MANIFEST])]
    return Played(130014, [_START, _SPACES, *archives, _STOP])


def _new():
    messages = [b"n16385.tar\0/srv/space\0", *(b"d" + part for part in _cut(_tar(_SPACE))), b"p" + bytes(8)]
    messages += [
        b"nbase.tar\0\0",
        *(b"d" + part for part in _cut(_tar(_BASE) + bytes(1024))),
        b"m",
        b"d" + _MANIFEST,
    ]
    return Played(170010, [_START, _SPACES, Copy(messages), _STOP])


@pytest.mark.parametrize("wire", [_old, _new])
def test_both_forms_tell_the_same_tree(wire):
    played, pool = wire(), GuardedPool()
    backup = Backup(played, pool, block_bytes=8192)
    content, rows = {}, {}
    for event in chain(backup.slabs(lambda _files, _bytes: None), backup.listings()):
        if isinstance(event, Slab):
            for ordinal, start, end in event.spans:
                content[ordinal] = bytes(event.memory[start:end])
            event.release()
        else:
            for number, name in enumerate(event.names):
                path = event.path + b"/" + name if event.path else name
                rows[path] = (content.get(int(event.content[number])), int(event.page_bytes[number]))
    assert rows[b"pg_tblspc/16385/PG_13_202007201/5/16400"] == (b"s" * 16384, 8192)
    assert rows[b"base/5/1259"] == (b"r" * 8192, 8192)
    assert rows[b"base/5/pg_filenode.map"] == (b"m" * 512, 0)
    assert rows[b"PG_VERSION"] == (b"13\n", 0)
    assert rows[b"backup_manifest"] == (_MANIFEST, 0)
    assert backup.tablespaces == (streaming.Tablespace(16385, "/srv/space", 17 << 10),)
    assert backup.stopped == streaming.Stopped(0x16B374E000, 3)
    assert pool.out == 0


def test_the_command_fits_the_version():
    assert streaming.command(130014, "x") == (
        "BASE_BACKUP LABEL 'x' PROGRESS FAST WAL NOWAIT TABLESPACE_MAP MANIFEST 'yes'"
    )
    assert streaming.command(140000, "x") == streaming.command(130014, "x")
    assert streaming.command(150000, "x").startswith("BASE_BACKUP (LABEL 'x', ")


def test_an_answer_that_ends_early_is_noticed():
    played = _old()
    played.answers = played.answers[:-2]
    with pytest.raises(Tampered):
        list(streaming.base_backup(played, "x"))


@pytest.mark.parametrize("message", [b"z", b"n../../etc.tar\0\0"])
def test_an_unknown_message_is_refused(message):
    played = Played(170010, [_START, _SPACES, Copy([message]), _STOP])
    with pytest.raises(Tampered):
        list(streaming.base_backup(played, "x"))


@pytest.mark.parametrize("text", ["", "16", "x/y"])
def test_positions(text):
    assert streaming.lsn_text(streaming.parse_lsn("16/B374D848")) == "16/B374D848"
    assert streaming.lsn_text(streaming.parse_lsn("0/100")) == "0/100"
    with pytest.raises(Tampered):
        streaming.parse_lsn(text)
