"""The memory page in Chromium over a real keeper: find, change, forget, add; goals and history."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
import redis.asyncio as redis
from keeper_world import World, memory, world
from playwright.async_api import Browser, Page, expect

from base import streams
from base.store import Store
from pai import telos
from pai.keeper import take
from pai.shapes import SHARED, Learned, Query, Told
from portal.auth import ADMIN_ID
from tests.portal.conftest import Portal, person
from tests.portal.test_pages import ARTIFACTS, signed_in

expect.set_options(timeout=15_000)
EVIL = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>'
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@pytest_asyncio.fixture(loop_scope="session")
async def made(portal: Portal, tmp_path: Path) -> AsyncIterator[World]:
    """A keeper over the portal's own record and wire."""
    settings = portal.settings
    # What other tests told and no keeper has heard yet is not this world's.
    async with redis.from_url(settings.redis) as wire:
        await wire.delete(streams.MEMORY)
    async with world(tmp_path / "home", settings.postgres, settings.redis) as running:
        await running.stores.store.execute("DELETE FROM memory")
        yield running


async def open_page(browser: Browser, portal: Portal, path: str, width: int, scheme: str) -> Page:
    page = await signed_in(browser, portal, width, scheme)
    await page.goto(portal.url + path)
    return page


async def found(made: World, text: str) -> list[str]:
    answer = await made.client.search(Query(text=text, user_id=ADMIN_ID))
    return [item.memory.text for item in answer.items]


