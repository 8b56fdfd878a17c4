"""Credentials come from private files only, and never show."""

from __future__ import annotations

from pathlib import Path

import pytest

from exclave.errors import Misconfigured
from exclave.stores.credentials import azure_keys, private_file, s3_keys
from exclave.stores.object_store import ObjectStore

SECRET = "s3cr3t-key-material"
GOOD = f'access_key_id = "me"\nsecret_access_key = "{SECRET}"\n'


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_are_read_and_do_not_show(tmp_path: Path) -> None:
    keys = s3_keys(written(tmp_path, GOOD + 'token = "t0ken"\n'))
    assert (keys.access_key_id, keys.secret_access_key, keys.token) == ("me", SECRET, "t0ken")
    assert SECRET not in repr(keys)
    assert "t0ken" not in repr(keys)


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o644, 0o620, 0o777])
def test_a_file_that_others_can_read_or_write_is_not_used(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Misconfigured) as exposed:
        s3_keys(written(tmp_path, GOOD, mode))
    assert exposed.value.id == "credentials-exposed"


@pytest.mark.parametrize(
    "text",
    ["", "not toml", 'access_key_id = "me"', GOOD + 'extra = "x"', GOOD + "token = 3", GOOD.replace("me", ""),
     f"secret_access_key = {SECRET}"],
)  # fmt: skip
def test_a_malformed_file_is_named_and_its_content_is_not_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        s3_keys(written(tmp_path, text))
    assert wrong.value.id == "credentials-malformed"
    assert "keys.toml" in str(wrong.value)
    assert SECRET not in str(wrong.value)
    assert wrong.value.__cause__ is None


def test_a_missing_file_and_a_folder_are_no_credentials(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(Misconfigured):
            private_file(path)


def test_azure_takes_one_kind_of_key(tmp_path: Path) -> None:
    name = 'account_name = "state"\n'
    assert azure_keys(written(tmp_path, name + 'sas_key = "s"')) == {"account_name": "state", "sas_key": "s"}
    assert azure_keys(written(tmp_path, name + 'account_key = "a2V5"'))["account_key"] == "a2V5"
    for text in (name, name + 'sas_key = "s"\naccount_key = "a2V5"'):
        with pytest.raises(Misconfigured):
            azure_keys(written(tmp_path, text))


@pytest.mark.parametrize(
    "url",
    ["bucket", "s3://", "s3:///folder", "http://bucket/x", "s3://b/../x", "s3://b/a b", "s3://b/x?sig=secret",
     "file:///etc"],
)  # fmt: skip
def test_an_address_that_is_no_bucket_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        ObjectStore(url, credentials_file=written(tmp_path, GOOD))
    assert wrong.value.id == "store-address"
    assert "sig=secret" not in str(wrong.value)


@pytest.mark.parametrize("endpoint", ["http://203.0.113.9:9000", "ftp://x", "https://", "https://me:pw@host"])
def test_an_endpoint_is_https_or_this_machine(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(Misconfigured):
        ObjectStore("s3://bucket", credentials_file=written(tmp_path, GOOD), endpoint=endpoint)


def test_addresses_that_can_be_right_are_taken(tmp_path: Path) -> None:
    keys = written(tmp_path, GOOD)
    ObjectStore("s3://bucket", credentials_file=keys)
    ObjectStore("s3://bucket/a/b", credentials_file=keys, endpoint="http://127.0.0.1:1")
    ObjectStore("s3://bucket", credentials_file=keys, endpoint="http://203.0.113.9:1", allow_http=True)
    ObjectStore("s3://bucket", credentials_file=keys, endpoint="https://store.example")
    azure = written(tmp_path, 'account_name = "state"\naccount_key = "a2V5"\n')
    ObjectStore("az://container/folder", credentials_file=azure)


def test_no_file_is_no_credentials() -> None:
    with pytest.raises(Misconfigured, match="no bucket"):
        ObjectStore("s3://bucket", credentials_file=None)
