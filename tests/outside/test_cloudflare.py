"""The verbs for Cloudflare against a server that plays it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cloudflare import FakeCloudflare

from base.errors import ConflictError, ForbiddenError, InputError, NotFoundError
from base.verbs import VERBS, By
from provision.box import Box
from provision.verb import Verb

BY = By(user_id="u1", role="admin", agent="infra")
DNS = {"zone": "example.org", "type": "A", "name": "www", "values": ("192.0.2.7",)}


def verb(name: str) -> Verb[Any]:
    found: Verb[Any] = importlib.import_module(f"provision.verbs.{name.replace('.', '_')}").VERB
    assert found.name == name
    assert found.request is VERBS[name]
    return found


class Broker:
    """Asks a verb as the broker does, without the socket."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.steps: list[str] = []

    async def plan(self, verb_name: str, /, **asked: Any) -> list[str]:
        return await verb(verb_name).plan(VERBS[verb_name].model_validate(asked), self.box)

    async def run(self, verb_name: str, /, **asked: Any) -> dict[str, Any]:
        async def tell(step: str) -> None:
            self.steps.append(step)

        return await verb(verb_name).run(VERBS[verb_name].model_validate(asked), self.box, BY, tell)


@pytest.fixture
def broker(box: Box) -> Broker:
    return Broker(box)


@pytest.fixture
def zone(cloudflare: FakeCloudflare) -> str:
    cloudflare.zone("other.org")
    return cloudflare.zone("example.org")


