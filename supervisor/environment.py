"""What our tmux servers, and so all programs in them, inherit: what they need and no secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping

from base.errors import SettingsError
from base.settings import Settings

NAMES = {
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR",
    "VIRTUAL_ENV", "CI", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy",
    "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS",
    "ANTHROPIC_BASE_URL",
}  # fmt: skip
PREFIXES = ("AI_INFRA_", "LC_", "PYTHON", "PIP_", "NPM_CONFIG_", "npm_config_", "UV_", "XDG_")
KEY = "ANTHROPIC_API_KEY"


def clean(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The part of `environment` that is passed on; the home is always named in it."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in NAMES or name.startswith(PREFIXES)
    }
    kept.setdefault("LANG", "C.UTF-8")
    kept["AI_INFRA_HOME"] = str(settings.home)
    return kept


def keep_key(environment: Mapping[str, str], settings: Settings) -> bool:
    """Write a key that is only in the environment to the secrets folder, mode 0600.

    True when it was written. Raises SettingsError when it cannot be.
    """
    key = environment.get(KEY, "").strip()
    path = settings.secrets / "anthropic-api-key"
    try:
        if not key or (path.is_file() and path.read_text(encoding="utf-8").strip() == key):
            return False
        beside = path.with_suffix(".new")
        number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as out:
            out.write(key + "\n")
        beside.replace(path)
    except OSError as error:
        raise SettingsError([f"cannot write {path}: {error.strerror}"]) from error
    return True
