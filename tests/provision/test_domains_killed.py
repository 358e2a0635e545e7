"""Killed anywhere: the next start finishes what was begun, or puts back what was."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
from acme_rig import Heard, Town, town

from base.errors import ConflictError
from base.verbs import DomainAdd
from provision.domains import Domains, recover
from provision.managed import Register

__all__ = ["town"]
DIES = """
from base.verbs import DomainAdd
from provision.domains import Domains

async def tell(step):
    if step.startswith({at!r}):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run({what})
"""
ADD = "Domains(box).add(DomainAdd(domain={domain!r}, subdomains={labels!r}, tls={tls}), tell)"
REMOVE = "Domains(box).remove({domain!r}, revoke={revoke}, tell=tell)"


def killed(town: Town, at: str, what: str, **given: object) -> None:
    """The broker does `what` and dies when it says the step `at`."""
    code = DIES.format(at=at, what=what.format(**given))
    assert town.apart(code).wait(60) == -signal.SIGKILL, f"it did not come to {at!r}"


def nothing_of(town: Town, domain: str) -> None:
    assert Register(town.box).get(domain) is None
    assert town.site(domain) is None
    assert not (town.box.www / domain).exists()
    assert [site.domain for site in town.domains.all()] == []
    assert list((town.box.state / "certs").glob("*.json")) == []


@pytest.mark.parametrize("at", ["looking up", "its web root", "the site over http,", "asking"])
async def test_an_unfinished_domain_is_undone(town: Town, at: str) -> None:
    town.home("undone.example")
    killed(town, at, ADD, domain="undone.example", labels=(), tls=True)
    told = await town.domains.recover(Heard())
    assert [one.split(":")[0] for one in told] == (
        [] if at == "looking up" else ["undone.example was put back to what it was"]
    )
    nothing_of(town, "undone.example")
    assert await town.domains.recover(Heard()) == []


async def test_one_with_its_certificate_is_finished(town: Town) -> None:
    town.home("done.example", "www.done.example")
    killed(town, "the site over https", ADD, domain="done.example", labels=("www",), tls=True)
    assert town.domains.shown("done.example").ssl_status == "pending"
    away = town.away()
    assert await away.recover(Heard()) == ["done.example was made to the end"]
    assert town.trusted("www.done.example").status_code == 200
    assert town.domains.shown("done.example").ssl_status == "active"

    killed(town, "the site over http,", ADD, domain="done.example", labels=(), tls=True)
    before = town.shown("www.done.example")
    told = await away.recover(Heard())
    assert told == ["done.example was put back to what it was: it was left in the middle"]
    assert town.domains.shown("done.example").names == ("done.example", "www.done.example")
    assert town.shown("www.done.example") == before

    killed(town, "revoking", REMOVE, domain="done.example", revoke=True)
    told = await away.recover(Heard())
    assert "cannot be reached" in told[0]
    site = town.domains.shown("done.example")
    assert (site.enabled, site.ssl_status) == (True, "active")
    assert "cannot be reached" in (site.problem or "")

    killed(town, "its files", REMOVE, domain="done.example", revoke=True)
    assert await away.recover(Heard()) == ["done.example was removed to the end"]
    nothing_of(town, "done.example")
    assert list((town.box.letsencrypt / "ai-infra" / "live").glob("done*")) == []


async def test_what_cannot_be_undone_now_is_told_and_tried_again(town: Town) -> None:
    town.home("stuck.example")
    killed(town, "asking", ADD, domain="stuck.example", labels=(), tls=True)
    town.ground.stop()
    try:
        await recover(town.box)
        assert "nginx does not run" in (town.domains.shown("stuck.example").problem or "")
        with pytest.raises(Exception, match="nginx does not run"):
            await town.domains.add(DomainAdd(domain="stuck.example", tls=False), Heard())
    finally:
        town.ground.start()
    await town.domains.add(DomainAdd(domain="stuck.example", tls=False), Heard())
    site = town.domains.shown("stuck.example")
    assert (site.enabled, site.problem) == (True, None)
    elsewhere = replace(town.box, addresses=("192.0.2.1",))
    with pytest.raises(ConflictError, match="DNS"):
        await Domains(elsewhere).issue("stuck.example", "http-01", Heard())
    killed(town, "its files", REMOVE, domain="stuck.example", revoke=False)
    await recover(town.box)
    nothing_of(town, "stuck.example")
