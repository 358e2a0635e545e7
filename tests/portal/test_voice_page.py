"""Voice in a real Chromium: a file for a microphone, a local provider that hears and speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Playwright, expect

from base import sound
from tests import voice_rig
from tests.portal.conftest import Portal, Stage, chromium
from tests.portal.test_pages import ARTIFACTS, last_task
from tests.portal.voice_portal import FAKES, KEY, chat, hearing, said, talking, until
from tests.voice_rig import Provider

pytestmark = pytest.mark.xdist_group("voice-page")  # one portal

SENTENCE = "Please count the words of the file, and tell me which is the longest."
OTHER = "Nobody ever said a thing like this, since cats and dogs rarely meet by moonlight."
Talking = tuple[Portal, Provider]


@pytest.fixture(scope="module")
def talks(short_tmp: Path, redis_server: str, portal_dsn: str) -> Iterator[Talking]:
    with talking(short_tmp, redis_server, portal_dsn) as started:
        yield started


@pytest.fixture(autouse=True)
def fresh(talks: Talking) -> None:
    played = talks[1]
    played.requests.clear()
    played.fault, played.hears = None, "count the words"
    played.gate.set()


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mic") / "speech.wav"
    file.write_bytes(voice_rig.say(SENTENCE, before_s=0.5, after_s=3.0))
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_browser(playwright: Playwright, microphone: Path) -> AsyncIterator[Browser]:
    """In the place of the one of the other pages; each listening hears the file from its start."""
    async with hearing(playwright, microphone) as opened:
        yield opened


def assert_is_the_speech(file: bytes, microphone: Path) -> None:
    """The recording sounds like what was spoken, whole, and like nothing else."""
    heard = sound.decode(file)
    spoken = voice_rig.spoken(sound.decode(microphone.read_bytes()))
    other = voice_rig.spoken(sound.decode(voice_rig.say(OTHER)))
    assert len(heard) > len(spoken)
    alike, unlike = voice_rig.likeness(heard, spoken), voice_rig.likeness(heard, other)
    assert alike > 0.85, (alike, unlike)
    assert unlike < alike - 0.2, (alike, unlike)
    assert np.abs(heard).max() > 0.05


async def hold(page: Page, microphone: Path) -> None:
    """Hold the button for as long as the file speaks."""
    await page.locator("[data-voice=talk]").hover()
    await page.mouse.down()
    await until(page, "listening")
    length_s = sound.clip(microphone.read_bytes()).seconds_s - 2.8
    await page.wait_for_timeout(length_s * 1000)
    await page.mouse.up()


async def test_what_is_held_is_heard_edited_and_sent(
    browser: Browser, talks: Talking, microphone: Path, stage: Stage
) -> None:
    portal, played = talks
    page = await chat(browser, portal)
    talk = page.locator("[data-voice=talk]")
    assert "Heard by 127.0.0.1" in (await talk.get_attribute("title") or "")
    box = page.get_by_label("Message", exact=True)
    await box.fill("Hello.")
    await hold(page, microphone)
    await until(page, "written")
    await expect(box).to_have_value("Hello. count the words")
    (asked,) = played.of("/audio/transcriptions")
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.fields == {"model": "gpt-4o-mini-transcribe", "response_format": "json"}
    assert asked.file_name == "recording.webm"
    assert_is_the_speech(asked.file, microphone)
    await expect(box).to_be_focused()
    await page.keyboard.type(" of count.py")
    await box.press("Enter")
    await expect(page.locator(".said").last).to_have_text("Hello. count the words of count.py")
    await expect(page.locator("[data-voice=bar]")).to_be_hidden()
    assert await talk.get_attribute("aria-pressed") == "false"


async def test_hands_free_ends_at_silence_and_sends_when_asked_to(
    browser: Browser, talks: Talking, microphone: Path, stage: Stage
) -> None:
    portal, played = talks
    page = await chat(browser, portal, width=390)
    await page.locator("[data-voice=talk]").click()
    await until(page, "listening")
    await page.get_by_label("Submit at once").check()
    await expect(page.locator("[data-voice=bar]")).to_contain_text("Press again")
    send, talk = page.get_by_label("Send", exact=True), page.locator("[data-voice=talk]")
    tops = [await one.evaluate("(one) => one.getBoundingClientRect().top") for one in (send, talk)]
    assert abs(tops[0] - tops[1]) < 4  # one row of tools
    overflow = "document.documentElement.scrollWidth - window.innerWidth"
    assert await page.evaluate(overflow) <= 0
    ARTIFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / "voice-390.png")
    await until(page, "written")
    await expect(page.locator(".said").last).to_have_text("count the words")
    (asked,) = played.of("/audio/transcriptions")
    assert_is_the_speech(asked.file, microphone)
    assert (await said(page, "listening"))[0]["mode"] == "free"
    await expect(page.locator("[data-voice=talk]")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("Escape")
    await expect(page.locator("[data-voice=talk]")).to_have_attribute("aria-pressed", "false")


async def test_a_recording_that_was_not_written_down_is_kept(
    browser: Browser, talks: Talking, microphone: Path, stage: Stage
) -> None:
    portal, played = talks
    played.fault = (500, "the model is on fire")
    page = await chat(browser, portal)
    await page.keyboard.down("Alt")
    await page.keyboard.down("m")
    await until(page, "listening")
    await page.wait_for_timeout(1500)
    await page.keyboard.up("m")
    await page.keyboard.up("Alt")
    bar = page.locator("[data-voice=bar]")
    told = "Not written down: 127.0.0.1 refused (500): the model is on fire."
    await expect(bar).to_contain_text(f"{told} Your recording is kept.")
    await page.screenshot(path=ARTIFACTS / "voice-failed.png")
    played.fault = None
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_label("Message", exact=True)).to_have_value("count the words")
    first, again = played.of("/audio/transcriptions")
    assert first.file == again.file
    assert len(sound.decode(first.file)) > sound.RATE_HZ
    await expect(bar).to_be_hidden()


async def test_a_portal_that_forgot_the_pieces_is_sent_the_whole(
    browser: Browser, talks: Talking, microphone: Path
) -> None:
    portal, played = talks
    page = await chat(browser, portal)
    await page.route("**/api/voice/recordings/**", lambda route: route.abort())
    await hold(page, microphone)
    await until(page, "written")
    (asked,) = played.of("/audio/transcriptions")
    assert_is_the_speech(asked.file, microphone)


async def test_a_microphone_that_is_refused_is_explained(
    playwright: Playwright, talks: Talking
) -> None:
    flags = (FAKES[0], "--deny-permission-prompts")
    async with chromium(playwright, *flags, program="chromium") as browser:
        page = await chat(browser, talks[0])
        await page.locator("[data-voice=talk]").click()
        bar = page.locator("[data-voice=bar]")
        await expect(bar).to_contain_text("The browser refused the microphone. Allow it")
        await expect(page.locator("[data-voice=talk]")).to_have_attribute("aria-pressed", "false")


async def test_with_nothing_set_up_the_button_says_what_to_set(
    browser: Browser, portal: Portal
) -> None:
    none = "delete window.webkitSpeechRecognition; delete window.SpeechRecognition;"
    page = await chat(browser, portal, script=none)
    talk = page.locator("[data-voice=talk]")
    assert "ai-infra secrets set openai-api-key" in (await talk.get_attribute("title") or "")
    await talk.click()
    bar = page.locator("[data-voice=bar]")
    await expect(bar).to_contain_text("Nobody can hear you yet. This browser has no recogniser")
    await expect(bar).to_contain_text("whisper_model in settings.toml")
    await page.get_by_role("button", name="Close").click()
    await expect(bar).to_be_hidden()


async def ask_aloud(page: Page, stage: Stage) -> str:
    """Turn speaking on and ask; the task."""
    await page.locator("[data-voice=speak]").click()
    await expect(page.locator("[data-voice=speak]")).to_have_attribute("aria-pressed", "true")
    await page.get_by_label("Message", exact=True).fill("Tell me")
    await page.keyboard.press("Enter")
    await expect(page.locator(".said").last).to_have_text("Tell me")
    await expect(page.get_by_text("The supervisor is reading your message")).to_be_visible()
    return await last_task(stage)


async def test_an_answer_is_spoken_while_it_streams_until_it_is_hushed(
    browser: Browser, talks: Talking, stage: Stage
) -> None:
    portal, played = talks
    first = "The first sentence is a long one, so that the others have to wait for it to end."
    page = await chat(browser, portal)
    root_id = await ask_aloud(page, stage)
    await stage.chunk(root_id, 1, f"{first} And")
    await until(page, "sound")
    assert played.texts() == [first]
    await stage.chunk(root_id, 2, " the **second** is `short`. Third.\n\n```\nno code\n```\nFou")
    await until(page, "queued", 3)
    await expect(page.get_by_role("button", name="Be quiet")).to_be_visible()
    assert played.texts() == [first]  # what is far ahead is not asked for
    await until(page, "sound", 2)
    assert (await said(page, "sound"))[1]["sentence"] == "And the second is short."
    for _ in range(100):
        if len(played.texts()) == 3:
            break
        await asyncio.sleep(0.05)
    # The next ones are asked for side by side; what is heard keeps its order, as above.
    assert sorted(played.texts()[1:]) == ["And the second is short.", "Third."]
    await page.get_by_role("button", name="Be quiet").click()
    await until(page, "hushed")
    await stage.chunk(root_id, 3, "rth. Fifth. And so on.")
    await stage.end(root_id, "All of it. Again.")
    await expect(page.locator(".answer")).to_contain_text("All of it.")
    await expect(page.locator("[data-voice=bar]")).to_be_hidden()
    assert len(played.texts()) == 3
    assert {one.headers["authorization"] for one in played.requests} == {f"Bearer {KEY}"}


async def test_the_next_answer_is_spoken_after_one_that_was_hushed_by_a_key(
    browser: Browser, talks: Talking, stage: Stage
) -> None:
    page = await chat(browser, talks[0])
    root_id = await ask_aloud(page, stage)
    await stage.chunk(root_id, 1, "A sentence that goes on for quite a while. Then more. A")
    await until(page, "sound")
    await page.keyboard.press("Escape")
    await until(page, "hushed")
    await page.get_by_label("Message", exact=True).fill("Again")
    await page.keyboard.press("Enter")
    await expect(page.locator(".said").last).to_have_text("Again")
    other_id = await last_task(stage)
    assert other_id != root_id
    await stage.end(other_id, "Short, and whole at once")
    await until(page, "sound", 2)
    assert (await said(page, "sound"))[1]["sentence"] == "Short, and whole at once"
    await until(page, "idle")
    await page.reload()
    await expect(page.locator("[data-voice=speak]")).to_have_attribute("aria-pressed", "true")
    assert await said(page, "queued") == []  # what was said before is not said again


async def test_who_talks_hands_free_is_not_talked_over(
    playwright: Playwright, talks: Talking, stage: Stage, tmp_path: Path
) -> None:
    file = tmp_path / "again.wav"
    file.write_bytes(voice_rig.say("Stop it now, please stop.", before_s=3.0, after_s=2.0))
    async with hearing(playwright, file, repeat=True) as browser:
        page = await chat(browser, talks[0])
        await page.locator("[data-voice=talk]").click()
        await until(page, "listening")
        root_id = await ask_aloud(page, stage)
        await stage.chunk(root_id, 1, f"{'And on it goes, ' * 16}to its end. So")
        await until(page, "sound")
        await until(page, "hushed")
        await expect(page.locator("[data-voice=talk]")).to_have_attribute("aria-pressed", "true")


async def test_a_voice_that_fails_says_why(browser: Browser, talks: Talking, stage: Stage) -> None:
    portal, played = talks
    page = await chat(browser, portal)
    root_id = await ask_aloud(page, stage)
    played.fault = (429, "slow down")
    await stage.end(root_id, "This is never heard. Nor is this.")
    bar = page.locator("[data-voice=bar]")
    await expect(bar).to_contain_text("Not spoken: 127.0.0.1 refused (429): slow down.")
    assert await said(page, "sound") == []
    await expect(page.locator(".answer")).to_contain_text("This is never heard.")


async def test_a_recogniser_of_the_browser_that_cannot_is_explained(
    playwright: Playwright, portal: Portal
) -> None:
    """Debian's Chromium has one without the key that its maker's service wants."""
    async with chromium(playwright, *FAKES, program="chromium") as browser:
        page = await chat(browser, portal)
        talk = page.locator("[data-voice=talk]")
        assert "Heard by this browser's own" in (await talk.get_attribute("title") or "")
        await talk.click()
        bar = page.locator("[data-voice=bar]")
        await expect(bar).to_contain_text("only the browser's own is set up; for another, one of")
        await expect(talk).to_have_attribute("aria-pressed", "false")
