"""The record: PostgreSQL behind a small pool. The only module that knows asyncpg.

Rows are plain dicts. At the border a uuid and an inet are `str`, json and jsonb are Python
objects, numeric is `float` (sums are exact when SQL makes them), timestamptz is aware.

Owner of retry for the database: a lost connection is tried again (3 attempts) where that cannot
do a thing twice: getting a connection, and a lone statement that starts with SELECT. Everything
else raises StoreError at once and the caller knows that the outcome may be unknown.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import asyncpg

from base import grants, log, migrations, outbox
from base.errors import AIError, ConflictError, InputError, StoreError
from base.messages import Message, encode
from base.outbox import Accepted, Request, Wire

Row = dict[str, Any]
T = TypeVar("T")

POOL_MAX = 8
STATEMENT_S = 30.0
CONNECT_S = 10.0
RETRY_WAITS_S = (0.5, 5.0)
LOCK_CHECK_S = 10.0

_LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)

_logger = log.get("store")


class Session:
    """One connection; inside `transaction`, one transaction. Statements are never retried.

    UniqueViolation and foreign keys raise ConflictError; text that PostgreSQL cannot hold, values
    out of range and failed checks raise InputError; anything else StoreError.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        with _errors():
            return [dict(row) for row in await self._connection.fetch(sql, *values)]

    async def fetchrow(self, sql: str, *values: Any) -> Row | None:
        """The first row; None: there is none."""
        with _errors():
            row = await self._connection.fetchrow(sql, *values)
        return None if row is None else dict(row)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """The first column of the first row; None: no row, or NULL."""
        with _errors():
            return await self._connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: Any) -> int:
        """Rows touched (0 for a statement that touches none by nature)."""
        with _errors():
            tag: str = await self._connection.execute(sql, *values)
        last = tag.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """All or none of `rows`."""
        with _errors():
            await self._connection.executemany(sql, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """The block commits together, or not at all when it raises. Inside another: a savepoint."""
        with _errors():
            transaction = self._connection.transaction()
            await transaction.start()
        try:
            yield
        except BaseException:
            try:
                await transaction.rollback()
            except (*_LOST, asyncpg.InterfaceError) as error:  # then the server has rolled back
                _logger.warning("connection lost in a transaction", error=str(error))
            raise
        with _errors():
            await transaction.commit()

    async def publish(self, stream: str, *messages: Message) -> None:
        """Promise `messages` to `stream`: they leave with a relay after the commit."""
        await self.executemany(
            "INSERT INTO outbox (stream, body) VALUES ($1, $2)",
            [(stream, encode(message)) for message in messages],
        )

    async def remember(
        self, *, user_id: str, key: str, request: Any, status: int, response: Mapping[str, Any]
    ) -> Row | None:
        """Claim an idempotency key for `response`. None: it was free, go on and commit.

        Else the response that the same request got before. Waits for a transaction that holds the
        same key. Raises ConflictError when the key was used for another request.
        """
        return await outbox.remember(
            self, user_id=user_id, key=key, request=request, response=response, status=status
        )


class HeldLock:
    """An advisory lock on a connection of its own; held until `release`, or the connection ends."""

    def __init__(self, name: str, connection: Any) -> None:
        self.name = name
        self.lost = asyncio.Event()
        self._connection = connection
        connection.add_termination_listener(lambda _: self.lost.set())

    async def watch(self) -> NoReturn:
        """Run as long as the lock is held; raises StoreError as soon as it is not.

        A closed connection is noticed at once, a silent one within two `LOCK_CHECK_S`.
        """
        while True:
            try:
                async with asyncio.timeout(LOCK_CHECK_S):
                    await self.lost.wait()
            except TimeoutError:
                await self._check()
            if self.lost.is_set():
                raise StoreError(f"the lock {self.name!r} was lost with its connection")

    async def release(self) -> None:
        """Give the lock back. Safe to call twice, or after the loss."""
        if not self._connection.is_closed():
            with _errors():
                await self._connection.close(timeout=CONNECT_S)

    async def _check(self) -> None:
        try:
            await self._connection.execute("SELECT 1", timeout=LOCK_CHECK_S)
        except (*_LOST, asyncpg.InterfaceError, TimeoutError) as error:
            _logger.error("lock check failed", lock=self.name, error=str(error))
            self.lost.set()


class Store:
    """Make it with `open`. One a process."""

    def __init__(self, dsn: str, pool: Any) -> None:
        self._dsn = dsn
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str, name: str = "ai-infra") -> Store:
        """Connect. `name` is what pg_stat_activity shows. Raises StoreError after 3 attempts."""

        async def connect() -> Any:
            return await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=POOL_MAX,
                command_timeout=STATEMENT_S,
                timeout=CONNECT_S,
                init=_codecs,
                reset=_as_it_is,
                server_settings={"application_name": name},
            )

        with _errors():
            return cls(dsn, await _retry(connect))

    async def close(self) -> None:
        """Wait for running statements, then close. Safe to call twice."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    # Statements ----------------------------------------------------------------------------

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        return await self._lone(sql, lambda session: session.fetch(sql, *values))

    async def fetchrow(self, sql: str, *values: Any) -> Row | None:
        return await self._lone(sql, lambda session: session.fetchrow(sql, *values))

    async def fetchval(self, sql: str, *values: Any) -> Any:
        return await self._lone(sql, lambda session: session.fetchval(sql, *values))

    async def execute(self, sql: str, *values: Any) -> int:
        return await self._lone(sql, lambda session: session.execute(sql, *values))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Everything in the block commits together, or not at all when it raises.

        Do not call the store's own methods inside: they take another connection of the pool.
        """
        async with self._connection() as connection:
            session = Session(connection)
            async with session.transaction():
                yield session

    # Schema --------------------------------------------------------------------------------

    async def migrate(self, folder: Path = migrations.SCHEMA) -> list[str]:
        """Bring the database to the newest schema; names of the files applied now.

        Safe in many processes at once: one works, the others wait for it. A file is applied
        wholly or not at all. Where our role may not, waits for the one that may: see base/grants.
        Raises StoreError when it fails, or an applied file was edited.
        """
        files = migrations.read(folder)
        connection = await self._dedicated()
        session = Session(connection)
        try:
            if not await migrations.may(session):
                await migrations.settled(session, files)
                return []
            done = await migrations.apply(session, files)
            if folder == migrations.SCHEMA:
                await grants.apply(session)
            return done
        finally:
            await connection.close(timeout=CONNECT_S)

    async def tidy(self) -> int:
        """Drop what is no longer needed, make the next audit partitions; rows deleted.

        Sent outbox rows go after a day, idempotency keys after a week, a thousand at a time. To
        be called now and then (hourly); safe in many processes at once.
        """
        await self.fetchval("SELECT audit_logs_make_partitions()")
        await self.fetchval("SELECT api_usage_sum()")
        return await outbox.purge(self)

    # Locks ---------------------------------------------------------------------------------

    async def advisory_lock(self, name: str) -> HeldLock | None:
        """Take the lock on a connection of its own; None: somebody else has it."""
        connection = await self._dedicated()
        held = HeldLock(name, connection)
        with _errors():
            sql = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
            if await connection.fetchval(sql, name):
                return held
        await held.release()
        return None

    # The accepted request and the outbox ---------------------------------------------------

    async def accept(self, request: Request, *, key: str | None = None) -> Accepted:
        """Record a request so that it cannot be lost: message, root task and outbox row at once.

        `effort` None: the supervisor decides; until then the column says standard.
        The same idempotency `key` with the same request returns the first result. Raises
        NotFoundError for a conversation that is unknown, deleted or another user's, ConflictError
        for a key used for another request, InputError for text that cannot be stored.
        """
        async with self.transaction() as tx:
            return await outbox.accept(tx, request, key)

    async def relay(self, bus: Wire, limit: int = 200) -> int:
        """Send up to `limit` waiting outbox rows, oldest first; how many were sent.

        Rows that another relay holds are left to it. A crash between sending and the commit sends
        again: at least once. Raises BusError when the bus refuses; the rows wait.
        """
        async with self.transaction() as tx:
            return await outbox.relay(tx, bus, limit)

    # Inside --------------------------------------------------------------------------------

    async def _lone(self, sql: str, run: Callable[[Session], Awaitable[T]]) -> T:
        read = sql.lstrip()[:6].upper() == "SELECT"

        async def once() -> T:
            async with self._connection(retry=not read) as connection:
                return await run(Session(connection))

        return await _retry(once) if read else await once()

    @asynccontextmanager
    async def _connection(self, *, retry: bool = True) -> AsyncIterator[Any]:
        def acquire() -> Any:
            return self._pool.acquire(timeout=CONNECT_S)

        with _errors():
            connection = await (_retry(acquire) if retry else acquire())
        try:
            yield connection
        except BaseException:  # it stands, or a cancellation would become an error of the store
            try:
                await self._pool.release(connection, timeout=CONNECT_S)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _logger.warning("connection lost as it was given back", error=str(error))
            raise
        with _errors():
            await self._pool.release(connection, timeout=CONNECT_S)

    async def _dedicated(self) -> Any:
        with _errors():
            return await _retry(lambda: asyncpg.connect(self._dsn, timeout=CONNECT_S))


