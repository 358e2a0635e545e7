"""What a new static site shows before anything was deployed: a plain page that names the domain."""

from __future__ import annotations

from html import escape
from pathlib import Path

import idna

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem }}
body {{ margin: 18vh auto 0; padding: 0 1rem }}
</style>
</head>
<body>
<h1>It works</h1>
<p><b>{name}</b> is served from here. Its own pages are not deployed yet.</p>
</body>
</html>
"""


def page(domain: str) -> str:
    """An international name is shown as people write it; a name is text, whatever is in it."""
    return PAGE.format(name=escape(shown(domain)))


def shown(domain: str) -> str:
    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain


def write(folder: Path, domain: str) -> None:
    """The first release's only file."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    (folder / "index.html").write_text(page(domain), encoding="utf-8")
