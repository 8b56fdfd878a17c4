"""The ceremony's pure part: fresh custodians, a fresh epoch split among them, and the proof that every share works.

Whoever runs it sees the seed for a moment; nothing here writes anything down. Chance comes in from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from exclave import codec
from exclave.charter.document import Custodian, RegisterEntry
from exclave.crypto import age, shares
from exclave.crypto.hashing import sha256
from exclave.crypto.open import SEED_BYTES, public_key_of
from exclave.crypto.seal import seal_to
from exclave.crypto.sign import SEED_BYTES as SIGNING_SEED_BYTES
from exclave.crypto.sign import Signer, Verifier
from exclave.custody import record as records
from exclave.custody.record import BLIND_BYTES, SET_BYTES, Holding, OpenedShare, Record
from exclave.errors import Tampered
from exclave.types import EpochId, RegisterId

Chance = Callable[[int], bytes]
_SHARE_FILE = b"exclave/share/v1"


@dataclass(frozen=True, slots=True)
class NewCustodian:
    """A custodian just made: what the charter says of him, and his two secrets."""

    public: Custodian
    share_seed: bytes = field(repr=False)  # X-Wing seed, an age identity
    sign_seed: bytes = field(repr=False)

    def signer(self) -> Signer:
        """Signs as this custodian."""
        return Signer(self.public.id, self.sign_seed)


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """A register epoch just made: its public side, and what its writer keeps at home. The seed is gone."""

    entry: RegisterEntry
    record: Record
    record_text: bytes
    id_key: bytes = field(repr=False)
    index_key: bytes = field(repr=False)
    exports: dict[str, bytes] = field(repr=False)  # age file of each custodian's share, by pseudonym


def new_custodian(chance: Chance) -> NewCustodian:
    """Fresh keys under a fresh pseudonym."""
    name, share_seed, sign_seed = chance(8).hex(), chance(SEED_BYTES), chance(SIGNING_SEED_BYTES)
    verifier = Signer(name, sign_seed).verifier
    return NewCustodian(Custodian(name, verifier, public_key_of(share_seed)), share_seed, sign_seed)


def new_epoch(
    register: RegisterId,
    *,
    writer: Verifier,
    term: int,
    threshold: int,
    custodians: Sequence[Custodian],
    chance: Chance,
    identities: Mapping[str, bytes],
) -> NewEpoch:
    """A fresh key for `register`, split among all `custodians` and proven.

    `identities` holds the share seeds of the custodians who are present: they open what was wrapped to them, as they
    will have to one day. Raises Tampered when anything does not come out as it went in; then nothing of it is used.
    """
    seed, set_id, epoch = chance(SEED_BYTES), chance(SET_BYTES), EpochId(chance(8).hex())
    key = public_key_of(seed)
    opened = [
        OpenedShare(share, chance(BLIND_BYTES))
        for share in shares.split(threshold, len(custodians), seed, random=chance)
    ]
    holdings = [
        Holding(
            person.id,
            records.commitment(set_id, one),
            seal_to(one.packed(), person.share, records.wrap_info(set_id, sha256(key), person.id)),
        )
        for person, one in zip(custodians, opened, strict=True)
    ]
    text = records.compose(
        set_id=set_id, register=register, epoch=epoch, key=sha256(key), threshold=threshold, holdings=holdings
    )
    record = records.parse(text)
    prove(record, key, opened, identities)
    exports = {
        person.id: export(record, one, person.share) for person, one in zip(custodians, opened, strict=True)
    }
    entry = RegisterEntry(register, epoch, key, writer, term, record.hash)
    return NewEpoch(entry, record, text, chance(32), chance(32), exports)


def prove(record: Record, key: bytes, opened: Sequence[OpenedShare], identities: Mapping[str, bytes]) -> None:
    """Every share matches its commitment, every present custodian opens his own, and together they are the key.

    All shares take part in joining, so one that lay off the polynomial would show. Raises Tampered.
    """
    for holding, one in zip(record.holdings, opened, strict=True):
        known = record.open_packed(holding.custodian, one.packed())
        seed = identities.get(holding.custodian)
        if seed is not None and record.unwrap(holding.custodian, seed) != known:
            raise _failed(f"custodian {holding.custodian} finds another share than he was given")
    joined = shares.combine(record.threshold, [one.share for one in opened])
    if public_key_of(joined) != key or sha256(key) != record.key:
        raise _failed("the shares rebuild another key")
    joined[:] = bytes(len(joined))


def export(record: Record, opened: OpenedShare, raw_public_key: bytes) -> bytes:
    """The age file of a custodian's share: opened with stock age, it is a line of JSON that the spec explains."""
    document = {
        "epoch": record.epoch,
        "key": record.key.hex(),
        "register": record.register,
        "set": record.set.hex(),
        "share": codec.b64(opened.share.data),
        "threshold": record.threshold,
        "x": opened.share.x,
    }
    return age.encrypt(_SHARE_FILE + b"\n" + codec.encode(document) + b"\n", [raw_public_key])


def _failed(why: str) -> Tampered:
    return Tampered(
        "ceremony-failed",
        "The ceremony stops: what was split does not come together again",
        why=why,
        hint="exclave ceremony   # again, on another machine; nothing was written",
    )
