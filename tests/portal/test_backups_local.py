"""Backups in local mode: made and checked by the command, in a process of its own; a restore, which
would stop the portal, answers with the command that does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from base import streams
from base.bus import Bus
from tests.portal.conftest import Portal, running
from tests.portal.test_api import problem
from tests.portal.test_backups import OVERFLOW, ended, progress
from tests.portal.test_pages import ARTIFACTS, signed_in

pytestmark = pytest.mark.xdist_group("backups-local")  # one portal
if shutil.which("restic") is None and not os.environ.get("CI"):
    pytest.skip("restic is not installed", allow_module_level=True)


@contextlib.contextmanager
def keeper(redis: str) -> Iterator[None]:
    """Somebody who holds still when asked, as the keeper does; or a backup waits for it."""
    ready, over = threading.Event(), threading.Event()

    async def answer(payload: dict[str, Any]) -> dict[str, Any]:
        return {"copied": False}

    async def serve() -> None:
        bus = await Bus.open(redis, "played-keeper")
        task = asyncio.create_task(bus.serve(streams.SERVICE_MEMORY, answer), name="keeper")
        ready.set()
        await asyncio.to_thread(over.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bus.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="keeper")
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        over.set()
        thread.join(20)


@pytest.fixture(scope="module")
def portal(short_tmp: Path, redis_server: str, portal_dsn: str) -> Iterator[Portal]:
    """One of its own: what is made stays in its home."""
    own = running(short_tmp, redis_server, portal_dsn, limited=False)
    with keeper(redis_server), own as started:
        yield started


def test_one_is_made_checked_and_looked_into(portal: Portal) -> None:
    with portal.admin() as admin:
        found = admin.get("/api/backups").json()
        assert (found["snapshots"], found["local"], found["timers"]) == ([], True, [])
        assert found["place"] == str(portal.settings.home / "backups")
        assert admin.post("/api/backups").status_code == 202
        made = ended(admin)
        assert (made["state"], made["problem"]) == ("done", None)
        assert made["step"] == "letting old snapshots go", "steps were heard"
        (one,) = admin.get("/api/backups").json()["snapshots"]
        assert progress(admin)["last"]["snapshot"] == one["id"]
        assert one["size_bytes"] > 0
        assert one["counts"]["users"] >= 1
        admin.post("/api/backups/verify")
        assert ended(admin)["problem"] is None
        assert progress(admin)["verified"]["whole"] is True
        where = f"/api/backups/{one['id']}"
        plan = admin.post(f"{where}/plan", json={"parts": ["memory"]}).json()
        assert "user" in plan["plan"][0]
        assert plan["command"].endswith(f"ai-infra backup restore {one['id']} --part memory")
        said = problem(admin.post(f"{where}/restore", json={"confirm": one["id"]}), 409)
        assert said["type"] == "urn:ai-infra:problem:not-available-in-local-mode"
        assert f"ai-infra backup restore {one['id']}" in said["detail"]
        problem(admin.post("/api/backups/ffffffff/plan", json={}), 404)
        assert progress(admin)["restored"] is None


def test_a_fault_is_told_in_its_own_words(portal: Portal) -> None:
    path = portal.settings.home / "config" / "backup.toml"
    path.write_text('repository = "ftp://x/y"\n')
    path.chmod(0o600)
    try:
        with portal.admin() as admin:
            said = problem(admin.get("/api/backups"), 409)["detail"]
            assert said == (
                "backup.toml: repository: a folder (/…), sftp://USER@HOST/FOLDER, or "
                "s3:https://HOST/BUCKET"
            )
            admin.post("/api/backups")
            assert "repository" in ended(admin)["problem"]
    finally:
        path.unlink()


async def test_the_page_says_what_to_type(browser: Browser, portal: Portal) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    with portal.admin() as admin:
        if not admin.get("/api/backups").json()["snapshots"]:
            admin.post("/api/backups")
            assert await asyncio.to_thread(ended, admin)
    page = await signed_in(browser, portal, 1280, "light")
    await page.goto(portal.url + "/backups")
    await expect(page.locator(".facts")).to_contain_text("17 3 * * * ai-infra backup create")
    await page.get_by_role("button", name="Restore").first.click()
    sheet = page.get_by_role("dialog")
    command = f"AI_INFRA_HOME={portal.settings.home} ai-infra backup restore "
    await expect(sheet.locator(".command")).to_have_text(re.compile(f"^{command}[0-9a-f]{{8}}$"))
    await expect(sheet.get_by_text("Certificates")).to_have_count(0)
    await expect(sheet.get_by_role("button", name="Restore")).to_have_count(0)
    await page.screenshot(path=ARTIFACTS / "backups-local-1280-light.png")
    await page.set_viewport_size({"width": 390, "height": 860})
    await page.screenshot(path=ARTIFACTS / "backups-local-390-light.png")
    await sheet.get_by_role("button", name="Close").click()
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "backups-local-list-390-light.png", full_page=True)
