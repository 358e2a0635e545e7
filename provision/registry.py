"""Every verb there is: each file of `provision/verbs/` has one, in its constant `VERB`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from base.errors import SettingsError
from base.verbs import VERBS
from provision import verbs
from provision.verb import Verb


def collect() -> dict[str, Verb[Any]]:
    """The verbs by name. Raises SettingsError for a file that is none, or not named like it."""
    found = {}
    faults = []
    for module in pkgutil.iter_modules(verbs.__path__):
        verb = getattr(importlib.import_module(f"{verbs.__name__}.{module.name}"), "VERB", None)
        place = f"provision/verbs/{module.name}.py"
        if not isinstance(verb, Verb):
            faults.append(f"{place} has no VERB")
            continue
        if module.name != verb.name.replace(".", "_"):
            faults.append(f"{place} holds {verb.name}")
        found[verb.name] = verb
    faults += check(found)
    if faults:
        raise SettingsError(faults)
    return found


def check(found: Mapping[str, Verb[Any]]) -> list[str]:
    """What is wrong with them: a name nobody can ask for, or another request than it is asked
    with; one that reads alone, or changes something without a rule.
    """
    faults = []
    for name, verb in found.items():
        if name != verb.name or VERBS.get(name) is not verb.request:
            faults.append(f"{name}: base/verbs.py does not ask it with {verb.request.__name__}")
        if verb.alone and verb.approval == "none":
            faults.append(f"{name}: what changes something needs an approval rule")
    return faults
