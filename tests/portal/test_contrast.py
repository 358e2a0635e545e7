"""Every page can be read, light and dark: WCAG AA, from the colours that Chromium computes."""

from __future__ import annotations

import uuid
from typing import Any

from keeper_world import memory
from playwright.async_api import Browser, Page, expect

from base.messages import Kind
from base.store import Store
from portal.auth import ADMIN_ID
from portal.pages.settings import PARTS
from tests.portal.conftest import Portal, Stage, asked, leave_asked
from tests.portal.test_login_page import CONTRAST_JS
from tests.portal.test_pages import ANSWER, play, signed_in
from tests.portal.test_pages_ledger import call
from tests.portal.test_pages_memory import World, made

__all__ = ["made"]
SCHEMES = ("light", "dark")
WIDTHS = (1280, 390)
#: Colours that are on their way are no colours to be judged.
STILL = "*, *::before, *::after { transition: none !important; animation: none !important }"


async def test_every_page_can_be_read(
    portal: Portal, browser: Browser, stage: Stage, store: Store, made: World
) -> None:
    with portal.admin() as admin:
        token = admin.headers["authorization"].removeprefix("Bearer ")
    talk, root_id = await lived_in(portal, store, stage, made, token)
    paths = [f"/chat/{talk}", f"/tasks/{root_id}", "/", "/agents", "/agents/code", "/tasks"]
    paths += ["/memory", "/domains", "/usage", "/approvals", "/audit", "/events"]
    paths += ["/backups", "/health"]
    paths += [f"/settings/{part.name}".rstrip("/") for part in PARTS]
    page = await signed_in(browser, portal, 1280, "light")
    faults = [fault for path in paths for fault in await measured(page, portal.url, path)]
    await page.context.close()
    for table in ("approvals", "api_usage"):  # others share this portal
        await store.execute(f"DELETE FROM {table} WHERE task_id = $1", root_id)
    assert faults == []


async def measured(page: Page, url: str, path: str) -> list[str]:
    """What cannot be read there."""
    await page.goto(url + path)
    await page.wait_for_function("window.did_handshake")
    await expect(page.locator(".body")).to_be_visible()
    await page.add_style_tag(content=STILL)
    if path == "/domains":  # one stands for all: the sheet is the shell's
        await page.keyboard.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
    faults = []
    for width in WIDTHS if path.startswith(("/chat", "/tasks")) else WIDTHS[:1]:
        await page.set_viewport_size({"width": width, "height": 860})
        for scheme in SCHEMES:
            faults += [f"{path} {width} {scheme}: {one}" for one in await unread(page, scheme)]
    return faults


async def unread(page: Page, scheme: Any) -> list[str]:
    await page.emulate_media(color_scheme=scheme)
    dark = "true" if scheme == "dark" else "false"
    await page.wait_for_function(f"document.body.classList.contains('body--dark') === {dark}")
    found = await page.evaluate(CONTRAST_JS)
    assert found["texts"] > 5
    faults: list[str] = found["faults"]
    return faults


async def lived_in(
    portal: Portal, store: Store, stage: Stage, made: World, token: str
) -> tuple[str, str]:
    """A conversation and a task at work, with what the other pages show."""
    talk, sent = await asked(portal, token, "Count the words")
    await stage.end(sent["task_id"], ANSWER)
    headers = {"content": "And of another file"}
    with portal.client(token) as client:
        sent = client.post(f"/api/conversations/{talk}/messages", json=headers).json()
    root_id = sent["task_id"]
    await play(stage, root_id)
    await stage.chunk(root_id, 0, ANSWER)
    await store.execute(
        "INSERT INTO approvals (task_id, user_id, agent, call_id, request, binding, subject, risk,"
        " sentence, expires_at) VALUES ($1, $2, 'code', $5, $4, $3, $3, 'high', 'It is asked.',"
        " now() + interval '1 hour')",
        *(root_id, ADMIN_ID, "0" * 64, leave_asked(root_id, ADMIN_ID), uuid.uuid4().hex),
    )
    await call(store, "code", "opus", 0, 12.5, root_id)
    await call(store, "qa", "haiku", 1, 0.75, root_id, provider="rehearsal")
    await stage.tell(root_id, Kind.TASK, status="failed", progress=1.0, error="no luck")
    await made.client.remember(
        memory("The pump room opens with a code.", user_id=ADMIN_ID, tags=("doors",)),
        memory("A page says so.", user_id=ADMIN_ID, tainted=True, source="https://example.org"),
    )
    return talk, root_id
