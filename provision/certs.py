"""The certificates of the sites: issued, renewed in time, revoked; and the alarm in time.

Each is ordered by itself, so one that the authority refuses never holds up another. What a
certificate is for is written down here; certbot keeps the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from pydantic import BaseModel, ConfigDict

from base.errors import AIError, NotFoundError
from base.verbs import Cert, Challenge
from provision import certbot, kept
from provision.box import Box
from provision.verb import Tell

#: Inside the class `list` is its own verb.
Found = list[Cert]
#: Renewed when less than this part of its life is left, and the alarm when less than that is.
RENEW_PART = 1 / 3
ALARM_PART = 1 / 4


class Ordered(BaseModel):
    """What a certificate is for. problem: why the last order failed. loaded: nginx shows it; False
    also while an order is under way, whose end may go unseen.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    domain: str
    names: tuple[str, ...]
    challenge: Challenge = "http-01"
    problem: str | None = None
    loaded: bool = False


class Certs:
    def __init__(self, box: Box, *, clock: Callable[[], datetime] | None = None) -> None:
        self._box = box
        self._records = box.state / "certs"
        self._clock = clock or now

    async def issue(
        self, domain: str, names: Sequence[str], challenge: Challenge, tell: Tell
    ) -> Cert:
        """A certificate for `names`; one that is still good for them is kept. Twice is safe.

        Raises ConflictError when the authority refuses or cannot be reached; an old certificate
        stays in place.
        """
        wanted = Ordered(domain=domain, names=tuple(names), challenge=challenge)
        if self.good(domain, names):
            kept.keep(self._path(domain), wanted)
            return self._stands(wanted)
        await tell(f"asking the certificate authority for {', '.join(names)} ({challenge})")
        return await self._order(wanted)

    def good(self, domain: str, names: Sequence[str]) -> bool:
        """Whether the certificate in place is for exactly `names` and not due."""
        try:
            leaf = read(self.paths(domain)[0])
        except NotFoundError:
            return False
        left = _left(leaf.not_valid_before_utc, leaf.not_valid_after_utc, self._clock())
        return set(names_of(leaf)) == set(names) and left >= RENEW_PART

    async def renew(self, domain: str | None, force: bool, tell: Tell | None = None) -> Found:
        """Those that were renewed. domain None: every one that is due, each by itself, until the
        authority cannot be reached at all; what failed is the certificate's `problem`. Raises the
        error for a `domain` of its own, NotFoundError when it has no certificate.
        """
        if domain is not None:
            found = self._ordered(domain)
            if not force and not self._stands(found).due:
                return []
            return [await self._order(found)]
        renewed = []
        for ordered in kept.each(self._records, Ordered):
            try:
                if not self._is_there(ordered) or not (force or self._stands(ordered).due):
                    continue
                if tell is not None:
                    await tell(f"renewing the certificate of {ordered.domain}")
                renewed.append(await self._order(ordered))
            except AIError as error:
                if tell is not None:
                    await tell(str(error))
                if isinstance(error, certbot.AwayError):
                    break
        await self._sweep()
        return renewed

    async def revoke(self, domain: str, reason: str) -> None:
        """Void at the authority. nginx may still name the files: `forget` them after it does not.

        Raises NotFoundError, and ConflictError when the authority does not do it. Twice is safe.
        """
        self.get(domain)
        await certbot.revoke(self._box, domain, reason)

    async def forget(self, domain: str, *, files: bool) -> None:
        """No longer renewed nor listed. files: the certificate and its key are deleted, too; kept
        ones serve when the domain comes back. Twice is safe.
        """
        kept.forget(self._path(domain))
        if files:
            await certbot.forget(self._box, domain)

    def list(self) -> Found:
        each = kept.each(self._records, Ordered)
        return [self._stands(ordered) for ordered in each if self._is_there(ordered)]

    def get(self, domain: str) -> Cert:
        """Raises NotFoundError when it has none."""
        return self._stands(self._ordered(domain))

    def paths(self, domain: str) -> tuple[Path, Path]:
        """The certificate with its chain, and its key, whether they are there or not."""
        return certbot.live(self._box, domain)

    def alarms(self) -> Found:
        """Those with less than a quarter of their life left: renewal must have failed."""
        each = ((one, _left(one.not_before, one.not_after, self._clock())) for one in self.list())
        return [one for one, left in each if left < ALARM_PART]

    def unloaded(self) -> tuple[str, ...]:
        """Domains whose certificate nginx may not show yet."""
        each = kept.each(self._records, Ordered)
        return tuple(one.domain for one in each if not one.loaded and self._is_there(one))

    def loaded(self, domains: Iterable[str]) -> None:
        """nginx has read the certificates of `domains`."""
        for domain in domains:
            if (found := kept.read(self._path(domain), Ordered)) is not None:
                kept.keep(self._path(domain), found.model_copy(update={"loaded": True}))

    async def _order(self, wanted: Ordered) -> Cert:
        """Its record says what it was before, until the new one is there."""
        path = self._path(wanted.domain)
        before = kept.read(path, Ordered)
        if before is not None:
            kept.keep(path, before.model_copy(update={"loaded": False}))
        try:
            await certbot.order(self._box, wanted.domain, wanted.names, wanted.challenge)
        except AIError as error:
            if before is not None:
                kept.keep(path, before.model_copy(update={"problem": str(error)}))
            raise
        fresh = wanted.model_copy(update={"problem": None, "loaded": False})
        kept.keep(path, fresh)
        return self._stands(fresh)

    async def _sweep(self) -> None:
        """Certificates of no site any more are deleted when they have expired."""
        for chain in certbot.home(self._box).glob("live/*/fullchain.pem"):
            domain = chain.parent.name
            if self._path(domain).exists():
                continue
            with suppress(AIError):
                if read(chain).not_valid_after_utc < self._clock():
                    await certbot.forget(self._box, domain)

    def _stands(self, ordered: Ordered) -> Cert:
        chain, _ = self.paths(ordered.domain)
        leaf = read(chain)
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        at = self._clock()
        left = _left(begin, end, at)
        problem = ordered.problem
        days = (end - at).total_seconds() / 86_400
        if left < ALARM_PART:
            late = "has expired" if days <= 0 else f"expires in {days:.1f} days"
            problem = f"the certificate {late}" + (f": {problem}" if problem else "")
        return Cert(
            domain=ordered.domain,
            names=names_of(leaf),
            not_before=begin,
            not_after=end,
            days_left=round(days, 3),
            due=left < RENEW_PART,
            challenge=ordered.challenge,
            problem=problem,
        )

    def _is_there(self, ordered: Ordered) -> bool:
        return self.paths(ordered.domain)[0].is_file()

    def _ordered(self, domain: str) -> Ordered:
        found = kept.read(self._path(domain), Ordered)
        if found is None:
            raise NotFoundError(f"{domain} has no certificate")
        return found

    def _path(self, domain: str) -> Path:
        return self._records / f"{domain}.json"


def now() -> datetime:
    return datetime.now(UTC)


def read(chain: Path) -> x509.Certificate:
    """The leaf, which comes first. Raises NotFoundError when there is none."""
    try:
        return x509.load_pem_x509_certificate(chain.read_bytes())
    except (OSError, ValueError) as error:
        raise NotFoundError(f"there is no certificate at {chain}") from error


def names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(found.get_values_for_type(x509.DNSName))


def _left(begin: datetime, end: datetime, at: datetime) -> float:
    """The part of its life that is left, 0 and below for one that has expired."""
    return (end - at) / (end - begin)
