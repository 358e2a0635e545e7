"""The steps of a domain's life, each of which may be done twice, and their way back.

    site over http ─▶ web root with a first page ─▶ certificate ─▶ site over https

What is under way is written down before each step, so that `settle` can finish or undo what a
kill left. Nothing here waits for another domain.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from base.errors import AIError, ConflictError, NotFoundError
from base.verbs import Folder
from provision import certbot, first_page
from provision.box import Box
from provision.certs import Certs
from provision.managed import Managed, Register, Wanted, adopted
from provision.releases import Releases
from provision.sites import Sites
from provision.spec import FRONT, Spec
from provision.verb import Tell


class Making:
    """who: for the record of changes."""

    def __init__(self, box: Box, *, who: str = "") -> None:
        self.certs = Certs(box)
        self.sites = Sites(box, who=who)
        self.releases = Releases(box, who=who)
        self.register = Register(box)
        self._box = box

    def site(self, domain: str) -> Spec | None:
        """What nginx is told of it."""
        try:
            return self.sites.spec(domain)
        except NotFoundError:
            return None

    def known(self, domain: str) -> Managed | None:
        """What is written down, else what nginx serves: an undo may have brought a site back."""
        if (found := self.register.get(domain)) is not None:
            return found
        site = self.site(domain)
        return adopted(site) if site is not None and site.kind not in FRONT else None

    def spec(self, domain: str, aim: Wanted) -> Spec:
        """What nginx shall be told. Without https as long as there is no certificate."""
        chain, key = self.certs.paths(domain)
        tls = aim.tls and chain.is_file()
        now = self.site(domain)
        return Spec(
            domain=domain,
            names=aim.names,
            kind=aim.kind,
            root=self._box.www / domain / "current" if aim.kind == "static" else None,
            upstream=aim.upstream,
            target=aim.target,
            certificate=chain if tls else None,
            key=key if tls else None,
            challenge_root=certbot.challenges(self._box),
            enabled=now.enabled if now is not None else True,
        )

    # There -------------------------------------------------------------------------------------

    async def change(self, domain: str, aim: Wanted, tell: Tell) -> Managed:
        """To `aim`, or back to what it was, when a step fails or is cancelled: then it raises."""
        now = self.known(domain)
        managed = self.register.put(
            Managed(
                domain=domain,
                wanted=aim,
                stage="making",
                before=now.wanted if now is not None else None,
                made_files=not (self._box.www / domain / "releases").exists(),
            )
        )
        try:
            return await self.make(managed, tell)
        except BaseException as error:
            try:
                await self.undo(managed, str(error) or type(error).__name__, tell)
            except AIError as worse:
                raise ConflictError(f"{error}; and it could not be undone: {worse}") from error
            raise

    async def make(self, managed: Managed, tell: Tell) -> Managed:
        domain, aim = managed.domain, managed.wanted
        lacking = aim.tls and not self.certs.good(domain, aim.names)
        if lacking:
            await tell("the site over http, where the authority looks")
        else:
            await tell("the site over https" if aim.tls else "the site over http")
        await self.sites.apply(self.spec(domain, aim))
        if aim.kind == "static" and self.releases.current(domain) is None:
            await tell("its web root, with a first page")
            await self._first_release(domain)
        if aim.tls:
            await self.certs.issue(domain, aim.names, aim.challenge, tell)
        if lacking:
            await tell("the site over https, with that certificate")
            await self.sites.apply(self.spec(domain, aim))
        if aim.tls:
            self.certs.loaded([domain])
        else:
            await self.certs.forget(domain, files=False)
        return self.register.put(Managed(domain=domain, wanted=aim))

    async def _first_release(self, domain: str) -> None:
        """From a folder below the web roots: there releases may come from."""
        place = Path(tempfile.mkdtemp(prefix=".first-page-", dir=self._box.www))
        try:
            first_page.write(place, domain)
            await self.releases.deploy(domain, Folder(path=str(place)))
        finally:
            shutil.rmtree(place, ignore_errors=True)

    # And back ----------------------------------------------------------------------------------

    async def undo(self, managed: Managed, why: str, tell: Tell) -> None:
        """To what was before."""
        domain, before = managed.domain, managed.before
        await tell(f"undoing: {domain} as it was before")
        if before is None:
            if self.site(domain) is not None:
                await self.sites.remove(domain)
            await self.certs.forget(domain, files=False)
            if managed.made_files:
                await self._no_files(domain)
            self.register.drop(domain)
            return
        if not before.tls:
            await self.certs.forget(domain, files=False)
        elif not self.certs.good(domain, before.names):
            with suppress(AIError):
                await self.certs.issue(domain, before.names, before.challenge, tell)
        await self.sites.apply(self.spec(domain, before), probe=False)
        refused = managed.wanted.tls and not before.tls
        self.register.put(Managed(domain=domain, wanted=before, problem=why, refused=refused))

    async def _no_files(self, domain: str) -> None:
        if (archive := await asyncio.to_thread(self.releases.archive, domain)) is not None:
            archive.unlink()
        with suppress(OSError):
            (self._box.www / domain).rmdir()

    async def settle(self, domain: str, tell: Tell) -> str | None:
        """Finishes or undoes what a kill left of `domain`; what was done, None: nothing."""
        left = self.register.get(domain)
        if left is None or left.stage == "ready":
            return None
        await certbot.quiet(self._box)
        await self.sites.recover()
        for place in self._box.www.glob(".first-page-*"):
            shutil.rmtree(place, ignore_errors=True)
        await tell(f"{domain} was left in the middle ({left.stage})")
        if left.stage == "removing":
            await self.take_away(await self.void(left, tell), tell)
            return f"{domain} was removed to the end"
        if left.stage == "revoking":
            await self.without(await self.void(left, tell), tell)
            return f"{domain} goes on without its certificate"
        why = "it was left in the middle"
        if not left.wanted.tls or self.certs.good(domain, left.wanted.names):
            try:
                await self.make(left, tell)
            except AIError as error:
                why = str(error)
            else:
                return f"{domain} was made to the end"
        await self.undo(left, why, tell)
        return f"{domain} was put back to what it was: {why}"

    # Away --------------------------------------------------------------------------------------

    async def void(self, managed: Managed, tell: Tell) -> Managed:
        """Revoked where that is asked for. Refused, the domain is at rest again, as it was."""
        if managed.revoke is None or managed.revoked:
            return managed
        await tell("revoking the certificate")
        try:
            await self.certs.revoke(managed.domain, managed.revoke)
        except BaseException as error:
            self._rest(managed, error)
            raise
        return self.register.put(managed.model_copy(update={"revoked": True}))

    async def take_away(self, managed: Managed, tell: Tell) -> Path | None:
        """To the end, from wherever it was left; where its files are archived."""
        domain = managed.domain
        if self.site(domain) is not None:
            await tell("the site is taken away")
            try:
                await self.sites.remove(domain)
            except AIError as error:
                if not managed.revoked:
                    self._rest(managed, error)
                raise
        await tell("its files are archived")
        archive = await asyncio.to_thread(self.releases.archive, domain)
        await self.certs.forget(domain, files=managed.revoked)
        self.register.drop(domain)
        return archive

    async def without(self, managed: Managed, tell: Tell) -> Managed:
        """Over http, before the files of the certificate go: nginx must never miss them."""
        aim = managed.wanted.model_copy(update={"tls": False})
        await tell("the site over http")
        await self.sites.apply(self.spec(managed.domain, aim), probe=False)
        await self.certs.forget(managed.domain, files=True)
        return self.register.put(Managed(domain=managed.domain, wanted=aim))

    def _rest(self, managed: Managed, error: BaseException) -> None:
        why = str(error) or type(error).__name__
        self.register.put(Managed(domain=managed.domain, wanted=managed.wanted, problem=why))
