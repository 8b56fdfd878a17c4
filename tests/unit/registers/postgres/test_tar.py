"""The tar reader finds the same entries and content however the archive is cut into pieces."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exclave.errors import Tampered
from exclave.registers.postgres.tar import Member, TarReader

_CONTENT = {b"PG_VERSION": b"17\n", b"base/5/1259": bytes(range(256)) * 64, b"empty": b"", b"odd": b"x" * 513}


def _archive(*, ended=True):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("base", "base/5"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o700, 7
            archive.addfile(folder)
        for name, data in _CONTENT.items():
            entry = tarfile.TarInfo(name.decode())
            entry.size, entry.mode, entry.mtime = len(data), 0o600, 1_700_000_000
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("pg_tblspc/16385")
        link.type, link.linkname = tarfile.SYMTYPE, "/srv/space"
        archive.addfile(link)
        end = archive.offset
    data = raw.getvalue()
    return data if ended else data[:end]


def _read(pieces):
    reader, members, content = TarReader(), [], {}
    for piece in pieces:
        for item in reader.feed(memoryview(piece)):
            if isinstance(item, Member):
                members.append(item)
                content[item.name] = b""
            else:
                content[members[-1].name] += bytes(item)
    reader.finish()
    return members, content


@given(st.lists(st.integers(1, 3000), max_size=40), st.booleans())
def test_any_cut_gives_the_same(cuts, ended):
    data, pieces = _archive(ended=ended), []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    members, content = _read([*pieces, data])
    assert {name: content[name] for name in _CONTENT} == _CONTENT
    assert [(m.name, m.kind) for m in members if m.kind != "file"] == [
        (b"base", "folder"),
        (b"base/5", "folder"),
        (b"pg_tblspc/16385", "link"),
    ]
    assert members[-1].target == b"/srv/space"
    assert {(m.mode, m.mtime_seconds) for m in members if m.kind == "file"} == {(0o600, 1_700_000_000)}


def test_sizes_beyond_octal_are_read():
    entry = tarfile.TarInfo("base/1/2")
    entry.size = 9 << 30
    header = entry.tobuf(tarfile.GNU_FORMAT)
    assert next(TarReader().feed(memoryview(header))).size == 9 << 30


@pytest.mark.parametrize("at", [0, 120, 130, 150, 156])
def test_a_flipped_header_is_refused(at):
    data = bytearray(_archive())
    data[at] ^= 1
    with pytest.raises(Tampered, match="checksum"):
        _read([data])


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "base/../../up", "a//b"])
def test_names_that_lead_elsewhere_are_refused(name):
    entry = tarfile.TarInfo("x")
    entry.name = name
    with pytest.raises(Tampered, match="called"):
        _read([entry.tobuf(tarfile.USTAR_FORMAT)])


@pytest.mark.parametrize("length", [100, 512 * 3 + 10, 512 * 4 + 100])
def test_an_archive_cut_short_is_noticed(length):
    with pytest.raises(Tampered, match="ends inside"):
        _read([_archive()[:length]])


def test_devices_are_refused():
    entry = tarfile.TarInfo("dev")
    entry.type = tarfile.CHRTYPE
    with pytest.raises(Tampered, match="unknown type"):
        _read([entry.tobuf(tarfile.USTAR_FORMAT)])
