"""The owner's goals (TELOS) in the portal: everybody reads them, admins edit and restore them."""

from __future__ import annotations

import asyncio
import difflib
import hashlib

from base.errors import ConflictError, NotFoundError
from base.messages import Wire
from base.outbox import storable
from pai import telos, telos_history
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.trail import event


class Goal(Wire):
    """One file. digest: of exactly this text, which a change names; says: what a prompt takes of
    it, "" while it holds no more than its template.
    """

    name: str
    text: str
    digest: str
    says: str


class Goals(Wire):
    """tokens: what all five take of every prompt, of `tokens_max`. faults: what is left out."""

    goals: tuple[Goal, ...]
    tokens: int
    tokens_max: int
    faults: tuple[str, ...]


class Version(Wire):
    """A text that a file had. now: the one it has."""

    at: str
    digest: str
    size_bytes: int
    now: bool


async def read(desk: Desk) -> Goals:
    """The five files as they are; those that are missing are made from their templates."""
    return await asyncio.to_thread(_read, desk)


def _read(desk: Desk) -> Goals:
    telos.prepare(desk.settings)
    raw, faults = telos.read(telos.folder(desk.settings))
    composed = telos.compose(raw, faults)
    return Goals(
        goals=tuple(_goal(name, raw[name]) for name in telos.NAMES if name in raw),
        tokens=-(-len(composed.text.encode()) // telos.BYTES_PER_TOKEN),
        tokens_max=telos.TOKENS_MAX,
        faults=composed.faults,
    )


def _goal(name: str, raw: bytes) -> Goal:
    text = raw.decode("utf-8", "replace")
    digest = hashlib.sha256(raw).hexdigest()
    return Goal(name=name, text=text, digest=digest, says=telos.spoken(text, name))


async def write(desk: Desk, caller: Caller, name: str, text: str, *, seen: str) -> Goal:
    """Change a file; `seen`: the digest of the text that was changed. Raises ForbiddenError unless
    an admin asks, ConflictError when the file says something else meanwhile, InputError.
    """
    admin_only(caller)
    raw = storable(text, f"{name}.md").replace("\r\n", "\n").encode()
    what = event("action", "write", f"telos/{name}", caller=caller, risk="medium")
    async with desk.written(what) as details:
        now = {one.name: one for one in (await read(desk)).goals}.get(name)
        if now is None:
            raise NotFoundError(f"no file {name!r} that can be changed here")
        if now.digest != seen:
            raise ConflictError(f"{name}.md was changed meanwhile; load it again first")
        details |= {"size_bytes": len(raw), "digest": hashlib.sha256(raw).hexdigest()[:16]}
        await asyncio.to_thread(telos.write, telos.folder(desk.settings), name, raw)
    return _goal(name, raw)


async def versions(desk: Desk, caller: Caller, name: str) -> list[Version]:
    """Every text that was seen of a file, newest first."""
    admin_only(caller)

    def look() -> list[Version]:
        place = telos.folder(desk.settings)
        raw, _ = telos.read(place)
        telos_history.keep(place, {at: text for at, text in raw.items() if at == name})
        found = telos_history.versions(place, name)[::-1]
        return [
            Version(at=one.at, digest=one.digest, size_bytes=one.size_bytes, now=at == 0)
            for at, one in enumerate(found)
        ]

    return await asyncio.to_thread(look)


async def version(desk: Desk, caller: Caller, name: str, digest: str) -> str:
    """The text of one of them. Raises NotFoundError when it is gone."""
    admin_only(caller)

    def look() -> str:
        place = telos.folder(desk.settings)
        for one in telos_history.versions(place, name):
            if one.digest == digest:
                return telos_history.text(place, one)
        raise NotFoundError(f"no version {digest[:8]} of {name}")

    try:
        return await asyncio.to_thread(look)
    except FileNotFoundError as error:
        raise NotFoundError(f"the text of version {digest[:8]} of {name} was taken away") from error


def diff(before: str, after: str) -> list[tuple[str, str]]:
    """Lines with their sign: "-" gone, "+" new, " " around them, "@" a jump. Pure."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    return [(line[0], line[1:]) for line in list(lines)[2:]]
