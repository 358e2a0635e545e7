"""Whether Cloudflare is configured: its scoped token, from where secrets are, and its address."""

from __future__ import annotations

import tomllib

from pydantic import SecretStr

from base import secrets, secrets_files
from base.errors import SettingsError
from base.redact import remember
from base.settings import PLAIN_KEY, load
from provision.box import Box

TOKEN = "cloudflare-token"


async def token(box: Box) -> SecretStr | None:
    """None: not configured. Raises SettingsError for a secret that is there and cannot be used."""
    kept = secrets_files.from_file(box.config / "secrets", TOKEN)
    found = kept.value if kept else await secrets.of(load()).fetch(TOKEN)
    if found is None:
        return None
    if not PLAIN_KEY.fullmatch(found.get_secret_value()):
        raise SettingsError([f"the secret {TOKEN} is not one line of plain characters"])
    remember(found.get_secret_value())
    return found


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
