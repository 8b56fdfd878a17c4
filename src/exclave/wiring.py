"""From settings to live objects: the only module that names adapters. Each is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exclave.config import Config, EmbassyConfig
    from exclave.embassies.embassy import Embassy
    from exclave.flows.home import Home
    from exclave.flows.papers import Papers
    from exclave.flows.status import Asked
    from exclave.flows.writers import Written
    from exclave.registers.base import Finding, Rebuilder, Register
    from exclave.runtimes.base import Runtime
    from exclave.stores.base import Probe, Store
    from exclave.types import RegisterId

_SECRET_LIMIT = 1 << 20
_PAPERS_SECONDS = 10.0
_NOT_GUARANTEED = {
    "create-only": "store-not-create-only",
    "ranges": "store-not-ranges",
    "listing": "store-not-listing",
    "locked": "store-not-locked",
}
_COPIES = "temporary"  # readable copies of databases while they are captured: ours alone, never in /tmp
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def check_secrets(config: Config) -> None:
    """Look at the permissions of every secret file that the settings name or imply. Raises Misconfigured."""
    from exclave.keyfiles import read_secret

    named = (
        *(row.password_file for row in config.registers),
        *(row.credentials_file for row in config.embassies),
    )
    kept = sorted(config.home.keys.rglob("*")) if config.home is not None else []
    for path in (*(path for path in kept if path.is_file()), *(path for path in named if path is not None)):
        read_secret(path, _SECRET_LIMIT)


def papers(config: Config) -> Papers:
    """The realm's verified charters, names and custody records. Raises Misconfigured, Tampered.

    A party that has only the realm's id and the annex gets the rest from the embassies, once.
    """
    from exclave.flows import papers as flow

    place = config.realm
    here = (place.charter / f"{1:08x}.note").exists()
    if place.id is not None and not here and config.home is None and not config.embassies:
        raise no_embassies(config)
    if place.id is None or not config.embassies or here:
        return flow.load(place.id, place.charter, place.annex)
    stores = [store(row, patience_seconds=_PAPERS_SECONDS) for row in config.embassies]
    found = flow.fetch_newest(stores, place.id, place.annex)
    flow.save(found, place.charter, place.annex)
    return found


def register(config: Config, name: str) -> Register:
    """The source of one register."""
    row = config.register(name)
    if row.kind == "postgres":
        from exclave.registers.postgres.register import PostgresRegister

        return PostgresRegister(row.conninfo, password_file=row.password_file)
    assert row.path is not None
    if row.kind == "sqlite":
        from exclave.registers.sqlite.register import SqliteRegister

        return SqliteRegister(row.path, temporary=config.state / _COPIES)
    from exclave.registers.files.register import FilesRegister

    return FilesRegister(row.path, exclude=row.exclude)


def register_state(config: Config, name: str) -> Path:
    """The folder of what home remembers of one register."""
    return config.state / "registers" / config.register(name).id


def home(config: Config, name: str) -> Home:
    """All that home needs to protect one register. Raises Misconfigured, Tampered, NotThere."""
    from exclave import homedisk, keyfiles
    from exclave.flows.home import Home

    keys = config.at_home().keys
    charter = papers(config).charter
    row = config.register(name)
    entry = charter.register(row.id)
    copies = config.state / _COPIES
    with homedisk.usable(copies):
        copies.mkdir(mode=0o700, parents=True, exist_ok=True)
        copies.chmod(0o700)
    return Home(
        name=row.name,
        register=register(config, name),
        keys=keyfiles.read_write_keys(keys, charter, row.id),
        signer=keyfiles.signer_of(keys, entry),
        charter=charter.hash,
        boot_id=boot_id(),
        folder=register_state(config, name),
    )


def boot_id() -> bytes:
    """What differs after every start of this machine: keeps content keys apart even if the random source failed."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:
        return b"unknown"


def store(row: EmbassyConfig, *, patience_seconds: float = 60.0) -> Store:
    """The store of one embassy: retried, and limited when so configured."""
    from exclave.stores.retrying import Retrying

    found: Store = _adapter(row)
    if row.rate_limit:
        from exclave.stores.limited import Limited

        found = Limited(found, row.rate_limit)
    return Retrying(found, patience_seconds=patience_seconds)


def prepare(row: EmbassyConfig) -> None:
    """Make an embassy's folder, when it is one. May be repeated."""
    if row.kind == "directory" and row.path is not None:
        from exclave.stores.directory import DirectoryStore

        DirectoryStore.prepare(row.path)


def probe(row: EmbassyConfig) -> Probe:
    """Try what the store of an embassy really does. Leaves a small object or two there."""
    from exclave.stores.probe import probe as attempt

    return attempt(store(row))