async def test_a_memory_is_found_changed_and_forgotten(
    browser: Browser, portal: Portal, made: World
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    task_id = str(uuid.uuid4())
    pump = memory("The pump room opens with the code zebra.", user_id=ADMIN_ID, speaker="Rosa",
                  conversation_id=str(uuid.uuid4()), tags=("doors",))  # fmt: skip
    page_text = memory(f"A page says {EVIL} and nothing of animals.", user_id=ADMIN_ID,
                       agent="research", tainted=True, source="https://example.org")  # fmt: skip
    policy = memory("Everybody has three copies.", user_id=SHARED, collection="knowledge")
    alien = memory("Bob's own zebra.", user_id=str(uuid.uuid4()))
    await made.client.remember(pump, page_text, policy, alien)
    lesson = Learned(phase="BUILD", lesson="Look first.", applies_when="it is dark",
                     evidence="1 of 1", outcome="success")  # fmt: skip
    told = Told(verb="learned", user_id=ADMIN_ID, agent="code", task_id=task_id, learned=(lesson,))
    await take(made.stores, told)
    page = await open_page(browser, portal, "/memory", 1280, "light")
    rows = page.locator("article.memory")
    await expect(rows).to_have_count(4)
    tainted = rows.filter(has_text="A page says")
    await expect(tainted).to_contain_text("text from outside")
    await expect(tainted).to_contain_text("<script>")
    assert await page.evaluate("window.hacked") is None
    shared = rows.filter(has_text="three copies")
    await expect(shared.get_by_role("button")).to_have_count(0)
    await page.screenshot(path=ARTIFACTS / "memory-1280-light.png")

    await page.get_by_label("Search memory").fill("which zebra code?")
    await expect(page.get_by_text("best first")).to_be_visible()
    first = rows.first
    await expect(first).to_contain_text("The pump room opens")
    await expect(first).to_contain_text("Rosa")
    await expect(first).to_contain_text("utility 0.")
    await expect(first.locator(".figures b")).to_be_visible()
    await expect(first.get_by_role("link", name="conversation")).to_be_visible()
    await expect(page.get_by_text("Bob's own")).to_have_count(0)
    await page.get_by_role("combobox", name="Tier").click()
    await page.get_by_role("option", name="Cold (archive)").click()
    await expect(page.get_by_text("Nothing fits")).to_be_visible()
    await page.get_by_role("combobox", name="Tier").click()
    await page.get_by_role("option", name="Hot and warm").click()

    await first.get_by_role("button", name="Edit").click()
    box = page.get_by_label("Text", exact=True)
    await box.fill("   ")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("there is nothing in it to remember")
    await box.fill("The pump room opens with the code giraffe.")
    await page.screenshot(path=ARTIFACTS / "memory-edit-1280-light.png")
    await page.get_by_role("button", name="Save").click()
    await expect(first).to_contain_text("giraffe")
    await expect(first).to_contain_text("changed by hand")
    assert (await found(made, "giraffe"))[0] == "The pump room opens with the code giraffe."
    card = await made.card(pump.id)
    assert card is not None
    assert (card["speaker"], "zebra" in str(card)) == ("Rosa", False)

    await first.get_by_role("button", name="Forget").click()
    await page.get_by_role("button", name="Cancel").click()
    assert await made.card(pump.id) is not None
    await first.get_by_role("button", name="Forget").click()
    await page.locator(".q-dialog").get_by_role("button", name="Forget").click()
    await expect(page.get_by_text("nothing is found")).to_be_visible()
    await page.screenshot(path=ARTIFACTS / "memory-forgotten-1280-light.png")
    await page.get_by_role("button", name="Close").click()
    await expect(rows.filter(has_text="giraffe")).to_have_count(0)
    assert await made.card(pump.id) is None

    await page.get_by_role("tab", name="Learnings").click()
    learned = page.locator("article.memory").filter(has_text="Look first.")
    await expect(learned).to_contain_text("it is dark")
    await expect(learned).to_contain_text("50%, not judged yet")
    await page.get_by_role("combobox", name="Phase").click()
    await page.get_by_role("option", name="Verify").click()
    await expect(page.get_by_text("Nothing was learned yet")).to_be_visible()
    await page.get_by_role("tab", name="Statistics").click()
    await expect(page.get_by_text("of 50,000 in all")).to_be_visible()
    await page.get_by_role("button", name="Everybody's").click()
    await expect(page.get_by_text("hash-64")).to_be_visible()
    assert page.foreign == []  # type: ignore[attr-defined]
    await page.context.close()


async def test_a_text_and_a_file_are_remembered_on_a_phone(
    browser: Browser, portal: Portal, made: World, tmp_path: Path
) -> None:
    page = await open_page(browser, portal, "/memory", 390, "dark")
    await expect(page.get_by_text("Nothing is remembered yet")).to_be_visible()
    await page.get_by_role("button", name="Remember").click()
    await page.get_by_label("Text to remember").fill("The kettle is blue.")
    await page.get_by_role("button", name="Remember it").click()
    await expect(page.locator("article.memory")).to_contain_text("The kettle is blue.")
    await page.get_by_role("button", name="Remember", exact=True).click()
    handbook, image = tmp_path / "handbook.md", tmp_path / "picture.txt"
    long = "\n" * 1_100_000  # more than a request of the API may have
    handbook.write_text(
        "# One\n\n" + "All about pumps. " * 60 + long + "# Two\n\nAll about valves.\n"
    )
    image.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    await expect(page.get_by_label("Text to remember")).to_have_value("")
    await page.locator('input[type="file"]').set_input_files(image)
    await expect(page.get_by_text("picture.txt: no text in UTF-8")).to_be_visible()
    await page.locator('input[type="file"]').set_input_files(handbook)
    await expect(page.get_by_text("Remembered handbook.md in 3 pieces")).to_be_visible()
    await page.screenshot(path=ARTIFACTS / "memory-add-390-dark.png")
    await page.get_by_role("button", name="Close").click()
    assert "# Two\n\nAll about valves." in await found(made, "valves")
    await page.get_by_label("Search memory").fill("valves")
    first = page.locator("article.memory").first
    await expect(first).to_contain_text("All about valves.")
    await expect(first).to_contain_text("handbook.md")
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "memory-390-dark.png")
    await page.context.close()


