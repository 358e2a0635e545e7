"""Asking the root broker: one order on its Unix socket, its steps and its answer back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from base import errors
from base.deadline import Deadline
from base.errors import AIError, InputError, LocalModeError, NotRunningError
from base.verbs import VERBS, Ask, By, Order, Said

LINE_MAX_BYTES = 4_000_000


async def call(
    socket: Path | None,
    verb: str,
    request: Ask,
    *,
    by: By,
    dry_run: bool = False,
    deadline: Deadline,
    tell: Callable[[str], Awaitable[None]] | None = None,
) -> Said:
    """The last word about one order; `tell` hears its steps. socket None: local mode.

    Raises LocalModeError, NotRunningError when nobody listens or the answer does not come in
    time (the order may still be carried out), and the error of base.errors that the broker
    names, InputError for one that it does not.
    """
    if socket is None:
        raise LocalModeError(f"{verb} needs the appliance: this installation has no root broker")
    if VERBS.get(verb) is not type(request):
        raise InputError(f"{verb} is not asked with a {type(request).__name__}")
    order = Order(
        id=str(uuid.uuid4()),
        verb=verb,
        request=request.model_dump(mode="json"),
        dry_run=dry_run,
        by=by,
    )
    try:
        async with asyncio.timeout(deadline.left_s):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=LINE_MAX_BYTES)
            try:
                writer.write(order.model_dump_json().encode() + b"\n")
                await writer.drain()
                return await _answer(reader, tell)
            finally:
                writer.close()
    except TimeoutError as error:
        raise NotRunningError(f"the root broker did not answer {verb} in time") from error
    except (OSError, ValueError, ValidationError) as error:
        raise NotRunningError(f"the root broker cannot be asked: {error}") from error


async def _answer(
    reader: asyncio.StreamReader, tell: Callable[[str], Awaitable[None]] | None
) -> Said:
    while line := await reader.readline():
        said = Said.model_validate_json(line)
        if said.step is not None and tell is not None:
            await tell(said.step)
        if said.done:
            if not said.ok:
                raise _error(said)
            return said
    raise NotRunningError("the root broker ended before it answered")


def _error(said: Said) -> AIError:
    found: Any = getattr(errors, said.kind or "", None)
    simple = {"InputError", "NotFoundError", "ConflictError", "ForbiddenError", "NotRunningError"}
    kind: type[AIError] = found if said.kind in simple else InputError
    return kind(said.error or "the root broker gave no reason")
