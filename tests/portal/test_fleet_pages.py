"""The pages of agents, tasks and events in Chromium."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from base import streams
from base.bus import Bus
from base.messages import Event, Kind
from base.store import Store
from portal.auth import ADMIN_ID
from portal.terminals import SESSION
from tests.portal.conftest import Portal, Stage, asked
from tests.portal.test_fleet import RUNNING, beat, watching
from tests.portal.test_pages import ARTIFACTS, play, signed_in
from tests.portal.test_screens import Session, clients, session
from tests.present import wait_for

__all__ = ["session"]
pytestmark = pytest.mark.xdist_group("agents-session")
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


def watched(page: Page) -> list[str]:
    """What the page complains of."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    return problems


async def picture(page: Page, name: str) -> None:
    Path(ARTIFACTS).mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=False)


async def admin_task(portal: Portal, text: str) -> str:
    """The local admin asks, who is the one that `signed_in` signs in."""
    with portal.admin() as admin:
        token = str(admin.headers["Authorization"]).removeprefix("Bearer ")
    _, sent = await asked(portal, token, text)
    task_id: str = sent["task_id"]
    return task_id


async def recorded(store: Store, root_id: str, events: list[dict[str, Any]]) -> None:
    """Write the plan that `play` told as the supervisor does."""
    for at, part in enumerate(events):
        await store.execute(
            "INSERT INTO tasks (id, conversation_id, parent_task_id, root_id, user_id, key, title,"
            " assigned_agent, type, input, depends_on, status, usage, verification_criteria,"
            " started_at, completed_at) SELECT $2, conversation_id, id, id, user_id, $3, $4, $5,"
            " 'subtask', $6, $7::uuid[], $8::text, $9, $10,"
            " CASE WHEN $8 <> 'pending' THEN now() END,"
            " CASE WHEN $8 = 'completed' THEN now() END FROM tasks WHERE id = $1",
            *(root_id, part["id"], part["key"], part["title"], part["agent"]),
            *({"agent": part["agent"], "instruction": part["title"]}, part["depends_on"]),
            *(("in_progress", "completed", "pending")[at], {"cost_usd": 0.01, "model_calls": 2}),
            part["criteria"],
        )


async def test_the_fleet_says_who_is_stuck_and_starts_it(
    browser: Browser, portal: Portal, store: Store, bus: Bus
) -> None:
    task_id = await admin_task(portal, "Count <b>words</b>")
    await store.execute("UPDATE tasks SET title = 'Count <b>words</b>' WHERE id = $1", task_id)
    await beat(store, "supervisor", "running")
    await beat(store, "code", "busy", task_id, phase="EXECUTE")
    await beat(store, "qa", "idle", age_s=600.0)
    await beat(store, "data", "busy", task_id, paused=True)
    async with watching(bus) as watchdog:
        watchdog.windows["infra"] = RUNNING | {"state": "fatal", "restarts": 3, "pid": None}
        page = await signed_in(browser, portal, 1280, "light")
        problems = watched(page)
        await page.goto(portal.url + "/agents")
        code, infra = page.get_by_label("code", exact=True), page.get_by_label("infra", exact=True)
        await expect(infra).to_contain_text("gave up", timeout=20_000)
        await expect(infra).to_contain_text("Stuck: its program died 4 times in a row")
        await expect(page.get_by_label("qa", exact=True)).to_contain_text("no heartbeat for 10 min")
        await expect(page.get_by_label("data", exact=True)).to_contain_text("a task is half done")
        await expect(code.get_by_role("link", name="Count <b>words</b>")).to_have_attribute(
            "href", f"/tasks/{task_id}"
        )
        await expect(code).to_contain_text("Execute")
        await expect(code).to_contain_text("12 %")
        await bus.emit(
            Event(
                kind=Kind.TOOL, agent="code", user_id=ADMIN_ID, root_id=task_id, task_id=task_id,
                data={"name": "shell", "state": "started", "summary": "make <i>all</i>"},
            )
        )  # fmt: skip
        await expect(code).to_contain_text("shell make <i>all</i>")
        await expect(code.get_by_role("button", name="Start", exact=True)).to_be_hidden()
        await expect(infra.get_by_role("button", name="Pause")).to_be_hidden()
        await picture(page, "agents-1280-light")
        await infra.get_by_role("button", name="Start", exact=True).click()
        await expect(page.get_by_text("infra starts.")).to_be_visible()
        await code.get_by_role("button", name="Restart").click()
        await page.get_by_role("button", name="Cancel").click()
        assert [one["verb"] for one in watchdog.asked] == ["start"]
        await page.set_viewport_size({"width": 390, "height": 860})
        assert await page.evaluate(OVERFLOW) <= 0
        await picture(page, "agents-390-light")
        assert page.foreign == []  # type: ignore[attr-defined]
        assert problems == []
        await page.context.close()
    await store.execute("DELETE FROM agent_heartbeats")


