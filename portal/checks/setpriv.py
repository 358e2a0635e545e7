"""setpriv: how the hands become another account."""

from __future__ import annotations

from portal.checks import program

CHECK = program.check("setpriv", "setpriv", "--version", "util-linux")
