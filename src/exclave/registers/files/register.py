"""A tree of files on this machine, as a register."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from exclave.errors import ExclaveError
from exclave.registers.base import Finding, Prior, Told
from exclave.registers.files import excluding
from exclave.registers.files.attributes import pseudo_devices
from exclave.registers.files.capture import FilesCapture, open_root
from exclave.registers.slabs import SlabPool

_HINT_ENTRIES = 20_000  # a guess at the size looks at no more than this


class FilesRegister:
    """Everything below `root`: files, folders, links, devices, attributes. `exclude`: see `excluding.rule`."""

    def __init__(self, root: Path, *, exclude: tuple[str, ...] = ()) -> None:
        self._root = root
        self._exclude = exclude

    @property
    def kind(self) -> str:
        """Always `files`."""
        return "files"

    @contextmanager
    def capture(self, prior: Prior, slabs: SlabPool, told: Told) -> Generator[FilesCapture]:
        """A walk of the live tree: every file is whole, the tree as a whole is not frozen."""
        capture = FilesCapture(self._root, excluding.rule(self._exclude), prior, slabs, told)
        try:
            yield capture
        finally:
            capture.close()

    def size_hint(self) -> int:
        """Exact for small trees; what is used of the file system when the root is a mount point; else 0."""
        try:
            if os.path.ismount(self._root):
                s = os.statvfs(self._root)
                return (s.f_blocks - s.f_bfree) * s.f_frsize
            return self._sum()
        except OSError:
            return 0

    def doctor(self) -> list[Finding]:
        """Whether the root is a folder with content, and whether everything in it may be read."""
        try:
            descriptor = open_root(self._root)
        except ExclaveError as error:
            return [Finding(error.id, "fail", str(error), f"exclave explain {error.id}")]
        try:
            device = os.fstat(descriptor).st_dev
            entries = len(os.listdir(descriptor))
        except OSError as error:
            hint = "exclave explain files-root-unreachable"
            return [Finding("files-root-unreachable", "fail", f"{self._root}: {error.strerror}", hint)]
        finally:
            os.close(descriptor)
        if not Path("/proc/self/mountinfo").exists():
            hint = "mount -t proc proc /proc"
            return [Finding("files-no-proc", "fail", "/proc is needed and not mounted", hint)]
        if device in pseudo_devices():
            hint = "exclave config show --effective"
            return [Finding("files-root-pseudo", "fail", f"{self._root} has no content to keep", hint)]
        found = [Finding("files-root", "ok", f"{self._root}: {entries} entries")]
        if not entries:
            hint = "exclave explain files-root-empty"
            found.append(Finding("files-root-empty", "warn", f"{self._root} is empty: not mounted?", hint))
        if os.geteuid() != 0:
            text = "not running as root: what other users keep to themselves would be told as gaps"
            found.append(Finding("files-not-root", "ok", text))
        return found

    def _sum(self) -> int:
        total, looked_at = 0, 0
        folders = [os.fsencode(self._root)]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    looked_at += 1
                    if looked_at > _HINT_ENTRIES:
                        return 0
                    s = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(s.st_mode):
                        total += s.st_size
                    elif stat.S_ISDIR(s.st_mode):
                        folders.append(entry.path)
        return total
