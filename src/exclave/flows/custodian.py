"""A custodian's folder: his two secret keys, and his own copy of the realm's papers by which he judges a request.

identity.txt      age identity, mode 0600: opens his shares
signing.seed      64 bytes, mode 0600: signs charters, approvals, refusals
realm.id          the realm's id, hex
charter/          papers (flows.papers), with the annex
shares/           his shares as age files, for the day when this product is gone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exclave.crypto import age
from exclave.crypto.open import public_key_of
from exclave.crypto.sign import SEED_BYTES, Signer
from exclave.custody.ceremony import NewCustodian
from exclave.errors import Misconfigured
from exclave.flows import papers as folders
from exclave.flows.papers import Papers, create
from exclave.keyfiles import read_secret

IDENTITY, SIGNING, REALM, PAPERS, SHARES = "identity.txt", "signing.seed", "realm.id", "charter", "shares"
ANNEX = "annex.json"
_IDENTITY_LIMIT = 8 << 10


@dataclass(frozen=True, slots=True)
class Desk:
    """A custodian as his folder makes him: who he is, what he trusts, and his secrets."""

    folder: Path
    id: str
    name: str
    papers: Papers
    signer: Signer = field(repr=False)
    share_seed: bytes = field(repr=False)


def sit_down(folder: Path) -> Desk:
    """Read and verify a custodian's folder. Raises Misconfigured, Tampered, Refused."""
    if not (folder / IDENTITY).exists():
        raise Misconfigured(
            "not-a-custodian",
            f"{folder} is not a custodian's folder",
            why=f"it has no {IDENTITY}",
            hint="give the folder that the ceremony made for this custodian",
        )
    share_seed = age.parse_identity_file(read_secret(folder / IDENTITY, _IDENTITY_LIMIT))
    sign_seed = read_secret(folder / SIGNING, SEED_BYTES)
    realm = _read_realm(folder / REALM)
    papers = folders.load(realm, folder / PAPERS, folder / PAPERS / ANNEX)
    share_key = public_key_of(share_seed)
    for person in papers.charter.custodians:
        signer = Signer(person.id, sign_seed)
        if (person.share, person.sign) == (share_key, signer.verifier):
            return Desk(folder, person.id, papers.annex.custodians[person.id], papers, signer, share_seed)
    raise Misconfigured(
        "not-a-custodian",
        f"The keys in {folder} belong to no custodian",
        why=f"charter {papers.charter.version} names other keys",
        hint="exclave explain not-a-custodian",
    )


def furnish(folder: Path, person: NewCustodian, papers: Papers, exports: Mapping[str, bytes]) -> None:
    """Make a new custodian's folder. Durable on return. Raises Misconfigured when it is there already."""
    check_free(folder)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    create(folder / IDENTITY, age.identity_file(person.share_seed))
    create(folder / SIGNING, person.sign_seed)
    create(folder / REALM, f"{papers.history.realm}\n".encode())
    file_papers(folder, papers, exports)


def check_free(folder: Path) -> None:
    """Raises Misconfigured when there is something under the name of a new custodian's folder."""
    if folder.exists():
        raise Misconfigured(
            "file-exists",
            f"{folder} exists already",
            why="a custodian's folder is never overwritten",
            hint="choose another --out",
        )


def file_papers(folder: Path, papers: Papers, exports: Mapping[str, bytes]) -> None:
    """Put newer papers, and age files of new shares (by file name), into a custodian's folder."""
    folders.save(papers, folder / PAPERS, folder / PAPERS / ANNEX)
    (folder / SHARES).mkdir(mode=0o700, exist_ok=True)
    for name, data in exports.items():
        create(folder / SHARES / name, data)


def _read_realm(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")[:80].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            "papers-missing",
            f"{path} cannot be read",
            why="a custodian trusts a realm by its id",
            hint="write the realm's id, as printed at the ceremony, into that file",
        ) from error
