"""The settings in Chromium: what is set there counts, and a key is never seen again."""

from __future__ import annotations

import uuid

import pytest
from playwright.async_api import Browser, Page, expect

from base.store import Store
from tests.portal.conftest import Portal, Stage, person
from tests.portal.test_pages import ARTIFACTS, log_in, signed_in
from tests.portal.test_settings_api import BUDGETS, admin

__all__ = ["admin"]

SECRET = "sk-ant-api03-" + uuid.uuid4().hex
PARTS = ("", "security", "tokens", "people", "keys", "models", "budgets", "levels", "limits",
         "system", "agents", "files", "files?file=budgets", "agents?agent=code")  # fmt: skip
WIDER = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture
def own(admin: object, portal: Portal) -> Portal:
    """A portal with a budget of one's own."""
    (portal.settings.config / "budgets.toml").write_text(BUDGETS)
    return portal


async def go(page: Page, portal: Portal, part: str) -> None:
    await page.goto(f"{portal.url}/settings" + (f"/{part}" if part else ""))
    await expect(page.locator(".settings .parts [aria-current]")).to_be_visible()


async def test_a_key_a_budget_and_what_needs_to_start_anew(
    own: Portal, browser: Browser, stage: Stage
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page = await signed_in(browser, own, 1280, "light")
    said: list[str] = []
    page.on("console", lambda one: said.append(one.text) if one.type == "error" else None)
    await go(page, own, "keys")
    await expect(page.get_by_role("heading", name="No AI is answering yet")).to_be_visible()
    await page.get_by_role("button", name="Set anthropic-api-key").click()
    sheet = page.locator(".sheet")
    await sheet.get_by_label("Value").fill("two words")
    await sheet.get_by_role("button", name="Keep it").click()
    await expect(page.get_by_text("one line of plain characters")).to_be_visible()
    await sheet.get_by_label("Value").fill(SECRET)
    await sheet.get_by_role("button", name="Keep it").click()
    key = page.locator('[data-key="anthropic-api-key"]')
    await expect(key).to_contain_text("set, in a file")
    assert (own.settings.secrets / "anthropic-api-key").read_text().strip() == SECRET
    await page.get_by_role("button", name="Restart them").first.click()
    await page.get_by_role("button", name="Restart", exact=True).click()
    await expect(page.get_by_text("Not restarted: qa: qa is stopped")).to_be_visible()
    asked = [one["agent"] for one in stage.asked if one.get("verb") == "restart"]
    assert (asked[0], asked[-1]) == ("supervisor", "portal")
    for path in [f"settings/{part}".rstrip("/") for part in PARTS]:
        made = await page.request.get(f"{own.url}/{path}")
        assert made.ok, path
        assert SECRET not in await made.text(), path
    for path in ("settings", "settings/keys", "settings/settings", "settings/extensions"):
        answer = await page.request.get(f"{own.url}/api/{path}")
        assert answer.ok, await answer.text()
        assert SECRET not in await answer.text(), path

    await go(page, own, "budgets")
    limit = page.locator('[data-at="daily.hard_limit_usd"]')
    number = limit.get_by_role("spinbutton", name="Limit")
    await expect(number).to_have_value("40")
    await number.fill("-3")
    await page.get_by_role("button", name="Save").click()
    await expect(limit).to_contain_text("greater than or equal to 0")
    assert (own.settings.config / "budgets.toml").read_text() == BUDGETS
    await number.fill("65.5")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Read at the start only by: supervisor.")).to_be_visible()
    assert (own.settings.config / "budgets.toml").read_text() == BUDGETS.replace("40.0", "65.5")
    await page.screenshot(path=ARTIFACTS / "settings-budgets-1280-light.png")
    (own.settings.config / "budgets.toml").write_text(BUDGETS.replace("40.0", "41.0"))
    await number.fill("70")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Somebody else changed this file")).to_be_visible()
    await page.get_by_role("button", name="Load it again").click()
    await expect(number).to_have_value("41")
    await limit.get_by_role("button", name="Limit: back to shipped").click()
    await page.get_by_role("button", name="Save").click()
    await expect(number).to_have_value("100")

    await go(page, own, "files?file=budgets")
    area = page.get_by_label("budgets.toml")
    await area.fill("[daily]\nhard_limit_usd = 'no'\n")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("daily.hard_limit_usd")
    await area.fill("# Mine now.\n[daily]\nhard_limit_usd = 5.0\n")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Read at the start only by: supervisor.")).to_be_visible()
    assert (own.settings.config / "budgets.toml").read_text().startswith("# Mine now.")
    assert said == []
    assert page.foreign == []  # type: ignore[attr-defined]


async def test_theme_zone_tokens_and_a_session_that_is_ended(
    own: Portal, browser: Browser, store: Store
) -> None:
    page = await signed_in(browser, own, 1280, "light")
    other = await log_in(browser, own, 1280, "light")
    await go(page, own, "")
    await page.get_by_role("button", name="Dark", exact=True).click()
    await expect(page.locator("body.body--dark")).to_be_visible()
    zone = page.get_by_label("Time zone")
    await zone.fill("Pacific/Auckland")
    await page.get_by_role("option", name="Pacific/Auckland", exact=True).click()
    await page.get_by_label("Display name").fill("Ada <b>L.</b>")
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_function("window.aiZone === 'Pacific/Auckland'")
    await go(page, own, "security")
    await expect(page.locator("body.body--dark")).to_be_visible()
    at = page.locator("time").first
    shown = await at.evaluate(
        "(one) => one.textContent === new Intl.DateTimeFormat(undefined, {dateStyle: 'medium',"
        " timeStyle: 'short', timeZone: 'Pacific/Auckland'}).format(new Date(one.dateTime))"
    )
    assert shown
    await page.screenshot(path=ARTIFACTS / "settings-security-1280-dark.png")
    await expect(page.get_by_role("button", name="End the session on")).not_to_have_count(0)
    await page.get_by_role("button", name="End all others").click()
    await page.get_by_role("button", name="End them").click()
    await expect(other).to_have_url(own.url + "/login", timeout=8_000)
    await expect(page.get_by_role("button", name="End the session on")).to_have_count(0)

    await go(page, own, "tokens")
    await page.get_by_role("button", name="New token").click()
    await page.get_by_label("Name", exact=True).fill("nightly")
    await page.get_by_role("button", name="Make it").click()
    await expect(page.get_by_text("Choose what it may")).to_be_visible()
    await page.get_by_role("checkbox", name="see the agents and their state").click()
    await page.get_by_role("button", name="Make it").click()
    token = await page.locator(".secret input").input_value()
    with own.client(token) as client:
        assert client.get("/api/agents").status_code == 200
        assert client.get("/api/settings").status_code == 403
    await page.get_by_role("button", name="Done").click()
    await expect(page.get_by_role("cell", name="nightly ait_")).to_be_visible()
    await page.reload()
    assert token not in await page.content()
    await page.get_by_role("button", name="Revoke nightly").click()
    await page.get_by_role("button", name="Revoke", exact=True).click()
    row = page.get_by_role("cell", name="nightly ait_")
    await expect(row).to_have_count(0, timeout=15_000)
    with own.client(token) as client:
        assert client.get("/api/agents").status_code == 401

    await go(page, own, "people")
    await page.get_by_role("button", name="Invite", exact=True).click()
    await page.get_by_label("Email").fill("grace@test.example")
    await page.get_by_role("button", name="Invite", exact=True).last.click()
    link = await page.locator(".secret input").input_value()
    await page.get_by_role("button", name="Done").click()
    await expect(page.get_by_role("button", name="grace@test.example")).to_contain_text("invited")
    assert (await page.request.get(link)).ok
    await page.get_by_role("button", name="grace@test.example").click()
    await page.get_by_role("button", name="Deactivate", exact=True).click()
    await page.get_by_role("button", name="Deactivate", exact=True).last.click()
    row = page.get_by_role("button", name="grace@test.example")
    await expect(row).to_contain_text("deactivated")
    assert (await page.request.get(link)).status == 401
    await store.execute("UPDATE users SET time_zone = NULL, display_name = 'Admin'")


async def test_a_phone_at_night_and_somebody_who_is_no_admin(
    own: Portal, browser: Browser, store: Store
) -> None:
    page = await signed_in(browser, own, 390, "dark")
    for part in PARTS:
        await go(page, own, part)
        assert await page.evaluate(WIDER) <= 0, part
        unnamed = await page.evaluate(
            "[...document.querySelectorAll('.settings :is(input, textarea, button)')].filter("
            "(one) =>"
            " !one.labels?.length && !one.ariaLabel && !one.textContent.trim()"
            " && !one.closest('label, [aria-label]')).length"
        )
        assert unnamed == 0, part
    await go(page, own, "keys")
    await page.screenshot(path=ARTIFACTS / "settings-keys-390-dark.png")
    somebody = await person(own, store)
    theirs = await (await browser.new_context()).new_page()
    await theirs.goto(f"{own.url}/login?next=/settings")
    await theirs.get_by_label("Email").fill(somebody.email)
    await theirs.get_by_label("Password").fill(somebody.password)
    await theirs.get_by_role("button", name="Log in", exact=True).click()
    await expect(theirs.locator(".settings .parts a")).to_have_count(3)
    await expect(theirs.get_by_text("No AI is answering yet")).to_have_count(0)
    for part in ("keys", "people", "files", "nothing"):
        await theirs.goto(f"{own.url}/settings/{part}")
        await expect(theirs.get_by_text("no part")).to_be_visible()
