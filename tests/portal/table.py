"""Prints every route of the portal as JSON: kind, method, path, what an API token needs, admin.

A process of its own, because NiceGUI keeps its state in modules.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def table() -> Iterator[dict[str, Any]]:
    from nicegui import app as pages

    from base import settings
    from portal import door
    from portal.app import create

    def admin(route: Any) -> bool:
        asked = [one.call for one in route.dependant.dependencies]
        return door._admin in asked

    for route in create(settings.load()).router.routes:
        inner = getattr(route, "effective_route_contexts", None)
        for one in inner() if inner else [route]:
            declared = getattr(one, "original_route", one)
            for method in sorted(getattr(one, "methods", None) or ["-"]):
                yield {
                    "kind": type(declared).__name__,
                    "method": method,
                    "path": one.path.replace(":uuid}", "}"),
                    "need": door.needed(declared),
                    "admin": hasattr(declared, "dependant") and admin(declared),
                }
    for route in pages.routes:
        if not route.path.startswith("/_nicegui"):
            yield {"kind": "Page", "method": "GET", "path": route.path, "need": None}


if __name__ == "__main__":
    os.environ["AI_INFRA_HOME"] = sys.argv[1]
    print(json.dumps(list(table())))
