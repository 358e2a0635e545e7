"""GitHub's REST API through PyGithub: whether a repository may be pushed to, and releases.

What GitHub answers when it is asked too often is waited for, a minute at most, then said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydantic import SecretStr

from base.errors import AIError, ConflictError, ForbiddenError, InputError, NotFoundError
from base.redact import redact
from base.verbs_outside import GithubRelease
from provision.verb import Tell

if TYPE_CHECKING:
    from github.GitRelease import GitRelease
    from github.Repository import Repository

T = TypeVar("T")
LIMIT_S = 30
WAIT_MAX_S = 60.0
TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """made: False for one that was there. changed: what of it is (or would be) other than asked."""

    tag: str
    url: str
    made: bool
    changed: tuple[str, ...]


class Github:
    """One token's view of GitHub at `api_url`. `tell` hears of waiting."""

    def __init__(self, api_url: str, token: SecretStr, tell: Tell | None = None) -> None:
        from github import Auth
        from github import Github as Client

        self._tell = tell
        self._client = Client(
            base_url=api_url,
            auth=Auth.Token(token.get_secret_value()),
            timeout=LIMIT_S,
            retry=None,
            seconds_between_requests=None,
            seconds_between_writes=None,
        )

    async def pushable(self, full_name: str, *, create: bool, public: bool) -> str:
        """Its address in a browser, when the repository is there and as private as it must be.

        create: it is made when it is not there. Raises NotFoundError, ForbiddenError.
        """
        try:
            found = await self._repository(full_name)
        except NotFoundError as error:
            if not create:
                raise NotFoundError(
                    f"GitHub has no repository {full_name} for this token: make it (private), "
                    "let the token see it, or set create = true"
                ) from error
            found = await self._ask(lambda: self._make(full_name), f"making {full_name}")
        if not found.private and not public:
            raise ForbiddenError(
                f"{full_name} is public: nothing is pushed to it unless outside.toml says "
                "public = true"
            )
        return found.html_url

    async def there(self, full_name: str) -> bool:
        """Whether the repository is there. Raises as the others do."""
        try:
            await self._repository(full_name)
        except NotFoundError:
            return False
        return True

    async def release(self, full_name: str, wanted: GithubRelease, *, dry_run: bool) -> Release:
        """Make the release, or bring the one of that tag to what is wanted. Twice is safe."""
        repository = await self._repository(full_name)
        title = wanted.title or wanted.tag
        from github import GithubObject

        try:
            old: GitRelease | None = await self._ask(
                lambda: repository.get_release(wanted.tag), f"release {wanted.tag} of {full_name}"
            )
        except NotFoundError:
            old = None
        if old is None:
            if dry_run:
                return Release(tag=wanted.tag, url="", made=True, changed=())
            made = await self._ask(
                lambda: repository.create_git_release(
                    wanted.tag,
                    title,
                    wanted.notes,
                    prerelease=wanted.prerelease,
                    target_commitish=wanted.commit or GithubObject.NotSet,
                ),
                f"release {wanted.tag} of {full_name}",
            )
            return Release(tag=wanted.tag, url=made.html_url, made=True, changed=())
        have = {"title": old.name, "notes": old.body or "", "prerelease": old.prerelease}
        want = {"title": title, "notes": wanted.notes, "prerelease": wanted.prerelease}
        changed = tuple(name for name in want if want[name] != have[name])
        if changed and not dry_run:
            await self._ask(
                lambda: old.update_release(title, wanted.notes, prerelease=wanted.prerelease),
                f"release {wanted.tag} of {full_name}",
            )
        return Release(tag=wanted.tag, url=old.html_url, made=False, changed=changed)

    def close(self) -> None:
        self._client.close()

    async def _repository(self, full_name: str) -> Repository:
        return await self._ask(lambda: self._client.get_repo(full_name), full_name)

    def _make(self, full_name: str) -> Repository:
        owner, _, name = full_name.partition("/")
        user = self._client.get_user()
        if user.login.lower() == owner.lower():
            return user.create_repo(name, private=True)
        return self._client.get_organization(owner).create_repo(name, private=True)

    async def _ask(self, question: Callable[[], T], what: str) -> T:
        from github import GithubException
        from requests import RequestException

        for last in (False,) * (TRIES - 1) + (True,):
            try:
                return await asyncio.to_thread(question)
            except GithubException as error:
                wait_s = _wait_s(error.status, error.headers or {})
                if wait_s is None or last or wait_s > WAIT_MAX_S:
                    raise _told(error.status, error.data, what, wait_s) from None
                if self._tell:
                    await self._tell(f"GitHub asks to wait {wait_s:.0f} s")
                await asyncio.sleep(wait_s)
            except RequestException as error:
                raise ConflictError(
                    f"GitHub cannot be reached ({type(error).__name__}); nothing was done"
                ) from None
        raise AssertionError


def _wait_s(status: int, headers: dict[str, str]) -> float | None:
    """How long GitHub wants to be left alone; None: it did not refuse for being asked too often."""
    told = {name.lower(): value for name, value in headers.items()}
    if status not in {403, 429}:
        return None
    if (after := told.get("retry-after", "")).isdigit():
        return float(after)
    if told.get("x-ratelimit-remaining") == "0" and told.get("x-ratelimit-reset", "").isdigit():
        return max(1.0, float(told["x-ratelimit-reset"]) - time.time())
    return 60.0 if status == 429 else None


def _told(status: int, data: object, what: str, wait_s: float | None) -> AIError:
    """The answer in words. Causes are cut off on purpose: they quote what was sent."""
    message = str(data.get("message", "")) if isinstance(data, dict) else str(data or "")
    faults = data.get("errors") if isinstance(data, dict) else None
    for fault in faults if isinstance(faults, list) else []:
        about = fault.get("message") or fault.get("code") if isinstance(fault, dict) else fault
        message += f"; {about}"
    message = redact(message)[:300]
    if wait_s is not None:
        return ConflictError(f"GitHub was asked too often; ask again in {wait_s:.0f} s")
    if status == 401:
        return ForbiddenError("GitHub does not accept the token github-pat; make a new one")
    if status == 403:
        return ForbiddenError(f"the token github-pat may not do this to {what}: {message}")
    if status == 404:
        return NotFoundError(f"GitHub has no {what} for this token")
    if status >= 500:
        return ConflictError(f"GitHub is in trouble ({status}); try again later")
    return InputError(f"GitHub refused {what}: {message}")
