"""Who is stuck and why: the rule as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from portal.stuck import QUEUE_MIN, QUIET_S, STALE_S, TOOL_S, Signs, trouble

WELL = Signs()
BUSY = Signs(status="busy", task=True, quiet_s=5.0)


@pytest.mark.parametrize(
    ("signs", "kind"),
    [
        (WELL, None),
        (BUSY, None),
        (replace(WELL, paused=True), None),
        (replace(WELL, window="starting", heartbeat_age_s=None), None),
        (replace(WELL, window=None), None),
        (replace(WELL, heartbeat_age_s=STALE_S), None),
        (replace(WELL, heartbeat_age_s=STALE_S + 1), "silent"),
        (replace(WELL, heartbeat_age_s=None), "silent"),
        (replace(WELL, heartbeat_age_s=None, window=None), "silent"),
        (replace(WELL, window="fatal", restarts=3), "gave up"),
        (replace(WELL, window="exited", heartbeat_age_s=900.0), "stopped"),
        (replace(WELL, window="backoff", restarts=1, heartbeat_age_s=900.0), "restarting"),
        (replace(WELL, status="error"), "error"),
        (replace(BUSY, approvals=2), "approval"),
        (replace(BUSY, approvals=1, paused=True), "approval"),
        (replace(BUSY, paused=True), "paused"),
        (replace(WELL, paused=True, waiting=1), "paused"),
        (replace(WELL, waiting=4), None),
        (replace(BUSY, quiet_s=QUIET_S), None),
        (replace(BUSY, quiet_s=QUIET_S + 1), "quiet"),
        (replace(BUSY, quiet_s=None), None),
        (replace(WELL, quiet_s=QUIET_S + 1), None),
        (replace(BUSY, quiet_s=QUIET_S + 1, tool_s=QUIET_S + 1), None),
        (replace(BUSY, quiet_s=TOOL_S + 1, tool_s=TOOL_S + 1), "tool"),
        (replace(WELL, queue=QUEUE_MIN, queue_before=1), "queue"),
        (replace(WELL, queue=QUEUE_MIN, queue_before=None), None),
        (replace(WELL, queue=QUEUE_MIN, queue_before=QUEUE_MIN), None),
        (replace(WELL, queue=QUEUE_MIN - 1, queue_before=0), None),
        (replace(BUSY, window="fatal", approvals=3, paused=True), "gave up"),
    ],
)
def test_the_gravest_reason_comes_first(signs: Signs, kind: str | None) -> None:
    found = trouble(signs)
    assert (found.kind if found else None) == kind
    if found is not None:
        assert found.said
        assert found.then
        assert found.bad == (kind in {"gave up", "stopped", "restarting", "silent", "error"})


def test_the_words_count() -> None:
    def said(**signs: object) -> str:
        found = trouble(replace(BUSY, **signs))  # type: ignore[arg-type]
        assert found is not None
        return found.said

    assert said(approvals=1) == "it waits for 1 approval"
    assert said(approvals=2) == "it waits for 2 approvals"
    assert said(paused=True, waiting=1) == "paused while 1 piece of work waits"
    assert said(paused=True, waiting=2) == "paused while 2 pieces of work wait"
    assert said(quiet_s=240.0).endswith("for 4 min")
    assert "4 times" in said(window="fatal", restarts=3)
