"""The house rules as code: each rule is a function from a file to its faults.

`tests/test_house.py` runs them over the tree and over planted violations.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

PACKAGES = ("base", "pai", "agents", "supervisor", "workers", "portal", "provision")
MAX_LINES = 400
BANNED_WORDS = ("manager", "handler", "helper", "service", "utils")
BANNED_SUFFIX = re.compile(r"_v\d+$|V\d+$")
BARE_QUANTITIES = {"timeout", "delay", "interval", "size", "duration", "elapsed", "cost", "ttl"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
FOREIGN_BASES_OK = {"BaseModel", "BaseSettings", "Exception", "Protocol", "StrEnum", "Enum"}

Rule = Callable[[Path, str], list[str]]


@lru_cache(maxsize=4)
def parsed(text: str) -> ast.Module:
    """Python 3.11 counts the recursion of all threads together and may give up in between."""
    for _ in range(5):
        with suppress(SystemError):
            return ast.parse(text)
    return ast.parse(text)


def python_files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((root / package).rglob("*.py"))


def length(path: Path, text: str) -> list[str]:
    """No file above 400 lines."""
    lines = text.count("\n")
    return [f"{path}: {lines} lines, the limit is {MAX_LINES}"] if lines > MAX_LINES else []


def unfinished(path: Path, text: str) -> list[str]:
    """No unfinished marks."""
    return [
        f"{path}:{number}: unfinished: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def names(path: Path, text: str) -> list[str]:
    """Modules and classes are nouns they own, not Managers, Helpers or second versions."""
    found = [path.stem] + [
        node.name for node in ast.walk(parsed(text)) if isinstance(node, ast.ClassDef)
    ]
    return [
        f"{path}: the name {name!r} says nothing"
        for name in found
        if any(word in _words(name) for word in BANNED_WORDS) or BANNED_SUFFIX.search(name)
    ]


def units(path: Path, text: str) -> list[str]:
    """A quantity that we name carries its unit: `_s _ms _bytes _tokens _usd`."""
    faults = []
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.arg) and node.arg in BARE_QUANTITIES:
            faults.append(f"{path}:{node.lineno}: parameter {node.arg!r} has no unit")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if node.target.id.lower() in BARE_QUANTITIES:
                faults.append(f"{path}:{node.lineno}: {node.target.id!r} has no unit")
        elif isinstance(node, ast.Assign):
            faults += [
                f"{path}:{node.lineno}: {target.id!r} has no unit"
                for target in node.targets
                if isinstance(target, ast.Name) and target.id.lower() in BARE_QUANTITIES
            ]
    return faults


def excepts(path: Path, text: str) -> list[str]:
    """No bare except, and no broad one that swallows: it must log, raise or hand the error on."""
    faults = []
    for node in ast.walk(parsed(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            faults.append(f"{path}:{node.lineno}: bare except")
        elif isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}:
            used = any(
                isinstance(inner, ast.Raise)
                or (isinstance(inner, ast.Name) and inner.id == node.name)
                or (isinstance(inner, ast.Attribute) and inner.attr == "exception")
                for statement in node.body
                for inner in ast.walk(statement)
            )
            if not used:
                faults.append(f"{path}:{node.lineno}: `except {node.type.id}` swallows the error")
    return faults


def causes(path: Path, text: str) -> list[str]:
    """Inside an except, a new error is raised `from` its cause (`from None`: said on purpose)."""
    faults = []
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.ExceptHandler):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Raise) and _is_new(inner) and inner.cause is None:
                    faults.append(f"{path}:{inner.lineno}: raise without `from`")
    return faults


def tasks(path: Path, text: str) -> list[str]:
    """Background tasks are named and referenced."""
    faults = []
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.Expr) and _is_create_task(node.value):
            faults.append(f"{path}:{node.lineno}: create_task whose result is dropped")
        if _is_create_task(node) and "name" not in _keywords(node):
            faults.append(f"{path}:{node.lineno}: create_task without a name")
    return faults


def waits(path: Path, text: str) -> list[str]:
    """No asyncio.wait_for: in Python 3.11 it swallows a cancellation that comes with the result."""
    return [
        f"{path}:{node.lineno}: asyncio.wait_for, use `async with asyncio.timeout(...)`"
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.Attribute) and node.attr == "wait_for"
        if isinstance(node.value, ast.Name) and node.value.id == "asyncio"
    ]


def inheritance(path: Path, text: str) -> list[str]:
    """Compose: a class of ours inherits from a library or from its error/wire root only."""
    tree = parsed(text)
    faults = []
    roots = {"Ask", "Wire", "AIError"} | FOREIGN_BASES_OK
    local = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in local.values():
        for base in node.bases:
            name = base.id if isinstance(base, ast.Name) else ""
            if name in local and name not in roots and not name.endswith("Error"):
                faults.append(f"{path}:{node.lineno}: {node.name} inherits from our own {name}")
    return faults


def frozen(path: Path, text: str) -> list[str]:
    """Dataclasses are frozen and slotted, or say in one word why not (`# mutable`)."""
    faults = []
    lines = text.splitlines()
    for node in ast.walk(parsed(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        for mark in node.decorator_list:
            call = ast.unparse(mark)
            if call.split("(")[0].split(".")[-1] != "dataclass":
                continue
            said = "# mutable" in lines[mark.lineno - 1] or "# mutable" in lines[node.lineno - 1]
            if not said and not ("frozen=True" in call and "slots=True" in call):
                faults.append(f"{path}:{node.lineno}: {node.name} is not frozen and slotted")
    return faults


def keys(path: Path, text: str) -> list[str]:
    """Stream keys are spelled in base/streams.py alone."""
    if path.name == "streams.py" and path.parent.name == "base":
        return []
    pattern = re.compile(r"[\"'](tasks:new|ai:dlq:|control:|ask:|reply:)")
    return [
        f"{path}:{number}: a stream key outside base/streams.py"
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def docstrings(path: Path, text: str) -> list[str]:
    """Every module says what it owns."""
    if not text.strip():
        return []
    return [] if ast.get_docstring(parsed(text)) else [f"{path}: no module docstring"]


RULES: tuple[Rule, ...] = (
    length,
    unfinished,
    names,
    units,
    excepts,
    causes,
    tasks,
    waits,
    inheritance,
    frozen,
    keys,
    docstrings,
)


def owners(root: Path) -> list[str]:
    """Each of our top-level names is owned by exactly one distribution: ours."""
    from importlib.metadata import packages_distributions

    declared = tomllib.loads((root / "pyproject.toml").read_text())
    ours = declared["project"]["name"]
    tops = {
        name.rstrip("*") for name in declared["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    installed = packages_distributions()
    return [
        f"{top} is owned by {sorted(set(installed.get(top, [])))}"
        for top in sorted(tops)
        if set(installed.get(top, [])) - {ours}
    ]


def _words(name: str) -> list[str]:
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")
    return [part.rstrip("s") if part != "utils" else part for part in parts] + parts


def _is_new(node: ast.Raise) -> bool:
    return isinstance(node.exc, ast.Call)


def _keywords(node: ast.AST) -> set[str | None]:
    return {keyword.arg for keyword in node.keywords} if isinstance(node, ast.Call) else set()


def _is_create_task(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "create_task"
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id in {"group", "tg"})
    )
