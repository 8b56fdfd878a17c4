"""Frames of slots: how chunks (or records) lie in the plaintext of a container (docs/spec/store.md, section 3.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from exclave.errors import Tampered
from exclave.sealed.container import size_class
from exclave.types import Buffer

MAX_FRAMES = 1 << 20
MAX_SLOTS = (
    1 << 20
) - 1  # one less than a reference has room for: runs never seem to cross from pack to pack
MAX_FRAME_BYTES = 64 << 20
_TOC_HEAD = struct.Struct("<II")
_TRAILER = struct.Struct(">II")


class Packer:
    """Fills one plaintext buffer with frames. Feed with `add`, call `settle` before added memory is reused.

    A chunk's slot is known as soon as it is added. New chunks gather in a pending frame of `frame_bytes`, so that
    small ones are compressed together.
    """

    def __init__(self, plain: bytearray, frame_bytes: int, level: int = 1) -> None:
        self._plain = memoryview(plain)
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._frame_bytes = frame_bytes
        self.reset()

    def reset(self, plain: bytearray | None = None) -> None:
        """Begin the next pack, in another buffer if one is given."""
        if plain is not None:
            self._plain = memoryview(plain)
        self._position = 0
        self._frames: list[tuple[int, int, int, int]] = []
        self._slots: list[int] = []
        self._framed = 0  # slots that already lie in a finished frame
        self._pending: list[Buffer] = []
        self._pending_bytes = 0

    @property
    def slots(self) -> int:
        """How many slots are taken."""
        return len(self._slots)

    def fits(self, size: int) -> bool:
        """Whether a chunk of `size` bytes fits even if nothing compresses; may finish the pending frame to find out."""
        if self._room() >= size:
            return len(self._slots) < MAX_SLOTS
        self._finish_frame()
        return self._room() >= size and len(self._slots) < MAX_SLOTS

    def add(self, chunk: Buffer) -> int:
        """Take a chunk that `fits`; its slot. The memory must stay as it is until `settle`."""
        size = len(chunk)
        if self._pending_bytes and self._pending_bytes + size > self._frame_bytes:
            self._finish_frame()
        self._pending.append(chunk)
        self._pending_bytes += size
        self._slots.append(size)
        return len(self._slots) - 1

    def settle(self) -> None:
        """Copy what is pending, so that the memory it came in can be reused."""
        if self._pending:
            self._pending = [b"".join(self._pending)]

    def close(self) -> int:
        """Finish: table of contents written; the plaintext is the buffer's first so many bytes (a size class)."""
        self._finish_frame()
        frames = np.array(self._frames, dtype="<u4").reshape(-1, 4).T
        raw = _TOC_HEAD.pack(len(self._frames), len(self._slots)) + np.ascontiguousarray(frames).tobytes()
        raw += np.array(self._slots, dtype="<u4").tobytes()
        table = self._compressor.compress(raw)
        if len(table) >= len(raw):
            table = raw
        size = size_class(self._position + len(table) + _TRAILER.size)
        start = size - _TRAILER.size - len(table)
        self._plain[self._position : start] = bytes(start - self._position)
        self._plain[start : start + len(table)] = table
        _TRAILER.pack_into(self._plain, size - _TRAILER.size, len(table), len(raw))
        return size

    def _room(self) -> int:
        table = 64 + 16 * (len(self._frames) + 2) + 4 * (len(self._slots) + 1)
        return len(self._plain) - self._position - self._pending_bytes - table

    def _finish_frame(self) -> None:
        if not self._pending:
            return
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        stored: Buffer = self._compressor.compress(data)
        if len(stored) >= len(data):
            stored = data
        end = self._position + len(stored)
        self._plain[self._position : end] = stored
        self._frames.append((self._position, len(stored), len(data), self._framed))
        self._position = end
        self._pending, self._pending_bytes = [], 0
        self._framed = len(self._slots)


