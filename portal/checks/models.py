"""config/models.toml."""

from __future__ import annotations

from base.prices import Models
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight


async def look(sight: Sight) -> Finding:
    Models.load(sight.settings)
    return True, "config/models.toml is sound"


CHECK = Check(
    name="models",
    mend="mend {config}/models.toml",
    look=look,
)