async def _codecs(connection: Any) -> None:
    texts: dict[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
        "uuid": (str, str),
        "inet": (str, str),
        "numeric": (str, float),
        "json": (_json, json.loads),
        "jsonb": (_json, json.loads),
    }
    for name, (encoder, decoder) in texts.items():
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=encoder, decoder=decoder, format="text"
        )


async def _as_it_is(_: Any) -> None:
    """What asyncpg asks the server to undo as a connection is given back is a trip of its own after
    each statement, and nothing of ours outlives a transaction: SET LOCAL, locks of transactions,
    cursors. What does (session locks) has a dedicated connection.
    """


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


async def _retry(run: Callable[[], Awaitable[T]]) -> T:
    """`run()`, again after each wait as long as the connection is what failed."""
    for wait_s in RETRY_WAITS_S:
        try:
            return await run()
        except Exception as error:
            if not _is_lost(error):
                raise
            _logger.warning("database unreachable, trying again", wait_s=wait_s, error=str(error))
        await asyncio.sleep(wait_s)
    return await run()


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, StoreError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, asyncpg.InterfaceError):
        return "connection is closed" in str(error) or "released back" in str(error)
    return isinstance(error, _LOST) and not isinstance(error, TimeoutError)


@contextmanager
def _errors() -> Iterator[None]:
    """asyncpg's errors as ours; the message never holds a value that was sent."""
    try:
        yield
    except AIError:
        raise
    except asyncpg.UniqueViolationError as error:
        raise ConflictError(f"already there ({error.constraint_name})") from error
    except asyncpg.ForeignKeyViolationError as error:
        raise ConflictError(f"it refers to what is not there ({error.constraint_name})") from error
    except (asyncpg.CheckViolationError, asyncpg.NotNullViolationError) as error:
        where = error.constraint_name or error.column_name
        raise InputError(f"the value is not allowed ({where})") from error
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError) as error:
        raise InputError("the text has a NUL character, which cannot be stored") from error
    except asyncpg.DataError as error:
        cause = error.__cause__  # set: asyncpg refused, and its own words would quote the value
        if isinstance(cause, UnicodeEncodeError):
            raise InputError("the text has half a surrogate pair: no valid Unicode") from error
        if isinstance(cause, TypeError):
            raise StoreError(f"a value of the wrong type: {cause}") from error
        raise InputError(f"the value cannot be stored: {cause or error}") from error
    except TimeoutError as error:
        raise StoreError("PostgreSQL did not answer in time") from error
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
    ) as error:
        raise StoreError(f"PostgreSQL: {error}") from error
