"""Whether nginx takes a new configuration, and whose fault it is when it does not.

- The owner's files alone are refused: the change is refused, with nginx's words.
- The changed site is refused: the change is refused, with nginx's words.
- Another site of ours is refused (its certificate is gone, say): it is set aside with nginx's
  words, the change goes on, and the site is tried again at each later change.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from base.errors import ConflictError
from provision import allowed, nginx, owner, trial
from provision.box import Box
from provision.generations import Generation, Generations
from provision.spec import Spec, check
from provision.template import Server, Templates

UNREADABLE = " (the trial reads what root owns or everybody may read: is the file somebody else's?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """new: what nginx takes, drawn as `files`. notes: what was set aside."""

    owner: owner.Owner
    new: Generation
    files: Mapping[str, str]
    notes: tuple[str, ...]


async def prove(
    box: Box, generations: Generations, domain: str, after: Spec | None, generation: str
) -> Proof:
    """The present configuration with `domain` as `after` says (None: gone), tried.

    generation: the name of the new one. Raises InputError and ConflictError; nothing that is in
    use was touched. Wants the hook in place.
    """
    if after is not None:
        check(after, box)
    old = generations.read(generations.current())
    own = owner.read(box, generations.root)
    specs = {name: spec for name, spec in old.specs.items() if name != domain}
    if after is not None:
        _free(after, specs, own, box)
        specs[domain] = after
    trials = _Trials(box, generations, own, await nginx.installed(), generation)
    problems = await _problems(trials, specs, domain, old.problems)
    new = Generation(id=generation, specs=specs, problems=problems)
    notes = tuple(f"{name} is set aside: {said}" for name, said in problems.items())
    return Proof(owner=own, new=new, files=trials.draw(new), notes=notes)


class _Trials:
    """Trials of one change: the same owner, other sites of ours."""

    def __init__(
        self,
        box: Box,
        generations: Generations,
        own: owner.Owner,
        server: Server,
        generation: str,
    ) -> None:
        self._box, self._generations, self._owner = box, generations, own
        self._templates = Templates(box, server, generations.root, own)
        self._generation = generation

    def draw(self, one: Generation) -> dict[str, str]:
        return self._generations.draw(one, self._templates)

    async def refused(
        self, specs: Mapping[str, Spec], problems: Mapping[str, str] | None = None
    ) -> str | None:
        """nginx's words against these sites of ours, or None."""
        one = Generation(id=self._generation, specs=specs, problems=problems or {})
        root = self._generations.root
        place = self._box.state / "nginx"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="try-", dir=place) as name:
            folder = Path(name)
            self._generations.lay(one, self.draw(one), folder)
            for spec in one.served:
                file = folder / "sites-available" / f"{spec.domain}.conf"
                allowed.check(file, spec, self._box, root)
            return await trial.faults(self._box, self._owner, root, folder)

    async def owners_fault(self) -> str | None:
        return await trial.faults(self._box, self._owner, self._generations.root, None)


async def _problems(
    trials: _Trials, specs: Mapping[str, Spec], domain: str, known: Mapping[str, str]
) -> dict[str, str]:
    """Which sites must be set aside for nginx to take the rest."""
    if (said := await trials.refused(specs)) is None:
        return {}
    if known:  # most often what was set aside before still is, and nothing else
        still = {name: words for name, words in known.items() if name in specs and name != domain}
        if await trials.refused(specs, still) is None:
            return still
    if (words := await trials.owners_fault()) is not None:
        words += UNREADABLE if "Permission denied" in words else ""
        raise ConflictError(f"nothing was changed: nginx refuses a file that is not ours: {words}")
    rest = {name: spec for name, spec in specs.items() if name != domain}
    problems = {}
    if await trials.refused(rest) is not None:
        for name, spec in rest.items():
            if (words := await trials.refused({name: spec})) is not None:
                problems[name] = words
    if problems:
        said = await trials.refused(specs, problems)
    if said is not None:
        raise ConflictError(f"nothing was changed: nginx refuses {domain}: {said}")
    return problems


def _free(spec: Spec, others: Mapping[str, Spec], own: owner.Owner, box: Box) -> None:
    """Raises ConflictError when a name is served already: nginx would only warn and choose."""
    for name in spec.hosts:
        for other in others.values():
            if name in other.hosts:
                raise ConflictError(f"{name} belongs to the site {other.domain}")
        theirs = own.serving(name, (box.http_port, box.https_port))
        if spec.enabled and theirs is not None:
            raise ConflictError(f"{name} is served already, by {theirs.file}, which is not ours")
