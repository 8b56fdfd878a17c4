"""The one canonical encoding of stored and signed documents: strict JSON on one line.

ASCII only, keys sorted, no spaces, no floats, integers below 2**53, no duplicate keys. `decode` accepts
exactly what `encode` writes: it re-encodes and compares, so two parsers cannot read two meanings.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, cast

from exclave.errors import Tampered

MAX_DOCUMENT_BYTES = 64 << 20
MAX_INTEGER = (1 << 53) - 1


def encode(document: dict[str, Any]) -> bytes:
    """One line, without the newline. Raises ValueError for floats, huge integers and non-string keys."""
    _check(document)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def decode(line: bytes, *, limit: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """The document in `line`. Raises Tampered unless `line` is the canonical encoding of an object."""
    if len(line) > limit:
        raise _bad(f"{len(line)} bytes where at most {limit} are allowed")
    try:
        value: object = json.loads(line.decode("ascii"))
        document = cast("dict[str, Any]", value)
        if not isinstance(value, dict) or encode(document) != line:
            raise _bad("not in canonical form")
    except (ValueError, RecursionError) as error:
        raise _bad("not strict JSON") from error
    return document


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str, *, size: int | None = None) -> bytes:
    """The bytes of canonical base64. Raises Tampered for any other spelling, or another `size` in bytes."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _bad("bad base64") from error
    if b64(data) != text or (size is not None and len(data) != size):
        raise _bad("base64 of another length or spelling")
    return data


def lengths_prefixed(*parts: bytes) -> bytes:
    """Each part after its length in 4 bytes, big-endian: unambiguous input for hashes and key contexts."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _bad(why: str) -> Tampered:
    return Tampered("document-malformed", "A stored document cannot be read", why=why, hint="exclave verify")


def _check(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                raise ValueError("keys of a document are strings")
            _check(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            _check(inner)
    elif isinstance(value, bool) or value is None or isinstance(value, str):
        return
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError("integers of a document stay below 2**53")
    else:
        raise ValueError(f"a document cannot hold {type(value).__name__}")
