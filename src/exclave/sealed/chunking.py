"""Cutting: where the chunks of captured content begin and end (docs/spec/store.md, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from pyfastcdc import FastCDC

from exclave.crypto import hashing
from exclave.errors import Misconfigured

MAX_CHUNK_BYTES = 1 << 20
WHOLE_BYTES = 1 << 20  # files up to this size are one chunk
MIN_CUT_BYTES, AVERAGE_CUT_BYTES = 64 << 10, 256 << 10
EXTENT_BYTES = 1 << 20


class ContentCutter:
    """Cuts long files by their content, so that an insertion moves no more than the chunks around it.

    FastCDC with 64 KiB / 256 KiB / 1 MiB. The seed comes from the id key; what really hides chunk lengths from a
    host is that frames and fixed size classes cover them.
    """

    def __init__(self, id_key: bytes) -> None:
        """Raises Misconfigured when the library's compiled module is missing: it would fall back to slow Python."""
        if not FastCDC.__module__.startswith("pyfastcdc.cy"):
            raise Misconfigured(
                "cutter-not-compiled",
                "The library that cuts files by content came without its compiled part",
                why=f"{FastCDC.__module__} would be hundreds of times slower",
                hint="pip install --force-reinstall pyfastcdc   # as a wheel for this platform",
            )
        # The library shifts its seed left once: 63 bits at most.
        seed = int.from_bytes(hashing.derive(id_key, "exclave/content-cutting/v1")[:8], "big") >> 1
        self._cutter = FastCDC(AVERAGE_CUT_BYTES, min_size=MIN_CUT_BYTES, max_size=MAX_CHUNK_BYTES, seed=seed)

    def cut(self, data: memoryview, *, last: bool) -> Sequence[int]:
        """Ends of the chunks in `data`, which begins at a cut.

        Unless `last`, a chunk that only ended because the data did is left out: keep its bytes and cut them
        again with what follows.
        """
        ends: list[int] = []
        end = 0
        for chunk in self._cutter.cut_buf(data):
            end += chunk.length
            ends.append(end)
        if not last and ends and end - (ends[-2] if len(ends) > 1 else 0) < MAX_CHUNK_BYTES:
            ends.pop()
        return ends
