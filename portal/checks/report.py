"""The doctor's round: every check at once, and the report of the last round on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, ValidationError

from base.errors import AIError
from base.messages import Wire
from base.redact import redact
from base.settings import Settings
from portal.checks.check import Check, Finding
from portal.checks.registry import CHECKS
from portal.checks.sight import Sight, words

NOT_HERE = "not in local mode"


class Row(Wire):
    """What one check found. skipped: it has nothing to look at here; took_ms: how long it took."""

    name: str
    ok: bool
    detail: str
    mend: str
    skipped: bool = False
    took_ms: int = 0


class Report(Wire):
    """A round of the doctor: `ok` when no check found a fault."""

    at: AwareDatetime
    ok: bool
    took_ms: int
    checks: list[Row]


def path(settings: Settings) -> Path:
    """Where the last recorded round is."""
    return settings.logs / "doctor.json"


async def look(settings: Settings, checks: tuple[Check, ...] = CHECKS) -> Report:
    """One round: as long as the slowest check, which is at most its deadline."""
    begun_s = time.monotonic()
    sight = Sight(settings)
    try:
        rows = list(await asyncio.gather(*(_row(check, sight) for check in checks)))
    finally:
        await sight.close()
    rows += [Row(**_clean(one)) for one in await asyncio.to_thread(_added, settings)]
    return Report(
        at=datetime.now(UTC),
        ok=all(row.ok for row in rows),
        took_ms=round(1000 * (time.monotonic() - begun_s)),
        checks=rows,
    )


def record(settings: Settings, report: Report) -> None:
    """Keep it as the last round, whole or not at all. Raises OSError."""
    place = path(settings)
    new = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        new.write_text(report.model_dump_json(), encoding="utf-8")
        new.chmod(0o644)  # on the appliance `ai` writes it and the portal reads it
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)


def last(settings: Settings) -> Report | None:
    """The last recorded round; None: there is none that can be read."""
    with contextlib.suppress(OSError, ValidationError, ValueError):
        return Report.model_validate(json.loads(path(settings).read_text(encoding="utf-8")))
    return None


async def _row(check: Check, sight: Sight) -> Row:
    begun_s = time.monotonic()
    skipped = check.appliance and not sight.appliance
    ok, detail = (True, NOT_HERE) if skipped else await _found(check, sight)
    return Row(
        **_clean(
            {
                "name": check.name,
                "ok": ok,
                "detail": detail,
                "mend": _mend(check, sight.settings),
                "skipped": skipped,
                "took_ms": round(1000 * (time.monotonic() - begun_s)),
            }
        )
    )


async def _found(check: Check, sight: Sight) -> Finding:
    try:
        async with asyncio.timeout(check.deadline_s):
            return await check.look(sight)
    except TimeoutError:
        return False, f"no answer within {check.deadline_s:g} s"
    except (AIError, OSError) as error:
        return False, words(error)
    except Exception as error:  # one broken check must not hide what the others found
        return False, f"the check itself broke: {type(error).__name__}: {error}"


def _mend(check: Check, settings: Settings) -> str:
    told = {"{config}": settings.config, "{home}": settings.home, "{logs}": settings.logs}
    said = check.mend
    for name, place in told.items():
        said = said.replace(name, str(place))
    return said


def _added(settings: Settings) -> list[dict[str, Any]]:
    """What the owner added: MCP servers, goals and hooks; a line each."""
    from portal import cli_mcp, cli_telos

    found: list[dict[str, Any]] = []
    for name, rows in (("mcp", cli_mcp.rows), ("TELOS", cli_telos.rows)):
        try:
            found += rows(settings)
        except (AIError, OSError) as error:
            mend = f"mend it in {settings.config}"
            found.append({"name": name, "ok": False, "detail": words(error), "mend": mend})
    return found


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "detail": redact(str(row["detail"])), "mend": str(row["mend"])}