async def test_a_record_is_set_once_and_undone(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    cloudflare.record(zone, type="A", name="www.example.org", content="192.0.2.1", ttl=300)
    cloudflare.record(zone, type="A", name="api.example.org", content="192.0.2.1")
    before = cloudflare.held(zone)
    told = ["change A www.example.org 192.0.2.1 ttl 300 s to A www.example.org 192.0.2.7 ttl 300 s"]
    assert await broker.plan("dns.set", **DNS) == told
    assert cloudflare.held(zone) == before, "a plan changes nothing"
    made = await broker.run("dns.set", **DNS)
    assert made["steps"] == told == broker.steps
    assert "A www.example.org 192.0.2.7 300 False" in cloudflare.held(zone)
    again = await broker.run("dns.set", **DNS)
    assert again["change"] is None
    assert cloudflare.asked.count(f"POST /zones/{zone}/dns_records/batch") == 1
    assert await broker.plan("dns.undo") == [
        "change A www.example.org 192.0.2.7 ttl 300 s to A www.example.org 192.0.2.1 ttl 300 s"
    ]
    undone = await broker.run("dns.undo")
    assert cloudflare.held(zone) == before
    with pytest.raises(NotFoundError, match="no change of a record to be undone"):
        await broker.run("dns.undo")
    await broker.run("dns.undo", change=undone["change"])
    assert cloudflare.held(zone) != before, "an undoing can be undone, by its name"
    history = (await broker.run("dns.history", zone="example.org"))["changes"]
    assert [one["state"] for one in history] == ["done"] * 3
    assert history[-1]["by"] == "infra"
    assert history[1]["undoes"] == made["change"]


async def test_several_records_change_together_or_not_at_all(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    await broker.run("dns.set", **{**DNS, "values": ("192.0.2.1", "192.0.2.2", "192.0.2.3")})
    before = cloudflare.held(zone)
    with pytest.raises(InputError, match=r"Content for A record is invalid\. \(code 9005\)"):
        await broker.run("dns.set", **{**DNS, "values": ("192.0.2.8", "203.0.113.99")})
    assert cloudflare.held(zone) == before
    assert (await broker.run("dns.history"))["changes"][0]["state"] == "refused"
    gone = await broker.run("dns.remove", zone="example.org", type="A", name="www")
    assert len(gone["steps"]) == 3
    assert cloudflare.held(zone) == []
    nothing = await broker.run("dns.remove", zone="example.org", type="A", name="www")
    assert nothing["change"] is None
    await broker.run("dns.undo", change=gone["change"])
    assert cloudflare.held(zone) == before


async def test_an_undo_never_goes_over_what_somebody_did_since(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    await broker.run("dns.set", **DNS)
    (one,) = cloudflare.records[zone].values()
    one["content"] = "192.0.2.55"
    with pytest.raises(ConflictError, match=r"was changed since .*192\.0\.2\.55"):
        await broker.run("dns.undo")
    assert one["content"] == "192.0.2.55"


async def test_an_answer_that_is_lost_is_not_asked_for_twice(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    cloudflare.drop = 1
    with pytest.raises(ConflictError, match="whether it was done is not known"):
        await broker.run("dns.set", **{**DNS, "type": "TXT", "values": ("proof=1",)})
    (entry,) = (await broker.run("dns.history"))["changes"]
    assert entry["state"] == "begun"
    assert len(cloudflare.records[zone]) == 1
    again = await broker.run("dns.set", **{**DNS, "type": "TXT", "values": ("proof=1",)})
    assert again["change"] is None, "asked again, it sees that it was done"
    await broker.run("dns.undo")
    assert cloudflare.held(zone) == []


async def test_every_page_is_read(broker: Broker, cloudflare: FakeCloudflare, zone: str) -> None:
    for number in range(230):
        cloudflare.record(zone, type="A", name=f"h{number}.example.org", content="192.0.2.1")
    cloudflare.record(zone, type="CAA", name="example.org", content='0 issue "x.example"')
    found = (await broker.run("dns.list", zone="example.org"))["records"]
    assert len({record["name"] for record in found}) == 231
    only = (await broker.run("dns.list", zone="example.org", name="h7"))["records"]
    assert [record["name"] for record in only] == ["h7.example.org"]
    assert len((await broker.run("dns.list", zone="example.org", type="CAA"))["records"]) == 1


async def test_it_waits_as_long_as_it_is_asked_to(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    too_often = [{"code": 971, "message": "Please wait and consider throttling your request speed"}]
    cloudflare.refusals = [(429, {"Retry-After": "1"}, too_often), (502, {}, [])]
    assert (await broker.run("zone.show", zone="example.org"))["ssl"] == "full"
    assert broker.steps == ["Cloudflare asks to wait 1 s"]
    asked = len(cloudflare.asked)
    cloudflare.refusals = [(429, {"Retry-After": "300"}, too_often)]
    with pytest.raises(ConflictError, match="ask again in 300 s"):
        await broker.run("zone.show", zone="example.org")
    assert len(cloudflare.asked) == asked + 1, "and asks no more until then"


async def test_other_zones_are_out_of_reach(
    box: Box, broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    assert [one["name"] for one in (await broker.run("zone.list"))["zones"]] == ["example.org"]
    cloudflare.asked.clear()
    for name, more in {
        "dns.set": DNS, "cdn.purge": {"everything": True}, "zone.add": {}, "zone.show": {},
    }.items():  # fmt: skip
        for ask in (broker.plan, broker.run):
            if name == "zone.show" and ask == broker.plan:
                continue
            with pytest.raises(ForbiddenError, match=r"other\.org is none of the managed zones"):
                await ask(name, **{**more, "zone": "other.org"})
    assert cloudflare.asked == []
    with pytest.raises(NotFoundError, match=r"no zone new\.org for this token"):
        await broker.run("dns.list", zone="new.org")


async def test_a_zone_is_added_and_set(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    assert (await broker.plan("zone.add", zone="new.org"))[0].startswith("add new.org")
    made = await broker.run("zone.add", zone="new.org")
    assert (made["made"], made["status"]) == (True, "pending")
    assert made["name_servers"] == ["ada.ns.example.com", "bob.ns.example.com"]
    assert (await broker.run("zone.add", zone="new.org"))["made"] is False
    asked = {"zone": "example.org", "ssl": "strict", "always_https": True}
    assert await broker.plan("zone.set", **asked) == [
        "set ssl of example.org: full -> strict",
        "set always_https of example.org: False -> True",
    ]
    assert cloudflare.settings[zone] == {"ssl": "full", "always_use_https": "off"}
    done = await broker.run("zone.set", **asked)
    assert done["before"] == {"ssl": "full", "always_https": False}
    assert cloudflare.settings[zone] == {"ssl": "strict", "always_use_https": "on"}
    assert (await broker.run("zone.set", **asked))["changed"] is False


async def test_the_cache_is_purged_in_parts(
    broker: Broker, cloudflare: FakeCloudflare, zone: str
) -> None:
    files = tuple(f"https://example.org/{number}.css" for number in range(65))
    assert await broker.plan("cdn.purge", zone="example.org", files=files) == [
        "purge 65 addresses of example.org"
    ]
    assert cloudflare.purged == []
    await broker.run("cdn.purge", zone="example.org", files=files)
    assert [len(one["files"]) for one in cloudflare.purged] == [30, 30, 5]
    await broker.run("cdn.purge", zone="example.org", everything=True)
    assert cloudflare.purged[-1] == {"purge_everything": True}


@pytest.mark.parametrize("kind", ["waf", "rate"])
async def test_a_rule_of_ours_and_nobody_elses(
    broker: Broker, cloudflare: FakeCloudflare, zone: str, kind: str
) -> None:
    asked: dict[str, Any] = {
        "zone": "example.org", "name": "no-login", "expression": '(http.request.uri.path eq "/l")',
    }  # fmt: skip
    asked |= {"requests": 10} if kind == "rate" else {}
    assert (await broker.plan(f"{kind}.set", **asked))[0].startswith("add no-login: block")
    assert cloudflare.rulesets == {}
    assert (await broker.run(f"{kind}.set", **asked))["changed"] is True
    (ruleset,) = cloudflare.rulesets.values()
    theirs = {"id": "x", "ref": "x", "description": "theirs", "expression": "true", "action": "log"}
    ruleset["rules"].insert(0, theirs)
    assert (await broker.run(f"{kind}.set", **asked))["changed"] is False
    other = {**asked, "action": "managed_challenge"}
    assert await broker.plan(f"{kind}.set", **other) == [
        "change action of no-login: block -> managed_challenge"
    ]
    await broker.run(f"{kind}.set", **other)
    await broker.run(f"{kind}.set", **{**asked, "name": "second"})
    listed = (await broker.run(f"{kind}.list", zone="example.org"))["rules"]
    assert [(one["name"], one["ours"], one["action"]) for one in listed] == [
        (None, False, "log"), ("no-login", True, "managed_challenge"), ("second", True, "block"),
    ]  # fmt: skip
    if kind == "rate":
        assert listed[1]["ratelimit"]["requests_per_period"] == 10
    with pytest.raises(InputError, match="unbalanced parenthesis"):
        await broker.run(f"{kind}.set", **{**asked, "name": "third", "expression": "(true"})
    named = {"zone": "example.org", "name": "no-login"}
    assert (await broker.plan(f"{kind}.remove", **named))[0].startswith("remove the")
    assert (await broker.run(f"{kind}.remove", **named))["changed"] is True
    assert (await broker.run(f"{kind}.remove", **named))["changed"] is False
    assert [one["description"] for one in ruleset["rules"]] == ["theirs", "second"]


async def test_traffic_and_balancers(broker: Broker, cloudflare: FakeCloudflare, zone: str) -> None:
    found = await broker.run("traffic.show", zone="example.org")
    assert found["total"] == {
        "requests": 120, "cached_requests": 100, "bytes": 5_000, "cached_bytes": 4_000,
        "threats": 3, "page_views": 40,
    }  # fmt: skip
    assert found["hours"][0]["visitors"] == 7
    with pytest.raises(InputError, match="older than 2 days"):
        await broker.run("traffic.show", zone="example.org", hours=72)
    (balancer,) = (await broker.run("balancer.list", zone="example.org"))["balancers"]
    assert (balancer["steering"], balancer["pools"]) == ("geo", ["pool-1", "pool-2"])


async def test_what_is_not_set_up_says_so(
    box: Box,
    broker: Broker,
    cloudflare: FakeCloudflare,
    zone: str,
    give: Callable[[str, str], Path],
) -> None:
    give("cloudflare-token", "cfut_another0123456789abcdefghijklmnopqrstuv")
    with pytest.raises(ForbiddenError, match=r"cloudflare-token may not .*Invalid access token"):
        await broker.run("zone.list")
    (box.config / "secrets" / "cloudflare-token").chmod(0o644)
    with pytest.raises(Exception, match="chmod 600"):
        await broker.run("zone.list")
    (box.config / "secrets" / "cloudflare-token").unlink()
    with pytest.raises(ConflictError, match="no secret cloudflare-token; put the token into"):
        await broker.run("zone.list")
    kept = box.root / "home" / "secrets" / "cloudflare-token"
    kept.write_text(cloudflare.token)
    kept.chmod(0o600)
    assert len((await broker.run("zone.list"))["zones"]) == 1, "where all secrets are will do"
    (box.config / "outside.toml").unlink()
    with pytest.raises(ConflictError, match=r"Cloudflare is not set up: name the zones"):
        await broker.plan("dns.set", **DNS)
    cloudflare.close()


async def test_the_token_goes_to_cloudflare_and_nowhere_else(
    broker: Broker,
    cloudflare: FakeCloudflare,
    zone: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_KEY", "another-key")
    monkeypatch.setenv("CLOUDFLARE_EMAIL", "me@example.org")
    caplog.set_level(logging.DEBUG)
    answer = await broker.run("dns.set", **DNS)
    assert all(
        one.get("Authorization") == f"Bearer {cloudflare.token}" for one in cloudflare.headers
    )
    assert not any("X-Auth-Key" in one or "x-auth-key" in one for one in cloudflare.headers)
    cloudflare.refusals = [(400, {}, [{"code": 1, "message": f"bad token {cloudflare.token}"}])]
    with pytest.raises(InputError) as error:
        await broker.run("dns.list", zone="example.org")
    for text in (caplog.text, str(answer), str(error.value), " ".join(broker.steps)):
        assert cloudflare.token not in text
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or cloudflare.token not in path.read_text()
