"""Custody as it was written once: what others made opens here, and what is stored abroad still opens."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from exclave import codec
from exclave.charter import annex, history
from exclave.crypto import age
from exclave.crypto.open import public_key_of
from exclave.crypto.shares import Share, combine
from exclave.custody import approval, opening, record, request
from exclave.custody.session import Session
from exclave.errors import Tampered

HERE = Path(__file__).parent / "custody"


def read(name: str) -> dict:
    return json.loads((HERE / name).read_text())


@pytest.mark.parametrize(
    "case", read("shares.json")["cases"], ids=lambda c: f"{c['made_by']}-{c['threshold']}"
)
def test_shares(case):
    made = [Share(x, bytes.fromhex(data)) for x, data in case["shares"]]
    for chosen in itertools.combinations(made, case["threshold"]):
        assert combine(case["threshold"], chosen).hex() == case["secret"]
    assert combine(case["threshold"], made).hex() == case["secret"]


@pytest.mark.parametrize("case", read("age.json")["files"], ids=lambda c: c["made_by"])
def test_age_files(case):
    given = read("age.json")
    seed = age.parse_identity(given["identity"])
    assert age.recipient(public_key_of(seed)) == given["recipient"]
    data = bytes.fromhex(case["hex"])
    assert age.decrypt(data, seed).decode() == case["content"]
    for at in (0, 10, 40, 1600, len(data) - 1):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(Tampered):
            age.decrypt(bytes(broken), seed)


def test_a_stored_realm_opens():
    given = read("realm.json")
    charter = history.verify(given["realm"], [given["charter"].encode()]).newest
    assert annex.decode(given["annex"].encode(), charter).realm == "Testland"
    (entry,) = charter.registers
    kept = record.of_entry(entry, given["record"].encode())
    asked = request.parse(given["request"].encode())
    assert asked.fingerprint == given["fingerprint"]
    names = annex.decode(given["annex"].encode(), charter).custodians
    answers = [note.encode() for note in given["approvals"]]
    authorised = opening.authorise(
        charter, {asked.registers[0]: kept}, asked, answers, now=asked.not_before, names=names
    )
    session = Session(authorised, bytes.fromhex(given["session_seed"]))
    assert session.content_key(bytes.fromhex(given["header"])).hex() == given["content_key"]
    assert approval.verify(given["refusal"].encode(), charter).verdict is approval.Verdict.REFUSE


def test_age_files_of_shares_open_the_register_without_this_product():
    """As the specification says: open two files with their identities, join, compare with the charter."""
    given = read("realm.json")
    joined: list[Share] = []
    for data, identity in zip(given["share_files"], given["identities"], strict=True):
        kind, line, _ = age.decrypt(bytes.fromhex(data), age.parse_identity(identity)).split(b"\n")
        assert kind == b"exclave/share/v1"
        fields = codec.decode(line)
        joined.append(Share(fields["x"], codec.unb64(fields["share"])))
    charter = history.verify(given["realm"], [given["charter"].encode()]).newest
    assert public_key_of(combine(2, joined[1:])) == charter.registers[0].key
