"""Single signed S3 requests (AWS Signature Version 4) for what `obstore` cannot say: versions and retention."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from exclave.stores import refusals

MAX_REPLY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """What signs requests. Only the id is shown."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def granted(self) -> bool:
        """The server says that it did what was asked."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class S3Requests:
    """A bucket at an endpoint, addressed by path. Each request opens its own connection."""

    endpoint: str
    region: str
    bucket: str
    credentials: Callable[[], S3Credentials] = field(repr=False)
    timeout_seconds: float = 20.0

    def send(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Reply:
        """One request and its reply, whatever its status. Raises Unreachable."""
        place = urlsplit(self.endpoint)
        path = quote(f"{place.path.rstrip('/')}/{self.bucket}/{key}".rstrip("/") or "/", safe="/-_.~")
        search = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
            for name, value in sorted((query or {}).items())
        )
        signed = self._signed(method, place.netloc, path, search, dict(headers or {}), body)
        host, port = place.hostname or "", place.port
        try:
            if place.scheme == "https":
                context = ssl.create_default_context()
                line: http.client.HTTPConnection = http.client.HTTPSConnection(
                    host, port, timeout=self.timeout_seconds, context=context
                )
            else:
                line = http.client.HTTPConnection(host, port, timeout=self.timeout_seconds)
            try:
                line.request(method, f"{path}?{search}" if search else path, body=body, headers=signed)
                reply = line.getresponse()
                told = {name.lower(): value for name, value in reply.getheaders()}
                return Reply(reply.status, told, reply.read(MAX_REPLY_BYTES))
            finally:
                line.close()
        except (OSError, http.client.HTTPException) as error:
            raise refusals.unreachable(f"{self.endpoint} does not answer", str(error)) from error

    def _signed(
        self, method: str, host: str, path: str, search: str, headers: dict[str, str], body: bytes
    ) -> dict[str, str]:
        keys = self.credentials()
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        content = hashlib.sha256(body).hexdigest()
        headers = {name.lower(): value for name, value in headers.items()}
        headers |= {"host": host, "x-amz-date": now, "x-amz-content-sha256": content}
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
        request = f"{method}\n{path}\n{search}\n{lines}\n{names}\n{content}"
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{keys.secret_access_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return headers
