"""From shares to a key: every way in which approvals can be wrong is refused, and says why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from exclave import codec
from exclave.crypto import shares
from exclave.crypto.open import public_key_of
from exclave.crypto.seal import seal_to
from exclave.crypto.shares import Share
from exclave.custody import approval, ceremony, opening, record, request
from exclave.custody.opening import Authorised
from exclave.custody.record import Holding, OpenedShare, Record
from exclave.custody.session import Session
from exclave.errors import ExclaveError, NotThere, QuorumMissing, Refused, Tampered
from exclave.sealed import container
from exclave.testing.realm import HOUR, NOW, Asking, TestRealm, make, signed
from exclave.types import EpochId, Instant, RegisterId


@pytest.fixture(scope="module")
def realm() -> TestRealm:
    return make()


@pytest.fixture(scope="module")
def asking(realm: TestRealm) -> Asking:
    return realm.ask()


def authorise(realm: TestRealm, asking: Asking, answers: Sequence[bytes], *, now: int = NOW) -> Authorised:
    return opening.authorise(
        realm.charter,
        realm.records,
        asking.request,
        answers,
        now=Instant(now),
        names=realm.papers.annex.custodians,
    )


def session(realm: TestRealm, asking: Asking, people: Sequence[int] = (0, 2, 4)) -> Session:
    return Session(authorise(realm, asking, [realm.approve(at, asking) for at in people]), asking.seed)


# -------------------------------------------------------------------------------------------------- ceremony
def test_every_quorum_opens_and_finds_the_charters_key(realm, asking):
    for people in ((0, 1, 2), (2, 3, 4), (4, 0, 3), (0, 1, 2, 3, 4)):
        header, key = realm.header(1)
        assert session(realm, asking, people).content_key(header) == key


def test_a_share_that_does_not_work_stops_the_ceremony(realm):
    """Also one beyond the threshold: the naive check joins the first m only."""
    epoch = realm.epochs[0]
    opened = [epoch.record.unwrap(one.public.id, one.share_seed) for one in realm.people]
    key = epoch.entry.key
    ceremony.prove(epoch.record, key, opened, {})
    with pytest.raises(Tampered, match="not the one"):
        ceremony.prove(epoch.record, key, [*opened[:4], replace(opened[4], blind=bytes(32))], {})
    stray = OpenedShare(Share(4, os.urandom(32)), opened[4].blind)
    rows = list(epoch.record.holdings)
    rows[4] = replace(rows[4], commitment=record.commitment(epoch.record.set, stray))
    with pytest.raises(Tampered, match="do not belong"):
        ceremony.prove(replace(epoch.record, holdings=tuple(rows)), key, [*opened[:4], stray], {})


def test_a_share_wrapped_to_the_wrong_person_stops_the_ceremony(realm):
    epoch = realm.epochs[0]
    opened = [epoch.record.unwrap(one.public.id, one.share_seed) for one in realm.people]
    first = realm.people[0].public.id
    with pytest.raises(Tampered):
        ceremony.prove(epoch.record, epoch.entry.key, opened, {first: realm.people[1].share_seed})


def test_another_key_than_the_shares_make_stops_the_ceremony(realm):
    epoch = realm.epochs[0]
    opened = [epoch.record.unwrap(one.public.id, one.share_seed) for one in realm.people]
    with pytest.raises(Tampered, match="ceremony stops"):
        ceremony.prove(epoch.record, realm.epochs[1].entry.key, opened, {})


def test_nobody_unwraps_anothers_share(realm):
    kept = realm.epochs[0].record
    with pytest.raises(Tampered):
        kept.unwrap(realm.people[0].public.id, realm.people[1].share_seed)


def test_shares_cannot_change_places_or_records(realm):
    """Naive wrapping without context lets a host swap the wrapped shares of two registers."""
    first, second = realm.epochs[0].record, realm.epochs[1].record
    mixed = replace(first, holdings=(second.holdings[0], *first.holdings[1:]))
    with pytest.raises(Tampered):
        mixed.unwrap(realm.people[0].public.id, realm.people[0].share_seed)


def test_the_record_is_the_one_that_the_charter_names(realm):
    entry, other = realm.charter.registers
    note = realm.papers.notes[realm.wanted[0]]
    assert record.of_entry(entry, note).register == entry.id
    for bad in (realm.papers.notes[realm.wanted[1]], note.replace(b'"threshold":3', b'"threshold":2')):
        with pytest.raises(Tampered, match="custody record"):
            record.of_entry(entry, bad)
    with pytest.raises(Tampered):
        record.of_entry(replace(other, custody=entry.custody), note)


def test_receipts_are_on_the_record(realm):
    from exclave.crypto import sign

    _, names = sign.signed_by(
        realm.papers.notes[realm.wanted[0]], [one.sign for one in realm.charter.custodians]
    )
    assert names == {one.id for one in realm.charter.custodians}


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1},
        {"threshold": 6},
        {"threshold": True},
        {"threshold": "3"},
        {"shares": []},
        {"set": "00"},
        {"more": 1},
        {"shares": [{"custodian": "zz"}]},
        {"shares": 3},
    ],
)
def test_a_malformed_record_is_refused(realm, change):
    kind, line, _ = realm.epochs[0].record_text.split(b"\n")
    with pytest.raises(Tampered):
        record.parse(kind + b"\n" + codec.encode(codec.decode(line) | change) + b"\n")


# -------------------------------------------------------------------------------------------------- requests
def test_the_fingerprint_is_the_start_of_the_hash(asking):
    assert asking.request.fingerprint.replace(" ", "") == asking.request.hash[:20]
    assert len(asking.request.fingerprint.split()) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"registers": []},
        {"snapshot": 0},
        {"snapshot": 1},
        {"snapshot": True},
        {"reason": ""},
        {"reason": "a\nb"},
        {"reason": "safe \u202e text"},
        {"reason": "x" * 501},
        {"reason": 3},
        {"key": codec.b64(bytes(1215))},
        {"key": codec.b64(b"\xff" * 1216)},
        {"nonce": "00"},
        {"surprise": 1},
        {"at": "yesterday"},
        {"not_after": "2036-01-01T00:00:00.000000000Z"},
        {"not_after": "2000-01-01T00:00:00.000000000Z"},
    ],
)
def test_a_malformed_request_is_refused(asking, change):
    kind, line, _ = asking.text.split(b"\n")
    with pytest.raises(Tampered):
        request.parse(kind + b"\n" + codec.encode(codec.decode(line) | change) + b"\n")


def test_a_register_twice_is_refused(realm):
    with pytest.raises(Tampered, match="twice"):
        realm.ask(registers=[realm.wanted[0], realm.wanted[0]])


def test_a_request_for_another_realm_is_refused(realm):
    foreign = make().ask()
    with pytest.raises(Refused, match="another realm"):
        request.check(foreign.request, realm.charter, NOW)


def test_a_request_under_another_charter_is_refused(realm, asking):
    text = asking.text.replace(realm.charter.hash.encode(), b"ab" * 32)
    asked = request.parse(text)
    # in charter 1 the realm's id is the charter's hash: put it back
    asked = replace(asked, realm=realm.charter.realm)
    with pytest.raises(Refused, match="another charter"):
        request.check(asked, realm.charter, NOW)


@pytest.mark.parametrize("which", ["register", "epoch"])
def test_a_request_for_what_the_charter_does_not_have_is_refused(realm, which):
    one = realm.wanted[0]
    bad = (
        replace(one, register=RegisterId("ab" * 16))
        if which == "register"
        else replace(one, epoch=EpochId("ab" * 8))
    )
    with pytest.raises(NotThere):
        request.check(realm.ask(registers=[bad]).request, realm.charter, NOW)


@pytest.mark.parametrize(
    ("now", "error_id"), [(NOW - 1, "request-not-yet"), (NOW + HOUR + 1, "request-expired")]
)
def test_a_request_has_its_time(realm, asking, now, error_id):
    answers = [realm.approve(at, asking) for at in (0, 1, 2)]
    for act in (
        lambda: request.check(asking.request, realm.charter, Instant(now)),
        lambda: authorise(realm, asking, answers, now=now),
    ):
        with pytest.raises(Refused) as caught:
            act()
        assert caught.value.id == error_id


# -------------------------------------------------------------------------------------------------- approvals
def test_one_too_few_is_a_missing_quorum_that_says_who(realm, asking):
    with pytest.raises(QuorumMissing) as caught:
        authorise(
            realm, asking, [realm.approve(0, asking), realm.refuse(3, asking), realm.approve(1, asking)]
        )
    assert caught.value.exit_code == 5
    assert "1 more approval is needed" in str(caught.value)
    assert "2 did (person 0, person 1)" in caught.value.why
    assert "person 3 refused" in caught.value.why


def test_no_answer_at_all_is_a_missing_quorum(realm, asking):
    with pytest.raises(QuorumMissing, match="3 more approvals are needed"):
        authorise(realm, asking, [])


def test_a_refusal_blocks_nobody(realm, asking):
    answers = [realm.refuse(1, asking), *(realm.approve(at, asking) for at in (0, 2, 3))]
    assert len(authorise(realm, asking, answers).approvals) == 3


def bad_answers(realm: TestRealm, asking: Asking) -> dict[str, tuple[bytes, str]]:
    """An answer that must not count, and the id of the error that says so."""
    other, stranger = realm.ask(), make()
    one = realm.people[2]
    good = realm.approve(2, asking)
    text = good.split(b"\n\n")[0] + b"\n"
    foreign = stranger.people[0]
    shown = codec.decode(text.split(b"\n")[1])

    def edit(**changes: object) -> bytes:
        return signed(approval.TYPE + b"\n" + codec.encode(shown | changes) + b"\n", [one.signer()])

    extra = {"register": "ab" * 16, "epoch": "ab" * 8, "share": shown["shares"][0]["share"]}
    return {
        "for another request": (realm.approve(2, other), "approval-other-request"),
        "given too late": (realm.approve(2, asking, at=Instant(NOW + HOUR + 1)), "approval-late"),
        "given too early": (realm.approve(2, asking, at=Instant(NOW - 1)), "approval-late"),
        "one person twice": (realm.approve(0, asking), "approval-twice"),
        "approved and refused": (realm.refuse(0, asking), "approval-twice"),
        "a stranger": (signed(text, [foreign.signer()]), "custodian-unknown"),
        "signed by another than named": (signed(text, [realm.people[3].signer()]), "approval-invalid"),
        "altered": (good.replace(b'"verdict":"approve"', b'"verdict":"refuse"'), "note-invalid"),
        "a refusal with shares": (edit(verdict="refuse"), "approval-invalid"),
        "an approval without shares": (edit(shares=[]), "approval-invalid"),
        "a share twice": (edit(shares=shown["shares"] + shown["shares"][:1]), "approval-invalid"),
        "a register that nobody asked for": (edit(shares=[*shown["shares"], extra]), "approval-invalid"),
        "an unknown verdict": (edit(verdict="maybe"), "approval-invalid"),
        "an unknown field": (edit(more=1), "approval-invalid"),
        "another type": (signed(b"exclave/x/v1\n{}\n", [one.signer()]), "approval-invalid"),
        "half a signature": (good[: good.rstrip().rfind(b"\n") + 1], "note-invalid"),
        "too long": (good + b"x" * approval.MAX_APPROVAL_BYTES, "approval-invalid"),
        "empty": (b"", "note-invalid"),
    }


BAD = list(bad_answers(first := make(), first.ask()))


@pytest.mark.parametrize("what", BAD)
def test_an_answer_that_must_not_count(realm, asking, what):
    bad, error_id = bad_answers(realm, asking)[what]
    with pytest.raises(ExclaveError) as caught:
        authorise(
            realm, asking, [realm.approve(0, asking), realm.approve(1, asking), bad, realm.approve(4, asking)]
        )
    assert caught.value.id == error_id, str(caught.value)


def test_a_custodian_without_a_share_of_the_register_does_not_count(realm, asking):
    """Counting signatures alone would reach the threshold with people who cannot open anything."""
    records = realm.records
    wanted = realm.wanted[0]
    newcomer = realm.people[4].public.id
    fewer = replace(
        records[wanted], holdings=tuple(h for h in records[wanted].holdings if h.custodian != newcomer)
    )
    answers = [realm.approve(at, asking) for at in (0, 1, 4)]
    with pytest.raises(QuorumMissing):
        opening.authorise(
            realm.charter, records | {wanted: fewer}, asking.request, answers, now=NOW, names={}
        )


# -------------------------------------------------------------------------------------------------- joining
def forged(
    realm: TestRealm, asking: Asking, person: int, make_share: Callable[[Record, str], bytes]
) -> bytes:
    """An approval, rightly signed, whose shares are something else."""
    one = realm.people[person]
    rows = []
    for wanted in asking.request.registers:
        kept = realm.records[wanted]
        info = approval.release_info(asking.request, kept, one.public.id)
        share = seal_to(make_share(kept, one.public.id), asking.request.key, info)
        rows.append({"epoch": wanted.epoch, "register": wanted.register, "share": codec.b64(share)})
    good = codec.decode(realm.approve(person, asking).split(b"\n")[1])
    return signed(approval.TYPE + b"\n" + codec.encode(good | {"shares": rows}) + b"\n", [one.signer()])


def test_a_substituted_share_is_traced_to_its_custodian(realm, asking):
    bad = forged(realm, asking, 2, lambda kept, who: bytes([kept.x_of(who)]) + os.urandom(64))
    told = authorise(realm, asking, [realm.approve(0, asking), realm.approve(1, asking), bad])
    with pytest.raises(Tampered) as caught:
        opening.join(told, asking.seed)
    assert caught.value.id == "share-substituted"
    assert realm.people[2].public.id in caught.value.what


def test_anothers_share_under_ones_own_name_does_not_count(realm, asking):
    """Two people cannot be made of one share: x and commitment belong to a place."""
    first = realm.people[0]
    bad = forged(realm, asking, 2, lambda kept, _who: kept.unwrap(first.public.id, first.share_seed).packed())
    told = authorise(realm, asking, [realm.approve(0, asking), realm.approve(1, asking), bad])
    with pytest.raises(Tampered, match="not the one"):
        opening.join(told, asking.seed)


def test_a_share_sealed_for_another_request_does_not_open(realm, asking):
    """Signing again what was sealed for an older request: the seal is bound to the request's hash."""
    old = replace(realm.ask().request, key=asking.request.key)
    one = realm.people[2]
    stale = approval.approve(
        old, realm.records, custodian=one.public.id, share_seed=one.share_seed, signer=one.signer(), at=NOW
    )
    rows = codec.decode(stale.split(b"\n")[1])["shares"]
    good = codec.decode(realm.approve(2, asking).split(b"\n")[1])
    bad = signed(approval.TYPE + b"\n" + codec.encode(good | {"shares": rows}) + b"\n", [one.signer()])
    told = authorise(realm, asking, [realm.approve(0, asking), realm.approve(1, asking), bad])
    with pytest.raises(Tampered) as caught:
        opening.join(told, asking.seed)
    assert caught.value.id == "seal-broken"


