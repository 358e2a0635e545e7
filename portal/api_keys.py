"""Secrets seen from the portal: which there are and where from, never what they are.

A value goes in and never comes out. What AWS, systemd or the environment gives is changed there:
a file would not count.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import httpx
from pydantic import SecretStr

from base import secrets, secrets_files
from base import settings as settings_file
from base.audit import Action, AuditEvent
from base.deadline import Deadline
from base.errors import ConflictError, InputError, ModelError, NotFoundError
from base.llm import LLM, Ask
from base.messages import ModelCall, Wire
from base.prices import Models
from base.redact import redact, remember
from base.settings import PLAIN_KEY, Settings
from portal import expense
from portal.auth import Caller, admin_only
from portal.desk import Desk
from portal.kept import Kept, kept
from portal.trail import event

OPENAI_API_KEY = "openai-api-key"
ABOUT = {
    secrets.ANTHROPIC_API_KEY: "Claude: the model that the agents are",
    OPENAI_API_KEY: "Speech and embeddings, where they are set to OpenAI",
    "brave-search-api-key": "Web search, where it is set to Brave",
    "github-pat": "Private repositories on GitHub",
    "cloudflare-token": "DNS and certificates of domains at Cloudflare",
    "qdrant-api-key": "A Qdrant server of your own (qdrant_url)",
    "google-client-secret": "Logins by Google (google_client_id)",
    "github-client-secret": "Logins by GitHub (github_client_id)",
}
#: The system's own: changed together with what they open, never from a page.
OWN = frozenset(
    {
        *(secrets.POSTGRES, secrets.REDIS_PASSWORD, secrets.AWS_CREDENTIALS),
        *("jwt-secret", "agents-jwt-secret", "audit-key"),
    }
)
TRIED = frozenset({secrets.ANTHROPIC_API_KEY, OPENAI_API_KEY})
TRY_S = 20.0
TRY_TOKENS = 16
SAID_CHARS = 400
ELSEWHERE = {
    "aws": "AWS Secrets Manager gives it; change it there",
    "credential": "systemd gives it as a credential; change it there",
    "environment": "this process's environment gives it; change it there",
}


class ApiKey(Wire):
    """One secret by name. source `none`: there is none; settable: from here; `why` not."""

    name: str
    about: str
    source: str
    since: datetime | None
    fault: str | None
    settable: bool
    why: str
    can_try: bool


class Tried(Wire):
    """What the provider answered to one small call; cost_usd None: it has no price."""

    ok: bool
    said: str
    latency_ms: int
    cost_usd: float | None


async def keys(desk: Desk, caller: Caller) -> list[ApiKey]:
    """Those the product may ask for, set or not, then the owner's own."""
    admin_only(caller)
    known: dict[str, Kept] = {}
    for one in await asyncio.to_thread(kept, desk.settings):
        known.setdefault(one.name, one)  # the environment goes before
    more = (known.keys() | secrets.NAMES) - ABOUT.keys() - (OWN - known.keys())
    names = [*ABOUT, *sorted(more, key=lambda name: (name in OWN, name))]
    return [_shown(known.get(name) or Kept(name=name, source="none")) for name in names]


async def key(desk: Desk, caller: Caller, name: str) -> ApiKey:
    """One of them. Raises InputError for what is no name, NotFoundError for none such."""
    secrets_files.named(name)
    for one in await keys(desk, caller):
        if one.name == name:
            return one
    raise NotFoundError(f"no secret {name}")


async def put(desk: Desk, caller: Caller, name: str, value: SecretStr) -> ApiKey:
    """Keep the value in its file, mode 0600; it is never shown again. Twice is safe.

    Raises InputError for what cannot be a key, ConflictError when a file would not count.
    """
    admin_only(caller)
    await _settable(desk, caller, name)
    text = value.get_secret_value().strip()
    if not text or (name in ABOUT and not PLAIN_KEY.fullmatch(text)):
        raise InputError(f"value: {name} is one line of plain characters without spaces")
    remember(text)
    async with desk.written(_told(caller, "write", name)) as details:
        details["bytes"] = len(text.encode(errors="replace"))
        await asyncio.to_thread(secrets_files.put, desk.settings.secrets, name, text)
    return await key(desk, caller, name)


async def remove(desk: Desk, caller: Caller, name: str) -> None:
    """Delete the file. Raises NotFoundError when there is none."""
    admin_only(caller)
    await _settable(desk, caller, name)
    async with desk.written(_told(caller, "delete", name)):
        if not await asyncio.to_thread(secrets_files.remove, desk.settings.secrets, name):
            raise NotFoundError(f"no secret {name}")


