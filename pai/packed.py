"""A payload as the embedded engine stores it. Pure.

The engine takes 4 to 8 us for each field that it is given, so those that no filter names are one
JSON text. The binding turns True into 1 before it compares, so what is declared a bool is 0 or 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pai.warm import FILTERS

#: Where the text is.
REST = "rest"


def packed(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Of a whole payload."""
    rest = {key: value for key, value in payload.items() if key not in FILTERS}
    named = {key: value for key, value in payload.items() if key in FILTERS}
    return {**fields(named), REST: json.dumps(rest)}


def fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Of some fields that are set over those which are there, named by filters or not."""
    return {
        key: int(value) if FILTERS.get(key) == "bool" else value for key, value in payload.items()
    }


def unpacked(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was put, with what was set since; also of what was stored field by field."""
    stored = stored or {}
    rest: dict[str, Any] = json.loads(stored.get(REST, "{}"))
    return rest | {
        key: bool(value) if FILTERS.get(key) == "bool" else value
        for key, value in stored.items()
        if key != REST
    }
