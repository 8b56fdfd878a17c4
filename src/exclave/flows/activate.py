"""Activate: registers restored from what the embassies hold, checked, and started where home cannot be reached.

For each register of the approved request: choose the snapshot, restore it, let its own kind check it, start what
serves it, write down what runs. The record is written before each start and after it, so that all that was started
can be stopped whatever happens next. What an interrupted run had restored in part is removed and begun anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from exclave.custody.request import Request, Wanted
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.fetch import Fetcher
from exclave.flows import activation_record as records
from exclave.flows import unfinished
from exclave.flows.activation_record import SECOND, Activation, Served
from exclave.flows.choosing import choose
from exclave.flows.papers import Papers
from exclave.flows.restore import Restored, restore
from exclave.flows.told import Told
from exclave.registers.base import Finding, Rebuilder
from exclave.runtimes.base import Runtime, Service, log_of
from exclave.sealed.keys import Opener
from exclave.types import Instant


class Session(Opener, Protocol):
    """An opener that says which request it was opened for: the keyholder's client."""

    @property
    def request(self) -> Request:
        """What a quorum approved."""
        ...


@dataclass(frozen=True, slots=True)
class Ground:
    """Where and with what an embassy brings registers up."""

    place: Path
    rebuilders: Mapping[str, Rebuilder]  # a kind without one is usable as it was restored
    runtimes: Mapping[str, Runtime]  # a kind without one is laid out and checked, not served
    records: Path
    keep_owners: bool


def activate(
    session: Session,
    papers: Papers,
    embassies: Sequence[Embassy],
    ground: Ground,
    *,
    began: Instant,
    dark_since: Instant | None,
    custodians: tuple[str, ...],
    told: Callable[[str], Told],
) -> Activation:
    """Bring up every register of the session's request; `told` gives a progress display for each name.

    Not for two at once on the same ground. `began` is when the command was given: the time to recover counts from
    there. Raises Refused("place-taken") when something is already where a register would go, and what restoring and
    starting raise.
    """
    request = session.request
    places = {wanted: ground.place / papers.annex.registers[wanted.register] for wanted in request.registers}
    for place in places.values():
        log_of(ground.place, place.name)  # refuses what is no plain file name: nothing is written elsewhere
        unfinished.refuse_taken(place)
    activation = Activation(request.hash, request.reason, custodians, began, dark_since, None, ())
    ground.place.mkdir(parents=True, exist_ok=True)
    answering = list(embassies)
    for wanted, place in places.items():
        watch = _Watch(began, told(place.name))
        watch.phase("find the snapshot")
        writer = papers.charter.epoch(wanted.register, wanted.epoch).writer
        history = inspect.history(answering, wanted.register, writer)
        # A dark embassy costs its time-outs once, not at every register and object.
        answering = [one for one in answering if one.name not in history.unreachable]
        commit = choose(history.commits, wanted, request)
        with unfinished.marked(place):
            restored = restore(
                commit,
                fetcher=Fetcher(answering),
                opener=session,
                place=place,
                keep_owners=ground.keep_owners,
                rebuilder=None,  # its kind is known only now, from inside the sealed manifest
                told=watch,
            )
            watch.phase("check")
            rebuilder = ground.rebuilders.get(restored.kind)
            checks = rebuilder.finish(place, restored.environment).checks if rebuilder else []
        served = _served(wanted, restored, checks)
        runtime = ground.runtimes.get(restored.kind)
        if runtime is not None:
            records.save(ground.records, _with(activation, replace(served, service=place.name)))
            served = _start(served, runtime, restored, watch)
        phases, ready_seconds = watch.end()
        activation = _with(activation, replace(served, phases=phases, ready_seconds=ready_seconds))
        records.save(ground.records, activation)
    return activation


def end(
    activation: Activation, runtimes: Mapping[str, Runtime], services: Sequence[Service], ground: Path
) -> Activation:
    """Stop everything that the activation started; what was restored stays where it is."""
    started = {served.service: served.kind for served in activation.registers if served.service}
    for service in services:
        if service.name in started:
            runtimes[started[service.name]].stop(service)
    ended = replace(activation, ended=Instant(time.time_ns()))
    records.save(ground, ended)
    return ended


class _Watch:
    """Passes progress on and keeps the seconds of each phase."""

    def __init__(self, began: Instant, told: Told) -> None:
        self._began, self._told = began, told
        self._phases: dict[str, float] = {}
        self._name, self._since = "", time.monotonic()

    def phase(self, what: str, total: int = 0) -> None:
        """See `Told.phase`."""
        self._close()
        self._name = what
        self._told.phase(what, total)

    def told(self, files: int, done: int) -> None:
        """See `Told.told`."""
        self._told.told(files, done)

    def end(self) -> tuple[dict[str, float], float]:
        """Seconds of each phase, and seconds since the command was given."""
        self._close()
        return self._phases, (time.time_ns() - self._began) / SECOND

    def _close(self) -> None:
        now = time.monotonic()
        if self._name:
            self._phases[self._name] = self._phases.get(self._name, 0.0) + now - self._since
        self._name, self._since = "", now


def _with(activation: Activation, served: Served) -> Activation:
    return replace(activation, registers=(*activation.registers, served))


def _start(served: Served, runtime: Runtime, restored: Restored, watch: _Watch) -> Served:
    watch.phase("start")
    service = runtime.start(served.place.name, served.place)
    checks = [_told(check) for check in runtime.check(service, restored.environment)]
    return replace(
        served,
        service=service.name,
        address=service.address,
        pid=service.pid,
        checks=[*served.checks, *checks],
    )


def _served(wanted: Wanted, restored: Restored, checks: Sequence[Finding]) -> Served:
    """The register as it was laid out; what serves it is added when it has started."""
    return Served(
        name=restored.place.name,
        id=wanted.register,
        kind=restored.kind,
        snapshot=restored.sequence,
        consistent_at=restored.consistent_at,
        gaps=len(restored.gaps),
        place=restored.place,
        service="",
        address=str(restored.place),
        pid=0,
        phases={},
        ready_seconds=0.0,
        checks=[_told(check) for check in checks],
    )


def _told(check: Finding) -> str:
    return f"{check.level}: {check.text}"
