"""Errors that every store raises in the same words, whatever lies under it."""

from __future__ import annotations

from exclave.errors import Misconfigured, NotThere, Refused, Tampered, Unreachable


def missing(name: str) -> NotThere:
    """No object of that name."""
    return NotThere("object-missing", f"{name} is not in this store", hint="exclave verify")


def too_long(name: str, size: int, limit: int) -> Tampered:
    """The object is longer than its reader allows; it was not read."""
    why = f"{size} bytes where at most {limit} are expected"
    return Tampered("object-too-long", f"{name} is too long", why=why, hint="exclave verify")


def too_short(name: str, size: int, wanted: int) -> Tampered:
    """The object ends before the range that was asked for."""
    why = f"{size} bytes where at least {wanted} are expected"
    return Tampered("object-too-short", f"{name} is too short", why=why, hint="exclave verify")


def conflict(name: str) -> Refused:
    """Other bytes are stored under that name, and stay."""
    why = "another object is already stored under this name; nothing was changed"
    return Refused("store-conflict", f"{name} was not stored", why=why, hint="exclave verify")


def unreachable(what: str, why: str) -> Unreachable:
    """The place does not answer; trying again may help."""
    return Unreachable("store-unreachable", what, why=why, hint="exclave doctor")


def full(what: str, why: str) -> Unreachable:
    """No room is left."""
    return Unreachable("store-full", what, why=why, hint="free space at the embassy, then: exclave protect")


def forbidden(what: str, why: str) -> Misconfigured:
    """Our account may not do it."""
    return Misconfigured("store-forbidden", what, why=why, hint="exclave doctor")
