"""The folders of a tree being rebuilt: numbered, found by path, opened without ever following a link."""

from __future__ import annotations

import os
from collections import OrderedDict

from exclave.registers.files.walking import FOLDER_FLAGS, join

_KEPT_OPEN = 64  # descriptors


class Places:
    """Only folders made here can be found, so a path is never taken apart or trusted. Number 0 is the top."""

    def __init__(self, top: int) -> None:
        self._numbers: dict[bytes, int] = {b"": 0}
        self._parents = [-1]
        self._names = [b""]
        self._top = top
        self._open: OrderedDict[int, int] = OrderedDict()  # number -> descriptor, least recently used first

    def __len__(self) -> int:
        return len(self._names)

    def find(self, path: bytes) -> int | None:
        """The number of a folder made before."""
        return self._numbers.get(path)

    def make(self, parent: int, path: bytes, name: bytes) -> int:
        """Create folder `name`, closed to others until the end. Raises OSError."""
        os.mkdir(name, 0o700, dir_fd=self.open(parent))
        number = len(self._names)
        self._numbers[join(path, name)] = number
        self._parents.append(parent)
        self._names.append(name)
        return number

    def path(self, number: int) -> bytes:
        """The path from the top."""
        names: list[bytes] = []
        while number:
            names.append(self._names[number])
            number = self._parents[number]
        return b"/".join(reversed(names))

    def open(self, number: int) -> int:
        """A descriptor, valid until 64 other folders have been opened. Raises OSError."""
        if not number:
            return self._top
        descriptor = self._open.get(number)
        if descriptor is not None:
            self._open.move_to_end(number)
            return descriptor
        chain = [number]
        while (above := self._parents[chain[-1]]) and above not in self._open:
            chain.append(above)
        descriptor = self._open[above] if above else self._top
        for each in reversed(chain):
            descriptor = os.open(self._names[each], FOLDER_FLAGS, dir_fd=descriptor)
            self._open[each] = descriptor
            if len(self._open) > _KEPT_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Close all but the top."""
        while self._open:
            os.close(self._open.popitem()[1])
