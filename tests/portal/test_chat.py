"""Stories of the chat page in Chromium: files, branches, approvals in place, the list."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, expect

from base.bus import Bus
from base.messages import Kind
from base.store import Store
from tests.portal.conftest import Portal, Stage, soon
from tests.portal.test_approvals_portal import Clerk, clerk
from tests.portal.test_attachments import PNG
from tests.portal.test_pages import ARTIFACTS, last_task, log_in

__all__ = ["clerk"]

SEEN = """(() => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(%s)], '%s', {type: 'image/png'}));
  return data;
})()"""


async def until(what: str, true: Callable[[], Awaitable[Any]], seconds_s: float = 10.0) -> Any:
    end = soon(seconds_s)
    while not (found := await true()):
        assert asyncio.get_running_loop().time() < end, f"{what} did not happen"
        await asyncio.sleep(0.05)
    return found


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_label("Send").click()
    await expect(page.locator(".said").last).to_have_text(text)


async def newest_root(store: Store, content: str) -> str:
    sql = (
        "SELECT id FROM tasks WHERE type = 'request' AND input->>'content' = $1"
        " ORDER BY created_at DESC LIMIT 1"
    )
    return str(await until(f"a task for {content!r}", lambda: store.fetchval(sql, content)))


async def test_files_by_button_paste_and_drop(
    browser: Browser, portal: Portal, stage: Stage, tmp_path: Path
) -> None:
    page = await log_in(browser, portal, 1280, "light")
    code = tmp_path / "count.py"
    code.write_text("print('hello')\n")
    archive = tmp_path / "all.zip"
    archive.write_bytes(b"PK\x03\x04" + bytes(30))
    async with page.expect_file_chooser() as choosing:
        await page.get_by_label("Attach files").click()
    await (await choosing.value).set_files([code, archive])
    await expect(page.locator(".chip.bad")).to_contain_text("archives are not taken")
    await page.evaluate(
        "(data) => window.dispatchEvent(new ClipboardEvent('paste', "
        "{clipboardData: data, bubbles: true, cancelable: true}))",
        await page.evaluate_handle(SEEN % (list(PNG), "pasted.png")),
    )
    await page.evaluate(
        "(data) => window.dispatchEvent(new DragEvent('drop', "
        "{dataTransfer: data, bubbles: true, cancelable: true}))",
        await page.evaluate_handle(SEEN % (list(PNG), "dropped.png")),
    )
    await expect(page.locator(".chip.ready")).to_have_count(3)
    await page.get_by_label("Message", exact=True).fill("What do they show?")
    await page.get_by_label("Send").click()
    await expect(page.get_by_text("Remove the files that were not taken first.")).to_be_visible()
    await page.get_by_label("Remove all.zip").click()
    await page.get_by_label("Remove dropped.png").click()
    await page.screenshot(path=ARTIFACTS / "files-1280-light.png")
    await page.get_by_label("Send").click()
    await expect(page.locator(".turn .file")).to_have_count(2)
    await expect(page.locator(".chip")).to_have_count(0)
    picture = page.locator(".turn .file.image img")
    await expect(picture).to_have_attribute("alt", "pasted.png")
    rows = await stage.store.fetch(
        "SELECT a.filename, a.kind, a.size_bytes FROM attachments AS a JOIN tasks AS t"
        " ON t.message_id = a.message_id WHERE t.id = $1 ORDER BY a.place",
        await last_task(stage),
    )
    assert [(row["filename"], row["kind"]) for row in rows] == [
        ("count.py", "text"), ("pasted.png", "image"),
    ]  # fmt: skip
    assert rows[1]["size_bytes"] == len(PNG)
    async with page.expect_download() as coming:
        await page.locator(".turn .file").get_by_text("count.py").click()
    assert Path(await (await coming.value).path()).read_text() == "print('hello')\n"
    await page.reload()
    await expect(page.locator(".turn .file")).to_have_count(2)
    assert page.foreign == []  # type: ignore[attr-defined]
    await page.context.close()


async def test_edit_branches_and_retry_keeps_both_answers(
    browser: Browser, portal: Portal, clerk: Clerk, bus: Bus, store: Store
) -> None:
    stage = Stage(bus, store)
    page = await log_in(browser, portal, 1280, "light")
    await say(page, "Name a colour")
    first = await newest_root(store, "Name a colour")
    await stage.end(first, "Red.\n\n```python\nx = 'a very long line'\n```")
    await expect(page.locator(".answer")).to_contain_text("Red.")
    await expect(page.locator(".code-bar span")).to_have_text("python")
    await page.get_by_label("Wrap long lines").click()
    await expect(page.locator(".prose pre")).to_have_class("dressed wrapped")
    await page.get_by_label("Rate 4 of 5").click()
    await expect(page.get_by_label("Rate 4 of 5")).to_have_attribute("aria-pressed", "true")
    await page.get_by_label("Try again").click()
    await expect(page.get_by_text("The supervisor is reading your message")).to_be_visible()
    await expect(page.locator(".foot .switch, .run + .asked + .answer + .foot")).to_have_count(1)
    again = await until(
        "the retry",
        lambda: store.fetchval(
            "SELECT id FROM tasks WHERE input->>'retry_of' = $1 AND type = 'request'", first
        ),
    )
    await stage.end(str(again), "Blue.")
    await expect(page.locator(".answer")).to_have_text("Blue.")
    await expect(page.locator(".foot .switch")).to_contain_text("2/2")
    await page.get_by_label("Answer before").click()
    await expect(page.locator(".answer")).to_contain_text("Red.")
    await page.get_by_label("Answer after").click()
    await say(page, "Another one")
    await page.locator(".turn").first.hover()
    await page.get_by_label("Edit message").first.click()
    await page.locator(".editor textarea").fill("Name an animal")
    await page.get_by_role("button", name="Send as a new branch").click()
    await expect(page.locator(".said")).to_have_text(["Name an animal"])
    await expect(page.locator(".mine .switch")).to_contain_text("2/2")
    await stage.end(await newest_root(store, "Name an animal"), "A cat.")
    await expect(page.locator(".answer")).to_have_text("A cat.")
    await page.screenshot(path=ARTIFACTS / "branch-1280-light.png")
    await page.get_by_label("Version before").click()
    await expect(page.locator(".said")).to_have_text(["Name a colour", "Another one"])
    assert "at=" in page.url
    await page.reload()
    await expect(page.locator(".said")).to_have_text(["Name a colour", "Another one"])
    await say(page, "In this branch")  # not in the newest one
    await expect(page.locator(".said")).to_have_count(3)
    async with page.expect_download() as coming:
        await page.get_by_label("Export conversation").click()
        await page.get_by_text("Export as JSON").click()
    said = json.loads(Path(await (await coming.value).path()).read_text())["messages"]
    parents = {one["content"]: one["parent_message_id"] for one in said}
    ids = {one["content"]: one["id"] for one in said}
    assert parents["In this branch"] == ids["Another one"]
    assert parents["Name an animal"] is None
    await page.context.close()


async def test_an_approval_is_answered_where_it_is_seen(
    browser: Browser, portal: Portal, clerk: Clerk, bus: Bus, store: Store
) -> None:
    stage = Stage(bus, store)
    for width, scheme in ((1280, "light"), (390, "dark")):
        page = await log_in(browser, portal, width, scheme)
        sql = "SELECT TRUE FROM tasks WHERE id = $1 AND status = 'cancelled'"
        await say(page, f"Push it {width}")
        root = await newest_root(store, f"Push it {width}")
        part = await clerk.subtask(root)
        subtask = {"id": part["task_id"], "key": "s1", "agent": "code", "title": "Push the branch"}
        await stage.tell(root, Kind.PLAN, subtasks=[subtask])
        await stage.tell(
            root, Kind.TASK, part["task_id"], by="code", status="in_progress", phase="EXECUTE"
        )
        await page.get_by_role("button", name="Say something to code").click()
        await page.get_by_label("Message to the agent").fill("mind the tests")
        await page.get_by_role("dialog").get_by_role("button", name="Send").click()
        await expect(page.get_by_text("Told.")).to_be_visible()
        found = await clerk.escalate(part, argv=["git", "push", "origin", "main <b>"])
        ask = page.get_by_label("Approval", exact=True)
        await expect(ask).to_contain_text("git push origin 'main <b>'")
        await expect(ask).to_contain_text("the user asked")
        await page.screenshot(path=ARTIFACTS / f"approval-{width}-{scheme}.png")
        await ask.get_by_label("Reason").fill("not on a Friday")
        await ask.get_by_role("button", name="Deny").click()
        await expect(ask).to_have_count(0)
        row = await store.fetchrow("SELECT * FROM approvals WHERE id = $1", found.id)
        assert row is not None
        assert (row["status"], row["decided_why"]) == ("denied", "not on a Friday")
        again = await clerk.escalate(part, argv=["git", "push", "origin", "side"])
        await expect(ask).to_contain_text("git push origin side")
        await page.reload()
        await expect(ask).to_contain_text("git push origin side")
        await ask.get_by_role("button", name="Approve").click()
        await expect(ask).to_have_count(0)
        row = await store.fetchrow("SELECT status FROM approvals WHERE id = $1", again.id)
        assert row is not None
        assert row["status"] == "approved"
        if width == 390:
            overflow = "document.documentElement.scrollWidth - window.innerWidth"
            assert await page.evaluate(overflow) <= 0
        await page.get_by_role("button", name="Stop this step").click()
        await until("the stop", partial(store.fetchval, sql, part["task_id"]))
        await page.context.close()


async def test_the_list_finds_renames_archives_and_brings_back(
    browser: Browser, portal: Portal, stage: Stage
) -> None:
    await stage.store.execute("UPDATE conversations SET status = 'archived'")
    page = await log_in(browser, portal, 1280, "dark")
    for text in ("Plan the garden", "Mend the roof"):
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.get_by_text("What should the agents do?")).to_be_visible()
        await say(page, text)
    names = page.locator(".conversation .name")
    await expect(names).to_have_text(["Mend the roof", "Plan the garden"])
    await page.keyboard.press("Escape")
    find = page.get_by_label("Search conversations")
    await find.fill("GARDEN")
    await expect(names).to_have_text(["Plan the garden"])
    await find.fill("nothing like this")
    await expect(page.get_by_text("Nothing with these words.")).to_be_visible()
    await find.fill("")
    await expect(names).to_have_count(2)
    await page.locator(".conversation").first.get_by_label("Rename conversation").click()
    await page.get_by_label("New title").fill("The <b>roof</b>")
    await page.get_by_label("New title").press("Enter")
    await expect(names.first).to_have_text("The <b>roof</b>")
    await expect(page.locator(".topline .title")).to_have_text("The <b>roof</b>")
    await page.locator(".conversation").nth(1).hover()
    await page.get_by_label("Archive conversation").nth(1).click()
    await expect(names).to_have_count(1)
    await page.get_by_role("button", name="Undo").click()
    await expect(names).to_have_count(2)
    await page.get_by_label("Archive conversation").first.click()
    await expect(page.get_by_text("What should the agents do?")).to_be_visible()
    await page.get_by_role("button", name="Archived").click()
    await expect(names.first).to_have_text("The <b>roof</b>")
    await page.screenshot(path=ARTIFACTS / "archived-1280-dark.png")
    await page.locator(".conversation").first.hover()
    await page.get_by_label("Bring back").first.click()
    await page.get_by_role("button", name="Back to all").click()
    await expect(names).to_have_text(["The <b>roof</b>", "Plan the garden"])
    who = await stage.store.fetchval("SELECT id FROM users WHERE email = 'admin@local'")
    for at in range(45):
        await stage.store.execute(
            "INSERT INTO conversations (id, user_id, title, updated_at)"
            " VALUES ($1, $2, $3, NOW() - make_interval(days => $4))",
            *(str(uuid.uuid4()), who, f"Old {at}", at + 1),
        )
    await page.reload()
    await expect(names).to_have_count(40)
    await page.get_by_role("button", name="Load more").click()
    await expect(names).to_have_count(47)
    await stage.store.execute("UPDATE conversations SET status = 'archived'")
    await page.keyboard.press("n")
    await expect(page.get_by_text("What should the agents do?")).to_be_visible()
    await page.context.close()