async def shown(page: Page) -> str:
    """What the terminal holds, scrollback included."""
    return str(
        await page.evaluate(
            """() => { const vue = getElement(+document.querySelector('.live-window').id.slice(1));
            const buffer = vue.terminal.buffer.active; let text = '';
            for (let at = 0; at < buffer.length; at++)
              text += buffer.getLine(at).translateToString(true) + '\\n';
            return text; }"""
        )
    )


async def until_shown(page: Page, text: str) -> str:
    for _ in range(200):
        if text in (seen := await shown(page)):
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"{text!r} was not shown; there is: {seen}")


async def test_a_window_lives_in_the_browser(
    browser: Browser, portal: Portal, session: Session
) -> None:
    session("send-keys", "-t", f"={SESSION}:flood", "seq 1000 1200; echo the-e''nd", "Enter")
    page = await signed_in(browser, portal, 1280, "light")
    problems = watched(page)
    await page.goto(portal.url + "/agents/flood")
    await expect(page.get_by_text("live, read only")).to_be_visible()
    assert "\n1001\n" in await until_shown(page, "the-end")
    await page.locator(".xterm-screen").click()
    await page.keyboard.type("typed-in-vain")
    session("send-keys", "-t", f"={SESSION}:flood", "echo hel''lo", "Enter")
    assert "typed-in-vain" not in await until_shown(page, "\nhello")
    await picture(page, "window-1280-light")
    await page.get_by_role("button", name="Type").click()
    await expect(page.get_by_text("you type into this window")).to_be_visible()
    await page.keyboard.type("echo by-ha''nd")
    await page.keyboard.press("Enter")
    await until_shown(page, "\nby-hand")
    await page.keyboard.press("Control+Shift+X")
    await expect(page.get_by_text("live, read only")).to_be_visible()
    # The window goes and comes again: the browser follows by itself.
    session.close()
    await expect(
        page.get_by_text("looking again").or_(page.get_by_text("not running"))
    ).to_be_visible()
    await expect(page.get_by_role("button", name="Connect")).to_be_visible(timeout=20_000)
    session.start()
    await page.get_by_role("button", name="Connect").click()
    await expect(page.get_by_text("live, read only")).to_be_visible()
    await page.set_viewport_size({"width": 390, "height": 860})
    await page.wait_for_function("document.querySelector('.xterm-screen').offsetWidth < 390")
    assert await page.evaluate(OVERFLOW) <= 0
    await page.wait_for_timeout(500)  # the rail slides away
    await picture(page, "window-390-light")
    await page.goto(portal.url + "/agents?view=windows")
    await expect(page.get_by_text("live, read only")).to_have_count(2)
    await picture(page, "windows-390-light")
    assert page.foreign == []  # type: ignore[attr-defined]
    assert problems == []
    await page.context.close()
    wait_for("all clients to go", lambda: session.alone() and not clients(portal))


