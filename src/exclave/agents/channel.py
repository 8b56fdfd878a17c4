"""What goes over the keyholder's socket: messages after their length, bounded; errors as documents."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from exclave import codec
from exclave.errors import (
    Busy,
    ExclaveError,
    Misconfigured,
    NotThere,
    QuorumMissing,
    Refused,
    Tampered,
    Unreachable,
)
from exclave.sealed.container import FIXED_BYTES, MAX_RECIPIENTS, RECIPIENT_BYTES

OPEN, KEYS, STATE = b"O", b"K", b"S"
CLOSED: Final = b""
MAX_PAPERS_BYTES = 48 << 20
MAX_HEADERS = 256
MAX_HEADER_BYTES = FIXED_BYTES + MAX_RECIPIENTS * RECIPIENT_BYTES
MAX_ANSWER_BYTES = 1 << 20
_KINDS = (Unreachable, NotThere, Tampered, Refused, QuorumMissing, Busy, Misconfigured)


def send(channel: socket.socket, message: bytes) -> None:
    """One message. Raises OSError."""
    channel.sendall(len(message).to_bytes(4, "big") + message)


def receive(channel: socket.socket, limit: int) -> bytes:
    """One message of at most `limit` bytes, or CLOSED when the other side has gone, also in the midst of one."""
    head = _exactly(channel, 4)
    size = int.from_bytes(head, "big")
    return CLOSED if len(head) < 4 or not 0 < size <= limit else _exactly(channel, size)


def join_headers(headers: Sequence[bytes]) -> bytes:
    """Headers of containers, each after its length."""
    return codec.lengths_prefixed(*headers)


def split_headers(body: bytes) -> list[bytes]:
    """The headers in a message. Raises Tampered."""
    headers: list[bytes] = []
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        if size > MAX_HEADER_BYTES or at + 4 + size > len(body):
            raise Tampered("object-malformed", "A header is longer than any can be", hint="exclave verify")
        headers.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    return headers


def error_reply(error: ExclaveError) -> bytes:
    """An error as an answer."""
    fields = {
        "hint": error.hint,
        "id": error.id,
        "kind": type(error).__name__,
        "what": error.what,
        "why": error.why,
    }
    return b"-" + codec.encode(fields)


def error_in(answer: bytes) -> ExclaveError:
    """The error in an answer that begins with a minus sign."""
    fields = codec.decode(answer[1:], limit=MAX_ANSWER_BYTES)
    kind = {one.__name__: one for one in _KINDS}.get(str(fields["kind"]), Unreachable)
    return kind(str(fields["id"]), str(fields["what"]), why=str(fields["why"]), hint=str(fields["hint"]))


def _exactly(channel: socket.socket, size: int) -> bytes:
    """`size` bytes, or CLOSED. Memory grows with what has come, not with what was announced."""
    data = bytearray()
    while len(data) < size:
        part = channel.recv(min(size - len(data), 1 << 20))
        if not part:
            return CLOSED
        data += part
    return bytes(data)