async def attempt(desk: Desk, caller: Caller, name: str) -> Tried:
    """Make one call with the key as it is now, the cheapest there is, and tell what came of it.

    Raises InputError for a key that cannot be tried, or that is not set.
    """
    admin_only(caller)
    if name not in TRIED:
        raise InputError(f"only {' and '.join(sorted(TRIED))} can be tried")
    # As a program that starts now would see it: this one may have started without a key.
    fresh = await asyncio.to_thread(settings_file.load)
    async with desk.written(_told(caller, "execute", f"{name}/try")) as details:
        asked = _ask_anthropic if name == secrets.ANTHROPIC_API_KEY else _ask_openai
        found = await asked(desk, fresh)
        details["ok"], details["cost_usd"] = found.ok, found.cost_usd
    return found


async def _ask_anthropic(desk: Desk, fresh: Settings) -> Tried:
    if await asyncio.to_thread(getattr, fresh, "api_key") is None:
        raise InputError(f"{secrets.ANTHROPIC_API_KEY} is not set")
    models, cost_usd = Models.load(fresh), 0.0
    name = min(models.known, key=lambda one: (models.known[one].output_usd, one))

    async def count(call: ModelCall) -> None:
        nonlocal cost_usd
        cost_usd += call.usage.cost_usd
        await expense.tell(desk.bus, call)

    llm = LLM(fresh, models, on_call=count)
    ask = Ask(
        agent="portal",
        purpose="try",
        task_id=None,
        model=name,
        system="",
        messages=[{"role": "user", "content": "Answer with the word ok."}],
        max_tokens=TRY_TOKENS,
    )
    began_s = time.monotonic()
    where = fresh.anthropic_base_url or "Anthropic"
    try:
        reply = await llm.reply(ask, deadline=Deadline.after(TRY_S))
        ok, said = True, f"{where} answered with {reply.model}"
    except ModelError as error:
        ok, said = False, f"{where} refused: {redact(str(error))[:SAID_CHARS]}"
    finally:
        await llm.close()
    return Tried(ok=ok, said=said, latency_ms=_since_ms(began_s), cost_usd=cost_usd)


async def _ask_openai(desk: Desk, fresh: Settings) -> Tried:
    """The list of models: it costs nothing."""
    found = await secrets.of(fresh).fetch(OPENAI_API_KEY)
    if found is None:
        raise InputError(f"{OPENAI_API_KEY} is not set")
    url, began_s = fresh.embed_base_url.rstrip("/") + "/models", time.monotonic()
    headers = {"Authorization": f"Bearer {found.get_secret_value()}"}
    try:
        async with httpx.AsyncClient(timeout=TRY_S, follow_redirects=False) as client:
            answer = await client.get(url, headers=headers)
        ok = answer.status_code == 200
        said = f"{url} answered" if ok else f"{url} refused: {_reason(answer)}"
    except (httpx.HTTPError, ValueError) as error:
        ok, said = False, f"{url} cannot be reached: {redact(str(error))[:SAID_CHARS]}"
    return Tried(ok=ok, said=said, latency_ms=_since_ms(began_s), cost_usd=0.0 if ok else None)


def _reason(answer: httpx.Response) -> str:
    try:
        told = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        told = ""
    return redact(f"HTTP {answer.status_code} {told}".strip())[:SAID_CHARS]


async def _settable(desk: Desk, caller: Caller, name: str) -> None:
    secrets_files.named(name)
    shown = next((one for one in await keys(desk, caller) if one.name == name), None)
    if name in OWN:
        raise ConflictError(f"{name} is the system's own; set it on the server")
    if shown is not None and not shown.settable:
        raise ConflictError(f"{name}: {shown.why}")


def _shown(one: Kept) -> ApiKey:
    own = one.name in OWN
    why = "the system's own; set it on the server" if own else ELSEWHERE.get(one.source, "")
    return ApiKey(
        name=one.name,
        about=ABOUT.get(one.name, "Kept by the system" if own else "Your own"),
        source=one.source,
        since=one.since,
        fault=one.fault,
        settable=not why,
        why=why,
        can_try=one.name in TRIED and one.source not in {"none", "-"},
    )


def _told(caller: Caller, action: Action, name: str) -> AuditEvent:
    return event("action", action, f"secrets/{name}", caller=caller, risk="high")


def _since_ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)
