"""One party's settings: `exclave.toml` read, checked and turned into values.

Unknown keys are refused with the nearest known one. Secrets are named by file, never written here. Relative paths
are relative to the file. What all parties must agree on is in the signed charter, not here.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from exclave.errors import Misconfigured
from exclave.settings import Table, nearest
from exclave.types import RegisterId

FILE_NAME = "exclave.toml"
REGISTER_KINDS = ("postgres", "sqlite", "files")
EMBASSY_KINDS = ("directory", "s3", "azure", "gcs")
NAME_WORDS = "lower-case letters, digits, dots, dashes and underscores, at most 63"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_HEX32 = re.compile(r"[0-9a-f]{32}", re.ASCII)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PASSWORD = re.compile(r"(^|[\s?&])(password|sslpassword)\s*=|://[^/@\s]*:[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class RealmConfig:
    """The owner. `id` pins the realm (SHA-256 of its first charter, hex) once the ceremony has made it."""

    name: str
    id: str | None
    charter: Path  # folder of the charter versions that this party trusts
    annex: Path  # file with the names behind the charter's pseudonyms; not for hosts


@dataclass(frozen=True, slots=True)
class HomeConfig:
    """Only where registers run: write keys, and how many embassies must have a commit before it counts."""

    keys: Path
    copies: int
    patience_seconds: int


@dataclass(frozen=True, slots=True)
class RegisterConfig:
    """A source to protect. Of the last four only those of its kind are set."""

    name: str
    id: RegisterId
    kind: str
    path: Path | None = None
    exclude: tuple[str, ...] = ()
    conninfo: str = ""
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class EmbassyConfig:
    """How to reach a place abroad. `rate_limit` is in bytes per second, 0 for none."""

    name: str
    kind: str
    path: Path | None = None
    url: str = ""
    endpoint: str = ""
    region: str = ""
    credentials_file: Path | None = None
    allow_http: bool = False
    rate_limit: int = 0


@dataclass(frozen=True, slots=True)
class ActivationConfig:
    """Where registers are rebuilt and started, on loopback. Port 0: any free one; no `postgres`: the one found."""

    place: Path
    postgres: Path | None
    postgres_port: int
    documents_port: int


@dataclass(frozen=True, slots=True)
class Config:
    """Everything in the file, checked. `state` is this party's memory: safe to lose, costly to share."""

    file: Path
    realm: RealmConfig
    state: Path
    home: HomeConfig | None
    registers: tuple[RegisterConfig, ...]
    embassies: tuple[EmbassyConfig, ...]
    activation: ActivationConfig

    def register(self, name: str) -> RegisterConfig:
        """The register of that name. Raises Misconfigured, naming the nearest."""
        return _named(self.registers, name, "register", self.file)

    def embassy(self, name: str) -> EmbassyConfig:
        """The embassy of that name. Raises Misconfigured, naming the nearest."""
        return _named(self.embassies, name, "embassy", self.file)

    def at_home(self) -> HomeConfig:
        """The settings that only home has. Raises Misconfigured at any other party."""
        if self.home is None:
            raise Misconfigured(
                "not-home",
                "This verb runs at home, where the registers are",
                why=f"{self.file} has no [home] table",
                hint="exclave init --help",
            )
        return self.home


R = TypeVar("R", RegisterConfig, EmbassyConfig)


def load(file: Path) -> Config:
    """The checked settings in `file`. Raises Misconfigured; touches nothing but this file."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "exclave init, or give --config FILE"
        raise Misconfigured(
            "no-settings", f"There is no {file}", why="every verb reads it", hint=hint
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from error
    return parse(text, file.absolute())


def parse(text: str, file: Path) -> Config:
    """The checked settings in `text`, as if it were the content of `file` (absolute). Raises Misconfigured."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond what Python takes
        raise _unreadable(file, error) from error
    top = Table(values, "", file)
    config = Config(
        file=file,
        realm=_realm(top.table("realm")),
        state=top.path("state", "state"),
        home=_home(top.table("home")) if top.has("home") else None,
        registers=tuple(_register(row) for row in top.tables("register")),
        embassies=tuple(_embassy(row) for row in top.tables("embassy")),
        activation=_activation(top.table("activation")),
    )
    top.end()
    _once([one.name for one in config.registers], "register", file)
    _once([one.id for one in config.registers], "register id", file)
    _once([one.name for one in config.embassies], "embassy", file)
    return config


