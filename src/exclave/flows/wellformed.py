"""What may lie in an embassy, as a stranger without keys can tell: by its path, its header and who names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from exclave.charter.document import MAX_CHARTER_BYTES
from exclave.charter.document import TYPE as CHARTER
from exclave.crypto import sign
from exclave.crypto.sign import MAX_NOTE_BYTES
from exclave.errors import Tampered
from exclave.sealed import commits, container, names
from exclave.sealed.commits import Commit
from exclave.stores import probe

# Of custody records (docs/spec/custody.md). Not imported: that module opens shares, and nothing here may.
_CUSTODY = b"exclave/custody/v1"
_MAX_CUSTODY_BYTES = 1 << 20
_SEALED = re.compile(
    r"r/([0-9a-f]{32})/([0-9a-f]{16})/(?:pack/([0-9a-f]{2})|(manifest|index))/([0-9a-f]{64})", re.ASCII
)
_NOTES = (
    (re.compile(r"charter/[0-9a-f]{8}", re.ASCII), CHARTER, MAX_CHARTER_BYTES),
    (re.compile(r"custody/[0-9a-f]{32}/[0-9a-f]{16}", re.ASCII), _CUSTODY, _MAX_CUSTODY_BYTES),
    (re.compile(r"r/[0-9a-f]{32}/commit/[0-9a-f]{8}/[0-9a-f]{16}", re.ASCII), commits.TYPE, MAX_NOTE_BYTES),
)
_PROBE = re.compile(r"probe/[0-9a-f]{32}", re.ASCII)
_KINDS = {"": container.PACK, "manifest": container.MANIFEST, "index": container.INDEX}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a commit says of an object that it names."""

    size: int
    kind: int
    realm: str
    term: int
    number: int


def named(commit: Commit) -> dict[str, Expected]:
    """By path, everything that a commit names."""
    register, epoch = commit.register, commit.epoch

    def expected(kind: int, size: int, number: int) -> Expected:
        return Expected(size, kind, commit.realm, commit.term, number)

    found = {
        names.pack(register, epoch, one.id): expected(container.PACK, one.size, one.number)
        for one in commit.packs
    }
    for part in commit.manifest:
        path = names.manifest(register, epoch, part.id)
        found[path] = expected(container.MANIFEST, part.size, commit.sequence)
    for part in commit.index:
        path = names.index(register, epoch, part.id)
        found[path] = expected(container.INDEX, part.size, commit.sequence)
    return found


def sealed_id(path: str) -> str | None:
    """The SHA-256 in the path of a sealed object; None for other paths."""
    match = _SEALED.fullmatch(path)
    if match is None or (match[3] is not None and match[3] != match[5][:2]):
        return None
    return match[5]


def sealed_fault(path: str, start: bytes, size: int, expected: Expected | None) -> str:
    """What is wrong with a sealed object of `size` bytes that begins with `start`, or ""."""
    match = _SEALED.fullmatch(path)
    assert match is not None
    try:
        header = container.parse(start)
    except Tampered as error:
        return f"not a well-formed sealed object: {error.why}"
    if header.object_bytes != size:
        return f"{size} bytes, where its header says {header.object_bytes}"
    if (header.register, header.epoch, header.kind) != (match[1], match[2], _KINDS[match[4] or ""]):
        return "its header is that of another register, epoch or kind"
    if expected is None:
        return ""
    if size != expected.size:
        return f"{size} bytes, where its commit says {expected.size}"
    said = (header.kind, header.realm.hex(), header.number)
    if said != (expected.kind, expected.realm, expected.number):
        return "its header is that of another realm or place than its commit says"
    # A pack that an interrupted run sent may be committed by a later one, never by an earlier.
    return "" if header.term <= expected.term else "its term is higher than its commit's"


def note_limit(path: str) -> int | None:
    """For the path of a small public object, the most bytes it may have; None when nothing may lie there."""
    if _PROBE.fullmatch(path):
        return probe.PROBE_BYTES
    return next((limit for pattern, _, limit in _NOTES if pattern.fullmatch(path)), None)


def note_fault(path: str, data: bytes) -> str:
    """What is wrong with a small public object, or ""; whose signatures count is for others to say."""
    if _PROBE.fullmatch(path):
        good = data in (probe.content(path), probe.content(path, second=True))
        return "" if good else "not the bytes of a probe"
    kind = next(kind for pattern, kind, _ in _NOTES if pattern.fullmatch(path))
    try:
        text, _ = sign.split(data)
    except Tampered as error:
        return f"not a signed note: {error.why}"
    return "" if text.startswith(kind + b"\n") else "a note of another type"
