"""Recordings in pieces: in order, twice, whose they are, and when they go."""

from __future__ import annotations

import pytest

from base.errors import ConflictError, InputError, NotFoundError
from base.sound import LARGEST_BYTES
from portal import recordings
from portal.recordings import Recordings


def test_pieces_are_joined_and_one_sent_twice_counts_once() -> None:
    held = Recordings()
    assert held.put("ann", "1", 0, b"abc") == 3
    assert held.put("ann", "1", 3, b"def") == 6
    assert held.put("ann", "1", 3, b"def") == 6
    assert held.get("ann", "1") == b"abcdef"
    with pytest.raises(ConflictError, match="byte 9 comes after byte 6"):
        held.put("ann", "1", 9, b"x")
    assert held.get("ann", "1") == b"abcdef"


def test_another_users_recording_does_not_exist() -> None:
    held = Recordings()
    held.put("ann", "1", 0, b"ann's")
    with pytest.raises(NotFoundError):
        held.get("bob", "1")
    held.put("bob", "1", 0, b"bob's")
    held.drop("bob", "1")
    assert held.get("ann", "1") == b"ann's"


def test_what_is_too_large_is_refused_and_the_rest_kept() -> None:
    held = Recordings()
    held.put("ann", "1", 0, bytes(LARGEST_BYTES))
    with pytest.raises(InputError, match="larger than 10,000,000 bytes"):
        held.put("ann", "1", LARGEST_BYTES, b"x")
    assert len(held.get("ann", "1")) == LARGEST_BYTES


def test_what_nobody_asks_for_goes() -> None:
    now_s = 0.0
    held = Recordings(lambda: now_s)
    held.put("ann", "1", 0, b"old")
    now_s = recordings.KEEP_S - 1
    held.put("ann", "2", 0, b"new")
    assert held.get("ann", "1") == b"old"
    now_s = recordings.KEEP_S + 1
    with pytest.raises(NotFoundError, match="send it again"):
        held.get("ann", "1")
    assert held.get("ann", "2") == b"new"


def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Recordings()
    for number in range(recordings.PER_USER + 1):
        held.put("ann", str(number), 0, b"x")
        held.put("bob", "1", number, b"x")
    with pytest.raises(NotFoundError):
        held.get("ann", "0")
    assert held.get("ann", "1") == b"x"
    monkeypatch.setattr(recordings, "ALL_BYTES", 20)
    held.put("eve", "1", 0, bytes(15))
    assert held.get("eve", "1") == bytes(15)
    with pytest.raises(NotFoundError):
        held.get("ann", "1")
