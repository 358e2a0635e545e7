"""Lighter import of a large library: its packages load a name when it is asked for (PEP 562).

The anthropic SDK imports some 2,700 modules of which a program needs a third. Nothing is left
out or replaced: every name stays importable and is the same object.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

FUTURE = re.compile(r"^from __future__ .*$|^#.*$", re.MULTILINE)
ALL = re.compile(r"^__all__ = \[[^\]]*\]$", re.MULTILINE)
IMPORT = re.compile(r"^from (\.+[\w.]*) import (?:\(([^()]*)\)|([^()\n]*))$", re.MULTILINE)

Exports = dict[str, tuple[str, str]]


def install(root: str) -> None:
    """From now on import package `root` and those below it this way. Twice is safe.

    A package below that does more than re-export is imported as ever, and so is a loaded one.
    `root` itself may do what it likes: its code runs when the first name of it is asked for.
    """
    if not any(isinstance(finder, _Finder) and finder.root == root for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(root))


@contextmanager
def without(*roots: str) -> Iterator[None]:
    """What is imported inside takes these for not installed: optional parts that are never used.

    One that is loaded already stays, and all can be imported again afterwards.
    """
    spare = [root for root in roots if root not in sys.modules]
    sys.modules.update(dict.fromkeys(spare))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for root in spare:
            del sys.modules[root]


class _Finder(MetaPathFinder):
    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.root and not name.startswith(self.root + "."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader and spec.origin and spec.submodule_search_locations:
            exports = exported(Path(spec.origin).read_text(encoding="utf-8"))
            if exports is not None or name == self.root:
                spec.loader = _Lazy(spec.loader, exports)
        return spec


class _Lazy(Loader):
    """Gives a package a `__getattr__` instead of running its code; None: runs it at first need."""

    def __init__(self, real: Loader, exports: Exports | None) -> None:
        self._real = real
        self._exports = exports

    def exec_module(self, module: ModuleType) -> None:
        def resolve(name: str) -> object:
            if self._exports is None:
                if not re.fullmatch(r"__(all|version|title)__|[^_].*", name):
                    raise AttributeError(name)
                if module.__dict__.pop("__getattr__", None):
                    self._real.exec_module(module)
                return getattr(module, name)
            if name not in self._exports:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            source, original = self._exports[name]
            value = getattr(importlib.import_module(source, module.__name__), original)
            setattr(module, name, value)
            return value

        module.__dict__["__getattr__"] = resolve
        if self._exports is not None:
            module.__dict__["__all__"] = list(self._exports)


def exported(source: str) -> Exports | None:
    """Name → (module, name there) of a source that only re-exports; None when it does more."""
    if IMPORT.sub("", ALL.sub("", FUTURE.sub("", source))).strip():
        return None
    names: Exports = {}
    for module, several, one in IMPORT.findall(source):
        for item in re.sub(r"#.*", "", several or one).split(","):
            original, _, alias = item.strip().partition(" as ")
            if original:
                names[alias.strip() or original] = (module, original)
    return None if "*" in names or any(not m.strip(".") for m, _ in names.values()) else names
