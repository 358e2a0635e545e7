"""Chat is data: every message is taken, kept and given back byte for byte, and runs nowhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from typer.testing import CliRunner

from base.store import Store
from portal.cli import app
from portal.pages.marks import HIDDEN
from tests.data.messages import MESSAGES
from tests.portal.conftest import REPO, Portal
from tests.portal.test_pages import ARTIFACTS, signed_in
from tests.portal.test_ws import socket

TEXTS = [text for _, text in MESSAGES]
PAGE = 20


def kept(portal: Portal, conversation_id: str) -> list[str]:
    """What a person wrote there, oldest first, as the API gives it back."""
    found: list[dict[str, Any]] = []
    with portal.admin() as client:
        while True:
            before = {"before": found[0]["id"]} if found else {}
            params = {"limit": 200, **before}
            page = client.get(f"/api/conversations/{conversation_id}/messages", params=params)
            found = page.json()["messages"] + found
            if not page.json()["more"]:
                return [one["content"] for one in found if one["role"] == "user"]


def conversation(portal: Portal) -> str:
    with portal.admin() as client:
        made: str = client.post("/api/conversations", json={}).json()["id"]
    return made


def same(given: list[str], wanted: list[str]) -> None:
    assert len(given) == len(wanted)
    for got, text in zip(given, wanted, strict=True):
        assert got.encode() == text.encode()


def test_there_are_two_hundred_and_all_differ() -> None:
    assert len(set(TEXTS)) == len(TEXTS) >= 200
    assert {len(text) for text in TEXTS} >= {50_000}


async def test_over_http(portal: Portal, store: Store) -> None:
    where = conversation(portal)
    with portal.admin() as client:
        for text in TEXTS:
            sent = client.post(f"/api/conversations/{where}/messages", json={"content": text})
            assert sent.status_code == 202, (text[:80], sent.text)
    same(kept(portal, where), TEXTS)
    rows = await store.fetch(
        "SELECT convert_to(m.content, 'UTF8') AS raw, t.input->>'content' AS given FROM messages m"
        " JOIN tasks t ON t.message_id = m.id WHERE m.conversation_id = $1 ORDER BY m.created_at",
        where,
    )
    assert [row["raw"] for row in rows] == [text.encode() for text in TEXTS]
    assert [row["given"] for row in rows] == TEXTS


async def test_over_the_websocket(portal: Portal) -> None:
    where = conversation(portal)
    async with socket(portal) as client:
        for text in TEXTS:
            answer = await client.say("send_message", conversation_id=where, content=text)
            assert answer["type"] == "accepted", (text[:80], answer)
    same(kept(portal, where), TEXTS)


@pytest.fixture
def home(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_INFRA_HOME", str(portal.settings.home))
    monkeypatch.setenv("AI_INFRA_PORT", str(portal.settings.port))


def test_through_the_command(portal: Portal, home: None) -> None:
    where = conversation(portal)
    line = ["ask", "-", "--no-wait", "--conversation", where]
    texts = TEXTS[::6]  # all of them go the same way once they are inside
    for text in texts:
        done = CliRunner().invoke(app, line, input=text.encode())
        assert done.exit_code == 0, (text[:80], done.output)
    same(kept(portal, where), texts)


def test_as_an_argument_of_a_real_process(portal: Portal, home: None) -> None:
    where = conversation(portal)
    texts = [text for text in TEXTS if "\x1b" in text or "$(" in text][:4]
    line = [sys.executable, "-m", "portal.cli", "ask", "--no-wait", "--conversation", where, "--"]
    for text in texts:
        subprocess.run([*line, text], check=True, cwd=REPO, capture_output=True)
    same(kept(portal, where), texts)
    wrong = subprocess.run([*line, b"\xff\xfe"], check=False, cwd=REPO, capture_output=True)
    assert wrong.returncode == 2
    assert b"no UTF-8" in wrong.stderr
    assert b"Traceback" not in wrong.stderr


async def test_the_limits_are_told_clearly(portal: Portal, home: None) -> None:
    where = conversation(portal)
    wide = "\U0001f600" * 50_000
    cases = {wide + "x": "50,001", "a\0b": "NUL", "": "empty", " \n\t ": "empty"}
    with portal.admin() as client:
        path = f"/api/conversations/{where}/messages"
        assert client.post(path, json={"content": wide}).status_code == 202
        for text, word in cases.items():
            refused = client.post(path, json={"content": text})
            assert refused.status_code == 422
            assert word in refused.json()["detail"]
            assert refused.headers["content-type"] == "application/problem+json"
        half = client.post(
            path, content=rb'{"content": "\ud83d"}', headers={"Content-Type": "application/json"}
        )
        assert half.status_code == 422
        assert "surrogate" in half.json()["detail"]
    async with socket(portal) as socketed:
        for text, word in cases.items():
            said = await socketed.say("send_message", conversation_id=where, content=text)
            assert said["type"] == "error"
            assert word in said["payload"]["message"]
    for text, word in cases.items():
        line = ["ask", "-", "--no-wait", "--conversation", where]
        done = await asyncio.to_thread(CliRunner().invoke, app, line, input=text.encode())
        assert done.exit_code == 2
        assert word in done.stderr
    same(kept(portal, where), [wide])


async def test_rendered_they_do_nothing(browser: Browser, portal: Portal, store: Store) -> None:
    """As a person's words and as an agent's answer, which is Markdown."""
    chunks = [TEXTS[at : at + PAGE] for at in range(0, len(TEXTS), PAGE)]
    page = await signed_in(browser, portal, 1280, "light")
    events: list[str] = []
    page.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    page.on("popup", lambda popup: events.append(f"popup {popup.url}"))
    page.on("pageerror", lambda error: events.append(f"error {error}"))
    page.on(
        "console",
        lambda said: events.append(f"console {said.text}") if said.type == "error" else None,
    )
    for texts in chunks:
        where = conversation(portal)
        for text in texts:
            await store.execute(
                "INSERT INTO messages (conversation_id, role, content, created_at,"
                " parent_message_id) VALUES ($1, 'user', $2, clock_timestamp(), (SELECT id"
                " FROM messages WHERE conversation_id = $1 AND role = 'user'"
                " ORDER BY created_at DESC LIMIT 1))",
                *(where, text),
            )
            await store.execute(
                "INSERT INTO messages (conversation_id, role, content, agent, created_at,"
                " metadata, parent_message_id) VALUES ($1, 'assistant', $2, 'code',"
                " clock_timestamp(), $3, (SELECT id FROM messages WHERE conversation_id = $1"
                " AND role = 'user' ORDER BY created_at DESC LIMIT 1))",
                *(where, text, {"task_id": str(uuid.uuid4())}),
            )
        # Chromium takes seconds to break one word of 50,000 letters into lines.
        await page.goto(f"{portal.url}/chat/{where}", timeout=60_000)
        await expect(page.locator(".said")).to_have_count(len(texts))
        await expect(page.locator(".msg.answer .prose")).to_have_count(len(texts))
        shown = await page.locator(".said").evaluate_all("all => all.map(e => e.textContent)")
        for got, text in zip(shown, texts, strict=True):
            assert got == text.replace("\r\n", "\n").replace("\r", "\n")
        live = "script, iframe, object, embed, form, base, meta, link, img, svg, style, [onload]"
        planted = page.locator(".thread").locator(live)
        assert await planted.count() == 0
        assert await page.locator(".thread a[href^='javascript' i]").count() == 0
        hidden = sum(len([m for m in HIDDEN.finditer(text) if m[1]]) for text in texts)
        if hidden:
            assert await page.locator(".said .unseen").count() == hidden
            await page.locator(".said .unseen").first.scroll_into_view_if_needed()
            await page.screenshot(path=ARTIFACTS / "marks-1280-light.png")
        assert await page.evaluate("window.hacked") is None
        assert page.url.startswith(portal.url)
    assert page.foreign == []  # type: ignore[attr-defined]
    assert events == []
    await page.context.close()
