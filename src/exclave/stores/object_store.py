"""Store in a bucket of S3, Azure or Google Cloud, through `obstore`, with blocking calls that release the GIL."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from exclave.errors import ExclaveError, Misconfigured
from exclave.stores import naming, refusals
from exclave.stores.base import Listed
from exclave.stores.bounded import endless, too_many
from exclave.stores.credentials import azure_keys, private_file, s3_keys
from exclave.stores.s3_lock import S3Lock
from exclave.stores.s3_requests import S3Requests
from exclave.types import Buffer

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Credential

_COMPARE_BYTES = 4 << 20
_QUERY = re.compile(r"\?[^\s\"')]*")  # of an address in a message: it may hold a token
_TEXT_LIMIT = 200
# One try a call: `stores.retrying` decides about more, where its pauses can be seen and tested.
_ONE_TRY: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}


@dataclass(frozen=True, slots=True)
class _Bucket:
    url: str
    credentials: Path
    endpoint: str
    region: str
    allow_http: bool
    connect_seconds: float
    request_seconds: float


class ObjectStore:
    """Objects in a bucket. A put is conditional (`If-None-Match: *`) and acknowledged by the store when durable.

    `url` is s3://bucket/folder, az://container/folder or gs://bucket/folder. Keys come from `credentials_file` only,
    never from the environment: TOML for S3 and Azure (`stores.credentials`), a service account's JSON for Google.
    `endpoint` is that of an S3 that is not Amazon's; plain HTTP must be allowed, except to this machine.
    `request_seconds` is for a whole object: 32 MiB at about 1 Mbit/s.
    """

    def __init__(
        self,
        url: str,
        *,
        credentials_file: Path | None,
        endpoint: str | None = None,
        region: str | None = None,
        allow_http: bool = False,
        connect_seconds: float = 10.0,
        request_seconds: float = 300.0,
    ) -> None:
        """Raises Misconfigured for an address or credentials that cannot be right. Connects at the first call."""
        if credentials_file is None:
            raise _misplaced(url, "no file with its credentials is given")
        bucket = _Bucket(
            url,
            credentials_file,
            endpoint or "",
            region or "us-east-1",
            allow_http,
            connect_seconds,
            request_seconds,
        )
        place = urlsplit(url)
        self._where = url
        self._lock: S3Lock | None = None
        folder = place.path.strip("/")
        if not place.netloc or place.query or place.fragment or (folder and not _is_name(folder)):
            raise _misplaced(url, "it is not scheme://bucket/folder")
        try:
            match place.scheme:
                case "s3":
                    self._store: S3Store | AzureStore | GCSStore = _s3(bucket, place.netloc, folder)
                    requests = S3Requests(
                        _endpoint(bucket), bucket.region, place.netloc, lambda: s3_keys(credentials_file)
                    )
                    self._lock = S3Lock(requests, f"{folder}/" if folder else "")
                case "az":
                    self._store = AzureStore(
                        place.netloc,
                        prefix=folder or None,
                        client_options=_client(bucket),
                        retry_config=_ONE_TRY,
                        config=azure_keys(credentials_file),
                    )
                case "gs":
                    self._store = GCSStore(
                        place.netloc,
                        prefix=folder or None,
                        client_options=_client(bucket),
                        retry_config=_ONE_TRY,
                        service_account=str(private_file(credentials_file)),
                    )
                case _:
                    raise _misplaced(url, "its scheme is not s3, az or gs")
        except (BaseError, ValueError) as error:
            raise _misplaced(url, _clean(error)) from None

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        naming.parts(name)
        view = memoryview(data).cast("B")
        try:
            with self._told(f"{name} was not stored"):
                obstore.put(self._store, name, view, mode="create", use_multipart=False)
        except _TakenError:
            # Ours from a try whose answer was lost, or somebody else's: only its bytes can tell.
            if not self._same(name, view):
                raise refusals.conflict(name) from None

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`."""
        naming.parts(name)
        with self._told(f"{name} cannot be read", name):
            found = obstore.get(self._store, name)
            size = found.meta["size"]
            if size > limit:
                raise refusals.too_long(name, size, limit)
            data = bytes(found.bytes())
        if len(data) != size:
            raise refusals.too_short(name, len(data), size)
        return data

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        naming.parts(name)
        if length == 0:
            size = self.size(name)  # the protocol has no empty ranges
            if size < start:
                raise refusals.too_short(name, size, start)
            return b""
        with self._told(f"{name} cannot be read", name):
            try:
                data = bytes(obstore.get_range(self._store, name, start=start, length=length))
            except BaseError as error:
                if "416 Range Not Satisfiable" in str(error):
                    raise refusals.too_short(name, start, start + length) from None
                raise
        if len(data) != length:
            raise refusals.too_short(name, start + len(data), start + length)
        return data

    def size(self, name: str) -> int:
        """See `Store.size`."""
        naming.parts(name)
        with self._told(f"{name} cannot be read", name):
            return obstore.head(self._store, name)["size"]

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`. Read to its end and sorted here: not every server sorts bytewise over slashes."""
        naming.folder(prefix)
        rows: list[Listed] = []
        # Some servers order folders before their slash, and skip a folder that the offset names: so begin one
        # character earlier, and only inside the folder asked for, where our names are all of one length.
        earlier = after.rstrip("/")[:-1]
        offset = earlier if prefix and earlier.startswith(prefix) else None
        with self._told(f"{self._where} cannot be listed"):
            batches: Iterable[Sequence[ObjectMeta]] = obstore.list(  # pyright: ignore[reportUnknownMemberType] -- Arrow
                self._store, prefix or None, offset=offset, chunk_size=1000
            )
            firsts = set[str]()
            for batch in batches:
                first = batch[0]["path"] if batch else ""
                if first in firsts:
                    raise endless("the same page of it came twice")
                firsts.add(first)
                too_many(len(rows) + len(batch))
                for found in batch:
                    path = found["path"]
                    if path.startswith(prefix) and path > after:
                        rows.append(Listed(path, found["size"]))
        rows.sort()
        yield from rows

    def break_lock(self, name: str) -> str:
        """Try to destroy an object as a thief of the credentials would; how it went, or "" if nothing worked."""
        if self._lock is None:
            return "shortening a lock cannot be tried at this kind of store, so none is counted"
        return self._lock.attack(name)

    def _same(self, name: str, view: memoryview) -> bool:
        if self.size(name) != len(view):
            return False
        return all(
            memoryview(self.get_range(name, at, len(piece))) == piece
            for at in range(0, len(view), _COMPARE_BYTES)
            for piece in (view[at : at + _COMPARE_BYTES],)
        )

    @contextmanager
    def _told(self, what: str, name: str = "") -> Generator[None]:
        """Foreign exceptions in our words. Not chained: their text may hold an address with a token."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise _TakenError from None
        except (BaseError, FileNotFoundError, PermissionError, TimeoutError) as error:
            raise self._translated(error, what, name) from None

    def _translated(self, error: Exception, what: str, name: str) -> ExclaveError:
        text = str(error)
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return Misconfigured(
                "store-bucket-missing", what, why=f"no bucket {self._where}", hint="exclave doctor"
            )
        if isinstance(error, FileNotFoundError):
            return refusals.missing(name or what)
        denied = isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
        if denied or "403 Forbidden" in text or "401 Unauthorized" in text:
            return refusals.forbidden(what, f"{self._where}: {_clean(error)}")
        if "507 " in text or "XMinioStorageFull" in text or "QuotaExceeded" in text:
            return refusals.full(what, f"{self._where}: {_clean(error)}")
        return refusals.unreachable(what, f"{self._where}: {_clean(error)}")


class _TakenError(Exception):
    """The name exists already."""


def _s3(bucket: _Bucket, name: str, folder: str) -> S3Store:
    def provide() -> S3Credential:
        keys = s3_keys(bucket.credentials)
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "token": keys.token or None,
            "expires_at": None,
        }

    provide()  # what is wrong with the file should be said now, not in the first put
    endpoint = _endpoint(bucket)
    # Every option is given, so that nothing comes from AWS_* variables. Signing the payload would hash each pack
    # a second time; it is sealed and named by its hash already, so it is signed only over a line anyone can alter.
    return S3Store(
        name,
        prefix=folder or None,
        client_options=_client(bucket),
        retry_config=_ONE_TRY,
        credential_provider=provide,
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=bucket.region,
        virtual_hosted_style_request=False,
        unsigned_payload=endpoint.startswith("https://") or _is_loopback(endpoint),
        skip_signature=False,
        conditional_put="etag",
    )


def _endpoint(bucket: _Bucket) -> str:
    endpoint = bucket.endpoint or f"https://s3.{bucket.region}.amazonaws.com"
    place = urlsplit(endpoint)
    if place.scheme not in {"http", "https"} or not place.hostname or place.username:
        raise _misplaced(endpoint, "an endpoint is https://host or https://host:port")
    if place.scheme == "http" and not bucket.allow_http and not _is_loopback(endpoint):
        raise _misplaced(endpoint, "plain HTTP beyond this machine lets anyone on the line alter what we ask")
    return endpoint.rstrip("/")


def _client(bucket: _Bucket) -> ClientConfig:
    return {
        "allow_http": bucket.endpoint.startswith("http://"),
        "allow_invalid_certificates": False,
        "connect_timeout": timedelta(seconds=bucket.connect_seconds),
        "timeout": timedelta(seconds=bucket.request_seconds),
    }


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_name(folder: str) -> bool:
    return all(naming.is_part(part) for part in folder.split("/"))


def _clean(error: Exception) -> str:
    """The first line of a foreign message, without the queries of addresses."""
    return _QUERY.sub("", str(error).split("\n", 1)[0])[:_TEXT_LIMIT]


def _misplaced(url: str, why: str) -> Misconfigured:
    return Misconfigured(
        "store-address", f"{_QUERY.sub('', url)} is no bucket", why=why, hint="exclave config check"
    )
