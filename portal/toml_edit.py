"""Change a TOML text by its keys; comments, order and all else stay as people wrote them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from base.errors import InputError

Value = str | int | float | bool | list[str | int | float | bool]
#: As far as TOML promises integers.
INTEGER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key, by the names that lead to it. value None: the key goes."""

    at: tuple[str, ...]
    value: Value | None


def edited(text: str, changes: Iterable[Change]) -> str:
    """`text` with the changes made. Taking out what is not there changes nothing.

    Raises InputError for a text that is no TOML, and for a change that cannot be made without
    changing more than was asked for.
    """
    wanted = parsed(text)
    try:
        document = tomlkit.parse(text)
        for change in changes:
            _put(wanted, change, dict)
            _put(document, change, None)
        after = tomlkit.dumps(document)
        same = tomllib.loads(after) == wanted
    except (TOMLKitError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"this cannot be written into the file: {error}") from error
    if not same:
        raise InputError("this cannot be changed here without changing more; edit the file's text")
    return after


def parsed(text: str) -> dict[str, Any]:
    """What the text says. Raises InputError naming the line that is no TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(str(error) or "the text nests too deep") from error


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The keys, by the names that lead to them, whose values came, went or changed."""
    return sorted(set(_differing(before, after, ())))


def _differing(before: Any, after: Any, at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before.keys() | after.keys():
            yield from _differing(before.get(key), after.get(key), (*at, key))
    elif isinstance(before, Mapping) or isinstance(after, Mapping):
        table = before if isinstance(before, Mapping) else after
        for key in table or {"": None}:
            yield (*at, key) if key else at
    elif before != after or type(before) is not type(after):
        yield at


def _put(table: Any, change: Change, new: Any) -> None:
    """new: makes a table that lacks; None: one in the style of what it goes into."""
    *way, last = change.at
    for place, key in enumerate(way):
        if key not in table:
            if change.value is None:
                return
            if new is not None:
                table[key] = new()
            elif isinstance(table, InlineTable):
                table[key] = tomlkit.inline_table()
            else:
                table.add(key, tomlkit.table(is_super_table=place + 1 < len(way)))
        table = table[key]
        if not isinstance(table, Mapping):
            raise InputError(f"{'.'.join(change.at[: place + 1])}: is a value and holds no keys")
    if change.value is not None:
        table[last] = change.value
    elif last in table:
        del table[last]
