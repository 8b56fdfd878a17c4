"""Gives a rebuilt entry its owner, attributes, mode and times, and counts what was not permitted."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from exclave.registers.files.owners import local_ids
from exclave.types import Gap

_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


@dataclass(frozen=True, slots=True)
class Look:
    """What an entry is to look like; `mtime` in nanoseconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: dict[bytes, bytes]


class Dresser:
    """Dresses entries below one place, whose new files are born with the owner, group and mask found at the start."""

    def __init__(self, top: int, owners: dict[str, dict[str, str]], *, keep_owners: bool) -> None:
        self._keep = keep_owners
        self._users, self._groups = local_ids(owners) if keep_owners else ({}, {})
        self._uid, self._gid, self._mask = _born(top)
        self._unowned = 0
        self._unset: dict[
            tuple[bytes, str], tuple[bytes, int]
        ] = {}  # (attribute, reason) -> first path, how many

    def birth_mode(self, mode: int) -> int:
        """The mode to create a file with: its own, if it then needs no other and nobody sees more than he may."""
        wanted = stat.S_IMODE(mode)
        return wanted if not wanted & (self._mask | _SPECIAL) else 0o600

    def file(self, descriptor: int, look: Look, born: int, path: bytes) -> None:
        """An open file or folder, created with mode `born` (-1: unknown)."""
        mode = self._owned(descriptor, look)
        if look.xattrs:
            self._set(descriptor, look.xattrs, path)
        if mode != born:
            os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(look.mtime, look.mtime))

    def entry(self, folder: int, name: bytes, look: Look, path: bytes) -> None:
        """An entry that cannot be opened: a link, a FIFO, a device."""
        mode = self._owned(name, look, folder)
        if look.xattrs:
            self._set(b"/proc/self/fd/%d/%s" % (folder, name), look.xattrs, path)
        if not stat.S_ISLNK(look.mode):
            os.chmod(
                name, mode, dir_fd=folder
            )  # in a folder of ours that nobody else may enter: no link in between
        os.utime(name, ns=(look.mtime, look.mtime), dir_fd=folder, follow_symlinks=False)

    def gaps(self) -> list[Gap]:
        """What was not permitted, once each, with a count."""
        found: list[Gap] = []
        if self._unowned:
            found.append(
                Gap(b"", f"{self._unowned} entries could not be given their owner: not running as root")
            )
        for (name, why), (path, count) in sorted(self._unset.items()):
            found.append(Gap(path, f"attribute {os.fsdecode(name)!r} was not set on {count} entries: {why}"))
        return found

    def _owned(self, place: int | bytes, look: Look, folder: int | None = None) -> int:
        """Give away as far as permitted; the mode that is safe then."""
        mode = stat.S_IMODE(look.mode)
        if not self._keep:
            return mode & ~(stat.S_ISUID | stat.S_ISGID)
        uid = self._users.get(look.uid, look.uid)
        gid = self._groups.get(look.gid, look.gid)
        if uid == self._uid and gid == self._gid:
            return mode
        if self._give(place, uid, gid, folder):
            return mode
        self._unowned += 1
        if uid != self._uid:
            mode &= ~stat.S_ISUID
        if gid != self._gid and not self._give(place, -1, gid, folder):
            mode &= ~stat.S_ISGID
        return mode

    @staticmethod
    def _give(place: int | bytes, uid: int, gid: int, folder: int | None) -> bool:
        try:
            os.chown(place, uid, gid, dir_fd=folder, follow_symlinks=folder is None)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL}:  # EINVAL: an id this container does not have
                raise
            return False
        return True

    def _set(self, place: int | bytes, xattrs: dict[bytes, bytes], path: bytes) -> None:
        for name, value in sorted(xattrs.items()):
            try:
                os.setxattr(place, name, value, follow_symlinks=isinstance(place, int))
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                    raise
                key = (name, error.strerror or "")
                first, count = self._unset.get(key, (path, 0))
                self._unset[key] = (first, count + 1)


def _born(top: int) -> tuple[int, int, int]:
    """Owner and group that new files get here, and the mode bits that they do not get."""
    name = ".born"
    descriptor = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o777, dir_fd=top
    )
    try:
        s = os.fstat(descriptor)
    finally:
        os.close(descriptor)
        os.unlink(name, dir_fd=top)
    return s.st_uid, s.st_gid, 0o777 & ~s.st_mode
