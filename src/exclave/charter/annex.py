"""The annex: the names behind the charter's pseudonyms, for home, custodians and activating embassies only.

The charter holds its hash. A salt keeps a host that knows the likely names from confirming a guess by that hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from exclave import codec
from exclave.charter.document import Charter
from exclave.crypto.hashing import sha256
from exclave.errors import Misconfigured, Tampered
from exclave.types import RegisterId

MAX_ANNEX_BYTES = 4 << 20
SALT_BYTES = 32
NAME_LIMIT = 200  # characters


@dataclass(frozen=True, slots=True)
class Annex:
    """Names by pseudonym, the realm's own, and those of the embassies that may ask for a register."""

    realm: str
    registers: dict[RegisterId, str]
    custodians: dict[str, str]
    embassies: tuple[str, ...]
    salt: bytes = field(repr=False)

    def register(self, name: str) -> RegisterId:
        """The id of the register with this name. Raises Misconfigured."""
        for register, known in self.registers.items():
            if known == name:
                return register
        raise Misconfigured(
            "register-unknown",
            f"There is no register called {name}",
            why=f"the annex names {', '.join(sorted(self.registers.values())) or 'none'}",
            hint="exclave register list",
        )

    def embassy(self, name_hash: str) -> str | None:
        """The embassy whose name has this salted hash, or None when the annex names none."""
        return next((name for name in self.embassies if self.embassy_hash(name) == name_hash), None)

    def embassy_hash(self, name: str) -> str:
        """What stands for an embassy's name where hosts may read, hex."""
        return sha256(codec.lengths_prefixed(b"exclave/embassy-name/v1", self.salt, name.encode())).hex()


def encode(annex: Annex) -> bytes:
    """The bytes to keep: one canonical document and a newline. The charter holds their SHA-256."""
    return (
        codec.encode(
            {
                "custodians": annex.custodians,
                "embassies": list(annex.embassies),
                "realm": annex.realm,
                "registers": dict(annex.registers),
                "salt": codec.b64(annex.salt),
                "version": 1,
            }
        )
        + b"\n"
    )


def decode(data: bytes, charter: Charter) -> Annex:
    """The annex to which `charter` is bound. Raises Tampered for any other bytes."""
    if len(data) > MAX_ANNEX_BYTES or sha256(data).hex() != charter.annex:
        raise _bad(f"it is not the one that charter {charter.version} was signed with")
    fields = codec.decode(data.removesuffix(b"\n"), limit=MAX_ANNEX_BYTES)
    if (
        set(fields) != {"custodians", "embassies", "realm", "registers", "salt", "version"}
        or fields["version"] != 1
    ):
        raise _bad("it has other fields than an annex")
    annex = Annex(
        realm=_name(fields["realm"]),
        registers={RegisterId(key): name for key, name in _names(fields["registers"]).items()},
        custodians=_names(fields["custodians"]),
        embassies=_embassies(fields["embassies"]),
        salt=codec.unb64(str(fields["salt"]), size=SALT_BYTES),
    )
    if set(annex.custodians) != {one.id for one in charter.custodians}:
        raise _bad("its custodians are not those of the charter")
    if set(annex.registers) != {one.id for one in charter.registers}:
        raise _bad("its registers are not those of the charter")
    return annex


def _names(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _bad("a list of names that is none")
    return {str(key): _name(name) for key, name in cast("dict[object, object]", value).items()}


def _embassies(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _bad("a list of embassies that is none")
    return tuple(_name(name) for name in cast("list[object]", value))


def _name(value: object) -> str:
    """Names are shown to a person who decides by them: nothing in them may move a cursor or turn a line around."""
    if not isinstance(value, str) or not 0 < len(value) <= NAME_LIMIT or not value.isprintable():
        raise _bad("a name that is empty, too long or not printable")
    return value


def _bad(why: str) -> Tampered:
    return Tampered(
        "annex-invalid", "The annex cannot be trusted", why=why, hint="exclave explain annex-invalid"
    )
