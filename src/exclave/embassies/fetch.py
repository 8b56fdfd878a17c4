"""Fetch: an object by name from the first embassy that has a good copy of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from exclave.crypto import hashing
from exclave.embassies.embassy import Embassy
from exclave.errors import ExclaveError, NotThere, Tampered, Unreachable
from exclave.types import ObjectId

AHEAD = 3  # objects of `get_many` in flight


@dataclass(frozen=True, slots=True)
class BadCopy:
    """A copy that is not what was written."""

    embassy: str
    path: str
    why: str


class Fetcher:
    """Safe to use from several threads. Bad copies met on the way are in `bad`.

    An embassy that does not answer is asked last from then on, so that it delays once and not at every object.
    """

    def __init__(self, embassies: Sequence[Embassy]) -> None:
        self._order = list(embassies)
        self._lock = threading.Lock()
        self.bad: list[BadCopy] = []

    def get(self, path: str, object_id: ObjectId, size: int) -> bytes:
        """The object: `size` bytes with that SHA-256. Raises NotThere, Tampered, Unreachable when nobody has it."""
        failures: list[tuple[str, ExclaveError]] = []
        for embassy in list(self._order):
            try:
                data = embassy.store.get(path, limit=size)
                why = _fault(data, object_id, size)
                if not why:
                    return data
                raise Tampered(
                    "object-damaged", f"{path} is damaged at {embassy.name}", why=why, hint="exclave verify"
                )
            except Tampered as error:
                with self._lock:
                    self.bad.append(BadCopy(embassy.name, path, error.why or error.what))
                failures.append((embassy.name, error))
            except Unreachable as error:
                self._ask_last(embassy)
                failures.append((embassy.name, error))
            except ExclaveError as error:
                failures.append((embassy.name, error))
        raise _nowhere(path, failures)

    def get_many(self, wanted: Iterable[tuple[str, ObjectId, int]]) -> Iterator[bytes]:
        """The objects (path, id, size) in their order, read a few ahead."""
        ahead: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")
        try:
            for path, object_id, size in wanted:
                ahead.append(pool.submit(self.get, path, object_id, size))
                if len(ahead) >= AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask_last(self, embassy: Embassy) -> None:
        with self._lock:
            self._order = [*(one for one in self._order if one is not embassy), embassy]


def _fault(data: bytes, object_id: ObjectId, size: int) -> str:
    if len(data) != size:
        return f"{len(data)} bytes instead of {size}"
    found = hashing.object_id(data)
    return "" if found == object_id else f"its SHA-256 is {found}"


def _nowhere(path: str, failures: list[tuple[str, ExclaveError]]) -> ExclaveError:
    """The error of whose move it is: an embassy that may still have it, else damage, else nobody has it."""
    why = "\n".join(f"{name}: {error}" for name, error in failures)
    kinds = [type(error) for _, error in failures]
    if any(not issubclass(kind, Tampered | NotThere) for kind in kinds):
        what = f"No embassy that answers has a good copy of {path}"
        return Unreachable("object-unreachable", what, why=why, hint="exclave doctor")
    if any(issubclass(kind, Tampered) for kind in kinds):
        return Tampered(
            "object-damaged", f"No embassy has a good copy of {path}", why=why, hint="exclave verify"
        )
    return NotThere("object-missing", f"No embassy has {path}", why=why, hint="exclave verify")
