"""Certificates in time: renewed, refused, revoked, alarmed, one order at a time, killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import acme_rig
import pytest
from acme_rig import Heard, Town, town
from present import wait_for

from base.errors import ConflictError, NotFoundError
from base.verbs import By, CertRenew, DomainAdd, Nothing
from provision import certbot, certs
from provision.box import Box
from provision.certs import Certs
from provision.child import Ended
from provision.domains import Domains
from provision.turn import turn
from provision.verbs import cert_list, cert_renew

__all__ = ["town"]
BY = By(role="system")


def in_days(days: float) -> Any:
    return lambda: datetime.now(UTC) + timedelta(days=days)


async def renewed(box: Box, **asked: object) -> dict[str, Any]:
    return await cert_renew.VERB.run(CertRenew(**asked), box, BY, Heard())  # type: ignore[arg-type]


async def test_renewed_at_a_third_alarmed_at_a_quarter(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.home("a.example", "b.example")
    for domain in ("a.example", "b.example"):
        await town.domains.add(DomainAdd(domain=domain), Heard())
    old = {name: town.shown(name) for name in ("a.example", "b.example")}
    changes = len(town.changes())
    monkeypatch.setattr(certs, "now", in_days(59.9))
    assert await renewed(town.box) == {"renewed": [], "failed": {}, "alarms": []}
    assert len(town.changes()) == changes, "nothing renewed, nothing reloaded"

    monkeypatch.setattr(certs, "now", in_days(67))
    town.names.point("b.example", "192.0.2.9")
    found = await renewed(town.box)
    assert [one["domain"] for one in found["renewed"]] == ["a.example"]
    assert list(found["failed"]) == ["b.example"]
    assert found["alarms"] == []
    assert [one.verb for one in town.changes()[: len(town.changes()) - changes]] == ["reload"]
    assert town.shown("a.example") != old["a.example"]
    assert town.shown("b.example") == old["b.example"], "it goes on with its old one"

    monkeypatch.setattr(certs, "now", in_days(67.6))
    listed = await cert_list.VERB.run(Nothing(), town.box, BY, Heard())
    problem = {one["domain"]: one["problem"] for one in listed["certificates"]}["b.example"]
    assert problem.startswith("the certificate expires in 22.4 days: no certificate for b.example")
    site = next(site for site in town.domains.all() if site.domain == "b.example")
    assert (site.ssl_status, site.problem) == ("active", problem)
    away = replace(town.box, acme_url="https://127.0.0.1:1/dir")
    heard = Heard()
    found = await cert_renew.VERB.run(CertRenew(), away, BY, heard)
    assert found["renewed"] == []
    assert found["alarms"] == ["a.example", "b.example"]
    assert any(step.startswith("alarm: b.example: the certificate expires in") for step in heard)
    assert sum(step.startswith("no certificate for") for step in heard) == 1, "asked once for both"
    with pytest.raises(ConflictError, match="cannot be reached"):
        await Domains(away).renew("a.example", True, Heard())
    with pytest.raises(NotFoundError, match=r"c\.example has no certificate"):
        await town.domains.renew("c.example", False, Heard())

    town.home("b.example")
    found = await renewed(town.box, domain="b.example")
    assert [one["domain"] for one in found["renewed"]] == ["b.example"]
    assert found["failed"]["b.example"] == "the certificate expires in 22.4 days"
    assert town.shown("b.example") != old["b.example"]
    monkeypatch.undo()

    serial = certs.read(certbot.live(town.box, "a.example")[0]).serial_number
    await town.domains.remove("a.example", revoke=True, tell=Heard())
    assert town.authority.status(serial) == ("Revoked", 5)
    await town.domains.remove("b.example", revoke=False, tell=Heard())


async def test_short_lived_ones_from_an_authority_that_refuses_nonces() -> None:
    with acme_rig.settled(lifetime_s=12, nonce_reject=15) as town:
        town.home("short.example")
        await town.domains.add(DomainAdd(domain="short.example"), Heard())
        first = town.shown("short.example", trusted=False)
        wait_for("two thirds of its life", lambda: Certs(town.box).get("short.example").due, 12)
        found = await renewed(town.box)
        assert [one["domain"] for one in found["renewed"]] == ["short.example"]
        assert town.shown("short.example", trusted=False) != first


async def test_a_refused_nonce_is_no_refusal(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """certbot asks again once; an authority may refuse more often."""
    log = town.box.state / "certbot" / "logs" / "letsencrypt.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    left = 3

    async def unlucky(*given: Any, **more: Any) -> Ended:
        nonlocal left
        left -= 1
        log.write_text("acme.messages.Error: urn:ietf:params:acme:error:badNonce :: bad :: no\n")
        return Ended(code=0 if left == 0 else 1, said="AttributeError: can't set attribute")

    monkeypatch.setattr(certbot, "command", unlucky)
    await certbot.order(town.box, "n.example", ["n.example"], "http-01")
    assert left == 0
    left = 100
    with pytest.raises(ConflictError, match=r"no certificate for n\.example: no \(badNonce\)"):
        await certbot.order(town.box, "n.example", ["n.example"], "http-01")
    assert left == 100 - certbot.TRIES


async def test_what_a_kill_left_of_an_order_is_cleared_away(town: Town) -> None:
    """The broker and certbot die while the authority looks; also what certbot leaves half made."""
    town.home("killed.example")
    await town.domains.add(DomainAdd(domain="killed.example", tls=False), Heard())
    box, home = town.box, certbot.home(town.box)
    started = town.apart(
        "from provision.certs import Certs\n"
        "async def tell(step): pass\n"
        "asyncio.run(Certs(box).issue('killed.example', ['killed.example'], 'http-01', tell))\n"
    )
    challenge = certbot.challenges(box) / ".well-known" / "acme-challenge"
    wait_for("the challenge", lambda: challenge.is_dir() and any(challenge.iterdir()), 30)
    orders = [int(pid) for pid in _children(started.pid)]
    assert len(orders) == 1
    started.kill()
    started.wait()
    with pytest.raises(ConflictError, match="another certificate is already under way"):
        async with turn(box.state / "certbot.lock", what="another certificate", wait_s=0.1):
            pass
    os.kill(orders[0], signal.SIGKILL)
    (home / "renewal" / "killed.example.conf").touch()
    (home / "archive" / "killed.example").mkdir(parents=True)
    (home / "live" / "killed.example").mkdir(parents=True)
    made = await Certs(box).issue("killed.example", ["killed.example"], "http-01", Heard())
    assert made.names == ("killed.example",)
    assert [path.name for path in (home / "live").glob("killed*")] == ["killed.example"]
    assert not challenge.is_dir() or list(challenge.iterdir()) == []
    await town.domains.remove("killed.example", revoke=False, tell=Heard())


async def test_two_orders_wait_for_each_other(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0
    real = certbot.command

    async def counted(*given: Any, **more: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            return await real(["/bin/sleep", "0.3"], deadline_s=5, inherit=more["inherit"])
        finally:
            running -= 1

    monkeypatch.setattr(certbot, "command", counted)
    orders = (certbot.order(town.box, f"{n}.example", [f"{n}.example"], "http-01") for n in "xyz")
    await asyncio.gather(*orders)
    assert most == 1


@contextmanager
def cloudflare(town: Town, box: Box, seen: list[Any]) -> Iterator[str]:
    """Cloudflare's side: one zone, whose TXT records the world then sees."""
    records: dict[str, dict[str, Any]] = {}

    class Api(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            place = urlsplit(self.path)
            asked = {key: value[0] for key, value in parse_qs(place.query).items()}
            if self.headers["Authorization"] != "Bearer a-scoped-token":
                self._answer(403, False, [], [{"code": 9109, "message": "Invalid access token"}])
                return
            result: Any = []
            if place.path.endswith("/zones"):
                result = [{"id": "z1"}] if asked.get("name") == "zone.example" else []
            elif self.command == "POST":
                mode = (box.state / "certbot" / "cloudflare.ini").stat().st_mode
                seen.append((body["type"], body["name"], stat.S_IMODE(mode)))
                records["r1"] = {"id": "r1", **body}
                town.names.text(body["name"], body["content"])
                result = records["r1"]
            elif self.command == "GET":
                result = [one for one in records.values() if one["name"] == asked.get("name")]
            elif self.command == "DELETE":
                town.names.text(records.pop("r1")["name"], None)
                result = {"id": "r1"}
            self._answer(200, True, result, [])

        do_GET = do_POST = do_DELETE = _do

        def _answer(self, status: int, success: bool, result: Any, errors: Any) -> None:
            said = {"success": success, "errors": errors, "messages": [], "result": result}
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *said: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/client/v4"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert records == {}, "the record was taken away again"


async def test_by_a_record_at_cloudflare(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_INFRA_HOME", str(town.box.root / "home"))
    box = replace(town.box, dns_wait_s=0)
    town.home("www.zone.example")
    asked = (["www.zone.example"], "dns-01")
    with pytest.raises(ConflictError, match="there is no secret cloudflare-token"):
        await Certs(box).issue("www.zone.example", *asked, Heard())  # type: ignore[arg-type]
    secret = box.config / "secrets" / "cloudflare-token"
    secret.parent.mkdir(mode=0o700)
    secret.touch(mode=0o600)
    seen: list[Any] = []
    with cloudflare(town, box, seen) as url:
        (box.config / "outside.toml").write_text(f'[cloudflare]\nurl = "{url}"\n')
        try:
            secret.write_text("another-token\n")
            with pytest.raises(ConflictError, match="Invalid access token"):
                await Certs(box).issue("www.zone.example", *asked, Heard())  # type: ignore[arg-type]
            secret.write_text("a-scoped-token\n")
            made = await Certs(box).issue("www.zone.example", *asked, Heard())  # type: ignore[arg-type]
        finally:
            secret.unlink()
            (box.config / "outside.toml").unlink()
    assert made.challenge == "dns-01"
    assert seen == [("TXT", "_acme-challenge.www.zone.example", 0o600)]
    assert not (box.state / "certbot" / "cloudflare.ini").exists()
    assert "a-scoped-token" not in (box.state / "certbot" / "logs" / "letsencrypt.log").read_text()
    await Certs(box).forget("www.zone.example", files=True)


def _children(pid: int) -> list[str]:
    return subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