async def test_memory_is_looked_through_and_changed_over_rest(
    portal: Portal, store: Store, made: World
) -> None:
    somebody = await person(portal, store)
    mine = memory("The lamp is green.", user_id=somebody.id)
    theirs = memory("Not yours.", user_id=ADMIN_ID)
    await made.client.remember(mine, theirs, memory("Lamps glow.", user_id=somebody.id, kind="odd"))
    headers = {"Authorization": f"Bearer {somebody.token}"}
    async with httpx.AsyncClient(
        base_url=portal.url, verify=False, headers=headers, timeout=20
    ) as client:
        found: list[str] = []
        query: dict[str, Any] = {"limit": 1, "tier": ["warm", "hot"], "order": "utility"}
        while True:
            page = (await client.get("/api/memory", params=query)).json()
            found += [card["memory"]["text"] for card in page["cards"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert sorted(found) == ["Lamps glow.", "The lamp is green."]
        for bad in ({"order": "x"}, {"tier": "luke"}, {"cursor": "x"}, {"kind": "a\0"}):
            assert (await client.get("/api/memory", params=bad)).status_code == 422, bad
        card = (await client.get(f"/api/memory/{mine.id}")).json()
        assert (card["memory"]["text"], card["tier"]) == ("The lamp is green.", "warm")
        assert (await client.get(f"/api/memory/{theirs.id}")).status_code == 404
        change = {"text": "The lamp is red.", "tags": ["light"], "seen": card["hash"]}
        done = await client.patch(f"/api/memory/{mine.id}", json=change)
        assert done.status_code == 200, done.text
        assert done.json()["card"]["memory"]["tags"] == ["light"]
        assert done.json()["kept"]
        assert (await client.patch(f"/api/memory/{mine.id}", json=change)).status_code == 409
        assert (await client.patch(f"/api/memory/{theirs.id}", json=change)).status_code == 404
        for wrong in ({"text": " "}, {}, {"text": "x", "user_id": ADMIN_ID}, {"text": "a\0"}):
            answer = await client.patch(f"/api/memory/{mine.id}", json=wrong)
            assert answer.status_code == 422, wrong


async def test_without_a_keeper_the_page_says_so(browser: Browser, portal: Portal) -> None:
    page = await open_page(browser, portal, "/memory", 1280, "light")
    await expect(page.get_by_text("Memory does not answer")).to_be_visible(timeout=12_000)
    await page.context.close()


async def test_goals_are_edited_compared_and_restored(
    browser: Browser, portal: Portal, store: Store
) -> None:
    path = telos.folder(portal.settings) / "vision.md"
    page = await open_page(browser, portal, "/memory?tab=goals", 1280, "light")
    await page.get_by_role("button", name="Vision").click()
    await expect(page.get_by_text("only the template's comments")).to_be_visible()
    template = path.read_text()
    box = page.get_by_label("Text in Markdown")
    for text in ("# Vision\n\nA calm **week**.\n", "# Vision\n\nA calm **month**.\n"):
        await box.fill(text)
        await expect(page.get_by_text("Not saved yet")).to_be_visible()
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("Not saved yet")).to_have_count(0)
        await expect(page.get_by_label("Preview").locator("strong")).to_be_visible()
        assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600
    goals = telos.compose(*telos.read(telos.folder(portal.settings)))
    assert "A calm **month**." in goals.text
    versions = page.locator(".version")
    await expect(versions).to_have_count(3)
    await versions.nth(1).get_by_role("button", name="Compare").click()
    await expect(page.locator(".diff del")).to_contain_text("A calm **week**.")
    await expect(page.locator(".diff ins")).to_contain_text("A calm **month**.")
    await page.screenshot(path=ARTIFACTS / "goals-1280-light.png", full_page=True)
    await versions.nth(2).get_by_role("button", name="Restore").click()
    await page.locator(".q-dialog").get_by_role("button", name="Restore").click()
    await expect(page.get_by_text("Restored")).to_be_visible()
    assert path.read_text() == template
    # Somebody's editor was quicker: nothing of either is lost.
    await box.fill("# Vision\n\nMine.\n")
    await expect(page.get_by_text("Not saved yet")).to_be_visible()
    path.write_text("# Vision\n\nFrom the editor.\n")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("changed meanwhile")).to_be_visible()
    assert path.read_text() == "# Vision\n\nFrom the editor.\n"
    await expect(box).to_have_value("# Vision\n\nMine.\n")
    path.write_text(template)
    await page.context.close()

    somebody = await person(portal, store)
    context = await browser.new_context(viewport={"width": 390, "height": 800})
    page = await context.new_page()
    await page.goto(portal.url + "/login?next=/memory?tab=goals")
    await page.get_by_label("Email").fill(somebody.email)
    await page.get_by_label("Password").fill(somebody.password)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_text("only admins change them")).to_be_visible()
    await expect(page.get_by_role("button", name="Save")).to_have_count(0)
    assert await page.evaluate(OVERFLOW) <= 0
    await context.close()
