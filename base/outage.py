"""Whether a service we depend on is away: one line of log when it goes, one when it is back."""

from __future__ import annotations

import time

from base import log

logger = log.get(__name__)


class Outage:
    """Tell it of every failure and every success; it logs only the changes."""

    def __init__(self, of: str) -> None:
        self._of = of
        self._since_s: float | None = None

    @property
    def on(self) -> bool:
        return self._since_s is not None

    def began(self, error: Exception) -> None:
        if self._since_s is None:
            self._since_s = time.monotonic()
            logger.warning(f"lost {self._of}", error=str(error) or type(error).__name__)

    def ended(self) -> None:
        if self._since_s is not None:
            duration_ms = int((time.monotonic() - self._since_s) * 1000)
            self._since_s = None
            logger.info(f"reached {self._of} again", duration_ms=duration_ms)
