"""The pages in front of the door in Chromium: on a phone, light and dark, without scripts."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.portal.conftest import Portal
from tests.portal.test_pages import ARTIFACTS

pytestmark = pytest.mark.xdist_group("gate")
WIDE_JS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
#: How many texts can be seen, and which of them cannot be read, by WCAG's formula.
CONTRAST_JS = (Path(__file__).parent / "contrast.js").read_text()


async def opened(browser: Browser, scheme: Any, **options: Any) -> Page:
    context = await browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=scheme, **options
    )
    page = await context.new_page()
    page.set_default_timeout(15_000)
    return page


async def fine(page: Page, name: str) -> None:
    """It fits, can be read, and is kept as a picture."""
    assert await page.evaluate(WIDE_JS) <= 0
    assert (await page.evaluate(CONTRAST_JS))["faults"] == []
    await page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_light_and_dark(gate: Portal, browser: Browser, scheme: str) -> None:
    with gate.admin() as admin:
        email = f"{uuid.uuid4().hex[:6]}.with.a.rather.long.name@department.example.test"
        link = admin.post("/api/users", json={"email": email}).json()["invitation"]
    page = await opened(browser, scheme, java_script_enabled=True)
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    await page.goto(f"{gate.url}/login?next=/events")
    await expect(page.get_by_role("link", name="Log in with GitHub")).to_be_visible()
    await fine(page, f"login-{scheme}")
    await page.get_by_label("Email").fill("nobody@test")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("The email or the password is wrong.")
    await expect(page.get_by_label("Email")).to_have_value("nobody@test")
    await fine(page, f"login-wrong-{scheme}")
    await page.goto(gate.url + link["path"])
    await expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
    await fine(page, f"welcome-{scheme}")
    assert await page.locator("script").count() == 0
    assert [one for one in asked if not one.startswith(gate.url)] == []
    await page.context.close()


async def test_an_invitation_from_the_link_to_the_chat_without_a_script(
    portal: Portal, browser: Browser
) -> None:
    with portal.admin() as admin:
        email = f"{uuid.uuid4().hex[:8]}@test"
        link = admin.post("/api/users", json={"email": email}).json()["invitation"]
    page = await opened(browser, "light", java_script_enabled=False)
    await page.goto(link["url"])
    await page.get_by_label("Your name").fill("Mona")
    await page.get_by_label("New password").fill("quite a new one")
    await page.get_by_label("Once more").fill("quite another one")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("The two passwords are not the same.")
    await expect(page.get_by_label("Your name")).to_have_value("Mona")
    await page.get_by_label("New password").fill("quite a new one")
    await page.get_by_label("Once more").fill("quite a new one")
    await page.get_by_role("button", name="Log in").click()
    await page.wait_for_url(portal.url + "/")
    cookie = (await page.context.cookies())[0]
    with portal.client() as client:
        me = client.get("/api/auth/me", headers={"Cookie": f"ai-infra={cookie['value']}"}).json()
    assert (me["email"], me["display_name"]) == (email, "Mona")
    await page.context.close()


async def test_the_theme_that_was_chosen_holds_here_too(portal: Portal, browser: Browser) -> None:
    for system, chosen in (("light", "dark"), ("dark", "light")):
        page = await opened(browser, system)
        await page.goto(f"{portal.url}/login")
        before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.context.add_cookies([{"name": "ai-theme", "value": chosen, "url": portal.url}])
        await page.reload()
        after = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert before != after
        assert (await page.evaluate(CONTRAST_JS))["faults"] == []
        await page.context.close()
