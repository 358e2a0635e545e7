"""A live window of the agents as an element of a page: `static/terminal.js`.

xterm.js is the one that NiceGUI ships with its own `ui.xterm`. That element carries every byte
through the page's socket, without a limit on what waits; this one has a socket of its own.
"""

from __future__ import annotations

from pathlib import Path

import nicegui.elements.xterm
from nicegui.element import Element

STATIC = Path(__file__).resolve().parent.parent / "static"
XTERM = Path(nicegui.elements.xterm.__file__).parent / "dist"


class Terminal(Element, component=STATIC / "terminal.js"):
    """The window of that name. can_type: there is a switch for typing; small: one of many."""

    def __init__(self, window: str, *, can_type: bool = False, small: bool = False) -> None:
        super().__init__()
        self.add_resource(XTERM)
        self._props["window"] = window
        self._props["can-type"] = can_type
        self._props["small"] = small
