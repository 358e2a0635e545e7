"""The domains of this machine: added, removed, enabled, disabled; with and without certificates.

Every verb raises InputError, NotFoundError, ConflictError or NotRunningError, in words, when all
is as it was before. One domain's trouble is its own. The steps are in `provision/making.py`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from base import log
from base.errors import AIError, ConflictError, InputError, NotFoundError
from base.verbs import Cert, Challenge, DomainAdd, Site
from provision import pointing
from provision.box import Box
from provision.making import Making
from provision.managed import Managed, Wanted, adopted, wanted
from provision.spec import FRONT, check
from provision.verb import Tell

#: systemd waits a minute for the broker's start.
RECOVER_S = 40.0
logger = log.get("domains")
Status = Literal["none", "pending", "active", "expired", "failed"]


class Domains:
    """who: for the record of changes."""

    def __init__(self, box: Box, *, who: str = "") -> None:
        self._box = box
        self._making = Making(box, who=who)
        self._register = self._making.register
        self._certs = self._making.certs
        self._sites = self._making.sites

    async def add(self, request: DomainAdd, tell: Tell) -> Managed:
        """The site as asked for: made, or changed to it. Asked again for the same: looked at and
        mended.
        """
        await self._making.settle(request.domain, tell)
        aim = self.aim(request)
        await tell(f"looking up {', '.join(aim.names)}")
        await pointing.check(aim.names, self._box)
        return await self._making.change(request.domain, aim, tell)

    async def issue(self, domain: str, challenge: Challenge, tell: Tell) -> Managed:
        """A certificate for a site that is there. When none is given, the site goes on over http
        or with its old one.
        """
        await self._making.settle(domain, tell)
        now = self._need(domain)
        self._served(domain)
        await tell(f"looking up {', '.join(now.wanted.names)}")
        await pointing.check(now.wanted.names, self._box)
        aim = now.wanted.model_copy(update={"tls": True, "challenge": challenge})
        return await self._making.change(domain, aim, tell)

    async def remove(self, domain: str, *, revoke: bool, tell: Tell) -> Path | None:
        """The site is taken away; where its files are archived, None: it had none."""
        await self._making.settle(domain, tell)
        now = self._need(domain)
        has = any(cert.domain == domain for cert in self._certs.list())
        reason = "cessationofoperation" if revoke and has else None
        managed = now.model_copy(update={"stage": "removing", "revoke": reason})
        managed = await self._making.void(self._register.put(managed), tell)
        return await self._making.take_away(managed, tell)

    async def revoke(self, domain: str, reason: str, tell: Tell) -> Managed:
        """The certificate is void and gone; the site goes on over http."""
        await self._making.settle(domain, tell)
        now = self._need(domain)
        self._certs.get(domain)
        managed = now.model_copy(update={"stage": "revoking", "revoke": reason})
        managed = await self._making.void(self._register.put(managed), tell)
        return await self._making.without(managed, tell)

    async def enable(self, domain: str, tell: Tell) -> None:
        """Served again."""
        await self._making.settle(domain, tell)
        self._need(domain)
        await self._sites.enable(domain)

    async def disable(self, domain: str, tell: Tell) -> None:
        """Kept, with its certificate, and not served."""
        await self._making.settle(domain, tell)
        self._need(domain)
        await self._sites.disable(domain)

    async def renew(self, domain: str | None, force: bool, tell: Tell) -> list[Cert]:
        """Those that were renewed, which nginx shows from now on. See `Certs.renew`."""
        if domain is not None:
            await self._making.settle(domain, tell)
        else:
            await self.recover(tell)
        renewed = await self._certs.renew(domain, force, tell)
        fresh = [one for one in self._certs.unloaded() if self._making.site(one) is not None]
        if fresh:
            await tell("nginx reads the new certificates")
            await self._sites.reload(fresh[0])
            self._certs.loaded(fresh)
        return renewed

    async def recover(self, tell: Tell) -> list[str]:
        """Finishes or undoes what a kill left of any domain, at a start; what was done, in words.
        Raises nothing for one that cannot be settled now: it is tried again before its next verb.
        """
        told = []
        for managed in list(self._register.all()):
            try:
                done = await self._making.settle(managed.domain, tell)
            except AIError as error:
                left = self._register.get(managed.domain) or managed
                self._register.put(left.model_copy(update={"problem": str(error)}))
                done = f"{managed.domain}: {error}"
            if done is not None:
                told.append(done)
        return told

    # Looking -----------------------------------------------------------------------------------

    def aim(self, request: DomainAdd) -> Wanted:
        """What `request` comes to. Raises InputError, ConflictError for a name in use."""
        try:
            aim = wanted(request)
        except ValueError as error:
            raise InputError(str(error)) from error
        for spec in self._sites.specs(front=True):
            same = spec.domain == request.domain
            if same and spec.kind in FRONT:
                raise ConflictError(f"{spec.domain} is the portal's own name; it stays")
            if not same and (shared := sorted(set(spec.hosts) & set(aim.names))):
                raise ConflictError(f"{', '.join(shared)} belongs to the site {spec.domain}")
        self._served(request.domain)
        check(self._making.spec(request.domain, aim), self._box)
        return aim

    async def plan_add(self, request: DomainAdd) -> list[str]:
        """What `add` would do, in words; raises what it would raise before its first step."""
        aim, domain = self.aim(request), request.domain
        await pointing.check(aim.names, self._box)
        steps = [f"{name} points to this machine" for name in aim.names]
        steps += await self._sites.plan(domain, self._making.spec(domain, aim))
        if aim.kind == "static" and self._making.releases.current(domain) is None:
            steps.append(f"make {self._box.www / domain} with a first page")
        if aim.tls and not self._certs.good(domain, aim.names):
            steps.append(f"ask the certificate authority for {', '.join(aim.names)}")
            steps.append("serve it over https and look whether it shows that certificate")
        return steps

    def all(self) -> list[Site]:
        """Every managed domain as it stands."""
        certs = {cert.domain: cert for cert in self._certs.list()}
        aside = self._sites.problems()
        known = {one.domain: one for one in map(adopted, self._sites.specs())}
        known |= {one.domain: one for one in self._register.all()}
        return [
            self._shown(one, certs.get(name), aside.get(name))
            for name, one in sorted(known.items())
        ]

    def shown(self, domain: str) -> Site:
        """Raises NotFoundError."""
        self._need(domain)
        return next(site for site in self.all() if site.domain == domain)

    def _shown(self, managed: Managed, cert: Cert | None, aside: str | None) -> Site:
        aim, site = managed.wanted, self._making.site(managed.domain)
        static, tls = aim.kind == "static", site is not None and site.certificate is not None
        problem = aside or managed.problem or (cert.problem if cert is not None else None)
        if managed.stage == "ready" and (site is None or tls != aim.tls):
            problem = problem or "nginx was told otherwise since; domain.add again mends it"
        return Site(
            domain=managed.domain,
            names=aim.names,
            kind=aim.kind,
            upstream=aim.upstream,
            target=aim.target,
            enabled=site is not None and site.enabled and aside is None,
            tls=tls,
            challenge=aim.challenge,
            release=self._making.releases.current(managed.domain) if static else None,
            ssl_status=_status(managed, cert),
            ssl_expires_at=cert.not_after if cert is not None else None,
            problem=problem,
        )

    def _need(self, domain: str) -> Managed:
        if (found := self._making.known(domain)) is None:
            raise NotFoundError(f"{domain} is not a domain of this machine; domain.list has them")
        return found

    def _served(self, domain: str) -> None:
        site = self._making.site(domain)
        if site is not None and not site.enabled:
            raise ConflictError(f"{domain} is disabled; enable it first")


async def recover(box: Box) -> None:
    """For the broker's start, before it takes orders: `Domains.recover`, in the log. Never raises
    and never takes long; what is left is settled before the next verb for that domain.
    """

    async def tell(step: str) -> None:
        logger.info("domain being settled", step=step)

    try:
        async with asyncio.timeout(RECOVER_S):
            for line in await Domains(box, who="the broker's start").recover(tell):
                logger.warning("domain settled", what=line)
    except (AIError, TimeoutError) as error:
        logger.warning("domains not settled", error=str(error) or "no time left")


def _status(managed: Managed, cert: Cert | None) -> Status:
    if managed.stage == "making" and managed.wanted.tls:
        return "pending"
    if cert is not None:
        return "active" if cert.days_left > 0 else "expired"
    return "failed" if managed.refused or managed.wanted.tls else "none"
