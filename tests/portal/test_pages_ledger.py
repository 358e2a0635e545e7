"""The pages for audit, usage and domains in Chromium."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, date, datetime, timedelta

import pytest
from audit_steps import event, running, until_rows
from playwright.async_api import Browser, expect

from base import audit_verify
from base.audit_writer import Writer
from base.bus import Bus
from base.store import Store
from portal.pages import bars
from tests.portal.conftest import Person, Portal, asked, person
from tests.portal.test_pages import ARTIFACTS, signed_in

expect.set_options(timeout=15_000)
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
ROWS = 70


async def written_down(portal: Portal, store: Store, bus: Bus) -> str:
    """A log of the portal's own home: a start row and `ROWS` events; who did the last."""
    for table in ("audit_logs", "audit_chain"):
        await store.execute(f"DELETE FROM {table}")
    shutil.rmtree(portal.settings.home / "audit", ignore_errors=True)
    somebody = await person(portal, store)
    writer = Writer(portal.settings, store, bus)
    async with running(writer):
        await until_rows(store, 1)
        await writer.write([event(number) for number in range(ROWS - 1)])
        last = event(
            ROWS, event_type="auth", action="login", actor_type="user", actor_id=somebody.id,
            outcome="denied", risk_level="high", resource_path="portal",
            details={"task_id": "t-9", "said": "<b>Nightingale</b>"},
        )  # fmt: skip
        await writer.write([last])
    return somebody.email


async def test_the_log_is_read_verified_and_taken_along(
    browser: Browser, portal: Portal, store: Store, bus: Bus
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    email = await written_down(portal, store, bus)
    page = await signed_in(browser, portal, 1280, "light")
    await page.goto(portal.url + "/audit")
    rows = page.locator(".entry")
    await expect(rows).to_have_count(50)
    await page.get_by_role("button", name="Show older").click()
    await expect(rows.nth(ROWS)).to_be_attached()
    await page.get_by_label("Words").fill("nightINGALE")
    await expect(rows).to_have_count(1)
    await expect(rows.first).to_contain_text(email)
    await rows.first.locator("summary").click()
    await expect(rows.first.locator("pre")).to_contain_text("<b>Nightingale</b>")
    await page.get_by_label("Words").fill("")
    await expect(rows).to_have_count(50)
    for name, choice in (("Type", "auth"), ("Risk", "high"), ("Outcome", "denied")):
        await page.get_by_role("combobox", name=name).click()
        await page.get_by_role("option", name=choice).click()
    await page.get_by_label("Actor").fill(email)
    await page.get_by_label("Task id").fill("t-9")
    await expect(rows).to_have_count(1)
    await page.get_by_label("Task id").fill("another")
    await expect(page.get_by_text("No row fits")).to_be_visible()

    await page.get_by_role("button", name="Verify").click()
    await expect(page.get_by_text("Verified: nothing was changed.")).to_be_visible()
    await expect(page.get_by_text("Not found: what was cut off")).to_be_visible()
    await page.screenshot(path=ARTIFACTS / "audit-1280-light.png")
    seq = await store.fetchval("SELECT seq FROM audit_logs WHERE details->>'number' = '7'")
    undo = await store.fetchval("SELECT actor_id FROM audit_logs WHERE seq = $1", seq)
    await store.execute("UPDATE audit_logs SET actor_id = 'mallory' WHERE seq = $1", seq)
    await page.get_by_role("button", name="Verify").click()
    await expect(page.get_by_text("Tampered: 1 fault found.")).to_be_visible()
    await expect(page.locator(".report li")).to_contain_text(f"edited row {seq}")
    await page.screenshot(path=ARTIFACTS / "audit-tampered-1280-light.png")
    await store.execute("UPDATE audit_logs SET actor_id = $2 WHERE seq = $1", seq, undo)

    async with page.expect_download() as saved:
        await page.get_by_role("link", name="Export").click()
    taken = await saved.value
    assert taken.suggested_filename.endswith(".jsonl")
    with (await taken.path()).open("rb") as lines:
        report = await asyncio.to_thread(audit_verify.check_file, lines, None)
    assert (report.ok, report.rows >= ROWS) == (True, True)
    await page.context.close()
    page = await signed_in(browser, portal, 390, "dark")
    await page.goto(portal.url + "/audit")
    await expect(page.locator(".entry").first).to_be_visible()
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "audit-390-dark.png")
    await page.context.close()
    somebody = await person(portal, store)
    with portal.client(somebody.token) as client:
        assert (await asyncio.to_thread(client.get, "/api/audit/export")).status_code == 403


async def call(
    store: Store, agent: str, model: str, days: int, cost_usd: float, task_id: str | None = None,
    *, provider: str = "anthropic", read: int = 1_000, cached: int = 0,
) -> None:  # fmt: skip
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens,"
        " cache_read_tokens, cost_usd, task_id, timestamp) VALUES ($1, $2, $3, $4, 500, $5, $6,"
        " $7, $8)",
        *(agent, provider, model, read, cached, cost_usd, task_id),
        datetime.now(UTC) - timedelta(days=days),
    )


