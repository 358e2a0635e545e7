"""At which address certbot's plugin finds Cloudflare."""

from __future__ import annotations

import tomllib

from base.errors import SettingsError
from provision.box import Box


def url(box: Box) -> str | None:
    """Another address of its API, as outside.toml has it; None: Cloudflare's own."""
    try:
        table = tomllib.loads((box.config / "outside.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsError([f"{box.config / 'outside.toml'}: {error}"]) from error
    section = table.get("cloudflare")
    found = section.get("url") if isinstance(section, dict) else None
    return found if isinstance(found, str) and found else None