async def test_a_task_from_its_plan_to_its_answer(
    browser: Browser, portal: Portal, stage: Stage
) -> None:
    root_id = await admin_task(portal, "Write a <u>word counter</u>")
    page = await signed_in(browser, portal, 1280, "light")
    problems = watched(page)
    await page.goto(portal.url + "/tasks")
    row = page.locator("tr", has_text="word counter")
    await expect(row).to_contain_text("pending")
    await page.get_by_label("Words").fill("no such words")
    await expect(page.get_by_text("Nothing fits these filters.")).to_be_visible()
    await page.get_by_label("Words").fill("word COUNTER")
    await row.first.get_by_role("link", name="Write a <u>word counter</u>").click()
    await expect(page.get_by_role("blockquote")).to_have_text("Write a <u>word counter</u>")
    await expect(page.get_by_text("The answer comes when all steps end.")).to_be_visible()
    begun = (await stage.bus.newest_events(1))[-1][0] if await stage.bus.newest_events(1) else "0"
    await play(stage, root_id)
    plan = next(e for _, e in await stage.bus.events_after(begun) if e.kind is Kind.PLAN)
    await recorded(stage.store, root_id, plan.data["subtasks"])
    await stage.store.execute(
        "UPDATE tasks SET status = 'in_progress', started_at = now() WHERE id = $1", root_id
    )
    await expect(page.locator(".graph .step-box")).to_have_count(3)
    await expect(page.locator(".graph .edge")).to_have_count(2)
    await expect(page.locator(".graph")).to_contain_text("code · working · Execute")
    await expect(page.locator(".graph .completed")).to_contain_text("data")
    await expect(page.locator(".track").first.locator("i.phase-execute")).to_be_visible()
    await expect(page.locator(".tiles")).to_contain_text("Criteria proved1 of 3")
    await page.get_by_role("tab", name="Criteria").click()
    await expect(page.get_by_text("ls samples | wc -l → 3")).to_be_visible()
    await page.get_by_role("tab", name="Tool calls").click()
    await expect(page.get_by_text("shell python -m pytest -q test_count.py")).to_be_visible()
    await picture(page, "task-1280-light")
    folder = portal.settings.work / plan.data["subtasks"][0]["id"]
    folder.mkdir(parents=True)
    (folder / "PRD.md").write_text("# What is <b>wanted</b>")
    await page.get_by_label("Say more to the agents").fill("Use Counter")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The agents were told.")).to_be_visible()
    assert {"verb": "steer", "task_id": root_id, "text": "Use Counter"}.items() <= stage.asked[
        -1
    ].items()
    # Told while the page was away: what is kept of the events is read again.
    await page.reload()
    await expect(page.locator(".track i.phase-execute")).to_be_visible()
    await page.get_by_role("tab", name="PRD.md").click()
    await expect(page.get_by_text("# What is <b>wanted</b>")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Cancel the task").click()
    await expect(page.get_by_text("It is being cancelled.").first).to_be_visible()
    assert stage.asked[-1]["verb"] == "cancel"
    await stage.end(root_id, "All **done**.")
    await page.get_by_role("tab", name="Answer").click()
    await expect(page.locator(".prose strong")).to_have_text("done")
    await expect(page.get_by_role("button", name="Run it again")).to_be_visible()
    await expect(page.get_by_label("Say more to the agents")).to_be_hidden()
    await page.set_viewport_size({"width": 390, "height": 860})
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(OVERFLOW) <= 0
    await page.wait_for_timeout(500)  # the rail slides away
    await picture(page, "task-390-dark")
    await page.goto(portal.url + f"/tasks/{uuid.uuid4()}")
    await expect(page.get_by_text("There is no task")).to_be_visible()
    assert page.foreign == []  # type: ignore[attr-defined]
    assert problems == []
    await page.context.close()


async def test_a_dead_letter_goes_back_or_away(browser: Browser, portal: Portal, bus: Bus) -> None:
    stream = f"agent:{uuid.uuid4().hex[:8]}"
    raw = json.dumps({"order": "<img src=x onerror=alert(1)>"}).encode()
    for text in ("the agent <b>died</b> thrice", "again"):
        await bus.bury_raw(stream, streams.GROUP_AGENT, "1-0", raw, text, 3)
    page = await signed_in(browser, portal, 1280, "light")
    problems = watched(page)
    await page.goto(portal.url + "/tasks?tab=letters")
    letter = page.locator(".letter", has_text="the agent <b>died</b> thrice")
    await expect(letter).to_contain_text("after 3 deliveries")
    await letter.get_by_text("The message").click()
    await expect(letter.locator("pre")).to_contain_text("<img src=x")
    await picture(page, "letters-1280-light")
    await letter.get_by_role("button", name="Put it back").click()
    await expect(letter).to_have_count(0)
    assert await bus.depth(stream) == 1
    await page.get_by_role("button", name="Delete all").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_text("No dead letters")).to_be_visible()
    assert await bus.dead(stream) == []
    assert problems == []
    await page.context.close()


async def test_events_are_filtered_and_followed(browser: Browser, portal: Portal, bus: Bus) -> None:
    async def tell(agent: str, kind: Kind, said: str, user_id: str = ADMIN_ID) -> None:
        data = {"content": said, "name": said, "state": "started"}
        await bus.emit(
            Event(kind=kind, agent=agent, user_id=user_id, root_id=str(uuid.uuid4()), data=data)
        )

    mark = uuid.uuid4().hex[:8]
    await tell("code", Kind.TEXT, f"{mark} before the page")
    page = await signed_in(browser, portal, 1280, "light")
    problems = watched(page)
    await page.goto(portal.url + "/events")
    events = page.locator(".event", has_text=mark)
    await expect(events).to_have_count(1)
    await tell("code", Kind.TEXT, f"{mark} while it is open <b>bold</b>")
    await tell("qa", Kind.TOOL, f"{mark} a tool")
    await tell("qa", Kind.TEXT, f"{mark} of somebody else", str(uuid.uuid4()))
    await expect(events).to_have_count(3)
    await expect(events.first).to_contain_text("a tool")
    await expect(events.nth(1)).to_contain_text("<b>bold</b>")
    await page.get_by_label("Words").fill("BOLD")
    await expect(events).to_have_count(1)
    await page.get_by_label("Words").fill("")
    await page.get_by_label("Agent", exact=True).click()
    await page.get_by_role("option", name="qa").click()
    await expect(events).to_have_count(1)
    await tell("qa", Kind.TEXT, f"{mark} another")
    await tell("code", Kind.TEXT, f"{mark} filtered out")
    await expect(events).to_have_count(2)
    await page.get_by_label("Kinds").click()
    await page.get_by_role("option", name="tool").click()
    await page.keyboard.press("Escape")
    await expect(events).to_have_count(1)
    await page.get_by_role("button", name="Pause").click()
    await tell("qa", Kind.TOOL, f"{mark} held back")
    await page.wait_for_timeout(300)
    await expect(events).to_have_count(1)
    await page.get_by_role("button", name="Go on").click()
    await expect(events).to_have_count(2)
    assert problems == []
    await page.context.close()