def _unreadable(file: Path, error: Exception) -> Misconfigured:
    return Misconfigured("settings-unreadable", f"{file} cannot be read", why=str(error), hint=f"edit {file}")


def _realm(table: Table) -> RealmConfig:
    realm = RealmConfig(
        name=table.text("name"),
        id=table.text("id", of=_HEX64) if table.has("id") else None,
        charter=table.path("charter", "charter"),
        annex=table.path("annex", "charter/annex.json"),
    )
    table.end()
    return realm


def _home(table: Table) -> HomeConfig:
    home = HomeConfig(
        keys=table.path("keys", "keys"),
        copies=table.number("copies", 2, least=1, most=64),
        patience_seconds=table.number("patience_seconds", 60, least=1, most=86_400),
    )
    table.end()
    return home


def _register(table: Table) -> RegisterConfig:
    kind = table.one_of("kind", REGISTER_KINDS)
    name, identity = _plain(table, table.text("name")), RegisterId(table.text("id", of=_HEX32))
    if kind == "postgres":
        conninfo = table.text("conninfo")
        if _PASSWORD.search(conninfo):
            raise table.bad(
                "conninfo", "it holds a password; put that into a file of mode 0600 and name it password_file"
            )
        register = RegisterConfig(
            name, identity, kind, conninfo=conninfo, password_file=table.maybe_path("password_file")
        )
    elif kind == "sqlite":
        register = RegisterConfig(name, identity, kind, path=table.path("path"))
    else:
        register = RegisterConfig(
            name, identity, kind, path=table.path("path"), exclude=table.texts("exclude")
        )
    table.end()
    return register


def _plain(table: Table, name: str) -> str:
    if not NAME.fullmatch(name):
        raise table.bad("name", f"{name!r} is not made of {NAME_WORDS}")
    return name


def _embassy(table: Table) -> EmbassyConfig:
    kind, name = table.one_of("kind", EMBASSY_KINDS), _plain(table, table.text("name"))
    rate = table.number("rate_limit", 0, least=0, most=1 << 40)
    if kind == "directory":
        embassy = EmbassyConfig(name, kind, path=table.path("path"), rate_limit=rate)
    else:
        embassy = EmbassyConfig(
            name,
            kind,
            url=table.text("url"),
            endpoint=table.text("endpoint", ""),
            region=table.text("region", ""),
            credentials_file=table.path("credentials_file"),
            allow_http=table.flag("allow_http"),
            rate_limit=rate,
        )
    table.end()
    return embassy


def _activation(table: Table) -> ActivationConfig:
    activation = ActivationConfig(
        place=table.path("place", "activated"),
        postgres=table.maybe_path("postgres"),
        postgres_port=table.number("postgres_port", 0, least=0, most=65_535),
        documents_port=table.number("documents_port", 0, least=0, most=65_535),
    )
    table.end()
    return activation


def _once(words: list[str], what: str, file: Path) -> None:
    for word in words:
        if words.count(word) > 1:
            why = f"two of them are called {word}"
            raise Misconfigured(
                "named-twice", f"Each {what} in {file} needs its own name", why=why, hint=f"edit {file}"
            )


def _named(rows: tuple[R, ...], name: str, what: str, file: Path) -> R:
    for row in rows:
        if row.name == name:
            return row
    known = [row.name for row in rows]
    why = f"known here: {', '.join(known) or 'none'}{nearest(name, known)}"
    raise Misconfigured(
        f"no-such-{what}", f"{file} names no {what} {name}", why=why, hint=f"exclave {what} list"
    )
