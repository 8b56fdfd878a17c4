"""Charters: what one may say, and which one follows which."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from exclave import codec
from exclave.charter import annex, document, history
from exclave.charter.document import Custodian, RegisterEntry
from exclave.crypto.sign import Signer, Verifier
from exclave.custody import ceremony
from exclave.errors import NotThere, QuorumMissing, Refused, Tampered
from exclave.testing.realm import NOW, TestRealm, make, signed
from exclave.types import EpochId, RegisterId


@pytest.fixture(scope="module")
def realm() -> TestRealm:
    return make()


def text_after(realm: TestRealm, /, **changes: object) -> bytes:
    old = realm.charter
    fields = {
        "realm": old.realm,
        "version": old.version + 1,
        "previous": old.hash,
        "issued": NOW,
        "threshold": old.threshold,
        "custodians": old.custodians,
        "registers": old.registers,
        "annex": old.annex,
    }
    return document.compose(**(fields | changes))


def signers(realm: TestRealm, *places: int) -> list[Signer]:
    return [realm.people[at].signer() for at in places]


def edited(text: bytes, **changes: object) -> bytes:
    kind, line, _ = text.split(b"\n")
    fields = codec.decode(line) | changes
    return kind + b"\n" + codec.encode({k: v for k, v in fields.items() if v is not None}) + b"\n"


def test_a_realm_is_named_by_its_first_charter(realm):
    note = realm.papers.history.notes[0]
    assert history.verify(realm.charter.realm, [note]).newest == realm.charter
    with pytest.raises(Tampered, match="id names"):
        history.verify("ab" * 32, [note])
    with pytest.raises(Tampered):
        history.verify(realm.charter.realm, [])


def test_registers_are_found(realm):
    entry = realm.epochs[1].entry
    assert realm.charter.register(entry.id) == entry == realm.charter.epoch(entry.id, entry.epoch)
    with pytest.raises(NotThere):
        realm.charter.register(RegisterId("00" * 16))
    with pytest.raises(NotThere):
        realm.charter.epoch(entry.id, EpochId("00" * 8))


def test_the_current_epoch_is_the_last(realm):
    first = realm.epochs[0]
    fresh = ceremony.new_epoch(
        first.entry.id,
        writer=realm.writer.verifier,
        term=2,
        threshold=3,
        custodians=realm.charter.custodians,
        chance=os.urandom,
        identities={},
    )
    text = text_after(realm, registers=[*realm.charter.registers, fresh.entry])
    newest = realm.papers.history.extended(signed(text, signers(realm, 0, 1, 2))).newest
    assert newest.register(first.entry.id) == fresh.entry
    assert newest.epoch(first.entry.id, first.entry.epoch) == first.entry


def test_the_first_charter_needs_its_own_threshold(realm):
    text = realm.papers.history.notes[0].split(b"\n\n")[0] + b"\n"
    with pytest.raises(QuorumMissing, match="2 of its custodians"):
        history.verify(realm.charter.realm, [signed(text, signers(realm, 0, 1))])


def test_persons_are_counted_and_not_signatures(realm):
    text = text_after(realm)
    one = signers(realm, 0)
    with pytest.raises((QuorumMissing, Tampered)):
        realm.papers.history.extended(signed(text, one * 3))


def test_one_key_under_two_pseudonyms_is_refused(realm):
    first, *rest = realm.charter.custodians
    double = Custodian("ab" * 8, Verifier("ab" * 8, first.sign.raw), rest[0].share)
    twin = Custodian("ab" * 8, realm.people[1].public.sign, first.share)
    halves = Verifier("cd" * 8, first.sign.raw[:32] + os.urandom(1952))
    for bad in (double, twin, replace(double, sign=halves, share=os.urandom(1216))):
        with pytest.raises(Refused, match="key stands in it twice"):
            document.parse(text_after(realm, threshold=4, custodians=[*realm.charter.custodians, bad]))


def test_one_person_twice_is_refused(realm):
    with pytest.raises(Refused, match="twice"):
        document.parse(
            text_after(
                realm, threshold=4, custodians=[*realm.charter.custodians, realm.charter.custodians[0]]
            )
        )


@pytest.mark.parametrize(("threshold", "people"), [(0, 5), (1, 1), (1, 5), (2, 4), (2, 5), (6, 5)])
def test_thresholds_that_no_realm_may_have(realm, threshold, people):
    text = text_after(realm, threshold=threshold, custodians=realm.charter.custodians[:people])
    with pytest.raises(Refused, match="custodians"):
        document.parse(text)


def test_the_old_custodians_must_agree_to_new_ones(realm):
    """A charter signed only by those whom it appoints is no charter."""
    strangers = [ceremony.new_custodian(os.urandom) for _ in range(3)]
    text = text_after(realm, custodians=[one.public for one in strangers], threshold=2)
    mine = [one.signer() for one in strangers]
    with pytest.raises(QuorumMissing):
        realm.papers.history.extended(signed(text, mine))
    with pytest.raises(QuorumMissing):
        realm.papers.history.extended(signed(text, signers(realm, 0, 1, 2)))
    both = signed(text, [*signers(realm, 0, 1, 2), *mine[:2]])
    assert realm.papers.history.extended(both).newest.threshold == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 3},
        {"version": 1, "realm": document.NOBODY, "previous": document.NOBODY},
        {"previous": "ab" * 32},
        {"realm": "ab" * 32},
    ],
)
def test_versions_follow_one_another(realm, changes):
    with pytest.raises(Tampered):
        realm.papers.history.extended(signed(text_after(realm, **changes), signers(realm, 0, 1, 2)))


def test_a_pseudonym_keeps_its_keys(realm):
    fresh = ceremony.new_custodian(os.urandom)
    first, *rest = realm.charter.custodians
    changed = replace(first, share=fresh.public.share)
    renamed = Custodian(fresh.public.id, Verifier(fresh.public.id, first.sign.raw), fresh.public.share)
    for bad in (changed, renamed):
        text = text_after(realm, custodians=[bad, *rest])
        with pytest.raises(Refused, match="pseudonym"):
            realm.papers.history.extended(signed(text, signers(realm, 1, 2, 3)))


def test_the_key_of_an_epoch_never_changes(realm):
    first, *rest = realm.charter.registers
    other = ceremony.new_custodian(os.urandom).public.share
    for bad in (replace(first, key=other), replace(first, custody="ab" * 32)):
        text = text_after(realm, registers=[bad, *rest])
        with pytest.raises(Refused, match="epoch"):
            realm.papers.history.extended(signed(text, signers(realm, 0, 1, 2)))


def test_a_term_never_goes_back(realm):
    risen = [replace(one, term=3) for one in realm.charter.registers]
    history_2 = realm.papers.history.extended(
        signed(text_after(realm, registers=risen), signers(realm, 0, 1, 2))
    )
    text = text_after(realm, version=3, previous=history_2.newest.hash)
    with pytest.raises(Refused, match="term"):
        history_2.extended(signed(text, signers(realm, 0, 1, 2)))


def test_a_custodian_does_not_write(realm):
    first, *rest = realm.charter.registers
    key = realm.charter.custodians[0].sign.raw
    with pytest.raises(Refused, match="writer"):
        document.parse(text_after(realm, registers=[replace(first, writer=Verifier("w", key)), *rest]))


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"suite": 2},
        {"threshold": None},
        {"threshold": "3"},
        {"threshold": True},
        {"version": 0},
        {"annex": "AB" * 32},
        {"annex": "٣" * 64},
        {"custodians": [{}]},
        {"custodians": "none"},
        {"registers": [{"writer": 3}]},
        {"issued": "2026-11-21"},
    ],
)
def test_a_malformed_charter_is_refused(realm, changes):
    with pytest.raises(Tampered):
        document.parse(edited(text_after(realm), **changes))


def test_a_writers_name_cannot_look_like_something_else(realm):
    first, *rest = realm.charter.registers
    for name in ("a b", "", "é", "x" * 65, "a\u202eb"):
        with pytest.raises(Tampered):
            document.parse(
                text_after(realm, registers=[replace(first, writer=Verifier(name, first.writer.raw)), *rest])
            )


def test_a_charter_names_nobody(realm):
    note = realm.papers.history.notes[0]
    assert all(word not in note for word in (b"Testland", b"land", b"gazette", b"person", b"luxembourg"))


def test_an_old_charter_still_opens(realm):
    """No rule looks at a clock: a dark home cannot issue a new one."""
    text = text_after(realm, issued=0)
    assert realm.papers.history.extended(signed(text, signers(realm, 0, 1, 2))).newest.issued == 0


def test_the_annex_belongs_to_one_charter(realm):
    names = annex.decode(realm.papers.annex_bytes, realm.charter)
    assert names.register("land") == realm.epochs[0].entry.id
    assert names.embassy(names.embassy_hash("luxembourg")) == "luxembourg"
    assert names.embassy(names.embassy_hash("atlantis")) is None
    with pytest.raises(Tampered):
        annex.decode(realm.papers.annex_bytes.replace(b"gazette", b"gazettE"), realm.charter)
    with pytest.raises(Tampered):
        annex.decode(make().papers.annex_bytes, realm.charter)


def test_the_annex_hides_behind_its_salt(realm):
    """The same names give another hash, so a host cannot confirm a guess."""
    names = realm.papers.annex
    assert annex.encode(replace(names, salt=os.urandom(32))) != realm.papers.annex_bytes
    assert replace(names, salt=os.urandom(32)).embassy_hash("luxembourg") != names.embassy_hash("luxembourg")
    assert names.salt.hex() not in repr(names)
    assert repr(names.salt) not in repr(names)


def test_entries_are_bounded(realm):
    entry = realm.charter.registers[0]
    rows = [
        RegisterEntry(RegisterId(f"{n:032x}"), entry.epoch, os.urandom(1216), entry.writer, 1, entry.custody)
        for n in range(document.MAX_REGISTERS + 1)
    ]
    with pytest.raises((Refused, Tampered)):
        document.parse(text_after(realm, registers=rows))
