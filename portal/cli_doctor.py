"""`ai-infra status` and `ai-infra doctor`: what runs, what is missing, and how to mend it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from typing import Any

import httpx

from base.bus import Bus
from base.errors import AIError
from base.prices import Models
from base.settings import Settings
from base.store import Store
from portal import (
    cli_audit,
    cli_doctor_memory,
    cli_doctor_sandbox,
    cli_mcp,
    cli_secrets,
    cli_telos,
)

DISK_FREE_BYTES = 2 * 2**30
WAIT_S = 5.0
Finding = tuple[bool, str]


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


def checks(settings: Settings) -> list[dict[str, Any]]:
    """Every check: name, ok, detail, and the line that mends it."""
    table: list[tuple[str, Callable[[Settings], Finding], str]] = [
        ("python", _python, "install Python 3.11 or newer, then ./install.sh"),
        ("tmux", cli_doctor_sandbox.tool("tmux", "-V"), "apt-get install tmux"),
        *cli_doctor_sandbox.CHECKS,
        ("disk", _disk, f"free at least 2 GB on the disk of {settings.home}"),
        ("secrets", cli_secrets.check, "run the line that each fault names"),
        ("models", _models, f"mend {settings.config / 'models.toml'}"),
        ("redis", _redis, f"ai-infra up; see {settings.logs}/redis.log"),
        ("postgresql", _postgres, f"ai-infra up; see {settings.logs}/postgres.log"),
        ("portal", _portal, f"ai-infra up; see {settings.logs}/portal.log"),
        ("model", _model, "ai-infra up; or check the key and ANTHROPIC_BASE_URL"),
        ("agents", _agents, f"ai-infra agents restart NAME; see {settings.logs}"),
        *cli_doctor_memory.CHECKS,
        ("audit log", cli_audit.head_age, "ai-infra up; then ai-infra audit verify"),
        ("dead letters", _dead, "ai-infra dlq list; then replay or purge"),
    ]
    found = []
    for name, check, mend in table:
        try:
            ok, detail = check(settings)
        except AIError as error:
            ok, detail = False, str(error)
        found.append({"name": name, "ok": ok, "detail": detail, "mend": mend})
    return found + cli_mcp.rows(settings) + cli_telos.rows(settings)


def _get(settings: Settings, path: str) -> httpx.Response:
    from portal.auth import local_token

    url = f"http://{settings.host}:{settings.port}{path}"
    known = (settings.secrets / "jwt-secret").is_file()
    headers = {"Authorization": f"Bearer {local_token(settings)}"} if known else {}
    return httpx.get(url, headers=headers, timeout=WAIT_S, trust_env=False)


def _python(_: Settings) -> Finding:
    return sys.version_info >= (3, 11), sys.version.split()[0]


def _disk(settings: Settings) -> Finding:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return free >= DISK_FREE_BYTES, f"{free / 2**30:.1f} GB free"


def _models(settings: Settings) -> Finding:
    try:
        Models.load(settings)
    except AIError as error:
        return False, str(error)
    return True, "config/models.toml is sound"


def _redis(settings: Settings) -> Finding:
    async def ping() -> str:
        bus = await Bus.open(settings.redis, "doctor")
        try:
            return f"answers; {await bus.depth('results')} results waiting"
        finally:
            await bus.close()

    return _tried(ping)


def _postgres(settings: Settings) -> Finding:
    async def ping() -> str:
        store = await Store.open(settings.postgres)
        try:
            return f"PostgreSQL {await store.fetchval('SHOW server_version')}"
        finally:
            await store.close()

    return _tried(ping)


def _tried(ping: Callable[[], Any]) -> Finding:
    async def limited() -> str:
        async with asyncio.timeout(WAIT_S):
            said: str = await ping()
            return said

    try:
        return True, asyncio.run(limited())
    except (AIError, OSError, TimeoutError) as error:
        return False, str(error) or "no answer"


def _portal(settings: Settings) -> Finding:
    try:
        answer = _get(settings, "/api/health/live")
    except httpx.HTTPError:
        return False, f"nothing answers on {settings.host}:{settings.port}"
    return answer.status_code == 200, f"http://{settings.host}:{settings.port}"


def _model(settings: Settings) -> Finding:
    if not settings.rehearsal:
        where = settings.anthropic_base_url or "the provider"
        key = "with a key" if settings.api_key else "without a key"
        return True, f"{where}, {key} (not called: calls cost)"
    try:
        httpx.get(f"{settings.rehearsal_url}/health", timeout=WAIT_S, trust_env=False)
    except httpx.HTTPError:
        return False, f"the rehearsal model does not answer at {settings.rehearsal_url}"
    return True, "rehearsal: no AI answers until a key is set"


def _agents(settings: Settings) -> Finding:
    rows = state(settings)["agents"]
    bad = [f"{row['name']} {row['status']}" for row in rows if row["status"] != "ok"]
    if not rows:
        return False, "unknown: the portal does not answer"
    return not bad, ", ".join(bad) or f"{len(rows)} alive"


def _dead(settings: Settings) -> Finding:
    async def count() -> str:
        bus = await Bus.open(settings.redis, "doctor")
        try:
            return str(len(await bus.dead()))
        finally:
            await bus.close()

    ok, detail = _tried(count)
    return ok and detail == "0", f"{detail} dead letters" if ok else detail
