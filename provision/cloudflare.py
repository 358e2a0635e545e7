"""Cloudflare by its own package: one scoped token, the zones of outside.toml and no others.

The package's own retries are off: what Cloudflare answers when it is asked too often is waited
for here, a minute at most, and what may have been done is never asked for twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from base.errors import AIError, ConflictError, ForbiddenError, InputError, NotFoundError
from base.redact import redact
from base.verbs_outside import CdnPurge, ZoneSet
from provision import outside
from provision.box import Box
from provision.verb import Tell

T = TypeVar("T")
LIMIT_S = 30.0
WAIT_MAX_S = 60.0
TRIES = 3
PAGE = 100
#: Cloudflare takes so many addresses in one purge.
PURGE_MAX = 30
SETTINGS = {"ssl": "ssl", "always_https": "always_use_https"}
TRAFFIC = """query Traffic($zone: string, $from: Time, $to: Time, $limit: uint64!) {
  viewer { zones(filter: {zoneTag: $zone}) {
    httpRequests1hGroups(
      limit: $limit, filter: {datetime_geq: $from, datetime_lt: $to}, orderBy: [datetime_ASC]
    ) {
      dimensions { datetime }
      sum { requests cachedRequests bytes cachedBytes threats pageViews }
      uniq { uniques }
    }
  } }
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """name_servers: what the registrar must name before the zone is active."""

    id: str
    name: str
    status: str
    plan: str
    name_servers: tuple[str, ...]


@asynccontextmanager
async def opened(box: Box, tell: Tell | None = None) -> AsyncIterator[Cloudflare]:
    """Cloudflare with the token. Raises ConflictError when it is not set up."""
    config = outside.read(box).cloudflare
    if not config.zones:
        raise ConflictError(
            "Cloudflare is not set up: name the zones to manage under [cloudflare] in "
            f"{box.config / 'outside.toml'}"
        )
    token = await outside.token(box, outside.CLOUDFLARE, "Cloudflare")
    from cloudflare import AsyncCloudflare

    client = AsyncCloudflare(
        api_token=token.get_secret_value(), base_url=config.url, max_retries=0, timeout=LIMIT_S
    )
    # Another key in the environment would be sent in the token's place.
    client.api_key = client.api_email = client.user_service_key = None
    async with client:
        yield Cloudflare(client, config, tell)


class Cloudflare:
    """Every method raises InputError, NotFoundError, ForbiddenError or ConflictError in words."""

    def __init__(self, client: Any, config: outside.Cloudflare, tell: Tell | None) -> None:
        self.client = client
        self._config = config
        self._tell = tell

    async def zones(self) -> list[Zone]:
        """What of the token's zones is managed."""
        found = await self.pages(lambda: self.client.zones.list(per_page=50), "the zones")
        return [_zone(one) for one in found if one.name in self._config.zones]

    async def zone(self, name: str) -> Zone:
        """Raises ForbiddenError for a zone that is not managed, NotFoundError for none such."""
        self.managed(name)
        if (found := await self.find(name)) is None:
            raise NotFoundError(f"Cloudflare has no zone {name} for this token")
        return found

    async def find(self, name: str) -> Zone | None:
        found = await self.pages(lambda: self.client.zones.list(name=name), f"zone {name}")
        return _zone(found[0]) if found else None

    def managed(self, name: str) -> None:
        if name not in self._config.zones:
            raise ForbiddenError(
                f"{name} is none of the managed zones: {', '.join(self._config.zones)}"
            )

    async def add(self, name: str) -> Zone:
        """A new zone in the account. Raises ConflictError when no account is configured."""
        if not self._config.account:
            raise ConflictError("to add a zone, name the account under [cloudflare]")
        made = await self.ask(
            lambda: self.client.zones.create(
                account={"id": self._config.account}, name=name, type="full"
            ),
            f"zone {name}",
            again=False,
        )
        return _zone(made)

    async def settings(self, zone: Zone) -> dict[str, Any]:
        """ssl: its mode; always_https: whether plain http is sent to https."""
        found = {}
        for name, theirs in SETTINGS.items():
            question = partial(self.client.zones.settings.get, theirs, zone_id=zone.id)
            one: Any = await self.ask(question, f"the settings of {zone.name}")
            found[name] = one.value
        return {**found, "always_https": found["always_https"] == "on"}

    async def different(self, zone: Zone, asked: ZoneSet) -> dict[str, tuple[Any, Any]]:
        """What would change: name → (as it is, as it is asked)."""
        have = await self.settings(zone)
        want = asked.model_dump(include=set(SETTINGS), exclude_none=True)
        return {name: (have[name], want[name]) for name in want if have[name] != want[name]}

    async def set(self, zone: Zone, name: str, value: Any) -> None:
        theirs = ("on" if value else "off") if name == "always_https" else value
        await self.ask(
            lambda: self.client.zones.settings.edit(SETTINGS[name], zone_id=zone.id, value=theirs),
            f"the settings of {zone.name}",
        )

    async def purge(self, zone: Zone, asked: CdnPurge) -> int:
        """How many questions it took. Twice is safe."""
        files = asked.files
        parts: list[dict[str, Any]] = [
            {"files": list(files[at : at + PURGE_MAX])} for at in range(0, len(files), PURGE_MAX)
        ]
        for part in parts or [{"purge_everything": True}]:
            question = partial(self.client.cache.purge, zone_id=zone.id, **part)
            await self.ask(question, f"the cache of {zone.name}")
        return len(parts) or 1

    async def balancers(self, zone: Zone) -> list[dict[str, Any]]:
        """name, enabled, pools and steering of each load balancer; they are only listed."""
        found = await self.pages(
            lambda: self.client.load_balancers.list(zone_id=zone.id),
            f"load balancers of {zone.name}",
        )
        return [
            {
                "name": one.name,
                "enabled": one.enabled is not False,
                "proxied": bool(one.proxied),
                "steering": one.steering_policy or "off",
                "pools": list(one.default_pools or []),
                "fallback": one.fallback_pool,
            }
            for one in found
        ]

    async def traffic(self, zone: Zone, hours: int) -> list[dict[str, Any]]:
        """Hour by hour, oldest first; hours without traffic are absent."""
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        body = {
            "query": TRAFFIC,
            "variables": {
                "zone": zone.id,
                "from": (now - timedelta(hours=hours)).isoformat(),
                "to": now.isoformat(),
                "limit": hours,
            },
        }
        answer: Any = await self.ask(
            lambda: self.client.post("/graphql", body=body, cast_to=object),
            f"traffic of {zone.name}",
        )
        if faults := (answer or {}).get("errors"):
            raise InputError(f"Cloudflare refused: {redact(str(faults[0].get('message')))[:300]}")
        zones = answer["data"]["viewer"]["zones"]
        return [
            {
                "at": hour["dimensions"]["datetime"],
                "requests": hour["sum"]["requests"],
                "cached_requests": hour["sum"]["cachedRequests"],
                "bytes": hour["sum"]["bytes"],
                "cached_bytes": hour["sum"]["cachedBytes"],
                "threats": hour["sum"]["threats"],
                "page_views": hour["sum"]["pageViews"],
                "visitors": hour["uniq"]["uniques"],
            }
            for hour in (zones[0]["httpRequests1hGroups"] if zones else [])
        ]

    async def pages(self, first: Callable[[], Awaitable[Any]], what: str) -> list[Any]:
        """Every item of a list that comes in pages."""
        page = await self.ask(first, what)
        found = list(page.result or [])
        while page.result and (page := await self._next(page, what)) is not None:
            found += page.result or []
        return found

    async def ask(
        self, question: Callable[[], Awaitable[T]], what: str, *, again: bool = True
    ) -> T:
        """again: False for what must not be asked twice when it may have been done."""
        from cloudflare import APIConnectionError, APIStatusError

        for last in (False,) * (TRIES - 1) + (True,):
            try:
                return await question()
            except APIStatusError as error:
                wait_s = _wait_s(error.status_code, error.response.headers, again=again)
                if last or wait_s is None or wait_s > WAIT_MAX_S:
                    raise _told(error.status_code, error.body, what, wait_s) from None
                if self._tell and error.status_code == 429:
                    await self._tell(f"Cloudflare asks to wait {wait_s:.0f} s")
                await asyncio.sleep(wait_s)
            except APIConnectionError as error:
                if last or not again:
                    done = "" if again else "; whether it was done is not known: look first"
                    raise ConflictError(
                        f"Cloudflare cannot be reached ({type(error.__cause__).__name__}){done}"
                    ) from None
                await asyncio.sleep(1.0)
        raise AssertionError

    async def _next(self, page: Any, what: str) -> Any | None:
        about = getattr(page, "result_info", None)
        page_items = getattr(about, "per_page", None)
        if page_items is None or len(page.result) < page_items or not page.has_next_page():
            return None
        return await self.ask(page.get_next_page, what)


def shown(zone: Zone) -> dict[str, Any]:
    return {**asdict(zone), "name_servers": list(zone.name_servers)}


def _zone(found: Any) -> Zone:
    return Zone(
        id=found.id,
        name=found.name,
        status=found.status or "unknown",
        plan=(found.plan.name if found.plan else None) or "unknown",
        name_servers=tuple(found.name_servers or ()),
    )


def _wait_s(status: int, headers: Any, *, again: bool) -> float | None:
    """How long to wait before asking again; None: asking again is of no use."""
    if status == 429:
        after = headers.get("retry-after", "")
        return float(after) if after.isdigit() else 5.0
    return 1.0 if status >= 500 and again else None


def _told(status: int, body: object, what: str, wait_s: float | None) -> AIError:
    """The answer in words. Causes are cut off on purpose: they quote what was sent."""
    faults = body.get("errors") if isinstance(body, dict) else None
    parts = []
    for fault in faults if isinstance(faults, list) else []:
        if isinstance(fault, dict):
            chain = [fault, *(fault.get("error_chain") or [])]
            parts += [f"{one.get('message')} (code {one.get('code')})" for one in chain]
    words = redact("; ".join(parts))[:400] or f"status {status}"
    if status == 429:
        return ConflictError(f"Cloudflare was asked too often; ask again in {wait_s or 0:.0f} s")
    if status in {401, 403}:
        return ForbiddenError(f"the token cloudflare-token may not do this to {what}: {words}")
    if status == 404:
        return NotFoundError(f"Cloudflare has no {what}: {words}")
    if status >= 500:
        return ConflictError(f"Cloudflare is in trouble ({status}); try again later")
    return InputError(f"Cloudflare refused {what}: {words}")
