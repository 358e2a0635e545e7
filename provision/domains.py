"""The domains of this machine: made, changed, taken away; each step undone when a later one fails.

    names looked up ─▶ web root ─▶ site over http ─▶ certificate ─▶ site over https ─▶ looked at

What is under way is written down before each step, so that `settle` can finish or undo what a
kill left. One domain's trouble is its own: nothing here waits for another domain.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal

from base.errors import AIError, ConflictError, InputError, NotFoundError
from base.verbs import Cert, Challenge, DomainAdd, Folder, Site
from provision import certbot, first_page, pointing
from provision.box import Box
from provision.certs import Certs, Tell
from provision.managed import Managed, Register, Wanted, wanted
from provision.releases import Releases
from provision.sites import Sites
from provision.spec import Spec, check


class Domains:
    """who: for the record of changes. Every verb raises InputError, NotFoundError, ConflictError or
    NotRunningError, in words, when things are as they were.
    """

    def __init__(
        self, box: Box, *, who: str = "", certs: Certs | None = None, sites: Sites | None = None
    ) -> None:
        self._box = box
        self._certs = certs or Certs(box)
        self._sites = sites or Sites(box, who=who)
        self._releases = Releases(box)
        self._register = Register(box)

    async def add(self, request: DomainAdd, tell: Tell) -> Managed:
        """The site as asked for: made, or changed to it. Asked again for the same: looked at and
        mended.
        """
        await self.settle(request.domain, tell)
        aim = self.aim(request)
        await tell(f"looking up {', '.join(aim.names)}")
        await pointing.check(aim.names, self._box)
        return await self._change(request.domain, aim, self._register.get(request.domain), tell)

    async def issue(self, domain: str, challenge: Challenge, tell: Tell) -> Managed:
        """A certificate for a site that is there. When none is given, the site goes on over HTTP
        or with its old one.
        """
        await self.settle(domain, tell)
        now = self._register.need(domain)
        self._served(domain)
        await tell(f"looking up {', '.join(now.wanted.names)}")
        await pointing.check(now.wanted.names, self._box)
        aim = now.wanted.model_copy(update={"tls": True, "challenge": challenge})
        return await self._change(domain, aim, now, tell)

    def aim(self, request: DomainAdd) -> Wanted:
        """What `request` comes to. Raises InputError, ConflictError for a name in use."""
        try:
            aim = wanted(request)
        except ValueError as error:
            raise InputError(str(error)) from error
        known = self._register.get(request.domain) is not None
        for spec in self._sites.specs(front=True):
            same = spec.domain == request.domain
            if same and not known:
                raise ConflictError(f"{spec.domain} is served already and is no managed domain")
            if not same and (shared := sorted(set(spec.hosts) & set(aim.names))):
                raise ConflictError(f"{', '.join(shared)} belongs to the site {spec.domain}")
        if known:
            self._served(request.domain)
        check(self._spec(request.domain, aim), self._box)
        return aim

    async def plan_add(self, request: DomainAdd) -> list[str]:
        """What `add` would do, in words; raises what it would raise before its first step."""
        aim = self.aim(request)
        await pointing.check(aim.names, self._box)
        steps = [f"{name} points to this machine" for name in aim.names]
        if aim.kind == "static" and not (self._root(request.domain) / "current").exists():
            steps.append(f"make {self._root(request.domain)} with a first page")
        steps += await self._sites.plan(request.domain, self._spec(request.domain, aim))
        if aim.tls and not self._certs.good(request.domain, aim.names):
            steps.append(f"ask the certificate authority for {', '.join(aim.names)}")
            steps.append("serve it over https and look whether it shows that certificate")
        return steps

    def all(self) -> list[Site]:
        """Every managed domain as it stands."""
        certs = {cert.domain: cert for cert in self._certs.list()}
        aside = self._sites.problems()
        return [
            self._shown(one, certs.get(one.domain), aside.get(one.domain))
            for one in self._register.all()
        ]

    def shown(self, domain: str) -> Site:
        """Raises NotFoundError."""
        self._register.need(domain)
        return next(site for site in self.all() if site.domain == domain)

    def _shown(self, managed: Managed, cert: Cert | None, aside: str | None) -> Site:
        domain, aim = managed.domain, managed.wanted
        site = self.site(domain)
        status: Literal["none", "pending", "active", "expired", "failed"] = "none"
        if managed.stage == "making" and aim.tls:
            status = "pending"
        elif cert is not None:
            status = "active" if cert.days_left > 0 else "expired"
        elif managed.refused or aim.tls:
            status = "failed"
        current = self._root(domain) / "current"
        return Site(
            domain=domain,
            names=aim.names,
            kind=aim.kind,
            upstream=aim.upstream,
            target=aim.target,
            enabled=site is not None and site.enabled and aside is None,
            tls=aim.tls,
            challenge=aim.challenge,
            release=current.resolve().name if aim.kind == "static" and current.exists() else None,
            ssl_status=status,
            ssl_expires_at=cert.not_after if cert is not None else None,
            problem=aside or managed.problem or (cert.problem if cert is not None else None),
        )

    def site(self, domain: str) -> Spec | None:
        """What nginx is told of it."""
        try:
            return self._sites.spec(domain)
        except NotFoundError:
            return None

    def _root(self, domain: str) -> Path:
        return self._box.www / domain

    async def _first_release(self, domain: str) -> None:
        """From a folder below the web roots: there releases may come from."""
        place = Path(tempfile.mkdtemp(prefix=".first-", dir=self._box.www))
        try:
            first_page.write(place, domain)
            await self._releases.deploy(domain, Folder(path=str(place)))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _served(self, domain: str) -> None:
        site = self.site(domain)
        if site is not None and not site.enabled:
            raise ConflictError(f"{domain} is disabled; enable it first")

    def _spec(self, domain: str, aim: Wanted) -> Spec:
        """What nginx shall be told. Without https as long as there is no certificate."""
        chain, key = self._certs.paths(domain)
        tls = aim.tls and chain.is_file()
        now = self.site(domain)
        return Spec(
            domain=domain,
            names=aim.names,
            kind=aim.kind,
            root=self._root(domain) / "current" if aim.kind == "static" else None,
            upstream=aim.upstream,
            target=aim.target,
            certificate=chain if tls else None,
            key=key if tls else None,
            challenge_root=certbot.challenges(self._box),
            enabled=now.enabled if now is not None else True,
        )

    async def remove(self, domain: str, *, revoke: bool, tell: Tell) -> Path | None:
        """The site is taken away; where its files are archived, None: it had none."""
        await self.settle(domain, tell)
        now = self._register.need(domain)
        reason = "cessationofoperation" if revoke and now.wanted.tls else None
        managed = now.model_copy(update={"stage": "removing", "revoke": reason})
        managed = await self._void(self._register.put(managed), tell)
        return await self._take_away(managed, tell)

    async def revoke(self, domain: str, reason: str, tell: Tell) -> Managed:
        """The certificate is void and gone; the site goes on over HTTP. Raises NotFoundError."""
        await self.settle(domain, tell)
        now = self._register.need(domain)
        self._certs.get(domain)
        managed = now.model_copy(update={"stage": "revoking", "revoke": reason})
        managed = await self._void(self._register.put(managed), tell)
        return await self._without(managed, tell)

    async def enable(self, domain: str, tell: Tell) -> None:
        """Served again."""
        await self.settle(domain, tell)
        self._register.need(domain)
        await self._sites.enable(domain)

    async def disable(self, domain: str, tell: Tell) -> None:
        """Kept, with its certificate, and not served."""
        await self.settle(domain, tell)
        self._register.need(domain)
        await self._sites.disable(domain)

    async def renew(self, domain: str | None, force: bool, tell: Tell) -> list[Cert]:
        """Those that were renewed, which nginx shows from now on. See `Certs.renew`."""
        if domain is not None:
            await self.settle(domain, tell)
        else:
            await self.recover(tell)
        renewed = await self._certs.renew(domain, force, tell)
        stale = [one for one in self._certs.unloaded() if self.site(one) is not None]
        if stale:
            await tell("nginx reads the new certificates")
            await self._sites.reload(stale[0])
            self._certs.loaded(stale)
        return renewed

    # What a kill left --------------------------------------------------------------------------

    async def recover(self, tell: Tell) -> list[str]:
        """Settles every domain, at a start; what was done about each, in words. Raises nothing
        for one that cannot be settled now: it is tried again before its next verb.
        """
        told = []
        for managed in list(self._register.all()):
            try:
                done = await self.settle(managed.domain, tell)
            except AIError as error:
                self._register.put(managed.model_copy(update={"problem": str(error)}))
                done = f"{managed.domain}: {error}"
            if done is not None:
                told.append(done)
        return told

    async def settle(self, domain: str, tell: Tell) -> str | None:
        """Finishes or undoes what a kill left of `domain`; what was done, None: nothing."""
        left = self._register.get(domain)
        if left is None or left.stage == "ready":
            return None
        await certbot.quiet(self._box)
        await self._sites.recover()
        await tell(f"{domain} was left in the middle ({left.stage})")
        if left.stage == "removing":
            await self._take_away(await self._void(left, tell), tell)
            return f"{domain} was removed to the end"
        if left.stage == "revoking":
            await self._without(await self._void(left, tell), tell)
            return f"{domain} goes on without its certificate"
        why = "it was left in the middle"
        if not left.wanted.tls or self._certs.good(domain, left.wanted.names):
            try:
                await self._make(left, tell)
            except AIError as error:
                why = str(error)
            else:
                return f"{domain} was made to the end"
        await self._undo(left, why, tell)
        return f"{domain} was put back to what it was: {why}"

    # Making ------------------------------------------------------------------------------------

    async def _change(self, domain: str, aim: Wanted, now: Managed | None, tell: Tell) -> Managed:
        managed = self._register.put(
            Managed(
                domain=domain,
                wanted=aim,
                stage="making",
                before=now.wanted if now is not None else None,
                made_root=now is None and not self._root(domain).exists(),
            )
        )
        try:
            return await self._make(managed, tell)
        except BaseException as error:
            try:
                await self._undo(managed, str(error) or type(error).__name__, tell)
            except AIError as worse:
                raise ConflictError(f"{error}; and it could not be undone: {worse}") from error
            raise

    async def _make(self, managed: Managed, tell: Tell) -> Managed:
        """Each step may be done twice."""
        domain, aim = managed.domain, managed.wanted
        if aim.kind == "static" and not (self._root(domain) / "current").exists():
            await tell("making the web root with a first page")
            await self._first_release(domain)
        if aim.tls and not self._certs.good(domain, aim.names):
            await tell("the site over http, where the authority looks")
            await self._sites.apply(self._spec(domain, aim))
        if aim.tls:
            await self._certs.issue(domain, aim.names, aim.challenge, tell)
            await tell("the site over https, with that certificate")
        else:
            await tell("the site over http")
        await self._sites.apply(self._spec(domain, aim))
        if aim.tls:
            self._certs.loaded([domain])
        else:
            await self._certs.forget(domain, files=False)
        return self._register.put(Managed(domain=domain, wanted=aim))

    async def _undo(self, managed: Managed, why: str, tell: Tell) -> None:
        """To what was before. Twice is safe."""
        domain, before = managed.domain, managed.before
        await tell(f"undoing: {domain} as it was before")
        if before is None:
            if self.site(domain) is not None:
                await self._sites.remove(domain)
            await self._certs.forget(domain, files=False)
            if managed.made_root:
                shutil.rmtree(self._root(domain), ignore_errors=True)
            self._register.drop(domain)
            return
        if not before.tls:
            await self._certs.forget(domain, files=False)
        elif not self._certs.good(domain, before.names):
            with suppress(AIError):
                await self._certs.issue(domain, before.names, before.challenge, tell)
        await self._sites.apply(self._spec(domain, before), probe=False)
        refused = managed.wanted.tls and not before.tls
        self._register.put(Managed(domain=domain, wanted=before, problem=why, refused=refused))

    # Taking away -------------------------------------------------------------------------------

    async def _void(self, managed: Managed, tell: Tell) -> Managed:
        """Revoked where that is asked for. Refused, the domain is at rest again, as it was."""
        if managed.revoke is None or managed.revoked:
            return managed
        await tell("revoking the certificate")
        try:
            await self._certs.revoke(managed.domain, managed.revoke)
        except BaseException as error:
            self._rest(managed, error)
            raise
        return self._register.put(managed.model_copy(update={"revoked": True}))

    async def _take_away(self, managed: Managed, tell: Tell) -> Path | None:
        """To the end, from wherever it was left."""
        domain = managed.domain
        if self.site(domain) is not None:
            await tell("the site is taken away")
            try:
                await self._sites.remove(domain)
            except AIError as error:
                if not managed.revoked:
                    self._rest(managed, error)
                raise
        archive = None
        if managed.wanted.kind == "static" and self._root(domain).exists():
            await tell("its files are archived")
            archive = self._releases.archive(domain)
        await self._certs.forget(domain, files=managed.revoked)
        self._register.drop(domain)
        return archive

    async def _without(self, managed: Managed, tell: Tell) -> Managed:
        """Over HTTP, before the files of the certificate go: nginx must never miss them."""
        aim = managed.wanted.model_copy(update={"tls": False})
        await tell("the site over http")
        await self._sites.apply(self._spec(managed.domain, aim), probe=False)
        await self._certs.forget(managed.domain, files=True)
        return self._register.put(Managed(domain=managed.domain, wanted=aim))

    def _rest(self, managed: Managed, error: BaseException) -> None:
        why = str(error) or type(error).__name__
        self._register.put(Managed(domain=managed.domain, wanted=managed.wanted, problem=why))
