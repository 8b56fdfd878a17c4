"""Measures exclave beside restic, BorgBackup and `tar | zstd -1 | age` on the same data, in turn, in one run.

    make bench                                        everything, five pairs a peer; about two hours
    python bench/peers.py --sets linux --pairs 1 --scale 0.02 --work /var/tmp/bench

Results go to bench/results: one JSON a data set, table.txt, goals.txt and ratios.svg. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import peers_report
from peers_data import SETS, DataSet, prepare
from peers_exclave import Exclave
from peers_measure import Probe, ProgramFailedError, adopt_orphans, stored_bytes
from peers_picture import draw
from peers_tools import Borg, Cluster, Files, Pipe, Restic, Subject, Tool

RESULTS = Path(__file__).parent / "results"
DRIFT = 1.3
PEERS: dict[str, type[Tool]] = {"restic": Restic, "borg": Borg, "pipe": Pipe}


def round_of(tool: Tool, subject: Subject, place: Path, *, compare: bool) -> dict[str, Any]:
    """One tool through all five acts. `compare`: the restored tree is compared with the source as well."""
    subject.begin()
    try:
        tool.fresh(place, subject)
        empty = tool.stored()
        cells = {"first": tool.backup()}
        first = tool.stored()
        cells["same"] = tool.backup()
        unchanged = tool.stored()
        subject.change()
        time.sleep(1)  # a tool may rightly distrust a file that was written in this very second
        cells["change"] = tool.backup()
        grown = tool.stored()
        target = place / "restored"
        cells["restore"] = tool.restore(target)
        if compare and subject.server is None:
            command = ["diff", "-rq", "--no-dereference", subject.source, tool.restored(target)]
            differing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            if differing:
                raise ProgramFailedError(f"{tool.name} restored something else:\n{differing[:1000]}")
        shutil.rmtree(target, ignore_errors=True)
        cells["verify"] = tool.verify()
    finally:
        subject.end()
    shutil.rmtree(place, ignore_errors=True)
    return {
        "cells": {cell: cost.plain() for cell, cost in cells.items()},
        "bytes": {"first": first - empty, "same": unchanged - first, "change": grown - unchanged},
    }


def measure(data: DataSet, options: argparse.Namespace) -> peers_report.Result:
    """All pairs on one data set."""
    ways: dict[str, Subject] = {"exclave": Files(data)}
    if data.name == "pgbench":
        ways["exclave-postgres"] = Cluster(data, options.scale)
    found: list[dict[str, Any]] = []
    before = Probe.take()
    for number in range(options.pairs):
        for peer in options.peers:
            pair: dict[str, Any] = {"peer": peer, "ours": {}}
            for way, subject in ways.items():
                if way in options.ours:
                    print(f"  pair {number + 1} with {peer}: {way}", flush=True)
                    pair["ours"][way] = round_of(
                        Exclave(), subject, options.work / "run", compare=number == 0
                    )
            print(f"  pair {number + 1} with {peer}: {peer}", flush=True)
            pair["theirs"] = round_of(PEERS[peer](), Files(data), options.work / "run", compare=number == 0)
            found.append(pair)
    after = Probe.take()
    drift = before.drift(after)
    return {
        "format": 1,
        "set": data.name,
        "title": data.title,
        "scale": options.scale,
        "bytes": stored_bytes(data.before),
        "files": sum(len(names) for _, _, names in os.walk(data.before)),
        "probe": {"drift": drift, "drifted": drift > DRIFT},
        "pairs": found,
    }


def settle(data: DataSet, options: argparse.Namespace) -> peers_report.Result:
    """Measure, and again while the machine changed too much meanwhile; the last try is kept and marked."""
    for attempt in range(options.repeats + 1):
        result = measure(data, options)
        if not result["probe"]["drifted"]:
            return result
        print(f"  the machine drifted {result['probe']['drift']:.2f}x, try {attempt + 1}", flush=True)
    return result


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "?")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def report(folder: Path) -> str:
    """Tables and goals of all results in `folder`; writes them and the picture beside."""
    results = [
        json.loads((folder / f"{name}.json").read_text())
        for name in SETS
        if (folder / f"{name}.json").exists()
    ]
    tables = "\n".join(peers_report.table(result) for result in results)
    lines = []
    for result in results:
        for way in peers_report.variants(result):
            judged = peers_report.goals(result, way)
            small = "" if result["scale"] == 1 else f" AT SCALE {result['scale']:g}, which proves nothing"
            lines.append(
                f"{result['title']}, {way}: {sum(goal.met for goal in judged)} of {len(judged)} goals met{small}"
            )
            lines += [f"  {goal}" for goal in judged]
    goals = "\n".join(lines) + "\n"
    (folder / "table.txt").write_text(tables)
    (folder / "goals.txt").write_text(goals)
    (folder / "ratios.svg").write_text(draw(results))
    return f"{tables}\n{goals}\npicture: {folder / 'ratios.svg'}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--ours", nargs="*", choices=["exclave", "exclave-postgres"], help="ways of ours to measure"
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--repeats", type=int, default=2, help="tries more for a set during which the machine drifted"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the data; goals are for 1")
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/exclave-bench"), help="needs 25 GB; data stays there"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true", help="print what the last runs found")
    options = parser.parse_args()
    if options.ours is None:
        options.ours = ["exclave", "exclave-postgres"]
    return options


def main() -> int:
    options = parse()
    options.work, options.results = options.work.absolute(), options.results.absolute()
    options.results.mkdir(parents=True, exist_ok=True)
    if not options.report_only:
        # a missing tool is found before an hour is spent, and is never left out in silence
        versions = {name: PEERS[name]().version() for name in options.peers}
        if options.ours:
            versions["exclave"] = Exclave().version()
        adopt_orphans()
        options.work.mkdir(parents=True, exist_ok=True)
        for name in options.sets:
            data = prepare(name, options.work, options.scale)
            print(f"{data.title}: {options.pairs} pairs with each of {', '.join(options.peers)}", flush=True)
            result = settle(data, options) | {"versions": versions, "machine": machine()}
            (options.results / f"{name}.json").write_text(json.dumps(result, indent=1))
    print(report(options.results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ProgramFailedError as error:
        sys.exit(f"stopped: {error}")
