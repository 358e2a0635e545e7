"""The archive's files: what counts is what was committed; torn tails and exchanges end well."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from base.errors import StoreError
from base.store import Store
from pai.cold import NEW, Archive, Line

NAME = "memories-2026-11.jsonl.gz"


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    store = await Store.open(postgres_dsn, "cold-test")
    await store.migrate()
    yield store
    await store.close()


def lines(*names: str, at: str = "2026-11-21T00:00:00+00:00") -> list[Line]:
    return [{"id": name, "archived_at": at, "text": f"das Stück {name}\n"} for name in names]


async def opened(folder: Path, store: Store) -> Archive:
    archive = Archive(folder, store)
    await archive.open()
    return archive


async def write(archive: Archive, *some: Line) -> None:
    async with archive.append(NAME, some):
        pass


async def names(archive: Archive) -> list[Any]:
    return [line["id"] for _, line in archive.lines(NAME)]


async def test_members_are_plain_gzip_and_private(tmp_path: Path, store: Store) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one", "two"))
    await write(archive, *lines("three"))
    path = archive.folder / NAME
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 3
    assert path.stat().st_mode & 0o777 == 0o600
    assert archive.folder.stat().st_mode & 0o777 == 0o700
    assert await names(archive) == ["one", "two", "three"]
    assert archive.months() == ["2026-11"]


async def test_what_was_not_committed_does_not_count(tmp_path: Path, store: Store) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one"))
    with pytest.raises(RuntimeError):
        async with archive.append(NAME, lines("two")):
            raise RuntimeError("the transaction failed")
    assert await names(archive) == ["one"]
    again = await opened(tmp_path / "a", store)
    assert (again.folder / NAME).stat().st_size == again.sizes_bytes[NAME]
    await write(again, *lines("three"))
    assert await names(again) == ["one", "three"]


@pytest.mark.parametrize("torn", [b"\x1f\x8b\x08\x00half a member", b"\x00" * 5_000, b"{"])
async def test_a_torn_tail_is_cut(tmp_path: Path, store: Store, torn: bytes) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one"))
    size_bytes = (archive.folder / NAME).stat().st_size
    with (archive.folder / NAME).open("ab") as file:
        file.write(torn)
    again = await opened(tmp_path / "a", store)
    assert (again.folder / NAME).stat().st_size == size_bytes
    assert await names(again) == ["one"]


async def test_a_line_is_taken_out_whole(tmp_path: Path, store: Store) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one", "two"))
    await write(archive, *lines("three"))
    async with archive.rewrite(NAME, lambda line: line["id"] != "two") as (_, out):
        assert [line["id"] for line in out] == ["two"]
    assert await names(archive) == ["one", "three"]
    assert b"two" not in gzip.decompress((archive.folder / NAME).read_bytes())
    assert not (archive.folder / (NAME + NEW)).exists()
    async with archive.rewrite(NAME, lambda line: False) as (_, out):
        assert len(out) == 2
    assert list(archive.folder.iterdir()) == []
    assert archive.months() == []


async def test_an_exchange_that_was_committed_is_ended_by_the_next_start(
    tmp_path: Path, store: Store
) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one", "two"))
    exchange = archive._exchange
    archive._exchange = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        async with archive.rewrite(NAME, lambda line: line["id"] != "two"):
            pass
    archive._exchange = exchange  # type: ignore[method-assign]
    again = await opened(tmp_path / "a", store)
    assert await names(again) == ["one"]
    await write(again, *lines("three"))
    assert await names(again) == ["one", "three"]


async def test_an_exchange_that_was_not_committed_never_happened(
    tmp_path: Path, store: Store
) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one", "two"))
    with pytest.raises(RuntimeError):
        async with archive.rewrite(NAME, lambda line: line["id"] != "two"):
            raise RuntimeError("the transaction failed")
    again = await opened(tmp_path / "a", store)
    assert await names(again) == ["one", "two"]
    assert [path.name for path in again.folder.iterdir()] == [NAME]


async def test_the_oldest_members_are_cut_off_from_the_front(tmp_path: Path, store: Store) -> None:
    archive = await opened(tmp_path / "a", store)
    for day in (1, 2, 3):
        await write(archive, *lines(f"day {day}", at=f"2026-11-0{day}T00:00:00+00:00"))
    assert await archive.first_at(NAME) == datetime(2026, 11, 1, tzinfo=UTC)
    until = await archive.boundary(NAME, datetime(2026, 11, 2, 12, tzinfo=UTC), 0)
    async with archive.rewrite(NAME, lambda _: True, from_byte=until) as (_, out):
        assert [line["id"] for line in out] == ["day 1", "day 2"]
    assert await names(archive) == ["day 3"]
    assert await archive.first_at(NAME) == datetime(2026, 11, 3, tzinfo=UTC)


async def test_large_members_are_read_in_pieces(tmp_path: Path, store: Store) -> None:
    archive = await opened(tmp_path / "a", store)
    noise = random.Random(7)
    big = [{"id": str(number), "text": noise.randbytes(40_000).hex()} for number in range(40)]
    await write(archive, *big[:25])
    await write(archive, *big[25:])
    assert (archive.folder / NAME).stat().st_size > 1_500_000
    assert [line for _, line in archive.lines(NAME)] == big
    starts = [start for start, _ in archive.members(NAME)]
    assert starts[-1] == archive.sizes_bytes[NAME]
    assert len(starts) == 2


async def test_a_missing_file_is_told_and_not_fatal(tmp_path: Path, store: Store) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one"))
    (archive.folder / NAME).unlink()
    again = await opened(tmp_path / "a", store)
    assert list(again.lines(NAME)) == []


async def test_a_damaged_or_missing_file_is_an_error_that_names_it(
    tmp_path: Path, store: Store
) -> None:
    archive = await opened(tmp_path / "a", store)
    await write(archive, *lines("one"))
    path = archive.folder / NAME
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(StoreError, match=NAME):
        await archive.mentions(["one"])
    path.unlink()
    assert await archive.first_at(NAME) is None