async def seeded(portal: Portal, store: Store) -> tuple[Person, str]:
    """A person with a dear task, besides calls of nobody's task."""
    await store.execute("DELETE FROM api_usage")
    somebody = await person(portal, store)
    _, sent = await asked(portal, somebody.token, "Count all the <b>whales</b>")
    dear: str = sent["task_id"]
    await call(store, "code", "opus", 0, 12.5, dear, read=1_000, cached=3_000)
    await call(store, "qa", "haiku", 5, 2.25)
    await call(store, "code", "opus", 60, 30.0)
    await call(store, "code", "opus", 1, 0.75, provider="rehearsal")
    return somebody, dear


async def test_usage_by_day_agent_and_model(browser: Browser, portal: Portal, store: Store) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    somebody, dear = await seeded(portal, store)
    page = await signed_in(browser, portal, 1280, "light")
    await page.goto(portal.url + "/usage")
    tiles = page.locator(".usage > .tiles")
    await expect(tiles).to_contain_text("$14.75")
    await expect(tiles).to_contain_text("50%")  # 3,000 of the 6,000 tokens that were read
    await expect(page.get_by_text("Rehearsed: $0.75.")).to_be_visible()
    await expect(page.locator(".limits")).to_contain_text("$12.50 of $100.00")
    await expect(page.locator(".limits [role=progressbar]").first).to_have_attribute(
        "aria-valuenow", "12"
    )
    chart = page.locator(".chart")
    await expect(chart.locator("rect")).to_have_count(2)
    today = f"{datetime.now(UTC).date():%a %d %b}"
    titles = await chart.locator("rect title").all_text_contents()
    assert f"{today}: code $12.50" in titles
    heights = [await one.get_attribute("height") for one in await chart.locator("rect").all()]
    tall = sorted(float((one or "0").rstrip("%")) for one in heights)
    assert tall == [15.0, pytest.approx(83.333)]
    task = page.get_by_role("link", name="Count all the <b>whales</b>")
    await expect(task).to_have_attribute("href", f"/tasks/{dear}")
    await page.screenshot(path=ARTIFACTS / "usage-1280-light.png", full_page=True)
    await page.get_by_role("button", name="By model").click()
    await expect(chart.locator(".legend")).to_contain_text("haiku")
    await page.get_by_role("button", name="Rehearsed cost").click()
    await expect(chart.locator("rect")).to_have_count(1)
    await page.get_by_role("button", name="Tokens").click()
    await expect(chart.locator("rect")).to_have_count(3)
    await page.get_by_role("button", name="90 days").click()
    await expect(tiles).to_contain_text("$44.75")
    await page.get_by_role("button", name="7 days").click()
    await expect(tiles).to_contain_text("$14.75")
    assert page.foreign == []  # type: ignore[attr-defined]
    await page.context.close()

    context = await browser.new_context(viewport={"width": 390, "height": 860}, color_scheme="dark")
    page = await context.new_page()
    await page.goto(portal.url + "/login?next=/usage")
    await page.get_by_label("Email").fill(somebody.email)
    await page.get_by_label("Password").fill(somebody.password)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.locator(".usage > .tiles")).to_contain_text("$12.50")
    await expect(page.get_by_text("calls of your own tasks")).to_be_visible()
    await expect(page.get_by_text("haiku")).to_have_count(0)
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "usage-390-dark.png", full_page=True)
    await page.goto(portal.url + "/domains")
    await expect(page.get_by_text("Not available in local mode")).to_be_visible()
    await expect(page.locator("main").get_by_role("button")).to_have_count(0)
    assert await page.evaluate(OVERFLOW) <= 0
    await page.goto(portal.url + "/audit")
    await expect(page.get_by_text("This page is for admins.")).to_be_visible()
    await context.close()


def test_bars_are_stacked_in_round_figures() -> None:
    days = [date(2026, 11, 1) + timedelta(days=at) for at in range(3)]
    series = {"<i>a</i>": [1.0, 0.0, 2.0], "b": [3.0, 0.0, 3.0]}
    drawn = bars.chart(days, series, label='a "chart"', said=lambda figure: f"{figure:.0f}")
    assert drawn.count("<rect") == 4
    assert "<i>a</i>" not in drawn
    assert 'aria-label="a &quot;chart&quot;"' in drawn
    assert [bars.ceiling(high) for high in (0, 0.02, 1.0, 5.0, 95)] == [1, 0.03, 1.2, 6, 120]
    many = {f"n{at}": [float(at)] * 3 for at in range(1, 11)}
    kept = bars.top(many)
    assert (len(kept), list(kept)[-1]) == (bars.COLOURS, bars.REST)
    assert sum(sum(values) for values in kept.values()) == sum(sum(v) for v in many.values())
