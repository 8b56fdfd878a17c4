"""The sealing line: filled plaintexts go in, sealed objects reach every embassy, buffers come back. One thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from exclave.embassies.fanout import Fanout
from exclave.errors import ExclaveError
from exclave.sealed import container, names
from exclave.sealed.commits import Pack, Part
from exclave.sealed.keys import WriteKeys
from exclave.sealed.packstream import PACK_BYTES, Filled
from exclave.sealed.sealing import Sealer
from exclave.session import Pending, Session

PLAIN_BUFFERS = 2
OBJECT_BUFFERS = 3
_PATHS = {container.MANIFEST: names.manifest, container.INDEX: names.index, container.PACK: names.pack}


class SealingLine:
    """Seals in a thread of its own while the next pack fills. Memory: five and the spare buffers of a pack's size."""

    def __init__(
        self, keys: WriteKeys, boot_id: bytes, fanout: Fanout, session: Session, *, spare_buffers: int
    ) -> None:
        self._keys = keys
        self._sealer = Sealer(keys, boot_id)
        self._fanout = fanout
        self._session = session
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._work: list[Future[None]] = []
        self._plains: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        self._objects: queue.SimpleQueue[bytearray | None] = queue.SimpleQueue()
        for _ in range(PLAIN_BUFFERS):
            self._plains.put(None)
        for _ in range(OBJECT_BUFFERS + spare_buffers):
            self._objects.put(None)
        self._noting = threading.Lock()
        self._unnoted: ExclaveError | None = None
        self.packs: list[Pending] = []
        self.parts: dict[int, list[Part]] = {container.MANIFEST: [], container.INDEX: []}
        self.sealed_bytes = 0

    def take_buffer(self) -> bytearray:
        """A buffer for the next plaintext; waits while all are being sealed. Raises what sealing raised."""
        self._raise_failures()
        return self._plains.get() or bytearray(PACK_BYTES)

    def pack(self, filled: Filled) -> None:
        """Seal and send a pack."""
        self._submit(container.PACK, filled, filled.number)

    def part(self, kind: int, sequence: int) -> Callable[[Filled], None]:
        """A receiver for the plaintexts of manifest or index parts of a commit."""
        return lambda filled: self._submit(kind, filled, sequence)

    def flush(self) -> None:
        """Wait until everything handed in so far is sealed and given to the embassies' queues."""
        for future in self._work:
            future.result()
        self._work.clear()
        self._raise_failures()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, kind: int, filled: Filled, number: int) -> None:
        self._work = [future for future in self._work if not future.done() or future.exception()]
        self._work.append(self._pool.submit(self._seal, kind, filled, number))

    def _seal(self, kind: int, filled: Filled, number: int) -> None:
        try:
            buffer = self._objects.get() or bytearray()
            wanted = self._sealer.object_bytes(kind, filled.size)
            if len(buffer) < wanted:
                buffer = bytearray(max(wanted, self._sealer.object_bytes(kind, len(filled.plain))))
            sealed = self._sealer.seal(
                kind, number, memoryview(filled.plain)[: filled.size], memoryview(buffer)
            )
        finally:
            self._plains.put(filled.plain)
        self.sealed_bytes += len(sealed.data)
        path = _PATHS[kind](self._keys.register, self._keys.epoch, sealed.id)
        if kind == container.PACK:
            pending = Pending(Pack(sealed.id, number, len(sealed.data)), filled.ids)
            self.packs.append(pending)
            self._fanout.put(path, sealed.data, lambda: self._sent(buffer, pending))
        else:
            self.parts[kind].append(Part(sealed.id, len(sealed.data)))
            self._fanout.put(path, sealed.data, lambda: self._objects.put(buffer))

    def _sent(self, buffer: bytearray, pending: Pending) -> None:
        self._objects.put(buffer)
        try:
            with self._noting:
                self._session.note(self._keys.epoch, pending)
        except ExclaveError as error:
            self._unnoted = error  # this is an embassy's thread, which must go on: our caller raises it

    def _raise_failures(self) -> None:
        if self._unnoted is not None:
            raise self._unnoted
        for future in self._work:
            if future.done() and future.exception():
                future.result()
