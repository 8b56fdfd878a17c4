"""Store in a directory: every object is a file, on disk before it has a name.

An object is written to a nameless-to-readers file in `~incoming` (no object can be called that), fsynced, and
then hard-linked to its name, which fails if the name exists: create-only, and never half visible. Then its folder
is fsynced. What a crash leaves in `~incoming` is swept by the next writer; a lock tells it from work in progress.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from exclave.errors import ExclaveError, Misconfigured, Tampered, Unreachable
from exclave.printable import printable
from exclave.stores import naming, refusals
from exclave.stores.base import Listed
from exclave.stores.bounded import too_many
from exclave.types import Buffer

INCOMING = "~incoming"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO in our place must not hang us
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_OURS = frozenset({INCOMING, "lost+found"})  # at the top: our own work, and every fresh ext4's
_COMPARE_BYTES = 1 << 20


class DirectoryStore:
    """Objects under `root`, which must exist: a folder *inside* a mounted disk shows that the disk is there.

    Symbolic links below `root` are never followed; what is not a plain file or folder is never read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: set[tuple[str, ...]] = set()  # folders whose own entry was made durable
        self._swept = False

    @staticmethod
    def prepare(root: Path) -> None:
        """Make the folder of a new store, durably. Raises Unreachable, Misconfigured. May be repeated."""
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
        with _told(f"{root} cannot be made"):
            root.mkdir(parents=True, exist_ok=True)
            for folder in made:
                parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(parent)
                finally:
                    os.close(parent)

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        *folders, last = naming.parts(name)
        with _told(f"{name} was not stored"):
            home = self._open_folder(folders, make=True)
            try:
                view = memoryview(data).cast("B")
                held = self._same(name, home, last, view) or self._create(home, last, view)
                if not held and not self._same(name, home, last, view):
                    raise OSError(errno.ENOENT, "somebody removes what is written here")
                os.fsync(home)
            finally:
                os.close(home)

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`."""
        with self._reading(name) as (file, size):
            if size > limit:
                raise refusals.too_long(name, size, limit)
            return _read(file, 0, size, name)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        with self._reading(name) as (file, size):
            if start + length > size:
                raise refusals.too_short(name, size, start + length)
            return _read(file, start, length, name)

    def size(self, name: str) -> int:
        """See `Store.size`."""
        with self._reading(name) as (_, size):
            return size

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        folders = naming.folder(prefix)
        with _told(f"{self._root} cannot be listed"):
            try:
                top = self._open_folder(folders, make=False)
            except FileNotFoundError:
                return
            yield from _walk(top, prefix, after)

    def strangers(self) -> Iterator[str]:
        """What lies here and can be no object: links, devices, names outside the alphabet (paths, printable)."""
        os.close(self._open_root())
        with _told(f"{self._root} cannot be listed"):
            count = 0
            for where, folders, files in os.walk(self._root, onerror=_raise):
                at = os.path.relpath(where, self._root)
                inside = "" if at == "." else f"{at}/"
                if not inside:
                    folders[:] = [name for name in folders if name not in _NOT_OURS]
                count += len(folders) + len(files)
                too_many(count)
                for name in sorted([*folders, *files]):
                    mode = os.lstat(os.path.join(where, name)).st_mode
                    fits = naming.is_part(name) and len(inside) + len(name) <= naming.MAX_NAME
                    if not fits or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                        yield printable(inside + name)

    def _open_root(self) -> int:
        try:
            return os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            why = "the folder is not there; is its disk mounted?"
            raise Unreachable(
                "store-missing", f"{self._root} is gone", why=why, hint="exclave doctor"
            ) from error

    def _open_folder(self, folders: Sequence[str], *, make: bool) -> int:
        """A descriptor of a folder below the root, reached without following links."""
        here = self._open_root()
        try:
            for depth, part in enumerate(folders, 1):
                made = make and _make_folder(here, part)
                inner = os.open(part, _FOLDER, dir_fd=here)
                path = tuple(folders[:depth])
                if make and (made or path not in self._known):
                    # Also for a folder found: whoever made it may have died before it was durable.
                    os.fsync(here)
                    self._known.add(path)
                os.close(here)
                here = inner
        except BaseException:
            os.close(here)
            raise
        return here

    def _create(self, home: int, last: str, view: memoryview) -> bool:
        """Write and link; False when the name was taken in the meantime."""
        top = self._open_root()
        try:
            _make_folder(top, INCOMING)
            incoming = os.open(INCOMING, _FOLDER, dir_fd=top)
        finally:
            os.close(top)
        try:
            if not self._swept:
                _sweep(incoming)
                self._swept = True
            name, file = _begin(incoming)
            try:
                _write(file, view)
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.link(name, last, src_dir_fd=incoming, dst_dir_fd=home, follow_symlinks=False)
            except FileExistsError:
                return False
            else:
                return True
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=incoming)
                os.close(file)
        finally:
            os.close(incoming)

    def _same(self, name: str, home: int, last: str, view: memoryview) -> bool:
        """Whether the object is there with these bytes, and durable. Raises Refused for other bytes."""
        try:
            file = os.open(last, _READ, dir_fd=home)
        except FileNotFoundError:
            return False
        try:
            size = _plain_size(file, name)
            if size != len(view):
                raise refusals.conflict(name)
            for start in range(0, size, _COMPARE_BYTES):
                piece = view[start : start + _COMPARE_BYTES]
                if memoryview(_read(file, start, len(piece), name)) != piece:
                    raise refusals.conflict(name)
            os.fsync(file)
            return True
        finally:
            os.close(file)

    @contextmanager
    def _reading(self, name: str) -> Generator[tuple[int, int]]:
        """Descriptor and size of an object."""
        *folders, last = naming.parts(name)
        with _told(f"{name} cannot be read"):
            try:
                home = self._open_folder(folders, make=False)
                try:
                    file = os.open(last, _READ, dir_fd=home)
                finally:
                    os.close(home)
            except FileNotFoundError as error:
                raise refusals.missing(name) from error
            try:
                yield file, _plain_size(file, name)
            finally:
                os.close(file)


def _make_folder(parent: int, part: str) -> bool:
    try:
        os.mkdir(part, 0o755, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _begin(incoming: int) -> tuple[str, int]:
    """A new locked file. The lock says that its writer lives; a sweep between making and locking takes it away."""
    while True:
        name = secrets.token_hex(16)
        file = os.open(name, _CREATE, 0o444, dir_fd=incoming)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return name, file
        os.close(file)


def _sweep(incoming: int) -> None:
    """Remove what dead writers left. Whatever is locked is somebody's work; whatever resists is left alone."""
    for name in os.listdir(incoming):
        with suppress(OSError):
            file = os.open(name, _READ, dir_fd=incoming)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=incoming)
            finally:
                os.close(file)


def _write(file: int, view: memoryview) -> None:
    while view:
        view = view[os.write(file, view) :]


def _read(file: int, start: int, length: int, name: str) -> bytes:
    pieces: list[bytes] = []
    while length:
        piece = os.pread(file, length, start)
        if not piece:
            raise refusals.too_short(name, start, start + length)
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _plain_size(file: int, name: str) -> int:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise _swapped(name)
    return found.st_size


def _walk(here: int, inside: str, after: str) -> Iterator[Listed]:
    """Files below a folder, whose descriptor is closed at the end; a folder sorts as its name with the slash."""
    try:
        rows: list[tuple[str, bool]] = []
        with os.scandir(here) as entries:
            for count, entry in enumerate(entries, 1):
                too_many(count)
                if not naming.is_part(entry.name):
                    continue
                folder = entry.is_dir(follow_symlinks=False)
                path = f"{inside}{entry.name}/" if folder else inside + entry.name
                if len(path) <= naming.MAX_NAME and (path > after or (folder and after.startswith(path))):
                    rows.append((path, folder))
        rows.sort()
        for path, folder in rows:
            with suppress(FileNotFoundError):
                part = path[len(inside) :].rstrip("/")
                if folder:
                    yield from _walk(os.open(part, _FOLDER, dir_fd=here), path, after)
                    continue
                found = os.stat(part, dir_fd=here, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield Listed(path, found.st_size)
    finally:
        os.close(here)


@contextmanager
def _told(what: str) -> Generator[None]:
    """What the operating system says, in our words."""
    try:
        yield
    except OSError as error:
        raise _translated(error, what) from error


def _translated(error: OSError, what: str) -> ExclaveError:
    why = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return refusals.full(what, why)
    if error.errno in {errno.EACCES, errno.EROFS}:
        return refusals.forbidden(what, why)
    if error.errno in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}:
        why = f"this file system does not let us link files or write them ({why})"
        return Misconfigured(
            "store-unfit", what, why=why, hint="use a folder on ext4, XFS, btrfs, ZFS or NFS"
        )
    if error.errno in {errno.ENOTDIR, errno.ELOOP, errno.EISDIR}:
        return _swapped(what)
    return refusals.unreachable(what, why)


def _swapped(what: str) -> Tampered:
    why = "a link, a file or a folder lies where another kind of thing was stored"
    return Tampered("store-swapped", what, why=why, hint="exclave verify")


def _raise(error: OSError) -> None:
    raise error
