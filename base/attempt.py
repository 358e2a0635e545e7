"""One attempt at a model call that failed: what its error means and how long to wait. Pure but
for the clock and the jitter.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from base.errors import SpendLimitError

BACKOFF_MAX_S = 60.0
RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504, 529})
RETRY_KINDS = frozenset({"rate_limit_error", "overloaded_error", "api_error", "timeout_error"})
PAYMENT_REQUIRED = 402


class AttemptError(Exception):
    """One attempt failed. `again`: another may succeed; `wait_s`: how long the provider asks
    to wait (None: it did not say)."""

    def __init__(self, reason: str, *, again: bool = True, wait_s: float | None = None) -> None:
        self.again = again
        self.wait_s = wait_s
        super().__init__(reason)


def judge(
    status: int | None, kind: str | None, code: str | None, told: str, wait_s: float | None
) -> AttemptError | SpendLimitError:
    """What an error that the provider reported means: a spend cap, try again, or no for good."""
    told = " ".join(told.split())
    spend = (code or "").endswith("spend_limit_reached") or kind == "billing_error"
    if spend or status == PAYMENT_REQUIRED:
        return SpendLimitError(f"the provider's spend limit was reached: {told}")
    again = status in RETRY_STATUSES or (status is None and kind in RETRY_KINDS)
    where = f"{status} {kind or ''}".strip() if status else kind
    return AttemptError(f"the model answered {where}: {told}", again=again, wait_s=wait_s)


def pause_s(attempt: int, asked_s: float | None, base_s: float) -> float:
    """Seconds before the next attempt: as asked, else exponential; jitter spreads the callers."""
    if asked_s is not None:
        return asked_s * (1 + random.random() / 10)
    return min(BACKOFF_MAX_S, base_s * 2.0 ** (attempt - 1)) * (0.5 + random.random() / 2)


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the provider asks to wait: `retry-after-ms`, else `retry-after` in seconds or as
    an HTTP date; None when it said nothing that can be read."""
    for key, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            asked_s = float(headers[key]) * unit_s
            if math.isfinite(asked_s):
                return max(0.0, asked_s)
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())
