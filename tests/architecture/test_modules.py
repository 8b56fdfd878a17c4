"""What every module keeps to, and no linter looks for."""

import ast
import re

import pytest

MOST_LINES = 400
# Words that have no business in what ships: places of one machine, unfinished work.
FORBIDDEN = [
    r"/root/",
    r"/work/",
    r"(?<![\w.])/home/\w",
    r"\bTO" + r"DO\b",
    r"\bFIX" + r"ME\b",
    r"\bXX" + r"X\b",
]
TEXT = {".py", ".md", ".toml", ".txt", ".svg", ".sh", ".html", ".css", ".js", ""}
FACES = ("src/exclave/agents/", "src/exclave/cli/")  # only these catch what they did not expect, and tell it
CATCH_ALL = {"Exception", "BaseException"}


def test_no_module_is_longer_than_a_reader_can_hold(modules, root):
    long = {path: n for path in modules if (n := len((root / path).read_text().splitlines())) > MOST_LINES}
    assert not long, f"more than {MOST_LINES} lines: split by what they do: {long}"


def test_every_module_says_what_it_is(modules):
    for path, tree in modules.items():
        assert ast.get_docstring(tree), f"{path} has no docstring"


def test_init_holds_its_docstring_only(modules):
    for path, tree in modules.items():
        if path.endswith("/__init__.py"):
            assert len(tree.body) == 1, f"{path} holds more than its docstring"


def test_no_word_of_a_machine_or_of_unfinished_work(root):
    found = []
    for top in ("src", "docs", "tests", "bench", "tools", "scripts", ".ci"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in TEXT and path.is_file() and "__pycache__" not in path.parts:
                if path.resolve() == (root / "tests/architecture/test_modules.py"):
                    continue
                text = path.read_text(encoding="utf-8", errors="replace")
                found += [f"{path.relative_to(root)}: {word}" for word in FORBIDDEN if re.search(word, text)]
    assert not found, found


def test_locks_name_no_host(root):
    for lock in (root / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", text), lock


def test_nothing_catches_everything_and_goes_on(modules):
    """`except Exception` must raise, or hand the error on to whoever waits for it; never swallow it."""
    found = []
    for path, tree in modules.items():
        if path.startswith(FACES):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not _ends(node):
                found += [f"{path}:{node.lineno}"]
    assert not found, found


def test_nothing_is_logged_away_below_the_faces(modules):
    """Only agents/ and cli/ tell; everything else raises."""
    for path, tree in modules.items():
        if path.startswith(FACES):
            continue
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Import) and any(a.name == "logging" for a in node.names)), path


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "manager", "misc", "util", "helper"])
def test_no_drawer_for_odds_and_ends(modules, name):
    assert not [path for path in modules if name in path.removesuffix(".py").split("/")]


def _catches_all(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in CATCH_ALL) for kind in kinds)


def _ends(handler: ast.ExceptHandler) -> bool:
    """It raises, or hands the error itself on to someone (a future, a queue, a report)."""
    for node in ast.walk(ast.Module(body=handler.body, type_ignores=[])):
        if isinstance(node, ast.Raise):
            return True
        if (
            handler.name
            and isinstance(node, ast.Name)
            and node.id == handler.name
            and isinstance(node.ctx, ast.Load)
        ):
            return True
    return False
