"""How often something may be asked for: `config/limits.toml`, counted in Redis by `limits`.

The shipped file lies in the checkout beside the packages; `$AI_INFRA_HOME/config/limits.toml`
is laid over it key by key. Windows move: at no moment were more than COUNT allowed within the
PERIOD before it, whichever process asked.
"""

from __future__ import annotations

import asyncio
import re
import time
import tomllib
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from base.errors import BusError, SettingsError, TooManyError
from base.outage import Outage
from base.settings import Settings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.strategies import MovingWindowRateLimiter

T = TypeVar("T")
SHIPPED = Path(__file__).resolve().parent.parent / "config" / "limits.toml"
UNLIMITED = "unlimited"
RATE = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,3})?(second|minute|hour|day)s?")
#: A limit is asked for before each piece of work: it may not hold that up for long.
ANSWER_S = 3.0
CONCURRENCY = 32
KEY_MAX_CHARS = 200


def _rate(text: str) -> str:
    text = text.replace(" ", "").lower()
    if text != UNLIMITED and not RATE.fullmatch(text):
        raise ValueError(f'{text!r} is no rate; write "10/minute", "5/15minutes" or "unlimited"')
    return text


Rate = Annotated[str, AfterValidator(_rate)]


class Api(BaseModel, frozen=True, extra="forbid"):
    anonymous: Rate
    authenticated: Rate
    premium: Rate


class WebSocket(BaseModel, frozen=True, extra="forbid"):
    """`connections` at the same time a user; 0: as many as they like."""

    messages: Rate
    connections: int = Field(ge=0)


class Agents(BaseModel, frozen=True, extra="forbid"):
    inter_agent_messages: Rate
    tool_calls: Rate
    escalations: Rate


class Auth(BaseModel, frozen=True, extra="forbid"):
    login_attempts: Rate
    password_reset: Rate


class Uploads(BaseModel, frozen=True, extra="forbid"):
    """Files that come with messages. `person_bytes`: what one person's may take together."""

    files: Rate
    file_bytes: int = Field(ge=1)
    image_bytes: int = Field(ge=1)
    text_bytes: int = Field(ge=1)
    message_files: int = Field(ge=0, le=20)
    message_bytes: int = Field(ge=1)
    person_bytes: int = Field(ge=1)


class Rates(BaseModel):
    """Every limit of the product. Build it with `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: Api
    websocket: WebSocket
    agents: Agents
    auth: Auth
    uploads: Uploads

    @classmethod
    def load(cls, settings: Settings | None = None) -> Rates:
        """The shipped file with the home's laid over it; None reads the shipped file alone.

        Raises SettingsError naming every fault.
        """
        paths = [SHIPPED, *([settings.config / "limits.toml"] if settings else [])]
        table: dict[str, Any] = {}
        for path in paths:
            try:
                found = tomllib.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                if path == SHIPPED:
                    raise
                continue
            except (OSError, ValueError) as error:
                raise SettingsError([f"{path}: {error}"]) from error
            table = _over(table, found)
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            faults = [
                f"{paths[-1]}: {'.'.join(str(part) for part in fault['loc'])}: "
                + str(fault["msg"]).removeprefix("Value error, ")
                for fault in error.errors(include_input=False, include_url=False)
            ]
            raise SettingsError(faults) from error

    def rate(self, what: str) -> str:
        """The rate under a dotted name such as `agents.tool_calls`. KeyError for none such."""
        part, _, name = what.partition(".")
        found = getattr(getattr(self, part, None), name, None)
        if not isinstance(found, str):
            raise KeyError(f"no rate is named {what!r}")
        return found


class Limiter:
    """Counts in Redis over one small pool of connections of its own, made at the first hit.

    What `limits` needs (36 ms, 2 MB) is imported then too: a process that never asks is spared.
    """

    def __init__(self, url: str, rates: Rates) -> None:
        self.rates = rates
        self._url = url
        self._free = asyncio.Semaphore(CONCURRENCY)
        self._items: dict[str, RateLimitItem] = {}
        self._counting: MovingWindowRateLimiter | None = None
        self._outage = Outage("redis for rate limits")

    @classmethod
    async def open(cls, settings: Settings) -> Limiter:
        """Raises SettingsError for a wrong limits.toml. Connects at the first hit."""
        return cls(settings.redis, Rates.load(settings))

    async def hit(self, what: str, key: str) -> float:
        """Count one `what` (such as `agents.tool_calls`) of `key` (an agent, a user, an address).

        0.0: allowed, and counted. Else the seconds until it may be tried again; what is refused
        does not count. Raises BusError when Redis cannot say: the caller decides what that means.
        """
        rate = self.rates.rate(what)
        if rate == UNLIMITED:
            return 0.0
        counting, item, key = self._strategy(), self._item(what, rate), key[:KEY_MAX_CHARS]
        if await self._asked(counting.hit(item, key)):
            return 0.0
        window = await self._asked(counting.get_window_stats(item, key))
        return max(0.001, window.reset_time - time.time())

    async def take(self, what: str, key: str, said: str) -> None:
        """`hit` that raises TooManyError, which tells `said` and when to try again."""
        if left_s := await self.hit(what, key):
            raise TooManyError(f"{said}; try again in {_spoken(left_s)}", left_s)

    async def give_back(self, what: str, key: str) -> None:
        """Uncount one earlier hit: what was counted turned out not to be what the limit is for.

        Safe against racers: each removes one entry for the one it added. Raises BusError.
        """
        rate = self.rates.rate(what)
        if rate != UNLIMITED:
            storage: Any = self._strategy().storage
            entries = storage.bridge.prefixed_key(
                self._item(what, rate).key_for(key[:KEY_MAX_CHARS])
            )
            await self._asked(storage.bridge.get_connection().lpop(entries))

    async def close(self) -> None:
        """Safe at any time; a later hit connects again."""
        counting, self._counting = self._counting, None
        if counting is not None:
            storage: Any = counting.storage
            with suppress(OSError):
                await storage.bridge.get_connection().aclose()

    async def _asked(self, question: Awaitable[T]) -> T:
        from limits.errors import StorageError

        try:
            async with self._free, asyncio.timeout(ANSWER_S):
                answer = await question
        except (StorageError, TimeoutError, OSError) as error:
            self._outage.began(error)
            raise BusError(f"rate limits: redis did not answer: {error}") from error
        self._outage.ended()
        return answer

    def _strategy(self) -> MovingWindowRateLimiter:
        if self._counting is None:
            from limits.aio.storage.redis import RedisStorage
            from limits.aio.strategies import MovingWindowRateLimiter

            url = self._url.replace("unix://", "redis+unix://", 1)
            options: dict[str, Any] = {
                "socket_timeout": ANSWER_S,
                "socket_connect_timeout": ANSWER_S,
                "retry": None,
            }
            storage = RedisStorage(
                f"async+{url}",
                wrap_exceptions=True,
                implementation="redispy",
                key_prefix="ai:limit",
                **options,
            )
            self._counting = MovingWindowRateLimiter(storage)
        return self._counting

    def _item(self, what: str, rate: str) -> RateLimitItem:
        if what not in self._items:
            from limits.util import parse

            item = parse(rate)
            item.namespace = what
            self._items[what] = item
        return self._items[what]


def _spoken(left_s: float) -> str:
    return f"{left_s:.0f} s" if left_s < 90 else f"{left_s / 60:.0f} min"


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        part = both.get(key)
        both[key] = (
            _over(part, value) if isinstance(part, dict) and isinstance(value, dict) else value
        )
    return both
