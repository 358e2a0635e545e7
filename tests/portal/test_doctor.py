"""The doctor: all checks at once, each fault with its mending line, and what the portal shows."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from base.backup import record, rules
from base.errors import NotRunningError, SettingsError
from base.settings import Settings
from base.store import Store
from portal import checks, doctor
from portal.checks import certificates, ports, registry, report
from portal.checks.check import Check, Finding
from portal.checks.sight import Sight
from tests.portal.conftest import Portal, person
from tests.portal.test_pages import ARTIFACTS, signed_in

REPO = Path(__file__).resolve().parents[2]
#: Modules of the package that are no checks.
PARTS = {"check", "program", "registry", "report", "sight"}
NOW = datetime(2026, 11, 28, tzinfo=UTC)
#: On how many lines an option stands in boxes of many widths.
LINES = """one => [80, 100, 120, 140, 160, 180, 200, 220, 240].map(width => {
    one.closest("code").parentElement.style.width = width + "px";
    return one.getClientRects().length;
})"""


def made(name: str, look: Any, **more: Any) -> Check:
    return Check(name=name, mend="look into {logs}", look=look, **more)


def test_each_file_is_a_check_and_each_check_says_how_to_mend() -> None:
    names = {module.name for module in pkgutil.iter_modules(checks.__path__)} - PARTS
    assert len(names) == len(registry.CHECKS) >= 20
    assert len({check.name for check in registry.CHECKS}) == len(registry.CHECKS)
    assert all(check.mend for check in registry.CHECKS)
    wanted = {"disk", "free memory", "clock", "ports", "dns", "certificates", "units", "redis",
              "postgresql", "schema", "vector store", "sandbox", "backup", "audit log", "queues",
              "dead letters", "budget", "nginx", "broker"}  # fmt: skip
    assert wanted <= {check.name for check in registry.CHECKS}


async def test_all_look_at_once_and_none_holds_the_others_up(tmp_path: Path) -> None:
    begun = 0
    all_there = asyncio.Event()
    opened = []

    async def together(sight: Sight) -> Finding:
        nonlocal begun
        begun += 1
        if begun == 3:
            all_there.set()
        await all_there.wait()  # one after another they would wait for ever
        return True, str(begun)

    async def hangs(_: Sight) -> Finding:
        await asyncio.Event().wait()
        return True, ""

    async def breaks(_: Sight) -> Finding:
        raise ZeroDivisionError("x")

    async def shares(sight: Sight) -> Finding:
        async def make() -> str:
            opened.append(1)
            await asyncio.sleep(0)
            raise NotRunningError("it does not run")

        return True, await sight._once("thing", make)

    row = {
        one.name: one
        for one in (
            await report.look(
                Settings(home=tmp_path),
                (
                    *(made(f"together {n}", together) for n in range(3)),
                    made("hangs", hangs, deadline_s=0.2),
                    made("breaks", breaks),
                    made("shares", shares),
                    made("shares too", shares),
                    made("appliance", hangs, appliance=True),
                ),
            )
        ).checks
    }
    assert all(row[f"together {n}"].ok for n in range(3))
    assert (row["hangs"].ok, row["hangs"].detail) == (False, "no answer within 0.2 s")
    assert row["hangs"].took_ms < 3_000
    assert "ZeroDivisionError" in row["breaks"].detail
    assert row["breaks"].mend == f"look into {tmp_path}/logs"
    assert row["shares"].detail == row["shares too"].detail == "it does not run"
    assert len(opened) == 1
    assert (row["appliance"].ok, row["appliance"].skipped) == (True, True)
    assert row["appliance"].detail == "not in local mode"


async def test_where_nothing_runs_nobody_waits(tmp_path: Path) -> None:
    there = {"redis", "postgresql", "schema", "portal", "agents", "memory", "workers", "queues",
             "dead letters", "budget"}  # fmt: skip
    some = tuple(check for check in registry.CHECKS if check.name in there)
    found = await report.look(Settings(home=tmp_path, port=1), some)
    assert {row.name for row in found.checks if not row.ok} == there
    # Each of them alone used to wait for seconds.
    assert max(row.took_ms for row in found.checks) < 2_000
    assert all(row.mend for row in found.checks)


def test_a_report_is_kept_and_the_exit_code_says_how_it_is(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert report.last(settings) is None
    settings.prepare()
    environment = {**os.environ, "AI_INFRA_HOME": str(tmp_path), "AI_INFRA_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "portal.cli", "doctor", "--json", "--record"],
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert not rows["redis"]["ok"]
    assert rows["python"]["ok"]
    kept = report.last(settings)
    assert kept is not None
    assert not kept.ok
    assert [row.name for row in kept.checks] == list(rows)
    report.path(settings).write_text("{")
    assert report.last(settings) is None


@pytest.mark.parametrize(
    ("left_days", "life_days", "ok"),
    [(60, 90, True), (23, 90, True), (22, 90, False), (-1, 6, False)],
)
def test_certificates_are_told_before_the_last_quarter(
    left_days: int, life_days: int, ok: bool
) -> None:
    end = NOW + timedelta(days=left_days)
    span = (end - timedelta(days=life_days), end)
    fine = (NOW - timedelta(days=1), NOW + timedelta(days=365))
    found = certificates.judge({"a.example": span, "b.example": fine}, NOW)
    assert found[0] is ok
    assert "a.example" in found[1]
    assert certificates.judge({}, NOW) == (True, "none")


def test_ports_that_should_not_be_open(tmp_path: Path) -> None:
    local = Settings(home=tmp_path, port=8000)
    appliance = Settings(home=tmp_path, port=8000, broker=tmp_path / "broker.sock")
    wide = Settings(home=tmp_path, port=8000, host="0.0.0.0")
    assert ports.faults([22, 80, 443, 5432], local) == []
    assert ports.faults([22, 5432, 6379], appliance) == ["PostgreSQL (5432)", "Redis (6379)"]
    assert ports.faults([8000, 8001], local) == ["the portal (8000)", "the rehearsal model (8001)"]
    assert ports.faults([8000], wide) == []


def test_where_backups_go_is_told_by_the_last_where_the_file_is_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(settings: Settings) -> rules.Rules:
        raise SettingsError(["/etc/ai-infra/backup.toml: Permission denied"])

    monkeypatch.setattr(rules, "load", closed)
    appliance = Settings(home=tmp_path, broker=tmp_path / "broker.sock")
    last = record.Last(at=NOW, snapshot="1a2b3c4d", place="sftp://nas/kept", took_s=2.0)
    record.write(appliance, last)
    told = doctor._backup(SimpleNamespace(settings=appliance))  # type: ignore[arg-type]
    assert (told.place, told.snapshot, told.problem) == ("sftp://nas/kept", "1a2b3c4d", None)
    here = doctor._backup(SimpleNamespace(settings=Settings(home=tmp_path, broker=None)))  # type: ignore[arg-type]
    assert "Permission denied" in (here.problem or "")


async def test_admins_see_it_and_have_it_look(
    portal: Portal, store: Store, browser: Browser
) -> None:
    report.path(portal.settings).unlink(missing_ok=True)
    token = (await person(portal, store)).token
    with portal.client(token) as other:
        assert other.get("/api/doctor").status_code == 403
        assert other.post("/api/doctor").status_code == 403
    with portal.admin() as admin:
        assert admin.get("/api/doctor").json()["checks"] == []
    ARTIFACTS.mkdir(exist_ok=True)
    page = await signed_in(browser, portal, 1280, "light")
    await page.goto(f"{portal.url}/health")
    await expect(page.get_by_text("The doctor has not looked yet")).to_be_visible()
    await expect(page.get_by_text("ai-infra backup create")).to_be_visible()
    rows = await page.locator(".empty .option").evaluate(LINES)
    assert rows == [1] * len(rows), "an option is broken at its hyphens"
    await page.get_by_role("button", name="Check now").click()
    redis = page.locator('[data-check="redis"]')
    await expect(redis).to_contain_text("answers", timeout=60_000)
    await expect(page.locator('[data-check="broker"]')).to_contain_text("not in local mode")
    first = page.locator(".checks .look").first
    await expect(first).to_contain_text("mend:")  # faults come first: the agents do not run here
    await page.screenshot(path=ARTIFACTS / "health-1280.png", full_page=True)
    await page.set_viewport_size({"width": 390, "height": 844})
    wider = "document.documentElement.scrollWidth - window.innerWidth"
    assert await page.evaluate(wider) <= 0
    await page.screenshot(path=ARTIFACTS / "health-390.png", full_page=True)
    with portal.admin() as admin:
        found = admin.get("/api/doctor").json()
        assert found["at"]
        assert found["checks"][0]["ok"] is False
        rows = admin.get("/api/audit", params={"type": "action"}).json()["rows"]
        assert isinstance(rows, list)
