"""An opened session: gives the content keys of what the request names, counts them, and forgets on demand."""

from __future__ import annotations

from dataclasses import dataclass, field

from exclave.crypto.open import PrivateKey, open_capsule
from exclave.crypto.seal import recipient_id
from exclave.custody.opening import Authorised, join
from exclave.custody.request import Request, Wanted
from exclave.errors import Refused, Tampered
from exclave.sealed import container
from exclave.types import Buffer, RegisterId


@dataclass(frozen=True, slots=True)
class _Held:
    recipient: bytes  # 16 bytes
    key: PrivateKey = field(repr=False)


class Session:
    """Implements `sealed.keys.Opener` where the joined keys are. Lives in the keyholder process."""

    __slots__ = ("_held", "_realm", "opened", "request")

    def __init__(self, authorised: Authorised, session_seed: Buffer) -> None:
        """Join the keys. Raises Tampered when they are not the charter's."""
        self.request: Request = authorised.request
        self.opened: dict[RegisterId, int] = {one.register: 0 for one in authorised.request.registers}
        self._realm = bytes.fromhex(authorised.charter.realm)
        self._held: dict[Wanted, _Held] = {}
        for wanted, key in join(authorised, session_seed).items():
            entry = authorised.charter.epoch(wanted.register, wanted.epoch)
            self._held[wanted] = _Held(recipient_id(entry.key), key)

    def content_key(self, header: bytes) -> bytes:
        """See `sealed.keys.Opener`. `header` is the object's clear part to its last byte, without the body."""
        told = container.parse(header)
        if told.recipients == 0 or len(header) != told.header_bytes:
            raise Tampered(
                "object-malformed",
                "A stored object is not a well-formed sealed object",
                why="its header has no recipient or another length",
                hint="exclave verify   # names every such object",
            )
        held = self._held.get(Wanted(told.register, told.epoch))
        if held is None or told.realm != self._realm:
            raise _not_approved(
                f"register {told.register}, epoch {told.epoch} is not among what was approved"
            )
        limit = self.request.snapshot
        if limit is not None and told.kind == container.MANIFEST and told.number > limit:
            raise _not_approved(f"snapshot {told.number} is later than snapshot {limit}, which was approved")
        fixed, rows = header[: container.FIXED_BYTES], header[container.FIXED_BYTES :]
        for at in range(0, len(rows), container.RECIPIENT_BYTES):
            recipient = rows[at : at + 16]
            if recipient == held.recipient:
                capsule = rows[at + 16 : at + container.RECIPIENT_BYTES]
                key = open_capsule(capsule, held.key, container.capsule_info(fixed, recipient))
                self.opened[told.register] += 1
                return key
        raise Tampered(
            "seal-broken",
            "A sealed object does not open",
            why="it was not sealed to the key that the charter names for its register",
            hint="exclave verify   # names the object; another embassy may hold a good copy",
        )

    def wipe(self) -> None:
        """Forget every key; the library overwrites a key when it is freed. May be called twice."""
        self._held.clear()


def _not_approved(why: str) -> Refused:
    return Refused(
        "not-approved",
        "The custodians did not approve opening this",
        why=why,
        hint="exclave request REGISTER   # and have it approved",
    )
