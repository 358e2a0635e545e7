"""How soon is an answer heard? A whole installation, the rehearsal model, espeak-ng and Chromium.

The clock starts at the event on the stream that finishes the first sentence (its id is Redis' own
time) and stops at the first sample in the browser's loudspeaker that is no silence.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from installation import Installation, installation
from present import need

FIRST = "Sentence number {} comes first and is of an ordinary length."
REST = " The second one has to wait for it. And so does the third."
#: When the page knew the sentence, when its sound began, and the first sample that is heard.
WATCH = """
window.marks = {};
const mark = (name) => (window.marks[name] ??= performance.timeOrigin + performance.now());
document.addEventListener("ai-voice", (event) => mark(event.detail.kind));
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...given) {
  const analyser = this.context.createAnalyser();
  const wave = new Float32Array(analyser.fftSize);
  this.connect(analyser);
  const looking = setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    if (wave.some((one) => Math.abs(one) > 0.01)) {
      mark("heard");
      clearInterval(looking);
    }
  }, 2);
  return start.apply(this, given);
};
"""


async def rounds(
    made: Installation, client: httpx.Client, link: str, chat: str, count: int
) -> list[dict[str, float]]:
    """For each answer the seconds from its first finished sentence to each mark."""
    found = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=need("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = await browser.new_page(viewport={"width": 1280, "height": 860})
        await page.add_init_script(WATCH)
        await page.goto(made.url + link)
        await page.goto(f"{made.url}/chat/{chat}")
        await page.locator("[data-voice=speak][data-provider=espeak]").click()
        for _ in range(count + 1):
            found.append(await one(page, client, chat, FIRST.format(time.time_ns())))
            await page.keyboard.press("Escape")
        await browser.close()
    return found[1:]  # the first warms everything up


async def one(page: Page, client: httpx.Client, chat: str, sentence: str) -> dict[str, float]:
    began = f"{int(time.time() * 1000)}-0"
    await page.evaluate("window.marks = {}")
    content = f'Go.\n```rehearsal\n{{"say": "{sentence}{REST}"}}\n```'
    sent = {"content": content, "effort": "minimal"}
    await asyncio.to_thread(client.post, f"/api/conversations/{chat}/messages", json=sent)
    await page.wait_for_function("window.marks.heard", timeout=60_000)
    marks: dict[str, float] = await page.evaluate("window.marks")
    finished_ms = finished(client, began, sentence)
    names = {"queued": "known", "sound": "began", "heard": "heard"}
    return {says: (marks[name] - finished_ms) / 1000 for name, says in names.items()}


def finished(client: httpx.Client, after: str, sentence: str) -> int:
    """Unix milliseconds of the event that finished the sentence."""
    page: dict[str, Any] = (
        client.get("/api/events", params={"after": after, "limit": 1000}).raise_for_status().json()
    )
    said = ""
    for entry in page["events"]:
        kind, data = entry["event"]["kind"], entry["event"]["data"]
        if kind == "chunk":
            said += data["content"]
        elif kind == "message" and data.get("role") == "assistant":
            said = data["content"]
        if sentence in said:
            return int(entry["event_id"].partition("-")[0])
    raise AssertionError(f"no event finished {sentence!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    need("espeak-ng")
    with (
        installation(local_workers="false", text_to_speech="espeak") as made,
        made.client() as client,
    ):
        link = client.post("/api/auth/links").raise_for_status().json()["path"]
        chat = client.post("/api/conversations", json={"title": "bench"}).json()["id"]
        found = asyncio.run(rounds(made, client, link, chat, options.rounds))
    print(f"{'seconds after the first sentence':<36}{'p50':>8}{'max':>8}")
    for name in ("known", "began", "heard"):
        values = [row[name] for row in found]
        print(f"{name:<36}{statistics.median(values):>8.3f}{max(values):>8.3f}")
    print(f"\nfigure voice.first_sound_s {statistics.median(row['heard'] for row in found):.3f} s")
    print(f"figure voice.first_sound_max_s {max(row['heard'] for row in found):.3f} s")


if __name__ == "__main__":
    main()
