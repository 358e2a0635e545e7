"""Domains where there is a broker: the API, the command and the page ask the same verbs."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from typer.testing import CliRunner

from base.store import Store
from portal.cli import app
from tests.portal.conftest import Portal, person, running
from tests.portal.test_api import problem
from tests.portal.test_pages import ARTIFACTS, signed_in
from tests.provision.rig import Rig, made

expect.set_options(timeout=15_000)
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An appliance's portal and its broker, whose site verbs are played."""

    portal: Portal
    broker: Rig


@pytest.fixture(scope="module")
def place(short_tmp: Path, redis_server: str, portal_dsn: str) -> Iterator[Place]:
    with (
        made(redis_server, portal_dsn) as broker,
        running(
            short_tmp, redis_server, portal_dsn, limited=False, AI_INFRA_BROKER=str(broker.socket)
        ) as portal,
    ):
        broker.rules('units = ["web.service"]', inbox=portal.settings.inbox)
        broker.start()
        yield Place(portal=portal, broker=broker)


def deployed(place: Place) -> list[str]:
    """The names in the archive that was deployed last."""
    raw = (place.broker.state / "deployed").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return archive.getnames()


@pytest.fixture(autouse=True)
def empty(place: Place) -> None:
    """No sites."""
    (place.broker.state / "played.json").unlink(missing_ok=True)


@pytest.fixture
def portal(place: Place) -> Portal:
    """For the shared fixtures: the store and the bus are this portal's."""
    return place.portal


async def test_a_domain_from_its_plan_to_its_end(place: Place, store: Store) -> None:
    somebody = await person(place.portal, store)
    with place.portal.admin() as admin, place.portal.client(somebody.token) as user:
        wanted = {"domain_name": "api.example.org", "subdomains": ["www"]}
        plan = admin.post("/api/domains/plan", json=wanted).json()["plan"]
        assert plan[0] == "write the site api.example.org"
        assert admin.get("/api/domains").json() == {"domains": []}
        key = {"Idempotency-Key": uuid.uuid4().hex}
        made = admin.post("/api/domains", json=wanted, headers=key)
        assert made.status_code == 201, made.text
        one = made.json()
        assert (one["status"], one["ssl_status"], one["days_left"]) == ("active", "active", 60)
        assert one["names"] == ["api.example.org", "www.api.example.org"]
        assert admin.post("/api/domains", json=wanted, headers=key).json()["id"] == one["id"]
        assert (
            "is a site already" in problem(admin.post("/api/domains", json=wanted), 409)["detail"]
        )
        row = await store.fetchrow("SELECT * FROM domains WHERE id = $1", one["id"])
        assert row is not None
        assert (row["domain_name"], row["status"]) == ("api.example.org", "active")
        assert row["created_by"] is not None
        where = f"/api/domains/{one['id']}"
        assert user.get(where).json() == admin.get(where).json() == one
        assert user.get(f"{where}/certificate").json()["days_left"] == 60
        for method, path in (
            ("POST", "/api/domains"), ("POST", "/api/domains/plan"), ("DELETE", where),
            ("GET", "/api/domains/history"), ("POST", f"{where}/renew"), ("GET", "/api/broker"),
            ("POST", "/api/broker/domain.list"),
        ):  # fmt: skip
            body = None if method != "POST" else {} if "broker" in path else wanted
            problem(user.request(method, path, json=body), 403)
        off = admin.patch(where, json={"enabled": False}).json()
        assert (off["status"], off["id"]) == ("suspended", one["id"])
        assert admin.patch(where, json={"enabled": True}).json()["status"] == "active"
        assert admin.post(f"{where}/renew").json()["ssl_status"] == "active"
        (change,) = admin.get("/api/domains/history").json()["changes"]
        assert (change["id"], change["verb"], change["domain"]) == ("c1", "add", "example.org")
        assert admin.post("/api/domains/undo", json={"change": "c1"}).status_code == 200
        assert place.broker.did[-1] == "undid c1"
        assert admin.delete(where).status_code == 204
        assert admin.get("/api/domains").json() == {"domains": []}
        problem(admin.get(where), 404)
        gone = await store.fetchval("SELECT status FROM domains WHERE id = $1", one["id"])
        assert gone == "deleted"
        again = admin.post("/api/domains", json=wanted).json()  # the same name has the same row
        assert (again["id"], again["status"]) == (one["id"], "active")
        admin.delete(where)


