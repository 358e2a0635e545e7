"""What our tmux servers, and so all programs in them, inherit: what they need and no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from base import secrets_files
from base.secrets import ANTHROPIC_API_KEY, AWS_CREDENTIALS, POSTGRES, REDIS_PASSWORD
from base.settings import Settings

NAMES = {
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR",
    "VIRTUAL_ENV", "CI", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy",
    "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS",
    "ANTHROPIC_BASE_URL", "CREDENTIALS_DIRECTORY",
}  # fmt: skip
#: Where boto3 finds the machine's identity, when AWS is configured; none of it is a secret.
AWS_NAMES = {
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_EC2_METADATA_DISABLED",
}  # fmt: skip
PREFIXES = (
    "AI_INFRA_", "LC_", "PYTHON", "PIP_", "NPM_CONFIG_", "npm_config_", "UV_", "XDG_",
    "CUDA_", "NVIDIA_", "OMP_", "MKL_", "KMP_", "TORCH", "HF_", "QDRANT_",
)  # fmt: skip
PRIVATE = re.compile(r"(?i)(token|passw(or)?d|secret|_auth|api_?key)$")
#: Addresses that may hold a password, and the secret that it becomes.
ADDRESSES = {"AI_INFRA_REDIS_URL": REDIS_PASSWORD, "AI_INFRA_POSTGRES_DSN": POSTGRES}
KEY = "ANTHROPIC_API_KEY"
AWS_ID, AWS_SECRET, AWS_TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"


def clean(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The part of `environment` that is passed on; the home is always named in it."""
    names = NAMES | AWS_NAMES if settings.aws_region else NAMES
    kept = {
        name: value
        for name, value in environment.items()
        if name in names or (name.startswith(PREFIXES) and not PRIVATE.search(name))
    }
    kept |= {name: _parted(kept[name])[0] for name in ADDRESSES if name in kept}
    kept.setdefault("LANG", "C.UTF-8")
    kept["AI_INFRA_HOME"] = str(settings.home)
    return kept


def keep_keys(environment: Mapping[str, str], settings: Settings) -> list[Path]:
    """Write keys that are only in the environment to the secrets folder, mode 0600.

    The files that were written. Raises SettingsError when one cannot be, or is open to others.
    """
    given = {ANTHROPIC_API_KEY: environment.get(KEY, "").strip()}
    if settings.aws_region and environment.get(AWS_ID) and environment.get(AWS_SECRET):
        kept = {
            "aws_access_key_id": environment[AWS_ID],
            "aws_secret_access_key": environment[AWS_SECRET],
            "aws_session_token": environment.get(AWS_TOKEN, ""),
        }
        given[AWS_CREDENTIALS] = json.dumps({name: value for name, value in kept.items() if value})
    for name, secret in ADDRESSES.items():
        given[secret] = _parted(environment.get(name, ""))[1]
    written = []
    for name, value in given.items():
        found = secrets_files.from_file(settings.secrets, name) if value else None
        if value and (found is None or found.value.get_secret_value() != value):
            written.append(secrets_files.put(settings.secrets, name, value))
    return written


def _parted(address: str) -> tuple[str, str]:
    """The address without its password, and the password."""
    parts = urlsplit(address)
    if not parts.password:
        return address, ""
    user, _, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    bare = parts._replace(netloc=f"{user}@{host}" if user else host)
    return urlunsplit(bare), unquote(parts.password)
