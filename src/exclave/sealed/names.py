"""Paths of objects in a store (docs/spec/store.md, section 1) and the identity that their containers carry."""

from __future__ import annotations

from exclave.types import EpochId, ObjectId, RegisterId


def pack(register: RegisterId, epoch: EpochId, object_id: ObjectId) -> str:
    """Path of a pack."""
    return f"r/{register}/{epoch}/pack/{object_id[:2]}/{object_id}"


def manifest(register: RegisterId, epoch: EpochId, object_id: ObjectId) -> str:
    """Path of a manifest part."""
    return f"r/{register}/{epoch}/manifest/{object_id}"


def index(register: RegisterId, epoch: EpochId, object_id: ObjectId) -> str:
    """Path of an index part."""
    return f"r/{register}/{epoch}/index/{object_id}"


def commits(register: RegisterId) -> str:
    """Prefix of all commits of a register; they list in order of term and sequence."""
    return f"r/{register}/commit/"


def commit(register: RegisterId, term: int, sequence: int) -> str:
    """Path of a commit. Its number is its name, so creating it is the compare-and-swap between writers."""
    return f"{commits(register)}{term:08x}/{sequence:016x}"


def commit_number(path: str) -> tuple[int, int]:
    """Term and sequence in the path of a commit. Raises ValueError for any other path."""
    term, sequence = path.split("/")[-2:]
    if len(term) != 8 or len(sequence) != 16:
        raise ValueError("not the path of a commit")
    return int(term, 16), int(sequence, 16)
