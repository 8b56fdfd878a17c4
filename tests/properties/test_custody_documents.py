"""Whatever stands in a document from abroad, it is refused in the product's own words: no other error gets out."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exclave import codec
from exclave.charter import annex, document
from exclave.crypto.hashing import sha256
from exclave.custody import approval, record, request
from exclave.errors import ExclaveError
from exclave.testing.realm import TestRealm, make, signed

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 1 << 50)
    | st.text(max_size=70)
    | st.binary(max_size=40).map(codec.b64)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@pytest.fixture(scope="module")
def realm() -> TestRealm:
    return make(people=3, threshold=2, registers=("land",))


def spoil(line: bytes, data: st.DataObject) -> bytes:
    """The document with one value, at any depth, replaced or taken away."""
    fields = codec.decode(line)
    place: object = fields
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        if isinstance(place, dict) and data.draw(st.booleans()):
            del place[key]
        else:
            place[key] = data.draw(values)
        return codec.encode(fields)


@given(data=st.data())
def test_documents(realm, data):
    asked = realm.ask()
    texts = {
        document.parse: realm.papers.history.notes[0].split(b"\n\n")[0] + b"\n",
        record.parse: realm.epochs[0].record_text,
        request.parse: asked.text,
    }
    parse = data.draw(st.sampled_from(list(texts)))
    kind, line, _ = texts[parse].split(b"\n")
    with contextlib.suppress(ExclaveError):
        parse(kind + b"\n" + spoil(line, data) + b"\n")


@given(data=st.data())
def test_a_signed_approval(realm, data):
    """Signed by a custodian, so it is parsed: a custodian may be the attacker."""
    line = realm.approve(0, realm.ask()).split(b"\n")[1]
    note = signed(approval.TYPE + b"\n" + spoil(line, data) + b"\n", [realm.people[0].signer()])
    with contextlib.suppress(ExclaveError):
        approval.check(approval.verify(note, realm.charter), realm.ask().request)


@given(data=st.data())
def test_an_annex(realm, data):
    changed = spoil(realm.papers.annex_bytes.removesuffix(b"\n"), data) + b"\n"
    with contextlib.suppress(ExclaveError):
        annex.decode(changed, replace(realm.charter, annex=sha256(changed).hex()))


@given(noise=st.binary(max_size=300))
def test_noise(realm, noise):
    for kind in (document.TYPE, record.TYPE, request.TYPE, approval.TYPE, b""):
        for parse in (document.parse, record.parse, request.parse):
            with pytest.raises(ExclaveError):
                parse(kind + b"\n" + noise)
    with pytest.raises(ExclaveError):
        approval.verify(noise, realm.charter)
