"""The approvals page in Chromium: the order of the queue, answers by keyboard, live, history."""

from __future__ import annotations

import uuid

from playwright.async_api import Browser, expect

from base.approvals import Approval
from base.store import Store
from portal.auth import ADMIN_ID
from tests.portal.conftest import Portal, asked, person
from tests.portal.test_approvals_portal import EVIL, Clerk, clerk
from tests.portal.test_pages import ARTIFACTS, signed_in

__all__ = ["clerk"]
expect.set_options(timeout=15_000)
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
PUSH = ["git", "push", "origin", "main"]


async def spent(store: Store, task_id: str, cost_usd: float, provider: str = "anthropic") -> None:
    await store.execute(
        "INSERT INTO api_usage (agent, provider, model, input_tokens, output_tokens, cost_usd,"
        " task_id) VALUES ('code', $3, 'opus', 10, 10, $2, $1)",
        *(task_id, cost_usd, provider),
    )


async def part(clerk: Clerk, portal: Portal, token: str, content: str) -> dict[str, str]:
    _, sent = await asked(portal, token, content)
    return await clerk.subtask(sent["task_id"])


async def state(store: Store, found: Approval) -> tuple[str, str]:
    row = await store.fetchrow("SELECT status, decided_why FROM approvals WHERE id = $1", found.id)
    assert row is not None
    return row["status"], row["decided_why"]


async def test_the_queue_is_answered_by_keyboard(
    browser: Browser, portal: Portal, store: Store, clerk: Clerk
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page = await signed_in(browser, portal, 1280, "light")
    await page.goto(portal.url + "/approvals")
    rows = page.locator(".ask")
    old = await person(portal, store)
    cheap = await part(clerk, portal, old.token, "Publish the notes")
    dear = await part(clerk, portal, old.token, "Rebuild the index")
    await spent(store, dear["task_id"], 4.2)
    await spent(store, cheap["task_id"], 9.9, provider="rehearsal")
    await store.execute("UPDATE api_usage SET cost_usd = 0.5 WHERE task_id = $1", cheap["task_id"])
    older = await clerk.escalate(cheap, argv=PUSH)
    reach = {"kind": "domain", "tool": "fetch", "argv": ["fetch", "https://x.example"]}
    same = await clerk.escalate(cheap, host="x.example:443", reason="", **reach)
    first = await clerk.escalate(
        dear, argv=["git", "push", "--force", EVIL], destructive=True, reason="<b>because</b>"
    )
    # `escalate` of the stage ends those of other tasks: these wait again.
    await store.execute(
        "UPDATE approvals SET status = 'pending' WHERE id = ANY($1::uuid[])", [older.id, same.id]
    )
    # Other people's requests send no event to this page: its next look finds them.
    await expect(rows).to_have_count(3)
    assert [await rows.nth(at).get_attribute("data-id") for at in range(3)] == [
        first.id,
        older.id,
        same.id,
    ]
    await expect(rows.first).to_contain_text("$4.20 spent")
    await expect(rows.nth(1)).to_contain_text("$0.50 rehearsed spent")
    await expect(rows.first.locator(".command")).to_contain_text("git push --force")
    await expect(rows.first.locator(".unseen").first).to_be_visible()
    await expect(rows.first).to_contain_text("<b>because</b>")
    await expect(rows.first.get_by_role("timer")).to_contain_text("left")
    before = await rows.first.get_by_role("timer").inner_text()
    await expect(rows.first.get_by_role("timer")).not_to_have_text(before)

    await page.keyboard.press("a")  # nobody is chosen: nothing happens
    await page.keyboard.press("j")
    await expect(rows.first).to_have_attribute("aria-current", "true")
    await page.keyboard.press("Enter")
    await expect(rows.first.get_by_text(first.binding)).to_be_visible()
    await expect(rows.first).to_contain_text("Read the command before you approve")
    await page.screenshot(path=ARTIFACTS / "approvals-1280-light.png", full_page=True)
    await page.keyboard.press("j")
    await page.keyboard.press("k")
    await expect(rows.first).to_have_attribute("aria-current", "true")
    await page.keyboard.press("a")  # high: it asks once more
    await expect(page.get_by_text("There is no way back")).to_be_visible()
    assert (await state(store, first))[0] == "pending"
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_text("There is no way back")).to_have_count(0)
    assert (await state(store, first))[0] == "pending"
    await page.keyboard.press("j")
    await page.keyboard.press("k")
    await page.keyboard.press("a")
    await page.get_by_role("button", name="Approve all the same").click()
    await expect(rows).to_have_count(2)
    assert await state(store, first) == ("approved", "")

    await page.keyboard.press("j")
    await expect(rows.first).to_have_attribute("aria-current", "true")
    await page.keyboard.press("r")
    await page.keyboard.type("a not from here jd")
    await page.keyboard.press("Escape")
    await page.keyboard.press("d")
    await expect(rows).to_have_count(1)
    assert await state(store, older) == ("denied", "a not from here jd")
    past = page.locator(".past")
    await expect(past.filter(has_text="approved").first).to_contain_text("git push --force")
    await past.filter(has_text="denied").first.locator("summary").click()
    await expect(past.filter(has_text="denied").first).to_contain_text("a not from here jd")
    await expect(past.filter(has_text="denied").first).to_contain_text("admin@local")

    # Somebody else was quicker, and the page had not heard of it yet.
    await store.execute(
        "UPDATE approvals SET status = 'denied', decided_at = now(), decided_by = $2 WHERE id = $1",
        *(same.id, ADMIN_ID),
    )
    await page.keyboard.press("j")
    await page.keyboard.press("a")
    await expect(page.get_by_text("Nothing waits for you")).to_be_visible()
    assert (await state(store, same))[0] == "denied"
    assert page.foreign == []  # type: ignore[attr-defined]
    await page.context.close()


async def test_ones_own_requests_come_at_once_on_a_phone(
    browser: Browser, portal: Portal, store: Store, clerk: Clerk
) -> None:
    page = await signed_in(browser, portal, 390, "dark")
    await page.goto(portal.url + "/approvals")
    with portal.admin() as admin:
        token = admin.headers["Authorization"].removeprefix("Bearer ")
    task = await part(clerk, portal, token, "Publish " + "a very long title " * 12)
    await clerk.escalate(task, argv=["git", "push", "x" * 300])
    row = page.locator(".ask").filter(has_text="git push xxx")
    await expect(row).to_be_visible()
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "approvals-390-dark.png")
    await row.get_by_label("Reason").fill("not today")
    await row.get_by_role("button", name="Deny").click()
    await expect(page.locator(".past").filter(has_text="git push xxx")).to_be_visible()
    assert (
        await store.fetchval(
            "SELECT decided_why FROM approvals WHERE task_id = $1", uuid.UUID(task["task_id"])
        )
        == "not today"
    )
    await page.context.close()