def embassy_findings(config: Config, row: EmbassyConfig) -> list[Finding]:
    """The same as results of a check, and noted for later. A folder without locks is as folders are."""
    import time

    from exclave.embassies import probed
    from exclave.registers.base import Finding
    from exclave.stores.base import Guarantee
    from exclave.types import Instant

    seen = probe(row)
    probed.save(config.state, row.name, seen, Instant(time.time_ns()))
    found = (
        [Finding("store-seen", "ok", f"seen to guarantee {', '.join(sorted(seen.kept))}")]
        if seen.kept
        else []
    )
    for guarantee, why in sorted(seen.broken.items()):
        name = _NOT_GUARANTEED[guarantee]
        if guarantee is not Guarantee.LOCKED:
            found.append(Finding(name, "fail", f"not {guarantee}: {why}", f"exclave explain {name}"))
        elif row.kind == "directory":
            text = "a folder has no retention locks: whoever holds its disk could delete what is there"
            found.append(Finding(name, "ok", text))
        else:
            found.append(Finding(name, "warn", f"not {guarantee}: {why}", f"exclave explain {name}"))
    return found


def _adapter(row: EmbassyConfig) -> Store:
    if row.kind == "directory":
        from exclave.stores.directory import DirectoryStore

        assert row.path is not None
        return DirectoryStore(row.path)
    from exclave.stores.object_store import ObjectStore

    return ObjectStore(
        row.url,
        credentials_file=row.credentials_file,
        endpoint=row.endpoint or None,
        region=row.region or None,
        allow_http=row.allow_http,
    )


def asked(config: Config, name: str | None = None) -> list[Asked]:
    """The registers to ask the embassies about: those of the settings or, at a party without any, of the annex."""
    from exclave import positions
    from exclave.flows.status import Asked

    rows = {row.register: row for row in written(config)}
    names = {row.id: row.name for row in config.registers} or {key: row.name for key, row in rows.items()}
    if name is not None:
        if name not in names.values():
            config.register(name)  # raises, naming the nearest
        names = {key: one for key, one in names.items() if one == name}
    return [
        Asked(
            name=one,
            register=identity,
            writers=rows[identity].writers if identity in rows else (),
            remembered=positions.load(config.state / "registers" / identity / "catalog")
            or positions.load(seen(config, identity)),
        )
        for identity, one in names.items()
    ]


def seen(config: Config, register: RegisterId) -> Path:
    """The folder with the newest snapshot that this party saw abroad, when it is not home."""
    return config.state / "seen" / register


def written(config: Config) -> list[Written]:
    """The charter's registers and their writers, verified now or, for the same papers, before."""
    from exclave.flows import writers

    place = config.realm
    known = writers.recall(config.state, writers.digest(place.id, place.charter, place.annex))
    if known is not None:
        return known
    verified = papers(config)
    rows = [
        writers.Written(
            identity,
            name,
            tuple(entry.writer for entry in verified.charter.registers if entry.id == identity),
        )
        for identity, name in verified.annex.registers.items()
    ]
    writers.remember(config.state, writers.digest(place.id, place.charter, place.annex), rows)
    return rows


def embassies(config: Config, *, patience_seconds: float | None = None) -> list[Embassy]:
    """Every embassy. Nothing is asked of them yet. Raises Misconfigured when there is none."""
    from exclave.embassies import probed
    from exclave.embassies.embassy import Embassy

    if not config.embassies:
        raise no_embassies(config)
    patience = patience_seconds or (config.home.patience_seconds if config.home else 60.0)
    return [
        Embassy(row.name, store(row, patience_seconds=patience), probed.kept(config.state, row.name))
        for row in config.embassies
    ]


def no_embassies(config: Config) -> Misconfigured:
    """The error of a party that knows of no place abroad."""
    why, hint = f"{config.file} names no embassy", "exclave embassy add --help"
    return Misconfigured("no-embassies", "There is nowhere to go", why=why, hint=hint)


def rebuilders(config: Config) -> Mapping[str, Rebuilder]:
    """What makes a restored tree usable, by kind of register; a tree of documents is usable as it is."""
    from exclave.registers.postgres.rebuild import PostgresRebuilder
    from exclave.registers.sqlite.rebuilding import SqliteRebuilder

    return {
        "postgres": PostgresRebuilder(config.activation.postgres),
        "sqlite": SqliteRebuilder(),
    }


def runtimes(config: Config) -> Mapping[str, Runtime]:
    """What serves a rebuilt register, by kind; a kind that is missing is laid out and checked, not served."""
    from exclave.runtimes.postgres import PostgresRuntime
    from exclave.runtimes.static import StaticRuntime

    folder = services(config)
    place = config.activation
    return {
        "postgres": PostgresRuntime(folder, programs=place.postgres, port=place.postgres_port),
        "files": StaticRuntime(folder, port=place.documents_port),
    }


def services(config: Config) -> Path:
    """The folder of notes and logs of what was started here."""
    return config.state / "services"
