"""socat: the sandbox's way to its proxies."""

from __future__ import annotations

from portal.checks import program

CHECK = program.check("socat", "socat", "-V", "socat")
