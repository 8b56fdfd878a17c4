"""A stream of packs: places new chunks one after the other and hands over each pack's plaintext when it is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exclave.sealed.packing import Packer
from exclave.types import Buffer

SLOT_BITS = 20
FRAME_BYTES = 512 << 10
PACK_BYTES = 16 << 20  # plaintext of a full pack; a size class


@dataclass(frozen=True, slots=True)
class Filled:
    """A finished plaintext: its first `size` bytes count; `ids` are its chunks' ids in slot order."""

    number: int
    plain: bytearray
    size: int
    ids: bytes


class PackStream:
    """Gives every new chunk its reference at once; packs are sealed later, elsewhere."""

    def __init__(
        self,
        *,
        first_number: int,
        take_buffer: Callable[[], bytearray],
        hand_over: Callable[[Filled], None],
        frame_bytes: int = FRAME_BYTES,
        level: int = 1,
    ) -> None:
        self._number = first_number
        self._take_buffer = take_buffer
        self._hand_over = hand_over
        self._frame_bytes = frame_bytes
        self._level = level
        self._plain: bytearray | None = None
        self._packer: Packer | None = None
        self._ids: list[bytes] = []

    def place(self, chunk: Buffer, chunk_id: bytes = b"") -> int:
        """The reference of a new chunk (or record; those have no id). Its memory must stay until `settle`.

        Raises ValueError when it is longer than a whole pack.
        """
        packer = self._packer
        if packer is None or not packer.fits(len(chunk)):
            packer = self._next_pack()
            if not packer.fits(len(chunk)):
                raise ValueError("a chunk that does not fit into an empty pack")
        slot = packer.add(chunk)
        self._ids.append(chunk_id)
        return self._number << SLOT_BITS | slot

    def settle(self) -> None:
        """The memory that chunks came in is about to be reused."""
        if self._packer is not None:
            self._packer.settle()

    def finish(self) -> None:
        """Hand over the last pack, if it holds anything."""
        self._close()

    def _next_pack(self) -> Packer:
        self._close()
        self._plain = self._take_buffer()
        if self._packer is None:
            self._packer = Packer(self._plain, self._frame_bytes, self._level)
        else:
            self._packer.reset(self._plain)
        return self._packer

    def _close(self) -> None:
        if self._packer is None or self._plain is None:
            return
        size = self._packer.close()
        ids = b"".join(self._ids)
        plain, self._plain = self._plain, None
        self._hand_over(Filled(self._number, plain, size, ids))
        self._number += 1
        self._ids = []
