"""Domains from nothing to https and away again: real nginx, certbot and certificate authority."""

from __future__ import annotations

import ssl

import pytest
from acme_rig import Heard, Town, town

from base.errors import ConflictError, InputError, NotFoundError
from base.verbs import By, DomainAdd, DomainName, DomainRemove, Nothing
from provision.managed import Register
from provision.sites import Sites
from provision.spec import Spec
from provision.verbs import domain_add, domain_disable, domain_enable, domain_list, domain_remove

__all__ = ["town"]
BY = By(role="admin", user_id="a-test")


async def listed(town: Town) -> dict[str, dict[str, object]]:
    found = await domain_list.VERB.run(Nothing(), town.box, BY, Heard())
    return {site["domain"]: site for site in found["sites"]}


async def test_from_nothing_to_https_and_away(town: Town) -> None:
    town.home("one.example", "www.one.example")
    asked = DomainAdd(domain="one.example", subdomains=("www",))
    plan = "\n".join(await domain_add.VERB.plan(asked, town.box))
    assert "one.example points to this machine" in plan
    assert "+    server_name one.example www.one.example;" in plan
    assert await listed(town) == {}
    assert not (town.box.www / "one.example").exists()

    heard = Heard()
    made = await domain_add.VERB.run(asked, town.box, BY, heard)
    assert made["site"]["ssl_status"] == "active"
    assert len(heard) == 5
    for name in ("one.example", "www.one.example"):
        page = town.trusted(name)
        assert page.status_code == 200
        assert "<b>one.example</b> is served from here" in page.text
    plain = town.ground.get("one.example")
    assert (plain.status_code, plain.headers["location"]) == (
        301,
        f"https://one.example:{town.box.https_port}/",
    )
    assert town.ground.get("owner.example").text == "the owner's"

    first = town.shown("one.example")
    again = await domain_add.VERB.run(asked, town.box, BY, Heard())
    assert again["site"] == made["site"]
    assert town.shown("one.example") == first, "asked twice, nothing is ordered again"

    await domain_disable.VERB.run(DomainName(domain="one.example"), town.box, BY, Heard())
    assert not (await listed(town))["one.example"]["enabled"]
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        town.shown("one.example")
    with pytest.raises(ConflictError, match="is disabled; enable it first"):
        await town.domains.add(asked, Heard())
    await domain_enable.VERB.run(DomainName(domain="one.example"), town.box, BY, Heard())
    assert town.shown("one.example") == first

    gone = await domain_remove.VERB.run(DomainRemove(domain="one.example"), town.box, BY, Heard())
    assert gone["archive"] is not None
    assert await listed(town) == {}
    assert not (town.box.www / "one.example").exists()
    assert town.site("one.example") is None
    with pytest.raises(NotFoundError, match="is not a domain of this machine"):
        await town.domains.remove("one.example", revoke=False, tell=Heard())
    await town.domains.add(asked, heard := Heard())
    assert not any("asking the certificate authority" in step for step in heard)
    assert town.shown("one.example") == first, "its kept certificate serves again"
    await town.domains.remove("one.example", revoke=True, tell=Heard())
    assert list((town.box.letsencrypt / "ai-infra" / "live").glob("one.example*")) == []


async def test_one_broken_domain_never_blocks_another(town: Town) -> None:
    town.home("refused.example", "good.example")
    town.names.point("astray.example", "192.0.2.7")
    with pytest.raises(ConflictError, match=r"DNS: astray\.example points to 192\.0\.2\.7\. This"):
        await town.domains.add(DomainAdd(domain="astray.example"), Heard())
    with pytest.raises(ConflictError, match=r"forbidden by policy.*rejectedIdentifier") as refused:
        await town.domains.add(DomainAdd(domain="refused.example"), Heard())
    assert "no certificate for refused.example" in str(refused.value)
    await town.domains.add(DomainAdd(domain="good.example"), Heard())
    assert town.trusted("good.example").status_code == 200
    assert set(await listed(town)) == {"good.example"}
    for undone in ("astray.example", "refused.example"):
        assert town.site(undone) is None
        assert not (town.box.www / undone).exists()
        assert Register(town.box).get(undone) is None
    assert list(town.box.www.glob(".first-*")) == []
    await town.domains.remove("good.example", revoke=False, tell=Heard())


