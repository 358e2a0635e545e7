"""The portal's front through a real nginx; nginx.conf and the package's page, there and back."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import httpx
import pytest
from nginx_rig import Ground, free_port, ground, make_box, program, unverified
from playwright.async_api import async_playwright, expect
from present import need
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from base.errors import ConflictError, ForbiddenError
from portal.limits import BODY_MAX_BYTES, LARGER_BYTES
from provision import front, template
from provision.sites import Sites
from provision.spec import Spec

__all__ = ["ground"]
ARTIFACTS = Path(__file__).resolve().parents[1] / "artifacts"


def test_the_sizes_are_the_portals() -> None:
    assert template.BODY_BYTES == BODY_MAX_BYTES
    assert dict(template.LARGER_BYTES) == {path: n for (_, path), n in LARGER_BYTES.items()}


def specs(ground: Ground, upstream: str) -> list[Spec]:
    made = Spec(
        domain="ai.example",
        kind="portal",
        upstream=upstream,
        challenge_root=ground.box.state / "challenges",
        **ground.certificate("ai.example", "api.example"),
    )
    return [made, replace(made, domain="api.example", kind="api")]


def declared(ground: Ground, path: str, length_bytes: int, *, wait: bool = True) -> str:
    """The head of the answer to a body of that length, of which nothing is sent; "" for none."""
    with (
        socket.create_connection(("127.0.0.1", ground.box.https_port), timeout=10) as plain,
        unverified().wrap_socket(plain, server_hostname="ai.example") as secured,
    ):
        head = f"POST {path} HTTP/1.1\r\nHost: ai.example\r\nContent-Length: {length_bytes}\r\n\r\n"
        secured.sendall(head.encode())
        secured.settimeout(10 if wait else 0.5)
        try:
            return secured.recv(4_000).decode()
        except TimeoutError:
            return ""


async def many(ground: Ground, path: str, count: int) -> list[httpx.Response]:
    """That many requests as fast as they go, on few connections."""
    url = f"https://127.0.0.1:{ground.box.https_port}{path}"
    limits = httpx.Limits(max_connections=8)
    named = {"sni_hostname": "ai.example"}
    async with httpx.AsyncClient(verify=unverified(), trust_env=False, limits=limits) as client:
        asked = (
            client.get(url, headers={"Host": "ai.example"}, extensions=named) for _ in range(count)
        )
        return await asyncio.gather(*asked)


async def test_the_portal_and_the_api(ground: Ground) -> None:
    with program("portal") as (upstream, asked):
        made = specs(ground, upstream)
        assert await front.lay(ground.box, made, check=True) == [
            "portal at ai.example",
            "api at api.example",
        ]
        assert Sites(ground.box).specs(front=True) == []
        await front.lay(ground.box, made)
        assert await front.lay(ground.box, made) == []
        assert Sites(ground.box).specs() == []
        with pytest.raises(ForbiddenError):
            await Sites(ground.box).remove("ai.example")
        page = ground.get("ai.example", tls=True, headers={"X-Forwarded-For": "1.2.3.4"})
        assert page.text == "portal"
        assert page.headers["x-frame-options"] == "SAMEORIGIN"
        assert asked[-1]["x-forwarded-proto"] == "https"
        assert asked[-1]["x-forwarded-for"] == "127.0.0.1"
        assert asked[-1]["host"] == f"ai.example:{ground.box.https_port}"
        assert ground.get("ai.example").status_code == 301
        assert ground.get("api.example", tls=True).status_code == 404
        assert ground.get("api.example", "/api/health/live", tls=True).text == "portal"
        for path, most in {
            "/api/conversations": BODY_MAX_BYTES,
            "/api/attachments": 50_000_000,
        }.items():
            body = b"x" * min(most, 2_000_000)
            kept = ground.get("ai.example", path, tls=True, method="POST", content=body)
            assert kept.status_code == 200, path
            refused = declared(ground, path, most + 1)
            assert refused.startswith("HTTP/1.1 413"), path
            assert "application/problem+json" in refused
        deploy = "/api/domains/0b9ea2cc-2bd4-4d7b-9a9b-1c8b6a9a3f10/deploy"
        assert declared(ground, deploy, 200_000_001).startswith("HTTP/1.1 413")
        assert not declared(ground, deploy, 200_000_000, wait=False).startswith("HTTP/1.1 413")
        answers = await many(ground, "/api/x", 60)
        often = [one for one in answers if one.status_code == 429]
        assert len(often) > 5
        assert often[0].json()["detail"] == "too many requests from this address"
        assert often[0].headers["retry-after"] == "1"
        assert ground.get("ai.example", "/", tls=True).status_code == 200


#: As Chromium sends it.
PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


async def test_while_the_portal_is_away_people_get_a_page_and_programs_a_problem(
    ground: Ground,
) -> None:
    await front.lay(ground.box, specs(ground, f"http://127.0.0.1:{free_port()}"))

    def asked(path: str, accept: str, method: str = "GET", host: str = "ai.example") -> str:
        said = ground.get(host, path, tls=True, method=method, headers={"Accept": accept})
        assert (said.status_code, said.headers["retry-after"]) == (503, "5")
        assert said.headers["x-content-type-options"] == "nosniff"
        assert said.headers["strict-transport-security"] == "max-age=63072000"
        if said.headers["content-type"] == "text/html; charset=utf-8":
            assert said.headers["content-security-policy"].startswith("default-src 'none';")
            assert said.headers["cache-control"] == "no-store"
            assert method == "HEAD" or said.text.endswith("</html>\n")
            return "a page"
        assert said.headers["content-type"] == "application/problem+json"
        assert said.json()["status"] == 503
        return "a problem"

    for path in ("/", "/chat/7?branch=2", "/login?token=x", "/apiary", "/x.json"):
        assert asked(path, PAGE) == asked(path, "TEXT/HTML") == "a page", path
        assert asked(path, "*/*") == asked(path, "application/json") == "a problem", path
    assert asked("/login", PAGE, "POST") == asked("/chat", PAGE, "HEAD") == "a page"
    for path in ("/api/", "/api/tasks", "/mcp", "/openapi.json", "/ws", "/ws/terminals/code"):
        assert asked(path, PAGE) == "a problem", path
    assert asked("/api/tasks", PAGE, host="api.example") == "a problem"


async def test_who_looks_at_the_page_sees_the_portal_come_back(ground: Ground) -> None:
    """In Chromium, which loads nothing else for it; the pictures are for a look."""
    port, box = free_port(), ground.box
    await front.lay(box, specs(ground, f"http://127.0.0.1:{port}")[:1])
    args = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP ai.example 127.0.0.1"]
    url = f"https://ai.example:{box.https_port}/chat?of=7"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need("chromium"), args=args)
        for width, scheme in itertools.product((1280, 390), ("light", "dark")):
            page = await browser.new_page(
                viewport={"width": width, "height": 860},
                color_scheme=cast("Literal['light', 'dark']", scheme),
                ignore_https_errors=True,
            )
            loaded: list[str] = []
            faults: list[str] = []
            page.on("request", lambda asked, loaded=loaded: loaded.append(asked.url))
            page.on("console", lambda said, faults=faults: faults.append(said.text))
            answer = await page.goto(url)
            assert answer is not None
            assert answer.status == 503
            await expect(page.get_by_role("heading")).to_have_text("The portal does not answer")
            await expect(page.get_by_role("status")).to_contain_text("looks again every 5 seconds")
            assert await page.locator("html").get_attribute("lang") == "en"
            ground_ = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground_ == ("rgb(245, 246, 251)" if scheme == "light" else "rgb(20, 22, 31)")
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            ARTIFACTS.mkdir(exist_ok=True)
            await page.screenshot(path=ARTIFACTS / f"away-{scheme}-{width}.png")
            assert set(loaded) == {url}
            # The answer itself is told as an error; a style that was refused would be another.
            assert [one for one in faults if "503" not in one] == []
        with program("the portal is back", port=port):
            await expect(page.get_by_text("the portal is back")).to_be_visible(timeout=15_000)
            assert page.url == url
        await browser.close()


async def test_a_portal_without_a_domain_answers_to_every_name(tmp_path: Path) -> None:
    ground = Ground(box=make_box(tmp_path))
    ground.start()
    try:
        with program("portal") as (upstream, asked):
            files = ground.certificate("portal.invalid")
            await front.lay(
                ground.box, [Spec(domain="_", kind="portal", upstream=upstream, **files)]
            )
            await Sites(ground.box).apply(ground.static("one.example"))
            assert ground.get("192.0.2.1", tls=True).text == "portal"
            assert asked[-1]["host"] == f"192.0.2.1:{ground.box.https_port}"
            assert ground.get("one.example").text == "this is one.example"
            led = ground.get("203.0.113.5", "/x").headers["location"]
            assert led == f"https://203.0.113.5:{ground.box.https_port}/x"
    finally:
        ground.stop()


async def test_where_the_owners_sites_listen_the_nameless_are_theirs(ground: Ground) -> None:
    with program("portal") as (upstream, _):
        files = ground.certificate("portal.invalid")
        nameless = Spec(domain="_", kind="portal", upstream=upstream, **files)
        await front.lay(ground.box, [nameless])
        assert ground.get("192.0.2.1").text == "the owner's"
        assert ground.get("192.0.2.1", tls=True).text == "portal"
        both = f"listen 127.0.0.1:{ground.box.https_port}; listen 127.0.0.1:PORT;"
        ground.owner("owner.example", f'server {{ {both} server_name x; return 200 "x"; }}\n')
        with pytest.raises(ConflictError, match="a portal without a name cannot be reached"):
            await front._work(ground.box, [nameless], None, check=False)


async def test_sockets_and_streams_pass_at_once(ground: Ground) -> None:
    def echo(socket_: ServerConnection) -> None:
        for said in socket_:
            socket_.send(f"{said} {socket_.request.headers['X-Real-IP']}")  # type: ignore[union-attr]

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        await front.lay(ground.box, specs(ground, f"http://127.0.0.1:{port}")[:1])
        at = socket.create_connection(("127.0.0.1", ground.box.https_port), timeout=10)
        with connect("wss://ai.example/ws", sock=at, ssl=unverified(), proxy=None) as talking:
            talking.send("hello")
            assert talking.recv(timeout=10) == "hello 127.0.0.1"
        server.shutdown()
        thread.join()
    first, end = asyncio.Event(), asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if b"/api/events" in asked:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await writer.drain()
            first.set()
            await end.wait()
        else:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(stream, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        await front.lay(ground.box, specs(ground, f"http://127.0.0.1:{port}")[:1])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", ground.box.https_port, ssl=unverified(), server_hostname="ai.example"
        )
        writer.write(b"GET /api/events HTTP/1.1\r\nHost: ai.example\r\n\r\n")
        started_s = time.monotonic()
        await first.wait()
        async with asyncio.timeout(5):
            while b"data: 1" not in await reader.readline():
                pass
        assert time.monotonic() - started_s < 5  # the stream is still open
        end.set()
        writer.close()


async def test_a_fresh_machine_gets_our_nginx_conf_and_its_own_back(tmp_path: Path) -> None:
    ground = Ground(box=make_box(tmp_path))
    nginx, conf = ground.box.nginx, ground.box.nginx / "nginx.conf"
    shutil.copy("/etc/nginx/nginx.conf", conf)
    shutil.copy("/etc/nginx/sites-available/default", nginx / "sites-available" / "default")
    (nginx / "sites-enabled" / "default").symlink_to("../sites-available/default")
    packaged = conf.read_bytes()
    said = await front.lay(ground.box, [], check=True)
    assert len(said) == 2
    assert conf.read_bytes() == packaged
    await front.lay(ground.box, [])
    assert conf.read_bytes().startswith(front.OURS)
    assert list((nginx / "sites-enabled").iterdir()) == []
    assert await front.lay(ground.box, []) == []
    ground.start()
    try:
        await Sites(ground.box).apply(ground.static("one.example"))
        await front.remove(ground.box)
    finally:
        ground.stop()
    assert conf.read_bytes() == packaged
    assert (nginx / "sites-enabled" / "default").is_symlink()
    assert sorted(path.name for path in nginx.iterdir()) == [
        *("conf.d", "mime.types", "modules-enabled", "nginx.conf"),
        *("sites-available", "sites-enabled"),
    ]
    assert list((nginx / "conf.d").iterdir()) == []


async def test_removed_and_installed_again_peoples_sites_are_served_as_before(
    ground: Ground,
) -> None:
    box, made = ground.box, specs(ground, "http://127.0.0.1:9999")[:1]
    await front.lay(box, made)
    site = ground.static("one.example")
    (box.www / "one.example" / "releases").mkdir()
    await Sites(box).apply(site)
    await front.remove(box)
    ground.reload()
    assert not any(box.nginx.glob("*ai-infra*"))
    assert not any(box.nginx.rglob(front.HOOK))
    assert ground.get("owner.example").text == "the owner's"
    assert ground.get("one.example").text == "the owner's"
    assert await front.lay(box, made) == ["the sites of before", "portal at ai.example"]
    assert ground.get("one.example").text == "this is one.example"
    assert await front.lay(box, made) == []
    page = box.www / "owner.example" / "index.html"
    page.parent.mkdir()
    page.write_text("stays")
    gone = await front.remove(box, purge=True)
    assert str(box.nginx_logs / "one.example.access.log") in gone
    assert [path.name for path in box.www.iterdir()] == ["owner.example"]
    assert await front.lay(box, []) == []
    assert Sites(box).specs(front=True) == []


async def test_an_nginx_conf_that_somebody_changed_stays(tmp_path: Path) -> None:
    box = make_box(tmp_path)
    theirs = Path("/etc/nginx/nginx.conf").read_text() + "# mine\n"
    (box.nginx / "nginx.conf").write_text(theirs)
    assert await front.lay(box, []) == []
    assert (box.nginx / "nginx.conf").read_text() == theirs
