"""`ai-infra status` and `ai-infra doctor`: what runs, what is missing, and how to mend it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import typer

from base import log
from base.settings import Settings
from base.terminal import neutral
from portal.checks import report
from portal.cli_client import EXIT_FAILED, show, stop

WAIT_S = 5.0


def state(settings: Settings) -> dict[str, Any]:
    """`state` is up (all ready), degraded (portal answers, something is missing) or down."""
    report: dict[str, Any] = {
        "home": str(settings.home),
        "portal": f"http://{settings.host}:{settings.port}",
        "model": "rehearsal (no AI answers)" if settings.rehearsal else "provider",
        "agents": [],
        "checks": {},
    }
    try:
        ready = _get(settings, "/api/health/ready")
        agents = _get(settings, "/api/health/agents").json()["agents"]
    except (httpx.HTTPError, ValueError, KeyError):
        return {**report, "state": "down"}
    rows = [
        {"name": name, "status": found["status"], "task": found.get("task_id")}
        if isinstance(found, dict)
        else {"name": name, "status": found, "task": None}
        for name, found in agents.items()
    ]
    well = ready.status_code == 200 and all(row["status"] == "ok" for row in rows)
    checked = {"agents": rows, "checks": ready.json().get("checks", {})}
    return {**report, **checked, "state": "up" if well else "degraded"}


def tell(settings: Settings, *, as_json: bool, record: bool) -> bool:
    """One round of the doctor, printed; whether all is well."""
    log.start("doctor", None, "critical")  # each fault is told once, below
    found = asyncio.run(report.look(settings))
    if record:
        try:
            report.record(settings, found)
        except OSError as error:
            stop(f"cannot write {report.path(settings)}: {error.strerror}", EXIT_FAILED)
    if as_json:
        show([row.model_dump() for row in found.checks], True)
        return found.ok
    for row in found.checks:
        word, colour = ("--  ", "bright_black") if row.skipped else ("ok  ", "green")
        if not row.ok:
            word, colour = "FAIL", "red"
        typer.echo(f"{typer.style(word, fg=colour)} {row.name:<18} {neutral(row.detail)}")
        if not row.ok:
            typer.echo(f"     mend: {neutral(row.mend)}")
    return found.ok


def _get(settings: Settings, path: str) -> httpx.Response:
    from portal.auth import local_token

    url = f"http://{settings.host}:{settings.port}{path}"
    known = (settings.secrets / "jwt-secret").is_file()
    headers = {"Authorization": f"Bearer {local_token(settings)}"} if known else {}
    return httpx.get(url, headers=headers, timeout=WAIT_S, trust_env=False)
