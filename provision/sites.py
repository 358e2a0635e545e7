"""Changing which sites nginx serves: proved before, switched in one step, looked at after.

    describe -> draw -> allowlist -> trial -> note -> switch -> reload -> look -> record
                                               |________ on any fault: switch back, reload

Nothing of the owner's is written; what the owner has is looked at before and after like ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

from base.deadline import Deadline
from base.errors import AIError, ConflictError, ForbiddenError, NotFoundError, NotRunningError
from provision import looks, nginx
from provision.box import Box
from provision.changes import KEPT_MAX, Change, Changes, new_id
from provision.disk import alone
from provision.generations import Generation, Generations
from provision.owner import Owner
from provision.proof import prove
from provision.spec import FRONT, Spec
from provision.verb import Tell

__all__ = ["Change", "Sites", "Spec"]

#: Reload and look must be through by then, else the way back begins: together below 10 s.
FORTH_S = 5.5
RELOAD_S = 4.0
BACK_S = 4.0
LOOK_AGAIN_S = 0.3
#: What a change is about that is about none of them.
ALL = "all sites"


class Sites:
    """who, why: for the record. tell: hears each step. Every change raises InputError for a
    description that cannot be, NotFoundError for a site that is not there, NotRunningError
    without nginx, and ConflictError, in nginx's own words, after everything is as it was.
    """

    def __init__(
        self,
        box: Box,
        *,
        who: str = "",
        why: str = "",
        tell: Tell | None = None,
    ) -> None:
        self._box, self._who, self._why, self._hears = box, who, why, tell
        self._generations = Generations(box)
        self._changes = Changes(box.state / "nginx")

    def specs(self, *, front: bool = False) -> list[Spec]:
        """People's sites; with `front` also the portal's own."""
        found = self._now().specs.values()
        return [spec for spec in found if front or spec.kind not in FRONT]

    def spec(self, domain: str) -> Spec:
        """Raises NotFoundError."""
        if (found := self._now().specs.get(domain)) is None:
            raise NotFoundError(f"there is no site {domain}")
        return found

    def problems(self) -> Mapping[str, str]:
        """Sites of ours that are set aside, with nginx's words; tried again at each change."""
        return self._now().problems

    def history(self, most: int = KEPT_MAX) -> list[Change]:
        """The newest first."""
        return list(islice(self._changes.all(), most))

    async def apply(self, spec: Spec, *, probe: bool = True) -> Change:
        """Serve it as it says now, whether it was there or not. The same again: reloads."""
        return await self._make("apply", spec.domain, spec, probe=probe)

    async def remove(self, domain: str) -> Change:
        """No longer known; its files stay where they are."""
        self._ours(domain)
        return await self._make("remove", domain, None)

    async def withdraw(self, domain: str) -> Change:
        """`remove` for the installer, which may take the portal's own front away, too."""
        self.spec(domain)
        return await self._make("remove", domain, None)

    async def enable(self, domain: str) -> Change:
        return await self._make("enable", domain, replace(self.spec(domain), enabled=True))

    async def disable(self, domain: str) -> Change:
        """Known, not served."""
        return await self._make("disable", domain, replace(self._ours(domain), enabled=False))

    async def reload(self, domain: str) -> Change:
        """Have nginx read a renewed certificate of that site."""
        return await self._make("reload", domain, self.spec(domain))

    async def again(self) -> Change:
        """Have nginx read all of them as they lie, after something else has laid them there."""
        return await self._make("reload", ALL, None)

    async def undo(self, change_id: str | None = None) -> Change:
        """Bring that change's site to what it was before it; None: the last change that was made.

        Raises ConflictError when the site was changed again since.
        """
        change = self.undoable(change_id)
        return await self._make("undo", change.domain, change.before, of=change.id)

    def undoable(self, change_id: str | None = None) -> Change:
        """The change that `undo` would take back."""
        done = (one for one in self._changes.all() if one.state == "done" and one.verb != "reload")
        change = self._changes.one(change_id) if change_id is not None else next(done, None)
        if change is None:
            raise NotFoundError("there is no change to undo")
        if change.state != "done":
            raise ConflictError(f"{change.id} was {change.state}: there is nothing to undo")
        if self._now().specs.get(change.domain) != change.after:
            raise ConflictError(
                f"{change.domain} was changed again after {change.id}: undo the later change first"
            )
        return change

    async def plan(self, domain: str, after: Spec | None) -> list[str]:
        """What a change to `after` would do, changing nothing; raises what the change would."""
        with self._alone():
            hook = self._generations.hook()
            try:
                proof = await prove(self._box, self._generations, domain, after, "dry-run")
            finally:
                if hook is not None:
                    hook.unlink()
        diff = self._generations.diff(self._now(), proof.new, proof.files)
        return [
            f"nginx takes the configuration; sites of ours in it: {len(proof.new.served)}",
            *proof.notes,
            diff.rstrip() or "what nginx is told stays the same",
            "nginx reads it again, and every site is looked at, ours and the owner's",
        ]

    async def recover(self) -> Change | None:
        """Finish what a killed broker left: what was not proved is taken back. At every start,
        and before each change; twice is safe.
        """
        with self._alone():
            return await self._recover()

    # The protocol ------------------------------------------------------------------------------

    async def _make(
        self, verb: str, domain: str, after: Spec | None, *, probe: bool = True, of: str = ""
    ) -> Change:
        with self._alone():
            await self._recover()
            started_s, at = time.monotonic(), datetime.now(UTC)
            old, change_id = self._now(), new_id(at)
            await self._tell("trying the configuration")
            self._generations.hook()
            proof = await prove(self._box, self._generations, domain, after, change_id)
            new, own, notes = proof.new, proof.owner, proof.notes
            if nginx.master(self._box) is None:
                raise NotRunningError("nginx does not run; start it and ask again")
            change = Change(
                id=change_id,
                at=at,
                verb=verb,
                domain=domain,
                who=self._who,
                why=" ".join(part for part in (self._why, of and f"undoes {of}") if part),
                before=old.specs.get(domain),
                after=after,
                old=old.id or None,
                new=new.id,
                diff=self._generations.diff(old, new, proof.files),
                notes=notes,
            )
            await self._tell("looking at the sites as they are")
            before = await looks.look(looks.targets(self._box, old.served, own)) if probe else {}
            self._generations.add(new, proof.files)
            self._changes.begin(change)
            try:
                await self._tell("switching")
                self._generations.switch(new.id)
                said = await self._forth(new, own, before, probe)
            except BaseException as error:
                await self._back(change, started_s, str(error) or type(error).__name__)
                raise
            self._generations.sweep()
            return self._changes.end(
                replace(change, state="done", notes=(*notes, *said), took_ms=_ms(started_s))
            )

    async def _forth(
        self, new: Generation, own: Owner, before: Mapping[looks.Target, looks.Seen], probe: bool
    ) -> list[str]:
        """Reload and look; raises ConflictError for what must be taken back."""
        deadline = Deadline.after(FORTH_S)
        await self._tell("reloading nginx")
        if not await nginx.reload(self._box, new.id, Deadline.after(RELOAD_S)):
            said = nginx.complaint(self._box)
            raise ConflictError(f"nginx did not take the new configuration: {said}")
        if not probe:
            return []
        await self._tell("looking at all sites")
        wanted = looks.targets(self._box, new.served, own)
        while True:
            seen = await looks.look(wanted)
            faults = looks.faults(self._box, before, seen)
            if not faults:
                return looks.silent(seen)
            if deadline.left_s < looks.LOOK_S:
                raise ConflictError("; ".join(faults) + ": everything is as it was before")
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _back(self, change: Change, started_s: float, why: str) -> None:
        await self._tell("going back to what was before")
        back_s = time.monotonic()
        self._generations.switch(change.old)
        notes = (*change.notes, why)
        try:
            if not await nginx.reload(self._box, change.old, Deadline.after(BACK_S)):
                now = await nginx.serving(self._box)
                if now != change.old:
                    notes = (*notes, "nginx did not take the old configuration in time")
        except AIError as error:
            notes = (*notes, str(error))
        self._changes.end(
            replace(
                change,
                state="rolled back",
                notes=notes,
                took_ms=_ms(started_s),
                rollback_ms=_ms(back_s),
            )
        )

    async def _recover(self) -> Change | None:
        change = self._changes.pending()
        if change is None:
            self._generations.sweep()
            return None
        if self._changes.recorded(change.id):
            return self._changes.end(self._changes.one(change.id))
        await self._back(change, time.monotonic(), "the broker was stopped in the middle of it")
        self._generations.sweep()
        return self._changes.one(change.id)

    # Small things ------------------------------------------------------------------------------

    async def _tell(self, step: str) -> None:
        if self._hears is not None:
            await self._hears(step)

    def _now(self) -> Generation:
        return self._generations.read(self._generations.current())

    def _ours(self, domain: str) -> Spec:
        spec = self.spec(domain)
        if spec.kind in FRONT:
            raise ForbiddenError(f"{domain} is the portal's own name; it stays")
        return spec

    def _alone(self) -> AbstractContextManager[None]:
        return alone(self._box.state / "nginx" / "lock", "the sites")


def _ms(since_s: float) -> int:
    return round((time.monotonic() - since_s) * 1000)
