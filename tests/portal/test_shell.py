"""The frame around all pages: where a login leads, keys, the rail, times, light and dark."""

from __future__ import annotations

import httpx
import pytest
from playwright.async_api import Browser, expect

from base.messages import Kind
from base.store import Store
from portal.pages.shell import PLACES, back_path
from tests.portal.conftest import Portal, Stage, asked, person
from tests.portal.test_pages import ARTIFACTS, log_in


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        (None, "/"),
        ("", "/"),
        ("/events", "/events"),
        ("/chat/1?a=b", "/chat/1?a=b"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/events\nSet-Cookie: a=b", "/"),
        ("/\tevil", "/"),
    ],
)
def test_a_login_leads_to_pages_of_ours_alone(wanted: str | None, path: str) -> None:
    assert back_path(wanted) == path


def test_the_places_have_keys_of_their_own() -> None:
    assert len({place.key for place in PLACES}) == len(PLACES)
    assert len({place.path for place in PLACES}) == len(PLACES)


async def test_a_login_leads_back_to_what_was_asked_for(portal: Portal, store: Store) -> None:
    who = await person(portal, store)
    origin = {"origin": portal.url}
    async with httpx.AsyncClient(base_url=portal.url, verify=False, headers=origin) as client:
        sent = await client.get("/events?a=b")
        assert (sent.status_code, sent.headers["location"]) == (
            303,
            "/login?next=%2Fevents%3Fa%3Db",
        )
        form = await client.get(sent.headers["location"])
        assert 'name="next"\nvalue="/events?a=b"' in form.text
        fields = {"email": who.email, "password": who.password}
        wrong = await client.post("/login", data={**fields, "password": "no", "next": "/events"})
        assert 'value="/events"' in wrong.text
        back = await client.post("/login", data={**fields, "next": "/events?a=b"})
        assert back.headers["location"] == "/events?a=b"
        away = await client.post("/login", data={**fields, "next": "//evil.example"})
        assert away.headers["location"] == "/"


async def test_events_are_shown_as_they_happen_inside_the_frame(
    portal: Portal, browser: Browser, stage: Stage
) -> None:
    page = await log_in(browser, portal, 1280, "dark")
    await page.keyboard.press("Escape")
    await page.goto(portal.url + "/events")
    with portal.admin() as admin:
        token = admin.headers["authorization"].removeprefix("Bearer ")
    _, sent = await asked(portal, token, "count the words")
    await stage.tell(sent["task_id"], Kind.TOOL, by="code", name="write", state="started",
                     summary="<b>counts-here.py</b>")  # fmt: skip
    row = page.locator(".event", has_text="started write <b>counts-here.py</b>")
    await expect(row).to_be_visible()
    await expect(row.locator("time")).not_to_contain_text("UTC")
    await page.get_by_label("Words").fill("no such words")
    await expect(page.get_by_text("Nothing fits these filters.")).to_be_visible()
    await page.get_by_label("Words").fill("counts-here.py")
    await expect(page.locator(".event")).to_have_count(1)
    await page.get_by_role("button", name="Pause").click()
    await stage.tell(sent["task_id"], Kind.TOOL, by="code", name="read", state="started",
                     summary="counts-here.py again")  # fmt: skip
    await page.wait_for_timeout(400)
    await expect(page.locator(".event")).to_have_count(1)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".event")).to_have_count(2)
    await page.screenshot(path=ARTIFACTS / "events-dark.png")

    await page.locator("body").press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Light or dark").click()
    await expect(page.locator("body.body--light")).to_be_visible()
    await page.locator("body").press("g")
    await page.locator("body").press("c")
    await page.wait_for_url("**/chat")
    await expect(page.locator("body.body--light")).to_be_attached()
    assert page.foreign == []  # type: ignore[attr-defined]


async def test_what_a_browser_needs_to_install_it(portal: Portal) -> None:
    with portal.client() as client:
        manifest = client.get("/static/manifest.webmanifest").json()
        for icon in manifest["icons"]:
            image = client.get(icon["src"]).raise_for_status()
            width = int.from_bytes(image.content[16:20], "big")
            assert f"{width}x{width}" == icon["sizes"]
