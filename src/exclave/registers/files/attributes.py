"""What stat does not tell of an entry: extended attributes, the data of a sparse file, pseudo file systems."""

from __future__ import annotations

import errno
import os
from pathlib import Path

MAX_EXTENTS = 65_536  # of one sparse file; what follows is taken as data, so that a listing stays small

_NO_XATTRS = {errno.ENOTSUP, errno.ENOSYS, errno.EPERM}
_PSEUDO = frozenset(
    {
        "autofs",
        "binder",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "efivarfs",
        "functionfs",
        "fuse.gvfsd-fuse",
        "fuse.lxcfs",
        "fusectl",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
    }
)


class Attributes:
    """Reads extended attributes, and remembers which file systems have none."""

    def __init__(self) -> None:
        self._without: set[int] = set()  # devices
        self._pseudo: dict[int, str] | None = None

    def supported(self, device: int) -> bool:
        """False once a file system has said that it has no extended attributes."""
        return device not in self._without

    def read(self, place: int | bytes, device: int) -> dict[bytes, bytes]:
        """All attributes that this process may read, ACLs among them; of the link itself where `place` is a path.

        Raises OSError when the entry itself is the trouble.
        """
        follow = isinstance(place, int)
        try:
            names = os.listxattr(place, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
            self._without.add(device)
            return {}
        found: dict[bytes, bytes] = {}
        for name in names:
            try:
                found[os.fsencode(name)] = os.getxattr(place, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in {errno.ENODATA, errno.ENOTSUP}:  # removed meanwhile; not for reading
                    raise
        return found

    def pseudo(self, device: int) -> str:
        """The type of a file system that the kernel makes up (/proc and its like), or an empty string."""
        if self._pseudo is None:
            self._pseudo = pseudo_devices()
        return self._pseudo.get(device, "")


def pseudo_devices() -> dict[int, str]:
    """Device number -> type, of mounted file systems that have no content of their own."""
    found: dict[int, str] = {}
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        kind = after.split(b" ", 1)[0].decode("ascii", "replace")
        if kind in _PSEUDO:
            major, _, minor = before.split(b" ")[2].partition(b":")
            found[os.makedev(int(major), int(minor))] = kind
    return found


def by_name(folder: int, name: bytes) -> bytes:
    """A path to an entry that cannot be opened (a link, a FIFO...), for calls that take no folder descriptor."""
    return b"/proc/self/fd/%d/%s" % (folder, name)


def data_extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the data of a sparse file, ascending, below `size`."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole until the end
                break
            if error.errno == errno.EINVAL:  # this file system does not tell
                return [(0, size)]
            raise
        if begin >= size:
            break
        end = size if len(found) == MAX_EXTENTS - 1 else min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        found.append((begin, end - begin))
        at = end
    return found
