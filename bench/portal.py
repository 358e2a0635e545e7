"""How does the portal feel, and what do its readers cost? A whole installation, real Chromium.

interactive: from the start of the navigation until the page's socket has shaken hands, so that a
click does something. chunk: from the moment a piece of an answer is put on the wire until it
stands on the page. clients: sockets as the browser opens them, without the browsers. leak: tabs
opened and closed, then what the portal still counts.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
import uuid
from pathlib import Path

import httpx
import psutil
import socketio
from playwright.async_api import BrowserContext, Page, async_playwright

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "tests")]

from installation import Installation, installation, post, wait_task

from base.bus import Bus
from base.messages import Event, Kind, answer_id
from base.settings import load
from portal.pages.shell import PLACES

READY_JS = """const look = setInterval(() => {
  if (window.did_handshake) { window.benchReady = performance.now(); clearInterval(look); }
}, 4);"""
WATCH_JS = """() => {
  window.benchSeen = {};
  const look = () => {
    const now = performance.timeOrigin + performance.now();
    const text = document.querySelector("%s")?.textContent ?? "";
    for (const [, number] of text.matchAll(/w(\\d+);/g)) window.benchSeen[number] ??= now;
  };
  new MutationObserver(look).observe(document.body, {
    childList: true, subtree: true, characterData: true });
}"""
ANSWERS = ".answer:last-of-type, .thread"
#: A model that thinks for a minute: meanwhile the answer's pieces come from here.
SLOW = 'Say hello.\n```rehearsal\n{"say":"Hello.","delay_ms":60000}\n```'
SCRIPT = 'Say hello.\n```rehearsal\n{"say":"Hello."}\n```'
SETTLE_S = 70.0


async def interactive(context: BrowserContext, url: str, rounds: int) -> dict[str, list[float]]:
    """Seconds by path; the first visit, which fills the browser's cache, does not count."""
    took: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for place in PLACES:
            page = await context.new_page()
            await page.goto(url + place.path, wait_until="commit")
            await page.wait_for_function("window.benchReady", timeout=30_000)
            if number:
                ready_ms = await page.evaluate("window.benchReady")
                took.setdefault(place.path, []).append(ready_ms / 1000)
            await page.close()
    return took


async def chunks(
    page: Page, made: Installation, client: httpx.Client, count: int, per_s: float
) -> list[float]:
    """Milliseconds from the wire to the page, for each piece of one long answer."""
    sent = post(client, SLOW, effort="minimal")
    user_id, conversation_id = client.get("/api/auth/me").json()["id"], sent["conversation_id"]
    root_id = sent["task_id"]
    await page.goto(f"{made.url}/chat/{conversation_id}")
    await page.wait_for_function("window.benchReady")
    await page.evaluate(WATCH_JS % ANSWERS)
    bus = await Bus.open(load(home=made.home).redis, "bench")
    told: dict[str, float] = {}
    for number in range(count):
        told[str(number)] = time.time() * 1000
        await bus.emit(
            Event(
                kind=Kind.CHUNK,
                agent="supervisor",
                user_id=user_id,
                conversation_id=conversation_id,
                root_id=root_id,
                task_id=root_id,
                data={
                    "message_id": answer_id(root_id), "attempt": 1, "seq": number,
                    "content": f"some words of an answer w{number}; ",
                },
            )
        )  # fmt: skip
        await asyncio.sleep(1 / per_s)
    await page.wait_for_function(f"window.benchSeen[{count - 1}]", timeout=30_000)
    seen: dict[str, float] = await page.evaluate("window.benchSeen")
    await bus.close()
    client.post(f"/api/tasks/{root_id}/cancel").raise_for_status()
    return [seen[number] - told[number] for number in told]


async def visit(url: str, cookies: dict[str, str], path: str = "/chat") -> socketio.AsyncClient:
    """An open page without a browser: its HTML, then its socket."""
    async with httpx.AsyncClient(cookies=cookies, trust_env=False, timeout=60) as client:
        html = (await client.get(url + path)).raise_for_status().text
    client_id = re.search(r"""['"]client_id['"]:\s*['"]([\w-]+)""", html)
    assert client_id, "the page does not say who it is"
    socket = socketio.AsyncClient(reconnection=False)
    query = {
        "client_id": client_id[1], "tab_id": str(uuid.uuid4()), "document_id": str(uuid.uuid4()),
        "next_message_id": "0", "implicit_handshake": "true", "old_tab_id": "",
    }  # fmt: skip
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    await socket.connect(
        f"{url}?{asked}",
        headers={"cookie": cookie, "origin": url},
        transports=["websocket"],
        socketio_path="/_nicegui_ws/socket.io",
    )
    return socket


