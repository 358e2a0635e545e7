"""Backups where there is a broker: the API and the page ask its verbs, and a restore, which stops
the portal in the middle, is told of once it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, expect
from present import wait_for

from base.store import Store
from portal import backups, broker
from portal.auth import Caller
from portal.underway import Underway
from tests.portal.conftest import Portal, person, running
from tests.portal.test_api import problem
from tests.portal.test_pages import ARTIFACTS, signed_in
from tests.provision.rig import Rig, made

pytestmark = pytest.mark.xdist_group("backups")  # one portal and one broker
expect.set_options(timeout=20_000)
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
FIRST = "1a2b3c4d"


class Place:
    """An appliance's portal, which can be stopped and started, and its broker, whose backup verbs
    are played.
    """

    def __init__(self, broker: Rig, redis: str, dsn: str, folder: Path) -> None:
        self.broker = broker
        self._started = (folder, redis, dsn)
        self._held = contextlib.ExitStack()
        self.portal: Portal | None = None

    def start(self) -> Portal:
        own = {"AI_INFRA_BROKER": str(self.broker.socket)}
        self.portal = self._held.enter_context(
            running(*self._started, limited=False, again=self.portal, **own)
        )
        return self.portal

    def stop(self) -> None:
        self._held.close()

    def mark(self, name: str, *, there: bool = True) -> None:
        path = self.broker.state / name
        path.touch() if there else path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def place(short_tmp: Path, redis_server: str, portal_dsn: str) -> Iterator[Place]:
    with made(redis_server, portal_dsn) as broker:
        found = Place(broker, redis_server, portal_dsn, short_tmp)
        try:
            portal = found.start()
            broker.rules(inbox=portal.settings.inbox)
            broker.others = (portal.settings.home,)
            broker.start()
            (broker.state / "portal").write_text(str(portal.settings.home))
            yield found
        finally:
            found.stop()


@pytest.fixture(autouse=True)
def empty(place: Place) -> None:
    """No snapshots, and nothing known of any."""
    for name in ("snapshots.json", "hold", "full", "stopping", "did"):
        place.mark(name, there=False)
    assert place.portal is not None
    for name in ("backup.json", "backup-proofs.json", "restore.json"):
        (place.portal.settings.home / name).unlink(missing_ok=True)


@pytest.fixture
def portal(place: Place) -> Portal:
    """For the shared fixtures: the store and the bus are this portal's."""
    assert place.portal is not None
    return place.portal


