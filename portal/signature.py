"""What proves that a webhook's call is ours: HMAC-SHA256 over the time and the exact bytes.

A hook's secret is derived from its id and one key that only the owner can read, so that no copy
of it is kept and a stolen database signs nothing.
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress

from base import modes
from base.errors import SettingsError
from base.settings import Settings

HEADER = "X-AI-Infra-Signature"
#: How old a signature may be when it is checked; what receivers are told.
WINDOW_S = 300
KEY_FILE = "webhook-key"


def key(settings: Settings) -> bytes:
    """The key of all hooks, made at the first call (mode 0600); the first of two racers wins."""
    path = settings.secrets / KEY_FILE
    if not path.exists():
        fresh = path.with_name(f"{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
        fresh.touch(mode=modes.FILE)
        fresh.write_bytes(secrets.token_hex(32).encode())
        with suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    found = path.read_bytes().strip()
    if len(found) < 32:
        raise SettingsError([f"{path} is too short to be a key; delete it to get a new one"])
    return found


def secret_of(master: bytes, webhook_id: str) -> str:
    """The secret of one hook: the same each time, and of no use for another."""
    return "whsec_" + hmac.new(master, f"webhook {webhook_id}".encode(), "sha256").hexdigest()


def sign(secret: str, body: bytes, at_s: int) -> str:
    """The header's value. `at_s`: Unix time of this attempt."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, "sha256").hexdigest()
    return f"t={at_s},v1={digest}"