def portal_process(made: Installation) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [])[-2:] == ["-m", "portal"]:
            with_home = process.environ().get("AI_INFRA_HOME")
            if with_home == str(made.home):
                return process
    raise RuntimeError("the portal does not run")


def left(process: psutil.Process, client: httpx.Client, port: int) -> tuple[int, int]:
    """(connections that the portal holds on its port, listeners that it counts)."""
    held = [
        one
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
    ]
    text = client.get("/metrics").raise_for_status().text
    listeners = re.search(r"^portal_listeners (\S+)$", text, re.MULTILINE)
    assert listeners is not None
    return len(held), int(float(listeners[1]))


async def run(options: argparse.Namespace, made: Installation, client: httpx.Client) -> None:
    process = portal_process(made)
    wait_task(client, post(client, SCRIPT, effort="minimal")["task_id"])
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        context = await browser.new_context(viewport={"width": 1280, "height": 860})
        await context.add_init_script(READY_JS)
        page = await context.new_page()
        await page.goto(made.url + client.post("/api/auth/links").json()["path"])
        took = await interactive(context, made.url, options.rounds)
        waits_ms = await chunks(page, made, client, options.chunks, options.per_s)
        cookies = {one["name"]: one["value"] for one in await context.cookies()}  # type: ignore[typeddict-item]
        await browser.close()

    before_mb = process.memory_info().rss / 1e6
    sockets = [await visit(made.url, cookies) for _ in range(options.clients)]
    await asyncio.sleep(2)
    rss_mb = process.memory_info().rss / 1e6
    await asyncio.gather(*(one.disconnect() for one in sockets))

    for _ in range(options.tabs // 10):
        tabs = await asyncio.gather(*(visit(made.url, cookies) for _ in range(10)))
        await asyncio.gather(*(one.disconnect() for one in tabs))
    client.close()
    until_s = time.monotonic() + SETTLE_S
    with made.client() as fresh:
        while (found := left(process, fresh, made.port)) != (1, 0) and time.monotonic() < until_s:
            await asyncio.sleep(1)
    tell(options, took, waits_ms, (before_mb, rss_mb), (found[0] - 1) + found[1])


def tell(
    options: argparse.Namespace,
    took: dict[str, list[float]],
    waits_ms: list[float],
    rss_mb: tuple[float, float],
    leaked: int,
) -> None:
    print(f"{'page':<14}{'p50 s':>8}{'max s':>8}")
    for path, seconds in took.items():
        print(f"{path:<14}{statistics.median(seconds):>8.2f}{max(seconds):>8.2f}")
    waits = sorted(waits_ms)
    p95_ms = waits[int(0.95 * (len(waits) - 1))]
    print(f"\n{len(waits)} chunks: p50 {statistics.median(waits):.0f} ms, p95 {p95_ms:.0f} ms")
    print(f"portal {rss_mb[0]:.0f} MB; with {options.clients} pages open {rss_mb[1]:.0f} MB\n")
    worst_s = max(statistics.median(seconds) for seconds in took.values())
    print(f"figure portal.interactive_s {worst_s:.2f} s")
    print(f"figure portal.chunk_p95_ms {p95_ms:.0f} ms")
    print(f"figure portal.clients100_rss_mb {rss_mb[1]:.0f} MB")
    print(f"figure portal.leaked_connections {leaked} connections")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="visits of each page that count")
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--per-s", type=float, default=20.0, help="chunks a second")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--tabs", type=int, default=500, help="opened and closed")
    options = parser.parse_args()
    limits = '[api]\npremium = "unlimited"\n[websocket]\nconnections = 0\n'
    with installation(config={"limits.toml": limits}) as made, made.client() as client:
        asyncio.run(run(options, made, client))


if __name__ == "__main__":
    main()
