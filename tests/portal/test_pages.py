"""The chat page in Chromium: log in by link, send, see the plan and the streamed answer."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, expect

from base.messages import Kind
from tests.portal.conftest import Portal, Stage

ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"
ANSWER = """The word counter works: `count.py` reads a file and prints the ten most frequent words.

```python
from collections import Counter

def top(text: str, n: int = 10) -> list[tuple[str, int]]:
    \"\"\"The n most frequent words.\"\"\"
    return Counter(text.lower().split()).most_common(n)
```

| file | what it does |
|---|---|
| `count.py` | counts words |
| `test_count.py` | 6 tests, all pass |

<script>window.hacked = true</script> <img src=x onerror="window.hacked = true">

Run it with `python count.py FILE`.
"""


async def opened(browser: Browser, portal: Portal, width: int, scheme: Any, height: int) -> Page:
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = await context.new_page()
    page.set_default_timeout(15_000)
    foreign: list[str] = []
    page.on(
        "request", lambda asked: foreign.append(asked.url) if portal.url not in asked.url else None
    )
    page.foreign = foreign  # type: ignore[attr-defined]
    return page


def link(portal: Portal) -> str:
    """What lets the owner in."""
    with portal.admin() as admin:
        return portal.url + str(admin.post("/api/auth/links").json()["path"])


async def signed_in(
    browser: Browser, portal: Portal, width: int, scheme: Any, height: int = 860
) -> Page:
    """A page that has shown nothing yet, of one whom a link has let in."""
    page = await opened(browser, portal, width, scheme, height)
    answer = await page.context.request.get(link(portal), max_redirects=0)
    assert answer.status == 303
    return page


async def log_in(
    browser: Browser, portal: Portal, width: int, scheme: Any, height: int = 860
) -> Page:
    """The chat page, by a link."""
    page = await opened(browser, portal, width, scheme, height)
    await page.goto(link(portal))
    await expect(page.get_by_text("What should the agents do?")).to_be_visible()
    return page


async def play(stage: Stage, root_id: str) -> None:
    """A plan of three steps, half done."""
    ids = [str(uuid.uuid4()) for _ in range(3)]
    titles = [
        ("code", "Write count.py, which prints the ten most frequent words of a file"),
        ("data", "Collect three sample texts of different length into samples/"),
        ("qa", "Run the tests and check the output against a hand count"),
    ]
    subtasks = [
        {
            "id": ids[at],
            "key": f"s{at}",
            "agent": agent,
            "title": title,
            "instruction": title,
            "depends_on": ids[:2] if at == 2 else [],
            "effort": "standard",
            "criteria": [{"id": f"ISC-{at}", "text": f"Criterion {at} holds in the workspace"}],
        }
        for at, (agent, title) in enumerate(titles)
    ]
    await stage.tell(root_id, Kind.PLAN, subtasks=subtasks)
    await stage.tell(root_id, Kind.TASK, status="in_progress", progress=0.1)
    await stage.tell(
        root_id, Kind.TASK, ids[1], by="data", status="completed", progress=1.0, cost_usd=0.0031
    )
    await stage.tell(
        root_id,
        Kind.CRITERION,
        ids[1],
        by="data",
        id="ISC-1",
        text="Three sample files exist",
        verdict="passed",
        evidence="ls samples | wc -l → 3",
    )
    await stage.tell(
        root_id,
        Kind.TASK,
        ids[0],
        by="code",
        status="in_progress",
        phase="EXECUTE",
        progress=0.6,
        cost_usd=0.0123,
    )
    await stage.tell(
        root_id,
        Kind.TOOL,
        ids[0],
        by="code",
        name="shell",
        call_id="1",
        state="started",
        summary="python -m pytest -q test_count.py",
    )


async def last_task(stage: Stage) -> str:
    for _ in range(100):
        found = await stage.store.fetchval(
            "SELECT id FROM tasks WHERE type = 'request' ORDER BY created_at DESC LIMIT 1"
        )
        if found:
            return str(found)
        await asyncio.sleep(0.05)
    raise AssertionError("no task came")


async def test_a_message_its_plan_and_its_answer(
    browser: Browser, portal: Portal, stage: Stage
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    for width, scheme in ((1280, "light"), (390, "dark")):
        await stage.store.execute("UPDATE conversations SET status = 'archived'")
        page = await log_in(browser, portal, width, scheme)
        problems: list[str] = []
        page.on(
            "console",
            lambda said, to=problems: to.append(said.text) if said.type == "error" else None,
        )
        await expect(page.get_by_text("Rehearsal model: no AI is answering.")).to_be_visible()
        await page.screenshot(path=ARTIFACTS / f"empty-{width}-{scheme}.png")
        box = page.get_by_label("Message", exact=True)
        await box.fill("Write a word counter")
        await box.press("Shift+Enter")
        await box.type("with tests.")
        assert await box.input_value() == "Write a word counter\nwith tests."
        await box.press("Enter")
        await expect(page.locator(".said")).to_have_text("Write a word counter\nwith tests.")
        await expect(page.get_by_text("The supervisor is reading your message")).to_be_visible()
        root_id = await last_task(stage)
        await play(stage, root_id)
        await expect(page.get_by_text("1 of 3 done")).to_be_visible()
        await expect(page.get_by_text("shell python -m pytest -q test_count.py")).to_be_visible()
        await expect(page.locator(".phases .now")).to_have_text("Execute")
        await expect(page.get_by_text("ls samples | wc -l → 3")).to_be_visible()
        await expect(page.get_by_label("Stop")).to_be_visible()
        await page.screenshot(path=ARTIFACTS / f"working-{width}-{scheme}.png")
        half = len(ANSWER) // 2
        await stage.chunk(root_id, 1, "wrong start", attempt=1)
        await stage.chunk(root_id, 1, ANSWER[:half], attempt=2)
        await expect(page.locator(".answer")).to_contain_text("The word counter works")
        assert "wrong start" not in await page.locator(".answer").inner_text()
        await stage.chunk(root_id, 2, ANSWER[half:], attempt=2)
        await stage.end(root_id, ANSWER)
        await expect(page.get_by_text("Run it with")).to_be_visible()
        await expect(page.get_by_label("Stop")).to_be_hidden()
        assert await page.evaluate("window.hacked") is None
        await page.screenshot(path=ARTIFACTS / f"answered-{width}-{scheme}.png")
        await page.reload()
        await expect(page.get_by_text("Run it with")).to_be_visible()
        await expect(page.locator(".said")).to_have_text("Write a word counter\nwith tests.")
        assert page.foreign == []  # type: ignore[attr-defined]
        assert problems == []
        if width == 390:
            overflow = "document.documentElement.scrollWidth - window.innerWidth"
            assert await page.evaluate(overflow) <= 0
            await page.get_by_label("Menu", exact=True).click()
            await expect(page.locator(".agents")).to_contain_text("supervisor")
            await page.wait_for_timeout(400)
            await page.screenshot(path=ARTIFACTS / f"drawer-{width}-{scheme}.png")
            await page.get_by_role("button", name="New conversation").click()
            await expect(page.get_by_text("What should the agents do?")).to_be_visible()
            await expect(page.locator(".agents")).not_to_be_in_viewport()
            await page.get_by_label("Menu", exact=True).click()
            await page.locator(".conversation .name").click()
            await expect(page.get_by_text("Run it with")).to_be_visible()
            await expect(page.locator(".agents")).not_to_be_in_viewport()
            await page.get_by_label("Menu", exact=True).click()
            await page.get_by_label("Archive conversation").first.click()
            await expect(page.get_by_text("Nothing yet.")).to_have_count(1)
        await page.context.close()


async def test_the_page_stays_at_the_end_until_a_person_scrolls_up(
    browser: Browser, portal: Portal, stage: Stage
) -> None:
    page = await log_in(browser, portal, 1280, "light")
    await page.get_by_placeholder("Message the agents").fill("A long request.\n" * 120)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The supervisor is reading your message")).to_be_visible()
    root_id = await last_task(stage)
    await play(stage, root_id)
    last = page.get_by_text("Run the tests and check the output against a hand count")
    await expect(last).to_be_in_viewport()
    grow = "document.querySelector('.said').append('more '.repeat(3000))"
    await page.evaluate(f"{grow}; window.dispatchEvent(new Event('scroll'))")
    await page.wait_for_function("innerHeight + scrollY >= document.body.scrollHeight - 2")
    await page.mouse.move(700, 400)
    await page.mouse.wheel(0, -700)
    await page.wait_for_function("innerHeight + scrollY < document.body.scrollHeight - 300")
    before = await page.evaluate("scrollY")
    await stage.chunk(root_id, 1, "A long answer. " * 400)
    await expect(page.locator(".answer")).to_contain_text("A long answer.")
    assert await page.evaluate("scrollY") <= before
    await page.context.close()
