"""Keys of object stores, from files that only their owner reads."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from exclave.errors import Misconfigured
from exclave.stores.s3_requests import S3Credentials

if TYPE_CHECKING:
    from obstore.store import AzureConfig

MAX_FILE_BYTES = 64 << 10


def s3_keys(path: Path) -> S3Credentials:
    """`access_key_id`, `secret_access_key` and perhaps `token` from a TOML file. Raises Misconfigured.

    Read again whenever keys are asked for, so that replacing the file replaces the keys.
    """
    fields = _fields(path, required={"access_key_id", "secret_access_key"}, optional={"token"})
    return S3Credentials(fields["access_key_id"], fields["secret_access_key"], fields.get("token", ""))


def azure_keys(path: Path) -> AzureConfig:
    """`account_name`, and `account_key` or `sas_key`, from a TOML file. Raises Misconfigured."""
    fields = _fields(path, required={"account_name"}, optional={"account_key", "sas_key"})
    if ("account_key" in fields) == ("sas_key" in fields):
        raise _wrong(path, "it has to name one of account_key and sas_key")
    if "sas_key" in fields:
        return {"account_name": fields["account_name"], "sas_key": fields["sas_key"]}
    return {"account_name": fields["account_name"], "account_key": fields["account_key"]}


def private_file(path: Path) -> Path:
    """`path`, if it is a file that strangers on this machine cannot read. Raises Misconfigured."""
    try:
        found = path.stat()
    except OSError as error:
        raise _wrong(path, error.strerror or "it cannot be read") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
        raise _wrong(path, "it is not a small file")
    if found.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        why = f"others on this machine can read or write it (mode {found.st_mode & 0o777:o})"
        raise Misconfigured(
            "credentials-exposed", f"{path} is not private", why=why, hint=f"chmod 600 {path}"
        )
    return path


def _fields(path: Path, *, required: set[str], optional: set[str]) -> dict[str, str]:
    try:
        document = tomllib.loads(private_file(path).read_text("utf-8"))
    except OSError as error:
        raise _wrong(path, error.strerror or "it cannot be read") from error
    except ValueError:  # its text is left out of the message and of the chain: it may be a key
        raise _wrong(path, "it is not TOML") from None
    fields = {name: value for name, value in document.items() if isinstance(value, str) and value}
    if len(fields) != len(document) or not required <= set(fields) <= required | optional:
        raise _wrong(
            path, f"it has to set {', '.join(sorted(required))} and may set {', '.join(sorted(optional))}"
        )
    return fields


def _wrong(path: Path, why: str) -> Misconfigured:
    return Misconfigured(
        "credentials-malformed", f"{path} holds no credentials", why=why, hint="exclave config check"
    )