def test_approvals_do_not_open_with_another_sessions_secret(realm, asking):
    told = authorise(realm, asking, [realm.approve(at, asking) for at in (0, 1, 2)])
    with pytest.raises(Tampered) as caught:
        opening.join(told, os.urandom(32))
    assert caught.value.id == "session-key-wrong"


def test_shares_that_agree_with_each_other_on_another_key_are_refused(realm, asking):
    """The digest inside the shares is right and the commitments fit; only the charter's key tells."""
    wanted, kept = realm.wanted[0], realm.records[realm.wanted[0]]
    fake = [OpenedShare(s, os.urandom(32)) for s in shares.split(3, 5, os.urandom(32))]
    rows = tuple(
        Holding(h.custodian, record.commitment(kept.set, one), h.wrapped)
        for h, one in zip(kept.holdings, fake, strict=True)
    )
    lying = replace(kept, holdings=rows)
    asked = realm.ask(registers=[wanted])
    answers = [forged(realm, asked, at, lambda r, who: fake[r.x_of(who)].packed()) for at in (0, 1, 2)]
    told = opening.authorise(realm.charter, {wanted: lying}, asked.request, answers, now=NOW, names={})
    with pytest.raises(Tampered) as caught:
        opening.join(told, asked.seed)
    assert caught.value.id == "joined-key-wrong"