async def test_what_is_sent_lies_in_the_inbox_under_no_name_of_theirs(place: Place) -> None:
    with place.portal.admin() as admin:
        one = admin.post("/api/domains", json={"domain_name": "files.example.org"}).json()
        where = f"/api/domains/{one['id']}/deploy"
        files = [
            ("files", ("index.html", b"<p>hi")),
            ("files", ("css/main.css", b"a{}")),
            ("files", ("ünder/ü.txt", "ü".encode())),
        ]
        said = admin.post(where, files=files)
        assert said.json() == {"files": 3, "release": "20261128-1"}
        assert deployed(place) == ["index.html", "css/main.css", "ünder/ü.txt"]
        name = place.broker.did[-1].split()[1]
        assert name.endswith(".tar.gz")
        assert len(name) == 32 + len(".tar.gz")
        packed = admin.post(where, files=[("files", ("../../site.ZIP", b"PK"))])
        problem(packed, 422)
        packed = admin.post(where, files=[("files", ("site.ZIP", b"PK"))])
        assert packed.json()["files"] == 1
        assert (place.broker.state / "deployed").read_bytes() == b"PK"
        for bad in ("../up.html", "/etc/cron.d/x", "a/../../b", "a\\..\\..\\b", ".."):
            answer = admin.post(where, files=[("files", (bad, b"x")), ("files", ("ok", b"x"))])
            assert answer.status_code == 422, bad
        problem(admin.post(where, files=[("files", ("a", b"x")), ("files", ("./a", b"y"))]), 422)
        assert admin.post(where.replace("deploy", "rollback")).json()["files"] == 0
        assert list(place.portal.settings.inbox.iterdir()) == []
        unknown = f"/api/domains/{uuid.uuid4()}/deploy"
        problem(admin.post(unknown, files=[("files", ("a", b"x"))]), 404)
        admin.delete(f"/api/domains/{one['id']}")


async def test_hostile_names_are_refused_in_words(place: Place) -> None:
    with place.portal.admin() as admin:
        for name in ("a b.org", "*.example.org", "127.0.0.1", "x;y.org", "a\nb.org", "localhost"):
            said = problem(admin.post("/api/domains", json={"domain_name": name}), 422)
            assert "domain" in said["detail"], name
        proxy = {"domain_name": "p.example.org", "kind": "proxy", "upstream": "http://10.0.0.1:80"}
        assert "upstream" in problem(admin.post("/api/domains", json=proxy), 422)["detail"]
        unknown = admin.post("/api/broker/root.shell", json={"command": "id"})
        problem(unknown, 404)
        wrong = admin.post("/api/broker/unit.restart", json={"unit": "web.service", "now": True})
        assert "now: " in problem(wrong, 422)["detail"]
        listed = admin.post("/api/broker/unit.restart", json={"unit": "ssh.service"})
        assert "not one of the units" in problem(listed, 403)["detail"]


