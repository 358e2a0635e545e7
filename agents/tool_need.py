"""Where an address leads, as far as the text of it tells."""

from __future__ import annotations

from urllib.parse import urlsplit

PORTS = {"https": 443, "http": 80, "postgresql": 5432, "postgres": 5432, "ssh": 22, "git": 9418}


def host_of(url: object) -> str | None:
    """ "host:port" in lower case, or None when it is no address with a known scheme."""
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url.strip())
        port = parts.port or PORTS.get(parts.scheme.lower())
    except ValueError:
        return None
    if not parts.hostname or port is None:
        return None
    host = parts.hostname.rstrip(".")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
