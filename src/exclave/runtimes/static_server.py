"""A small read-only web server for a tree of documents; run as `python -m exclave.runtimes.static_server`."""

from __future__ import annotations

import argparse
import html
import mimetypes
import os
import shutil
import stat
import sys
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes, urlsplit

_INDEX = b"index.html"
_TEXT = frozenset({"application/javascript", "application/json", "application/xml", "image/svg+xml"})
_MAX_PATH_BYTES = 4096
_MAX_LINKS = 16


class Documents:
    """Opens what is inside one folder, component by component, so that no link and no race leads out of it."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: bytes) -> int:
        """A descriptor of the regular file or folder at `path` (parts joined by b"/"). Raises OSError."""
        return self._walk([part for part in path.split(b"/") if part not in {b"", b"."}], _MAX_LINKS)

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._root)

    def _walk(self, parts: list[bytes], links: int) -> int:
        """Links are resolved here, not by the kernel; a target that is absolute or climbs out is refused."""
        here = os.dup(self._root)
        passed: list[bytes] = []
        try:
            for number, part in enumerate(parts):
                if part == b"..":
                    raise PermissionError(part)
                status = os.stat(part, dir_fd=here, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    target = os.readlink(part, dir_fd=here)
                    if links == 0:
                        raise PermissionError(part)
                    return self._walk(_joined(passed, target, parts[number + 1 :]), links - 1)
                if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                    raise PermissionError(part)  # a FIFO would block, a device may do anything
                inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = inner
                passed.append(part)
        except BaseException:
            os.close(here)
            raise
        return here


def _joined(folder: list[bytes], target: bytes, rest: list[bytes]) -> list[bytes]:
    if target.startswith(b"/"):
        raise PermissionError(target)
    parts = list(folder)
    for part in target.split(b"/"):
        if part == b"..":
            if not parts:
                raise PermissionError(target)
            parts.pop()
        elif part not in {b"", b"."}:
            parts.append(part)
    return parts + rest


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD only."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    documents: Documents  # of the server's subclass
    server_version = "exclave"
    sys_version = ""

    def do_GET(self) -> None:
        """A document, or the list of a folder."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without its body."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """To standard error, which is the log; without control characters of the request."""
        text = (
            (format % args).encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")
        )
        sys.stderr.write(f"{self.log_date_time_string()} {text}\n")

    def _answer(self, *, body: bool) -> None:
        path = unquote_to_bytes(urlsplit(self.path).path)
        if len(path) > _MAX_PATH_BYTES or b"\0" in path:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        try:
            descriptor = self.documents.open(path)
        except FileNotFoundError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        except OSError:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            with os.fdopen(descriptor, "rb") as stream:
                self._send_document(path, stream, status, body=body)
            return
        try:
            self._send_folder(path, descriptor, body=body)
        finally:
            os.close(descriptor)

    def _send_document(self, path: bytes, stream: BinaryIO, status: os.stat_result, *, body: bool) -> None:
        self._headers(content_type(path), status.st_size, formatdate(status.st_mtime, usegmt=True))
        if body:
            shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def _send_folder(self, path: bytes, descriptor: int, *, body: bool) -> None:
        if not path.endswith(b"/"):
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", quote(b"/" + path.strip(b"/")) + "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        try:
            inner = self.documents.open(path + _INDEX)
        except OSError:
            page = listing(path, descriptor)
            self._headers("text/html; charset=utf-8", len(page), None)
            if body:
                self.wfile.write(page)
            return
        with os.fdopen(inner, "rb") as stream:
            self._send_document(_INDEX, stream, os.fstat(inner), body=body)

    def _headers(self, kind: str, size: int, changed: str | None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header(
            "Content-Security-Policy", "default-src 'self' 'unsafe-inline' data:; form-action 'none'"
        )
        if changed:
            self.send_header("Last-Modified", changed)
        self.end_headers()


def content_type(path: bytes) -> str:
    """By the name's ending; text is taken for UTF-8. A compressed file is what it is, not what is in it."""
    kind, packed = mimetypes.guess_type(os.fsdecode(path.rpartition(b"/")[2]))
    if packed or kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXT else kind


def listing(path: bytes, descriptor: int) -> bytes:
    """A folder as a page of links."""
    title = html.escape(os.fsencode(os.fsdecode(path)).decode("utf-8", "replace"))
    rows: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            slash = "/" if entry.is_dir(follow_symlinks=False) else ""
            name = os.fsencode(entry.name)
            shown = html.escape(name.decode("utf-8", "replace")) + slash
            rows.append(f'<li><a href="./{quote(name)}{slash}">{shown}</a></li>')
    up = "" if path.strip(b"/") == b"" else '<p><a href="../">../</a></p>'
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body><h1>{title}</h1>{up}<ul>\n" + "\n".join(rows) + "\n</ul></body></html>\n"
    )
    return page.encode("utf-8")


def serve(root: Path, port: int) -> ThreadingHTTPServer:
    """A server for `root` on 127.0.0.1, bound but not running yet; port 0 takes any."""
    documents = Documents(root)
    handler = type("DocumentsHandler", (Handler,), {"documents": documents})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


def main(arguments: list[str] | None = None) -> None:
    """Serve until told to end; the first line printed is the address."""
    parser = argparse.ArgumentParser(prog="exclave.runtimes.static_server")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args(arguments)
    server = serve(chosen.root, chosen.port)
    print(f"serving {chosen.root} on http://127.0.0.1:{server.server_address[1]}/", flush=True)  # noqa: T201 - its log
    server.serve_forever()


if __name__ == "__main__":
    main()