@dataclass(frozen=True, slots=True)
class Contents:
    """The table of contents of a plaintext: per frame offset, stored and raw length, first slot; per slot length."""

    frames: NDArray[np.int64]  # shape (F, 4)
    slots: NDArray[np.int64]  # shape (S,)
    starts: NDArray[np.int64]  # shape (S,): where in its raw frame each slot begins
    firsts: NDArray[np.int64]  # shape (F,): first slot of each frame

    def slots_of(self, frame: int) -> tuple[int, int]:
        """First slot of a frame and the first one after it."""
        after = int(self.firsts[frame + 1]) if frame + 1 < len(self.firsts) else len(self.slots)
        return int(self.firsts[frame]), after


def read_contents(plain: memoryview) -> Contents:
    """The table of contents of a plaintext. Raises Tampered unless every bound in it holds."""
    if len(plain) < _TRAILER.size:
        raise _bad("too short")
    stored, raw = _TRAILER.unpack_from(plain, len(plain) - _TRAILER.size)
    start = len(plain) - _TRAILER.size - stored
    if start < 0 or raw > _TOC_HEAD.size + 16 * MAX_FRAMES + 4 * (MAX_SLOTS + 1) or stored > raw:
        raise _bad("an impossible table of contents")
    table = bytes(plain[start : start + stored])
    if stored != raw:
        table = decompress(table, raw)
    if raw < _TOC_HEAD.size:
        raise _bad("a table of contents that is too short")
    frames_count, slots_count = _TOC_HEAD.unpack_from(table)
    if frames_count > MAX_FRAMES or slots_count > MAX_SLOTS or raw != 8 + 16 * frames_count + 4 * slots_count:
        raise _bad("a table of contents of another size than it says")
    columns = np.frombuffer(table, dtype="<u4", offset=_TOC_HEAD.size).astype(np.int64)
    frames = columns[: 4 * frames_count].reshape(4, frames_count).T
    slots = columns[4 * frames_count :]
    _check_bounds(frames, slots, start)
    ends = np.cumsum(slots)
    firsts = np.ascontiguousarray(frames[:, 3])
    before = np.concatenate([np.zeros(1, np.int64), ends])[firsts] if frames_count else np.zeros(0, np.int64)
    counts = np.diff(np.append(firsts, slots_count))
    starts = ends - slots - np.repeat(before, counts)
    return Contents(frames, slots, starts, firsts)


def read_frame(plain: memoryview, contents: Contents, frame: int) -> memoryview:
    """The raw bytes of one frame. Raises Tampered."""
    offset, stored, raw, _ = (int(value) for value in contents.frames[frame])
    data = plain[offset : offset + stored]
    return data if stored == raw else memoryview(decompress(data, raw))


def decompress(data: Buffer, raw: int) -> bytes:
    """One zstd frame that holds exactly `raw` bytes. Raises Tampered; never allocates more than `raw`."""
    try:
        parameters = zstandard.get_frame_parameters(data)
        if parameters.content_size != raw:
            raise _bad("a compressed frame of another size than it says")
        plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw)
    except zstandard.ZstdError as error:
        raise _bad("a compressed frame is broken") from error
    if len(plain) != raw:
        raise _bad("a compressed frame of another size than it says")
    return plain


def _check_bounds(frames: NDArray[np.int64], slots: NDArray[np.int64], limit: int) -> None:
    """Frames lie before the table, hold at most 64 MiB raw, take all slots in order, and are filled by them."""
    if not len(frames):
        if len(slots):
            raise _bad("slots without a frame")
        return
    offset, stored, raw, first = frames.T
    if (offset + stored > limit).any() or (raw > MAX_FRAME_BYTES).any() or (stored > raw).any():
        raise _bad("a frame outside of its object")
    if first[0] != 0 or (np.diff(first) <= 0).any() or first[-1] >= len(slots):
        raise _bad("frames out of order")
    if (np.add.reduceat(slots, first) != raw).any():
        raise _bad("a frame that its slots do not fill")


def _bad(why: str) -> Tampered:
    return Tampered(
        "object-malformed", "The inside of a sealed object is malformed", why=why, hint="exclave verify"
    )
