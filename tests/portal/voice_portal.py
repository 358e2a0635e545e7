"""A portal whose voice is a local provider, and a Chromium whose microphone is a file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, Playwright, expect

from base import secrets_files
from tests.portal.conftest import Portal, chromium, running
from tests.voice_rig import Provider, provider

KEY = "sk-test-0123456789abcdef"
FAKES = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def talking(folder: Path, redis: str, dsn: str, **more: str) -> Iterator[tuple[Portal, Provider]]:
    """A portal that hears by the provider, and speaks by it too unless `more` says otherwise."""
    with provider() as played:
        settings = {
            "AI_INFRA_SPEECH_TO_TEXT": "openai",
            "AI_INFRA_TEXT_TO_SPEECH": "openai",
            "AI_INFRA_VOICE_BASE_URL": played.url,
            **more,
        }
        with running(folder, redis, dsn, limited=False, **settings) as portal:
            secrets_files.put(portal.settings.secrets, "openai-api-key", KEY)
            yield portal, played


@asynccontextmanager
async def hearing(
    playwright: Playwright, microphone: Path, *, repeat: bool = False
) -> AsyncIterator[Browser]:
    """Its microphone hears that file, once, or again and again, and pages are given it unasked."""
    once = "" if repeat else "%noloop"
    async with chromium(
        playwright, *FAKES, f"--use-file-for-fake-audio-capture={microphone}{once}"
    ) as opened:
        yield opened


async def chat(browser: Browser, portal: Portal, width: int = 1280, script: str = "") -> Page:
    """The chat page, signed in; what its voice does is in `window.voiceSaid`."""
    context = await browser.new_context(viewport={"width": width, "height": 860})
    page = await context.new_page()
    page.set_default_timeout(15_000)
    await page.add_init_script(
        "window.voiceSaid = [];"
        "document.addEventListener('ai-voice', (event) => window.voiceSaid.push(event.detail));"
        + script
    )
    with portal.admin() as admin:
        link = admin.post("/api/auth/links").json()
    await page.goto(portal.url + link["path"])
    await expect(page.locator("[data-voice=talk]")).to_have_attribute(
        "data-provider", re.compile(".")
    )
    return page


async def said(page: Page, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.evaluate(
        "(kind) => window.voiceSaid.filter((one) => one.kind === kind)", kind
    )
    return found


async def until(page: Page, kind: str, count: int = 1, limit_s: float = 15) -> None:
    """Until the page's voice has said so that often."""
    await page.wait_for_function(
        "([kind, count]) => window.voiceSaid.filter((one) => one.kind === kind).length >= count",
        arg=[kind, count],
        timeout=limit_s * 1000,
    )