def test_a_seed_in_memory_is_overwritten_after_joining(realm, asking, monkeypatch):
    seen: list[bytearray] = []
    combine = shares.combine

    def watched(threshold: int, given: Sequence[Share]) -> bytearray:
        seen.append(combine(threshold, given))
        assert public_key_of(seen[-1]) in {one.entry.key for one in realm.epochs}
        return seen[-1]

    monkeypatch.setattr(shares, "combine", watched)
    session(realm, asking)
    assert len(seen) == 2
    assert all(seed == bytes(32) for seed in seen)


# -------------------------------------------------------------------------------------------------- the session
def test_a_session_opens_only_what_was_approved(realm):
    asked = realm.ask(registers=realm.wanted[:1])
    held = session(realm, asked)
    header, key = realm.header(0)
    assert held.content_key(header) == key
    with pytest.raises(Refused, match="did not approve"):
        held.content_key(realm.header(1)[0])
    assert held.opened == {realm.wanted[0].register: 1}


@pytest.mark.parametrize(("start", "end"), [(16, 48), (64, 72)])
def test_another_realm_or_epoch_in_the_header_is_refused(realm, asking, start, end):
    header, _ = realm.header()
    bad = header[:start] + bytes(end - start) + header[end:]
    with pytest.raises(Refused):
        session(realm, asking).content_key(bad)