def progress(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/backups/progress").json()
    return found


def ended(client: httpx.Client) -> dict[str, Any]:
    """The work that was begun last, once it is over."""
    wait_for("the end", lambda: progress(client)["work"]["state"] != "running", 60)
    found: dict[str, Any] = progress(client)["work"]
    return found


def backed_up(client: httpx.Client) -> None:
    assert client.post("/api/backups").status_code == 202
    assert ended(client)["state"] == "done"


def test_a_backup_is_made_listed_and_checked(place: Place, portal: Portal) -> None:
    with portal.admin() as admin:
        found = admin.get("/api/backups").json()
        assert (found["snapshots"], found["place"], found["local"]) == ([], "/mnt/kept", False)
        assert found["timers"][0]["unit"] == "ai-backup.timer"
        place.mark("hold")
        key = {"Idempotency-Key": "once"}
        begun = admin.post("/api/backups", headers=key)
        assert begun.status_code == 202, begun.text
        assert begun.json()["state"] == "running"
        assert admin.post("/api/backups", headers=key).json()["id"] == begun.json()["id"]
        wait_for("its step", lambda: progress(admin)["work"]["step"] == "dumping the database", 20)
        assert "is being made" in problem(admin.post("/api/backups"), 409)["detail"]
        problem(admin.post("/api/backups/verify"), 409)
        place.mark("hold", there=False)
        assert ended(admin)["step"] == "writing to /mnt/kept: 45 %"
        (one,) = admin.get("/api/backups").json()["snapshots"]
        assert (one["id"], one["size_bytes"], one["counts"]["tasks"]) == (FIRST, 734_003_200, 120)
        assert progress(admin)["last"]["snapshot"] == FIRST
        backed_up(admin)
        assert [one["id"] for one in admin.get("/api/backups").json()["snapshots"]] == [
            "1a2b3c4e",
            FIRST,
        ], "the newest first"
        assert admin.post("/api/backups/verify?quick=true").status_code == 202
        assert ended(admin)["state"] == "done"
        assert progress(admin)["verified"]["whole"] is False
        assert place.broker.did == [
            "backed up for admin",
            "backed up for admin",
            "verified, whole False",
        ]
        place.mark("full")
        admin.post("/api/backups")
        failed = ended(admin)
        assert (failed["state"], failed["problem"]) == ("failed", "no space is left at /mnt/kept")


def test_a_restore_wants_its_snapshots_name_and_outlives_the_portal(
    place: Place, portal: Portal
) -> None:
    where = f"/api/backups/{FIRST}"
    with portal.admin() as admin:
        backed_up(admin)
        plan = admin.post(f"{where}/plan", json={"parts": ["database"]}).json()
        assert plan == {
            "snapshot": FIRST,
            "plan": [f"fetch {FIRST}", "put database in place"],
            "command": None,
        }
        for wrong in ({}, {"confirm": "yes"}, {"confirm": "latest"}, {"confirm": "1A2B3C4D"}):
            problem(admin.post(f"{where}/restore", json=wrong), 422)
        problem(admin.post("/api/backups/latest/restore", json={"confirm": "latest"}), 422)
        body = {"confirm": FIRST, "parts": ["database", "root"]}
        problem(admin.post(f"{where}/restore", json=body), 422)
        unknown = admin.post("/api/backups/ffffffff/restore", json={"confirm": "ffffffff"})
        assert "no snapshot ffffffff" in problem(unknown, 404)["detail"]
        assert not any(line.startswith("restored") for line in place.broker.did)
        place.mark("hold")
        begun = admin.post(f"{where}/restore", json={"confirm": FIRST, "parts": ["database"]})
        assert begun.status_code == 202, begun.text
        wait_for("the stop", (place.broker.state / "stopping").exists, 20)
        found = progress(admin)
        assert (found["restored"]["step"], found["restored"]["ended_at"]) == ("stopping", None)
    place.stop()  # as the real one does; the broker goes on
    place.mark("hold", there=False)
    wait_for("the restore", lambda: place.broker.did[-1].startswith("restored"), 20)
    portal = place.start()
    with portal.admin() as admin:
        found = progress(admin)
        assert found["work"] is None
        assert found["restored"]["ended_at"]
        assert found["restored"]["problem"] is None
        assert found["restored"]["aside"] == "/var/lib/ai-infra/aside/20261128"
    assert place.broker.did[-1] == f"restored {FIRST} database for admin"


def test_one_that_fails_says_why(place: Place, portal: Portal) -> None:
    with portal.admin() as admin:
        backed_up(admin)
        place.mark("full")
        admin.post(f"/api/backups/{FIRST}/restore", json={"confirm": FIRST})
        assert "planted" in ended(admin)["problem"]
        assert "planted" in progress(admin)["restored"]["problem"]


async def test_nobody_else_may(place: Place, portal: Portal, store: Store) -> None:
    somebody = await person(portal, store)
    with portal.admin() as admin, portal.client(somebody.token) as user:
        backed_up(admin)
        for method, path, body in (
            ("GET", "", None), ("POST", "", None), ("GET", "/progress", None),
            ("POST", "/verify", None), ("POST", f"/{FIRST}/plan", {}),
            ("POST", f"/{FIRST}/restore", {"confirm": FIRST}),
        ):  # fmt: skip
            problem(user.request(method, f"/api/backups{path}", json=body), 403)
        asked = {"name": "reader", "scopes": ["agents:read"]}
        token = admin.post("/api/tokens", json=asked).json()["token"]
        with portal.client(token) as program:
            problem(program.get("/api/backups"), 403)
            problem(program.post(f"/api/backups/{FIRST}/restore", json={"confirm": FIRST}), 403)
    assert place.broker.did == ["backed up for admin"]


async def test_a_broker_that_is_away_is_said(place: Place, portal: Portal) -> None:
    place.broker.end()
    try:
        with portal.admin() as admin:
            said = problem(admin.get("/api/backups"), 503)
            assert "root broker cannot be asked" in said["detail"]
            assert admin.get("/api/backups/progress").status_code == 200
            admin.post("/api/backups")
            assert "root broker" in ended(admin)["problem"]
    finally:
        await asyncio.to_thread(place.broker.start)


@pytest.mark.timeout(300)
async def test_an_end_while_the_list_is_asked_for_is_told_by_the_next(
    place: Place, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page asks for the list again when something has ended since it asked."""
    desk: Any = SimpleNamespace(
        settings=portal.settings.model_copy(update={"broker": place.broker.socket}),
        underway=Underway(),
    )
    told = {
        "snapshots": [], "place": "/mnt/kept", "key": "", "workspaces": False,
        "keep": {"daily": 7, "weekly": 4, "monthly": 6}, "timers": [], "busy": False,
    }  # fmt: skip

    async def answer(*_: Any, **__: Any) -> Any:
        found = {"snapshot": FIRST, "at": "2026-11-29T12:00:00Z", "place": "/mnt", "took_s": 1.0}
        (portal.settings.home / "backup.json").write_text(json.dumps(found))
        return SimpleNamespace(result=dict(told))

    monkeypatch.setattr(broker, "ask", answer)
    admin = Caller(user_id="u", email="", role="admin", session_id=None, expires_at_s=0.0)
    listed = await backups.backups(desk, admin)
    assert (listed.snapshots, listed.progress.last) == ([], None)
    assert (await backups.progress(desk, admin)).last is not None


async def test_the_page(browser: Browser, place: Place, portal: Portal) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page = await signed_in(browser, portal, 1280, "light")
    await page.goto(portal.url + "/backups")
    await expect(page.get_by_text("No backups yet")).to_be_visible()
    await expect(page.locator(".facts")).to_contain_text("/etc/ai-infra/backup.key")
    await expect(page.locator(".facts")).to_contain_text("ai-backup-verify.timer is off")
    # Made, with what is done meanwhile.
    place.mark("hold")
    await page.get_by_role("button", name="Back up now").click()
    await expect(page.locator(".doing")).to_contain_text("Backing up: dumping the database")
    await expect(page.get_by_role("button", name="Back up now")).to_be_disabled()
    await page.screenshot(path=ARTIFACTS / "backups-making-1280-light.png")
    place.mark("hold", there=False)
    row = page.get_by_role("region", name=FIRST)
    await expect(row).to_contain_text("120 tasks, 410 messages, 1 memory, 2 users")
    await expect(row).to_contain_text("734.0 MB")
    await expect(page.locator(".doing")).to_be_hidden()
    await page.get_by_role("button", name="Check", exact=True).click()
    await expect(page.locator(".facts .pill.good")).to_have_text("sound")
    await page.get_by_role("button", name="Back up now").click()
    await expect(page.get_by_role("region", name="1a2b3c4e")).to_be_visible()
    await page.screenshot(path=ARTIFACTS / "backups-1280-light.png", full_page=True)
    # One that fails says so.
    place.mark("full")
    await page.get_by_role("button", name="Back up now").click()
    await expect(page.locator(".notice.bad")).to_contain_text("no space is left at /mnt/kept")
    place.mark("full", there=False)
    # Restored: the plan of what is chosen, and the name typed.
    await row.get_by_role("button", name=f"Restore {FIRST}").click()
    sheet = page.get_by_role("dialog")
    await expect(sheet.locator(".steps")).to_contain_text("put database, vectors, memory")
    await sheet.get_by_text("Certificates", exact=True).click()
    await sheet.get_by_text("Sites and their releases").click()
    await expect(sheet.locator(".steps")).to_have_text(
        re.compile("put database, vectors, memory, configuration in place$")
    )
    go = sheet.get_by_role("button", name=f"Restore {FIRST}")
    await expect(go).to_be_disabled()
    await sheet.get_by_label("Write 1a2b3c4d").fill("1a2b3c4e")
    await expect(go).to_be_disabled()
    await sheet.get_by_label("Write 1a2b3c4d").fill(FIRST)
    await expect(go).to_be_enabled()
    await page.screenshot(path=ARTIFACTS / "backups-restore-1280-light.png")
    await page.set_viewport_size({"width": 390, "height": 860})
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=ARTIFACTS / "backups-restore-390-dark.png")
    place.mark("hold")
    await go.click()
    await expect(page.locator(".doing")).to_contain_text(f"Restoring {FIRST}: stopping")
    # The portal goes and comes back, while the page stands.
    await asyncio.to_thread(place.stop)
    await expect(page.locator(".restoring")).to_contain_text(f"{FIRST} is being restored")
    await expect(page.locator(".restoring small")).to_contain_text("stopped for")
    await page.screenshot(path=ARTIFACTS / "backups-stopped-390-dark.png")
    place.mark("hold", there=False)
    await asyncio.to_thread(place.start)
    await expect(page.locator(".notice.good")).to_contain_text(f"Restored {FIRST}", timeout=40_000)
    await expect(page.locator(".notice.good")).to_contain_text("ai_infra_before")
    await expect(page.locator(".restoring")).to_have_count(0)
    await expect(page.get_by_role("region", name=FIRST)).to_be_visible()
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "backups-390-dark.png", full_page=True)
    # One that was cut off, with nobody at work.
    assert place.portal is not None
    path = place.portal.settings.home / "restore.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"ended_at": None, "step": "stopping"})
    )
    await page.reload()
    await expect(page.locator(".notice.bad")).to_contain_text("was cut off")
    # What somebody else began, and ends without a word, stands there only while it goes on.
    place.mark("hold")
    await page.reload()
    await expect(page.locator(".doing")).to_contain_text(f"Restoring {FIRST}: stopping")
    await expect(page.get_by_role("button", name="Back up now")).to_be_disabled()
    place.mark("hold", there=False)
    await expect(page.get_by_role("button", name="Back up now")).to_be_enabled(timeout=30_000)
    await expect(page.locator(".doing")).to_be_hidden()
    await expect(page.locator(".notice.bad")).to_contain_text("--undo")
    assert page.foreign == []  # type: ignore[attr-defined]
