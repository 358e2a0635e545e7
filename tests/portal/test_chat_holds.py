"""The chat page holds: over a dropped connection, over a portal that restarts, and with ten
thousand messages.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, expect

from base.bus import Bus
from base.store import Store
from tests.portal.conftest import Portal, Stage, running
from tests.portal.test_chat import newest_root, say
from tests.portal.test_pages import ARTIFACTS, log_in, signed_in

PIECES = [f"piece {at} of the answer. " for at in range(40)]
#: As if the wire were cut: the browser has to notice and come back by itself.
CUT = "window.socket.io.engine.close()"
PAIRS = 5_000
LOOK = """() => {
  const all = [...document.querySelectorAll('.thread > .turn')];
  const first = all.find((one) => one.getBoundingClientRect().bottom > 70);
  return {turns: all.length, nodes: document.querySelectorAll('.thread *').length,
          said: all.map((one) => Number(one.querySelector('.said').textContent.match(/[0-9]+/)[0])),
          first: first && first.querySelector('.said').textContent, y: window.scrollY};
}"""
WATCH = """() => {
  window.longTasks = [];
  window.frames_ms = [];
  new PerformanceObserver((seen) => seen.getEntries().forEach(
    (one) => window.longTasks.push(one.duration))).observe({type: 'longtask'});
  let before = performance.now();
  const tick = (now) => {
    window.frames_ms.push(now - before);
    before = now;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}"""


async def test_a_cut_connection_loses_and_doubles_nothing(
    browser: Browser, portal: Portal, stage: Stage
) -> None:
    page = await log_in(browser, portal, 1280, "light")
    await say(page, "Answer in pieces")
    root = await newest_root(stage.store, "Answer in pieces")
    reloads: list[str] = []
    page.on("load", lambda _: reloads.append(page.url))
    for seq, piece in enumerate(PIECES):
        await stage.chunk(root, seq, piece)
        if seq in {5, 20}:
            await expect(page.locator(".answer")).to_contain_text(PIECES[3].strip())
            await page.evaluate(CUT)
        if seq == 30:  # another conversation and back, with events under way
            await page.evaluate("window.aiKeys.n[1]()")
            await expect(page.get_by_text("What should the agents do?")).to_be_visible()
            await stage.chunk(root, seq, piece)  # the wire may bring one twice
            await page.locator(".conversation .name").first.click()
    await expect(page.locator(".answer")).to_have_text("".join(PIECES).strip(), timeout=20_000)
    assert reloads == []  # it came back without losing what was typed and seen
    await page.context.close()


async def test_a_restarted_portal_goes_on_where_it_was(
    browser: Browser, short_tmp: Path, redis_server: str, portal_dsn: str
) -> None:
    bus = await Bus.open(redis_server, f"test-{uuid.uuid4().hex[:6]}")
    store = await Store.open(portal_dsn, "test")
    stage = Stage(bus, store)
    with running(short_tmp, redis_server, portal_dsn, limited=False) as first:
        page = await log_in(browser, first, 390, "light")
        await say(page, "Survive")
        root = await newest_root(store, "Survive")
        for seq in range(10):
            await stage.chunk(root, seq, PIECES[seq])
        await expect(page.locator(".answer")).to_contain_text(PIECES[9].strip())
    for seq in range(10, 20):
        await stage.chunk(root, seq, PIECES[seq])
    assert await page.locator(".answer").count() == 1  # still the page, not the browser's error
    with running(short_tmp, redis_server, portal_dsn, limited=False, again=first):
        whole = "".join(PIECES[:20]).strip()
        await expect(page.locator(".answer")).to_have_text(whole, timeout=60_000)
        for seq in range(20, 30):
            await stage.chunk(root, seq, PIECES[seq])
        await expect(page.locator(".answer")).to_have_text("".join(PIECES[:30]).strip())
        await page.screenshot(path=ARTIFACTS / "restarted-390-light.png")
        await page.context.close()
    await bus.close()
    await store.close()


async def ten_thousand(store: Store) -> str:
    """A conversation of the admin's with 5,000 messages and their answers."""
    where = str(uuid.uuid4())
    await store.execute(
        "INSERT INTO conversations (id, user_id, title) SELECT $1, id, 'Long' FROM users"
        " WHERE email = 'admin@local'",
        where,
    )
    await store.execute(
        "WITH made AS (SELECT at, gen_random_uuid() AS id FROM generate_series(1, $2) AS at),"
        " asked AS (INSERT INTO messages (id, conversation_id, role, content, parent_message_id,"
        " created_at) SELECT made.id, $1, 'user', 'Question ' || made.at, before.id,"
        " NOW() - INTERVAL '1 day' + made.at * INTERVAL '2 seconds' FROM made LEFT JOIN made AS"
        " before ON before.at = made.at - 1)"
        " INSERT INTO messages (conversation_id, role, content, agent, parent_message_id,"
        " created_at) SELECT $1, 'assistant', 'Answer ' || at ||"
        " E'.\\n\\n```python\\nx = 1\\n```\\n'"
        " || repeat('Some words of an answer. ', 3 + (at * 7) % 40), 'code', id,"
        " NOW() - INTERVAL '1 day' + at * INTERVAL '2 seconds' + INTERVAL '1 second' FROM made",
        *(where, PAIRS),
    )
    return where


async def look(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate(LOOK)
    return found


async def test_ten_thousand_messages_scroll_within_a_bounded_page(
    browser: Browser, portal: Portal, store: Store
) -> None:
    page = await signed_in(browser, portal, 1280, "light")
    where = await ten_thousand(store)
    await page.goto(f"{portal.url}/chat/{where}")
    await expect(page.locator(".said").last).to_have_text(f"Question {PAIRS}")
    await page.wait_for_function("innerHeight + scrollY >= document.body.scrollHeight - 4")
    assert (await look(page))["turns"] <= 60
    await page.evaluate(WATCH)
    await page.mouse.move(700, 400)
    most_nodes, jumps = 0, 0
    before = await look(page)
    for _ in range(60):
        await page.mouse.wheel(0, -900)
        await page.wait_for_timeout(60)
        now = await look(page)
        assert now["turns"] <= 80
        assert now["said"] == list(range(now["said"][0], now["said"][-1] + 1))  # none lost or twice
        most_nodes = max(most_nodes, now["nodes"])
        jumps += abs(_number(now) - _number(before)) > 12
        before = now
    await page.wait_for_function(
        f"document.querySelector('.said').textContent.match(/[0-9]+/)[0] < {PAIRS - 60}"
    )
    assert jumps == 0
    settled = await look(page)
    assert settled["turns"] <= 60
    await expect(page.get_by_label("To the newest message")).to_be_visible()
    for _ in range(8):  # down again over the edge where newer ones had left the page
        await page.mouse.wheel(0, 900)
        await page.wait_for_timeout(60)
    assert _number(await look(page)) >= _number(settled)
    await page.get_by_label("To the newest message").click()
    await expect(page.locator(".said").last).to_have_text(f"Question {PAIRS}")
    await page.wait_for_function("innerHeight + scrollY >= document.body.scrollHeight - 4")
    assert (await look(page))["turns"] <= 60
    frames = sorted(await page.evaluate("window.frames_ms"))
    measured = {
        "nodes_most": most_nodes,
        "long_tasks_ms": [round(one) for one in await page.evaluate("window.longTasks")],
        "frame_p50_ms": round(frames[len(frames) // 2], 1),
        "frame_p95_ms": round(frames[int(len(frames) * 0.95)], 1),
    }
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / "ten-thousand.json").write_text(json.dumps(measured, indent=2))
    assert most_nodes < 6_000
    await page.context.close()
    await asyncio.sleep(0)


def _number(seen: dict[str, Any]) -> int:
    """Which question stands first in view."""
    return int(str(seen["first"]).removeprefix("Question "))
