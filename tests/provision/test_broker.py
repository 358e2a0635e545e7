"""The broker as a process: orders, steps, turns, deadlines, and what is written down of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from present import need

from base import streams
from base.backup.rules import APPLIANCE, APPLIANCE_PLACE
from base.bus import Bus
from base.errors import (
    ConflictError,
    ForbiddenError,
    InputError,
    NotFoundError,
    NotRunningError,
)
from base.messages import Kind, decode
from base.verbs import By, CertRenew, DomainAdd, DomainRemove, Nothing, UnitName, UpdateApply
from provision import registry
from tests.provision.rig import Record, Rig, two_users

#: Where a backup of a server has its key and its repository.
PLACES = (APPLIANCE, Path(APPLIANCE_PLACE))


async def audited(bus: Bus, about: str) -> list[dict[str, Any]]:
    """The audit events on the bus that name `about`, oldest first, each once."""
    found: dict[str, dict[str, Any]] = {}
    raw = await bus.call(("XRANGE", streams.AUDIT, "-", "+"))
    for _, fields in raw[0]:
        payload = decode(fields[1]).payload
        if about in str(payload.get("resource_path")):
            found.setdefault(payload["id"], payload)
    return sorted(found.values(), key=lambda one: str(one["timestamp"]))


async def eventually(bus: Bus, about: str, count: int) -> list[dict[str, Any]]:
    for _ in range(200):
        if len(found := await audited(bus, about)) >= count:
            return found
        await asyncio.sleep(0.05)
    pytest.fail(f"{about}: {count} events did not come, there are {found}")


async def test_an_order_from_its_plan_to_its_end(rig: Rig, bus: Bus, record: Record) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    wanted = DomainAdd(domain="one.example.org", subdomains=("www",))
    planned = await rig.ask("domain.add", wanted, admin, dry_run=True)
    assert planned.plan == (
        "write the site one.example.org", "have a certificate issued", "reload nginx",
    )  # fmt: skip
    assert not any("one.example.org" in line for line in rig.did)
    steps: list[str] = []
    said = await rig.ask("domain.add", wanted, admin, steps=steps)
    assert steps == ["writing the site one.example.org", "asking for the certificate"]
    assert said.result["site"]["names"] == ["one.example.org", "www.one.example.org"]
    assert rig.did[-1] == "added one.example.org for admin"
    dry, before, after = await eventually(bus, "one.example.org", 3)
    assert [one["details"]["event"] for one in (dry, before, after)] == [
        "broker dry run", "broker begin", "broker end",
    ]  # fmt: skip
    assert {one["actor_id"] for one in (dry, before, after)} == {admin.user_id}
    assert (after["actor_type"], after["outcome"], after["risk_level"]) == (
        "user", "success", "medium",
    )  # fmt: skip
    assert after["resource_path"].startswith('broker/domain.add domain="one.example.org"')
    for _ in range(200):  # the live view is told behind the work
        told = [one for _, one in await bus.newest_events(200) if one.kind is Kind.BROKER]
        told = [one for one in told if "one.example.org" in one.data["about"]]
        if len(told) >= 4:
            break
        await asyncio.sleep(0.05)
    assert [one.data["state"] for one in told] == ["started", "step", "step", "ended"]
    assert {one.user_id for one in told} == {admin.user_id}
    assert told[-1].data["ok"] is True


async def test_what_is_refused_is_written_down(rig: Rig, bus: Bus, record: Record) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    for dry_run in (True, False):
        with pytest.raises(InputError, match="does not lead to this server"):
            await rig.ask("domain.add", DomainAdd(domain="far.invalid"), admin, dry_run=dry_run)
    with pytest.raises(NotFoundError, match=r"no site far\.invalid"):
        await rig.ask("domain.remove", DomainRemove(domain="far.invalid"), admin)
    user = By(user_id=await record.user(), role="admin")  # so it says
    with pytest.raises(ForbiddenError, match="is for admins"):
        await rig.ask("domain.add", DomainAdd(domain="far.invalid"), user)
    rows = await eventually(bus, "far.invalid", 6)
    assert [(one["details"]["event"], one["outcome"]) for one in rows] == [
        ("broker dry run", "failure"),
        ("broker begin", "success"), ("broker end", "failure"),
        ("broker begin", "success"), ("broker end", "failure"),
        ("broker end", "denied"),
    ]  # fmt: skip
    assert "does not lead" in rows[0]["details"]["reason"]


async def test_a_verb_that_breaks_or_hangs_ends(rig: Rig, record: Record) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    with pytest.raises(ConflictError, match=r"domain\.add failed inside: RuntimeError"):
        await rig.ask("domain.add", DomainAdd(domain="broken.example.org"), admin)
    with pytest.raises(ConflictError, match=r"did not end within 0\.3 s"):
        await rig.ask("update.apply", UpdateApply(version="1.2"), admin)
    assert (await rig.ask("cert.renew", CertRenew(), admin)).result == {"renewed": []}


async def test_one_at_a_time_and_readers_beside(rig: Rig, record: Record) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    (rig.state / "go").unlink(missing_ok=True)
    slow = asyncio.create_task(rig.ask("domain.add", DomainAdd(domain="slow1.example.org"), admin))
    while "begun slow1.example.org" not in rig.did:
        await asyncio.sleep(0.02)
    steps: list[str] = []
    second = asyncio.create_task(
        rig.ask("domain.add", DomainAdd(domain="two.example.org"), admin, steps=steps)
    )
    third = asyncio.create_task(rig.ask("domain.add", DomainAdd(domain="three.example.org"), admin))
    while not steps:
        await asyncio.sleep(0.02)
    assert steps[0].startswith('waits for domain.add domain="slow1.example.org"')
    listed = await rig.ask("domain.list", Nothing(), admin)  # does not wait
    assert "slow1.example.org" not in [one["domain"] for one in listed.result["sites"]]
    third.cancel()  # who hangs up before it began has asked for nothing
    await asyncio.gather(third, return_exceptions=True)
    (rig.state / "go").touch()
    await slow
    await second
    done = [line for line in rig.did if line.startswith("added")][-2:]
    assert [line.split()[1] for line in done] == ["slow1.example.org", "two.example.org"]
    assert not any("three" in line for line in rig.did)


async def test_who_hangs_up_in_the_middle_changes_nothing(rig: Rig, record: Record) -> None:
    admin = By(user_id=await record.user("admin"), role="admin")
    (rig.state / "go").unlink(missing_ok=True)
    asked = asyncio.create_task(rig.ask("domain.add", DomainAdd(domain="slow2.example.org"), admin))
    while "begun slow2.example.org" not in rig.did:
        await asyncio.sleep(0.02)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    (rig.state / "go").touch()
    while "added slow2.example.org for admin" not in rig.did:
        await asyncio.sleep(0.02)


async def test_the_verbs_are_told(rig: Rig) -> None:
    said = (await rig.ask("broker.verbs", Nothing())).result
    rule = {one["name"]: (one["approval"], one["changes"]) for one in said["verbs"]}
    assert rule["unit.restart"] == ("admin", True)
    assert rule["domain.remove"] == ("person", True)
    assert rule["docker.ps"] == ("none", False)
    assert said["units"] == ["web.service", "gone.service", "sick.service"]


async def test_units_without_systemd_say_so(rig: Rig) -> None:
    with pytest.raises(ForbiddenError, match=r"ssh\.service is not one of the units"):
        await rig.ask("unit.restart", UnitName(unit="ssh.service"))
    with pytest.raises(NotFoundError, match="systemctl is not installed"):
        await rig.ask("unit.status", UnitName(unit="web.service"))


def test_lines_that_are_no_orders(rig: Rig) -> None:
    for raw in (b"\n", b"{}\n", b"\xff\xfe\n", b"[]\n", b'{"id": "1"}\n', b"{" * 90_000 + b"\n"):
        said = rig.lines(raw)[-1]
        assert (said["done"], said["ok"], said["kind"]) == (True, False, "InputError"), raw[:20]
    unknown = rig.order("root.shell", {"command": "id"}, role="admin")
    assert "no verb 'root.shell'" in unknown["error"]
    assert rig.lines(b'{"id": "' + b"x" * 400_000 + b'"}\n') == []
    assert json.dumps(rig.order("domain.list", {}, role="admin")["ok"]) == "true"


async def test_the_real_broker_starts_with_every_verb_of_its_folder(own: Rig) -> None:
    await asyncio.to_thread(own.start, played=False)
    said = (await own.ask("broker.verbs", Nothing())).result
    assert {one["name"] for one in said["verbs"]} == {*registry.collect(), "broker.verbs"}
    assert (await own.ask("domain.list", Nothing())).result["sites"] == []
    assert own.end() == 0


@two_users
async def test_no_verb_of_a_test_writes_on_this_machine(own: Rig) -> None:
    """A backup has places of its own, which the rig's box does not say."""
    need("restic")

    def there() -> list[Path]:
        return sorted(path for at in PLACES for path in at.glob("*"))

    before = there()
    await asyncio.to_thread(own.start, played=False)
    with pytest.raises(NotRunningError, match="Read-only file system"):
        await own.ask("backup.run", Nothing())
    assert there() == before
    assert own.end() == 0
