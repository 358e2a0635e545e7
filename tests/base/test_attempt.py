"""What an error means and how long to wait, by tables."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from base.attempt import AttemptError, asked_wait_s, judge, pause_s
from base.errors import SpendLimitError


@pytest.mark.parametrize(
    ("status", "kind", "code", "means"),
    [
        (429, "rate_limit_error", None, True),
        (408, None, None, True),
        (529, "overloaded_error", None, True),
        (None, "overloaded_error", None, True),
        (None, "api_error", None, True),
        (None, "invalid_request_error", None, False),
        (400, "invalid_request_error", None, False),
        (403, "permission_error", None, False),
        (404, "not_found_error", None, False),
        (501, "api_error", None, False),
        (429, "rate_limit_error", "enforced_spend_limit_reached", None),
        (429, "rate_limit_error", "contract_spend_limit_reached", None),
        (402, "billing_error", "linked_organization_spend_limit_reached", None),
        (402, None, None, None),
        (400, "billing_error", None, None),
        (None, "billing_error", None, None),
        (429, "rate_limit_error", "ramp_limit_exceeded", True),
    ],
)
def test_judge(status: int | None, kind: str | None, code: str | None, means: bool | None) -> None:
    found = judge(status, kind, code, "two\nlines", 3.0)
    assert "two lines" in str(found)
    if means is None:
        assert isinstance(found, SpendLimitError)
    else:
        assert isinstance(found, AttemptError)
        assert (found.again, found.wait_s) == (means, 3.0)


def test_asked_wait_reads_all_three_forms() -> None:
    assert asked_wait_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert asked_wait_s({"retry-after": "1.5"}) == 1.5
    assert asked_wait_s({"retry-after": "-4"}) == 0.0
    date = formatdate(time.time() + 60, usegmt=True)
    assert 55 < (asked_wait_s({"retry-after": date}) or 0) <= 60
    assert asked_wait_s({"retry-after": "soon"}) is None
    assert asked_wait_s({"retry-after": "nan"}) is None
    assert asked_wait_s({}) is None


def test_pauses_grow_and_end_at_a_minute() -> None:
    for attempt, most_s in enumerate((2, 4, 8, 16, 32, 60, 60), start=1):
        for _ in range(50):
            assert most_s / 2 <= pause_s(attempt, None, 2.0) <= most_s
    assert 90 <= pause_s(1, 90.0, 2.0) <= 99
