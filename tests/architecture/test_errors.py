"""Every error that a user can meet is explained, and nothing is explained that cannot be met."""

import ast
import re
import tomllib
from collections.abc import Iterator

KINDS = {
    "ExclaveError",
    "Unreachable",
    "NotThere",
    "Tampered",
    "Refused",
    "QuorumMissing",
    "Busy",
    "Misconfigured",
}
SPELLING = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


def test_every_error_is_explained_and_every_explanation_is_of_an_error(modules, root):
    used: dict[str, str] = {}
    for path, tree in modules.items():
        for error_id in error_ids(tree):
            used.setdefault(error_id, path)
    explained = explanations(root)
    missing = {error_id: path for error_id, path in used.items() if error_id not in explained}
    written = [pattern for tree in modules.values() for pattern in texts(tree)]
    idle = {
        error_id: page
        for error_id, page in explained.items()
        if not any(pattern.fullmatch(error_id) for pattern in written)
    }
    assert not missing, f"no explanation in src/exclave/explanations/*.toml: {missing}"
    assert not idle, f"explained, but nothing in src uses it: {idle}"


def test_ids_are_spelled_alike(modules):
    for path, tree in modules.items():
        for error_id in error_ids(tree):
            assert SPELLING.fullmatch(error_id), f"{path}: {error_id!r} is not words joined by hyphens"


def test_an_explanation_says_more_than_its_error(root):
    for page in (root / "src/exclave/explanations").glob("*.toml"):
        for error_id, row in tomllib.loads(page.read_text()).items():
            assert set(row) == {"text"}, f"{page.name}: {error_id} has other keys than `text`"
            assert len(row["text"].split()) >= 12, f"{page.name}: {error_id} is explained in too few words"


def explanations(root) -> dict[str, str]:
    found: dict[str, str] = {}
    for page in sorted((root / "src/exclave/explanations").glob("*.toml")):
        for error_id in tomllib.loads(page.read_text()):
            assert error_id not in found, f"{error_id} is explained in {found[error_id]} and in {page.name}"
            found[error_id] = page.name
    return found


def error_ids(tree: ast.Module) -> Iterator[str]:
    """Ids given to an error where it is made, or to a function that makes one from its argument."""
    makers: dict[str, tuple[int, str]] = {}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        every = names + [a.arg for a in function.args.kwonlyargs]
        for call in ast.walk(function):
            first = _first_argument(call)
            if isinstance(first, ast.Name) and first.id in every:
                offset = 1 if names[:1] in (["self"], ["cls"]) else 0
                at = names.index(first.id) - offset if first.id in names else -1
                makers[function.name] = (at, first.id)
                yield from _defaults(function, first.id)
    for node in ast.walk(tree):
        first = _first_argument(node)
        if first is not None:
            yield from _constants(first)
        elif isinstance(node, ast.Call):
            at, name = makers.get(_called(node), (-1, ""))
            if 0 <= at < len(node.args):
                yield from _constants(node.args[at])
            for word in node.keywords:
                if name and word.arg == name:
                    yield from _constants(word.value)


def texts(tree: ast.Module) -> Iterator[re.Pattern[str]]:
    """What may be an id: every text, and every text with something put in, such as `no-such-{what}`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            fixed = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
            if SPELLING.fullmatch("".join("x" if text is None else str(text) for text in fixed)):
                yield re.compile(
                    "".join("[a-z]+" if text is None else re.escape(str(text)) for text in fixed)
                )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 60:
            yield re.compile(re.escape(node.value))


def _first_argument(node: ast.AST) -> ast.expr | None:
    if isinstance(node, ast.Call) and _called(node) in KINDS and node.args:
        return node.args[0]
    return None


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _constants(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _constants(value.body)
        yield from _constants(value.orelse)


def _defaults(function: ast.FunctionDef, name: str) -> Iterator[str]:
    positional = [*function.args.posonlyargs, *function.args.args]
    pairs = list(zip(reversed(positional), reversed(function.args.defaults), strict=False))
    pairs += [
        (a, d)
        for a, d in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        if d is not None
    ]
    for argument, default in pairs:
        if argument.arg == name:
            yield from _constants(default)