async def test_a_change_that_fails_leaves_what_was(town: Town) -> None:
    town.home("change.example")
    await town.domains.add(DomainAdd(domain="change.example", tls=False), Heard())
    assert (await listed(town))["change.example"]["ssl_status"] == "none"
    away = town.away()
    with pytest.raises(ConflictError, match=r"certificate authority at .* cannot be reached"):
        await away.issue("change.example", "http-01", Heard())
    site = (await listed(town))["change.example"]
    assert (site["tls"], site["ssl_status"]) == (False, "failed")
    assert "cannot be reached" in str(site["problem"])
    assert "is served from here" in town.ground.get("change.example").text
    await town.domains.issue("change.example", "http-01", Heard())
    site = (await listed(town))["change.example"]
    assert (site["ssl_status"], site["problem"]) == ("active", None)

    town.home("www.change.example")
    shown = town.shown("change.example")
    wider = DomainAdd(domain="change.example", subdomains=("www",))
    with pytest.raises(ConflictError, match="cannot be reached"):
        await away.add(wider, Heard())
    assert town.shown("change.example") == shown
    assert (await listed(town))["change.example"]["names"] == ["change.example"]

    await town.domains.revoke("change.example", "superseded", Heard())
    site = (await listed(town))["change.example"]
    assert (site["tls"], site["ssl_status"]) == (False, "none")
    assert "is served from here" in town.ground.get("change.example").text
    await town.domains.remove("change.example", revoke=True, tell=Heard())


async def test_names_that_are_taken(town: Town) -> None:
    town.home("taken.example", "www.taken.example", "owner.example")
    asked = DomainAdd(domain="taken.example", subdomains=("www",), tls=False)
    await town.domains.add(asked, Heard())
    with pytest.raises(ConflictError, match=r"www\.taken\.example belongs to the site taken"):
        await town.domains.add(DomainAdd(domain="www.taken.example"), Heard())
    with pytest.raises(ConflictError, match=r"owner\.example"):
        await town.domains.add(DomainAdd(domain="owner.example", tls=False), Heard())
    assert town.ground.get("owner.example").text == "the owner's"
    assert set(await listed(town)) == {"taken.example"}
    front = Spec(domain="portal.example", kind="portal", upstream="http://127.0.0.1:8999")
    await Sites(town.box).apply(front)
    town.home("portal.example")
    with pytest.raises(ConflictError, match="is the portal's own name"):
        await town.domains.add(DomainAdd(domain="portal.example", tls=False), Heard())
    with pytest.raises(NotFoundError):
        await town.domains.remove("portal.example", revoke=False, tell=Heard())
    with pytest.raises(InputError, match="cannot be redirected to itself"):
        town.domains.aim(
            DomainAdd(
                domain="a.example", kind="redirect", target="www.a.example", subdomains=("www",)
            )
        )
    await town.domains.remove("taken.example", revoke=False, tell=Heard())


async def test_what_an_undo_brought_back(town: Town) -> None:
    """nginx.undo knows nothing of what is written down here."""
    town.home("back.example")
    asked = DomainAdd(domain="back.example", tls=False)
    await town.domains.add(asked, Heard())
    await Sites(town.box).undo()
    site = (await listed(town))["back.example"]
    assert (site["enabled"], site["problem"]) == (
        False,
        "nginx was told otherwise since; domain.add again mends it",
    )
    await town.domains.add(asked, Heard())
    assert (await listed(town))["back.example"]["problem"] is None
    await town.domains.remove("back.example", revoke=False, tell=Heard())
    await Sites(town.box).undo()
    assert (await listed(town))["back.example"]["enabled"]
    await town.domains.add(asked, Heard())
    assert "is served from here" in town.ground.get("back.example").text
    await Sites(town.box).undo()
    await town.domains.remove("back.example", revoke=False, tell=Heard())
    assert await listed(town) == {}


async def test_an_international_name_and_a_redirect(town: Town) -> None:
    town.home("xn--bcher-kva.example")
    await town.domains.add(DomainAdd(domain="Bücher.example", tls=False), Heard())
    assert "<b>bücher.example</b>" in town.ground.get("xn--bcher-kva.example").text
    town.home("old.example")
    await town.domains.add(
        DomainAdd(domain="old.example", kind="redirect", target="new.example", tls=False), Heard()
    )
    assert town.ground.get("old.example", "/a?b").headers["location"] == "https://new.example/a?b"
    for domain in ("xn--bcher-kva.example", "old.example"):
        await town.domains.remove(domain, revoke=False, tell=Heard())
