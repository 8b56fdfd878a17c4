"""Attack on an object under S3 Object Lock: every request by which a thief of the credentials could destroy it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from exclave.stores.s3_requests import S3Requests

_UNTIL = re.compile(rb"<RetainUntilDate>([^<]{19})[^<]*</RetainUntilDate>")
_MODE = re.compile(rb"<Mode>([A-Z]+)</Mode>")
_BYPASS = {"x-amz-bypass-governance-retention": "true"}
_SHORTENED_SECONDS = 120  # from now: a date in the past would be refused for being malformed
_MALFORMED = 400
_FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class S3Lock:
    """Objects of one bucket, whose names begin with `folder` there."""

    requests: S3Requests = field(repr=False)
    folder: str

    def attack(self, name: str) -> str:
        """What happened instead of a refusal, or "" when the object withstood every try. Raises Unreachable."""
        key = self.folder + name
        version = self.requests.send("HEAD", key).headers.get("x-amz-version-id", "")
        if not version or version == "null":
            return "the bucket keeps no versions, so its objects cannot be locked"
        mode, until = self._retention(key, version)
        if not until:
            return "a new object gets no retention: the bucket has no default object lock"
        if mode != "COMPLIANCE":
            return f"the bucket's lock is {mode}, which an account with the right to can lift; COMPLIANCE is needed"
        content = self.requests.send("GET", key, query={"versionId": version})
        went = self._tries(key, version, until)
        if went:
            return went
        # A refusal proves nothing yet: look at what is left.
        after = self.requests.send("GET", key, query={"versionId": version})
        if not after.granted or not content.granted or after.body != content.body:
            return "the store refused to delete the object, and yet it is gone or altered"
        later_mode, later = self._retention(key, version)
        if later_mode != "COMPLIANCE" or later < until:
            return "the store refused to shorten the lock, and yet it is shorter"
        return ""

    def _tries(self, key: str, version: str, until: str) -> str:
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + _SHORTENED_SECONDS))
        one = {"versionId": version}
        lock = {"retention": "", **one}
        tries: list[tuple[str, str, dict[str, str], dict[str, str], bytes]] = [
            ("shortened the lock", "PUT", lock, {}, _retention("COMPLIANCE", soon)),
            ("weakened the lock", "PUT", lock, _BYPASS, _retention("GOVERNANCE", f"{until}Z")),
            ("shortened the lock past governance", "PUT", lock, _BYPASS, _retention("COMPLIANCE", soon)),
            ("deleted the object", "DELETE", one, {}, b""),
            ("deleted the object past governance", "DELETE", one, _BYPASS, b""),
        ]
        for done, method, query, headers, body in tries:
            reply = self.requests.send(method, key, query=query, headers=headers, body=body)
            if reply.granted:
                return f"the store said that it {done}"
            if reply.status not in {_MALFORMED, _FORBIDDEN}:
                return f"the store gave no clear refusal when asked whether it {done}: HTTP {reply.status}"
        return ""

    def _retention(self, key: str, version: str) -> tuple[str, str]:
        reply = self.requests.send("GET", key, query={"retention": "", "versionId": version})
        mode, until = _MODE.search(reply.body), _UNTIL.search(reply.body)
        if not reply.granted or mode is None or until is None:
            return "", ""
        return mode[1].decode("ascii"), until[1].decode("ascii", "replace")


def _retention(mode: str, until: str) -> bytes:
    return (
        '<Retention xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
    ).encode()
