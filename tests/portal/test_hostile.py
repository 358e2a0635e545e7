"""What people, models and tools write is text on every page: it neither runs nor fetches."""

from __future__ import annotations

import uuid

from playwright.async_api import Browser, expect

from base.messages import Kind
from base.store import Store
from tests.portal.conftest import Portal, Stage, asked
from tests.portal.test_pages import signed_in

EVIL = "https://evil.example"
HOSTILE = f"""HOSTILE ![a picture]({EVIL}/a.png) [a script](javascript:window.hacked=1)
<{EVIL}/auto>

![data](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9ImFsZXJ0KDEpIi8+) [ref]: {EVIL}/ref

<img src="{EVIL}/b.png" onerror="window.hacked=2"><svg onload="window.hacked=3"></svg>
<style>@import url({EVIL}/c.css); body {{ background: url({EVIL}/d.png) }}</style>
<link rel="stylesheet" href="{EVIL}/e.css"><iframe src="{EVIL}/f"></iframe>
<script>window.hacked=4</script><base href="{EVIL}/">
<meta http-equiv="refresh" content="0;url={EVIL}">
<form action="{EVIL}"><button autofocus onfocus="window.hacked=5">x</button></form>
<video src="{EVIL}/g.mp4" autoplay></video><object data="{EVIL}/h"></object>
<div style="background:url({EVIL}/i.png)">styled</div>
{{{{ constructor.constructor('window.hacked=6')() }}}}
"""


async def test_nothing_that_was_written_runs_or_is_fetched(
    portal: Portal, browser: Browser, stage: Stage, store: Store
) -> None:
    page = await signed_in(browser, portal, 1280, "light")
    with portal.admin() as admin:
        token = admin.headers["authorization"].removeprefix("Bearer ")
    conversation_id, sent = await asked(portal, token, HOSTILE)
    root_id, part = sent["task_id"], str(uuid.uuid4())
    await store.execute(
        "UPDATE conversations SET title = $2 WHERE id = $1", conversation_id, HOSTILE[:250]
    )
    step = {"id": part, "key": "s0", "agent": "code", "title": HOSTILE, "instruction": HOSTILE}
    await page.goto(f"{portal.url}/chat/{conversation_id}")
    await stage.tell(root_id, Kind.PLAN, subtasks=[{**step, "depends_on": [], "criteria": []}])
    await stage.tell(root_id, Kind.TASK, part, by="code", status="in_progress", phase="EXECUTE")
    await stage.tell(root_id, Kind.TEXT, part, by="code", content=HOSTILE)
    await stage.tell(
        root_id, Kind.TOOL, part, by="code", name="shell", state="started", summary=HOSTILE
    )
    await stage.tell(
        root_id, Kind.CRITERION, part, by="code", id="ISC-1", text=HOSTILE, verdict="failed",
        evidence=HOSTILE,
    )  # fmt: skip
    await stage.chunk(root_id, 0, HOSTILE)
    await expect(page.locator(".answer")).to_contain_text("HOSTILE")
    await stage.end(root_id, HOSTILE)
    for path in (f"/chat/{conversation_id}", f"/tasks/{root_id}", "/tasks", "/events", "/audit"):
        await page.goto(portal.url + path)
        await page.wait_for_function("window.did_handshake")
        await page.wait_for_timeout(300)
        found = await page.evaluate(
            """() => [...document.querySelectorAll('.body *, .side *')].filter((one) =>
            one.matches('script, iframe, object, base, form, meta, link, video, svg[onload], style')
            || [...one.attributes].some((at) => at.name.startsWith('on')
              || /^(javascript|https:.*evil)/.test(at.value) && at.name !== 'href'
              || at.name === 'href' && /^javascript/.test(at.value)))
            .map((one) => one.outerHTML.slice(0, 200))"""
        )
        assert found == [], path
        assert await page.evaluate("window.hacked") is None, path
    assert page.foreign == []  # type: ignore[attr-defined]