@pytest.mark.parametrize("at", [8, 12, 72, 80, 87, 88, 104, 800, 1271])
def test_an_altered_header_does_not_open(realm, asking, at):
    header = bytearray(realm.header()[0])
    header[at] ^= 1
    with pytest.raises((Tampered, Refused)):
        session(realm, asking).content_key(bytes(header))


@pytest.mark.parametrize("change", [lambda h: h[:-1], lambda h: h + b"x", lambda _h: b"", lambda h: h[:88]])
def test_a_header_of_another_length_is_refused(realm, asking, change):
    with pytest.raises(Tampered):
        session(realm, asking).content_key(change(realm.header()[0]))


def test_an_index_part_is_not_for_this_key(realm, asking):
    header, _ = realm.header(kind=container.INDEX)
    with pytest.raises(Tampered):
        session(realm, asking).content_key(header)


def test_a_snapshot_number_is_a_limit(realm):
    asked = realm.ask(registers=realm.wanted[:1], snapshot=7)
    held = session(realm, asked)
    held.content_key(realm.header(kind=container.MANIFEST, number=7)[0])
    held.content_key(realm.header(kind=container.PACK, number=99)[0])
    with pytest.raises(Refused, match="did not approve"):
        held.content_key(realm.header(kind=container.MANIFEST, number=8)[0])


def test_a_wiped_session_opens_nothing(realm, asking):
    held = session(realm, asking)
    held.wipe()
    held.wipe()
    with pytest.raises(Refused):
        held.content_key(realm.header()[0])


def test_no_representation_shows_a_secret(realm, asking):
    told = authorise(realm, asking, [realm.approve(at, asking) for at in (0, 1, 2)])
    shown = repr(
        (realm.people, realm.epochs, realm.papers, asking, told, session(realm, asking), realm.wanted)
    )
    shown += repr(
        realm.records[realm.wanted[0]].unwrap(realm.people[0].public.id, realm.people[0].share_seed)
    )
    for one in realm.people:
        for secret in (one.share_seed, one.sign_seed):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown
    for epoch in realm.epochs:
        assert repr(epoch.id_key)[2:-1] not in shown
        assert repr(epoch.index_key)[2:-1] not in shown
    assert repr(asking.seed)[2:-1] not in shown