def test_the_command_does_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    home = place.portal.settings.home
    monkeypatch.setenv("AI_INFRA_HOME", str(home))
    monkeypatch.setenv("AI_INFRA_PORT", str(place.portal.settings.port))
    monkeypatch.setenv("AI_INFRA_BROKER", str(place.broker.socket))

    def ours(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, (words, result.output)
        return result.output

    assert "1. write the site cli.example.org" in ours(
        "domains", "add", "cli.example.org", "--dry-run"
    )
    assert "nothing there" in ours("domains", "list")
    ours("domains", "add", "cli.example.org", "--subdomain", "www", "--no-tls")
    ours("domains", "add", "to.example.org", "--redirect", "example.net", "--json")
    (one, other) = json.loads(ours("domains", "list", "--json"))["domains"]
    assert (one["domain_name"], one["days_left"]) == ("cli.example.org", None)
    assert (other["kind"], other["target"]) == ("redirect", "example.net")
    site = home / "site"
    (site / "css").mkdir(parents=True)
    (site / "index.html").write_text("hello")
    (site / "css" / "a.css").write_text("b{}")
    (site / "out").symlink_to("/etc/passwd")
    ours("domains", "deploy", "cli.example.org", str(site))
    assert deployed(place) == ["css", "css/a.css", "index.html"]
    assert "one step" in ours("domains", "deploy", "cli.example.org", "--previous", "--dry-run")
    ours("domains", "deploy", "cli.example.org", "--git", "https://example.org/x.git")
    ours("domains", "deploy", "cli.example.org", code=2)
    ours("domains", "disable", "cli.example.org")
    assert "suspended" in ours("domains", "list")
    assert "one step" in ours("domains", "enable", "cli.example.org", "--dry-run")
    assert json.loads(ours("domains", "renew", "--json"))["result"] == {"renewed": []}
    assert "server_name example.org" in ours("domains", "history", "--diff")
    ours("domains", "undo", "c1")
    assert "no domain nobody.org; there are: cli.example.org" in ours(
        "domains", "remove", "nobody.org", "--yes", code=2
    )
    for name in ("cli.example.org", "to.example.org"):
        ours("domains", "remove", name, "--yes")
    assert "unit.restart" in ours("broker", "verbs")
    assert "cannot be found" not in ours("broker", "call", "domain.list")
    assert "is not one of the units" in ours(
        "broker", "call", "unit.status", "unit=ssh.service", code=1
    )
    assert json.loads(ours("broker", "call", "domain.list", "--direct", "--json")) == {"sites": []}
    assert "must be name=value" in ours("broker", "call", "unit.status", "web", code=2)


async def test_a_broker_that_is_away_is_said(short_tmp: Path, place: Place) -> None:
    place.broker.end()
    try:
        with place.portal.admin() as admin:
            said = problem(admin.get("/api/domains"), 503)
            assert "root broker cannot be asked" in said["detail"]
    finally:
        await asyncio.to_thread(place.broker.start)


async def test_the_page(browser: Browser, place: Place, tmp_path: Path) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page = await signed_in(browser, place.portal, 1280, "light")
    await page.goto(place.portal.url + "/domains")
    await expect(page.get_by_text("No domains yet")).to_be_visible()
    await page.get_by_role("button", name="Add a domain").click()
    sheet = page.get_by_role("dialog")
    await sheet.get_by_label("Domain, such as").fill("bad name")
    await sheet.get_by_role("button", name="Look at the plan").click()
    await expect(sheet.get_by_role("alert")).to_contain_text("a domain is labels")
    await sheet.get_by_label("Domain, such as").fill("page.example.org")
    await sheet.get_by_label("Subdomains").fill("www, blog")
    await sheet.get_by_role("button", name="Look at the plan").click()
    await expect(sheet.get_by_text("have a certificate issued")).to_be_visible()
    assert not any("page.example.org" in line for line in place.broker.did)
    await page.screenshot(path=ARTIFACTS / "domains-add-1280-light.png")
    await sheet.get_by_label("Subdomains").fill("www")  # another wish needs another plan
    await expect(sheet.get_by_text("have a certificate issued")).to_have_count(0)
    await sheet.get_by_role("button", name="Look at the plan").click()
    await sheet.get_by_role("button", name="Add page.example.org").click()
    row = page.get_by_role("region", name="page.example.org")
    await expect(row).to_contain_text("certificate 60 days")
    await expect(row).to_contain_text("www.page.example.org")
    # An agent's or another window's work shows at once.
    (place.broker.state / "go").unlink(missing_ok=True)
    with place.portal.admin() as admin:
        asked = asyncio.create_task(
            asyncio.to_thread(admin.post, "/api/domains", json={"domain_name": "slow.example.org"})
        )
        await expect(page.locator(".doing")).to_contain_text("writing the site slow.example.org")
        await page.screenshot(path=ARTIFACTS / "domains-1280-light.png")
        (place.broker.state / "go").touch()
        await asked
    await expect(page.get_by_role("region", name="slow.example.org")).to_be_visible()
    await expect(page.locator(".doing")).to_be_hidden()
    # Files.
    (tmp_path / "site" / "img").mkdir(parents=True)
    (tmp_path / "site" / "index.html").write_text("<p>hello")
    (tmp_path / "site" / "img" / "a.svg").write_text("<svg/>")
    await row.get_by_role("button", name="Deploy page.example.org").click()
    async with page.expect_file_chooser() as chooser:
        await page.get_by_role("button", name="Choose a folder").click()
    await (await chooser.value).set_files(tmp_path / "site")
    await expect(row).to_contain_text("release 20261128-1")
    assert sorted(deployed(place)) == ["img/a.svg", "index.html"]
    # Off, on, history, away.
    await row.get_by_role("button", name="Disable page.example.org").click()
    await page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    await expect(row).to_contain_text("suspended")
    await row.get_by_role("button", name="Enable page.example.org").click()
    await expect(row).to_contain_text("active")
    await page.get_by_role("button", name="History").click()
    await page.get_by_text("add example.org").click()
    await expect(page.get_by_text("+ <b>bold</b>")).to_be_visible()
    await page.get_by_role("button", name="Undo add example.org").click()
    await page.get_by_role("dialog").get_by_role("button", name="Undo", exact=True).click()
    await expect(page.get_by_text("Taken back")).to_be_visible()
    assert place.broker.did[-1] == "undid c1"
    await page.get_by_role("button", name="Close").click()
    await page.set_viewport_size({"width": 390, "height": 860})
    await page.emulate_media(color_scheme="dark")
    assert await page.evaluate(OVERFLOW) <= 0
    await page.screenshot(path=ARTIFACTS / "domains-390-dark.png", full_page=True)
    for name in ("page.example.org", "slow.example.org"):
        region = page.get_by_role("region", name=name)
        await region.get_by_role("button", name=f"Remove {name}").click()
        await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        await expect(region).to_have_count(0)
    assert page.foreign == []  # type: ignore[attr-defined]
